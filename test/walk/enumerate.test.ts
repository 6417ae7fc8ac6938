/**
 * Enumeration against brute force: walking every page of a range must find the same leaves in the
 * same order.
 */
import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../../src/memory/array.js';
import { ReadOnlyMemory } from '../../src/memory/read-only.js';
import { RIGHT } from '../../src/spec/pagetable/format.js';
import { vtdFirstStage, vtdSecondStage } from '../../src/spec/pagetable/vtd.js';
import { ENUMERATE, LeafCursor } from '../../src/walk/enumerate.js';
import { StageTwo, walkNested } from '../../src/walk/nested.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';
import { allCases, big, highOf, lowOf, Random, World } from './world.js';

const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261122);
const PAGE = 4096n;
const TOP = (1n << 64n) - 1n;

interface Leaf {
  readonly input: bigint;
  readonly output: bigint;
  readonly log2: number;
  readonly permissions: number;
}

/** Every leaf that touches [first, last], found by walking page after page. */
function bruteForce(
  look: (lo: number, hi: number, result: WalkResult) => number,
  first: bigint,
  last: bigint,
): Leaf[] {
  const leaves: Leaf[] = [];
  const result = new WalkResult();
  for (let at = first & ~(PAGE - 1n); at <= last; ) {
    if (look(lowOf(at), highOf(at), result) !== WALK.OK) {
      at += PAGE;
      continue;
    }
    const size = 1n << BigInt(result.log2Size);
    const input = at & ~(size - 1n);
    const output = big(result.outLo, result.outHi);
    leaves.push({ input, output, log2: result.log2Size, permissions: result.permissions });
    at = input + size;
  }
  return leaves;
}

/** All that a started cursor finds, in calls of a small random budget. */
function drain(cursor: LeafCursor, random: Random, most = 1_000_000): Leaf[] {
  const leaves: Leaf[] = [];
  for (;;) {
    const stop = cursor.next(1 + random.below(20));
    if (stop === ENUMERATE.END) return leaves;
    if (stop !== ENUMERATE.LEAF) continue;
    leaves.push({
      input: big(cursor.inLo, cursor.inHi),
      output: big(cursor.outLo, cursor.outHi),
      log2: cursor.log2Size,
      permissions: cursor.permissions,
    });
    if (leaves.length >= most) return leaves;
  }
}

describe('enumeration equals brute force', () => {
  let found = 0;
  it.each(allCases().map((c, i) => [c.name, c, SEED + i] as const))('%s', (name, c, seed) => {
    const world = new World(new Random(seed));
    const { random, memory } = world;
    const cursor = new LeafCursor();
    for (let done = 0; done < 8; done++) {
      world.shuffle(random.pick([0, 0.1]));
      const root = done % 2 === 0 ? world.tidy(c.rules.levels) : random.pick(world.pages);
      const first =
        done % 4 === 3 ? edge(c.rules.stage, c.rules.inputBits) : world.address(c.rules.inputBits);
      const last = minimum(TOP, first + BigInt(random.below(600)) * PAGE);
      const what = `${name}, seed ${seed}, step ${done}, 0x${first.toString(16)}..0x${last.toString(16)}`;
      const expected = bruteForce((lo, hi, r) => walk(c.format, memory, root, lo, hi, 0, r), first, last);
      cursor.start(c.format, memory, root, lowOf(first), highOf(first), lowOf(last), highOf(last));
      expect(drain(cursor, random), what).toEqual(expected);
      found += expected.length;
    }
    expect(memory.written).toEqual([]);
  });

  it('found leaves to compare', () => {
    expect(found).toBeGreaterThan(10_000);
  });

  it('through two stages', () => {
    const cases = allCases();
    const world = new World(new Random(SEED));
    const { random, memory } = world;
    const stage2 = new StageTwo(memory);
    const cursor = new LeafCursor(new StageTwo(memory));
    let nested = 0;
    for (let done = 0; done < 60; done++) {
      const first = random.pick(cases.filter((c) => c.rules.stage === 'first'));
      const second = random.pick(cases.filter((c) => c.rules.stage === 'second'));
      world.shuffle(random.pick([0, 0.05]));
      const root1 = world.tidy(first.rules.levels);
      const root2 = world.secondStage(second.rules.levels, random.pick([0, 5]));
      const from = world.address(first.rules.inputBits);
      const to = minimum(TOP, from + BigInt(random.below(600)) * PAGE);
      const look = (lo: number, hi: number, r: WalkResult): number =>
        walkNested(first.format, root1, stage2, second.format, root2, lo, hi, 0, r);
      const expected = bruteForce(look, from, to);
      cursor.startNested(
        first.format,
        root1,
        second.format,
        root2,
        lowOf(from),
        highOf(from),
        lowOf(to),
        highOf(to),
      );
      const what = `seed ${SEED}, step ${done}, ${first.name} over ${second.name}`;
      expect(drain(cursor, random), what).toEqual(expected);
      nested += expected.length;
    }
    expect(memory.written).toEqual([]);
    expect(nested).toBeGreaterThan(50);
  });
});

