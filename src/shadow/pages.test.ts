import { describe, expect, it } from 'vitest';
import { blockAt, LAST_PAGE } from './pages.js';

describe('the largest block at a page', () => {
  it('is as aligned as the lowest bit of its number says', () => {
    const logs = Array.from({ length: 52 }, (_, log2) => log2);
    expect(logs.map((log2) => blockAt(2 ** log2, LAST_PAGE))).toEqual(logs);
    const threefold = logs.slice(0, 50);
    expect(threefold.map((log2) => blockAt(3 * 2 ** log2, LAST_PAGE))).toEqual(threefold);
    expect([blockAt(0, LAST_PAGE), blockAt(LAST_PAGE, LAST_PAGE)]).toEqual([52, 0]);
  });

  it.each([
    [0, 7, 3],
    [0, 6, 2],
    [8, 11, 2],
    [4, 100, 2],
    [5, 5, 0],
    [2 ** 40, 2 ** 40 + 2 ** 35 - 1, 35],
    [2 ** 40, 2 ** 40 + 2 ** 35 - 2, 34],
  ])('%i of those to %i has 2^%i', (first, last, log2) => {
    expect(blockAt(first, last)).toBe(log2);
  });
});
