import { describe, expect, it } from 'vitest';
import { contextEntry, READ, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { decode } from '../../spec/define.js';
import {
  CAP_REG,
  CCMD_REG,
  ECAP_REG,
  FRCD_OFFSET,
  GCMD_REG,
  GSTS_REG,
  IOTLB_OFFSET,
  IOTLB_REG,
  IQH_REG,
  IVA_REG,
  RTADDR_REG,
  VER_REG,
} from '../../spec/vtd/registers.js';

const ICC = 0x8000_0000;

describe('capabilities', () => {
  it('reports a version with register-based invalidation', () => {
    expect(decode(VER_REG, new TestMachine().registers, 0)).toEqual({ MAX: 5, MIN: 0 });
  });

  it.each([
    [{ 'aw-bits': '39' }, { SAGAW: 0b0010, MGAW: 38, FS1GP: 0, FS5LP: 0 }, { FSTS: 0, NEST: 0, SSTS: 1 }],
    [{ 'aw-bits': '48' }, { SAGAW: 0b0110, MGAW: 47, FS1GP: 1, FS5LP: 1 }, { FSTS: 1, NEST: 1, SSTS: 1 }],
    [{ 'aw-bits': '57' }, { SAGAW: 0b1110, MGAW: 56 }, { FSTS: 1, NEST: 1, PSS: 19, PASID: 1 }],
    [{ 'first-stage': 'off' }, { FS1GP: 0, FS5LP: 0 }, { FSTS: 0, NEST: 0, EAFS: 0, SSTS: 1, SMTS: 1 }],
    [{ 'caching-mode': 'on' }, { CM: 1, NFR: 7, MAMV: 18, PSI: 1, ND: 6, SSLPS: 3 }, { C: 1, QI: 1, SC: 1 }],
    [
      { 'scalable-mode': 'off' },
      { CM: 0 },
      { SMTS: 0, PASID: 0, PSS: 0, FSTS: 0, SSTS: 0, SMPWCS: 0, RPS: 0 },
    ],
  ])('%j', (options, cap, ecap) => {
    const vm = new TestMachine(options);
    expect(decode(CAP_REG, vm.registers, CAP_REG.offset >> 2)).toMatchObject(cap);
    expect(decode(ECAP_REG, vm.registers, ECAP_REG.offset >> 2)).toMatchObject(ecap);
  });

  it('does not promise what is not there', () => {
    const vm = new TestMachine({ 'aw-bits': '57' });
    const absent = { IR: 0, EIM: 0, DT: 0, PRS: 0, PDS: 0, VCS: 0, ERS: 0, SRS: 0, MTS: 0, HPTS: 0, DIT: 0 };
    expect(decode(ECAP_REG, vm.registers, ECAP_REG.offset >> 2)).toMatchObject(absent);
    const none = { ESIRTPS: 0, ECMDS: 0, PI: 0, RWBF: 0, PLMR: 0, PHMR: 0 };
    expect(decode(CAP_REG, vm.registers, CAP_REG.offset >> 2)).toMatchObject(none);
  });

  it('tells where the IOTLB and fault recording registers are', () => {
    const vm = new TestMachine();
    expect(CAP_REG.get.FRO(vm.registers, CAP_REG.offset >> 2) * 16).toBe(FRCD_OFFSET);
    expect(ECAP_REG.get.IRO(vm.registers, ECAP_REG.offset >> 2) * 16).toBe(IOTLB_OFFSET);
  });

  it('takes on and off in three spellings', () => {
    const cachingMode = (value: string): number =>
      CAP_REG.get.CM(new TestMachine({ 'caching-mode': value }).registers, CAP_REG.offset >> 2);
    expect(['on', 'true', '1'].map(cachingMode)).toEqual([1, 1, 1]);
    expect(['off', 'false', '0'].map(cachingMode)).toEqual([0, 0, 0]);
  });

  it.each([
    [{ 'aw-bits': '40' }, /aw-bits must be one of 39, 48, 57/],
    [{ 'caching-mode': 'maybe' }, /caching-mode must be on or off/],
    [{ colour: 'red' }, /unknown option "colour"/],
    [{ 'fault-records': '0' }, /fault-records must be 1 to 64/],
    [{ 'fault-records': '65' }, /fault-records must be 1 to 64/],
    [{ 'fault-records': '1.5' }, /fault-records must be 1 to 64/],
    [{ 'virtual-commands': 'on' }, /virtual-commands=on needs scalable-mode=on, .*caching-mode=on/],
    [{ 'pasid-bits': '21' }, /pasid-bits must be 0 to 20/],
  ])('refuses %j', (options, message) => {
    expect(() => new TestMachine(options as Record<string, string>)).toThrow(message);
  });
});

describe('global command and status', () => {
  it('latches the root table at SRTP only', () => {
    const vm = new TestMachine();
    vm.context(0x18, ...contextEntry(0, 1, { tt: 2 }));
    vm.setRoot(0);
    vm.enable();
    expect(vm.status).toEqual({ TES: 1, RTPS: 1, QIES: 0 });
    vm.write64(RTADDR_REG.offset, 0x5000);
    expect(vm.translate(0x18, 0x1000n, READ).ok).toBe(true);
  });

  it('takes TE and QIE as levels, SRTP as a one-shot', () => {
    const vm = new TestMachine();
    vm.write32(GCMD_REG.offset, 0x4000_0000);
    expect(vm.status).toEqual({ TES: 0, RTPS: 1, QIES: 0 });
    vm.write32(GCMD_REG.offset, 0x0400_0000);
    expect(vm.status).toEqual({ TES: 0, RTPS: 1, QIES: 1 });
    vm.write32(GCMD_REG.offset, 0x8400_0000);
    expect(vm.status).toEqual({ TES: 1, RTPS: 1, QIES: 1 });
    vm.write32(GCMD_REG.offset, 0x8000_0000);
    expect(vm.status).toEqual({ TES: 1, RTPS: 1, QIES: 0 });
    vm.write32(GCMD_REG.offset, 0);
    expect(vm.status).toEqual({ TES: 0, RTPS: 1, QIES: 0 });
  });

  it('ignores what belongs to interrupt remapping and write-buffer flushing', () => {
    const vm = new TestMachine();
    vm.write32(GCMD_REG.offset, 0x0b80_0000);
    expect(vm.read(GSTS_REG.offset)).toBe(0);
    expect(vm.read(GCMD_REG.offset)).toBe(0);
  });

  it('shows a status only when the caches outside have acknowledged', () => {
    const vm = new TestMachine();
    vm.setRoot(0);
    vm.acks = 1;
    vm.enable();
    expect(vm.invalidations.at(-1)).toMatchObject({ space: 0xffffffff, log2Size: 64 });
    expect(vm.status.TES).toBe(0);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.status.TES).toBe(1);
    vm.acks = 2;
    vm.setRoot(0);
    expect(vm.status.RTPS).toBe(0);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.status.RTPS).toBe(1);
  });

  it('resets to power-on', () => {
    const vm = new TestMachine();
    const fresh = Array.from(vm.registers);
    vm.setRoot(1);
    vm.enableQueue(true);
    vm.enable();
    vm.translate(0x18, 0n, WRITE);
    expect(Array.from(vm.registers)).not.toEqual(fresh);
    vm.model.reset();
    expect(Array.from(vm.registers)).toEqual(fresh);
    expect(vm.translate(0x18, 0x1234n, WRITE)).toMatchObject({ ok: true, log2: 64 });
  });

  it('ignores accesses that are not aligned doublewords or quadwords', () => {
    const vm = new TestMachine();
    const fresh = Array.from(vm.registers);
    for (const [offset, size] of [
      [0x1b, 1],
      [0x1a, 2],
      [0x19, 4],
      [0x1c, 8],
      [0x1000, 4],
      [0xffc, 8],
      [-4, 4],
      [0.5, 4],
      [0x18, 16],
    ]) {
      vm.model.writeRegister(offset, size, 0xffffffff, 0xffffffff);
    }
    expect(Array.from(vm.registers)).toEqual(fresh);
  });

  it('capability and status registers are read-only', () => {
    const vm = new TestMachine();
    const fresh = Array.from(vm.registers);
    for (const offset of [0, 8, 0xc, 0x10, 0x14, 0x1c, IQH_REG.offset, 0x64, 0xb8, 0xd0]) {
      vm.write32(offset, 0xffff_ffff);
    }
    expect(Array.from(vm.registers)).toEqual(fresh);
  });
});

