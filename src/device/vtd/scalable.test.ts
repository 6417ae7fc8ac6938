import { describe, expect, it } from 'vitest';
import { RAM_BYTES, READ, ROOT_TABLE, TestMachine, WRITE } from '../../../test/support/vtd-unit.js';
import { FAULT } from '../../spec/vtd/faults.js';

const RID = 0x0098;
const PWSNP = 1n << 23n;
const OUTSIDE = BigInt(RAM_BYTES);

const first = (root: number, did: bigint, extra2 = 0n): bigint[] => [
  1n | (1n << 6n),
  did | PWSNP,
  BigInt(root) | extra2,
];
const second = (root: number, did: bigint, aw = 2n, low = 0n): bigint[] => [
  1n | (aw << 2n) | (2n << 6n) | BigInt(root) | low,
  did | PWSNP,
];
const nested = (root1: number, root2: number, did: bigint, extra = 0n): bigint[] => [
  1n | (2n << 2n) | (3n << 6n) | BigInt(root2),
  did | PWSNP,
  BigInt(root1) | extra,
];
const pass = (did: bigint): bigint[] => [1n | (4n << 6n), did | PWSNP];

/** A scalable-mode unit with one requester; RID_PASID is 0 unless given. */
function machine(
  options: Record<string, string> = {},
  fields: { paside?: boolean; ridPasid?: number; pdts?: number } = { paside: true },
) {
  const vm = new TestMachine(options);
  const { address, directory } = vm.scalableContext(RID, fields);
  vm.setRoot(1);
  vm.enable();
  return { vm, context: address, directory };
}

