import { describe, expect, it } from 'vitest';
import { ArrayMemory, halves } from './array.js';

const HIGH = 0x40_0000_0000;

function memory(): ArrayMemory {
  return new ArrayMemory([
    { base: 0x10_0000, bytes: 8192 },
    { base: 0, bytes: 4096, writable: false },
    { base: HIGH, bytes: 2 ** 40, sparse: true },
  ]);
}

describe('ArrayMemory', () => {
  it('stores and loads in every region, little-endian', () => {
    const m = memory();
    for (const at of [0x10_0008, HIGH + 2 ** 39 + 16]) {
      expect(m.store64(at, 0x89abcdef, 0x01234567)).toBe(true);
      expect(m.load64(at)).toBe(true);
      expect([m.lo >>> 0, m.hi >>> 0]).toEqual([0x89abcdef, 0x01234567]);
      expect(m.load32(at + 4)).toBe(true);
      expect(m.lo).toBe(0x01234567);
      const words = new Uint32Array(3);
      expect(m.loadWords(at, words, 3)).toBe(true);
      expect([...words]).toEqual([0x89abcdef, 0x01234567, 0]);
      expect(m.peek(at)).toBe(0x01234567_89abcdefn);
    }
  });

  it('reads sparse pages that were never stored to as zero, and does not share them', () => {
    const m = memory();
    expect(m.load64(HIGH)).toBe(true);
    expect([m.lo, m.hi]).toEqual([0, 0]);
    m.store32(HIGH, 5);
    expect(m.load32(HIGH + 4096)).toBe(true);
    expect(m.lo).toBe(0);
  });

  it('refuses what is outside of RAM, astride its end, unaligned or not writable', () => {
    const m = memory();
    expect(m.load64(4096)).toBe(false);
    expect(m.load64(0x10_2000)).toBe(false);
    expect(m.loadWords(0x10_1ff8, new Uint32Array(4), 4)).toBe(false);
    expect(m.load64(0x10_0004)).toBe(false);
    expect(m.load32(0x10_0002)).toBe(false);
    expect(m.load64(-8)).toBe(false);
    expect(m.load64(Number.NaN)).toBe(false);
    expect(m.store64(0, 1, 0)).toBe(false);
    expect(m.cas32(0, 0, 1)).toBe(false);
    expect(m.load32(0)).toBe(true);
    expect(m.lo).toBe(0);
    expect(m.poke(0, 7n)).toBe(true);
    expect(m.contains(0x10_0000, 8192)).toBe(true);
    expect(m.contains(0x10_0000, 8193)).toBe(false);
  });

  it('exchanges only what was expected, and tells what is there', () => {
    const m = memory();
    m.store32(0x10_0000, 0x8000_0001);
    expect(m.cas32(0x10_0000, 5, 6)).toBe(false);
    expect(m.lo >>> 0).toBe(0x8000_0001);
    expect(m.cas32(0x10_0000, 0x8000_0001, 6)).toBe(true);
    m.load32(0x10_0000);
    expect(m.lo).toBe(6);
    expect(m.cas32(0x7000_0000, 0, 1)).toBe(false);
  });

  it('counts loads when asked to, but not those of a test that peeks', () => {
    const m = memory();
    m.load64(0x10_0000);
    m.counting = true;
    m.load64(0x10_0000);
    m.load64(HIGH);
    m.peek(HIGH);
    expect(m.loads).toBe(2);
  });

  it('rejects regions that make no sense', () => {
    expect(() => new ArrayMemory([])).toThrow();
    expect(() => new ArrayMemory([{ base: 1, bytes: 4096 }])).toThrow();
    expect(
      () =>
        new ArrayMemory([
          { base: 0, bytes: 8192 },
          { base: 4096, bytes: 4096 },
        ]),
    ).toThrow('overlap');
  });
});

describe('halves', () => {
  it('splits exact numbers and refuses others', () => {
    expect(halves(0x12_8000_0001)).toEqual([0x8000_0001, 0x12]);
    expect(() => halves(-1)).toThrow();
  });
});
