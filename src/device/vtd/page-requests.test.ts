import { describe, expect, it } from 'vitest';
import {
  contextEntry,
  descriptor,
  RAM_BYTES,
  READ,
  ROOT_TABLE,
  TestMachine,
  WRITE,
} from '../../../test/support/vtd-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { decode } from '../../spec/define.js';
import { INV_WAIT_DSC, PAGE_GRP_RESP_DSC } from '../../spec/vtd/descriptors.js';
import { FAULT } from '../../spec/vtd/faults.js';
import {
  ECAP_REG,
  FSTS_REG,
  PECTL_REG,
  PQA_REG,
  PQH_REG,
  PQT_REG,
  PRS_REG,
} from '../../spec/vtd/registers.js';
import { PAGE_REQ_DSC } from '../../spec/vtd/structures.js';
import { PAGE_RESPONSE, type PageRequest } from '../iommu.js';

const RID = 0x0098;
const PASID = 8;
const PWSNP = 1n << 23n;
const OUTSIDE = BigInt(RAM_BYTES);
const RING = 0xa000;
const ENTRIES = 128;
const ON = { 'device-tlb': 'on', 'page-requests': 'on' };
const PPR = 1;
const PRO = 2;
const IP = 2 ** 30;

const first = (root: number): bigint[] => [1n | (1n << 6n), 1n | PWSNP, BigInt(root)];
const second = (root: number): bigint[] => [1n | (2n << 2n) | (2n << 6n) | BigInt(root), 2n | PWSNP];
const nested = (root1: number, root2: number): bigint[] => [
  1n | (2n << 2n) | (3n << 6n) | BigInt(root2),
  4n | PWSNP,
  BigInt(root1),
];

function unit(options: Record<string, string> = ON) {
  const vm = new TestMachine(options);
  const { address: context, directory } = vm.scalableContext(RID, { paside: true, dte: true, pre: true });
  const root = vm.page();
  const entry = vm.pasidEntry(directory, 0, ...first(root));
  vm.pasidEntry(directory, PASID, ...first(root));
  vm.setRoot(1);
  vm.enable();
  vm.write64(PQH_REG.offset, 0);
  vm.write64(PQT_REG.offset, 0);
  vm.write64(PQA_REG.offset, RING);
  vm.write32(0xe4, 0x61);
  vm.write32(0xe8, 0xfee0_4000);
  vm.write32(PECTL_REG.offset, 0);
  return { vm, context, directory, root, entry };
}

function ask(vm: TestMachine, fields: Partial<PageRequest> = {}): void {
  const request = {
    rid: RID,
    pasid: PASID,
    access: READ,
    lo: 0x5000,
    hi: 0,
    group: 3,
    last: true,
    ...fields,
  };
  vm.model.devices?.pageRequest?.(request);
}

const tail = (vm: TestMachine): number => vm.read(PQT_REG.offset);
const status = (vm: TestMachine): number => vm.read(PRS_REG.offset);
const message = { lo: 0xfee0_4000, hi: 0, data: 0x61 };

/** The descriptor at an index of the queue. */
function queued(vm: TestMachine, index: number) {
  const words = new Uint32Array(8);
  vm.memory.loadWords(RING + index * 32, words, 8);
  const { ADDR, ...rest } = decode(PAGE_REQ_DSC, words);
  return {
    ...rest,
    address: (BigInt(words[3]) << 32n) | BigInt((words[2] & ~0xfff) >>> 0),
    upper: words.slice(4),
  };
}

const answer = (code: number, more = {}) => ({ rid: RID, pasid: PASID, group: 3, code, ...more });

