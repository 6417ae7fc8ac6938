/**
 * Enumeration and neighbours over VMSAv8-64 tables: both must say what fresh walks of every page
 * say, for every granule, both stages and every pair nested, and must write nothing.
 */
import { describe, expect, it } from 'vitest';
import { MAX_SPANS, SPAN_WORDS } from '../../src/device/iommu.js';
import { RIGHT } from '../../src/spec/pagetable/format.js';
import { ENUMERATE, LeafCursor } from '../../src/walk/enumerate.js';
import { Neighbours } from '../../src/walk/neighbours.js';
import { StageTwo, walkNested } from '../../src/walk/nested.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';
import type { VmsaRules } from './vmsa-reference.js';
import { GRANULES, type GranuleKiB, randomCase, type VmsaCase, VmsaWorld } from './vmsa-world.js';
import { ACCESSES, big, highOf, lowOf, Random } from './world.js';

const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261122);
const PAGES = 300;
const TOP = (1n << 64n) - 1n;
const PAGE = { 4: 4096n, 16: 0x4000n, 64: 0x1_0000n } as const;

/** What a page table says of one page: a walk without access. */
type Look = (lo: number, hi: number, access: number, result: WalkResult) => number;

interface Leaf {
  readonly input: bigint;
  readonly output: bigint;
  readonly log2: number;
  readonly rights: number;
}

/**
 * The first address of a run of pages: somewhere in the range, at its start, or just below its end.
 */
function baseOf(random: Random, rules: VmsaRules): bigint {
  const width = BigInt(rules.inputBits);
  const size = PAGE[rules.granule];
  const inside = random.pick([
    0n,
    (1n << width) - size * BigInt(PAGES),
    random.u64() & ((1n << width) - 1n) & ~(size * 64n - 1n),
  ]);
  const low = inside < 0n ? 0n : inside;
  return rules.ttb1 ? (low | (TOP << width)) & TOP : low;
}

/**
 * Runs that are contiguous in the output, with holes, blocks, and attributes that vary. Outputs lie
 * below 2^`outputBits`.
 */
function fill(world: VmsaWorld, rules: VmsaRules, root: number, base: bigint, outputBits: number): void {
  const { random } = world;
  const size = PAGE[rules.granule];
  const limit = 1n << BigInt(outputBits);
  // Generous in either stage: user access or read and write, accessed, not Device memory.
  const open = rules.stage === 1 ? 0x450n : 0x4d0n;
  let output = 0n;
  let bits = open;
  for (let i = 0n; i < BigInt(PAGES); i++) {
    output += size;
    const kind = random.below(50);
    if (kind === 0) output = (random.u64() % limit) & ~(size - 1n);
    if (kind === 1) output = i * size;
    if (kind === 2) bits = open ^ (1n << BigInt(random.pick([6, 7, 10, 51, 53, 54])));
    if (kind === 3) bits = open;
    if (kind === 4 || output >= limit) continue;
    const input = (base + i * size) & TOP;
    world.map(rules, root, input, output, bits, kind === 5 && (base / size) % 512n === 0n ? 2 : 3);
  }
}

function bruteForce(look: Look, step: bigint, first: bigint, last: bigint): Leaf[] {
  const leaves: Leaf[] = [];
  const result = new WalkResult();
  for (let at = first & ~(step - 1n); at <= last; ) {
    if (look(lowOf(at), highOf(at), 0, result) !== WALK.OK) {
      at += step;
      continue;
    }
    const size = 1n << BigInt(result.log2Size);
    const input = at & ~(size - 1n);
    leaves.push({
      input,
      output: big(result.outLo, result.outHi),
      log2: result.log2Size,
      rights: result.permissions,
    });
    at = input + size;
  }
  return leaves;
}

function drain(cursor: LeafCursor, random: Random): Leaf[] {
  const leaves: Leaf[] = [];
  for (;;) {
    const stop = cursor.next(1 + random.below(40));
    if (stop === ENUMERATE.END) return leaves;
    if (stop !== ENUMERATE.LEAF) continue;
    leaves.push({
      input: big(cursor.inLo, cursor.inHi),
      output: big(cursor.outLo, cursor.outHi),
      log2: cursor.log2Size,
      rights: cursor.permissions,
    });
  }
}

