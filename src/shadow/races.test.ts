import { describe, expect, it } from 'vitest';
import { Bench, FIRST, OUT, out } from '../../test/support/shadow-unit.js';
import type { GuestMemory } from '../memory/guest-memory.js';

/** The guest does `change` when the shadow is about to read at `gpa` for the nth time. */
function meanwhile(bench: Bench, gpa: number, nth: number, change: () => void): void {
  const { memory } = bench;
  let left = nth;
  const before = (at: number): void => {
    if (at === gpa && --left === 0) change();
  };
  const { load64, loadWords, sameBytes, cas32 } = memory;
  const hooked: Partial<GuestMemory> = {
    load64: (at) => {
      before(at);
      return load64.call(memory, at);
    },
    loadWords: (at, into, count) => {
      before(at);
      return loadWords.call(memory, at, into, count);
    },
    sameBytes: (at, copy, from, bytes) => {
      before(at);
      return sameBytes.call(memory, at, copy, from, bytes);
    },
    cas32: (at, expected, value) => {
      before(at);
      return cas32.call(memory, at, expected, value);
    },
  };
  Object.assign(memory, hooked);
}

describe('a guest that changes its tables while they are looked at', () => {
  it('gets what an entry said at some moment, and what it says now with the next invalidation', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 16);
    bench.invalidate();
    bench.map(3, OUT + 100);
    const table = bench.entry(0);
    // The table was found to differ; when its entries are read, they have changed once more.
    meanwhile(bench, table, 2, () => {
      bench.map(3, OUT + 200);
      bench.unmap(4);
    });
    const rest = [`map 0+2 to ${out(0)} 3`, `map 2+1 to ${out(2)} 3`, `map 3+1 to ${out(200)} 3`];
    expect(bench.invalidate(0, 16)).toEqual([
      'unmap 0+10',
      ...rest,
      `map 5+1 to ${out(5)} 3`,
      `map 6+2 to ${out(6)} 3`,
      `map 8+8 to ${out(8)} 3`,
    ]);
    expect(bench.invalidate(), 'nothing is left to do').toEqual([]);
  });

  it('does not hide a change that comes behind the comparison', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 2);
    bench.invalidate();
    const table = bench.entry(0);
    bench.map(600, OUT + 600);
    // Found to be the same, and changed as soon as it was.
    meanwhile(bench, bench.entry(512), 1, () => bench.memory.poke(table, 0n));
    expect(bench.invalidate()).toEqual([`map 258+1 to ${out(600)} 3`]);
    expect(bench.invalidate()).toEqual(['unmap 0+2', `map 1+1 to ${out(1)} 3`]);
  });

  it('that takes a table out while it is read is left with nothing of it by the next invalidation', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT);
    bench.map(512, OUT + 512, 4);
    const link = bench.entry(512, 2);
    const other = bench.entry(0);
    meanwhile(bench, bench.entry(512), 1, () => bench.memory.poke(link, BigInt(other) + 7n));
    expect(bench.invalidate()).toEqual([`map 0+1 to ${out(0)} 3`, `map 200+4 to ${out(512)} 3`]);
    expect(bench.invalidate()).toEqual(['unmap 200+4', `map 200+1 to ${out(0)} 3`]);
  });

  it('whenever Accessed is to be set goes without the mapping, and has it when it stops', () => {
    const bench = new Bench();
    bench.format = FIRST;
    bench.attach();
    bench.map(0, OUT, 1, 7);
    const entry = bench.entry(0);
    const { cas32 } = bench.memory;
    let changes = 0;
    bench.memory.cas32 = (gpa, expected, value) => {
      if (gpa === entry) bench.memory.poke(entry, BigInt(OUT + (++changes % 2)) * 4096n + 7n);
      return cas32.call(bench.memory, gpa, expected, value);
    };
    expect(bench.invalidate()).toEqual([]);
    expect(changes).toBeLessThan(20);
    bench.memory.cas32 = cas32;
    expect(bench.invalidate()).toEqual([`map 0+1 to ${out(changes % 2)} 3`]);
  });
});
