/**
 * The walker against the naive reference: every format, random and hostile tables, random
 * addresses. Outcome, level, entry, output, size, rights and every Accessed/Dirty write must agree.
 *
 * VIOMMU_WALK_CASES: comparisons in all (default 1,000,000). VIOMMU_SEED: another seed; failures
 * print theirs.
 */
import { describe, expect, it } from 'vitest';
import { RIGHT } from '../../src/spec/pagetable/format.js';
import { StageTwo, walkNested } from '../../src/walk/nested.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';
import { type Answer, referenceNested, referenceWalk } from './reference.js';
import { ACCESSES, allCases, asked, big, type Case, highOf, lowOf, Random, World } from './world.js';

const TOTAL = Number(process.env['VIOMMU_WALK_CASES'] ?? 1_000_000);
const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261122);
const NAMES = Object.fromEntries(Object.entries(WALK).map(([name, value]) => [value, name]));
/** Comparisons over one filling of the tables. */
const PER_WORLD = 250;

const cases = allCases();
const firsts = cases.filter((c) => c.rules.stage === 'first');
const seconds = cases.filter((c) => c.rules.stage === 'second');
/** Outcomes seen, so that the suite notices when its tables stop reaching one. */
const seen = new Map<string, number>();

function note(outcome: string): void {
  seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
}

/**
 * What the walker found, in the reference's form: comparing two small objects shows every
 * difference at once.
 */
function describeResult(result: WalkResult, look: boolean): Record<string, unknown> {
  const outcome = NAMES[result.outcome];
  if (outcome === 'ADDRESS_SIZE') return { outcome };
  if (outcome === 'STAGE2_ON_FETCH' || outcome === 'STAGE2')
    return { outcome, stage2: NAMES[result.stage2], ipa: big(result.ipaLo, result.ipaHi) };
  const where = { outcome, level: result.level, entryAddress: BigInt(result.entryAddress) };
  if (outcome === 'FETCH') return where;
  const entry = big(result.entryLo, result.entryHi);
  const rights = {
    read: (result.permissions & RIGHT.READ) !== 0,
    write: (result.permissions & RIGHT.WRITE) !== 0,
    privilegedOnly: (result.permissions & RIGHT.PRIVILEGED) !== 0,
  };
  if (outcome === 'PERMISSION') return { ...where, entry, ...rights };
  if (outcome !== 'OK') return { ...where, entry };
  return {
    ...where,
    entry,
    ...rights,
    output: big(result.outLo, result.outHi),
    log2Size: result.log2Size,
    cacheRead: (result.cachable & RIGHT.READ) !== 0,
    cacheWrite: (result.cachable & RIGHT.WRITE) !== 0,
    look,
  };
}

function describeAnswer(answer: Answer, look: boolean): Record<string, unknown> {
  const { outcome, level, entryAddress, entry, read, write, privilegedOnly } = answer;
  if (outcome === 'ADDRESS_SIZE') return { outcome };
  if (outcome === 'STAGE2_ON_FETCH' || outcome === 'STAGE2')
    return { outcome, stage2: answer.stage2?.outcome, ipa: answer.stage2Address };
  if (outcome === 'FETCH') return { outcome, level, entryAddress };
  if (outcome === 'PERMISSION') return { outcome, level, entryAddress, entry, read, write, privilegedOnly };
  if (outcome !== 'OK') return { outcome, level, entryAddress, entry };
  const { output, log2Size, cacheRead, cacheWrite } = answer;
  return {
    outcome,
    level,
    entryAddress,
    entry,
    read,
    write,
    privilegedOnly,
    output,
    log2Size,
    cacheRead,
    cacheWrite,
    look,
  };
}

function same(a: Record<string, unknown>, b: Record<string, unknown>): boolean {
  for (const key of Object.keys(a)) if (a[key] !== b[key]) return false;
  return Object.keys(a).length === Object.keys(b).length;
}

/** Compares the words that the walker wrote with those the reference would have. */
function sameWrites(world: World, writes: ReadonlyMap<bigint, bigint>): boolean {
  for (const [address, value] of writes) if (world.memory.peek(Number(address)) !== value) return false;
  return world.memory.written.every((address) => writes.has(BigInt(address)));
}

/** For the message: which words were written, and with what. */
function expectWrites(world: World, writes: ReadonlyMap<bigint, bigint>, context: string): void {
  const { memory } = world;
  const actual = new Map(memory.written.map((address) => [BigInt(address), memory.peek(address)]));
  expect(actual, `${context}: words written`).toEqual(writes);
}

