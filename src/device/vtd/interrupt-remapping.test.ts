import { describe, expect, it } from 'vitest';
import { handle, InterruptMachine, type IrteFields, TABLE } from '../../../test/support/vtd-interrupts.js';
import { descriptor, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { decode } from '../../spec/define.js';
import { DESCRIPTOR, IEC_INV_DSC } from '../../spec/vtd/descriptors.js';
import {
  CAP_REG,
  ECAP_REG,
  FEADDR_REG,
  FECTL_REG,
  FEDATA_REG,
  FEUADDR_REG,
  FSTS_REG,
  GSTS_REG,
  IQERCD_REG,
  IQH_REG,
  IRTA_REG,
} from '../../spec/vtd/registers.js';
import { createModel } from '../models.js';

const COMPATIBLE = 0xfee01004;

describe('what the unit offers', () => {
  it.each([
    [{}, { IR: 0, EIM: 0, MHMV: 0 }, { ESIRTPS: 0, PI: 0 }],
    [{ intremap: 'on' }, { IR: 1, EIM: 0, MHMV: 15 }, { ESIRTPS: 1, PI: 0 }],
    [
      { intremap: 'on', eim: 'on' },
      { IR: 1, EIM: 1, MHMV: 15 },
      { ESIRTPS: 1, PI: 0 },
    ],
  ])('%j', (options, ecap, cap) => {
    const { registers } = new TestMachine(options as Record<string, string>);
    expect(decode(ECAP_REG, registers, ECAP_REG.offset >> 2)).toMatchObject(ecap);
    expect(decode(CAP_REG, registers, CAP_REG.offset >> 2)).toMatchObject(cap);
  });

  it('refuses eim without intremap, and other values', () => {
    expect(() => new TestMachine({ eim: 'on' })).toThrow(/eim=on needs intremap=on/);
    expect(() => new TestMachine({ intremap: 'maybe' })).toThrow(/intremap must be on or off/);
  });

  it('without intremap has no register, no command, no descriptor and no view', () => {
    const vm = new TestMachine();
    vm.write64(IRTA_REG.offset, TABLE + 7);
    expect(vm.read(IRTA_REG.offset)).toBe(0);
    vm.enableQueue(false);
    vm.commandOnce(0x0380_0000);
    expect(vm.read(GSTS_REG.offset)).toBe(0x0400_0000);
    vm.submit(descriptor(IEC_INV_DSC, { TypeLow: DESCRIPTOR.INTERRUPT_ENTRY_CACHE }));
    expect(vm.read(IQERCD_REG.offset)).toBe(3);
    expect(vm.model.interrupts).toBeUndefined();
    expect(vm.interruptInvalidations).toEqual([]);
  });

  it('has EIME only with eim', () => {
    const vm = new InterruptMachine();
    vm.write64(IRTA_REG.offset, TABLE + 0xfff);
    expect(vm.read(IRTA_REG.offset)).toBe(TABLE + 0xf);
    const extended = new InterruptMachine({ eim: 'on' });
    extended.write64(IRTA_REG.offset, TABLE + 0xfff);
    expect(extended.read(IRTA_REG.offset)).toBe(TABLE + 0x80f);
  });
});

describe('commands', () => {
  it('latch the table at SIRTP only', () => {
    const vm = new InterruptMachine().started();
    vm.irte(3, { V: 0x31 });
    vm.write64(IRTA_REG.offset, 0x3_0000 + 7);
    expect(vm.raise(3)).toMatchObject({ ok: true, data: 0x4031 });
    vm.setTable(7, false, 0x3_0000);
    expect(vm.raise(3).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: 0x22 }]);
  });

  it('take IRE and CFI as levels, SIRTP as a one-shot', () => {
    const vm = new InterruptMachine();
    vm.setTable();
    expect(vm.interruptStatus).toEqual({ IRES: 0, IRTPS: 1, CFIS: 0 });
    vm.remapInterrupts();
    expect(vm.interruptStatus).toEqual({ IRES: 1, IRTPS: 1, CFIS: 0 });
    vm.passCompatible();
    expect(vm.interruptStatus).toEqual({ IRES: 1, IRTPS: 1, CFIS: 1 });
    vm.remapInterrupts(false);
    expect(vm.interruptStatus).toEqual({ IRES: 0, IRTPS: 1, CFIS: 1 });
    vm.passCompatible(false);
    expect(vm.interruptStatus).toEqual({ IRES: 0, IRTPS: 1, CFIS: 0 });
  });

  it('announce each change, and show it when that is acknowledged', () => {
    const vm = new InterruptMachine();
    const steps = [
      [() => vm.setTable(), 'IRTPS'],
      [() => vm.remapInterrupts(), 'IRES'],
      [() => vm.passCompatible(), 'CFIS'],
    ] as const;
    for (const [step, bit] of steps) {
      vm.interruptInvalidations.length = 0;
      vm.acks = 1;
      step();
      expect(vm.interruptInvalidations).toEqual([[0, 16]]);
      expect(vm.interruptStatus[bit]).toBe(0);
      vm.acks = 0;
      vm.model.acknowledged();
      expect(vm.interruptStatus[bit]).toBe(1);
    }
    vm.acks = 1;
    vm.setTable();
    expect(vm.interruptStatus).toEqual({ IRES: 1, IRTPS: 0, CFIS: 1 });
    expect(vm.events.filter(({ kind }) => kind === 'enable')).toEqual([
      { kind: 'enable', what: 'interrupt remapping table', on: true },
      { kind: 'enable', what: 'interrupt remapping', on: true },
      { kind: 'enable', what: 'compatibility format interrupts', on: true },
      { kind: 'enable', what: 'interrupt remapping table', on: true },
    ]);
  });

  it('drop what is kept as a translation when remapping starts, as it may cover the range', () => {
    const vm = new InterruptMachine();
    expect(vm.translate(0x18, 0x1000n, WRITE).log2).toBe(64);
    vm.invalidations.length = 0;
    vm.remapInterrupts();
    expect(vm.invalidations).toMatchObject([{ log2Size: 64, rid: 0xffffffff }]);
  });

  it('reset to power-on', () => {
    const vm = new InterruptMachine({ eim: 'on' });
    const fresh = Array.from(vm.registers);
    vm.started(true).passCompatible();
    vm.raise(1);
    vm.model.reset();
    expect(Array.from(vm.registers)).toEqual(fresh);
    expect(vm.message(8, COMPATIBLE, 0x41)).toMatchObject({ ok: true, passAll: true });
    vm.remapInterrupts();
    expect(vm.raise(0).ok).toBe(false);
    expect(vm.lastReason()).toBe(0x21);
  });
});

