/**
 * The walker over Arm's tables against the naive reference: all granules, both stages and every
 * pair nested, random parameters, random and hostile tables. Outcome, level, descriptor, output,
 * size, rights and every write must agree.
 *
 * VIOMMU_WALK_CASES: comparisons in all, a quarter of them more here (default 150,000).
 * VIOMMU_SEED: another seed.
 */
import { describe, expect, it } from 'vitest';
import { RIGHT } from '../../src/spec/pagetable/format.js';
import { StageTwo, walkNested } from '../../src/walk/nested.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';
import { type VmsaAnswer, vmsaNested, vmsaReference } from './vmsa-reference.js';
import { GRANULES, randomCase, type VmsaCase, VmsaWorld } from './vmsa-world.js';
import { ACCESSES, asked, big, highOf, lowOf, Random } from './world.js';

const GIVEN = process.env['VIOMMU_WALK_CASES'];
const TOTAL = GIVEN === undefined ? 150_000 : Math.ceil(Number(GIVEN) / 4);
const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261122);
/** Comparisons with one set of parameters, and over one filling of the tables. */
const PER_CASE = 100;
const PER_WORLD = 500;

/** Arm's names of the outcomes. */
const ARM = new Map<number, string>([
  [WALK.OK, 'OK'],
  [WALK.ADDRESS_SIZE, 'INPUT'],
  [WALK.NOT_PRESENT, 'TRANSLATION'],
  [WALK.OUTPUT_SIZE, 'ADDRESS_SIZE'],
  [WALK.ACCESS_FLAG, 'ACCESS_FLAG'],
  [WALK.PERMISSION, 'PERMISSION'],
  [WALK.FETCH, 'FETCH'],
  [WALK.UPDATE, 'UPDATE'],
  [WALK.STAGE2_ON_FETCH, 'STAGE2_ON_FETCH'],
  [WALK.STAGE2, 'STAGE2'],
]);

const EXTRA: readonly number[] = [RIGHT.EXECUTE, RIGHT.EXECUTE | RIGHT.PRIVILEGED, RIGHT.PRIVILEGED];
const seen = new Map<string, number>();

function note(outcome: string): void {
  seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
}

const text = (bits: number): string =>
  `${bits & RIGHT.READ ? 'R' : '-'}${bits & RIGHT.WRITE ? 'W' : '-'}${bits & RIGHT.EXECUTE ? 'X' : '-'}`;

function describeResult(result: WalkResult): Record<string, unknown> {
  const outcome = ARM.get(result.outcome) ?? `outcome ${result.outcome}`;
  if (outcome === 'INPUT') return { outcome };
  if (outcome === 'STAGE2_ON_FETCH' || outcome === 'STAGE2') {
    const input = result.stage2 === WALK.ADDRESS_SIZE;
    return {
      outcome,
      stage2: ARM.get(result.stage2),
      stage2Level: input ? 'input' : 4 - result.stage2Level,
      ipa: big(result.ipaLo, result.ipaHi),
    };
  }
  const where = { outcome, level: 4 - result.level, entryAddress: BigInt(result.entryAddress) };
  if (outcome === 'FETCH') return where;
  const entry = big(result.entryLo, result.entryHi);
  if (outcome !== 'OK' && outcome !== 'PERMISSION') return { ...where, entry };
  const rights = `${text(result.permissions)}${result.permissions & RIGHT.PRIVILEGED ? 'P' : ''}`;
  if (outcome === 'PERMISSION') return { ...where, entry, rights };
  return {
    ...where,
    entry,
    rights,
    output: big(result.outLo, result.outHi),
    log2Size: result.log2Size,
    cache: text(result.cachable),
  };
}

function describeAnswer(answer: VmsaAnswer): Record<string, unknown> {
  const { outcome, level, entryAddress, entry, stage2 } = answer;
  if (outcome === 'INPUT') return { outcome };
  if (outcome === 'STAGE2_ON_FETCH' || outcome === 'STAGE2')
    return {
      outcome,
      stage2: stage2?.outcome,
      stage2Level: stage2?.outcome === 'INPUT' ? 'input' : stage2?.level,
      ipa: answer.stage2Address,
    };
  if (outcome === 'FETCH') return { outcome, level, entryAddress };
  if (outcome !== 'OK' && outcome !== 'PERMISSION') return { outcome, level, entryAddress, entry };
  const bits = (r: VmsaAnswer['rights']): number =>
    (r.read ? RIGHT.READ : 0) | (r.write ? RIGHT.WRITE : 0) | (r.execute ? RIGHT.EXECUTE : 0);
  const rights = `${text(bits(answer.rights))}${answer.privilegedOnly ? 'P' : ''}`;
  if (outcome === 'PERMISSION') return { outcome, level, entryAddress, entry, rights };
  const { output, log2Size } = answer;
  const cache = text(bits(answer.cache));
  return { outcome, level, entryAddress, entry, rights, output, log2Size, cache };
}

function same(a: Record<string, unknown>, b: Record<string, unknown>): boolean {
  for (const key of Object.keys(a)) if (a[key] !== b[key]) return false;
  return Object.keys(a).length === Object.keys(b).length;
}