describe('scalable mode', () => {
  it('first stage: A and D are set, tags are domain and PASID', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, ...first(root, 1n));
    const leaf = vm.mapFirst(root, 4, 0x7000n, 0x50_0000n);
    expect(vm.translate(RID, 0x7010n, READ)).toMatchObject({ ok: true, out: 0x50_0010n, space: 1, sub: 0 });
    expect(vm.memory.peek(leaf)).toBe(0x50_0027n);
    expect(vm.translate(RID, 0x7010n, WRITE).permissions).toBe(3);
    expect(vm.memory.peek(leaf)).toBe(0x50_0067n);
  });

  it('a read of a clean page hands out read permission only, so that the first write sets D', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, ...first(root, 1n));
    vm.mapFirst(root, 4, 0x7000n, 0x50_0000n);
    expect(vm.translate(RID, 0x7010n, READ).permissions).toBe(READ);
    expect(vm.translate(RID, 0x7010n, READ).permissions).toBe(READ);
  });

  it('reserved bits of one half of a root-entry do not concern requesters of the other', () => {
    const { vm, directory } = machine({ 'cache-policy': 'none' });
    vm.pasidEntry(directory, 0, ...pass(4n));
    const lower = 0x18;
    vm.pasidEntry(vm.scalableContext(lower).directory, 0, ...pass(5n));
    for (const [half, good, bad] of [
      [0, RID, lower],
      [8, lower, RID],
    ] as const) {
      const was = vm.memory.peek(ROOT_TABLE + half) ?? 0n;
      vm.entry(ROOT_TABLE + half, was | 2n);
      expect(vm.translate(bad, 0n, READ).ok).toBe(false);
      expect(vm.lastReason()).toBe(FAULT.SRT_3);
      expect(vm.translate(good, 0n, READ).ok).toBe(true);
      vm.entry(ROOT_TABLE + half, was);
    }
  });

  it('five-level first stage and canonical addresses', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, ...first(root, 1n, 1n << 2n));
    const high = 0xff12_3456_7890_1000n;
    vm.mapFirst(root, 5, high, 0x50_0000n);
    expect(vm.translate(RID, high + 4n, READ)).toMatchObject({ ok: true, out: 0x50_0004n });
    expect(vm.translate(RID, 0x0112_3456_7890_1000n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SGN_1);
  });

  it('EAFE sets the extended-accessed flag', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, ...first(root, 1n, 1n << 7n));
    const leaf = vm.mapFirst(root, 4, 0x7000n, 0x50_0000n);
    vm.translate(RID, 0x7000n, READ);
    expect(vm.memory.peek(leaf)).toBe(0x50_0427n);
  });

  it('second stage with SSADE sets A and D, without it does not', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    const leaf = vm.mapSecond(root, 4, 0x7000n, 0x50_0000n);
    vm.pasidEntry(directory, 0, ...second(root, 6n));
    expect(vm.translate(RID, 0x7000n, WRITE)).toMatchObject({ ok: true, space: 6, sub: 0 });
    expect(vm.memory.peek(leaf)).toBe(0x50_0003n);
    const again = machine();
    const root2 = again.vm.page();
    const leaf2 = again.vm.mapSecond(root2, 4, 0x7000n, 0x50_0000n);
    again.vm.pasidEntry(again.directory, 0, ...second(root2, 6n, 2n, 1n << 9n));
    again.vm.translate(RID, 0x7000n, WRITE);
    expect(again.vm.memory.peek(leaf2)).toBe(0x50_0303n);
  });

  it('nested: both stages, permissions intersected, the smaller page', () => {
    const { vm, directory } = machine();
    const root2 = vm.page();
    const root1 = vm.page();
    // The guest's RAM stands at 16 MiB of guest-physical addresses, its tables at 0.
    vm.mapSecond(root2, 4, 0n, 0n, 3);
    vm.mapSecond(root2, 4, 0x1_4000_0000n, 0x60_0000n, 1, 1n);
    vm.pasidEntry(directory, 0, ...nested(root1, root2, 9n));
    vm.mapFirst(root1, 4, 0x20_0000n, 0x1_4000_0000n, 2);
    expect(vm.translate(RID, 0x20_0abcn, READ)).toMatchObject({
      ok: true,
      out: 0x60_0abcn,
      log2: 12,
      permissions: READ,
      space: 9,
    });
    expect(vm.translate(RID, 0x20_0000n, WRITE).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SGN_6);
    expect(vm.translate(RID, 0x20_1000n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SSS_2);
  });

  it('requests with and without PASID use their own entries', () => {
    const { vm, directory } = machine({}, { paside: true, ridPasid: 3, pdts: 7 });
    const root = vm.page();
    vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
    vm.pasidEntry(directory, 3, ...pass(2n));
    vm.pasidEntry(directory, 0xf_ffff, ...first(root, 1n));
    expect(vm.translate(RID, 0x1000n, READ)).toMatchObject({ out: 0x1000n, space: 2, sub: 3 });
    expect(vm.translate(RID, 0x1000n, READ, 0xf_ffff)).toMatchObject({ out: 0x50_0000n, sub: 0xf_ffff });
  });

  it('a request-with-PASID may address the interrupt range, but not come out there', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, ...pass(2n));
    vm.pasidEntry(directory, 5, ...first(root, 1n));
    vm.mapFirst(root, 4, 0xfee0_0000n, 0x50_0000n);
    vm.mapFirst(root, 4, 0x1000n, 0xfee0_0000n);
    expect(vm.translate(RID, 0xfee0_0000n, WRITE, 5)).toMatchObject({ ok: true, out: 0x50_0000n });
    expect(vm.translate(RID, 0x1000n, WRITE, 5).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SGN_8);
  });

  it('the upper half of the root-entry serves devfn 128 to 255', () => {
    const vm = new TestMachine();
    const { directory } = vm.scalableContext(0x01ff);
    vm.pasidEntry(directory, 0, ...pass(2n));
    vm.setRoot(1);
    vm.enable();
    expect(vm.translate(0x01ff, 0x1000n, READ).ok).toBe(true);
    expect(vm.translate(0x0108, 0x1000n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SRT_2);
  });
});

interface Setup extends ReturnType<typeof machine> {
  root: number;
  entry: number;
}