describe('requests that no entry decides', () => {
  it('pass as they are while remapping is off', () => {
    const vm = new InterruptMachine();
    vm.setTable();
    const passed = vm.message(8, handle(3), 0x1234_5678);
    expect(passed).toMatchObject({ ok: true, lo: handle(3), hi: 0, data: 0x1234_5678 });
    expect(passed).toMatchObject({ index: -1, passAll: true });
    expect(vm.model.counters).toMatchObject({ interruptsRemapped: 0, interruptsBlocked: 0 });
  });

  it.each([
    [false, false, false],
    [true, false, true],
    [false, true, false],
    [true, true, false],
  ])('compatibility format with CFIS %s, EIME %s passes: %s', (cfi, eime, passes) => {
    const vm = new InterruptMachine({ eim: 'on' }).started(eime);
    vm.passCompatible(cfi);
    const answer = vm.message(0x1a8, COMPATIBLE, 0x41);
    expect(answer).toMatchObject({ ok: passes, index: -1, passAll: false });
    if (passes) expect(answer).toMatchObject({ lo: COMPATIBLE, hi: 0, data: 0x41 });
    expect(vm.faults()).toMatchObject(passes ? [] : [{ reason: 0x25, sid: 0x1a8, address: 0 }]);
  });

  it('are blocked, without a fault, where the address is not in the range', () => {
    const vm = new InterruptMachine().started();
    vm.passCompatible();
    expect(vm.message(8, 0x1000, 1).ok).toBe(false);
    expect(vm.message(8, COMPATIBLE, 1, false, 1).ok).toBe(false);
    expect(vm.faults()).toEqual([]);
  });
});

