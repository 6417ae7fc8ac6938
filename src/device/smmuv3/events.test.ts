import { describe, expect, it } from 'vitest';
import {
  ENABLES,
  EVENT_QUEUE,
  QUEUE_LOG2,
  READ,
  ROM,
  SID,
  sync,
  TestSmmu,
  WRITE,
} from '../../../test/support/smmu-unit.js';
import { EVENT } from '../../spec/smmuv3/events.js';
import {
  CR0,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  GERROR_IRQ_CFG0,
  IRQ_CTRL,
} from '../../spec/smmuv3/registers.js';
import { WIRE } from '../iommu.js';

const ENTRIES = 2 ** QUEUE_LOG2;
const OVERFLOW = 0x8000_0000;
const EVENTQ_ABT_ERR = 4;
/** Bits of GERROR for messages that abort. */
const MSI = { CMDQ: 16, EVENTQ: 32, GERROR: 128 };

/** A stream whose every access faults, once per page. */
function faulting(ste: Record<string, number> = {}) {
  const vm = new TestSmmu();
  vm.write64(EVENTQ_IRQ_CFG0.offset, 0x808_0040);
  vm.write32(EVENTQ_IRQ_CFG0.offset + 8, 9);
  vm.write32(IRQ_CTRL.offset, 4);
  vm.start();
  vm.stage1(SID, {}, ste);
  const fault = (page = 0): void => {
    expect(vm.translate(SID, BigInt(page) * 0x1000n, READ).ok).toBe(false);
  };
  return { vm, fault };
}

