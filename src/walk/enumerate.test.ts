/**
 * What the random ranges of test/walk seldom meet: the ends of input ranges, what is counted, and
 * what a cursor costs.
 */
import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../memory/array.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import {
  ACCESS_FLAG,
  GRANULE,
  type VmsaStage1Params,
  vmsaStage1,
  vmsaStage2,
} from '../spec/pagetable/vmsa.js';
import { vtdFirstStage, vtdSecondStage } from '../spec/pagetable/vtd.js';
import { ENUMERATE, LeafCursor } from './enumerate.js';
import { StageTwo } from './nested.js';

const CAPS = {
  ...{ hostAddressWidth: 46, secondStage2M: true, secondStage1G: true, firstStage1G: true },
  ...{ snoopControl: false, transientMapping: false },
};
const FIRST = vtdFirstStage(CAPS, { levels: 4, writeProtect: true, extendedAccessed: false });
const SECOND = vtdSecondStage(CAPS, { levels: 4, accessedDirty: false });
/** Starts at Arm's level 1: entries of 1 GiB. */
const S1: VmsaStage1Params = {
  ...{ granule: GRANULE.KIB_4, inputBits: 39, outputBits: 36, largePhysical: false },
  ...{ accessFlag: ACCESS_FLAG.FAULT, dirtyState: false, upper: false, topByteIgnored: false },
  ...{ hierarchical: true, writeExecuteNever: false, privilegedAccessNever: false, singlePrivilege: false },
};
const S2 = {
  ...{ granule: GRANULE.KIB_4, outputBits: 36, largePhysical: false, accessFlag: ACCESS_FLAG.FAULT },
  ...{ dirtyState: false, executeNeverByPrivilege: false, protectedTableWalk: false },
} as const;
const TOP = (1n << 64n) - 1n;
const GIB = 1n << 30n;

function memoryOf(...entries: readonly (readonly [address: number, entry: bigint])[]): ArrayMemory {
  const memory = new ArrayMemory([{ base: 0, bytes: 16 * 4096 }]);
  for (const [address, entry] of entries) memory.poke(address, entry);
  return memory;
}

const halves = (value: bigint): [number, number] => [
  Number(BigInt.asIntN(32, value)),
  Number(BigInt.asIntN(32, value >> 32n)),
];
const joined = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

function inputsOf(cursor: LeafCursor): bigint[] {
  const inputs: bigint[] = [];
  while (cursor.next(100_000) === ENUMERATE.LEAF) inputs.push(joined(cursor.inLo, cursor.inHi));
  return inputs;
}

/** Input addresses of the leaves that touch [first, last], with the tables' root at 0. */
function leavesIn(format: PageTableFormat, memory: ArrayMemory, first: bigint, last: bigint): bigint[] {
  const cursor = new LeafCursor();
  cursor.start(format, memory, 0, ...halves(first), ...halves(last));
  return inputsOf(cursor);
}

describe('a range', () => {
  // 1 GiB pages at both ends of both canonical halves.
  const canonical = memoryOf(
    [255 * 8, 0x1007n],
    [256 * 8, 0x1007n],
    [0x1000, 0x4000_0087n],
    [0x1000 + 511 * 8, 0x8000_0087n],
  );
  const LOWER = 0x7fff_c000_0000n;
  const UPPER = 0xffff_8000_0000_0000n;
  const LAST_UPPER = 0xffff_807f_c000_0000n;

  it.each([
    ['that ends in the hole ends with the lower half', LOWER, 0x9000_0000_0000n, [LOWER]],
    ['that begins in the hole begins with the upper half', 0x8000_0000_0000n, TOP, [UPPER, LAST_UPPER]],
    ['from hole to hole is empty', 0x8000_0000_0000n, 0xff_8000_0000_0000n, []],
    ['of the upper half is of that alone', UPPER, UPPER + 1n, [UPPER]],
    ['of all is of both halves', 0n, TOP, [0x7f80_0000_0000n, LOWER, UPPER, LAST_UPPER]],
  ])('of canonical addresses %s', (_, first, last, found) => {
    expect(leavesIn(FIRST, canonical, first, last)).toEqual(found);
  });

  const gigabytes = memoryOf([0, 0x441n], [16, 0x441n], [511 * 8, 0x441n]);
  const BASE = TOP - (512n * GIB - 1n);

  it.each([
    ['all', 0n, TOP, [0n, 2n, 511n]],
    ['the middle', BASE + 2n * GIB, BASE + 3n * GIB - 1n, [2n]],
    ['what reaches into it from below', BASE - 0x1000n, BASE, [0n]],
    ['what lies below it', 0n, 0x1000n, []],
  ])('of ones above the input width (TTB1): %s', (_, first, last, found) => {
    const upper = vmsaStage1({ ...S1, upper: true });
    expect(leavesIn(upper, gigabytes, first, last)).toEqual(found.map((index) => BASE + index * GIB));
  });

  it.each([
    ['all', 0n, TOP, [0n, 2n, 511n]],
    ['the middle', 2n * GIB, 3n * GIB - 1n, [2n]],
    ['what reaches beyond it', 2n * GIB, BASE, [2n, 511n]],
    ['what lies above it', 512n * GIB, TOP, []],
    ['nothing, where a leaf begins', 2n * GIB, 2n * GIB - 1n, []],
  ])('of zeros above the input width: %s', (_, first, last, found) => {
    expect(leavesIn(vmsaStage1(S1), gigabytes, first, last)).toEqual(found.map((index) => index * GIB));
  });

  it('of an upper range narrower than 32 bits has all its ones, where it pauses too', () => {
    const format = vmsaStage1({ ...S1, inputBits: 25, upper: true });
    const memory = memoryOf([3 * 8, 0x441n], [5 * 8, 0x441n]);
    const cursor = new LeafCursor();
    cursor.start(format, memory, 0, 0, 0, -1, -1);
    expect(cursor.next(4)).toBe(ENUMERATE.LEAF);
    expect(joined(cursor.inLo, cursor.inHi)).toBe(0xffff_ffff_fe60_0000n);
    expect(cursor.next(1)).toBe(ENUMERATE.PAUSED);
    expect(joined(cursor.nextLo, cursor.nextHi)).toBe(0xffff_ffff_fea0_0000n);
  });

  it('of a canonical upper half pauses at a canonical address', () => {
    const cursor = new LeafCursor();
    cursor.start(FIRST, memoryOf(), 0, 0, 0xffff_8000 | 0, -1, -1);
    expect(cursor.next(1)).toBe(ENUMERATE.PAUSED);
    expect(joined(cursor.nextLo, cursor.nextHi)).toBe(0xffff_8080_0000_0000n);
  });
});