describe('page requests', () => {
  it('are offered only when asked for, on top of Device-TLBs and scalable mode', () => {
    expect(() => unit({ 'page-requests': 'on' })).toThrow('page-requests=on needs device-tlb=on');
    expect(() => unit({ ...ON, 'scalable-mode': 'off' })).toThrow('page-requests=on needs');
    const { vm } = unit({ 'device-tlb': 'on' });
    expect(decode(ECAP_REG, vm.registers, ECAP_REG.offset >> 2)).toMatchObject({ PRS: 0, PDS: 0 });
    expect([vm.read(PQA_REG.offset), vm.read(PECTL_REG.offset)]).toEqual([0, 0]);
    ask(vm);
    expect(vm.devices.pageResponses).toEqual([answer(PAGE_RESPONSE.INVALID)]);
    const offered = unit().vm;
    expect(decode(ECAP_REG, offered.registers, ECAP_REG.offset >> 2)).toMatchObject({ PRS: 1, PDS: 1 });
  });

  it('are written to the queue, field by field', () => {
    const { vm } = unit();
    ask(vm, { access: READ | WRITE, lo: 0x7654_3210, hi: 0xffff_8000, group: 0x1ff, last: false });
    ask(vm, { pasid: NO_PASID, access: WRITE, lo: 0x1000, group: 1 });
    ask(vm, { access: READ | 4 | 8, lo: 0xffff_f000, hi: 1, group: 0 });
    expect(queued(vm, 0)).toEqual({
      ...{ Type: 1, PP: 1, RID, PASID, EXR: 0, PMR: 0, RDR: 1, WRR: 1, LPIG: 0, PRGI: 0x1ff },
      address: 0xffff_8000_7654_3000n,
      upper: new Uint32Array(4),
    });
    expect(queued(vm, 1)).toMatchObject({
      PP: 0,
      PASID: 0,
      RDR: 0,
      WRR: 1,
      LPIG: 1,
      PRGI: 1,
      address: 0x1000n,
    });
    expect(queued(vm, 2)).toMatchObject({ EXR: 1, PMR: 1, RDR: 1, address: 0x1_ffff_f000n });
    expect([tail(vm), status(vm), vm.devices.pageResponses.length]).toEqual([96, PPR, 0]);
  });

  it('Stop Markers are queued as they are, and never answered', () => {
    const { vm } = unit();
    ask(vm, { access: 0 });
    expect(queued(vm, 0)).toMatchObject({ RDR: 0, WRR: 0, LPIG: 1, PP: 1, PASID });
    const other = unit();
    other.vm.entry(other.context, 0n);
    ask(other.vm, { access: 0 });
    expect(other.vm.devices.pageResponses).toEqual([]);
    expect(other.vm.faults()).toMatchObject([{ reason: FAULT.SCT_2 }]);
  });

  it('while remapping is off are invalid, without a record', () => {
    const { vm } = unit();
    vm.disable();
    ask(vm);
    expect(vm.devices.pageResponses).toEqual([answer(PAGE_RESPONSE.INVALID)]);
    expect([vm.faults().length, tail(vm)]).toEqual([0, 0]);
  });

  it('whose queue is not memory are invalid', () => {
    const { vm } = unit();
    vm.write64(PQA_REG.offset, RAM_BYTES);
    ask(vm);
    expect(vm.devices.pageResponses).toEqual([answer(PAGE_RESPONSE.INVALID)]);
    expect([status(vm), tail(vm)]).toEqual([0, 0]);
    expect(vm.events.at(-1)).toMatchObject({ name: 'page request queue is not memory' });
  });

  it('go round a queue of any size, whatever software left in the pointers', () => {
    const { vm } = unit();
    vm.write64(PQH_REG.offset, 0x7ffe0);
    vm.write64(PQT_REG.offset, 0x7f000 + 127 * 32);
    vm.write64(PQH_REG.offset, 0x400);
    ask(vm, { group: 9 });
    expect(queued(vm, 127)).toMatchObject({ PRGI: 9 });
    expect(tail(vm)).toBe(0);
  });
});

describe('the page request event', () => {
  it('comes once until software has seen PPR', () => {
    const { vm } = unit();
    ask(vm);
    ask(vm);
    expect(vm.interrupts).toEqual([message]);
    vm.write32(PRS_REG.offset, PPR);
    ask(vm);
    expect(vm.interrupts).toEqual([message, message]);
  });

  it('is held pending while it is masked, and void once everything is serviced', () => {
    const { vm } = unit();
    vm.write32(PECTL_REG.offset, 0x8000_0000);
    ask(vm);
    expect([vm.interrupts.length, vm.read(PECTL_REG.offset) >= 0x8000_0000 + IP]).toEqual([0, true]);
    vm.write32(PECTL_REG.offset, 0);
    expect(vm.interrupts).toEqual([message]);
    expect(vm.read(PECTL_REG.offset)).toBe(0);
    vm.write32(PRS_REG.offset, PPR);
    vm.write32(PECTL_REG.offset, 0x8000_0000);
    ask(vm);
    vm.write32(PRS_REG.offset, PPR);
    vm.write32(PECTL_REG.offset, 0);
    expect(vm.interrupts).toHaveLength(1);
  });
});

