/** Where copies of tables are kept, and where the tables that they are of lie. */
import { describe, expect, it } from 'vitest';
import { TableHomes } from './table-homes.js';
import { MirrorBudget, TablePool } from './table-pool.js';

describe('room for copies', () => {
  it.each([64, 4096, 2 ** 18, 2 ** 20])('of %i bytes each is of their own, and zeros', (bytes) => {
    const pool = new TablePool(bytes, new MirrorBudget(bytes * 100));
    const slots = Array.from({ length: 100 }, () => pool.take());
    expect(new Set(slots).size).toBe(100);
    slots.forEach((slot, value) => {
      const at = pool.offsetOf(slot);
      pool.wordsOf(slot).fill(value + 1, at, at + bytes / 4);
    });
    for (const [value, slot] of slots.entries()) {
      const at = pool.offsetOf(slot);
      const words = pool.wordsOf(slot).subarray(at, at + bytes / 4);
      expect([words.length, words[0], words.at(-1)]).toEqual([bytes / 4, value + 1, value + 1]);
      expect(pool.bytesOf(slot)[at * 4]).toBe(value + 1);
    }
    expect(pool.take()).toBe(-1);
    pool.give(slots[7] as number);
    const again = pool.take();
    expect([again, pool.wordsOf(again)[pool.offsetOf(again)]]).toEqual([slots[7], 0]);
  });

  it('is bounded for all pools together, and comes back', () => {
    const budget = new MirrorBudget(4 * 4096);
    const one = new TablePool(4096, budget);
    const two = new TablePool(8192, budget);
    expect([one.take(), one.take(), two.take(), one.take(), two.take()]).toEqual([0, 1, 0, -1, -1]);
    one.give(0);
    expect(budget.bytes).toBe(4096);
    one.clear();
    expect(budget.bytes).toBe(2 * 4096);
    two.clear();
    expect([budget.bytes, one.take()]).toEqual([4 * 4096, 0]);
  });
});

describe('homes of tables', () => {
  it('are found by every page that they lie on, wholly or in part, and told', () => {
    const told: string[] = [];
    const say = (what: string) => (address: number, bytes: number) =>
      void told.push(`${what} ${address.toString(16)}+${bytes.toString(16)}`);
    const homes = new TableHomes({ linked: say('+'), unlinked: say('-') });
    homes.add(1, 0x1000, 4096);
    homes.add(2, 0x1800, 0x800);
    homes.add(3, 0x2000, 0x4000);
    homes.add(4, 0x1000, 4096);
    const at = (): (readonly number[])[] => [0, 1, 2, 5, 6].map((page) => [...homes.at(page)]);
    expect(at()).toEqual([[], [1, 2, 4], [3], [3], []]);
    expect(told.splice(0)).toEqual(['+ 1000+1000', '+ 1800+800', '+ 2000+4000', '+ 1000+1000']);
    homes.remove(2);
    homes.remove(3);
    expect(at()).toEqual([[], [1, 4], [], [], []]);
    expect(told.splice(0)).toEqual(['- 1800+800', '- 2000+4000']);
    homes.clear();
    expect(at()).toEqual([[], [], [], [], []]);
    expect(told).toEqual(['- 1000+1000', '- 1000+1000']);
  });
});