function compareOne(world: World, c: Case, result: WalkResult, what: string): void {
  const { random, memory } = world;
  const input = world.address(c.rules.inputBits);
  const root = world.root();
  const access = random.pick(ACCESSES);
  const look = access === 0;
  const shadow = world.shadow();
  const expected = describeAnswer(
    referenceWalk(c.rules, shadow, BigInt(root), input, asked(access), look),
    look,
  );
  memory.written.length = 0;
  walk(c.format, memory, root, lowOf(input), highOf(input), access, result);
  const actual = describeResult(result, look);
  note(String(actual['outcome']));
  if (same(expected, actual) && sameWrites(world, shadow.writes)) return;
  const context = `${what}, input 0x${input.toString(16)}, root 0x${root.toString(16)}, access ${access}`;
  expect(actual, context).toEqual(expected);
  expectWrites(world, shadow.writes, context);
}

function compareNested(
  world: World,
  first: Case,
  second: Case,
  root2: number,
  stage2: StageTwo,
  result: WalkResult,
  what: string,
): void {
  const { random, memory } = world;
  const input = world.address(first.rules.inputBits);
  const root1 = random.pick(world.pages);
  const access = random.pick(ACCESSES);
  const look = access === 0;
  const shadow = world.shadow();
  const answer = referenceNested(
    first.rules,
    BigInt(root1),
    second.rules,
    BigInt(root2),
    shadow,
    input,
    asked(access),
    look,
  );
  const expected = describeAnswer(answer, look);
  memory.written.length = 0;
  const [lo, hi] = [lowOf(input), highOf(input)];
  walkNested(first.format, root1, stage2, second.format, root2, lo, hi, access, result);
  const actual = describeResult(result, look);
  note(`nested ${actual['outcome']}`);
  if (same(expected, actual) && sameWrites(world, shadow.writes)) return;
  const context = `${what}, input 0x${input.toString(16)}, roots ${root1} and ${root2}, access ${access}`;
  expect(actual, context).toEqual(expected);
  expectWrites(world, shadow.writes, context);
}

describe('the walker equals the reference', () => {
  const each = Math.ceil((TOTAL * 0.75) / cases.length / PER_WORLD) * PER_WORLD;
  it.each(cases.map((c, i) => [c.name, c, SEED + i * 7919] as const))('%s', (name, c, seed) => {
    const world = new World(new Random(seed));
    const result = new WalkResult();
    for (let done = 0; done < each; done++) {
      if (done % PER_WORLD === 0) world.shuffle(world.random.pick([0, 0.05, 0.15, 0.5]));
      compareOne(world, c, result, `${name}, seed ${seed}, comparison ${done}`);
    }
  });

  const perPair = Math.max(1, Math.ceil((TOTAL * 0.25) / (firsts.length * seconds.length)));
  it.each(firsts.map((c, i) => [c.name, c, (SEED ^ 0x5eed) + i * 7919] as const))(
    'nested: %s over every second-stage format',
    (name, first, seed) => {
      const world = new World(new Random(seed));
      const stage2 = new StageTwo(world.memory);
      const result = new WalkResult();
      seconds.forEach((second, pair) => {
        world.shuffle(world.random.pick([0, 0, 0.02, 0.1]));
        let root2 = 0;
        for (let done = 0; done < perPair; done++) {
          // Sometimes any page at all is the stage-2 root.
          if (done % 64 === 0) root2 = world.secondStage(second.rules.levels, world.random.pick([0, 1, 20]));
          if (done % 64 === 60) root2 = world.root();
          const what = `${name} over ${second.name}, seed ${seed}, pair ${pair}, comparison ${done}`;
          compareNested(world, first, second, root2, stage2, result, what);
        }
      });
    },
  );

  it('reached every outcome, and success often enough to mean something', () => {
    const total = [...seen.values()].reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThanOrEqual(TOTAL);
    process.stdout.write(`walker: ${total} comparisons without a difference, seed ${SEED}\n`);
    for (const outcome of ['ADDRESS_SIZE', 'NOT_PRESENT', 'RESERVED', 'FETCH', 'PERMISSION', 'UPDATE'])
      expect(seen.get(outcome) ?? 0, outcome).toBeGreaterThan(total / 5000);
    expect(seen.get('OK') ?? 0).toBeGreaterThan(total / 20);
    for (const outcome of ['OK', 'STAGE2', 'STAGE2_ON_FETCH', 'NOT_PRESENT', 'PERMISSION'])
      expect(seen.get(`nested ${outcome}`) ?? 0, `nested ${outcome}`).toBeGreaterThan(total / 5000);
  });
});
