/**
 * Where a search for neighbours ends, and what it costs. (The random tables of test/walk show that
 * spans are right.)
 */
import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../memory/array.js';
import { type PageTableFormat, RIGHT } from '../spec/pagetable/format.js';
import { ACCESS_FLAG, GRANULE, type VmsaStage1Params, vmsaStage1 } from '../spec/pagetable/vmsa.js';
import { vtdFirstStage, vtdSecondStage } from '../spec/pagetable/vtd.js';
import { Neighbours } from './neighbours.js';
import { StageTwo, walkNested } from './nested.js';
import { WALK, WalkResult } from './types.js';
import { walk } from './walk.js';

const CAPS = {
  ...{ hostAddressWidth: 46, secondStage2M: true, secondStage1G: true, firstStage1G: true },
  ...{ snoopControl: false, transientMapping: false },
};
const FIRST = vtdFirstStage(CAPS, { levels: 4, writeProtect: true, extendedAccessed: false });
const SECOND = vtdSecondStage(CAPS, { levels: 3, accessedDirty: false });
const S1: VmsaStage1Params = {
  ...{ granule: GRANULE.KIB_4, inputBits: 31, outputBits: 44, largePhysical: false },
  ...{ accessFlag: ACCESS_FLAG.FAULT, dirtyState: false, upper: false, topByteIgnored: false },
  ...{ hierarchical: true, writeExecuteNever: false, privilegedAccessNever: false, singlePrivilege: false },
};
const SPAN_WORDS = 6;
const GIB = 2 ** 30;

type Span = readonly [input: number, output: number, log2: number];
const spans = new Uint32Array(64 * SPAN_WORDS);
const result = new WalkResult();

const join = (lo: number | undefined, hi: number | undefined): number => (hi ?? 0) * 2 ** 32 + (lo ?? 0);
const high = (address: number): number => Math.floor(address / 2 ** 32) | 0;

function spansOf(count: number): Span[] {
  return Array.from({ length: count }, (_, i) => {
    const [inLo, inHi, outLo, outHi, log2] = spans.subarray(i * SPAN_WORDS);
    return [join(inLo, inHi), join(outLo, outHi), log2 ?? 0];
  });
}

/** Spans around a read of `input` through the tables at `root`. */
function around(
  format: PageTableFormat,
  memory: ArrayMemory,
  root: number,
  input: number,
  neighbours = new Neighbours(),
): Span[] {
  const [lo, hi] = [input | 0, high(input)];
  expect(walk(format, memory, root, lo, hi, RIGHT.READ, result)).toBe(WALK.OK);
  memory.loads = 0;
  return spansOf(neighbours.collect(format, memory, lo, hi, RIGHT.READ, result, spans, 64));
}

/** Two levels of VT-d tables in pages 0 and 1 above a leaf table in page 2, made by `leafOf`. */
function leaves(leafOf: (index: number) => number): ArrayMemory {
  const memory = new ArrayMemory([{ base: 0, bytes: 4 * 4096 }]);
  memory.poke(0, 0x1003n);
  memory.poke(0x1000, 0x2003n);
  for (let i = 0; i < 512; i++) memory.poke(0x2000 + i * 8, BigInt(leafOf(i)));
  memory.counting = true;
  return memory;
}

