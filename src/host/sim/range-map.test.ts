import { describe, expect, it } from 'vitest';
import { RangeMap } from './range-map.js';

const range = (page: number, pages: number) => ({ page, pages, guestPage: page * 2, rights: 3 });

describe('RangeMap', () => {
  it('knows what overlaps and who covers a page', () => {
    const map = new RangeMap();
    map.add(range(10, 5));
    map.add(range(100, 1));
    expect([map.overlaps(0, 10), map.overlaps(0, 11), map.overlaps(14, 1), map.overlaps(15, 85)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(map.at(14)?.page).toBe(10);
    expect(map.at(15)).toBeUndefined();
    expect(map.at(9)).toBeUndefined();
    expect(map.at(100)?.guestPage).toBe(200);
  });

  it('agrees with a plain array over random changes, in many chunks', () => {
    const map = new RangeMap();
    const plain = new Map<number, number>();
    let seed = 7;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    for (let step = 0; step < 8_000; step++) {
      const page = random(60_000) * 4;
      if (random(4) > 0) {
        const pages = 1 + random(4);
        const clash = plain.has(page);
        expect(map.overlaps(page, pages)).toBe(clash);
        if (!clash) {
          map.add(range(page, pages));
          plain.set(page, pages);
        }
      } else {
        const pages = random(300);
        const expected = [...plain.keys()]
          .filter((at) => at >= page && at < page + pages)
          .sort((a, b) => a - b);
        const most = random(2) === 0 ? 3 : Number.POSITIVE_INFINITY;
        const taken = map.take(page, pages, most).map((found) => found.page);
        expect(taken).toEqual(expected.slice(0, most));
        for (const at of taken) plain.delete(at);
      }
      expect(map.size).toBe(plain.size);
    }
    expect([...map].map((found) => found.page)).toEqual([...plain.keys()].sort((a, b) => a - b));
    expect(map.take(0, 10 ** 9).length).toBe(plain.size);
    expect([...map]).toEqual([]);
  });
});