describe('what an enumeration reads', () => {
  it('is one entry for each 512 GiB that are not there', () => {
    const cursor = new LeafCursor();
    cursor.start(SECOND, memoryOf(), 0, 0, 0, -1, -1);
    expect(cursor.next(1000)).toBe(ENUMERATE.END);
    expect(cursor.visited).toBe(512);
  });

  it('counts entries that no table may hold, not those that are absent or were not accessed', () => {
    const format = vmsaStage1({ ...S1, inputBits: 30 });
    // An address beyond 36 bits; a clear Access flag; a block where only pages are; a page.
    const memory = memoryOf([8, 0x10_0000_0441n], [16, 0x41n], [24, 0x1003n], [0x1000, 0x441n], [32, 0x441n]);
    const cursor = new LeafCursor();
    cursor.start(format, memory, 0, 0, 0, -1, -1);
    expect(inputsOf(cursor)).toEqual([32n << 18n]);
    expect(cursor.malformed).toBe(1);
  });
});

describe('an enumeration through two stages', () => {
  const second = vmsaStage2({ ...S2, inputBits: 30, startLevel: 2 });
  const first = vmsaStage1(S1);
  /** Stage 2 in page 8, its pages in page 9: the first 2 MiB of intermediate addresses. */
  const identity = Array.from({ length: 8 }, (_, i) => [0x9000 + i * 8, BigInt(i * 4096) | 0x4ffn] as const);

  function nested(...entries: readonly (readonly [number, bigint])[]): LeafCursor {
    const cursor = new LeafCursor(new StageTwo(memoryOf([0x8000, 0x9003n], ...identity, ...entries)));
    cursor.startNested(first, 0, second, 0x8000, 0, 0, -1, -1);
    return cursor;
  }

  it('counts pieces that stage 2 has malformed, not those that it lacks or has not accessed', () => {
    // Stage 1: 2 MiB in one page. Of its pieces stage 2 has one with a clear Access flag and one
    // beyond 36 bits.
    const cursor = nested(
      [0, 0x1003n],
      [0x1000, 0x441n],
      [0x9000 + 3 * 8, 0x3000n | 0xffn],
      [0x9000 + 5 * 8, 0x10_0000_0000n | 0x4ffn],
    );
    expect(inputsOf(cursor)).toEqual([0n, 1n, 2n, 4n, 6n, 7n].map((page) => page << 12n));
    expect(cursor.malformed).toBe(1);
  });

  it('leaves a page behind at once when its address is beyond what stage 2 translates', () => {
    // A page of 1 GiB at intermediate 4 GiB: 512 entries of a root that it does not reach.
    const cursor = nested([8, 0x1_0000_0000n | 0x441n], [24, 0x441n]);
    expect(inputsOf(cursor).length).toBe(8);
    expect(cursor.malformed).toBe(1);
  });

  it('goes on with its own tables after another has used the same second stage', () => {
    // First stages in pages 0 and 4, of two pages each; the other second stage swaps these tables.
    const swapped = identity.map(
      ([address, entry], i) => [0x2000 + address, entry ^ (i % 4 === 0 ? 0x4000n : 0n)] as const,
    );
    const memory = memoryOf(
      [0x8000, 0x9003n],
      [0xa000, 0xb003n],
      ...identity,
      ...swapped,
      [0, 0x441n],
      [8, 0x441n],
      [0x4000 + 16, 0x441n],
      [0x4000 + 24, 0x441n],
    );
    const shared = new StageTwo(memory);
    const one = new LeafCursor(shared);
    const two = new LeafCursor(shared);
    one.startNested(first, 0, second, 0x8000, 0, 0, -1, -1);
    two.startNested(first, 0, second, 0xa000, 0, 0, -1, -1);
    const pages: bigint[][] = [[], []];
    for (let i = 0; i < 16; i++) {
      [one, two].forEach((cursor, which) => {
        if (cursor.next(100_000) === ENUMERATE.LEAF) pages[which]?.push(joined(cursor.inLo, cursor.inHi));
      });
    }
    const of = (index: bigint): bigint[] =>
      Array.from({ length: 8 }, (_, i) => index * GIB + (BigInt(i) << 12n));
    expect(pages).toEqual([
      [...of(0n), ...of(1n)],
      [...of(2n), ...of(3n)],
    ]);
  });

  it('is none where the cursor is aimed at one stage', () => {
    const cursor = new LeafCursor(new StageTwo(memoryOf()));
    const memory = memoryOf([16, 0x441n]);
    cursor.start(first, memory, 0, 0, 0, -1, -1);
    expect(inputsOf(cursor)).toEqual([2n * GIB]);
  });

  it('needs a second stage', () => {
    const start = (): void => new LeafCursor().startNested(first, 0, second, 0x8000, 0, 0, -1, -1);
    expect(start).toThrow('without a second stage');
  });
});