/** A little more than the run, ends clamped. */
function around(random: Random, rules: VmsaRules, base: bigint): readonly [bigint, bigint] {
  const size = PAGE[rules.granule];
  const first = base - BigInt(random.below(20)) * size - BigInt(random.below(4096));
  const last = base + BigInt(PAGES + random.below(20)) * size;
  return [first < 0n ? 0n : first, last > TOP ? TOP : last];
}

/** Each span must be aligned, ascending, and exactly what fresh walks of its units say. */
function checkSpans(
  words: Uint32Array,
  count: number,
  look: Look,
  access: number,
  input: bigint,
  unit: number,
  what: string,
): void {
  const fresh = new WalkResult();
  let end = -1n;
  for (let i = 0; i < count; i++) {
    const at = i * SPAN_WORDS;
    const start = big(words[at], words[at + 1]);
    const output = big(words[at + 2], words[at + 3]);
    const size = 1n << BigInt(words[at + 4]);
    const rights = words[at + 5];
    const shape = start % size === 0n && output % size === 0n && start > end;
    const covers = i > 0 || (input >= start && input < start + size);
    const allowed = (access & ~RIGHT.PRIVILEGED & ~rights) === 0;
    if (!shape || !covers || !allowed) expect({ start, output, size, rights, end }, what).toBe('sound');
    end = start + size - 1n;
    for (let offset = 0n; offset < size; offset += 1n << BigInt(unit)) {
      const one = start + offset;
      const outcome = look(lowOf(one), highOf(one), access & RIGHT.PRIVILEGED, fresh);
      // A fresh walk may find a larger block than the units that were looked at.
      const inBlock = one & ((1n << BigInt(fresh.log2Size)) - 1n);
      const same =
        outcome === WALK.OK &&
        big(fresh.outLo, fresh.outHi) + inBlock === output + offset &&
        (fresh.cachable & ~RIGHT.PRIVILEGED) === (rights & ~RIGHT.PRIVILEGED);
      if (!same) expect({ one, outcome, fresh }, what).toEqual({ start, output, size, rights });
    }
  }
}

const kinds = GRANULES.flatMap((granule) => ([1, 2] as const).map((stage) => [granule, stage] as const));
const pairs = GRANULES.flatMap((one) => GRANULES.map((two) => [one, two] as const));
const SOME: readonly number[] = [...ACCESSES.filter((a) => a !== 0), RIGHT.EXECUTE];

describe('one stage', () => {
  it.each(kinds)('%d KiB granule, stage %d', (granule, stage) => {
    const seed = SEED + granule * 2 + stage;
    const world = new VmsaWorld(new Random(seed));
    const { random, memory } = world;
    const cursor = new LeafCursor();
    const neighbours = new Neighbours();
    const result = new WalkResult();
    const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
    let leaves = 0;
    let more = 0;
    for (let done = 0; done < 24; done++) {
      const c = randomCase(random, stage, granule);
      world.clear();
      const root = world.newRoot(c.rules);
      const base = baseOf(random, c.rules);
      fill(world, c.rules, root, base, Math.min(c.rules.outputBits, random.pick([32, 40, 48])));
      const look: Look = (lo, hi, access, r) => walk(c.format, memory, root, lo, hi, access, r);
      const [first, last] = around(random, c.rules, base);
      const what = `seed ${seed}, step ${done}, 0x${first.toString(16)}..0x${last.toString(16)}, ${c.name}`;
      memory.written.length = 0;
      // An enumeration knows canonical addresses only; with TBI a walk takes others too.
      const canonical: Look = (lo, hi, access, r) =>
        c.rules.tbi && hi >> 24 !== (c.rules.ttb1 ? -1 : 0) ? WALK.ADDRESS_SIZE : look(lo, hi, access, r);
      const expected = bruteForce(canonical, PAGE[granule], first, last);
      cursor.start(c.format, memory, root, lowOf(first), highOf(first), lowOf(last), highOf(last));
      expect(drain(cursor, random), what).toEqual(expected);
      expect(memory.written).toEqual([]);
      leaves += expected.length;
      for (let i = 0; i < 25; i++) {
        const input = base + BigInt(random.below(PAGES)) * PAGE[granule] + BigInt(random.below(4096));
        const access = random.pick(SOME);
        if (look(lowOf(input), highOf(input), access, result) !== WALK.OK) continue;
        memory.written.length = 0;
        const [lo, hi] = [lowOf(input), highOf(input)];
        const count = neighbours.collect(c.format, memory, lo, hi, access, result, spans, MAX_SPANS);
        expect(memory.written).toEqual([]);
        checkSpans(spans, count, look, access, input, result.log2Size, what);
        more += count - 1;
      }
    }
    expect(leaves).toBeGreaterThan(1000);
    expect(more).toBeGreaterThan(100);
  });
});