describe('scalable fault reasons', () => {
  const cases: [string, number, (s: Setup) => void, number?, number?, bigint?][] = [
    ['root table outside', FAULT.SRT_1, ({ vm }) => vm.setRoot(1, RAM_BYTES)],
    ['root-entry not present', FAULT.SRT_2, ({ vm }) => vm.entry(ROOT_TABLE + 8, 0n)],
    ['reserved root bits', FAULT.SRT_3, ({ vm }) => vm.entry(ROOT_TABLE + 8, 3n)],
    ['context table outside', FAULT.SCT_1, ({ vm }) => vm.entry(ROOT_TABLE + 8, OUTSIDE | 1n)],
    ['context-entry not present', FAULT.SCT_2, ({ vm, context }) => vm.entry(context, 0n)],
    ['reserved context bits', FAULT.SCT_3, ({ vm, context }) => vm.entry(context + 24, 1n)],
    ['DTE without Device-TLBs', FAULT.SCT_3, ({ vm, context }) => vm.entry(context, 5n)],
    ['RID_PASID beyond PDTS', FAULT.SCT_4, ({ vm, context }) => vm.entry(context + 8, 1n << 13n)],
    [
      'PASIDE clear',
      FAULT.SCT_6,
      ({ vm, context, directory }) => vm.entry(context, BigInt(directory) | 1n),
      8,
    ],
    ['PASID beyond PDTS', FAULT.SCT_7, () => {}, 1 << 13],
    ['PASID equals RID_PASID', FAULT.SCT_9, () => {}, 0],
    ['directory outside', FAULT.SPD_1, ({ vm, context }) => vm.entry(context, OUTSIDE | 1n)],
    ['directory entry not present', FAULT.SPD_2, ({ vm, directory }) => vm.entry(directory, 0n)],
    ['reserved directory bits', FAULT.SPD_3, ({ vm, directory }) => vm.entry(directory, 5n)],
    ['PASID table outside', FAULT.SPT_1, ({ vm, directory }) => vm.entry(directory, OUTSIDE | 1n)],
    ['PASID entry not present', FAULT.SPT_2, ({ vm, entry }) => vm.entry(entry, 0n)],
    ['reserved PASID entry bits', FAULT.SPT_3, ({ vm, entry }) => vm.entry(entry + 24, 1n)],
    [
      'SRE without supervisor support',
      FAULT.SPT_3,
      ({ vm, entry, root }) => vm.entry(entry + 16, BigInt(root) | 1n),
    ],
    ['PGTT 0', FAULT.SPT_4, ({ vm, entry }) => vm.entry(entry, 1n)],
    ['PGTT 5', FAULT.SPT_4, ({ vm, entry }) => vm.entry(entry, 1n | (5n << 6n))],
    ['FSPM 2', FAULT.SPT_4, ({ vm, entry, root }) => vm.entry(entry + 16, BigInt(root) | 8n)],
    ['AW unsupported', FAULT.SPT_4, ({ vm, entry }) => vm.entry(entry, second(0, 1n, 3n)[0])],
    ['execute request', FAULT.SPT_5, () => {}, 8, READ | 4],
    ['privileged request', FAULT.SPT_6, () => {}, 8, READ | 8],
    ['first-stage root outside', FAULT.SFS_4, ({ vm, entry }) => vm.entry(entry + 16, OUTSIDE)],
    ['first-stage table outside', FAULT.SFS_1, ({ vm, root }) => vm.entry(root, OUTSIDE | 7n)],
    ['first-stage not present', FAULT.SFS_2, ({ vm, root }) => vm.entry(root, 0n)],
    ['first-stage reserved', FAULT.SFS_3, ({ vm, root }) => vm.entry(root, 0x87n)],
    ['supervisor page', FAULT.SGN_2, ({ vm, root }) => vm.mapFirst(root, 4, 0x1000n, 0n, 1, 3n)],
    ['read-only page', FAULT.SGN_6, ({ vm, root }) => vm.mapFirst(root, 4, 0x1000n, 0n, 1, 5n), -1, WRITE],
    ['not canonical', FAULT.SGN_1, () => {}, -1, READ, 1n << 47n],
    ['A/D without PWSNP', FAULT.SFS_9, ({ vm, entry }) => vm.entry(entry + 8, 1n)],
  ];
  it.each(cases)('%s', (_name, reason, prepare, pasid = -1, access = READ, address = 0x1000n) => {
    const m = machine();
    const root = m.vm.page();
    const entry = m.vm.pasidEntry(m.directory, 0, ...first(root, 1n));
    m.vm.pasidEntry(m.directory, 8, ...first(root, 1n));
    m.vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
    prepare({ ...m, root, entry });
    expect(m.vm.translate(RID, address, access, pasid).ok).toBe(false);
    const recorded = m.vm.faults();
    expect(recorded).toMatchObject([{ reason, sid: RID, PP: pasid >= 0 ? 1 : 0 }]);
    if (pasid >= 0) expect(recorded[0].PV).toBe(pasid);
  });

  it('PASID beyond PSS', () => {
    const { vm, directory } = machine({ 'pasid-bits': '4' });
    const root = vm.page();
    vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
    for (const pasid of [15, 16]) vm.pasidEntry(directory, pasid, ...first(root, 1n));
    expect(vm.translate(RID, 0x1000n, READ, 15).ok).toBe(true);
    expect(vm.translate(RID, 0x1000n, READ, 16).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SGN_10);
  });

  it('PASIDE without PASIDs', () => {
    const { vm } = machine({ 'pasid-bits': '0' });
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.lastReason()).toBe(FAULT.SCT_3);
  });

  const secondStage: [
    string,
    number,
    (vm: TestMachine, root: number, entry: number) => void,
    number?,
    bigint?,
  ][] = [
    ['root outside', FAULT.SSS_4, (vm, _root, entry) => vm.entry(entry, second(RAM_BYTES, 1n)[0])],
    ['table outside', FAULT.SSS_1, (vm, root) => vm.entry(root, OUTSIDE | 3n)],
    ['not present', FAULT.SSS_2, (vm, root) => vm.entry(root, 0n)],
    ['reserved bits', FAULT.SSS_3, (vm, root) => vm.entry(root, 0x83n)],
    ['no permission left', FAULT.SSS_2, (vm, root) => vm.map(root, 4, 0x1000n, 0n, 1n, 2n)],
    ['read-only', FAULT.SGN_6, (vm, root) => vm.mapSecond(root, 4, 0x1000n, 0n, 1, 1n), WRITE],
    ['write-only', FAULT.SGN_7, (vm, root) => vm.mapSecond(root, 4, 0x1000n, 0n, 1, 2n), READ],
    ['beyond the width', FAULT.SGN_5, () => {}, READ, 1n << 48n],
  ];
  it.each(secondStage)('second stage: %s', (_name, reason, prepare, access = READ, address = 0x1000n) => {
    const { vm, directory } = machine();
    const root = vm.page();
    const entry = vm.pasidEntry(directory, 0, ...second(root, 1n));
    prepare(vm, root, entry);
    expect(vm.translate(RID, address, access).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason }]);
  });

  it('pass-through beyond the host address width', () => {
    const { vm, directory } = machine();
    vm.pasidEntry(directory, 0, ...pass(1n));
    expect(vm.translate(RID, 1n << 48n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SGN_4 }]);
  });

  const nestedCases: [string, number, (vm: TestMachine, root1: number, root2: number) => void, number?][] = [
    [
      'first-stage table beyond the guest width',
      FAULT.SFS_5,
      (vm, root1) => vm.entry(root1, (1n << 47n) | 7n),
    ],
    [
      'first-stage root not readable',
      FAULT.SFS_6,
      (vm, root1, root2) => vm.mapSecond(root2, 3, BigInt(root1), BigInt(root1), 1, 2n),
    ],
    [
      'first-stage flags not writable',
      FAULT.SFS_8,
      (vm, root1, root2) => vm.mapSecond(root2, 3, BigInt(root1), BigInt(root1), 1, 1n),
    ],
    [
      'first-stage root not mapped',
      FAULT.SSS_2,
      (vm, root1, root2) => vm.mapSecond(root2, 3, BigInt(root1), 0n, 1, 0n),
    ],
    ['output not mapped', FAULT.SSS_2, () => {}],
  ];
  it.each(nestedCases)('nested: %s', (_name, reason, prepare) => {
    const { vm, directory } = machine();
    const root1 = vm.page();
    const root2 = vm.page();
    vm.pasidEntry(directory, 0, 1n | (1n << 2n) | (3n << 6n) | BigInt(root2), 9n | PWSNP, BigInt(root1));
    for (let page = 0x10_0000n; page < 0x14_0000n; page += 4096n) vm.mapSecond(root2, 3, page, page);
    vm.mapFirst(root1, 4, 0x1000n, 0x1000_0000n);
    prepare(vm, root1, root2);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason }]);
  });
});

