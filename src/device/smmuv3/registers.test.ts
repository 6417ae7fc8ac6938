import { describe, expect, it } from 'vitest';
import { ENABLES, READ, SID, STREAM_TABLE, sync, TestSmmu } from '../../../test/support/smmu-unit.js';
import {
  AIDR,
  CMDQ_BASE,
  CMDQ_CONS,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  GBPA,
  GERROR_IRQ_CFG0,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_PROD,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../spec/smmuv3/registers.js';
import { ACCESS } from '../iommu.js';

describe('identification', () => {
  it('reports what the default options bring', () => {
    const { registers } = new TestSmmu();
    const word = IDR0.offset >> 2;
    expect({
      S2P: IDR0.get.S2P(registers, word),
      S1P: IDR0.get.S1P(registers, word),
      TTF: IDR0.get.TTF(registers, word),
      HTTU: IDR0.get.HTTU(registers, word),
      STALL_MODEL: IDR0.get.STALL_MODEL(registers, word),
      TERM_MODEL: IDR0.get.TERM_MODEL(registers, word),
      ST_LEVEL: IDR0.get.ST_LEVEL(registers, word),
      ATS: IDR0.get.ATS(registers, word),
      PRI: IDR0.get.PRI(registers, word),
      HYP: IDR0.get.HYP(registers, word),
    }).toEqual({
      S2P: 1,
      S1P: 1,
      TTF: 2,
      HTTU: 2,
      STALL_MODEL: 0,
      TERM_MODEL: 1,
      ST_LEVEL: 1,
      ATS: 0,
      PRI: 0,
      HYP: 0,
    });
    expect(IDR1.get.SIDSIZE(registers, IDR1.offset >> 2)).toBe(16);
    expect(IDR1.get.SSIDSIZE(registers, IDR1.offset >> 2)).toBe(16);
    expect(IDR3.get.RIL(registers, IDR3.offset >> 2)).toBe(1);
    expect(IDR5.get.OAS(registers, IDR5.offset >> 2)).toBe(5);
    expect(registers[IDR5.offset >> 2] & 0x70).toBe(0x70);
    expect(IDR5.get.STALL_MAX(registers, IDR5.offset >> 2)).toBe(256);
    expect(IDR3.get.XNX(registers, IDR3.offset >> 2)).toBe(1);
    expect(registers[AIDR.offset >> 2]).toBe(1);
  });

  it('follows its options', () => {
    const vm = new TestSmmu({
      stages: '1',
      granules: '4k,64k',
      oas: '52',
      'ssid-bits': '0',
      'two-level': 'off',
      httu: 'off',
      'range-invalidation': 'off',
      stall: 'off',
    });
    expect(vm.read(IDR0.offset) & 0b11).toBe(0b10);
    expect(IDR0.get.STALL_MODEL(vm.registers)).toBe(1);
    expect(IDR0.get.ST_LEVEL(vm.registers)).toBe(0);
    expect(IDR0.get.CD2L(vm.registers)).toBe(0);
    expect(IDR0.get.HTTU(vm.registers)).toBe(0);
    expect(IDR1.get.SSIDSIZE(vm.registers, 1)).toBe(0);
    expect(vm.read(IDR3.offset) & 0x400).toBe(0);
    expect(vm.read(IDR5.offset)).toBe(6 | 0x50 | 0x400);
  });

  it.each([
    [{}, 0, 0],
    [{ pri: 'on' }, 0, 0],
    [{ ats: 'on' }, 1, 1],
    [{ ats: 'on', pri: 'off' }, 1, 0],
  ] as [Record<string, string>, number, number][])(
    'has no ATS unless it is asked for, and no page requests without it: %j',
    (options, ats, pri) => {
      const { registers, model } = new TestSmmu(options);
      expect([IDR0.get.ATS(registers), IDR0.get.PRI(registers)]).toEqual([ats, pri]);
      expect(IDR1.get.PRIQS(registers, 1)).toBe(pri === 1 ? 15 : 0);
      expect(model.devices?.pageRequest !== undefined).toBe(pri === 1);
    },
  );

  it.each([
    { stages: '3' },
    { granules: '8k' },
    { granules: '4k,4k' },
    { oas: '50' },
    { granules: '4k', oas: '52' },
    { 'ssid-bits': '21' },
    { httu: 'yes' },
    { 'two-level': 'maybe' },
    { colour: 'red' },
  ] as Record<string, string>[])('refuses %j', (options) => {
    expect(() => new TestSmmu(options)).toThrow(expect.objectContaining({ reason: 'BAD_OPTION' }));
  });
});

describe('register access', () => {
  it('takes words and doublewords, ignores the rest', () => {
    const vm = new TestSmmu();
    vm.write64(STRTAB_BASE.offset, 0x12_3456_7000);
    expect([vm.read(STRTAB_BASE.offset), vm.read(STRTAB_BASE.offset + 4)]).toEqual([0x3456_7000, 0x12]);
    vm.write32(STRTAB_BASE.offset + 4, 0x34);
    expect(vm.read(STRTAB_BASE.offset + 4)).toBe(0x34);
    vm.model.writeRegister(CR1.offset, 1, 0xff, 0);
    vm.model.writeRegister(CR1.offset, 2, 0xff, 0);
    vm.model.writeRegister(CR1.offset + 2, 4, 0xff, 0);
    vm.model.writeRegister(0x20000, 4, 0xff, 0);
    expect(vm.read(CR1.offset)).toBe(0);
    expect(vm.events).toHaveLength(4);
  });

  it('shows the producer and consumer of page 1 on page 0 too, both ways', () => {
    const vm = new TestSmmu();
    vm.write32(EVENTQ_PROD.offset, 3);
    expect(vm.read(0xa8)).toBe(3);
    vm.write32(0xac, 0x8000_0002);
    expect(vm.read(EVENTQ_CONS.offset)).toBe(0x8000_0002);
    expect(vm.read(0xac)).toBe(0x8000_0002);
  });

  it('keeps identification read-only and absent features zero', () => {
    const vm = new TestSmmu();
    const before = vm.read(IDR0.offset);
    const absent = [CR0ACK.offset, PRIQ_BASE.offset, PRIQ_BASE.offset + 4, 0xc8, 0x8000, 0x40];
    absent.push(PRIQ_PROD.offset, PRIQ_CONS.offset, PRIQ_IRQ_CFG0.offset, PRIQ_IRQ_CFG0.offset + 12);
    for (const offset of [IDR0.offset, ...absent]) vm.write32(offset, 0xffff_ffff);
    expect(vm.read(IDR0.offset)).toBe(before);
    for (const offset of absent) expect(vm.read(offset)).toBe(0);
    vm.write32(CR0.offset, 0x1d2);
    expect(vm.read(CR0.offset)).toBe(0);
    vm.write32(IRQ_CTRL.offset, 0xff);
    expect(vm.read(IRQ_CTRL.offset)).toBe(5);
    vm.write32(CR2.offset, 0xf);
    expect(vm.read(CR2.offset)).toBe(2);
  });

  it('refuses changes to what is in use', () => {
    const vm = new TestSmmu({ ats: 'on' }).start(ENABLES.ALL | ENABLES.PRIQEN);
    const offsets = [
      STRTAB_BASE.offset,
      STRTAB_BASE_CFG.offset,
      CMDQ_BASE.offset,
      CMDQ_CONS.offset,
      CR1.offset,
      CR2.offset,
      EVENTQ_PROD.offset,
      0xa8,
      PRIQ_BASE.offset,
      PRIQ_PROD.offset,
      0xc8,
    ];
    const before = offsets.map((offset) => vm.read(offset));
    for (const offset of offsets) vm.write32(offset, 0x7777_7777);
    expect(offsets.map((offset) => vm.read(offset))).toEqual(before);
    vm.write32(CR0.offset, 0);
    vm.write32(CR2.offset, 2);
    expect(vm.read(CR2.offset)).toBe(2);
    // Attributes of queues and tables stand in one register, each guarded by its own enables.
    vm.write32(CR0.offset, ENABLES.SMMUEN);
    vm.write32(CR1.offset, 0xfff);
    expect(vm.read(CR1.offset)).toBe(0x3f);
    vm.write32(CR0.offset, ENABLES.EVENTQEN);
    vm.write32(CR1.offset, 0xfc0);
    expect(vm.read(CR1.offset)).toBe(0xfff);
  });

  it('keeps interrupt configuration while the interrupt is enabled', () => {
    const vm = new TestSmmu({ ats: 'on' });
    vm.write64(GERROR_IRQ_CFG0.offset, 0x1000);
    vm.write32(IRQ_CTRL.offset, 7);
    expect(vm.read(IRQ_CTRLACK.offset)).toBe(7);
    const offsets = [GERROR_IRQ_CFG0.offset, EVENTQ_IRQ_CFG0.offset, PRIQ_IRQ_CFG0.offset];
    for (const offset of offsets) vm.write64(offset, 0x2000);
    expect(offsets.map((offset) => vm.read(offset))).toEqual([0x1000, 0, 0]);
  });
});

describe('enables', () => {
  it('acknowledges CR0 at once when nothing is in flight', () => {
    const vm = new TestSmmu().start(ENABLES.CMDQEN);
    expect(vm.acknowledged).toBe(ENABLES.CMDQEN);
    vm.write32(CR0.offset, ENABLES.ALL);
    expect(vm.acknowledged).toBe(ENABLES.ALL);
  });

  it('holds the acknowledgement until the caches outside are done', () => {
    const vm = new TestSmmu();
    vm.acks = 1;
    vm.start();
    expect(vm.acknowledged).toBe(0);
    expect(vm.invalidations).toHaveLength(1);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.acknowledged).toBe(ENABLES.ALL);
  });

  it('passes everything while it is off, and aborts when GBPA says so', () => {
    const vm = new TestSmmu();
    expect(vm.translate(SID, 0x1234_5678_9000n, READ)).toMatchObject({
      ok: true,
      out: 0x1234_5678_9000n,
      log2: 48,
    });
    expect(vm.translate(SID, 1n << 48n, READ).ok).toBe(false);
    vm.write32(GBPA.offset, 1 << 20);
    expect(vm.read(GBPA.offset)).toBe(0x1000);
    vm.write32(GBPA.offset, 0x8010_1000);
    expect(vm.read(GBPA.offset)).toBe(0x10_1000);
    expect(vm.translate(SID, 0x1000n, READ).ok).toBe(false);
    expect(vm.events.at(-1)).toMatchObject({ kind: 'fault', name: 'aborted', recorded: false });
  });

  it('keeps GBPA.Update until the caches outside are done', () => {
    const vm = new TestSmmu();
    vm.acks = 1;
    vm.write32(GBPA.offset, 0x8010_0000);
    expect(vm.read(GBPA.offset)).toBe(0x8010_0000);
    vm.acks = 0;
    vm.model.acknowledged();
    expect(vm.read(GBPA.offset)).toBe(0x10_0000);
  });

  it('forgets everything at reset', () => {
    const vm = new TestSmmu().start();
    vm.stage1(SID);
    vm.submit(sync());
    vm.model.reset();
    expect([vm.read(CR0.offset), vm.acknowledged, vm.consumed]).toEqual([0, 0, 0]);
    expect(vm.read(GBPA.offset)).toBe(0x1000);
    expect(vm.read(STRTAB_BASE.offset)).toBe(0);
    expect(vm.translate(SID, 0x5000n, ACCESS.WRITE)).toMatchObject({ ok: true, out: 0x5000n });
    expect(STREAM_TABLE).toBeGreaterThan(0);
  });
});