describe('overflow', () => {
  it('is answered with success, said once, and ends when software clears PRO', () => {
    const { vm } = unit();
    for (let n = 0; n < ENTRIES - 1; n++) ask(vm, { group: n, last: false });
    expect([tail(vm), status(vm)]).toEqual([(ENTRIES - 1) * 32, PPR]);
    vm.write32(PRS_REG.offset, PPR);
    ask(vm, { last: false });
    expect([status(vm), vm.interrupts.length, vm.devices.pageResponses.length]).toEqual([PRO, 2, 0]);
    ask(vm);
    // Room does not end it.
    vm.write64(PQH_REG.offset, 64);
    ask(vm, { access: 0 });
    ask(vm, { group: 4 });
    expect(vm.devices.pageResponses).toEqual([
      answer(PAGE_RESPONSE.SUCCESS),
      answer(PAGE_RESPONSE.SUCCESS, { group: 4 }),
    ]);
    expect([tail(vm), vm.interrupts.length]).toEqual([(ENTRIES - 1) * 32, 2]);
    vm.write32(PRS_REG.offset, PRO);
    ask(vm);
    expect([tail(vm), status(vm), vm.interrupts.length]).toEqual([0, PPR, 3]);
    expect(vm.faults()).toEqual([]);
  });

  it('that is found by the last request of a group is answered too', () => {
    const { vm } = unit();
    vm.write64(PQH_REG.offset, 32);
    ask(vm);
    expect([status(vm), tail(vm)]).toEqual([PRO, 0]);
    expect(vm.devices.pageResponses).toEqual([answer(PAGE_RESPONSE.SUCCESS)]);
  });
});

describe('conditions of Table 30 in page requests', () => {
  type M = ReturnType<typeof unit>;
  const cases: [string, number, (m: M) => void, number?][] = [
    ['legacy mode', FAULT.RTA_3, ({ vm }) => vm.setRoot(0)],
    ['reserved TTM', FAULT.RTA_1, ({ vm }) => vm.setRoot(2)],
    ['root table outside', FAULT.SRT_1, ({ vm }) => vm.setRoot(1, RAM_BYTES)],
    ['root-entry not present', FAULT.SRT_2, ({ vm }) => vm.entry(ROOT_TABLE + 8, 0n)],
    ['context-entry not present', FAULT.SCT_2, ({ vm, context }) => vm.entry(context, 0n)],
    ['reserved context bits', FAULT.SCT_3, ({ vm, context }) => vm.entry(context + 24, 1n)],
    [
      'PRE without DTE',
      FAULT.SCT_4,
      ({ vm, context, directory }) => vm.entry(context, BigInt(directory) | 0x19n),
    ],
    [
      'PASIDE clear',
      FAULT.SCT_6,
      ({ vm, context, directory }) => vm.entry(context, BigInt(directory) | 0x15n),
    ],
    ['PASID beyond PDTS', FAULT.SCT_7, () => {}, 1 << 13],
    ['PRE clear', FAULT.SCT_8, ({ vm, context, directory }) => vm.entry(context, BigInt(directory) | 0xdn)],
    ['PASID equals RID_PASID', FAULT.SCT_9, () => {}, 0],
    ['directory outside', FAULT.SPD_1, ({ vm, context }) => vm.entry(context, OUTSIDE | 0x1dn)],
    ['directory entry not present', FAULT.SPD_2, ({ vm, directory }) => vm.entry(directory, 0n)],
    ['PASID entry not present', FAULT.SPT_2, () => {}, 33],
    ['PGTT 0', FAULT.SPT_4, ({ vm, entry }) => vm.entry(entry, 1n), NO_PASID],
  ];
  it.each(cases)('%s: recorded, and invalid', (_name, reason, prepare, pasid = PASID) => {
    const m = unit();
    prepare(m);
    ask(m.vm, { pasid, access: READ | WRITE, lo: 0x7000, last: false });
    expect(m.vm.devices.pageResponses).toEqual([]);
    ask(m.vm, { pasid, access: READ | WRITE, lo: 0x7000 });
    expect(m.vm.devices.pageResponses).toEqual([answer(PAGE_RESPONSE.INVALID, { pasid })]);
    const record = { reason, sid: RID, address: 0x7000, T1: 0, T2: 1, AT: 0, PP: pasid === NO_PASID ? 0 : 1 };
    expect(m.vm.faults()).toMatchObject([record, record]);
    expect([tail(m.vm), status(m.vm)]).toEqual([0, 0]);
  });

  it('without the capability PRE is a reserved bit', () => {
    const { vm } = unit({ 'device-tlb': 'on' });
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SCT_3 }]);
  });

  it('rights that a PASID-entry does not give are no condition', () => {
    const { vm } = unit();
    ask(vm, { access: READ | 4 | 8 });
    expect([vm.faults().length, tail(vm)]).toEqual([0, 32]);
  });
});

