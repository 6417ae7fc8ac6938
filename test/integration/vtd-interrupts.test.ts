import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SimVm } from '../../src/sim/vm.js';
import type { VtdDriver } from '../../src/sim/vtd-driver.js';
import { VtdInterrupts } from '../../src/sim/vtd-interrupts.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../../src/wire/frame.js';
import { Daemon } from '../support/daemon.js';
import { RAM_BYTES, RID, startDriver } from '../support/rig.js';

/** Remapped interrupts over a real daemon's socket: what the peer keeps, and for how long. */

const OPTIONS = { intremap: 'on', eim: 'on' };
const FEATURES = ALL_FEATURES & ~FEATURE.PEER_WALKS;

let daemon: Daemon;
let vm: SimVm;
let driver: VtdDriver;
let interrupts: VtdInterrupts;

beforeAll(async () => {
  daemon = await Daemon.start();
  vm = SimVm.connect(daemon.socket, { ramBytes: RAM_BYTES, features: FEATURES, options: OPTIONS });
});

afterAll(async () => {
  vm.close();
  await daemon.dispose();
});

beforeEach(() => {
  vm.reset();
  vm.remapped.onAnswer = () => {};
  vm.remapped.onInvalidate = () => {};
  Object.assign(vm.remapped.counters, { hits: 0, asked: 0, stale: 0 });
  driver = startDriver(vm, 'legacy');
  if (driver.queue === undefined) throw new Error('no queue');
  interrupts = new VtdInterrupts(driver.registers, driver.queue, vm.ram, driver.pages);
  interrupts.enable(true);
});

/** The vector that an interrupt of entry `index` is delivered with; undefined: it is blocked. */
function vectorOf(index: number, rid = RID): number | undefined {
  const { address, data } = interrupts.message(index);
  const remapped = vm.remapped.remap(rid, address, data);
  return remapped === undefined ? undefined : remapped.data & 0xff;
}

const entry = (vector: number) => ({ P: 1, V: vector, DST: 0x10203, SVT: 1, SID: RID });

describe('remapped interrupts over the wire', () => {
  it('are asked for once, until their entry is invalidated', () => {
    interrupts.set(3, entry(0x41));
    interrupts.set(4, entry(0x42));
    for (let i = 0; i < 3; i++) expect([vectorOf(3), vectorOf(4)]).toEqual([0x41, 0x42]);
    expect(vm.remapped.counters).toMatchObject({ hits: 4, asked: 2 });
    interrupts.set(3, entry(0x43));
    expect([vectorOf(3), vectorOf(4)]).toEqual([0x43, 0x42]);
    expect(vm.remapped.counters).toMatchObject({ hits: 5, asked: 3 });
  });

  it('have all 32 bits of the destination', () => {
    interrupts.set(3, entry(0x41));
    const { address, data } = interrupts.message(3);
    expect(vm.remapped.remap(RID, address, data)?.address).toBe(0x0001_0200_fee0_3000n);
  });

  it('stay what they were when the guest forgets the invalidation', () => {
    interrupts.set(3, entry(0x41));
    expect(vectorOf(3)).toBe(0x41);
    interrupts.set(3, entry(0x42), false);
    expect(vectorOf(3)).toBe(0x41);
    interrupts.invalidate(2, 2);
    driver.queue?.sync();
    expect(vectorOf(3)).toBe(0x42);
  });

  it('are blocked for another source, each time with a fault', () => {
    interrupts.set(3, entry(0x41));
    expect(vectorOf(3)).toBe(0x41);
    for (let i = 0; i < 2; i++) expect(vectorOf(3, RID + 8)).toBeUndefined();
    expect(driver.faults.drain().map(({ reason }) => reason)).toEqual([0x26, 0x26]);
  });

  it('record no fault when they are only looked at', () => {
    const { address, data } = interrupts.message(9);
    expect(vm.remapped.ask(RID, address, data, true).status).toBe(1);
    expect(driver.faults.drain()).toEqual([]);
  });

  it('complete an invalidation only when the peer has dropped them', () => {
    const completed: number[] = [];
    vm.remapped.onInvalidate = () => completed.push(driver.queue?.completed() ?? -1);
    interrupts.set(3, entry(0x41));
    expect(completed).toEqual([]);
    vectorOf(3);
    const before = driver.queue?.completed() ?? 0;
    interrupts.set(3, entry(0x42));
    expect(completed).toEqual([before]);
    expect(driver.queue?.completed()).toBeGreaterThan(before);
  });

  it('are delivered once, and not kept, when an invalidation comes before their answer is used', () => {
    interrupts.set(3, entry(0x41));
    vm.remapped.onAnswer = () => {
      vm.remapped.onAnswer = () => {};
      interrupts.set(3, entry(0x42));
    };
    expect(vectorOf(3)).toBe(0x41);
    expect(vm.remapped.counters.stale).toBe(1);
    expect(vectorOf(3)).toBe(0x42);
    expect(vm.remapped.counters).toMatchObject({ hits: 0, asked: 2 });
  });

  it('never come from an old entry once its invalidation is complete', () => {
    for (let round = 0; round < 200; round++) {
      const vector = 0x30 + (round % 100);
      interrupts.set(round % 5, entry(vector));
      expect(vectorOf(round % 5), `round ${round}`).toBe(vector);
      if (round % 3 === 0) expect(vectorOf(round % 5)).toBe(vector);
    }
  });

  it('pass as they are before they are switched on, and after', () => {
    interrupts.disable();
    const { asked } = vm.remapped.counters;
    for (const rid of [RID, RID + 8]) expect(vm.remapped.remap(rid, 0xfee0_1000, 0x51)?.data).toBe(0x51);
    expect(vm.remapped.counters.asked).toBe(asked + 1);
    interrupts.enable(true);
    expect(vm.remapped.remap(RID, 0xfee0_1000, 0x51)).toBeUndefined();
  });

  it('are dropped by a reset', () => {
    interrupts.set(3, entry(0x41));
    vectorOf(3);
    vm.reset();
    const { address, data } = interrupts.message(3);
    expect(vm.remapped.remap(RID, address, data)).toMatchObject({ address: BigInt(address), data });
  });

  it('are refused to a peer that does not remap', () => {
    const features = FEATURES & ~FEATURE.INTERRUPT_REMAPPING;
    expect(() => SimVm.connect(daemon.socket, { features, options: OPTIONS })).toThrow(
      expect.objectContaining({ reason: 'BAD_OPTION' }),
    );
    const plain = SimVm.connect(daemon.socket, { features: FEATURES });
    const request = { rid: RID, addressLo: 0xfee0_0000, addressHi: 0, data: 1, look: false };
    expect(plain.client.request(MESSAGE.REMAP_INTERRUPT, request)).toMatchObject({
      status: 0,
      passAll: true,
    });
    plain.close();
  });
});
