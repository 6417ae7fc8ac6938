/**
 * Spans around an answer: each one must be what fresh walks say of all its pages, and collecting
 * must write nothing.
 */
import { describe, expect, it } from 'vitest';
import { ACCESS, MAX_SPANS, SPAN_WORDS } from '../../src/device/iommu.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { RIGHT } from '../../src/spec/pagetable/format.js';
import { vtdFirstStage, vtdSecondStage } from '../../src/spec/pagetable/vtd.js';
import { Neighbours } from '../../src/walk/neighbours.js';
import { StageTwo, walkNested } from '../../src/walk/nested.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';
import { ACCESSES, allCases, big, highOf, lowOf, Random, World } from './world.js';

const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261122);
const CAPS = {
  hostAddressWidth: 46,
  secondStage2M: true,
  secondStage1G: true,
  firstStage1G: true,
  snoopControl: true,
  transientMapping: false,
};
const SECOND = vtdSecondStage(CAPS, { levels: 4, accessedDirty: false });
const SECOND_AD = vtdSecondStage(CAPS, { levels: 4, accessedDirty: true });
const FIRST = vtdFirstStage(CAPS, { levels: 4, writeProtect: true, extendedAccessed: false });
const READ_WRITE = RIGHT.READ | RIGHT.WRITE;

interface Span {
  readonly input: bigint;
  readonly output: bigint;
  readonly log2: number;
  readonly rights: number;
}

function spansOf(words: Uint32Array, count: number): Span[] {
  return Array.from({ length: count }, (_, i) => {
    const at = i * SPAN_WORDS;
    return {
      input: big(words[at], words[at + 1]),
      output: big(words[at + 2], words[at + 3]),
      log2: words[at + 4],
      rights: words[at + 5],
    };
  });
}

/**
 * Shape of a list of spans, whatever is mapped: aligned, ascending without overlap, the asked
 * address in the first, the access allowed. Plain comparisons: an `expect` for each of some hundred
 * thousand spans would take minutes.
 */
function expectShape(spans: readonly Span[], input: bigint, access: number, what: string): void {
  const sound = spans.every((span, i) => {
    const size = 1n << BigInt(span.log2);
    const before = spans[i - 1];
    const ordered = !before || span.input >= before.input + (1n << BigInt(before.log2));
    const allowed = (access & READ_WRITE & ~span.rights) === 0;
    return span.input % size === 0n && span.output % size === 0n && ordered && allowed;
  });
  const first = spans[0];
  const covered = first && input >= first.input && input < first.input + (1n << BigInt(first.log2));
  if (!sound || !covered)
    expect(spans, `${what}: 0x${input.toString(16)}, access ${access}`).toEqual('sound spans');
}

describe('access bits', () => {
  it('are the same numbers in the walker and in the device interface', () => {
    expect(RIGHT).toEqual(ACCESS);
  });
});

describe('neighbours are what fresh walks say', () => {
  const neighbours = new Neighbours();
  const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
  const result = new WalkResult();
  const fresh = new WalkResult();
  let found = 0;

  it.each(allCases().map((c, i) => [c.name, c, SEED + i] as const))('%s', (name, c, seed) => {
    const world = new World(new Random(seed));
    const { random, memory } = world;
    let root = 0;
    for (let done = 0; done < 40; done++) {
      if (done % 10 === 0) root = world.tidy(c.rules.levels);
      const input = world.address(c.rules.inputBits);
      const access = random.pick(ACCESSES);
      if (walk(c.format, memory, root, lowOf(input), highOf(input), access, result) !== WALK.OK) continue;
      memory.written.length = 0;
      const most = random.chance(0.2) ? 1 + random.below(4) : MAX_SPANS;
      const count = neighbours.collect(
        c.format,
        memory,
        lowOf(input),
        highOf(input),
        access,
        result,
        spans,
        most,
      );
      expect(count).toBeGreaterThan(0);
      expect(count).toBeLessThanOrEqual(most);
      expect(memory.written).toEqual([]);
      const what = `${name}, seed ${seed}, step ${done}, input 0x${input.toString(16)}`;
      const list = spansOf(spans, count);
      expectShape(list, input, access, what);
      found += count - 1;
      const unit = result.log2Size;
      for (const span of list) {
        for (let offset = 0n; offset < 1n << BigInt(span.log2); offset += 1n << BigInt(unit)) {
          const at = span.input + offset;
          const peeked = walk(
            c.format,
            memory,
            root,
            lowOf(at),
            highOf(at),
            access & RIGHT.PRIVILEGED ? access : 0,
            fresh,
          );
          const sound =
            peeked === WALK.OK &&
            big(fresh.outLo, fresh.outHi) === span.output + offset &&
            (access === 0 ? fresh.permissions : fresh.cachable) === span.rights &&
            fresh.log2Size === unit;
          if (!sound) expect({ at, peeked, fresh }, what).toEqual(span);
        }
      }
    }
  });

  it('found neighbours to compare', () => {
    expect(found).toBeGreaterThan(5_000);
  });
});