describe('remappable format', () => {
  it.each([
    [{ V: 0x31, DST: 0x0500 }, 0xfee05000, 0x4031],
    [{ V: 0xfe, DST: 0xff00, DM: 1 }, 0xfeeff004, 0x40fe],
    [{ V: 0x20, DST: 0x0100, RH: 1, DLM: 1 }, 0xfee01008, 0x4120],
    [{ V: 0x20, DST: 0x0100, TM: 1 }, 0xfee01000, 0xc020],
    [{ V: 2, DLM: 4, AVAIL: 0xf, FPD: 1 }, 0xfee00000, 0x4402],
    [{ DLM: 2 }, 0xfee00000, 0x4200],
    [{ DLM: 5 }, 0xfee00000, 0x4500],
    [{ DLM: 7, V: 0xff }, 0xfee00000, 0x47ff],
  ])('%j is delivered to the processors', (fields, lo, data) => {
    const vm = new InterruptMachine().started();
    vm.irte(5, fields as IrteFields);
    expect(vm.raise(5)).toEqual({
      ...{ ok: true, status: 0, lo, hi: 0, data, index: 5, passAll: false },
    });
    expect(vm.model.counters).toMatchObject({ interruptsRemapped: 1, interruptsBlocked: 0, faults: 0 });
  });

  it.each([
    [0x05, 0xfee05000, 0],
    [0x1ff, 0xfeeff000, 0x100],
    [0xffff_ffff, 0xfeeff000, 0xffff_ff00],
    [0x8000_0001, 0xfee01000, 0x8000_0000],
  ])('destination 0x%x has 32 bits with EIME', (DST, lo, hi) => {
    const vm = new InterruptMachine({ eim: 'on' }).started(true);
    vm.irte(5, { V: 0x31, DST });
    expect(vm.raise(5)).toMatchObject({ ok: true, lo, hi, data: 0x4031 });
  });

  it('adds the subhandle with SHV, and ignores data without', () => {
    const vm = new InterruptMachine().started();
    for (let index = 0; index < 256; index++) vm.irte(index, { V: index });
    expect(vm.message(8, handle(0x40, true), 3)).toMatchObject({ ok: true, index: 0x43, data: 0x4043 });
    expect(vm.message(8, handle(0x40), 0xffff_0003)).toMatchObject({ ok: true, index: 0x40 });
    expect(vm.message(8, handle(0x40) + 3, 0)).toMatchObject({ ok: true, index: 0x40 });
  });

  it('reaches the last of 65,536 entries', () => {
    const vm = new InterruptMachine();
    vm.setTable(15);
    vm.remapInterrupts();
    vm.store(TABLE + 0xffff * 16, [0x0044_0001, 0, 0, 0]);
    expect(vm.raise(0xffff)).toMatchObject({ ok: true, index: 0xffff, data: 0x4044 });
  });

  it.each([
    ['20: reserved data bits with SHV', {}, handle(3, true), 0x1_0001, 0x20, 4],
    ['20: before the index is looked at', {}, handle(0x300, true), 0x8000_0000, 0x20, 0x300],
    ['21: index beyond the table', {}, handle(0x100), 0, 0x21, 0x100],
    ['21: subhandle leads beyond it', {}, handle(0xff, true), 1, 0x21, 0x100],
    ['21: handle and subhandle leave 16 bits', {}, handle(0xffff, true), 0xffff, 0x21, 0xfffe],
    ['22: not present', { P: 0 }, handle(3), 0, 0x22, 3],
    ['22: not present and reserved bits', { P: 0, IM: 1 }, handle(3), 0, 0x22, 3],
    ['24: posted format', { IM: 1 }, handle(3), 0, 0x24, 3],
    ['24: SVT reserved', { SVT: 3 }, handle(3), 0, 0x24, 3],
    ['24: delivery mode reserved', { DLM: 3 }, handle(3), 0, 0x24, 3],
    ['24: the other one', { DLM: 6 }, handle(3), 0, 0x24, 3],
    ['24: destination above 15:8 in xAPIC mode', { DST: 0x1_0100 }, handle(3), 0, 0x24, 3],
    ['24: destination below', { DST: 0x0101 }, handle(3), 0, 0x24, 3],
    ['24: before the source is verified', { SVT: 1, IM: 1, SID: 0 }, handle(3), 0, 0x24, 3],
    ['26: another source', { SVT: 1, SID: 0x19 }, handle(3), 0, 0x26, 3],
  ])('%s', (_, fields, lo, data, reason, index) => {
    const vm = new InterruptMachine().started();
    vm.irte(3, fields as IrteFields);
    expect(vm.message(0x18, lo, data)).toMatchObject({ ok: false, lo: 0, hi: 0, data: 0, index: -1 });
    const fi = index * 2 ** 48;
    expect(vm.faults()).toMatchObject([
      { index: 0, reason, sid: 0x18, address: fi, T1: 0, T2: 0, AT: 0, PP: 0 },
    ]);
    const event = vm.events.find(({ kind }) => kind === 'fault');
    expect(event).toMatchObject({ reason, rid: 0x18, lo, interrupt: expect.anything(), recorded: true });
    expect(vm.model.counters).toMatchObject({ interruptsRemapped: 0, interruptsBlocked: 1, faults: 1 });
  });

  it.each([
    [0, 0x1000],
    [0, 0x0100_0000],
    [2, 0x10_0000],
    [3, 1],
    [3, 0x8000_0000],
  ])('24: bit 0x%s %x is reserved', (word, bits) => {
    const vm = new InterruptMachine({ eim: 'on' }).started(true);
    vm.irte(3, {});
    const at = TABLE + 3 * 16 + word * 4;
    vm.store(at, [
      ((Number((vm.memory.peek(at - (at % 8)) ?? 0n) >> (at % 8 ? 32n : 0n)) | 0) & 0xffffffff) | bits,
    ]);
    expect(vm.raise(3).ok).toBe(false);
    expect(vm.lastReason()).toBe(0x24);
  });

  it('23: the entry is not in memory, or beyond the host address width', () => {
    const vm = new InterruptMachine({ 'aw-bits': '39' });
    vm.setTable(7, false, 0x1000_0000);
    vm.remapInterrupts();
    expect(vm.raise(3).ok).toBe(false);
    vm.setTable(7, false, 2 ** 40);
    expect(vm.raise(4).ok).toBe(false);
    const fi = (index: number) => index * 2 ** 48;
    expect(vm.faults()).toMatchObject([
      { reason: 0x23, address: fi(3) },
      { reason: 0x23, address: fi(4) },
    ]);
  });

  it.each([
    [0x22, { P: 0 }, 0],
    [0x24, { IM: 1 }, 0],
    [0x26, { SVT: 1, SID: 0x1234 }, 0],
    [0x20, {}, 0x1_0000],
  ])('%x with FPD: only qualified faults are suppressed', (reason, fields, data) => {
    const vm = new InterruptMachine().started();
    vm.irte(3, { FPD: 1, ...fields } as IrteFields);
    expect(vm.message(0x18, handle(3, true), data).ok).toBe(false);
    const event = vm.events.find(({ kind }) => kind === 'fault');
    expect(event).toMatchObject({ reason, recorded: reason === 0x20 });
    expect(vm.faults()).toHaveLength(reason === 0x20 ? 1 : 0);
  });

  it.each([
    [0, 0b000],
    [1, 0b100],
    [2, 0b110],
    [3, 0b111],
  ])('SQ %d leaves out the function bits %d', (SQ, ignored) => {
    const vm = new InterruptMachine().started();
    vm.irte(3, { SVT: 1, SQ, SID: 0x1a5 });
    for (let changed = 0; changed < 16; changed++) {
      expect(vm.raise(3, 0x1a5 ^ changed).ok, `${changed}`).toBe((changed & ~ignored) === 0);
    }
    expect(vm.raise(3, 0x2a5).ok).toBe(false);
  });

  it('SVT 2 verifies the bus: the first in SID 15:8, the last in 7:0', () => {
    const vm = new InterruptMachine().started();
    vm.irte(3, { SVT: 2, SQ: 3, SID: 0x0204 });
    const buses = [1, 2, 3, 4, 5].map((bus) => vm.raise(3, bus * 256 + 0x18).ok);
    expect(buses).toEqual([false, true, true, true, false]);
    vm.irte(4, { SVT: 2, SID: 0x0402 });
    expect(vm.raise(4, 0x300).ok).toBe(false);
  });

  it('SVT 0 looks at neither SID nor SQ', () => {
    const vm = new InterruptMachine().started();
    vm.irte(3, { SVT: 0, SQ: 2, SID: 0xffff });
    expect(vm.raise(3, 0x18).ok).toBe(true);
  });

  it('is looked at without a record, a count or an event', () => {
    const vm = new InterruptMachine().started();
    vm.irte(3, { V: 0x31 });
    expect(vm.message(8, handle(3), 0, true)).toMatchObject({ ok: true, data: 0x4031, index: 3 });
    expect(vm.message(8, handle(4), 0, true)).toMatchObject({ ok: false });
    expect(vm.message(8, COMPATIBLE, 0, true)).toMatchObject({ ok: false });
    expect(vm.faults()).toEqual([]);
    expect(vm.events.filter(({ kind }) => kind === 'fault')).toEqual([]);
    expect(vm.model.counters).toMatchObject({ interruptsRemapped: 0, interruptsBlocked: 0, faults: 0 });
  });
});

