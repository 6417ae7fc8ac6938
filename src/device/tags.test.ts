import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import type { InvalidateScope } from './iommu.js';
import { names, Tags } from './tags.js';

const scope = (fields: Partial<InvalidateScope>): InvalidateScope => ({
  ...{ space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
  ...fields,
});

function tags(...pairs: readonly (readonly [number, number])[]): Tags {
  const found = new Tags();
  for (const [space, sub] of pairs) found.add(space, sub);
  return found;
}

/** Which of these spaces, each with any sub, something may be held under. */
const heldOf = (held: Tags, spaces: readonly number[]): number[] =>
  spaces.filter((space) => held.matches(scope({ space })));

describe('tags of what is held', () => {
  it('are matched by both, the second only where the scope and the entry have one', () => {
    const held = tags([7, 5], [8, ANY], [7, 6]);
    expect(heldOf(held, [7, 8, 9, ANY])).toEqual([7, 8, ANY]);
    const sub = (space: number, number: number) => held.matches(scope({ space, sub: number }));
    expect([sub(7, 5), sub(7, 6), sub(7, 9), sub(8, 9), sub(9, 5)]).toEqual([true, true, false, true, false]);
  });

  it('count a scope of addresses for every second tag', () => {
    const held = tags([7, 5]);
    expect(held.matches(scope({ space: 7, sub: 9, log2Size: 12 }))).toBe(true);
    expect(held.matches(scope({ space: 8, sub: 5, log2Size: 12 }))).toBe(false);
    expect(names(scope({ space: 7, sub: 9, log2Size: 63 }), 7, 5)).toBe(true);
    expect(names(scope({ space: 7, sub: 9 }), 7, 5)).toBe(false);
    expect(names(scope({}), 7, 5)).toBe(true);
  });

  it('go with an invalidation of all that they name', () => {
    const held = tags([7, 5], [7, 6], [8, 5], [9, ANY]);
    held.invalidated(scope({ space: 7, sub: 5 }));
    expect(held.matches(scope({ space: 7, sub: 5 }))).toBe(false);
    expect(held.matches(scope({ space: 7, sub: 6 }))).toBe(true);
    held.invalidated(scope({ space: 7 }));
    expect(heldOf(held, [7, 8, 9])).toEqual([8, 9]);
    // Entries without a second tag are more than those of one.
    held.invalidated(scope({ space: 9, sub: 5 }));
    expect(heldOf(held, [8, 9])).toEqual([8, 9]);
    held.invalidated(scope({}));
    expect(heldOf(held, [8, 9])).toEqual([]);
  });

  it('stay with one of addresses, of a PASID, or of other tags', () => {
    const held = tags([7, 5]);
    for (const part of [{ space: 7, log2Size: 63 }, { space: 7, pasid: 3 }, { space: 8 }, { pasid: 3 }]) {
      held.invalidated(scope(part));
      expect(heldOf(held, [7])).toEqual([7]);
    }
  });

  it('are more than can be told apart after 16: then every scope matches, until nothing is held', () => {
    const sixteen = Array.from({ length: 16 }, (_, n) => [n, 1] as const);
    const held = tags(...sixteen, ...sixteen);
    expect(heldOf(held, [15, 99])).toEqual([15]);
    held.add(16, 1);
    expect(heldOf(held, [15, 99])).toEqual([15, 99]);
    held.invalidated(scope({ space: 3 }));
    expect(heldOf(held, [99])).toEqual([99]);
    held.clear();
    expect(heldOf(held, [15, 99])).toEqual([]);
    held.add(15, 1);
    expect(heldOf(held, [15, 99])).toEqual([15]);
  });

  it('of another holder are added, its being concerned by everything too', () => {
    const held = tags([7, 5]);
    held.addAll(tags([8, 5], [9, 6]));
    expect(heldOf(held, [6, 7, 8, 9])).toEqual([7, 8, 9]);
    expect(held.matches(scope({ space: 9, sub: 5 }))).toBe(false);
    held.addAll(tags(...Array.from({ length: 17 }, (_, n) => [n, 1] as const)));
    expect(heldOf(held, [99])).toEqual([99]);
  });
});