describe('a 128 KiB transfer', () => {
  const LEAF = 0x3000;

  function tables(bits: number, leafOf: (index: number) => bigint): ArrayMemory {
    const memory = new ArrayMemory([{ base: 0, bytes: 16 * 4096 }]);
    [0x0, 0x1000, 0x2000].forEach((table, i) => {
      memory.poke(table, BigInt(0x1000 * (i + 1)) | BigInt(bits));
    });
    for (let i = 0; i < 512; i++) memory.poke(LEAF + i * 8, leafOf(i));
    return memory;
  }

  function ask(memory: ArrayMemory, format: typeof SECOND, input: number, access: number): Span[] {
    const result = new WalkResult();
    const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
    expect(walk(format, memory, 0, input, 0, access, result)).toBe(WALK.OK);
    return spansOf(
      spans,
      new Neighbours().collect(format, memory, input, 0, access, result, spans, MAX_SPANS),
    );
  }

  it('of scattered pages is answered in one go', () => {
    const memory = tables(3, (i) => (BigInt(0x9000 + ((i * 37) % 512)) << 12n) | 3n);
    const spans = ask(memory, SECOND, 5 * 4096, RIGHT.READ);
    expect(spans.length).toBe(MAX_SPANS);
    expect(spans.slice(0, 32).map((s) => s.input)).toEqual(
      Array.from({ length: 32 }, (_, i) => BigInt((5 + i) * 4096)),
    );
  });

  it('of contiguous pages is a few large spans, the asked one grown downwards too', () => {
    const memory = tables(3, (i) => (BigInt(0x9000 + i) << 12n) | 3n);
    expect(ask(memory, SECOND, 37 * 4096, RIGHT.WRITE)).toEqual([
      { input: 0n, output: 0x9000000n, log2: 18, rights: READ_WRITE },
      { input: 0x40000n, output: 0x9040000n, log2: 17, rights: READ_WRITE },
      { input: 0x60000n, output: 0x9060000n, log2: 14, rights: READ_WRITE },
      { input: 0x64000n, output: 0x9064000n, log2: 13, rights: READ_WRITE },
    ]);
  });

  it('is not joined where the output is contiguous but not aligned alike', () => {
    const memory = tables(3, (i) => (BigInt(0x9001 + i) << 12n) | 3n);
    expect(new Set(ask(memory, SECOND, 8 * 4096, RIGHT.READ).map((s) => s.log2))).toEqual(new Set([12]));
  });

  it('offers no page for writing whose Dirty bit is clear', () => {
    const memory = tables(0x103, (i) => (BigInt(0x9000 + i) << 12n) | (i % 2 === 0 ? 0x303n : 0x103n));
    const reads = ask(memory, SECOND_AD, 0, RIGHT.READ);
    expect(reads.slice(0, 3).map((s) => s.rights)).toEqual([READ_WRITE, RIGHT.READ, READ_WRITE]);
    const writes = ask(memory, SECOND_AD, 4096, RIGHT.WRITE);
    // The asked page was made Dirty by its own walk; of the others only the even ones are.
    expect(writes.map((s) => s.input).slice(0, 3)).toEqual([0n, 0x2000n, 0x4000n]);
    expect(writes[0]?.log2).toBe(13);
  });

  it('offers nothing whose Accessed bit is clear', () => {
    const memory = tables(0x103, (i) => (BigInt(0x9000 + i) << 12n) | (i === 2 ? 0x303n : 0x203n));
    expect(ask(memory, SECOND_AD, 0, RIGHT.READ).map((s) => s.input)).toEqual([0n, 0x2000n]);
  });
});

