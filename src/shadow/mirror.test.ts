/** Copies of tables: which changes are found, and whose tables they are. */
import { describe, expect, it } from 'vitest';
import { Bench, DIRTY, FIRST, OUT, out, ROOT } from '../../test/support/shadow-unit.js';
import { type AddressSpaceTables, noTables, THROUGH } from '../device/tables.js';
import { GuestSpace } from './guest-space.js';
import { RamMap } from './ram-map.js';
import { MirrorBudget } from './table-pool.js';

const GIB_4 = 2 ** 20;
/** First page of the upper canonical half of 48 bits. */
const UPPER = 2 ** 52 - 2 ** 35;

describe('a copy of tables', () => {
  it('follows an entry that changes in its high half alone', () => {
    const bench = new Bench();
    bench.map(0, OUT);
    bench.attach();
    bench.map(0, OUT + GIB_4);
    expect(bench.invalidate()).toEqual(['unmap 0+1', `map 0+1 to ${out(GIB_4)} 3`]);
  });

  it('follows it, too, where the entry has its Accessed and Dirty bits already', () => {
    const bench = new Bench();
    bench.format = DIRTY;
    bench.map(0, OUT);
    bench.attach();
    bench.map(0, OUT + GIB_4, 1, 0x303);
    expect(bench.invalidate()).toEqual(['unmap 0+1', `map 0+1 to ${out(GIB_4)} 3`]);
  });

  it('has nothing of an entry with reserved bits set, until they are not', () => {
    const bench = new Bench();
    bench.map(0, OUT + 2 ** 38);
    bench.map(1, OUT);
    expect(bench.attach()).toEqual([`map 1+1 to ${out(0)} 3`]);
    bench.map(0, OUT);
    expect(bench.invalidate()).toEqual([`map 0+1 to ${out(0)} 3`]);
  });

  it('is looked at where the guest has stored, and nowhere else', () => {
    const bench = new Bench();
    bench.shadow.track();
    bench.map(0, OUT, 8);
    bench.attach();
    for (const page of [2, 3, 4, 5]) bench.map(page, OUT + 100 + page);
    bench.shadow.stored(bench.entry(3), 16);
    const changed = bench.settle();
    expect(changed.filter((text) => text.startsWith('map')).map((text) => text.split(' to ')[1])).toEqual(
      expect.arrayContaining([`${out(103)} 3`]),
    );
    expect(changed.join()).not.toMatch(new RegExp(`${out(102)}|${out(105)}`));
    bench.shadow.stored(bench.entry(2), 8);
    bench.shadow.stored(bench.entry(5) + 4, 4);
    expect(bench.settle().join()).toMatch(new RegExp(`${out(102)}.*${out(105)}`));
  });

  it('is of no interest to a store where nothing is tracked', () => {
    const bench = new Bench();
    bench.map(0, OUT);
    bench.attach();
    bench.map(0, OUT + 1);
    bench.shadow.stored(bench.entry(0), 8);
    expect([bench.shadow.pending, bench.settle()]).toEqual([0, []]);
  });

  it('of a first stage is of both canonical halves', () => {
    const bench = new Bench();
    bench.format = FIRST;
    bench.map(0, OUT, 1, 7);
    bench.map(UPPER, OUT + 1, 1, 7);
    bench.map(2 ** 52 - 1, OUT + 2, 1, 7);
    expect(bench.attach()).toEqual([
      `map 0+1 to ${out(0)} 3`,
      `map ${UPPER.toString(16)}+1 to ${out(1)} 3`,
      `map ${(2 ** 52 - 1).toString(16)}+1 to ${out(2)} 3`,
    ]);
    bench.map(UPPER, OUT + 9, 1, 7);
    bench.map(0, OUT + 8, 1, 7);
    expect(bench.invalidate(UPPER, 1)).toEqual([
      `unmap ${UPPER.toString(16)}+1`,
      `map ${UPPER.toString(16)}+1 to ${out(9)} 3`,
    ]);
    expect(bench.invalidate(0, 1)).toEqual(['unmap 0+1', `map 0+1 to ${out(8)} 3`]);
  });
});

describe('tables of a guest', () => {
  const { format } = new Bench();
  const spaceOf = (tables: AddressSpaceTables): GuestSpace =>
    new GuestSpace(tables, new Bench().memory, new RamMap(), new MirrorBudget(2 ** 20), undefined);
  const of = (through: number, change: Partial<AddressSpaceTables> = {}): AddressSpaceTables => ({
    ...noTables(),
    ...{ through, reach: 48, count: through >= THROUGH.TABLES ? 1 : 0, formats: [format], roots: [ROOT] },
    ...(through === THROUGH.NESTED && { secondFormat: format, secondRoot: 0x5000 }),
    ...change,
  });
  const { IDENTITY, TABLES, NESTED } = THROUGH;

  it.each([IDENTITY, TABLES, NESTED])(
    'are the same ones when all that counts is the same (%i)',
    (through) => {
      const space = spaceOf(of(through));
      expect(space.matches(of(through))).toBe(true);
      expect(space.matches(of(through, { space: 7, sub: 8 }))).toBe(true);
      space.dispose();
    },
  );

  it.each([
    ['the way', IDENTITY, { through: THROUGH.NOTHING }],
    ['the width of what passes', IDENTITY, { reach: 47 }],
    ['the hole’s begin', TABLES, { holeFirst: 0 }],
    ['the hole’s end', TABLES, { holeLast: 5 }],
    ['how many trees there are', TABLES, { count: 0 }],
    ['the format', TABLES, { formats: [FIRST] }],
    ['the root', TABLES, { roots: [0x2000] }],
    ['whether bits may be set', TABLES, { updates: false }],
    ['whether addresses tell where', TABLES, { addressed: true }],
    ['whether addresses tell where, nested', NESTED, { addressed: true }],
    ['the format of stage 2', NESTED, { secondFormat: FIRST }],
    ['the root of stage 2', NESTED, { secondRoot: 0x6000 }],
  ])('are others when %s is another', (_, through, change) => {
    const space = spaceOf(of(through));
    expect(space.matches(of(through, change))).toBe(false);
    space.dispose();
  });
});