describe('a search', () => {
  const scattered = (i: number): number => (0x9000 + ((i * 37) % 512)) * 4096 + 3;

  it('ends after four entries in a row that cannot be used', () => {
    const three = leaves((i) => (i > 5 && i < 9 ? 0 : scattered(i)));
    expect(around(SECOND, three, 0, 5 * 4096).length).toBe(62);
    const four = leaves((i) => (i > 5 && i < 10 ? 0 : scattered(i)));
    expect(around(SECOND, four, 0, 5 * 4096).length).toBe(1);
    // And one before it.
    expect(four.loads).toBe(4 + 1);
  });

  it.each([
    ['input and output agree in every bit', 0],
    ['they differ in a bit above the largest span', 128],
    ['they differ in the sign', 0x8_0000],
    ['they differ in a low bit', 4],
  ])('reads at most 64 entries each way: %s', (_, differ) => {
    const memory = leaves((i) => (i + differ) * 4096 + 3);
    const input = 255 * 4096;
    expect(around(SECOND, memory, 0, input)[0]?.[2]).toBe(differ === 4 ? 14 : 18);
    expect(memory.loads).toBeLessThanOrEqual(128);
    expect(memory.loads).toBeGreaterThan(64);
  });

  it('joins a second run as it joins that of the asked page', () => {
    // 8 pages that go on for 8 more elsewhere, then 16 in one piece.
    const memory = leaves(
      (i) => (i < 8 ? 0x100 + i : i < 16 ? 0x200 + i : i < 32 ? 0x300 + i : 0) * 4096 + 3,
    );
    expect(around(SECOND, memory, 0, 0).slice(0, 3)).toEqual([
      [0, 0x10_0000, 15],
      [0x8000, 0x20_8000, 15],
      [0x1_0000, 0x31_0000, 16],
    ]);
  });

  it('crosses 4 GiB', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    for (const index of [2, 3, 4, 5]) memory.poke(index * 8, BigInt((7 - index) * GIB) | 0x83n);
    expect(around(SECOND, memory, 0, 2 * GIB)).toEqual([
      [2 * GIB, 5 * GIB, 30],
      [3 * GIB, 4 * GIB, 30],
      [4 * GIB, 3 * GIB, 30],
      [5 * GIB, 2 * GIB, 30],
    ]);
  });

  it('joins blocks of more than 4 GiB', () => {
    const format = vmsaStage1({
      ...{ ...S1, granule: GRANULE.KIB_64, inputBits: 52, outputBits: 52 },
      largePhysical: true,
    });
    const memory = new ArrayMemory([{ base: 0, bytes: 2 * 4096 }]);
    for (let i = 0; i < 4; i++) memory.poke(i * 8, (BigInt(i + 4) << 42n) | 0x441n);
    expect(around(format, memory, 0, 0)).toEqual([[0, 2 ** 44, 44]]);
  });
});

describe('the table that a search is in', () => {
  const lower = vmsaStage1(S1);
  const upper = vmsaStage1({ ...S1, upper: true });

  /** A root of two entries of 1 GiB; before and behind it the same run goes on. */
  function surrounded(): ArrayMemory {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    for (let i = -4; i < 8; i++) memory.poke(0x800 + i * 8, BigInt((64 + i) * GIB) | 0x441n);
    return memory;
  }

  it('is not left at its end', () => {
    expect(around(lower, surrounded(), 0x800, 0)).toEqual([[0, 64 * GIB, 31]]);
  });

  it('is not left at its begin, where the numbers of its pages do not begin at zero', () => {
    const memory = surrounded();
    expect(walk(upper, memory, 0x800, -1, -1, RIGHT.READ, result)).toBe(WALK.OK);
    const count = new Neighbours().collect(upper, memory, -1, -1, RIGHT.READ, result, spans, 64);
    expect([count, ...spans.subarray(0, 5)]).toEqual([1, 0x8000_0000, 0xffff_ffff, 0, 16, 31]);
  });

  it('does not go on in what an earlier search has found', () => {
    const neighbours = new Neighbours();
    const more = vmsaStage1({ ...S1, inputBits: 36 });
    expect(around(more, surrounded(), 0x800, 0, neighbours)[0]?.[2]).toBe(33);
    expect(around(lower, surrounded(), 0x800, 0, neighbours)).toEqual([[0, 64 * GIB, 31]]);
    // Not contiguous either.
    const two = surrounded();
    two.poke(0x808, 0n);
    expect(around(lower, two, 0x800, 0, neighbours)).toEqual([[0, 64 * GIB, 30]]);
  });
});