describe('register-based invalidation', () => {
  function unit() {
    const vm = new TestMachine();
    const root = vm.page();
    vm.context(0x18, ...contextEntry(root, 5));
    const leaf = vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    vm.setRoot(0);
    vm.enable();
    vm.translate(0x18, 0x1000n, READ);
    vm.entry(leaf, 0x50_0003n);
    vm.invalidations.length = 0;
    return { vm, leaf };
  }
  const ccmd = (vm: TestMachine, hi: number, lo = 0): number => {
    vm.write32(CCMD_REG.offset, lo);
    vm.write32(CCMD_REG.offset + 4, hi);
    return vm.read(CCMD_REG.offset + 4) >>> 0;
  };
  const iotlb = (vm: TestMachine, hi: number): number => {
    vm.write32(IOTLB_REG.offset + 4, hi);
    return vm.read(IOTLB_REG.offset + 4) >>> 0;
  };

  it('is asked for by ICC alone', () => {
    const vm = new TestMachine();
    vm.write32(CCMD_REG.offset + 4, 0x2000_0000);
    expect([vm.invalidations, vm.read(CCMD_REG.offset + 4)]).toEqual([[], 0x2000_0000]);
  });

  it('keeps a stale translation until the IOTLB is invalidated, at every granularity', () => {
    for (const hi of [0x9000_0000, 0xa000_0005, 0xb000_0005]) {
      const { vm } = unit();
      expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x40_0000n);
      vm.write64(IVA_REG.offset, 0x1000);
      const done = iotlb(vm, hi);
      expect(done >>> 31).toBe(0);
      expect((done >>> 25) & 3).toBe((hi >>> 28) & 3);
      expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x50_0000n);
      expect(vm.invalidations).toHaveLength(1);
    }
  });

  it('reports 00 for another domain nothing, for reserved granularity and large masks', () => {
    const { vm } = unit();
    vm.write64(IVA_REG.offset, 0x1000);
    expect((iotlb(vm, 0xb000_0006) >>> 25) & 3).toBe(3);
    expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x40_0000n);
    expect((iotlb(vm, 0x8000_0005) >>> 25) & 3).toBe(0);
    vm.write64(IVA_REG.offset, 0x1000 + 19);
    expect((iotlb(vm, 0xb000_0005) >>> 25) & 3).toBe(0);
    expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x40_0000n);
  });

  it('context-cache: device, domain, global; DID and SID must match', () => {
    for (const [hi, lo] of [
      [ICC + 0x6000_0000, 0x0018_0005],
      [ICC + 0x4000_0000, 0x0000_0005],
      [ICC + 0x2000_0000, 0],
    ]) {
      const { vm } = unit();
      const moved = vm.page();
      vm.mapSecond(moved, 4, 0x1000n, 0x60_0000n);
      vm.context(0x18, ...contextEntry(moved, 5));
      iotlb(vm, 0x9000_0000);
      expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x50_0000n);
      expect(ccmd(vm, ICC + 0x6000_0000, 0x0018_0006) >>> 31).toBe(0);
      iotlb(vm, 0x9000_0000);
      expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x50_0000n);
      expect((ccmd(vm, hi, lo) >>> 27) & 3).toBe((hi >>> 29) & 3);
      iotlb(vm, 0x9000_0000);
      expect(vm.translate(0x18, 0x1000n, READ).out).toBe(0x60_0000n);
    }
  });

  it('the function mask widens a device-selective invalidation', () => {
    const { vm } = unit();
    ccmd(vm, ICC + 0x6000_0002, 0x001a_0005);
    expect(vm.invalidations.map((scope) => scope.rid)).toEqual([0x18, 0x1a, 0x1c, 0x1e]);
  });

  it('completes only after the acknowledgements', () => {
    const { vm } = unit();
    vm.acks = 1;
    expect(iotlb(vm, 0x9000_0000) >>> 31).toBe(1);
    expect(ccmd(vm, ICC + 0x2000_0000) >>> 31).toBe(1);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.read(IOTLB_REG.offset + 4) >>> 31).toBe(0);
    expect(vm.read(CCMD_REG.offset + 4) >>> 31).toBe(0);
  });

  it('is an incorrect request while the queue is enabled or in scalable mode', () => {
    const { vm } = unit();
    vm.enableQueue(false);
    expect((iotlb(vm, 0x9000_0000) >>> 25) & 3).toBe(0);
    expect((ccmd(vm, ICC + 0x2000_0000) >>> 27) & 3).toBe(0);
    vm.disableQueue();
    vm.setRoot(1);
    expect((iotlb(vm, 0x9000_0000) >>> 25) & 3).toBe(0);
    expect((ccmd(vm, ICC + 0x2000_0000) >>> 27) & 3).toBe(0);
  });
});
