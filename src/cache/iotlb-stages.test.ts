import { describe, expect, it } from 'vitest';
import { MISS } from './entry-cache.js';
import { Iotlb, STAGE } from './iotlb.js';

const DOMAIN = 7;

/** Two first-stage entries of different tags and a second-stage one, at pages 1, 2 and 3. */
function filled(): Iotlb {
  const tlb = new Iotlb('faithful');
  tlb.insert(1, 5, 0x1000, 0, 12, 0, 0, 3, 3, DOMAIN, 5, STAGE.FIRST, 0);
  tlb.insert(1, 6, 0x2000, 0, 12, 0, 0, 3, 3, DOMAIN, 6, STAGE.FIRST, 0);
  tlb.insert(1, -1, 0x3000, 0, 12, 0, 0, 3, 3, DOMAIN, -1, STAGE.SECOND, 0);
  return tlb;
}

const left = (tlb: Iotlb): number[] =>
  [5, 6, -1].filter((pasid, index) => tlb.lookup(1, pasid, (index + 1) * 0x1000, 0) !== MISS);

describe('invalidation by stage', () => {
  it('drops the first stage of a domain alone', () => {
    const tlb = filled();
    tlb.invalidateFirstStage(DOMAIN + 1);
    expect(left(tlb)).toEqual([5, 6, -1]);
    tlb.invalidateFirstStage(DOMAIN);
    expect(left(tlb)).toEqual([-1]);
  });

  it('drops first-stage pages whatever their tag', () => {
    const tlb = filled();
    tlb.invalidateFirstStagePages(DOMAIN, 0x2000, 0, 1);
    expect(left(tlb)).toEqual([5, -1]);
  });

  it('drops second-stage pages and leaves the first stage', () => {
    const tlb = filled();
    tlb.invalidateSecondStagePages(DOMAIN, 0, 0, 1);
    expect(left(tlb)).toEqual([5, 6, -1]);
    tlb.invalidateSecondStagePages(DOMAIN, 0, 0, 2);
    expect(left(tlb)).toEqual([5, 6]);
  });
});

describe('parts of a larger block', () => {
  it('go with any address of the block, and only then', () => {
    const tlb = new Iotlb('faithful');
    const add = (page: number, origin: number): void =>
      tlb.insert(1, 5, page * 0x1000, 0, 12, 0, 0, 3, 3, DOMAIN, 5, STAGE.FIRST, 0, origin);
    const has = (page: number): boolean => tlb.lookup(1, 5, page * 0x1000, 0) !== MISS;
    add(0x10, 16);
    add(0x1f, 16);
    add(0x20, 12);
    tlb.invalidateTaggedPages(DOMAIN, 5, 0x2_1000, 0, 0);
    expect([has(0x10), has(0x1f), has(0x20)]).toEqual([true, true, true]);
    tlb.invalidateTaggedPages(DOMAIN, 5, 0x1_5000, 0, 0);
    expect([has(0x10), has(0x1f), has(0x20)]).toEqual([false, false, true]);
    expect(tlb.size).toBe(1);
    tlb.invalidateTaggedPages(DOMAIN, 5, 0x2_0000, 0, 0);
    expect(tlb.size).toBe(0);
  });
});