function compare(
  world: VmsaWorld,
  expected: Record<string, unknown>,
  actual: Record<string, unknown>,
  writes: ReadonlyMap<bigint, bigint>,
  what: () => string,
): void {
  const { memory } = world;
  const written = new Map(memory.written.map((address) => [BigInt(address), memory.peek(address)]));
  const sameWrites =
    written.size === writes.size && [...writes].every(([at, value]) => written.get(at) === value);
  if (same(expected, actual) && sameWrites) return;
  expect(actual, what()).toEqual(expected);
  expect(written, `${what()}: words written`).toEqual(writes);
}

function compareOne(world: VmsaWorld, c: VmsaCase, result: WalkResult, where: string): void {
  const { random, memory } = world;
  const input = world.address(c.rules);
  const root = world.root();
  const access = random.chance(0.2) ? random.pick(EXTRA) : random.pick(ACCESSES);
  const look = (access & ~RIGHT.PRIVILEGED) === 0;
  const shadow = world.shadow();
  const answer = vmsaReference(c.rules, shadow, BigInt(root), input, asked(access), look);
  memory.written.length = 0;
  walk(c.format, memory, root, lowOf(input), highOf(input), access, result);
  note(answer.outcome);
  compare(
    world,
    describeAnswer(answer),
    describeResult(result),
    shadow.writes,
    () => `${where}, input 0x${input.toString(16)}, root 0x${root.toString(16)}, access ${access}, ${c.name}`,
  );
}

function compareNested(
  world: VmsaWorld,
  first: VmsaCase,
  second: VmsaCase,
  root2: number,
  stage2: StageTwo,
  result: WalkResult,
  where: string,
): void {
  const { random, memory } = world;
  const input = world.address(first.rules);
  const root1 = random.pick(world.pages);
  const access = random.chance(0.2) ? random.pick(EXTRA) : random.pick(ACCESSES);
  const look = (access & ~RIGHT.PRIVILEGED) === 0;
  const shadow = world.shadow();
  const roots = [BigInt(root1), BigInt(root2)] as const;
  const answer = vmsaNested(
    first.rules,
    roots[0],
    second.rules,
    roots[1],
    shadow,
    input,
    asked(access),
    look,
  );
  memory.written.length = 0;
  const [lo, hi] = [lowOf(input), highOf(input)];
  walkNested(first.format, root1, stage2, second.format, root2, lo, hi, access, result);
  note(`nested ${answer.outcome}`);
  compare(
    world,
    describeAnswer(answer),
    describeResult(result),
    shadow.writes,
    () =>
      `${where}, input 0x${input.toString(16)}, roots ${root1}, ${root2}, access ${access}, ${first.name} over ${second.name}`,
  );
}

const kinds = GRANULES.flatMap((granule) => ([1, 2] as const).map((stage) => [granule, stage] as const));
const pairs = GRANULES.flatMap((one) => GRANULES.map((two) => [one, two] as const));

describe('the walker over VMSAv8-64 tables equals the reference', () => {
  it.each(kinds)('%d KiB granule, stage %d', (granule, stage) => {
    const seed = SEED + granule * 8 + stage;
    const world = new VmsaWorld(new Random(seed));
    const result = new WalkResult();
    const each = Math.ceil((TOTAL * 0.6) / kinds.length);
    let c = randomCase(world.random, stage, granule);
    for (let done = 0; done < each; done++) {
      if (done % PER_WORLD === 0) world.shuffle(world.random.pick([0, 0.05, 0.15, 0.4]));
      if (done % PER_CASE === 0) c = randomCase(world.random, stage, granule);
      compareOne(world, c, result, `seed ${seed}, comparison ${done}`);
    }
  });

  it.each(pairs)('nested: %d KiB over %d KiB', (one, two) => {
    const seed = SEED + one * 128 + two;
    const world = new VmsaWorld(new Random(seed));
    const { random } = world;
    const stage2 = new StageTwo(world.memory);
    const result = new WalkResult();
    const each = Math.ceil((TOTAL * 0.4) / pairs.length);
    let first = randomCase(random, 1, one);
    let second = randomCase(random, 2, two);
    let root2 = 0;
    for (let done = 0; done < each; done++) {
      if (done % PER_WORLD === 0) world.shuffle(random.pick([0, 0, 0.02, 0.1]));
      if (done % PER_CASE === 0) {
        first = randomCase(random, 1, one);
        second = randomCase(random, 2, two);
        world.clear();
        root2 = world.secondStage(second.rules, random.pick([0, 1, 20]));
      }
      // Sometimes any page at all is the stage-2 root.
      if (done % PER_CASE === PER_CASE - 10) root2 = world.root();
      compareNested(world, first, second, root2, stage2, result, `seed ${seed}, comparison ${done}`);
    }
  });

  it('reached every outcome, and success often enough to mean something', () => {
    const total = [...seen.values()].reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThanOrEqual(TOTAL);
    for (const outcome of [
      'INPUT',
      'TRANSLATION',
      'ADDRESS_SIZE',
      'ACCESS_FLAG',
      'PERMISSION',
      'FETCH',
      'UPDATE',
    ])
      expect(seen.get(outcome) ?? 0, outcome).toBeGreaterThan(total / 2000);
    expect(seen.get('OK') ?? 0).toBeGreaterThan(total / 20);
    for (const outcome of ['OK', 'STAGE2', 'STAGE2_ON_FETCH', 'TRANSLATION', 'ACCESS_FLAG', 'PERMISSION'])
      expect(seen.get(`nested ${outcome}`) ?? 0, `nested ${outcome}`).toBeGreaterThan(total / 2000);
    expect(seen.get('nested OK') ?? 0).toBeGreaterThan(total / 40);
  });
});