describe('nested neighbours are what fresh walks say', () => {
  it.each([
    ['equal pages', 0, 0],
    ['stage 1 with large pages', 0x80, 0],
    ['stage 2 with large pages', 0, 0x80],
    ['both with large pages', 0x80, 0x80],
  ])('%s', (_name, large1, large2) => {
    const random = new Random(SEED + large1 * 2 + large2);
    const memory = new ArrayMemory([{ base: 0, bytes: 32 * 4096 }]);
    // Stage 1 at 0..3, its addresses in the 2 MiB at 0x1000_0000; stage 2 at 4..; both map
    // themselves where needed.
    const link = (table: number, index: number, value: number): void => {
      memory.poke(table * 4096 + index * 8, BigInt(value));
    };
    [0, 1].forEach((t) => {
      link(t, 0, ((t + 1) * 4096) | 0x767);
    });
    [4, 5].forEach((t) => {
      link(t, 0, ((t + 1) * 4096) | 0x303);
    });
    for (let i = 0; i < 8; i++) link(2, i, large1 ? 0x1000_0000 + i * 0x20_0000 + 0x7e7 : 0x3000 | 0x767);
    // Stage 2, level 2: the guest's tables as they stand, then what stage 1 maps to.
    link(6, 0, 0x7000 | 0x303);
    for (let i = 0; i < 32; i++) link(7, i, (i * 4096) | 0x303);
    for (let i = 0; i < 8; i++)
      link(6, 0x80 + i, large2 && i % 4 !== 2 ? 0x2_0000_0000 + (i ^ 1) * 0x20_0000 + 0x383 : 0x8000 | 0x303);
    for (let i = 0; i < 512; i++) {
      const ipaPage = random.chance(0.7) ? i : random.below(512);
      link(3, i, (0x1_0000 + ipaPage) * 4096 + (random.chance(0.95) ? 0x767 : 0x705));
      const page = random.chance(0.8) ? i : random.below(512);
      link(8, i, (0x20_0000 + page) * 4096 + (random.chance(0.95) ? 0x303 : random.below(4)));
    }
    const stage2 = new StageTwo(memory);
    const neighbours = new Neighbours();
    const result = new WalkResult();
    const fresh = new WalkResult();
    const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
    let joined = 0;
    for (let done = 0; done < 600; done++) {
      const input = random.below(8 * 512) * 4096 + random.below(4096);
      const access = random.pick([RIGHT.READ, RIGHT.WRITE, READ_WRITE]);
      if (walkNested(FIRST, 0, stage2, SECOND_AD, 0x4000, input, 0, access, result) !== WALK.OK) continue;
      const count = neighbours.collectNested(
        FIRST,
        stage2,
        SECOND_AD,
        0x4000,
        input,
        0,
        access,
        result,
        spans,
        MAX_SPANS,
      );
      const list = spansOf(spans, count);
      const what = `step ${done}, input 0x${input.toString(16)}, access ${access}`;
      expectShape(list, BigInt(input), access, what);
      const unit = BigInt(1 << result.log2Size);
      for (const span of list) {
        if (1n << BigInt(span.log2) > unit || list.length > 1) joined++;
        for (let offset = 0n; offset < 1n << BigInt(span.log2); offset += unit) {
          const at = Number(span.input + offset);
          const peeked = walkNested(FIRST, 0, stage2, SECOND_AD, 0x4000, at | 0, 0, 0, fresh);
          const sound =
            peeked === WALK.OK &&
            fresh.log2Size >= result.log2Size &&
            big(fresh.outLo, fresh.outHi) + BigInt(at % 2 ** fresh.log2Size) === span.output + offset &&
            fresh.cachable === span.rights;
          if (!sound) expect({ at, peeked, fresh }, what).toEqual(span);
        }
      }
    }
    expect(joined).toBeGreaterThan(100);
  });
});
