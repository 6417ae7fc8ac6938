import { describe, expect, it } from 'vitest';
import { EntryCache, MISS } from './entry-cache.js';

const words = (value: number): Uint32Array => new Uint32Array([value, value + 1]);

describe('entry cache', () => {
  it('keeps what was inserted until it is invalidated', () => {
    const cache = new EntryCache('faithful', 8, 2);
    expect(cache.find(1, 2)).toBe(MISS);
    cache.insert(1, 2, 5, 0, words(10));
    cache.insert(3, 2, 5, 0x59, words(20));
    cache.insert(4, 9, 6, 0, words(30));
    const slot = cache.find(1, 2);
    expect([cache.words[slot * 2], cache.words[slot * 2 + 1]]).toEqual([10, 11]);
    expect(cache.faultOf(cache.find(3, 2))).toBe(0x59);
    expect(cache.size).toBe(3);
    cache.invalidateDomainAndB(5, 9);
    cache.invalidateKey(1, 2, 6);
    expect(cache.size).toBe(3);
    cache.invalidateKey(1, 2, 5);
    expect(cache.find(1, 2)).toBe(MISS);
    cache.invalidateDomainAndB(5, 2);
    expect(cache.find(3, 2)).toBe(MISS);
    cache.invalidateKey(4, 9, -1);
    expect(cache.size).toBe(0);
    cache.insert(1, 2, 5, 0, words(10));
    cache.insert(4, 9, 6, 0, words(30));
    cache.invalidateDomain(6);
    expect([cache.find(4, 9), cache.size]).toEqual([MISS, 1]);
    cache.invalidateAll();
    expect([cache.find(1, 2), cache.size]).toEqual([MISS, 0]);
  });

  it('gives a slot to one entry at a time', () => {
    const cache = new EntryCache('faithful', 2, 2);
    for (let key = 0; key < 100; key++) cache.insert(key, 0, key, 0, words(key));
    expect(cache.size).toBeLessThanOrEqual(4);
    let found = 0;
    for (let key = 0; key < 100; key++) {
      const slot = cache.find(key, 0);
      if (slot === MISS) continue;
      found++;
      expect(cache.words[slot * 2]).toBe(key);
    }
    expect(found).toBe(cache.size);
  });

  it('policy none keeps nothing, hostile forgets at times', () => {
    const none = new EntryCache('none', 4, 2);
    none.insert(1, 1, 1, 0, words(1));
    expect(none.find(1, 1)).toBe(MISS);
    const hostile = new EntryCache('hostile', 4, 2);
    const seen = new Set<boolean>();
    for (let round = 0; round < 20; round++) {
      hostile.insert(1, 1, 1, 0, words(1));
      seen.add(hostile.find(1, 1) === MISS);
    }
    expect(seen).toEqual(new Set([true, false]));
  });
});
