import { describe, expect, it } from 'vitest';
import { Bench, DATA, DIRTY, FIRST, OUT, out, ROOT, RW } from '../../test/support/shadow-unit.js';
import { ANY } from '../base/ids.js';
import { THROUGH } from '../device/tables.js';
import { LAST_PAGE } from './pages.js';

describe('Shadow', () => {
  it('announces a contiguous aligned range as one mapping, whatever pages it is made of', () => {
    const bench = new Bench();
    expect(bench.attach()).toEqual([]);
    bench.map(0x4000, OUT + 0x4000, 0x4000);
    expect(bench.invalidate(0x4000, 0x4000)).toEqual([`map 4000+4000 to ${out(0x4000)} 3`]);
    bench.unmap(0x4000, 0x4000);
    expect(bench.invalidate(0x4000, 0x4000)).toEqual(['unmap 4000+4000']);
  });

  it('cuts a range that is not aligned into the fewest blocks', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(3, OUT + 3, 6);
    expect(bench.invalidate()).toEqual([
      `map 3+1 to ${out(3)} 3`,
      `map 4+4 to ${out(4)} 3`,
      `map 8+1 to ${out(8)} 3`,
    ]);
  });

  it('sends nothing for tables that have not changed, and looks at pages rather than entries', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 1 << 16);
    expect(bench.invalidate()).toEqual([`map 0+10000 to ${out(0)} 3`]);
    const guest = bench.space().guest;
    const { work, comparisons } = guest?.mirrors[0] ?? { work: 0, comparisons: 0 };
    expect(bench.invalidate()).toEqual([]);
    const tables = 3 + 128;
    expect((guest?.mirrors[0].comparisons ?? 0) - comparisons).toBe(tables);
    expect((guest?.mirrors[0].work ?? 0) - work).toBeLessThan(tables * 40);
  });

  it('unmaps before it maps, and joins what goes together', () => {
    const bench = new Bench();
    bench.attach();
    for (let n = 0; n < 8; n++) bench.map(n, OUT + 100 - 2 * n);
    expect(bench.invalidate()).toHaveLength(8);
    for (let n = 0; n < 8; n++) bench.map(n, OUT + n);
    expect(bench.invalidate()).toEqual(['unmap 0+8', `map 0+8 to ${out(0)} 3`]);
  });

  it('takes a block that lost a part away and maps the rest anew; that is counted and said', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 8);
    bench.invalidate();
    bench.unmap(5);
    expect(bench.invalidate(5, 1)).toEqual([
      'unmap 0+8',
      `map 0+4 to ${out(0)} 3`,
      `map 4+1 to ${out(4)} 3`,
      `map 6+2 to ${out(6)} 3`,
    ]);
    // The first eight pages, and the seven that are left of them again.
    expect(bench.space().counters).toMatchObject({ maps: 4, pagesMapped: 15, unmaps: 1, splits: 1 });
    expect(bench.events).toEqual([{ kind: 'hostSplit', device: 1, rid: 8, count: 1 }]);
  });

  it('leaves what stands where more is added beside it', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT);
    bench.invalidate();
    bench.map(1, OUT + 1);
    expect(bench.invalidate(1, 1)).toEqual([`map 1+1 to ${out(1)} 3`]);
  });

  it('a look at one page does not see what else has changed', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(200, OUT + 200);
    bench.invalidate();
    bench.map(0, OUT);
    bench.map(100, OUT + 100);
    expect(bench.invalidate(0, 1)).toEqual([`map 0+1 to ${out(0)} 3`]);
    expect(bench.invalidate()).toEqual([`map 64+1 to ${out(100)} 3`]);
  });

  it('follows a large page that becomes a table, and back', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0x200, OUT, 512, RW, 2);
    expect(bench.invalidate(0x200, 1)).toEqual([`map 200+200 to ${out(0)} 3`]);
    bench.memory.poke(bench.entry(0x200, 2), 0n);
    bench.map(0x200, OUT + 1, 1);
    expect(bench.invalidate(0x200, 1)).toEqual(['unmap 200+200', `map 200+1 to ${out(1)} 3`]);
    bench.map(0x200, OUT, 512, RW, 2);
    expect(bench.invalidate(0x3ff, 1)).toEqual(['unmap 200+1', `map 200+200 to ${out(0)} 3`]);
  });

  it('rights are those of all levels together', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 2);
    bench.invalidate();
    const upper = bench.entry(0, 2);
    bench.memory.poke(upper, ((bench.memory.peek(upper) as bigint) & ~7n) | 1n);
    expect(bench.invalidate(0, 1)).toEqual(['unmap 0+2', `map 0+2 to ${out(0)} 1`]);
  });

  it('a table that comes with one of its pages is looked at as a whole', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 4);
    expect(bench.invalidate(1, 1)).toEqual([`map 0+4 to ${out(0)} 3`]);
  });

  it('two devices in one domain share one look at the tables', () => {
    const bench = new Bench();
    bench.attach(1);
    bench.attach(2);
    expect(bench.space(1).guest).toBe(bench.space(2).guest);
    bench.map(0, OUT, 4096);
    const before = bench.space(1).guest?.mirrors[0].work ?? 0;
    expect(bench.invalidate(0, 4096)).toEqual([`map 0+1000 to ${out(0)} 3`, `map 0+1000 to ${out(0)} 3`]);
    expect((bench.space(1).guest?.mirrors[0].work ?? 0) - before).toBeLessThan(4096 * 1.5);
  });

  it('maps RAM only, region by region, and nothing in the interrupt range', () => {
    const bench = new Bench();
    bench.shadow.ramAdded(2, DATA + 2 ** 34, 8192, false, bench.model);
    bench.shadow.ramAdded(3, DATA + 2 ** 35, 4096, true, bench.model);
    bench.attach();
    // The last page of one region and the first of the next, one without an owner, and one of a
    // read-only region.
    bench.map(0, OUT + 2 ** 22 - 1, 2);
    bench.map(2, OUT + 2 ** 22 + 2);
    bench.map(3, OUT + 2 ** 23);
    expect(bench.invalidate()).toEqual([`map 0+1 to ${out(2 ** 22 - 1)} 3`, `map 1+1 to ${out(2 ** 22)} 3`]);
    bench.map(0xfedff, OUT, 2);
    bench.map(0xfeeff, OUT, 2);
    expect(bench.invalidate()).toEqual([`map fedff+1 to ${out(0)} 3`, `map fef00+1 to ${out(1)} 3`]);
  });

  it('takes away what leads to RAM that goes, and maps it when it is back', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 16);
    bench.invalidate();
    bench.shadow.ramRemoved(1, bench.model);
    expect(bench.settle()).toEqual(['unmap 0+10']);
    bench.shadow.ramAdded(1, DATA, 8 * 4096, false, bench.model);
    expect(bench.settle()).toEqual([`map 0+8 to ${out(0)} 3`]);
    // Gone and back within one input: other memory, so another mapping.
    bench.shadow.ramRemoved(1, bench.model);
    bench.shadow.ramAdded(1, DATA, 8 * 4096, false, bench.model);
    expect(bench.settle()).toEqual(['unmap 0+8', `map 0+8 to ${out(0)} 3`]);
  });

  it('identity is all RAM; other tables leave nothing of it', () => {
    const bench = new Bench();
    bench.through = THROUGH.IDENTITY;
    expect(bench.attach()).toEqual([
      `map ${out(0)}+100000 to ${out(0)} 3`,
      `map ${out(2 ** 20)}+200000 to ${out(2 ** 20)} 3`,
      `map ${out(3 * 2 ** 20)}+100000 to ${out(3 * 2 ** 20)} 3`,
    ]);
    bench.through = THROUGH.TABLES;
    bench.map(7, OUT);
    expect(bench.invalidate()).toEqual([`unmap ${out(0)}+400000`, `map 7+1 to ${out(0)} 3`]);
    bench.through = THROUGH.NOTHING;
    expect(bench.invalidate()).toEqual(['unmap 7+1']);
  });

  it('ends a range where its table ends, whatever the copy beside it holds', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(511, OUT + 7);
    // The next table that is made, two tables further on, would go on from there.
    bench.map(1024, OUT + 8);
    bench.map(1025, OUT + 9);
    expect(bench.invalidate()).toEqual([`map 1ff+1 to ${out(7)} 3`, `map 400+2 to ${out(8)} 3`]);
  });

  it('works only where the host listens', () => {
    const bench = new Bench();
    bench.map(0, OUT, 16);
    bench.shadow.attach(1, 8, bench.model);
    expect(bench.settle()).toEqual([]);
    bench.shadow.listen(1, 4, 7);
    expect(bench.settle()).toEqual([`map 4+4 to ${out(4)} 3`]);
    bench.shadow.listen(1, 12, LAST_PAGE);
    expect(bench.settle()).toEqual([`map c+4 to ${out(12)} 3`]);
    // A new listener is there, and has nothing.
    bench.shadow.listen(1, 4, 7);
    expect(bench.settle()).toEqual([`map 4+4 to ${out(4)} 3`]);
  });

  it('remembers what was refused, and asks again when there may be room', () => {
    const bench = new Bench();
    bench.attach();
    let room = 2;
    bench.refuse = (text) => {
      if (text.startsWith('unmap')) room++;
      return text.startsWith('map') && room-- <= 0 ? 28 : 0;
    };
    for (const page of [0, 2, 4, 6]) bench.map(page, OUT + page);
    expect(bench.invalidate().filter((text) => text.endsWith('refused'))).toHaveLength(2);
    expect(bench.events).toMatchObject([
      { kind: 'hostRefused', error: 28, count: 2, failed: 2, bytes: 4096 },
    ]);
    expect([bench.space().held.count, bench.space().failed.count]).toEqual([2, 2]);
    expect(bench.invalidate(), 'not asked for again without a reason').toEqual([]);
    bench.unmap(0);
    room = 0;
    expect(bench.invalidate()).toEqual([
      'unmap 0+1',
      `map 4+1 to ${out(4)} 3`,
      `map 6+1 to ${out(6)} 3 refused`,
    ]);
    bench.unmap(6);
    expect(bench.invalidate(), 'what the guest takes back is forgotten').toEqual([]);
    bench.unmap(4);
    bench.invalidate();
    expect(bench.events.at(-1)).toEqual({ kind: 'hostAccepted', device: 1, rid: 8 });
  });

  it('an operation refused after its block was taken away again means nothing', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT);
    bench.shadow.markStale(
      { space: 1, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
      bench.model,
    );
    bench.shadow.work();
    const first = bench.shadow.take();
    bench.map(0, OUT + 1);
    bench.shadow.markStale(
      { space: 1, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
      bench.model,
    );
    bench.shadow.work();
    bench.shadow.answered(first?.id ?? 0, [0, 12]);
    expect(bench.settle()).toEqual(['unmap 0+1', `map 0+1 to ${out(1)} 3`]);
    expect([bench.space().held.count, bench.space().failed.count]).toEqual([1, 0]);
  });

  it('a host that does not let go is emptied, and one that can not be emptied is the end', () => {
    const bench = new Bench();
    bench.attach();
    bench.map(0, OUT, 2);
    bench.map(4, OUT + 4);
    bench.invalidate();
    let kept = 1;
    bench.refuse = (text) => (text === 'unmap 4+1' && kept-- > 0 ? 22 : 0);
    bench.unmap(4);
    const everything = `unmap 0+${(LAST_PAGE + 1).toString(16)}`;
    expect(bench.invalidate()).toEqual(['unmap 4+1 refused', everything, `map 0+2 to ${out(0)} 3`]);
    expect(bench.space().counters.stuck).toBe(1);
    bench.refuse = (text) => (text.startsWith('unmap') ? 22 : 0);
    bench.unmap(0);
    expect(() => bench.invalidate()).toThrow(/keeps mappings that must go/);
  });

  it('refuses answers to no request, and failures of operations that were not asked for', () => {
    const bench = new Bench();
    expect(() => bench.shadow.answered(77, [])).toThrow(/not waited for/);
    bench.map(0, OUT);
    bench.shadow.attach(1, 8, bench.model);
    bench.shadow.listen(1, 0, LAST_PAGE);
    bench.shadow.work();
    const batch = bench.shadow.take();
    expect(() => bench.shadow.answered(batch?.id ?? 0, [1, 12])).toThrow(/failure of operation 1/);
  });

  it('sets Accessed and Dirty before a mapping is in force, and not again', () => {
    for (const [format, table, leaf, readOnly] of [
      [DIRTY, 1n << 8n, (1n << 8n) | (1n << 9n), 1n << 8n],
      [FIRST, 1n << 5n, (1n << 5n) | (1n << 6n), 1n << 5n],
    ] as const) {
      const bench = new Bench();
      bench.format = format;
      bench.attach();
      bench.map(0, OUT, 1, 7);
      bench.map(1, OUT + 1, 1, format === DIRTY ? 1 : 5);
      expect(bench.invalidate()).toEqual([`map 0+1 to ${out(0)} 3`, `map 1+1 to ${out(1)} 1`]);
      expect((bench.memory.peek(bench.entry(0, 2)) as bigint) & table).toBe(table);
      expect((bench.memory.peek(bench.entry(0)) as bigint) & leaf).toBe(leaf);
      expect((bench.memory.peek(bench.entry(1)) as bigint) & leaf).toBe(readOnly);
      // The guest clears Dirty to see who writes: the device may do so at any moment.
      bench.memory.poke(bench.entry(0), (bench.memory.peek(bench.entry(0)) as bigint) & ~leaf);
      expect(bench.invalidate(0, 1)).toEqual([]);
      expect((bench.memory.peek(bench.entry(0)) as bigint) & leaf).toBe(leaf);
    }
  });

  it('maps both halves of a canonical input space', () => {
    const bench = new Bench();
    bench.format = FIRST;
    bench.attach();
    bench.map(5, OUT, 1, 7);
    bench.map(2 ** 36 - 1, OUT + 1, 1, 7);
    const top = LAST_PAGE.toString(16);
    expect(bench.invalidate()).toEqual([`map 5+1 to ${out(0)} 3`, `map ${top}+1 to ${out(1)} 3`]);
    bench.unmap(2 ** 36 - 1);
    expect(bench.invalidate(LAST_PAGE, 1)).toEqual([`unmap ${top}+1`]);
  });

  it('a table that refers to itself costs a bounded amount, and the machine goes on', () => {
    const bench = new Bench(1000);
    bench.attach();
    // Every entry of the root leads to the root: 512^4 pages.
    for (let n = 0; n < 512; n++) bench.memory.poke(ROOT + n * 8, BigInt(ROOT) + 3n);
    bench.invalidate();
    const mirror = bench.space().guest?.mirrors[0];
    expect(mirror?.tables).toBe(1001);
    expect(bench.space().held.count).toBe(0);
    expect(bench.events).toEqual([{ kind: 'shadowLimit', device: 1, rid: 8, what: 'tables' }]);
    for (let n = 0; n < 512; n++) bench.memory.poke(ROOT + n * 8, 0n);
    bench.map(1, OUT);
    expect(bench.invalidate()).toEqual([`map 1+1 to ${out(0)} 3`]);
    expect(mirror?.tables).toBe(4);
  });

  it('tables that found no room are shadowed when there is some', () => {
    const bench = new Bench(5);
    bench.attach();
    for (const page of [0, 512, 1024, 1536]) bench.map(page, OUT + page);
    expect(bench.invalidate()).toHaveLength(3);
    bench.memory.poke(bench.entry(0, 2), 0n);
    expect(bench.invalidate()).toEqual(['unmap 0+1', `map 600+1 to ${out(1536)} 3`]);
  });

  it('does a bounded amount at a time: a large change comes in several batches', () => {
    const bench = new Bench();
    bench.attach();
    // Nothing can be joined: 40,000 mappings.
    for (let n = 0; n < 40_000; n++) bench.map(n, OUT + 2 * (n ^ 1));
    bench.shadow.markStale(
      { space: 1, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
      bench.model,
    );
    bench.shadow.work();
    let taken = 0;
    for (let batch = bench.shadow.take(); batch !== undefined; batch = bench.shadow.take()) {
      expect(batch.words.length * 4).toBeLessThan(65_000);
      taken += batch.count;
    }
    expect(taken).toBeLessThan(40_000);
  });
});
