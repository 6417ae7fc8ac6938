import { describe, expect, it } from 'vitest';
import { RamMap } from './ram-map.js';

const rangesOf = (ram: RamMap): [number, number][] =>
  Array.from({ length: ram.count }, (_, index) => [ram.first(index), ram.last(index)]);

describe('RAM that devices may reach', () => {
  it('is whole pages of regions that can be written, by rising address', () => {
    const ram = new RamMap();
    ram.add(1, 0x10_0000, 0x3000, false);
    ram.add(2, 0x800, 0x2000, false);
    ram.add(3, 0x20_0000, 0x1000, true);
    ram.add(4, 0x30_0800, 0x1000, false);
    ram.add(5, 0x40_0000, 0x1800, false);
    expect(rangesOf(ram)).toEqual([
      [1, 1],
      [0x100, 0x102],
      [0x400, 0x400],
    ]);
    expect([1, 2, 3, 4, 5, 6].map((region) => ram.indexOf(region))).toEqual([1, 0, -1, -1, 2, -1]);
    expect([0, 1, 2, 0x102, 0x103, 0x400, 0x401].map((page) => ram.from(page))).toEqual([
      0, 0, 1, 1, 2, 2, 3,
    ]);
  });

  it('goes region by region', () => {
    const ram = new RamMap();
    for (const region of [1, 2, 3]) ram.add(region, region * 0x1000, 0x1000, false);
    ram.remove(2);
    ram.remove(9);
    expect(rangesOf(ram)).toEqual([
      [1, 1],
      [3, 3],
    ]);
    ram.clear();
    expect(ram.count).toBe(0);
  });
});
