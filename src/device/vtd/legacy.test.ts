import { describe, expect, it } from 'vitest';
import {
  contextEntry,
  RAM_BYTES,
  READ,
  ROOT_TABLE,
  TestMachine,
  WRITE,
} from '../../../test/support/vtd-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { REQUEST } from '../iommu.js';

const RID = 0x0018;

/** A legacy-mode unit with one requester in domain 5, nothing mapped. */
function machine(options: Record<string, string> = {}, aw = 2) {
  const vm = new TestMachine(options);
  const root = vm.page();
  const context = vm.context(RID, ...contextEntry(root, 5, { aw }));
  vm.setRoot(0);
  vm.enable();
  return { vm, root, context };
}

describe('legacy mode', () => {
  it('answers identity for everything while translation is off', () => {
    const vm = new TestMachine();
    const answer = vm.translate(RID, 0xdead_beef_0000_1234n, WRITE);
    expect(answer).toMatchObject({ ok: true, log2: 64, out: 0xdead_beef_0000_1234n, space: 0x10000 });
  });

  it('translates 4 KiB, 2 MiB and 1 GiB pages with the domain as tag', () => {
    const { vm, root } = machine();
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n);
    vm.mapSecond(root, 4, 0x4000_0000n, 0x60_0000n, 2);
    vm.mapSecond(root, 4, 0x80_0000_0000n, 0x4000_0000n, 3);
    expect(vm.translate(RID, 0x1678n, READ)).toMatchObject({
      ok: true,
      out: 0x40_0678n,
      log2: 12,
      permissions: 3,
      space: 5,
      sub: ANY,
    });
    expect(vm.translate(RID, 0x4012_3456n, WRITE)).toMatchObject({ out: 0x72_3456n, log2: 21 });
    expect(vm.translate(RID, 0x80_3fff_ffffn, WRITE)).toMatchObject({ out: 0x7fff_ffffn, log2: 30 });
    expect(vm.faults()).toEqual([]);
  });

  it.each([
    [3, 1, '39'],
    [4, 2, '48'],
    [5, 3, '57'],
  ])('walks %i levels for AW %i', (levels, aw, bits) => {
    const { vm, root } = machine({ 'aw-bits': bits }, aw);
    const iova = 1n << BigInt(12 + 9 * levels - 2);
    vm.mapSecond(root, levels, iova, 0x50_0000n);
    expect(vm.translate(RID, iova + 8n, READ)).toMatchObject({ ok: true, out: 0x50_0008n });
    expect(vm.translate(RID, iova * 4n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.LGN_1);
  });

  it('hands out neighbours and joins contiguous ones', () => {
    const { vm, root } = machine();
    for (let page = 0n; page < 16n; page++) {
      vm.mapSecond(root, 4, 0x10_0000n + page * 4096n, 0x80_0000n + page * 4096n);
    }
    const answer = vm.translate(RID, 0x10_0000n, READ);
    expect(answer.spans[0]).toMatchObject({ in: 0x10_0000n, out: 0x80_0000n, log2: 16 });
  });

  it('passes through up to the address width, in blocks that avoid the interrupt range', () => {
    const vm = new TestMachine();
    vm.context(RID, ...contextEntry(0, 7, { tt: 2 }));
    vm.setRoot(0);
    vm.enable();
    expect(vm.translate(RID, 0x1234n, WRITE)).toMatchObject({ ok: true, out: 0x1234n, log2: 31, space: 7 });
    expect(vm.translate(RID, 0x1_0000_0000n, READ)).toMatchObject({ log2: 32 });
    expect(vm.translate(RID, 0xfed0_0000n, READ)).toMatchObject({ log2: 21, out: 0xfed0_0000n });
    expect(vm.translate(RID, 1n << 48n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.LGN_1);
  });

  it('lets interrupt writes through and refuses other requests to the interrupt range', () => {
    const { vm } = machine();
    expect(vm.translate(RID, 0xfee0_1234n, WRITE)).toMatchObject({
      ok: true,
      out: 0xfee0_1234n,
      permissions: 2,
    });
    expect(vm.translate(RID, 0xfee0_1234n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.IR_29);
  });

  it('takes for an interrupt what writes one aligned doubleword, where it is told how much', () => {
    const { vm } = machine();
    const ask = (address: bigint, access: number, size: number) =>
      vm.translate(RID, address, access, NO_PASID, REQUEST.UNTRANSLATED, size).ok;
    expect(ask(0xfee0_1004n, WRITE, 4)).toBe(true);
    expect(vm.faults()).toEqual([]);
    for (const size of [1, 2, 3, 8, 64, 4096])
      expect([size, ask(0xfee0_1000n, WRITE, size)]).toEqual([size, false]);
    expect(ask(0xfee0_1002n, WRITE, 4)).toBe(false);
    expect(ask(0xfee0_1000n, READ, 4)).toBe(false);
    // Of a write, as all but the last.
    const reasons = vm.faults().map(({ reason, T1 }) => [reason, T1]);
    expect(reasons).toEqual([...Array(7).fill([FAULT.IR_29, 0]), [FAULT.IR_29, 1]]);
    // A look says what would go through.
    expect(ask(0xfee0_1000n, 0, 64)).toBe(true);
  });

  it('looks without access: reports what is mapped and never records', () => {
    const { vm, root } = machine();
    vm.mapSecond(root, 4, 0x1000n, 0x40_0000n, 1, 1n);
    expect(vm.translate(RID, 0x1000n, 0)).toMatchObject({ ok: true, permissions: READ });
    expect(vm.translate(RID, 0x5000n, 0).ok).toBe(false);
    expect(vm.faults()).toEqual([]);
    expect(vm.events.filter((event) => event.kind === 'fault')).toEqual([]);
  });
});

describe('legacy fault reasons', () => {
  const cases: [string, number, (m: ReturnType<typeof machine>) => void, bigint, number][] = [
    ['root table outside of memory', FAULT.LRT_1, ({ vm }) => vm.setRoot(0, RAM_BYTES), 0n, READ],
    ['root-entry not present', FAULT.LRT_2, ({ vm }) => vm.entry(ROOT_TABLE, 0n), 0n, READ],
    ['reserved root-entry bits', FAULT.LRT_3, ({ vm }) => vm.entry(ROOT_TABLE, 0x2003n), 0n, READ],
    ['root-entry beyond HAW', FAULT.LRT_3, ({ vm }) => vm.entry(ROOT_TABLE, (1n << 48n) | 1n), 0n, READ],
    [
      'context table outside',
      FAULT.LCT_1,
      ({ vm }) => vm.entry(ROOT_TABLE, BigInt(RAM_BYTES) | 1n),
      0n,
      READ,
    ],
    ['context-entry not present', FAULT.LCT_2, ({ vm, context }) => vm.entry(context, 0n), 0n, READ],
    ['reserved context bits', FAULT.LCT_3, ({ vm, context }) => vm.entry(context + 8, 0x82n), 0n, READ],
    ['AW not supported', FAULT.LCT_4, ({ vm, context }) => vm.entry(context + 8, 0x504n), 0n, READ],
    ['TT 01 without Device-TLBs', FAULT.LCT_4, ({ vm, context }) => vm.entry(context, 5n), 0n, READ],
    ['TT reserved', FAULT.LCT_4, ({ vm, context }) => vm.entry(context, 0xdn), 0n, READ],
    [
      'page-table root outside',
      FAULT.LCT_4,
      ({ vm, context }) => vm.entry(context, BigInt(RAM_BYTES) | 1n),
      0n,
      READ,
    ],
    ['table outside', FAULT.LSS_1, ({ vm, root }) => vm.entry(root, BigInt(RAM_BYTES) | 3n), 0n, READ],
    ['reserved leaf bits', FAULT.LSS_2, ({ vm, root }) => vm.mapSecond(root, 4, 0n, 1n << 50n), 0n, READ],
    ['address beyond AW', FAULT.LGN_1, () => {}, 1n << 48n, READ],
    ['not present, write', FAULT.LGN_2, () => {}, 0n, WRITE],
    ['not present, read', FAULT.LGN_3, () => {}, 0n, READ],
    ['read-only', FAULT.LGN_2, ({ vm, root }) => vm.mapSecond(root, 4, 0n, 0n, 1, 1n), 0n, WRITE],
    ['write-only', FAULT.LGN_3, ({ vm, root }) => vm.mapSecond(root, 4, 0n, 0n, 1, 2n), 0n, READ],
    [
      'into the interrupt range',
      FAULT.LGN_4,
      ({ vm, root }) => vm.mapSecond(root, 4, 0n, 0xfee0_0000n),
      0n,
      WRITE,
    ],
  ];
  it.each(cases)('%s', (_name, reason, prepare, address, access) => {
    const m = machine();
    prepare(m);
    expect(m.vm.translate(RID, address, access)).toMatchObject({ ok: false, count: 0 });
    expect(m.vm.faults()).toMatchObject([{ reason, sid: RID, T1: access === READ ? 1 : 0, T2: 0, PP: 0 }]);
  });

  it('requests-with-PASID are refused', () => {
    const { vm } = machine();
    expect(vm.translate(RID, 0x3000n, READ, 9).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.RTA_2, PP: 1, PV: 9, address: 0x3000 }]);
  });

  it('TTM 10 is invalid programming', () => {
    const { vm } = machine();
    vm.setRoot(2);
    expect(vm.translate(RID, 0n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.RTA_1 }]);
  });

  it('a superpage that covers the interrupt range is handed out around it', () => {
    const { vm, root } = machine();
    vm.mapSecond(root, 4, 0n, 0xc000_0000n, 3);
    const answer = vm.translate(RID, 0x1000n, READ);
    expect(answer.ok).toBe(true);
    for (const span of answer.spans) {
      const end = span.out + (1n << BigInt(span.log2));
      expect(span.out >= 0xfef0_0000n || end <= 0xfee0_0000n).toBe(true);
    }
    expect(vm.translate(RID, 0x3ee0_0000n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.LGN_4);
  });
});
