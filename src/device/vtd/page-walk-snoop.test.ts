/**
 * Random PASID-table entries and tables, each asked three times: of a unit as it is, of one whose
 * walks are snooped, and of a peer that walks by itself. Nothing is set without page-walk snooping,
 * and a peer finds nothing but what the model answers without setting or recording anything.
 */
import { describe, expect, it } from 'vitest';
import { walkAsPeer } from '../../../test/support/peer-walks.js';
import { READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { Random } from '../../../test/walk/world.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { WalkResult } from '../../walk/types.js';
import { noWalkTables } from '../tables.js';

const SEED = Number(process.env['VIOMMU_SEED'] ?? 20261130);
const CASES = 500;
const RID = 0x98;
const PWSNP = 1n << 23n;
const GPA = 0x20_0000n;
const IOVA = 0x12_3456_7000n;
const DID = 5n;

/** What was done to a machine, for the message of a failure. */
interface Setup {
  readonly vm: TestMachine;
  readonly text: string;
  readonly iova: bigint;
  readonly pasid: number;
}

const bits = (random: Random, wanted: readonly (readonly [number, number])[]): bigint =>
  wanted.reduce((all, [n, chance]) => (random.chance(chance) ? all | (1n << BigInt(n)) : all), 0n);

/**
 * Bits of an entry: rights nearly always, Accessed, Dirty and EA as often as a case is to be
 * without a flaw.
 */
function firstBits(random: Random, tidy: number): bigint {
  const flags = [5, 6, 10].map((n) => [n, tidy] as const);
  return bits(random, [[0, 0.97], [1, 0.9], [2, 0.97], [7, 0.02], [8, 0.1], [63, 0.1], ...flags]);
}

function secondBits(random: Random, tidy: number): bigint {
  const flags = [8, 9].map((n) => [n, tidy] as const);
  return bits(random, [[0, 0.97], [1, 0.95], [2, 0.1], [62, 0.02], ...flags]);
}

/**
 * Tables whose entries are random one by one; `leafBits` and the rest come from the same generator.
 */
function tables(vm: TestMachine, levels: number, input: bigint, output: bigint, entry: () => bigint): number {
  const root = vm.page();
  let table = root;
  for (let level = levels; level > 0; level--) {
    const at = table + Number((input >> BigInt(12 + 9 * (level - 1))) & 511n) * 8;
    const next = level > 1 ? BigInt(vm.page()) : output;
    vm.entry(at, next | entry());
    table = Number(next);
  }
  return root;
}

/** A second stage that lets the first-stage tables, all within 2 MiB, and the data through. */
function parent(vm: TestMachine, random: Random, levels: number, tidy: number, lengthy: boolean): number {
  const root = vm.page();
  const bit = (): bigint => secondBits(random, tidy);
  for (let page = 0x10_0000n; page < 0x18_0000n; page += 4096n)
    vm.map(root, levels, page, page, lengthy ? bit() : bit() | 3n, 3n | (random.chance(tidy) ? 0x100n : 0n));
  vm.map(root, levels, GPA, GPA, bit(), 3n);
  return root;
}

function build(seed: number, snooped: boolean): Setup {
  const random = new Random(seed);
  const vm = new TestMachine({ 'aw-bits': random.pick(['48', '57']) });
  const { directory } = vm.scalableContext(RID, { paside: true });
  const type = random.pick([1, 1, 2, 3] as const);
  const pasid = random.pick([-1, 7]);
  // Every way from "nothing to set" to "everything".
  const tidy = random.pick([0, 0.5, 0.9, 1]);
  const five = random.chance(0.2);
  const aw = random.pick(vm.options['aw-bits'] === '57' ? [1, 2, 3] : [1, 2]);
  const ssade = random.chance(0.6);
  const hole = random.chance(0.1);
  const output = hole ? 0xfee0_0000n : GPA;
  const iova = random.chance(0.05) ? 0xfee0_1000n : random.chance(0.1) ? random.u64() : IOVA;
  const options =
    bits(random, [
      [7, 0.4],
      [4, 0.4],
    ]) | (five ? 4n : 0n);
  const values = [1n | (BigInt(type) << 6n) | (ssade ? 1n << 9n : 0n), DID, options];
  values[1] |= (snooped ? PWSNP : 0n) | bits(random, [[24, 0.5]]);
  if (type !== 1) values[0] |= BigInt(aw) << 2n;
  if (type !== 2) {
    const first = tables(vm, five ? 5 : 4, iova, output, () => firstBits(random, tidy));
    values[2] |= BigInt(first);
  }
  if (type === 3) values[0] |= BigInt(parent(vm, random, aw + 2, tidy, random.chance(0.3)));
  if (type === 2) values[0] |= BigInt(tables(vm, aw + 2, iova, output, () => secondBits(random, tidy)));
  vm.pasidEntry(directory, Math.max(pasid, 0), ...values);
  vm.setRoot(1);
  vm.enable();
  const text = `seed ${seed} PGTT ${type} ${values.map((value) => value.toString(16)).join(' ')}`;
  return { vm, text, iova, pasid };
}

/** One request, and whether the unit changed a table for it: flags are set by exchanges. */
function ask({ vm, iova, pasid }: Setup, access: number) {
  const { memory } = vm;
  const exchange = memory.cas32.bind(memory);
  let wrote = false;
  memory.cas32 = (gpa, expected, value) => {
    const done = exchange(gpa, expected, value);
    wrote ||= done;
    return done;
  };
  const { ok, out } = vm.translate(RID, iova, access, pasid);
  memory.cas32 = exchange;
  return { ok, out: ok ? out : -1n, reason: vm.lastReason(), wrote };
}

describe('page walks that are not snooped', () => {
  it('set no flag in any table, and else find what others find', { timeout: 120_000 }, () => {
    const seen = new Map<number, number>();
    let same = 0;
    for (let seed = SEED; seed < SEED + CASES; seed++) {
      const access = seed % 3 === 0 ? WRITE : READ;
      const plain = build(seed, false);
      const mine = ask(plain, access);
      const other = ask(build(seed, true), access);
      expect(mine.wrote, plain.text).toBe(false);
      if (mine.reason === FAULT.SFS_9 || mine.reason === FAULT.SSS_5) {
        // SFS.8: the second stage is not asked whether it lets a flag be set that must not be.
        expect(other.wrote || other.reason === FAULT.SFS_8, plain.text).toBe(true);
        seen.set(mine.reason, (seen.get(mine.reason) ?? 0) + 1);
      } else {
        expect({ ...mine, text: plain.text }).toEqual({ ...other, text: plain.text });
        if (mine.ok) same++;
      }
    }
    expect(seen.get(FAULT.SFS_9)).toBeGreaterThan(CASES / 20);
    expect(seen.get(FAULT.SSS_5)).toBeGreaterThan(CASES / 20);
    expect(same).toBeGreaterThan(CASES / 20);
  });
});

describe('a peer that walks', () => {
  it('finds what the model answers without setting or recording anything', { timeout: 120_000 }, () => {
    const result = new WalkResult();
    let found = 0;
    let asked = 0;
    for (let seed = SEED; seed < SEED + CASES; seed++) {
      const setup = build(seed, seed % 2 === 0);
      const { vm, iova, pasid, text } = setup;
      const access = 1 + (seed % 3);
      const told = noWalkTables();
      const block =
        vm.model.peerWalk?.describe(RID, pasid, 0, told) === true
          ? walkAsPeer(vm.memory, told, access, iova, result)
          : undefined;
      const answer = ask(setup, access);
      if (block === undefined) {
        if (answer.ok && !answer.wrote) asked++;
        continue;
      }
      const offset = iova & ((1n << BigInt(block.log2Size)) - 1n);
      const expected = { ok: true, out: block.output | offset, reason: 0, wrote: false };
      expect({ ...answer, text }).toEqual({ ...expected, text });
      found++;
    }
    // What it leaves to the model though nothing is to be done there is nested, or an interrupt.
    expect(found).toBeGreaterThan(CASES / 20);
    expect(asked).toBeLessThan(found);
  });
});
