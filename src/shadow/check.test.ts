/** What `viommu diff` says: tables read afresh, beside what the host has mapped. */
import { describe, expect, it } from 'vitest';
import { Bench, FIRST, OUT } from '../../test/support/shadow-unit.js';
import { THROUGH } from '../device/tables.js';
import { type DiffAnswer, differences, type HostDifference } from './check.js';

const address = (page: number, within = 0): string =>
  `0x${(page * 4096 + within).toString(16).padStart(16, '0')}`;

/** A device with 8 pages mapped, in one block each two of which are contiguous. */
function shadowed(): Bench {
  const bench = new Bench();
  for (const page of [0, 2, 4, 6]) bench.map(page, OUT + 2 * page, 2);
  bench.attach();
  return bench;
}

function diff(bench: Bench, most = 10, rid?: number): DiffAnswer {
  return differences(bench.shadow, bench.model, bench.memory, rid, most);
}

/** Without the entries on the way. */
function found(bench: Bench): Omit<HostDifference, 'entries'>[] {
  return diff(bench).differences.map(({ entries: _, ...rest }) => rest);
}

describe('host and tables', () => {
  it('agree after an invalidation', () => {
    expect(diff(shadowed())).toEqual({ devices: 1, mappings: 4, differences: [], more: false });
  });

  it('differ page by page where the guest has changed its tables and not said so', () => {
    const bench = shadowed();
    bench.map(1, OUT + 100);
    bench.unmap(4, 2);
    bench.map(9, OUT + 9);
    bench.map(6, OUT + 12, 2, 1);
    const at = { device: 1, rid: 8, refused: false };
    const place = (page: number, rights = 'rw'): string => `${address(OUT + page)} ${rights}`;
    const range = (first: number, last = first) => ({
      ...{ first: address(first), last: address(last, 0xfff) },
    });
    expect(found(bench)).toEqual([
      { ...at, ...range(1), wanted: place(100), mapped: place(1) },
      { ...at, ...range(4, 5), mapped: place(8) },
      { ...at, ...range(6, 7), wanted: place(12, 'r-'), mapped: place(12) },
      { ...at, ...range(9), wanted: place(9) },
    ]);
  });

  it('are shown with the entries on the way to the first page', () => {
    const bench = shadowed();
    bench.unmap(4, 2);
    const [difference] = diff(bench).differences;
    expect(difference?.entries.map(({ name, verdict }) => [name, verdict])).toEqual([
      ['SS-PML4E', 'table'],
      ['SS-PDPTE', 'table'],
      ['SS-PDE', 'table'],
      ['SS-PTE', 'not present'],
    ]);
    expect(difference?.entries.at(-1)?.index).toBe(4);
  });

  it('differ where the host has refused, and that is said of what it has refused only', () => {
    const bench = new Bench();
    bench.map(0, OUT, 2);
    bench.map(8, OUT, 2);
    bench.refuse = (operation) => (operation.startsWith('map 0+') ? 12 : 0);
    bench.attach();
    bench.map(4, OUT);
    bench.map(12, OUT);
    bench.unmap(8, 2);
    expect(found(bench).map(({ first, refused }) => [first, refused])).toEqual([
      [address(0), true],
      [address(4), false],
      [address(8), false],
      [address(12), false],
    ]);
  });

  it('are compared for one requester id, or all; what is beyond the most is only said to be', () => {
    const bench = shadowed();
    bench.attach(2);
    for (const page of [20, 22, 24]) bench.map(page, OUT);
    const of = (most: number, rid?: number): [number, number, boolean] => {
      const { devices, differences, more } = diff(bench, most, rid);
      return [devices, differences.length, more];
    };
    expect([of(10), of(6), of(5), of(3)]).toEqual([
      [2, 6, false],
      [2, 6, false],
      [2, 5, true],
      [2, 3, true],
    ]);
    expect([of(3, 16), of(2, 16), of(3, 99)]).toEqual([
      [1, 3, false],
      [1, 2, true],
      [0, 0, false],
    ]);
  });

  it('are shown with both stages', () => {
    const bench = shadowed();
    // A first stage at intermediate 0, which stage 2 has in its pages from OUT on: no memory there.
    const spaces: typeof bench.model.spaces = {
      tables: (rid, pasid, tables) => {
        bench.model.spaces.tables?.(rid, pasid, tables);
        Object.assign(tables, {
          through: THROUGH.NESTED,
          secondFormat: bench.format,
          secondRoot: bench.root,
        });
        tables.formats[0] = FIRST;
        tables.roots[0] = 0;
      },
    };
    const [difference] = differences(bench.shadow, { spaces }, bench.memory, 8, 10).differences;
    expect(difference?.entries.map(({ name, through }) => [name, through.at(-1)?.name])).toEqual([
      ['FS-PML4E', 'SS-PTE'],
    ]);
  });

  it('agree on how far addresses reach', () => {
    const bench = new Bench();
    bench.through = THROUGH.IDENTITY;
    // 8 GiB: memory begins at 4 GiB and goes on above that.
    const spaces: typeof bench.model.spaces = {
      tables: (rid, pasid, tables) => {
        bench.model.spaces.tables?.(rid, pasid, tables);
        tables.reach = 33;
      },
    };
    bench.shadow.attach(1, 8, { spaces });
    bench.shadow.listen(1, 0, 2 ** 52 - 1);
    bench.settle();
    const { mappings, differences: found } = differences(bench.shadow, { spaces }, bench.memory, 8, 10);
    expect([mappings, found]).toEqual([1, []]);
  });

  it('are compared without tables, too', () => {
    const bench = new Bench();
    bench.through = THROUGH.IDENTITY;
    bench.attach();
    expect(diff(bench)).toMatchObject({ devices: 1, differences: [] });
    bench.through = THROUGH.NOTHING;
    const [difference] = diff(bench).differences;
    expect(difference).toMatchObject({ mapped: expect.stringMatching(/ rw$/), entries: [] });
    expect(difference).not.toHaveProperty('wanted');
  });
});