describe('implicit invalidation', () => {
  const upgrade = (
    m: ReturnType<typeof unit>,
    pasid: number,
    entry: (vm: TestMachine, bits: bigint) => void,
  ) => {
    entry(m.vm, 1n);
    expect(m.vm.translate(RID, 0x5000n, WRITE, pasid).ok).toBe(false);
    expect(m.vm.translate(RID, 0x5000n, READ, pasid).ok).toBe(true);
    // Granted, and not announced.
    entry(m.vm, 3n);
    expect(m.vm.translate(RID, 0x5000n, WRITE, pasid).ok).toBe(false);
    m.vm.invalidations.length = 0;
    ask(m.vm, { pasid, access: WRITE });
    expect(m.vm.translate(RID, 0x5000n, WRITE, pasid).ok).toBe(true);
    return m.vm.invalidations;
  };

  it('first stage: the page, of that PASID', () => {
    const m = unit();
    const told = upgrade(m, PASID, (vm, bits) => vm.mapFirst(m.root, 4, 0x5000n, 0x50_0000n, 1, bits | 4n));
    expect(told).toMatchObject([{ space: 1, sub: PASID, lo: 0x5000, log2Size: 12 }]);
  });

  it('second stage: the page', () => {
    const m = unit();
    const root = m.vm.page();
    m.vm.pasidEntry(m.directory, 9, ...second(root));
    const told = upgrade(m, 9, (vm, bits) => vm.mapSecond(root, 4, 0x5000n, 0x50_0000n, 1, bits));
    expect(told).toMatchObject([{ space: 2, lo: 0x5000, log2Size: 12 }]);
  });

  it('nested: the domain', () => {
    const m = unit();
    const [root1, root2] = [m.vm.page(), m.vm.page()];
    m.vm.pasidEntry(m.directory, 9, ...nested(root1, root2));
    for (let page = 0n; page < BigInt(RAM_BYTES); page += 1n << 21n) m.vm.mapSecond(root2, 4, page, page, 2);
    const told = upgrade(m, 9, (vm, bits) => vm.mapFirst(root1, 4, 0x5000n, 0x20_0000n, 1, bits | 4n));
    expect(told).toMatchObject([{ space: 4, log2Size: 64 }]);
  });
});

describe('page group responses', () => {
  const response = (fields: Record<string, number>): Uint32Array =>
    descriptor(PAGE_GRP_RESP_DSC, { TypeLow: 9, RID, PP: 1, PASID: 0xabcde, PRGI: 0x1ff, ...fields });

  it('reach the device', () => {
    const { vm } = unit();
    vm.enableQueue(true);
    vm.submit(response({ RC: 0 }), response({ RC: 1, IGN: 1 }), response({ RC: 15 }), response({ RC: 7 }));
    vm.submit(response({ PP: 0, RC: 1, PRGI: 0 }));
    const to = { rid: RID, pasid: 0xabcde, group: 0x1ff };
    expect(vm.devices.pageResponses).toEqual([
      { ...to, code: PAGE_RESPONSE.SUCCESS },
      { ...to, code: PAGE_RESPONSE.INVALID },
      { ...to, code: PAGE_RESPONSE.FAILURE },
      { ...to, code: PAGE_RESPONSE.FAILURE },
      { rid: RID, pasid: NO_PASID, group: 0, code: PAGE_RESPONSE.INVALID },
    ]);
  });

  it.each([
    ['without page requests', { 'device-tlb': 'on' }, 1, true, {}],
    ['in legacy mode', ON, 0, true, {}],
    ['in 128 bits', ON, 0, false, {}],
    ['with reserved bits', ON, 1, true, { reserved: 1 }],
  ])('%s are queue errors', (_name, options, mode, wide, { reserved = 0 }: { reserved?: number }) => {
    const vm = new TestMachine(options as unknown as Record<string, string>);
    vm.context(0x18, ...contextEntry(vm.page(), 1));
    vm.setRoot(mode);
    vm.enableQueue(wide);
    const words = response({});
    words[5] |= reserved;
    vm.submit(words);
    expect(vm.read(FSTS_REG.offset) & 0x10).toBe(0x10);
    expect(vm.devices.pageResponses).toEqual([]);
  });

  it('and page requests are drained by a wait with PD, which is reserved without PDS', () => {
    const wait = descriptor(INV_WAIT_DSC, { TypeLow: 5, SW: 1, PD: 1, StatusData: 5, StatusAddress: 0x9000 });
    for (const [options, flags, data] of [[ON, 0, 5] as const, [{ 'device-tlb': 'on' }, 0x10, 0] as const]) {
      const vm = new TestMachine(options);
      vm.setRoot(1);
      vm.enableQueue(true);
      vm.submit(wait);
      expect(vm.read(FSTS_REG.offset) & 0x10).toBe(flags);
      expect(vm.memory.load32(0x9000) && vm.memory.lo).toBe(data);
    }
  });
});
