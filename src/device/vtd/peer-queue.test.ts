import { describe, expect, it } from 'vitest';
import { Rng } from '../../../test/fuzz/rng.js';
import { vtdEffect, wordsOf } from '../../../test/support/plain-entries.js';
import { contextEntry, QUEUE, RAM_BYTES, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { plainStep } from '../../sim/sim-peer-queue.js';
import { TTM } from '../../spec/vtd/registers.js';
import { CODEC } from '../../wire/codec.js';
import { DEVICE_TLB } from '../iommu.js';

const RID = 0x0018;
const DID = 6;
const STATUS = 0x6000;
/** 48 bits: what a unit with the default width has. */
const HOST_BITS = 48;
const IQH = 0x80;
const IQT = 0x88;
const FSTS = 0x34;

/**
 * Descriptors by bit numbers: type 2 IOTLB, 5 wait, 6 PASID-based IOTLB. §6.5.2.3, §6.5.2.9,
 * §6.5.2.4
 */
const page = (did: number, address: bigint, mask = 0): bigint =>
  0x32n | (BigInt(did) << 16n) | (BigInt(mask) << 64n) | (address << 64n);
const domain = (did: number): bigint => 0x22n | (BigInt(did) << 16n);
const pasidPage = (did: number, pasid: number, address: bigint, mask = 0): bigint =>
  0x36n | (BigInt(did) << 16n) | (BigInt(pasid) << 32n) | (BigInt(mask) << 64n) | (address << 64n);
const wait = (data: number, address = STATUS): bigint =>
  0x25n | (BigInt(data) << 32n) | (BigInt(address) << 64n);

/** A unit with its queue at rest. */
function unit(mode: 'legacy' | 'scalable', options: Readonly<Record<string, string>> = {}): TestMachine {
  const machine = new TestMachine({ 'scalable-mode': mode === 'scalable' ? 'on' : 'off', ...options });
  machine.setRoot(mode === 'scalable' ? TTM.SCALABLE : TTM.LEGACY);
  machine.enableQueue(mode === 'scalable');
  machine.enable();
  return machine;
}

function peerOf(machine: TestMachine) {
  const { peerQueue } = machine.model;
  if (peerQueue === undefined) throw new Error('no queue for the peer');
  return peerQueue;
}

function described(machine: TestMachine) {
  const description = CODEC.Queue.create();
  peerOf(machine).describe(description);
  return { ...description, commands: Uint32Array.from(description.commands) };
}

const bytesOf = (machine: TestMachine): number => 2 ** described(machine).entryLog2;

/** Entries as they stand in the ring. */
function run(machine: TestMachine, ...entries: readonly bigint[]): Uint32Array {
  const bytes = bytesOf(machine);
  const words = new Uint32Array((entries.length * bytes) / 4);
  entries.forEach((entry, index) => {
    words.set(wordsOf(entry, bytes), (index * bytes) / 4);
  });
  return words;
}

describe('the invalidation queue described as data', () => {
  it.each([
    ['legacy', 4, 0x0fff_0],
    ['scalable', 5, 0x0ffe_0],
  ] as const)('%s: registers, size and place', (mode, entryLog2, indexMask) => {
    const machine = unit(mode);
    machine.disableQueue();
    // QS 4: 16 pages.
    machine.enableQueue(mode === 'scalable', 4, 0x2_0000);
    expect(described(machine)).toMatchObject({
      ...{ tail: IQT, head: IQH, baseLo: 0x2_0000, baseHi: 0, wraps: false },
      ...{ entryLog2, entriesLog2: 16 - entryLog2, indexShift: entryLog2, indexMask },
    });
  });

  it.each(['legacy', 'scalable'] as const)('%s: what is plain, and what it does', (mode) => {
    const machine = unit(mode);
    const { commands, entryLog2 } = described(machine);
    let index = 0;
    const rng = new Rng(1);
    const isRam = (gpa: number): boolean => gpa + 4 <= RAM_BYTES;
    const seen = { drops: 0, stores: 0, none: 0 };
    for (let n = 0; n < 20_000; n++) {
      const entry = randomDescriptor(rng);
      const bits = BigInt.asUintN(entryLog2 === 5 ? 256 : 128, entry);
      const expected = vtdEffect(bits, mode === 'scalable', HOST_BITS);
      const words = wordsOf(bits, 2 ** entryLog2);
      const found = plainStep(commands, words, isRam);
      const fits = expected !== undefined && (!('stores' in expected) || isRam(expected.stores.address));
      const { entry: _, ...effect } = found ?? { entry: words };
      const text = `0x${bits.toString(16)}`;
      expect(found !== undefined, text).toBe(fits);
      if (fits) {
        expect(effect, text).toEqual(expected);
        index = (index + 2 ** entryLog2) % 4096;
        expect(peerOf(machine).ran(words, 0, 1, index), text).toBe(true);
      }
      seen[!fits ? 'none' : 'drops' in expected ? 'drops' : 'stores']++;
    }
    expect(Math.min(seen.drops, seen.stores, seen.none)).toBeGreaterThan(500);
  });

  it('says another version when place, size or mode change, and only then', () => {
    const machine = unit('scalable');
    const peer = peerOf(machine);
    const first = peer.version;
    machine.submit(wordsOf(domain(DID), 32));
    expect(peer.version).toBe(first);
    machine.disableQueue();
    machine.enableQueue(true, 0, 0xa000);
    const second = peer.version;
    expect(second).not.toBe(first);
    machine.disableQueue();
    machine.setRoot(TTM.LEGACY);
    machine.enableQueue(false, 0, 0xa000);
    expect(peer.version).not.toBe(second);
    expect(described(machine).entryLog2).toBe(4);
  });
});

/** Mostly descriptors of the plain types, with random fields; reserved bits now and then. */
function randomDescriptor(rng: Rng): bigint {
  const type = rng.pick([2n, 2n, 5n, 5n, 6n, 6n, 1n, 3n, 7n, 8n, 9n, BigInt(rng.below(16))]);
  const fields: readonly (readonly [number, number])[] = [
    [4, 2],
    [6, 1],
    [16, 16],
    [64, 7],
    [76, 52],
  ];
  let entry = type;
  for (const [lsb, width] of fields) {
    entry |= (rng.u64() & ((1n << BigInt(width)) - 1n)) << BigInt(lsb);
  }
  if (type === 5n) {
    entry = 5n | (rng.chance(0.8) ? 0x20n : BigInt(rng.below(16)) << 4n) | (BigInt(rng.u32()) << 32n);
    entry |= BigInt(rng.chance(0.8) ? rng.below(RAM_BYTES / 2) : rng.u32()) << 66n;
    if (rng.chance(0.1)) entry |= rng.u64() << 64n;
  }
  if (type === 6n) {
    entry = (entry & ~(0x7n << 6n)) | (BigInt(rng.below(2 ** 20)) << 32n);
    entry = (entry & ~(0x1fn << 71n)) | 0x20n;
  }
  if (rng.chance(0.1)) entry |= 1n << BigInt(rng.below(256));
  return entry;
}

describe('when the invalidation queue is ready for the peer', () => {
  it.each(['legacy', 'scalable'] as const)('%s: at rest it is', (mode) => {
    expect(peerOf(unit(mode)).ready).toBe(true);
  });

  it('not before it is enabled, nor when it is disabled again, nor after a reset', () => {
    const machine = new TestMachine();
    machine.setRoot(TTM.LEGACY);
    expect(peerOf(machine).ready).toBe(false);
    machine.enableQueue(false);
    expect(peerOf(machine).ready).toBe(true);
    machine.disableQueue();
    expect(peerOf(machine).ready).toBe(false);
    machine.enableQueue(false);
    machine.model.reset();
    expect(peerOf(machine).ready).toBe(false);
  });

  it('not while a wait descriptor waits', () => {
    const machine = unit('legacy');
    machine.acks = 1;
    machine.submit(wordsOf(page(DID, 0x1000n), 16), wordsOf(wait(1), 16));
    expect(peerOf(machine).ready).toBe(false);
    machine.acks = 0;
    machine.model.acknowledged();
    expect(peerOf(machine).ready).toBe(true);
  });

  it('not while IQE stops it, and again when software has cleared it', () => {
    const machine = unit('legacy');
    const reserved = page(DID, 0x1000n) | (1n << 8n);
    machine.submit(wordsOf(reserved, 16));
    expect(machine.read(FSTS) & 0x10, 'IQE').toBe(0x10);
    expect(peerOf(machine).ready).toBe(false);
    machine.store(QUEUE, wordsOf(domain(DID), 16));
    machine.write32(FSTS, 0x10);
    expect(peerOf(machine).ready).toBe(true);
  });

  it('not while a device has not answered, nor while ITE stops it', () => {
    const machine = unit('legacy', { 'device-tlb': 'on' });
    const deviceTlb = 0x3n | (BigInt(RID) << 32n) | (0x1000n << 64n);
    machine.submit(wordsOf(deviceTlb, 16));
    expect(machine.devices.deviceTlbs).toHaveLength(1);
    expect(peerOf(machine).ready).toBe(false);
    const [{ tag }] = machine.devices.deviceTlbs;
    machine.model.devices?.invalidated(tag, DEVICE_TLB.TIMEOUT);
    expect(machine.read(FSTS) & 0x40, 'ITE').toBe(0x40);
    expect(peerOf(machine).ready).toBe(false);
    machine.write32(FSTS, 0x40);
    expect(peerOf(machine).ready).toBe(true);
  });

  it.each(['none', 'hostile'])('never with cache policy %s', (policy) => {
    expect(peerOf(unit('legacy', { 'cache-policy': policy })).ready).toBe(false);
  });

  it('not where the next descriptor would stop it: the wrong width, a head beyond the queue', () => {
    const machine = unit('scalable');
    machine.disableQueue();
    machine.enableQueue(false);
    expect(peerOf(machine).ready, '128-bit descriptors in scalable mode').toBe(false);
  });
});

/** Pages that are mapped, none beside another. */
const PAGES = Array.from({ length: 8 }, (_, n) => BigInt(n + 1) * 0x4000n);

/** Two units that keep the same translations of pages that are not mapped any more. */
function twins(mode: 'legacy' | 'scalable'): readonly [TestMachine, TestMachine] {
  const make = (): TestMachine => {
    const machine = unit(mode);
    const root = machine.page();
    for (const address of PAGES) {
      if (mode === 'legacy') machine.mapSecond(root, 4, address, address + 0x20_0000n);
      else machine.mapFirst(root, 4, address, address + 0x20_0000n);
    }
    if (mode === 'legacy') machine.context(RID, ...contextEntry(root, DID));
    else {
      const { directory } = machine.scalableContext(RID);
      // PGTT: first stage; PWSNP; a table of 4 levels.
      machine.pasidEntry(directory, 0, 0x41n, BigInt(DID) | (1n << 23n), BigInt(root));
    }
    for (const address of PAGES) {
      expect(machine.translate(RID, address, READ | WRITE).ok, `0x${address.toString(16)}`).toBe(true);
    }
    for (let at = 0; at < 4096; at += 8) machine.entry(root + at, 0n);
    machine.invalidations.length = 0;
    return machine;
  };
  return [make(), make()];
}

/** What is still translated. */
function kept(machine: TestMachine): bigint[] {
  const pages = PAGES.filter((address) => machine.translate(RID, address, READ).ok);
  machine.clearFaults();
  return pages;
}

describe('descriptors that the peer has carried out', () => {
  const batches: readonly (readonly ['legacy' | 'scalable', readonly bigint[]])[] = [
    ['legacy', [page(DID, 0x4000n), wait(1)]],
    ['legacy', [page(DID, 0x8000n, 2), page(DID + 1, 0x4000n), wait(7), page(DID, 0x1_0000n), wait(8)]],
    ['legacy', [domain(DID), wait(1)]],
    ['legacy', [domain(DID + 1)]],
    ['scalable', [pasidPage(DID, 0, 0x4000n, 1), wait(2)]],
    ['scalable', [pasidPage(DID, 1, 0x4000n), 0x26n | (BigInt(DID) << 16n) | (1n << 32n), wait(2)]],
    ['scalable', [0x26n | (BigInt(DID) << 16n), wait(3)]],
    ['scalable', [page(DID, 0x4000n), wait(4)]],
  ];

  it.each(batches)('leave the unit as its own queue does: %s %s', (mode, entries) => {
    const [own, peers] = twins(mode);
    const bytes = bytesOf(own);
    own.submit(...entries.map((entry) => wordsOf(entry, bytes)));
    const index = own.read(IQT);
    expect(peerOf(peers).ran(run(peers, ...entries), 0, entries.length, index)).toBe(true);
    // The peer shows both, and stores what wait descriptors say.
    peers.registers[IQH >> 2] = index;
    peers.registers[IQT >> 2] = index;
    expect(peers.model.counters).toEqual(own.model.counters);
    expect(Array.from(peers.registers)).toEqual(Array.from(own.registers));
    expect(peerOf(peers).ready).toBe(true);
    expect(peers.memory.peek(STATUS), 'nothing stored to memory').toBe(0n);
    expect(kept(peers)).toEqual(kept(own));
    expect(own.invalidations.length).toBeGreaterThan(0);
    // The queue goes on from there.
    const more = [page(DID, 0x1_4000n), wait(9)].map((entry) => wordsOf(entry, bytes));
    own.submit(...more);
    peers.store(QUEUE + index, [...(more[0] as Uint32Array), ...(more[1] as Uint32Array)]);
    peers.write64(IQT, own.read(IQT));
    expect(peers.read(IQH)).toBe(own.read(IQH));
    expect(peers.memory.peek(STATUS)).toBe(own.memory.peek(STATUS));
    expect(kept(peers)).toEqual(kept(own));
  });

  it('wrap around the end of the queue', () => {
    const machine = unit('legacy');
    const entries = Array.from({ length: 200 }, () => domain(DID));
    expect(peerOf(machine).ran(run(machine, ...entries), 0, 200, 3200)).toBe(true);
    expect(peerOf(machine).ran(run(machine, ...entries), 0, 200, 6400 % 4096)).toBe(true);
    expect(machine.model.counters.commands).toBe(400);
  });

  it.each<readonly [string, readonly bigint[], number]>([
    ['an index that is not behind them', [domain(DID)], 32],
    ['as many as the queue has', Array.from({ length: 256 }, () => domain(DID)), 0],
    ['a global IOTLB invalidation', [0x12n], 16],
    ['a context-cache invalidation', [0x11n], 16],
    ['a Device-TLB invalidation', [0x3n], 16],
    ['a wait that interrupts', [wait(1) | 0x10n], 16],
    ['a wait without a status', [0x5n], 16],
    ['reserved bits', [domain(DID) | (1n << 13n)], 16],
    ['a reserved granularity', [0x2n], 16],
    ['a mask above MAMV', [page(DID, 0n, 19)], 16],
    ['a PASID-based one in legacy mode', [pasidPage(DID, 1, 0n)], 16],
  ])('are refused with %s', (_name, entries, index) => {
    const machine = unit('legacy', { 'device-tlb': 'on' });
    expect(peerOf(machine).ran(run(machine, ...entries), 0, entries.length, index)).toBe(false);
  });

  it('are refused by a queue that stands still', () => {
    const machine = unit('legacy');
    machine.disableQueue();
    expect(peerOf(machine).ran(run(machine, domain(DID)), 0, 1, 16)).toBe(false);
  });
});
