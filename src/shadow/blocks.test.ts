import { describe, expect, it } from 'vitest';
import { BlockSet } from './blocks.js';

interface Block {
  readonly first: number;
  readonly log2: number;
  readonly out: number;
  readonly access: number;
  readonly tag: number;
}

function contents(set: BlockSet): Block[] {
  const blocks: Block[] = [];
  for (let more = set.seek(0); more; more = set.next()) {
    blocks.push({ first: set.first, log2: set.log2, out: set.out, access: set.access, tag: set.tag });
  }
  return blocks;
}

describe('BlockSet', () => {
  it('finds the block that covers a page, or the next one', () => {
    const set = new BlockSet();
    set.add(8, 3, 100, 3, 1);
    set.add(0, 2, 50, 1, 2);
    set.add(2 ** 51, 51, 0, 2, 3);
    expect(set.count).toBe(3);
    expect(set.pages).toBe(8 + 4 + 2 ** 51);
    expect([set.seek(3), set.first, set.last, set.out, set.access, set.tag]).toEqual([true, 0, 3, 50, 1, 2]);
    expect([set.seek(4), set.first]).toEqual([true, 8]);
    expect([set.seek(15), set.first]).toEqual([true, 8]);
    expect([set.seek(16), set.first, set.log2]).toEqual([true, 2 ** 51, 51]);
    expect(set.seek(2 ** 52 - 1)).toBe(true);
    expect(new BlockSet().seek(0)).toBe(false);
  });

  it('is a sorted list, whatever is done to it', () => {
    const set = new BlockSet();
    const naive = new Map<number, Block>();
    let state = 1;
    const below = (limit: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
    for (let step = 0; step < 20_000; step++) {
      const first = below(6000) * 4;
      if (below(3) > 0 && !naive.has(first)) {
        const block = { first, log2: below(3), out: below(1000), access: 1 + below(3), tag: step };
        naive.set(first, block);
        set.add(first, block.log2, block.out, block.access, block.tag);
      } else if (below(200) === 0) {
        const last = first + below(400);
        for (const { first: at, log2 } of [...naive.values()]) {
          if (at <= last && at + 2 ** log2 > first) naive.delete(at);
        }
        set.removeRange(first, last);
      } else if (set.seek(first) && set.first === first) {
        naive.delete(first);
        set.remove();
      }
    }
    expect(contents(set)).toEqual([...naive.values()].sort((a, b) => a.first - b.first));
    expect(set.count).toBe(naive.size);
    expect(set.pages).toBe([...naive.values()].reduce((sum, { log2 }) => sum + 2 ** log2, 0));
    set.removeRange(0, 2 ** 52 - 1);
    expect([set.count, set.pages, set.seek(0)]).toEqual([0, 0, false]);
  });

  it('the cursor stands on the next block after a removal, across chunks', () => {
    const set = new BlockSet();
    for (let page = 0; page < 5000; page++) set.add(page, 0, page, 3, page);
    let seen = 0;
    for (let more = set.seek(100); more; seen++) more = seen % 2 === 0 ? set.remove() : set.next();
    expect(seen).toBe(4900);
    expect(set.count).toBe(100 + 2450);
  });
});
