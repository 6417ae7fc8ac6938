import { describe, expect, it } from 'vitest';
import { PageRanges } from './ranges.js';

function contents(ranges: PageRanges): [number, number][] {
  return Array.from({ length: ranges.count }, (_, index) => [ranges.first(index), ranges.last(index)]);
}

describe('PageRanges', () => {
  it('joins what touches, in any order', () => {
    const ranges = new PageRanges();
    ranges.add(10, 19);
    ranges.add(30, 39);
    ranges.add(0, 4);
    expect(contents(ranges)).toEqual([
      [0, 4],
      [10, 19],
      [30, 39],
    ]);
    ranges.add(20, 29);
    ranges.add(5, 5);
    expect(contents(ranges)).toEqual([
      [0, 5],
      [10, 39],
    ]);
    ranges.add(3, 50);
    expect(contents(ranges)).toEqual([[0, 50]]);
  });

  it('joins all where one more, out of order, would be too many', () => {
    const ranges = new PageRanges(3);
    const counts = [40, 30, 20, 10, 0].map((first) => {
      ranges.add(first, first + 1);
      return ranges.count;
    });
    expect(counts).toEqual([1, 2, 3, 1, 2]);
    expect(contents(ranges)).toEqual([
      [0, 1],
      [10, 41],
    ]);
  });

  it('takes ranges out, and is advanced from below', () => {
    const ranges = new PageRanges();
    ranges.add(0, 100);
    ranges.add(200, 300);
    ranges.remove(50, 250);
    expect(contents(ranges)).toEqual([
      [0, 49],
      [251, 300],
    ]);
    ranges.advance(20);
    expect(contents(ranges)[0]).toEqual([20, 49]);
    ranges.advance(50);
    expect(contents(ranges)).toEqual([[251, 300]]);
    expect([ranges.contains(251), ranges.contains(250), ranges.contains(301)]).toEqual([true, false, false]);
  });

  it('a long list is joined rather than edited, and never loses a page', () => {
    const ranges = new PageRanges(8);
    for (let n = 0; n < 20; n++) ranges.add(n * 10, n * 10 + 1);
    expect(ranges.count).toBe(20);
    ranges.add(55, 56);
    expect(contents(ranges)).toEqual([[0, 191]]);
  });

  it('is the same as a set of pages', () => {
    const ranges = new PageRanges();
    const pages = new Set<number>();
    let state = 7;
    const below = (limit: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
    for (let step = 0; step < 3000; step++) {
      const first = below(2000);
      const last = first + below(12);
      const out = below(3) === 0;
      if (out) ranges.remove(first, last);
      else ranges.add(first, last);
      for (let page = first; page <= last; page++) {
        if (out) pages.delete(page);
        else pages.add(page);
      }
    }
    const found = contents(ranges).flatMap(([first, last]) =>
      Array.from({ length: last - first + 1 }, (_, n) => first + n),
    );
    expect(found).toEqual([...pages].sort((a, b) => a - b));
  });
});
