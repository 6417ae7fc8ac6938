import { describe, expect, it } from 'vitest';
import { PASID_ANSWER, PrivatePasids } from './pasid-space.js';

const { DONE, REFUSED } = PASID_ANSWER;

describe('a private PASID space', () => {
  it('gives out numbers from 1 on, each once', () => {
    const space = new PrivatePasids();
    expect([space.allocate(), space.allocate(), space.allocate()]).toEqual([1, 2, 3]);
    expect([space.free(2), space.free(2)]).toEqual([DONE, REFUSED]);
    expect(space.allocate()).toBe(4);
  });

  it('takes back only what it gave', () => {
    const space = new PrivatePasids();
    for (const pasid of [-1, 0, 1, 5, 0xfffff, 0x100000]) expect(space.free(pasid)).toBe(REFUSED);
  });

  it('has 2^20 - 1 of them, and uses a freed one again when no other is left', () => {
    const space = new PrivatePasids();
    const seen = new Set<number>();
    for (let n = 1; n < 1 << 20; n++) seen.add(space.allocate());
    expect([seen.size, Math.min(...[...seen].slice(0, 9)), seen.has(0)]).toEqual([0xfffff, 1, false]);
    expect(space.allocate()).toBe(REFUSED);
    // In the middle of a word, and in the word where the search begins and ends.
    for (const pasid of [0x12345, 0xfffff, 3]) {
      expect(space.free(pasid)).toBe(DONE);
      expect(space.allocate()).toBe(pasid);
      expect(space.allocate()).toBe(REFUSED);
    }
  });

  it.each([1, 4, 5, 7])('has those of %i bits and no more', (bits) => {
    const space = new PrivatePasids(bits);
    const all = Array.from({ length: 2 ** bits - 1 }, (_, n) => n + 1);
    expect(all.map(() => space.allocate())).toEqual(all);
    expect(space.allocate()).toBe(REFUSED);
    expect([space.has(0), space.has(1), space.has(2 ** bits)]).toEqual([false, true, false]);
    expect(space.free(2 ** bits)).toBe(REFUSED);
    space.free(1);
    expect(space.allocate()).toBe(1);
    space.releaseAll();
    expect(all.map(() => space.allocate())).toEqual(all);
  });

  it('has everything back after a release', () => {
    const space = new PrivatePasids();
    for (let n = 0; n < 100; n++) space.allocate();
    space.releaseAll();
    expect(space.free(50)).toBe(REFUSED);
    expect(space.allocate()).toBe(1);
  });
});