describe('faults', () => {
  it('share records and event with those of DMA', () => {
    const vm = new InterruptMachine({ 'fault-records': '2' }).started();
    vm.write32(FEDATA_REG.offset, 0x51);
    vm.write32(FEADDR_REG.offset, 0xfee02000);
    vm.write32(FEUADDR_REG.offset, 0x100);
    vm.write32(FECTL_REG.offset, 0);
    vm.setRoot(0);
    vm.enable();
    vm.raise(1);
    vm.translate(0x20, 0x5000n, READ);
    vm.raise(2);
    expect(vm.faults()).toMatchObject([
      { reason: 0x22, sid: 0x18, address: 2 ** 48, T1: 0 },
      { reason: 0x01, sid: 0x20, address: 0x5000, T1: 1 },
    ]);
    // PFO and PPF.
    expect(vm.read(FSTS_REG.offset) & 3).toBe(3);
    expect(vm.model.counters.faultsDropped).toBe(1);
    // §5.1.6: not remapped, and with its upper address.
    expect(vm.interrupts).toEqual([{ lo: 0xfee02000, hi: 0x100, data: 0x51 }]);
  });

  it('start at the first record again only when both remappings are off', () => {
    const vm = new InterruptMachine().started();
    vm.setRoot(0);
    vm.enable();
    vm.raise(1);
    vm.clearFaults();
    vm.disable();
    vm.raise(1);
    expect(vm.faults()).toMatchObject([{ index: 1 }]);
    vm.clearFaults();
    vm.remapInterrupts(false);
    vm.remapInterrupts();
    vm.raise(1);
    expect(vm.faults()).toMatchObject([{ index: 0 }]);
  });
});