/**
 * Output and rights of each page within [first, last] that a walk for an access gets, without
 * setting a bit.
 */
function allowed(
  look: (lo: number, hi: number, access: number, result: WalkResult) => number,
  first: bigint,
  last: bigint,
): Map<bigint, bigint> {
  const pages = new Map<bigint, bigint>();
  const result = new WalkResult();
  for (let at = first & ~(PAGE - 1n); at <= last; at += PAGE) {
    for (const access of [RIGHT.READ, RIGHT.WRITE]) {
      if (look(lowOf(at), highOf(at), access, result) !== WALK.OK) continue;
      const within = at & ((1n << BigInt(result.log2Size)) - 1n);
      const output = big(result.outLo, result.outHi) + within;
      pages.set(at, (pages.get(at) ?? output) | BigInt(access));
    }
  }
  return pages;
}

/** The same of what a cursor found. */
function pagesOf(leaves: readonly Leaf[], first: bigint, last: bigint): Map<bigint, bigint> {
  const pages = new Map<bigint, bigint>();
  for (const { input, output, log2, permissions } of leaves) {
    const rights = BigInt(permissions & (RIGHT.READ | RIGHT.WRITE));
    const end = minimum(last, input + (1n << BigInt(log2)) - 1n);
    for (let at = input > first ? input : first & ~(PAGE - 1n); rights !== 0n && at <= end; at += PAGE) {
      pages.set(at, (output + at - input) | rights);
    }
  }
  return pages;
}

describe('what needs no bit set', () => {
  it('is what walks of memory that cannot be written get', () => {
    const world = new World(new Random(SEED));
    const { random } = world;
    const memory = new ReadOnlyMemory(world.memory);
    const cursor = new LeafCursor(undefined, false);
    let found = 0;
    for (const c of allCases()) {
      for (let done = 0; done < 6; done++) {
        world.shuffle(random.pick([0, 0.1]));
        const root = world.tidy(c.rules.levels);
        const first = world.address(c.rules.inputBits);
        const last = minimum(TOP, first + BigInt(random.below(100)) * PAGE);
        const expected = allowed(
          (lo, hi, access, r) => walk(c.format, memory, root, lo, hi, access, r),
          first,
          last,
        );
        cursor.start(c.format, memory, root, lowOf(first), highOf(first), lowOf(last), highOf(last));
        expect(pagesOf(drain(cursor, random), first, last), c.name).toEqual(expected);
        found += expected.size;
      }
    }
    expect(world.memory.written).toEqual([]);
    expect(found).toBeGreaterThan(1000);
  });

  it('is the same through two stages', () => {
    const cases = allCases();
    const world = new World(new Random(SEED));
    const { random } = world;
    const memory = new ReadOnlyMemory(world.memory);
    const stage2 = new StageTwo(memory, false);
    const cursor = new LeafCursor(new StageTwo(memory, false), false);
    let found = 0;
    for (let done = 0; done < 400; done++) {
      const first = random.pick(cases.filter((c) => c.rules.stage === 'first'));
      const second = random.pick(cases.filter((c) => c.rules.stage === 'second'));
      world.shuffle(random.pick([0, 0.05]));
      const root1 = world.tidy(first.rules.levels);
      const root2 = world.secondStage(second.rules.levels, random.pick([0, 5]));
      const from = world.address(first.rules.inputBits);
      const to = minimum(TOP, from + BigInt(random.below(100)) * PAGE);
      const look = (lo: number, hi: number, access: number, r: WalkResult): number =>
        walkNested(first.format, root1, stage2, second.format, root2, lo, hi, access, r);
      const expected = allowed(look, from, to);
      cursor.startNested(
        ...([first.format, root1, second.format, root2] as const),
        ...([lowOf(from), highOf(from), lowOf(to), highOf(to)] as const),
      );
      const what = `seed ${SEED}, step ${done}, ${first.name} over ${second.name}`;
      expect(pagesOf(drain(cursor, random), from, to), what).toEqual(expected);
      found += expected.size;
    }
    expect(world.memory.written).toEqual([]);
    expect(found).toBeGreaterThan(100);
  });
});

