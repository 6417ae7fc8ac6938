import { describe, expect, it } from 'vitest';
import { contextEntry, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { FECTL_REG, FRCD_BYTES, FRCD_OFFSET, FSTS_REG } from '../../spec/vtd/registers.js';

const PFO = 1;
const PPF = 2;
const clear = (vm: TestMachine, index: number): void =>
  vm.write32(FRCD_OFFSET + index * FRCD_BYTES + 12, 0x8000_0000);
const fri = (vm: TestMachine): number => FSTS_REG.get.FRI(vm.registers, FSTS_REG.offset >> 2);
const flags = (vm: TestMachine): number => vm.read(FSTS_REG.offset) & 0xff;

/** A unit whose every request faults; the message is set up and not masked. */
function unit(options: Record<string, string> = {}) {
  const vm = new TestMachine(options);
  vm.setRoot(0);
  vm.enable();
  vm.write32(0x3c, 0x51);
  vm.write32(0x40, 0xfee0_2000);
  vm.write32(FECTL_REG.offset, 0);
  return vm;
}

describe('fault recording', () => {
  it('records requester, address, type and reason, and sends one message', () => {
    const vm = unit();
    vm.translate(0x1234, 0x7fff_f123_4567n, WRITE);
    expect(vm.faults()).toEqual([
      {
        index: 0,
        reason: FAULT.LRT_2,
        sid: 0x1234,
        address: 0x7fff_f123_4000,
        T1: 0,
        T2: 0,
        AT: 0,
        PP: 0,
        PV: 0,
      },
    ]);
    expect([flags(vm), fri(vm)]).toEqual([PPF, 0]);
    expect(vm.interrupts).toEqual([{ lo: 0xfee0_2000, hi: 0, data: 0x51 }]);
    vm.translate(0x1234, 0n, READ);
    vm.translate(0x1234, 0n, READ | WRITE);
    expect(vm.faults().map((fault) => [fault.T1, fault.T2])).toEqual([
      [0, 0],
      [1, 0],
      [1, 1],
    ]);
    expect(vm.interrupts).toHaveLength(1);
  });

  it('masks the recorded address to the largest address width', () => {
    const vm = unit();
    vm.translate(0x10, 0xffff_8000_0000_0000n, READ);
    expect(vm.faults()[0].address).toBe(0x8000_0000_0000);
  });

  it('overflows at the ninth fault and records nothing more until PFO is cleared', () => {
    const vm = unit();
    for (let index = 0; index < 9; index++) vm.translate(index, 0n, READ);
    expect(vm.faults()).toHaveLength(8);
    expect(flags(vm)).toBe(PFO | PPF);
    expect(vm.model.counters).toMatchObject({ faults: 9, faultsDropped: 1 });
    expect(vm.events.at(-1)).toMatchObject({ kind: 'fault', rid: 8, recorded: false });
    for (let index = 0; index < 8; index++) clear(vm, index);
    expect(flags(vm)).toBe(PFO);
    vm.translate(0x99, 0n, READ);
    expect(vm.faults()).toEqual([]);
    vm.write32(FSTS_REG.offset, PFO);
    vm.translate(0x9a, 0n, READ);
    expect(vm.faults()).toMatchObject([{ index: 0, sid: 0x9a }]);
  });

  it('is a ring: FRI tells where the first pending fault is', () => {
    const vm = unit();
    for (let index = 0; index < 3; index++) vm.translate(index, 0n, READ);
    clear(vm, 0);
    expect(flags(vm)).toBe(PPF);
    expect(fri(vm)).toBe(0);
    clear(vm, 1);
    clear(vm, 2);
    expect(flags(vm)).toBe(0);
    vm.translate(7, 0n, READ);
    expect([fri(vm), vm.faults()[0].index]).toEqual([3, 3]);
    expect(vm.interrupts).toHaveLength(2);
  });

  it('starts again at 0 when translation is disabled', () => {
    const vm = unit();
    vm.translate(1, 0n, READ);
    vm.clearFaults();
    vm.disable();
    vm.enable();
    vm.translate(2, 0n, READ);
    expect(vm.faults()).toMatchObject([{ index: 0, sid: 2 }]);
  });

  it('only F can be written, and only to clear it', () => {
    const vm = unit();
    vm.translate(1, 0x5000n, READ);
    const words = Array.from(vm.registers.subarray(FRCD_OFFSET / 4, FRCD_OFFSET / 4 + 4));
    for (let word = 0; word < 4; word++) vm.write32(FRCD_OFFSET + word * 4, 0x7fff_ffff);
    expect(Array.from(vm.registers.subarray(FRCD_OFFSET / 4, FRCD_OFFSET / 4 + 4))).toEqual(words);
    vm.write32(FSTS_REG.offset, PPF);
    expect(flags(vm)).toBe(PPF);
  });

  it('has as many registers as asked for', () => {
    const vm = unit({ 'fault-records': '1' });
    vm.translate(1, 0n, READ);
    vm.translate(2, 0n, READ);
    expect(vm.faults()).toHaveLength(1);
    expect(flags(vm)).toBe(PFO | PPF);
  });
});

describe('fault event', () => {
  it('is held pending by the mask and sent when it is lifted', () => {
    const vm = unit();
    vm.write32(FECTL_REG.offset, 0x8000_0000);
    vm.translate(1, 0n, READ);
    expect(vm.interrupts).toEqual([]);
    expect(vm.read(FECTL_REG.offset)).toBe(0xc000_0000);
    vm.write32(FECTL_REG.offset, 0);
    expect(vm.interrupts).toHaveLength(1);
    expect(vm.read(FECTL_REG.offset)).toBe(0);
  });

  it('is void when software has serviced everything before', () => {
    const vm = unit();
    vm.write32(FECTL_REG.offset, 0x8000_0000);
    vm.translate(1, 0n, READ);
    vm.clearFaults();
    expect(vm.read(FECTL_REG.offset)).toBe(0x8000_0000);
    vm.write32(FECTL_REG.offset, 0);
    expect(vm.interrupts).toEqual([]);
  });

  it('is not repeated while a condition waits, and comes again after it was serviced', () => {
    const vm = unit();
    vm.translate(1, 0n, READ);
    vm.translate(2, 0n, READ);
    expect(vm.interrupts).toHaveLength(1);
    vm.clearFaults();
    vm.translate(3, 0n, READ);
    expect(vm.interrupts).toHaveLength(2);
  });
});

describe('FPD in legacy mode', () => {
  it('suppresses faults behind the context-entry, present or not', () => {
    const vm = unit();
    const root = vm.page();
    const address = vm.context(0x18, ...contextEntry(root, 5, { fpd: true }));
    vm.translate(0x18, 0x1000n, READ);
    vm.entry(address, 2n);
    vm.translate(0x18, 0x1000n, READ);
    expect(vm.faults()).toEqual([]);
    expect(vm.model.counters).toMatchObject({ faults: 2, faultsDropped: 0 });
  });

  it('suppresses them also where the IOTLB knows the translation', () => {
    const vm = unit();
    const root = vm.page();
    vm.context(0x18, ...contextEntry(root, 5, { fpd: true }));
    vm.mapSecond(root, 4, 0x1000n, 0xfee0_0000n);
    vm.translate(0x18, 0x1000n, READ);
    vm.translate(0x18, 0x1000n, READ);
    expect(vm.lastReason()).toBe(FAULT.LGN_4);
    expect(vm.faults()).toEqual([]);
  });
});