describe('interrupts that come as DMA', () => {
  it.each([true, false])('bypass nothing while remapping is on; translation on: %s', (translating) => {
    const vm = new InterruptMachine().started();
    vm.passCompatible();
    if (translating) {
      vm.setRoot(0);
      vm.enable();
    }
    expect(vm.translate(8, 0xfee01004n, WRITE, undefined, 0, 4)).toMatchObject({ ok: false, count: 0 });
    expect(vm.faults()).toMatchObject([{ reason: 0x29, sid: 8, address: 0xfee01000, T1: 0 }]);
    expect(vm.translate(8, 0xfee01004n, 0)).toMatchObject({ ok: false, count: 0 });
    expect(vm.faults()).toHaveLength(1);
    vm.remapInterrupts(false);
    expect(vm.translate(8, 0xfee01004n, WRITE, undefined, 0, 4).ok).toBe(true);
  });

  it('are not in the reach of an answer while translation is off', () => {
    const vm = new InterruptMachine().started();
    expect(vm.translate(8, 0x1_0000_0000n, READ)).toMatchObject({ ok: true, out: 0x1_0000_0000n, log2: 32 });
    const near = vm.translate(8, 0xfef00000n, READ);
    expect(near).toMatchObject({ ok: true, out: 0xfef00000n, log2: 20 });
    expect(vm.translate(8, 0xfee00000n, READ, 5)).toMatchObject({ ok: true, log2: 64 });
  });
});

it('works without anything outside that keeps interrupts', () => {
  const vm = new TestMachine();
  const registers = new Uint32Array(1024);
  const outputs = {
    ...vm.devices,
    ...{ resume() {}, pageResponse() {}, invalidateDeviceTlb: () => false },
    ...{ invalidate() {}, pendingAcks: () => 0, interrupt() {}, event() {} },
  };
  const model = createModel('vtd', { intremap: 'on' }, { memory: vm.memory, registers, outputs });
  model.writeRegister(0x18, 4, 0x0380_0000, 0);
  expect(registers[0x1c >> 2]).toBe(0x0380_0000);
  expect(registers[IQH_REG.offset >> 2]).toBe(0);
});