/** A little below where the lower half of a format ends. */
function edge(stage: 'first' | 'second', bits: number): bigint {
  return (1n << BigInt(stage === 'first' ? bits - 1 : bits)) - 500n * PAGE;
}

function minimum(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

describe('a cursor', () => {
  const caps = {
    hostAddressWidth: 46,
    secondStage2M: true,
    secondStage1G: true,
    firstStage1G: true,
    snoopControl: true,
    transientMapping: false,
  };
  const second = vtdSecondStage(caps, { levels: 4, accessedDirty: false });
  const first = vtdFirstStage(caps, { levels: 4, writeProtect: true, extendedAccessed: false });

  it('finds the few leaves of the whole space, in both canonical halves', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 8 * 4096 }]);
    memory.poke(0, 0x1007n);
    memory.poke(511 * 8, 0x1007n);
    memory.poke(0x1000 + 3 * 8, 0x2007n);
    memory.poke(0x1000 + 4 * 8, 0x40000087n);
    memory.poke(0x2000 + 511 * 8, 0x600085n);
    const cursor = new LeafCursor();
    cursor.start(first, memory, 0, 0, 0, -1, -1);
    const inputs = drain(cursor, new Random(1)).map((leaf) => [leaf.input, leaf.log2]);
    expect(inputs).toEqual([
      [0xffe00000n, 21],
      [0x100000000n, 30],
      [0xffffff80ffe00000n, 21],
      [0xffffff8100000000n, 30],
    ]);
  });

  it('gives each stage-2 piece of a stage-1 page its own rights, and leaves holes out', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 16 * 4096 }]);
    // Stage 1 in pages 0..2: one 2 MiB page at intermediate 0. Stage 2 in pages 8..11.
    [0, 1].forEach((page) => {
      memory.poke(page * 4096, BigInt((page + 1) * 4096) | 7n);
    });
    memory.poke(0x2000, 0x87n);
    [8, 9, 10].forEach((page) => {
      memory.poke(page * 4096, BigInt((page + 1) * 4096) | 3n);
    });
    [3n, 1n, 3n, 0n, 3n].forEach((rights, i) => {
      memory.poke(0xb000 + i * 8, BigInt(i * 4096) | rights);
    });
    const cursor = new LeafCursor(new StageTwo(memory));
    cursor.startNested(first, 0, second, 0x8000, 0, 0, -1, -1);
    expect(drain(cursor, new Random(1)).map((leaf) => [leaf.input, leaf.permissions])).toEqual([
      [0n, 3],
      [0x1000n, 1],
      [0x2000n, 3],
      [0x4000n, 3],
    ]);
  });

  it('stays bounded on a table that maps itself everywhere, and goes on where it was', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    for (let i = 0; i < 512; i++) memory.poke(i * 8, 3n);
    const cursor = new LeafCursor();
    cursor.start(second, memory, 0, 0, 0, -1, -1);
    expect(cursor.next(3)).toBe(ENUMERATE.PAUSED);
    expect(cursor.visited).toBe(3);
    const leaves = drain(cursor, new Random(1), 1000);
    expect(leaves.map((leaf) => leaf.input)).toEqual(
      Array.from({ length: 1000 }, (_, i) => BigInt(i) * PAGE),
    );
    expect(cursor.visited).toBeLessThan(1020);
    const again = new LeafCursor();
    again.start(second, memory, 0, cursor.nextLo, cursor.nextHi, -1, -1);
    expect(drain(again, new Random(1), 2).map((leaf) => leaf.input)).toEqual([1000n * PAGE, 1001n * PAGE]);
  });

  it('counts what it had to skip', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 3 * 4096 }]);
    memory.poke(0, 0x1003n);
    memory.poke(0x1000, 0x7000_0003n);
    memory.poke(0x1008, 0x803n);
    const cursor = new LeafCursor();
    cursor.start(second, memory, 0, 0, 0, -1, -1);
    expect(drain(cursor, new Random(1))).toEqual([]);
    expect(cursor.malformed).toBe(513);
  });

  it('ends at once on an empty range or one beyond the input width', () => {
    const memory = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    const cursor = new LeafCursor();
    cursor.start(second, memory, 0, 0, 0x10000, -1, -1);
    expect(cursor.next(10)).toBe(ENUMERATE.END);
    cursor.start(second, memory, 0, 0x5000, 0, 0x4000, 0);
    expect(cursor.next(10)).toBe(ENUMERATE.END);
    expect(new LeafCursor().next(10)).toBe(ENUMERATE.END);
  });
});
