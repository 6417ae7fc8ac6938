import { describe, expect, it } from 'vitest';
import { Rng } from '../../../test/fuzz/rng.js';
import { type SmmuShape, smmuEffect, wordsOf } from '../../../test/support/plain-entries.js';
import {
  COMMAND_QUEUE,
  RAM_BYTES,
  READ,
  S1_LEAF,
  S2_LEAF,
  SID,
  TestSmmu,
} from '../../../test/support/smmu-unit.js';
import { plainStep } from '../../sim/sim-peer-queue.js';
import { STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { CODEC } from '../../wire/codec.js';
import { DEVICE_TLB, TRANSLATE_STATUS } from '../iommu.js';

const ASID = 5;
const STATUS = 0x6000;
const CMDQ_BASE = 0x90;
const PROD = 0x98;
const CONS = 0x9c;
const CR0 = 0x20;
const BYTES = 16;

/** Commands by bit numbers. IHI 0070 §4.4, §4.7.3 */
const asidOf = (asid: number): bigint => BigInt(asid) << 48n;
const va = (address: bigint, asid = ASID, more = 0n): bigint =>
  0x12n | asidOf(asid) | (address << 64n) | more;
const vaa = (address: bigint): bigint => 0x13n | (address << 64n);
const allOf = (asid: number): bigint => 0x11n | asidOf(asid);
const NH_ALL = 0x10n;
const ipa = (address: bigint, vmid: number): bigint => 0x2an | (BigInt(vmid) << 32n) | (address << 64n);
const vmall = (vmid: number): bigint => 0x28n | (BigInt(vmid) << 32n);
const SYNC = 0x46n;
const syncTo = (data: number, address = STATUS): bigint =>
  SYNC | (1n << 12n) | (BigInt(data) << 32n) | (BigInt(address) << 64n);
/** NUM 16:12, SCALE 24:20, TTL 73:72, TG 75:74. */
const range = (number: number, scale: number, ttl: number, tg: number): bigint =>
  (BigInt(number) << 12n) | (BigInt(scale) << 20n) | (BigInt(ttl) << 72n) | (BigInt(tg) << 74n);

function peerOf(vm: TestSmmu) {
  const { peerQueue } = vm.model;
  if (peerQueue === undefined) throw new Error('no queue for the peer');
  return peerQueue;
}

function described(vm: TestSmmu) {
  const description = CODEC.Queue.create();
  peerOf(vm).describe(description);
  return { ...description, commands: Uint32Array.from(description.commands) };
}

const words = (...commands: readonly bigint[]): Uint32Array[] => commands.map((one) => wordsOf(one, BYTES));

/** Commands as they stand in the ring. */
function run(...commands: readonly bigint[]): Uint32Array {
  return Uint32Array.from(words(...commands).flatMap((one) => Array.from(one)));
}

describe('the Command queue described as data', () => {
  it('has its registers, its size with a wrap bit, and its aligned place', () => {
    const vm = new TestSmmu();
    // LOG2SIZE 9: 8 KiB; the base is aligned down to that.
    vm.write64(CMDQ_BASE, 0x5_3000 + 9);
    vm.write32(CR0, 8);
    expect(described(vm)).toMatchObject({
      ...{ tail: PROD, head: CONS, baseLo: 0x5_2000, baseHi: 0, wraps: true },
      ...{ entryLog2: 4, entriesLog2: 9, indexShift: 0, indexMask: 0x3ff },
    });
  });

  it.each<readonly [string, Readonly<Record<string, string>>, SmmuShape]>([
    ['stage 1', { stages: '1', 'range-invalidation': 'on' }, { stage1: true, stage2: false, range: true }],
    ['stage 2', { stages: '2', 'range-invalidation': 'on' }, { stage1: false, stage2: true, range: true }],
    ['both', { stages: 'nested', 'range-invalidation': 'on' }, { stage1: true, stage2: true, range: true }],
    [
      'no ranges',
      { stages: 'nested', 'range-invalidation': 'off' },
      { stage1: true, stage2: true, range: false },
    ],
  ])('%s: what is plain, and what it does', (_name, options, shape) => {
    const vm = new TestSmmu(options).start();
    const { commands } = described(vm);
    let index = 0;
    const rng = new Rng(2);
    const isRam = (gpa: number): boolean => gpa + 4 <= RAM_BYTES;
    const seen = { drops: 0, stores: 0, nothing: 0, none: 0 };
    for (let n = 0; n < 20_000; n++) {
      const entry = randomCommand(rng);
      const expected = smmuEffect(entry, shape);
      const found = plainStep(commands, wordsOf(entry, BYTES), isRam);
      const fits = expected !== undefined && (!('stores' in expected) || isRam(expected.stores.address));
      const text = `0x${entry.toString(16)}`;
      expect(found !== undefined, text).toBe(fits);
      const { entry: _, ...effect } = found ?? { entry: undefined };
      if (fits) {
        expect(effect, text).toEqual(expected);
        index = (index + 1) & 0x1f;
        expect(peerOf(vm).ran(run(entry), 0, 1, index), text).toBe(true);
      }
      const kind =
        'drops' in (expected ?? {}) ? 'drops' : 'stores' in (expected ?? {}) ? 'stores' : 'nothing';
      seen[fits ? kind : 'none']++;
    }
    expect(Math.min(seen.drops, seen.stores, seen.nothing, seen.none)).toBeGreaterThan(300);
  });

  it('says another version when place or size change, and only then', () => {
    const vm = new TestSmmu().start();
    const first = peerOf(vm).version;
    vm.submit(...words(NH_ALL, SYNC));
    expect(peerOf(vm).version).toBe(first);
    vm.write32(CR0, 0);
    vm.write64(CMDQ_BASE, COMMAND_QUEUE + 5);
    expect(peerOf(vm).version).not.toBe(first);
  });
});

/** Mostly commands of the plain kinds, with random fields. */
function randomCommand(rng: Rng): bigint {
  const plain = [0x10n, 0x11n, 0x12n, 0x12n, 0x13n, 0x28n, 0x2an, 0x30n, 0x46n, 0x46n, 0x46n, 0x03n, 0x40n];
  const opcode = rng.chance(0.95) ? rng.pick(plain) : BigInt(rng.below(256));
  let entry = (rng.u64() << 64n) | rng.u64();
  entry = (entry & ~0xffn) | opcode;
  if (rng.chance(0.9)) entry &= ~(1n << 10n);
  if (opcode === 0x46n) {
    if (rng.chance(0.7)) entry &= (1n << 64n) - 1n;
    if (rng.chance(0.7)) entry |= BigInt(rng.below(RAM_BYTES / 4)) << 66n;
    if (rng.chance(0.5)) entry = (entry & ~0x3000n) | 0x1000n;
  } else if (rng.chance(0.5)) {
    entry &= ~range(31, 31, 3, 3);
    entry |= range(rng.below(3), rng.below(3), rng.below(4), rng.below(4));
  }
  return entry;
}

const IOVA = 0x12_3456_0000n;
const PAGES = Array.from({ length: 8 }, (_, n) => IOVA + BigInt(n) * 0x4000n);

/** A unit that keeps translations of pages that are not mapped any more. */
function forgetful(kind: 'first' | 'second'): TestSmmu {
  const vm = new TestSmmu({ stages: 'nested' }).start();
  let root: number;
  if (kind === 'first') ({ root } = vm.stage1(SID));
  else {
    root = vm.page(2);
    vm.ste(SID, { Config: STE_CONFIG.S2_TRANSLATE, ...vm.stage2Fields(root) });
  }
  const [leaf, top] = kind === 'first' ? [S1_LEAF, 0] : [S2_LEAF, 1];
  for (const address of PAGES) vm.map(root, address, (address & 0xf_ffffn) | 0x40_0000n, leaf, top);
  for (const address of PAGES) expect(vm.translate(SID, address, READ).ok).toBe(true);
  for (let at = 0; at < (kind === 'first' ? 4096 : 8192); at += 8) vm.memory.poke(root + at, 0n);
  return vm;
}

/** What is still translated. */
function kept(vm: TestSmmu): bigint[] {
  const pages = PAGES.filter((address) => vm.translate(SID, address, READ).ok);
  vm.recorded();
  return pages;
}

describe('when the Command queue is ready for the peer', () => {
  it('at rest, while it is enabled', () => {
    const vm = new TestSmmu();
    expect(peerOf(vm).ready).toBe(false);
    vm.start();
    expect(peerOf(vm).ready).toBe(true);
    vm.write32(CR0, 5);
    expect(peerOf(vm).ready).toBe(false);
    vm.write32(CR0, 13);
    vm.model.reset();
    expect(peerOf(vm).ready).toBe(false);
  });

  it('not where it has one entry only', () => {
    const vm = new TestSmmu();
    vm.write64(CMDQ_BASE, COMMAND_QUEUE);
    vm.write32(CR0, 8);
    expect(peerOf(vm).ready).toBe(false);
    vm.write32(CR0, 0);
    vm.write64(CMDQ_BASE, COMMAND_QUEUE + 1);
    vm.write32(CR0, 8);
    expect(peerOf(vm).ready).toBe(true);
  });

  it('not while a CMD_SYNC waits', () => {
    const vm = new TestSmmu().start();
    vm.acks = 1;
    vm.submit(...words(NH_ALL, SYNC));
    expect(peerOf(vm).ready).toBe(false);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(peerOf(vm).ready).toBe(true);
  });

  it('not while CMDQ_ERR stops it', () => {
    const vm = new TestSmmu().start();
    vm.submit(...words(0xffn));
    expect(vm.activeErrors & 1).toBe(1);
    expect(peerOf(vm).ready).toBe(false);
    vm.store(COMMAND_QUEUE, wordsOf(SYNC, BYTES));
    vm.acknowledgeErrors();
    expect(peerOf(vm).ready).toBe(true);
  });

  it('not while a device has not answered, nor when it did not in time, until a CMD_SYNC has said so', () => {
    const vm = new TestSmmu({ ats: 'on' }).start();
    // CMD_ATC_INV of everything: Size 52.
    vm.submit(...words(0x40n | (BigInt(SID) << 32n) | (52n << 64n)));
    expect(vm.devices.deviceTlbs).toHaveLength(1);
    expect(peerOf(vm).ready).toBe(false);
    vm.model.devices?.invalidated((vm.devices.deviceTlbs[0] as { tag: number }).tag, DEVICE_TLB.TIMEOUT);
    expect(peerOf(vm).ready, 'the next CMD_SYNC fails').toBe(false);
  });

  it('not while a transaction is stalled', () => {
    const vm = new TestSmmu().start();
    vm.stage1(SID, { S: 1, R: 0 });
    expect(vm.stallable(SID, IOVA, READ).status).toBe(TRANSLATE_STATUS.STALLED);
    expect(peerOf(vm).ready).toBe(false);
    // A transaction that the peer asked for before it rang may have stalled since.
    expect(peerOf(vm).ran(run(NH_ALL, SYNC), 0, 2, 2)).toBe(true);
  });

  it('not while translations are out that commands may miss, until everything is invalidated', () => {
    const vm = new TestSmmu().start();
    const { root } = vm.stage1(SID);
    // nG = 0: of every ASID.
    vm.map(root, IOVA, 0x40_0000n, S1_LEAF & ~(1n << 11n));
    expect(vm.translate(SID, IOVA, READ).ok).toBe(true);
    expect(peerOf(vm).ready).toBe(false);
    // One that the peer asked for before it rang may have been given out since.
    expect(peerOf(vm).ran(run(va(IOVA), SYNC), 0, 2, 2)).toBe(true);
    vm.memory.poke(root, 0n);
    expect(vm.translate(SID, IOVA, READ).ok, 'the TLB of the unit').toBe(false);
    vm.registers[PROD >> 2] = 2;
    vm.registers[CONS >> 2] = 2;
    vm.store(COMMAND_QUEUE + 32, [...wordsOf(0x30n, BYTES), ...wordsOf(SYNC, BYTES)]);
    vm.write32(PROD, 4);
    expect(peerOf(vm).ready).toBe(true);
  });

  it.each(['none', 'hostile'])('never with cache policy %s', (policy) => {
    expect(peerOf(new TestSmmu({ 'cache-policy': policy }).start()).ready).toBe(false);
  });
});

describe('commands that the peer has carried out', () => {
  const batches: readonly (readonly ['first' | 'second', string, readonly bigint[]])[] = [
    ['first', 'one page', [va(IOVA), SYNC]],
    ['first', 'a page of another ASID', [va(IOVA, 6), SYNC]],
    ['first', 'a page of all ASIDs, by message', [vaa(IOVA + 0x4000n), syncTo(77)]],
    [
      'first',
      'two ranges',
      [va(IOVA, ASID, range(3, 1, 0, 1)), va(IOVA + 0x1_0000n, ASID, range(0, 0, 3, 1)), SYNC],
    ],
    ['first', 'a long range', [va(IOVA & ~0xfff_ffffn, ASID, range(31, 12, 0, 1)), SYNC]],
    ['first', 'an ASID', [allOf(6), allOf(ASID)]],
    ['first', 'all', [NH_ALL, SYNC | (2n << 12n)]],
    ['second', 'an address of stage 2', [ipa(IOVA, 7), ipa(IOVA + 0x4000n, 8), SYNC]],
    ['second', 'a VMID', [vmall(8), vmall(7), SYNC]],
  ];

  it.each(batches)('leave the unit as its own queue does: %s stage, %s', (kind, _name, commands) => {
    const [own, peers] = [forgetful(kind), forgetful(kind)];
    own.submit(...words(...commands));
    const index = commands.length;
    expect(peerOf(peers).ran(run(...commands), 0, index, index)).toBe(true);
    peers.registers[PROD >> 2] = index;
    peers.registers[CONS >> 2] = index;
    expect(peers.model.counters).toEqual(own.model.counters);
    expect(Array.from(peers.registers)).toEqual(Array.from(own.registers));
    expect(peerOf(peers).ready).toBe(true);
    expect(own.memory.peek(STATUS)).toBe(commands.includes(syncTo(77)) ? 77n : 0n);
    expect(peers.memory.peek(STATUS), 'the peer stores it').toBe(0n);
    expect(peers.interrupts).toEqual([]);
    expect(kept(peers)).toEqual(kept(own));
    // The queue goes on from there.
    const more = words(va(IOVA + 0x8000n), SYNC);
    own.submit(...more);
    for (const [n, one] of more.entries()) peers.store(COMMAND_QUEUE + (index + n) * BYTES, one);
    peers.write32(PROD, index + 2);
    expect(peers.consumed).toBe(own.consumed);
    expect(kept(peers)).toEqual(kept(own));
  });

  it('wrap around the end of the queue, which flips the wrap bit', () => {
    const vm = new TestSmmu().start();
    const sixteen = run(...new Array<bigint>(16).fill(NH_ALL));
    expect(peerOf(vm).ran(sixteen, 0, 16, 16), 'as many as it has').toBe(true);
    expect(peerOf(vm).ran(sixteen, 0, 10, 26)).toBe(true);
    expect(peerOf(vm).ran(sixteen, 0, 10, 4), 'past the wrap').toBe(true);
    expect(vm.model.counters.commands).toBe(36);
  });

  it.each<readonly [string, readonly bigint[], number]>([
    ['an index that is not behind them', [NH_ALL], 2],
    ['more than the queue has', new Array<bigint>(17).fill(NH_ALL), 17],
    ['CMD_TLBI_NSNH_ALL', [0x30n], 1],
    ['CMD_CFGI_STE', [0x03n | (BigInt(SID) << 32n)], 1],
    ['CMD_ATC_INV', [0x40n], 1],
    ['CMD_RESUME', [0x44n], 1],
    ['SSec', [NH_ALL | (1n << 10n)], 1],
    ['a reserved signal', [SYNC | (3n << 12n)], 1],
    ['an unknown opcode', [0xffn], 1],
    ['a range of nothing', [va(IOVA, ASID, range(0, 0, 0, 1))], 1],
    ['one of a stage that is not there', [vmall(0)], 1],
  ])('are refused with %s', (_name, commands, index) => {
    const vm = new TestSmmu({ ats: 'on', stages: '1', 'range-invalidation': 'on' }).start();
    expect(peerOf(vm).ran(run(...commands), 0, commands.length, index)).toBe(false);
  });

  it('are refused by a queue that stands still, or waits', () => {
    const vm = new TestSmmu().start(5);
    expect(peerOf(vm).ran(run(NH_ALL), 0, 1, 1)).toBe(false);
    const busy = new TestSmmu().start();
    busy.acks = 1;
    busy.submit(...words(NH_ALL, SYNC));
    expect(peerOf(busy).ran(run(NH_ALL), 0, 1, 3)).toBe(false);
  });
});