describe('event queue', () => {
  it('interrupts when it stops being empty, by message or wire', () => {
    const { vm, fault } = faulting();
    fault();
    fault(1);
    expect(vm.interrupts).toEqual([{ address: 0x808_0040, data: 9 }]);
    expect(vm.recorded()).toHaveLength(2);
    fault();
    expect(vm.interrupts).toHaveLength(2);
    const wired = new TestSmmu();
    wired.write32(IRQ_CTRL.offset, 4);
    wired.start();
    wired.stage1(SID);
    wired.translate(SID, 0n, READ);
    expect(wired.wires).toEqual([WIRE.EVENTQ]);
  });

  it('does not interrupt without EVENTQ_IRQEN, nor record without EVENTQEN', () => {
    const { vm, fault } = faulting();
    vm.write32(IRQ_CTRL.offset, 0);
    fault();
    expect([vm.interrupts.length, vm.recorded().length]).toEqual([0, 1]);
    vm.write32(CR0.offset, ENABLES.SMMUEN);
    fault();
    expect(vm.recorded()).toEqual([]);
    expect(vm.events.at(-1)).toMatchObject({ kind: 'fault', reason: EVENT.F_TRANSLATION, recorded: false });
  });

  it('tells an overflow once, until it is acknowledged', () => {
    const { vm, fault } = faulting();
    for (let index = 0; index < ENTRIES; index++) fault(index);
    expect(vm.read(EVENTQ_PROD.offset)).toBe(ENTRIES);
    fault(50);
    fault(51);
    expect(vm.read(EVENTQ_PROD.offset)).toBe((OVERFLOW | ENTRIES) >>> 0);
    expect(vm.model.counters.faultsDropped).toBe(2);
    // Room again: recording goes on whether or not the overflow was acknowledged.
    expect(vm.recorded().map((event) => event['InputAddr'] ?? 0n)).toEqual(
      Array.from({ length: ENTRIES }, (_, index) => BigInt(index) * 0x1000n),
    );
    for (let index = 0; index < ENTRIES; index++) fault(index);
    fault(60);
    expect(vm.read(EVENTQ_PROD.offset)).toBe(OVERFLOW);
    vm.recorded();
    vm.write32(EVENTQ_CONS.offset, (vm.read(EVENTQ_PROD.offset) & OVERFLOW) | vm.read(EVENTQ_CONS.offset));
    for (let index = 0; index < ENTRIES; index++) fault(index);
    fault(70);
    expect(vm.read(EVENTQ_PROD.offset)).toBe(ENTRIES);
  });

  it('reports a queue that is not in memory', () => {
    const { vm, fault } = faulting();
    vm.write32(CR0.offset, 0);
    vm.write64(EVENTQ_BASE.offset, 0x20_0000_0004);
    vm.write32(CR0.offset, ENABLES.ALL);
    fault();
    expect(vm.activeErrors).toBe(EVENTQ_ABT_ERR);
    expect(vm.read(EVENTQ_PROD.offset)).toBe(0);
    fault();
    expect(vm.activeErrors).toBe(EVENTQ_ABT_ERR);
    vm.acknowledgeErrors();
    expect(vm.activeErrors).toBe(0);
    fault();
    expect(vm.activeErrors).toBe(EVENTQ_ABT_ERR);
  });

  it('records nothing until an abort is acknowledged, and says no overflow', () => {
    const { vm, fault } = faulting();
    vm.write32(CR0.offset, 0);
    vm.write64(EVENTQ_BASE.offset, 0x20_0000_0004);
    vm.write32(CR0.offset, ENABLES.ALL);
    fault();
    vm.write32(CR0.offset, 0);
    vm.write64(EVENTQ_BASE.offset, EVENT_QUEUE + QUEUE_LOG2);
    vm.write32(CR0.offset, ENABLES.ALL);
    fault();
    expect(vm.read(EVENTQ_PROD.offset)).toBe(0);
    vm.acknowledgeErrors();
    fault();
    expect(vm.recorded()).toHaveLength(1);
  });

  it('takes indexes that are nonsense as a full queue', () => {
    const { vm, fault } = faulting();
    vm.write32(EVENTQ_CONS.offset, 5);
    fault();
    expect(vm.read(EVENTQ_PROD.offset)).toBe(OVERFLOW);
    vm.write32(EVENTQ_CONS.offset, OVERFLOW);
    fault();
    expect(vm.recorded()).toHaveLength(1);
  });

  it('reports interrupt messages that memory does not take, that of errors by none', () => {
    const vm = new TestSmmu();
    vm.write64(EVENTQ_IRQ_CFG0.offset, ROM);
    vm.write64(GERROR_IRQ_CFG0.offset, 0x808_0000);
    vm.write32(IRQ_CTRL.offset, 5);
    vm.start();
    vm.stage1(SID);
    vm.translate(SID, 0n, READ);
    expect(vm.activeErrors).toBe(MSI.EVENTQ);
    expect(vm.interrupts).toHaveLength(1);
    vm.submit(sync({ CS: 1, MSIAddress: ROM }));
    expect([vm.consumed, vm.activeErrors]).toEqual([1, MSI.EVENTQ | MSI.CMDQ]);
    vm.write32(IRQ_CTRL.offset, 0);
    vm.write64(GERROR_IRQ_CFG0.offset, ROM);
    vm.write32(IRQ_CTRL.offset, 1);
    vm.acknowledgeErrors();
    vm.submit(sync({ CS: 1, MSIAddress: ROM }));
    expect(vm.activeErrors).toBe(MSI.CMDQ | MSI.GERROR);
    expect(vm.interrupts).toHaveLength(2);
  });

  it('merges repeated events where MEV allows it', () => {
    const { vm, fault } = faulting({ MEV: 1 });
    fault();
    fault();
    vm.translate(SID, 0x123n, READ);
    expect(vm.recorded()).toHaveLength(1);
    fault();
    fault(1);
    vm.translate(SID, 0x1000n, WRITE);
    expect(vm.recorded()).toHaveLength(3);
    const strict = faulting();
    strict.fault();
    strict.fault();
    expect(strict.vm.recorded()).toHaveLength(2);
  });

  it('caps its size at what IDR1 says and aligns its base to it', () => {
    const { vm, fault } = faulting();
    vm.write32(CR0.offset, 0);
    vm.write64(EVENTQ_BASE.offset, EVENT_QUEUE + 0x40 + 31);
    vm.write32(CR0.offset, ENABLES.ALL);
    fault();
    // 2^15 entries of 32 bytes: a base below 1 MiB is 0.
    expect([vm.memory.load32(0), vm.memory.lo]).toEqual([true, EVENT.F_TRANSLATION]);
  });
});