describe('through two stages', () => {
  const IPA = 0x1000_0000;

  /**
   * Stage 1 in pages 0 to 3, stage 2 in pages 4 to 6: pages 0 to 3 as they stand, and `second` (2
   * MiB each) from {@link IPA} on. `leaf` makes entries of stage 1, at page 3 or, of 2 MiB, page 2.
   */
  function tables(leaf: (index: number) => number, log2: 12 | 21, second: readonly number[]): ArrayMemory {
    const memory = new ArrayMemory([{ base: 0, bytes: 16 * 4096 }]);
    for (const page of [0, 1, 2]) memory.poke(page * 4096, BigInt((page + 1) * 4096) | 0x27n);
    const large = log2 === 21 ? 0x80 : 0;
    for (let i = 0; i < 512; i++)
      memory.poke((large === 0 ? 0x3000 : 0x2000) + i * 8, BigInt(leaf(i)) | BigInt(0x67 + large));
    memory.poke(0x4000, 0x5003n);
    memory.poke(0x5000, 0x6003n);
    for (let i = 0; i < 16; i++) memory.poke(0x6000 + i * 8, BigInt(i * 4096) | 3n);
    second.forEach((entry, i) => {
      memory.poke(0x5000 + (IPA / 2 ** 21 + i) * 8, BigInt(entry) | 0x83n);
    });
    memory.counting = true;
    return memory;
  }

  function aroundNested(memory: ArrayMemory, input: number): Span[] {
    const stage2 = new StageTwo(memory);
    expect(walkNested(FIRST, 0, stage2, SECOND, 0x4000, input, 0, RIGHT.READ, result)).toBe(WALK.OK);
    memory.loads = 0;
    const tables = [FIRST, stage2, SECOND, 0x4000] as const;
    return spansOf(new Neighbours().collectNested(...tables, input, 0, RIGHT.READ, result, spans, 64));
  }

  it('a search ends with the table of stage 1', () => {
    const memory = tables((i) => IPA + i * 4096, 12, [0x4000_0000]);
    // In the page behind this table, as if it went on: its first entry is stage 2's own.
    for (let i = 1; i < 16; i++) memory.poke(0x4000 + i * 8, 0x67n);
    const list = aroundNested(memory, 510 * 4096);
    expect(list).toEqual([[510 * 4096, 0x4000_0000 + 510 * 4096, 13]]);
  });

  it('pages within a large one of stage 1 cost walks of stage 2 alone', () => {
    const memory = tables((i) => IPA + i * 2 ** 21, 21, []);
    memory.poke(0x5000 + (IPA / 2 ** 21) * 8, 0x7003n);
    for (let i = 0; i < 512; i++) memory.poke(0x7000 + i * 8, BigInt(0x4000_0000 + i * 4096) | 3n);
    expect(aroundNested(memory, 0)).toEqual([
      [0, 0x4000_0000, 18],
      [0x4_0000, 0x4004_0000, 12],
    ]);
    // Three entries each.
    expect(memory.loads).toBe(64 * 3);
  });

  it('pages within a large one of stage 2 cost an entry of stage 1 each', () => {
    const memory = tables((i) => IPA + i * 4096, 12, [0x4000_0000]);
    expect(aroundNested(memory, 0).map(([, , log2]) => log2)).toEqual([18, 12]);
    // The entry, behind three of stage 2; and one walk to the page of 2 MiB.
    expect(memory.loads).toBe(64 * 4 + 2);
  });

  it('a block of stage 2 is known by all of its address', () => {
    // Two intermediate addresses that agree in their low halves.
    const memory = tables((i) => (i < 2 ? (i + 1) * 2 ** 32 : 0), 12, []);
    memory.poke(0x4000 + 4 * 8, 0x7003n);
    memory.poke(0x4000 + 8 * 8, 0x8003n);
    memory.poke(0x7000, 0x4000_0083n);
    memory.poke(0x8000, 0x6000_0083n);
    expect(aroundNested(memory, 0).slice(0, 2)).toEqual([
      [0, 0x4000_0000, 12],
      [0x1000, 0x6000_0000, 12],
    ]);
  });
});
