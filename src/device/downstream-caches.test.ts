import { describe, expect, it } from 'vitest';
import { LocalOutputs } from '../../test/support/local-machine.js';
import { ANY } from '../base/ids.js';
import { DownstreamCaches } from './downstream-caches.js';
import type { InvalidateScope } from './iommu.js';

function caches() {
  const told: InvalidateScope[] = [];
  const outputs = new LocalOutputs();
  const invalidate = (scope: InvalidateScope) => void told.push({ ...scope });
  return { told, downstream: new DownstreamCaches(Object.assign(outputs, { invalidate })) };
}

describe('caches downstream', () => {
  it.each([
    [12, 0x3456_7000, 0xfedc_ba98],
    [31, 0, 0xfedc_ba98],
    [32, 0, 0xfedc_ba98],
    [36, 0, 0xfedc_ba90],
    [63, 0, 0x8000_0000],
  ])('are told the aligned block of 2^%i bytes', (log2Size, lo, hi) => {
    const { told, downstream } = caches();
    downstream.tell(7, 5, 3, 0x3456_7abc, 0xfedc_ba98, log2Size);
    const tags = { space: 7, sub: 5, rid: 3, pasid: ANY };
    expect(told).toEqual([{ ...tags, lo, hi, log2Size, structures: false }]);
  });

  it('are told no address where all is meant', () => {
    const { told, downstream } = caches();
    for (const log2Size of [64, 65, 76]) downstream.tell(7, 5, ANY, 0x3456_7abc, 0x12, log2Size);
    for (const scope of told) expect(scope).toMatchObject({ lo: 0, hi: 0, log2Size: 64 });
    expect(told).toHaveLength(3);
  });

  it('are told of structures as such, and after that of translations as before', () => {
    const { told, downstream } = caches();
    downstream.structures(7, 5, 3);
    downstream.everything();
    downstream.tell(7, 5, 3, 0, 0, 12);
    const all = { pasid: ANY, lo: 0, hi: 0, log2Size: 64 };
    expect(told).toEqual([
      { ...all, space: 7, sub: 5, rid: 3, structures: true },
      { ...all, space: ANY, sub: ANY, rid: ANY, structures: true },
      { ...all, space: 7, sub: 5, rid: 3, log2Size: 12, structures: false },
    ]);
  });
});