/** A pair of formats whose stage 2 reaches the tables of stage 1. */
function pairOf(random: Random, one: GranuleKiB, two: GranuleKiB): readonly [VmsaCase, VmsaCase] {
  const first = randomCase(random, 1, one);
  for (;;) {
    const second = randomCase(random, 2, two);
    if (second.rules.inputBits > 32) return [first, second];
  }
}

describe('nested', () => {
  it.each(pairs)('%d KiB over %d KiB', (one, two) => {
    const seed = SEED + one * 128 + two;
    const world = new VmsaWorld(new Random(seed));
    const { random, memory } = world;
    const stage2 = new StageTwo(memory);
    const cursor = new LeafCursor(new StageTwo(memory));
    const neighbours = new Neighbours();
    const result = new WalkResult();
    const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
    let leaves = 0;
    let more = 0;
    for (let done = 0; done < 16; done++) {
      const [first, second] = pairOf(random, one, two);
      world.clear();
      const root1 = world.newRoot(first.rules);
      const base = baseOf(random, first.rules);
      // Intermediate addresses: a few hundred pages, so that the second stage can map most of them.
      fill(world, first.rules, root1, base, 24);
      const root2 = world.newRoot(second.rules);
      world.identity(second.rules, root2, 2);
      fill(world, second.rules, root2, 0n, 32);
      const look: Look = (lo, hi, access, r) =>
        walkNested(first.format, root1, stage2, second.format, root2, lo, hi, access, r);
      const [from, to] = around(random, first.rules, base);
      const what = `seed ${seed}, step ${done}, ${first.name} over ${second.name}`;
      memory.written.length = 0;
      const canonical: Look = (lo, hi, access, r) =>
        first.rules.tbi && hi >> 24 !== (first.rules.ttb1 ? -1 : 0)
          ? WALK.ADDRESS_SIZE
          : look(lo, hi, access, r);
      const step = PAGE[one] < PAGE[two] ? PAGE[one] : PAGE[two];
      const expected = bruteForce(canonical, step, from, to);
      const range = [lowOf(from), highOf(from), lowOf(to), highOf(to)] as const;
      cursor.startNested(first.format, root1, second.format, root2, ...range);
      expect(drain(cursor, random), what).toEqual(expected);
      expect(memory.written).toEqual([]);
      leaves += expected.length;
      for (let i = 0; i < 40; i++) {
        const input = base + BigInt(random.below(PAGES)) * PAGE[one] + BigInt(random.below(4096));
        const access = random.pick(SOME);
        const [lo, hi] = [lowOf(input), highOf(input)];
        if (look(lo, hi, access, result) !== WALK.OK) continue;
        memory.written.length = 0;
        const formats = [first.format, stage2, second.format, root2] as const;
        const count = neighbours.collectNested(...formats, lo, hi, access, result, spans, MAX_SPANS);
        expect(memory.written).toEqual([]);
        checkSpans(spans, count, look, access, input, result.log2Size, what);
        more += count - 1;
      }
    }
    expect(leaves).toBeGreaterThan(100);
    expect(more).toBeGreaterThan(50);
  });
});
