import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { type Scope, SimIotlb } from './sim-iotlb.js';

const PAGE = [0x1000, 0, 0x8000, 0, 12, 3];
const EVERYTHING: Scope = { space: ANY, sub: ANY, rid: ANY, pasid: ANY, base: 0n, log2Size: 64 };

describe('the simulated IOTLB', () => {
  it('answers inside a span, with the offset, for the rights it has', () => {
    const tlb = new SimIotlb();
    expect(tlb.lookup(1, -1, 1, 0x1234n)).toBeUndefined();
    tlb.fill(1, -1, 7, ANY, 0, [0x1000, 0, 0x8000, 0, 12, 1]);
    expect(tlb.lookup(1, -1, 1, 0x1234n)).toEqual({ gpa: 0x8234, permissions: 1, length: 0xdcc });
    expect(tlb.lookup(1, -1, 2, 0x1234n), 'no right to write').toBeUndefined();
    expect(tlb.lookup(2, -1, 1, 0x1234n), 'another requester').toBeUndefined();
    expect(tlb.lookup(1, 0, 1, 0x1234n), 'PASID 0 is not "no PASID"').toBeUndefined();
    expect(tlb.lookup(1, -1, 1, 0x2000n), 'the next page').toBeUndefined();
  });

  it('covers the whole input space with one span of 2^64', () => {
    const tlb = new SimIotlb();
    tlb.fill(1, -1, 7, ANY, 0, [0, 0, 0, 0, 64, 3]);
    expect(tlb.lookup(1, -1, 3, 0x12_3456_7000n)?.gpa).toBe(0x12_3456_7000);
  });

  it('drops by space, second tag, requester, PASID and range, and only what matches', () => {
    const scopes: [Partial<Scope>, boolean][] = [
      [{}, true],
      [{ space: 7 }, true],
      [{ space: 8 }, false],
      [{ sub: 5 }, true],
      [{ sub: 6 }, false],
      [{ rid: 1 }, true],
      [{ rid: 2 }, false],
      [{ pasid: 6 }, true],
      [{ pasid: 5 }, false],
      [{ base: 0x1000n, log2Size: 12 }, true],
      [{ base: 0x2000n, log2Size: 12 }, false],
      [{ base: 0n, log2Size: 14 }, true],
      [{ base: 0x4000n, log2Size: 14 }, false],
    ];
    for (const [change, drops] of scopes) {
      const tlb = new SimIotlb();
      tlb.fill(1, 5, 7, 5, 0, PAGE);
      tlb.invalidate({ ...EVERYTHING, ...change }, 1);
      expect(tlb.lookup(1, 5, 1, 0x1000n) === undefined, JSON.stringify(change, text)).toBe(drops);
    }
  });

  it('drops a large span when a part of it is withdrawn', () => {
    const tlb = new SimIotlb();
    tlb.fill(1, -1, 7, ANY, 0, [0, 0, 0, 0, 21, 3]);
    tlb.invalidate({ ...EVERYTHING, base: 0x5000n, log2Size: 12 }, 1);
    expect(tlb.size).toBe(0);
  });

  it('does not keep an answer older than the last invalidation of its space', () => {
    const tlb = new SimIotlb();
    tlb.invalidate({ ...EVERYTHING, space: 7 }, 5);
    expect(tlb.fill(1, -1, 7, ANY, 4, PAGE)).toBe(false);
    expect(tlb.size).toBe(0);
    expect(tlb.fill(1, -1, 8, ANY, 4, PAGE), 'another space').toBe(true);
    expect(tlb.fill(1, -1, 7, ANY, 5, PAGE), 'computed after it').toBe(true);
    tlb.invalidate(EVERYTHING, 6);
    expect(tlb.fill(1, -1, 9, ANY, 5, PAGE), 'a space never named').toBe(false);
  });

  it('drops what a command names that has no epoch, and does not keep what was asked for before', () => {
    const tlb = new SimIotlb();
    const before = tlb.generation;
    tlb.fill(1, -1, 7, 5, 0, PAGE);
    tlb.fill(1, -1, 7, 6, 0, [0x4000, 0, 0x8000, 0, 12, 3]);
    tlb.fill(1, -1, 8, 5, 0, [0x6000, 0, 0x8000, 0, 12, 3]);
    tlb.drop({ space: 7, sub: 5, first: 0n, end: 0x1000n });
    expect(tlb.size, 'the page behind').toBe(3);
    tlb.drop({ space: 7, sub: 5, first: 0x1000n, end: 0x2000n });
    expect(tlb.lookup(1, -1, 1, 0x1000n)).toBeUndefined();
    expect(tlb.size, 'another sub, another space').toBe(2);
    expect(tlb.fill(1, -1, 7, 5, 0, PAGE, before), 'asked for before').toBe(false);
    expect(tlb.fill(1, -1, 7, 9, 0, PAGE, before), 'of the same space').toBe(false);
    expect(tlb.fill(1, -1, 9, 5, 0, PAGE, before), 'of another space').toBe(true);
    expect(tlb.fill(1, -1, 7, 5, 0, PAGE, tlb.generation), 'asked for after').toBe(true);
    tlb.drop({ space: 7, sub: ANY, first: 0x1fffn, end: 0x2000n });
    expect(tlb.lookup(1, -1, 1, 0x4000n), 'not in the range').toBeDefined();
    tlb.drop({ space: 7, sub: ANY, first: 0n, end: 1n << 64n });
    expect(tlb.lookup(1, -1, 1, 0x4000n)).toBeUndefined();
  });

  it('compares epochs modulo 2^32', () => {
    const tlb = new SimIotlb();
    tlb.invalidate(EVERYTHING, 0xffff_fffe);
    expect(tlb.fill(1, -1, 7, ANY, 0xffff_fffd, PAGE)).toBe(false);
    expect(tlb.fill(1, -1, 7, ANY, 1, PAGE)).toBe(true);
  });
});

/** JSON has no BigInt. */
function text(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString(16) : value;
}