describe('page walks without snooping (PWSNP clear)', () => {
  it('set no flag, also where the walk fails further down', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, 1n | (1n << 6n), 1n, BigInt(root));
    const leaf = vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
    vm.entry(leaf, 0n);
    const before = vm.memory.peek(root);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SFS_9 }]);
    expect(vm.memory.peek(root)).toBe(before);
  });

  it('fault as what they find where no flag needs setting', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, 1n | (1n << 6n), 1n, BigInt(root));
    vm.entry(vm.map(root, 4, 0x1000n, 0n, 7n, 0x27n), 0n);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SFS_2 }]);
  });

  it('second stage: SSS.5', () => {
    const { vm, directory } = machine();
    const root = vm.page();
    vm.pasidEntry(directory, 0, second(root, 1n, 1n, 1n << 9n)[0], 1n);
    const leaf = vm.mapSecond(root, 3, 0x1000n, 0x50_0000n);
    vm.translate(RID, 0x1000n, READ);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SSS_5 }]);
    expect(vm.memory.peek(leaf)).toBe(0x50_0003n);
  });

  it.each([
    ['the second stage below a first one has a flag to set', FAULT.SSS_5, 3n],
    ['the first stage has', FAULT.SFS_9, 0x303n],
  ])('nested: %s', (_name, reason, bits) => {
    const { vm, directory } = machine();
    const [root1, root2] = [vm.page(), vm.page()];
    const low = 1n | (1n << 2n) | (3n << 6n) | (1n << 9n) | BigInt(root2);
    vm.pasidEntry(directory, 0, low, 9n, BigInt(root1));
    for (let page = 0x10_0000n; page < 0x14_0000n; page += 4096n) {
      vm.map(root2, 3, page, page, bits, bits);
    }
    vm.mapFirst(root1, 4, 0x1000n, 0x10_0000n);
    const before = vm.memory.peek(root1);
    expect(vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(vm.faults()).toMatchObject([{ reason }]);
    expect(vm.memory.peek(root1)).toBe(before);
  });
});

describe('FPD', () => {
  it.each([
    ['context', (m: ReturnType<typeof machine>) => m.vm.entry(m.context, BigInt(m.directory) | 3n)],
    [
      'directory',
      (m: ReturnType<typeof machine>) => m.vm.entry(m.directory, (m.vm.memory.peek(m.directory) ?? 0n) | 2n),
    ],
    ['entry', (m: ReturnType<typeof machine>) => m.vm.pasidEntry(m.directory, 0, 2n)],
  ])('in the %s suppresses qualified faults', (_name, prepare) => {
    const m = machine();
    m.vm.pasidEntry(m.directory, 0, 0n);
    prepare(m);
    expect(m.vm.translate(RID, 0x1000n, READ).ok).toBe(false);
    expect(m.vm.faults()).toEqual([]);
    expect(m.vm.events.at(-1)).toMatchObject({ kind: 'fault', reason: FAULT.SPT_2, recorded: false });
  });

  it('does not suppress faults that are not qualified', () => {
    const m = machine();
    m.vm.entry(m.context, OUTSIDE | 3n);
    m.vm.translate(RID, 0x1000n, READ);
    expect(m.vm.faults()).toMatchObject([{ reason: FAULT.SPD_1 }]);
  });
});
