import { describe, expect, it } from 'vitest';
import {
  contextEntry,
  RAM_BYTES,
  READ,
  ROOT_TABLE,
  TestMachine,
  WRITE,
} from '../../../test/support/vtd-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { decode } from '../../spec/define.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { ECAP_REG } from '../../spec/vtd/registers.js';
import { ATS, REQUEST, TRANSLATE_STATUS } from '../iommu.js';

const RID = 0x0098;
const PASID = 8;
const PWSNP = 1n << 23n;
const OUTSIDE = BigInt(RAM_BYTES);
const ON = { 'device-tlb': 'on' };
const { OK, FAULT: UNSUPPORTED, COMPLETER_ABORT: ABORT } = TRANSLATE_STATUS;
const RW = READ | WRITE;

const first = (root: number): bigint[] => [1n | (1n << 6n), 1n | PWSNP, BigInt(root)];
const second = (root: number): bigint[] => [1n | (2n << 2n) | (2n << 6n) | BigInt(root), 2n | PWSNP];
const pass = [1n | (4n << 6n), 3n | PWSNP];

const ahead = (vm: TestMachine, address: bigint, access = RW, pasid = NO_PASID) =>
  vm.translate(RID, address, access, pasid, REQUEST.TRANSLATION);
const translated = (vm: TestMachine, address: bigint, access = READ, pasid = NO_PASID) =>
  vm.translate(RID, address, access, pasid, REQUEST.TRANSLATED);

function scalable(options: Record<string, string> = {}) {
  const vm = new TestMachine({ ...ON, ...options });
  const { address: context, directory } = vm.scalableContext(RID, { paside: true, dte: true });
  const root = vm.page();
  const entry = vm.pasidEntry(directory, 0, ...first(root));
  vm.pasidEntry(directory, PASID, ...first(root));
  const leaf = vm.mapFirst(root, 4, 0x1000n, 0x50_0000n);
  vm.setRoot(1);
  vm.enable();
  return { vm, context, directory, root, entry, leaf };
}

function legacy(tt = 1) {
  const vm = new TestMachine(ON);
  const root = vm.page();
  const context = vm.context(RID, ...contextEntry(root, 5, { tt }));
  const leaf = vm.mapSecond(root, 4, 0x1000n, 0x50_0000n);
  vm.setRoot(0);
  vm.enable();
  return { vm, context, root, leaf };
}

describe('a unit without Device-TLBs', () => {
  it('says so, and leaves translation and translated requests unsupported, without a record', () => {
    const vm = new TestMachine();
    const ecap = decode(ECAP_REG, vm.registers, ECAP_REG.offset >> 2);
    expect(ecap).toMatchObject({ DT: 0, DIT: 0, NWFS: 0 });
    vm.context(RID, ...contextEntry(0, 1, { tt: 2 }));
    vm.setRoot(0);
    vm.enable();
    expect([ahead(vm, 0n).status, translated(vm, 0n).status]).toEqual([UNSUPPORTED, UNSUPPORTED]);
    expect(vm.faults()).toEqual([]);
  });
});

describe('translation requests', () => {
  it('are unsupported while remapping is off', () => {
    const { vm } = scalable();
    expect(decode(ECAP_REG, vm.registers, ECAP_REG.offset >> 2)).toMatchObject({ DT: 1, DIT: 1, NWFS: 1 });
    vm.disable();
    expect([ahead(vm, 0x1000n).status, translated(vm, 0x1000n).status]).toEqual([UNSUPPORTED, UNSUPPORTED]);
    expect(vm.faults()).toEqual([]);
  });

  it.each([
    ['without PASID', NO_PASID, 0],
    ['with PASID', PASID, PASID],
  ])(
    '%s: one translation with the rights that there are; what it says is set is set',
    (_name, pasid, sub) => {
      const { vm, leaf } = scalable();
      const answer = ahead(vm, 0x1234n, RW, pasid);
      expect(answer).toMatchObject({ status: OK, count: 1, out: 0x50_0234n, log2: 12, permissions: RW });
      expect(answer).toMatchObject({ space: 1, sub });
      expect(vm.memory.peek(leaf)).toBe(0x50_0067n);
    },
  );

  it('for reading only (NW) give no right to write, and leave Dirty alone', () => {
    const { vm, leaf } = scalable();
    expect(ahead(vm, 0x1000n, READ).permissions).toBe(READ);
    expect(vm.memory.peek(leaf)).toBe(0x50_0027n);
    // A later one for writing is not answered from what the IOTLB has of the first.
    expect(ahead(vm, 0x1000n, RW).permissions).toBe(RW);
    expect(vm.memory.peek(leaf)).toBe(0x50_0067n);
    expect(ahead(vm, 0x1000n, READ).permissions).toBe(READ);
  });

  it('for a page that is not writable succeed with the right to read', () => {
    const { vm, root } = scalable();
    const leaf = vm.mapFirst(root, 4, 0x2000n, 0x60_0000n, 1, 5n);
    expect(ahead(vm, 0x2000n)).toMatchObject({ status: OK, permissions: READ, out: 0x60_0000n });
    expect(vm.memory.peek(leaf)).toBe(0x60_0025n);
    expect(vm.faults()).toEqual([]);
  });

  it('are answered from the IOTLB until that is invalidated', () => {
    const { vm, leaf } = scalable();
    ahead(vm, 0x1000n);
    vm.entry(leaf, 0x70_0067n);
    expect(ahead(vm, 0x1000n).out).toBe(0x50_0000n);
    expect(vm.translate(RID, 0x1000n, READ).out).toBe(0x50_0000n);
    expect(vm.model.counters.iotlbHits).toBeGreaterThan(0);
  });

  it('cover a large page, and what passes through in blocks of 1 GiB', () => {
    const { vm, root, directory } = scalable();
    vm.mapFirst(root, 4, 0x4000_0000n, 0x8000_0000n, 2);
    expect(ahead(vm, 0x4010_0000n)).toMatchObject({ log2: 21, out: 0x8010_0000n, permissions: RW });
    vm.pasidEntry(directory, 9, ...pass);
    expect(ahead(vm, 0x8123_4000n, RW, 9)).toMatchObject({ log2: 30, out: 0x8123_4000n, permissions: RW });
    expect(ahead(vm, 0x8123_4000n, READ, 9)).toMatchObject({ permissions: READ });
    expect(ahead(vm, 0xfed0_0000n, RW, 9)).toMatchObject({ log2: 21, status: OK });
    expect(ahead(vm, 1n << 48n, RW, 9)).toMatchObject({ status: OK, permissions: 0 });
    expect(vm.faults()).toEqual([]);
    // What passes through to the interrupt range would be an interrupt.
    expect(ahead(vm, 0xfee0_0000n, RW, 9).status).toBe(ABORT);
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SGN_8, AT: 1 }]);
  });

  it('tell a device to send its interrupts untranslated', () => {
    const { vm } = scalable();
    const rights = WRITE | ATS.UNTRANSLATED_ONLY;
    expect(ahead(vm, 0xfee0_1000n)).toMatchObject({ status: OK, permissions: rights, log2: 12 });
    expect(ahead(vm, 0xfee0_1000n, READ)).toMatchObject({ status: OK, permissions: 0 });
    expect(vm.faults()).toEqual([]);
  });

  it('in legacy mode need TT 01', () => {
    const { vm } = legacy();
    expect(ahead(vm, 0x1010n)).toMatchObject({ status: OK, out: 0x50_0010n, space: 5, permissions: RW });
    expect(vm.translate(RID, 0x1000n, READ)).toMatchObject({ ok: true, out: 0x50_0000n });
    for (const tt of [0, 2]) {
      const other = legacy(tt).vm;
      expect([ahead(other, 0x1000n).status, translated(other, 0n).status]).toEqual([
        UNSUPPORTED,
        UNSUPPORTED,
      ]);
      expect(other.faults()).toMatchObject([
        { reason: FAULT.LCT_5, AT: 1, T1: 1, T2: 0 },
        { reason: FAULT.LCT_5, AT: 2, T1: 1, T2: 0 },
      ]);
    }
  });

  it('are recorded as reads, with their PASID', () => {
    const { vm, context, directory } = scalable();
    vm.entry(context, BigInt(directory) | 1n | 8n);
    ahead(vm, 0x7000n, RW, PASID);
    expect(vm.faults()).toMatchObject([
      { reason: FAULT.SCT_5, AT: 1, T1: 1, T2: 0, PP: 1, PV: PASID, address: 0x7000 },
    ]);
  });

  it('are not recorded where FPD says so', () => {
    const { vm, context, directory } = scalable();
    vm.entry(context, BigInt(directory) | 3n);
    expect(ahead(vm, 0x7000n).status).toBe(UNSUPPORTED);
    expect(vm.faults()).toEqual([]);
  });

  it('in caching mode meet faults that are kept', () => {
    const { vm, directory } = scalable({ 'caching-mode': 'on' });
    const root = vm.page();
    vm.pasidEntry(directory, 9, ...second(root));
    expect(ahead(vm, 0x1000n, RW, 9)).toMatchObject({ status: OK, permissions: 0 });
    vm.mapSecond(root, 4, 0x1000n, 0x60_0000n);
    expect(ahead(vm, 0x1000n, RW, 9)).toMatchObject({ status: OK, permissions: 0 });
    expect(vm.translate(RID, 0x1000n, READ, 9).ok).toBe(false);
  });
});

/** How a translation request ends: [status, permissions, recorded]. */
const UR = [UNSUPPORTED, true] as const;
const CA = [ABORT, true] as const;
const NOTHING = [OK, false] as const;
type Scalable = ReturnType<typeof scalable>;
type Ends = readonly [number, boolean];

describe('conditions of Table 30 in translation requests', () => {
  const cases: [string, number, Ends, (m: Scalable) => void, number?, number?, bigint?][] = [
    ['root table outside', FAULT.SRT_1, CA, ({ vm }) => vm.setRoot(1, RAM_BYTES)],
    ['root-entry not present', FAULT.SRT_2, UR, ({ vm }) => vm.entry(ROOT_TABLE + 8, 0n)],
    ['reserved root bits', FAULT.SRT_3, CA, ({ vm }) => vm.entry(ROOT_TABLE + 8, 3n)],
    ['reserved TTM', FAULT.RTA_1, CA, ({ vm }) => vm.setRoot(2)],
    ['PASID in legacy mode', FAULT.RTA_2, UR, ({ vm }) => vm.setRoot(0), PASID],
    ['context table outside', FAULT.SCT_1, CA, ({ vm }) => vm.entry(ROOT_TABLE + 8, OUTSIDE | 1n)],
    ['context-entry not present', FAULT.SCT_2, UR, ({ vm, context }) => vm.entry(context, 0n)],
    ['reserved context bits', FAULT.SCT_3, CA, ({ vm, context }) => vm.entry(context + 24, 1n)],
    ['RID_PASID beyond PDTS', FAULT.SCT_4, CA, ({ vm, context }) => vm.entry(context + 8, 1n << 13n)],
    ['DTE clear', FAULT.SCT_5, UR, ({ vm, context, directory }) => vm.entry(context, BigInt(directory) | 9n)],
    [
      'PASIDE clear',
      FAULT.SCT_6,
      UR,
      ({ vm, context, directory }) => vm.entry(context, BigInt(directory) | 5n),
      PASID,
    ],
    ['PASID beyond PDTS', FAULT.SCT_7, UR, () => {}, 1 << 13],
    ['PASID equals RID_PASID', FAULT.SCT_9, UR, () => {}, 0],
    ['directory outside', FAULT.SPD_1, CA, ({ vm, context }) => vm.entry(context, OUTSIDE | 5n)],
    ['directory entry not present', FAULT.SPD_2, NOTHING, ({ vm, directory }) => vm.entry(directory, 0n)],
    ['reserved directory bits', FAULT.SPD_3, CA, ({ vm, directory }) => vm.entry(directory, 5n)],
    ['PASID table outside', FAULT.SPT_1, CA, ({ vm, directory }) => vm.entry(directory, OUTSIDE | 1n)],
    ['PASID entry not present', FAULT.SPT_2, NOTHING, ({ vm, entry }) => vm.entry(entry, 0n)],
    ['reserved PASID entry bits', FAULT.SPT_3, CA, ({ vm, entry }) => vm.entry(entry + 24, 1n)],
    ['PGTT 0', FAULT.SPT_4, CA, ({ vm, entry }) => vm.entry(entry, 1n)],
    ['execute request', FAULT.SPT_5, NOTHING, () => {}, PASID, READ | 4],
    ['privileged request', FAULT.SPT_6, NOTHING, () => {}, PASID, READ | 8],
    ['first-stage root outside', FAULT.SFS_4, NOTHING, ({ vm, entry }) => vm.entry(entry + 16, OUTSIDE)],
    ['first-stage table outside', FAULT.SFS_1, NOTHING, ({ vm, root }) => vm.entry(root, OUTSIDE | 7n)],
    ['first-stage not present', FAULT.SFS_2, NOTHING, ({ vm, root }) => vm.entry(root, 0n)],
    ['first-stage reserved', FAULT.SFS_3, NOTHING, ({ vm, root }) => vm.entry(root, 0x87n)],
    ['supervisor page', FAULT.SGN_2, NOTHING, ({ vm, root }) => vm.mapFirst(root, 4, 0x1000n, 0n, 1, 3n)],
    ['not canonical', FAULT.SGN_1, NOTHING, () => {}, NO_PASID, RW, 1n << 47n],
    ['A/D without PWSNP', FAULT.SFS_9, NOTHING, ({ vm, entry }) => vm.entry(entry + 8, 1n)],
    [
      'out in the interrupt range',
      FAULT.SGN_8,
      CA,
      ({ vm, root }) => vm.mapFirst(root, 4, 0x1000n, 0xfee0_0000n),
    ],
  ];
  it.each(cases)(
    '%s',
    (_name, reason, [status, recorded], prepare, pasid = -1, access = RW, address = 0x1000n) => {
      const m = scalable();
      prepare(m);
      const answer = ahead(m.vm, address, access, pasid);
      expect([answer.status, answer.permissions]).toEqual([status, 0]);
      expect(m.vm.faults()).toMatchObject(recorded ? [{ reason, AT: 1 }] : []);
    },
  );

  const secondStage: [
    string,
    number,
    Ends,
    (vm: TestMachine, root: number, entry: number) => void,
    bigint?,
  ][] = [
    ['root outside', FAULT.SSS_4, CA, (vm, _root, entry) => vm.entry(entry, second(RAM_BYTES)[0])],
    ['table outside', FAULT.SSS_1, CA, (vm, root) => vm.entry(root, OUTSIDE | 3n)],
    ['not present', FAULT.SSS_2, NOTHING, (vm, root) => vm.entry(root, 0n)],
    ['reserved bits', FAULT.SSS_3, CA, (vm, root) => vm.entry(root, 0x83n)],
    ['no permission left', FAULT.SSS_2, NOTHING, (vm, root) => vm.map(root, 4, 0x1000n, 0n, 1n, 2n)],
    ['beyond the width', FAULT.SGN_5, NOTHING, () => {}, 1n << 48n],
  ];
  it.each(secondStage)(
    'second stage: %s',
    (_name, reason, [status, recorded], prepare, address = 0x1000n) => {
      const { vm, directory } = scalable();
      const root = vm.page();
      const entry = vm.pasidEntry(directory, 9, ...second(root));
      prepare(vm, root, entry);
      const answer = ahead(vm, address, RW, 9);
      expect([answer.status, answer.permissions]).toEqual([status, 0]);
      expect(vm.faults()).toMatchObject(recorded ? [{ reason, AT: 1 }] : []);
    },
  );

  const legacyCases: [string, number, Ends, (m: ReturnType<typeof legacy>) => void, bigint?][] = [
    ['root table outside', FAULT.LRT_1, CA, ({ vm }) => vm.setRoot(0, RAM_BYTES)],
    ['root-entry not present', FAULT.LRT_2, UR, ({ vm }) => vm.entry(ROOT_TABLE, 0n)],
    ['reserved root-entry bits', FAULT.LRT_3, CA, ({ vm }) => vm.entry(ROOT_TABLE, 0x2003n)],
    ['context table outside', FAULT.LCT_1, CA, ({ vm }) => vm.entry(ROOT_TABLE, OUTSIDE | 1n)],
    ['context-entry not present', FAULT.LCT_2, UR, ({ vm, context }) => vm.entry(context, 0n)],
    ['reserved context bits', FAULT.LCT_3, CA, ({ vm, context }) => vm.entry(context + 8, 0x82n)],
    ['AW not supported', FAULT.LCT_4, CA, ({ vm, context }) => vm.entry(context + 8, 0x504n)],
    ['page-table root outside', FAULT.LCT_4, CA, ({ vm, context }) => vm.entry(context, OUTSIDE | 5n)],
    ['table outside', FAULT.LSS_1, CA, ({ vm, root }) => vm.entry(root, OUTSIDE | 3n)],
    ['reserved bits', FAULT.LSS_2, CA, ({ vm, root }) => vm.mapSecond(root, 4, 0x1000n, 1n << 50n)],
    ['address beyond AW', FAULT.LGN_1, NOTHING, () => {}, 1n << 48n],
    ['not present', FAULT.LGN_2, NOTHING, ({ vm, root }) => vm.entry(root, 0n)],
    [
      'into the interrupt range',
      FAULT.LGN_4,
      CA,
      ({ vm, root }) => vm.mapSecond(root, 4, 0x1000n, 0xfee0_0000n),
    ],
  ];
  it.each(legacyCases)('legacy: %s', (_name, reason, [status, recorded], prepare, address = 0x1000n) => {
    const m = legacy();
    prepare(m);
    const answer = ahead(m.vm, address);
    expect([answer.status, answer.permissions]).toEqual([status, 0]);
    expect(m.vm.faults()).toMatchObject(recorded ? [{ reason, AT: 1 }] : []);
  });

  it('a flag that cannot be set is success without permission, and reported (SFS.10)', () => {
    const { vm, leaf } = scalable();
    vm.memory.cas32 = (gpa) => {
      vm.memory.load32(gpa);
      return false;
    };
    expect(ahead(vm, 0x1000n)).toMatchObject({ status: OK, permissions: 0 });
    expect(vm.faults()).toMatchObject([{ reason: FAULT.SFS_10, AT: 1 }]);
    expect(vm.memory.peek(leaf)).toBe(0x50_0007n);
  });
});

describe('translated requests', () => {
  it('pass as they are, whatever the page tables say', () => {
    for (const { vm } of [scalable(), legacy()]) {
      for (const access of [READ, WRITE]) {
        expect(translated(vm, 0x7_7777_7123n, access)).toMatchObject({
          ok: true,
          out: 0x7_7777_7123n,
          count: 1,
        });
      }
      expect(vm.faults()).toEqual([]);
    }
  });

  it('with PASID are refused by the root complex, without a record', () => {
    const { vm } = scalable();
    expect(translated(vm, 0x1000n, READ, PASID).status).toBe(UNSUPPORTED);
    expect(vm.faults()).toEqual([]);
  });

  const cases: [string, number, number, bigint, (m: { vm: TestMachine; context: number }) => void][] = [
    ['above the host address width', FAULT.SGN_4, FAULT.LGN_1, 1n << 48n, () => {}],
    ['into the interrupt range', FAULT.SGN_8, FAULT.LGN_4, 0xfee0_0000n, () => {}],
    ['not admitted', FAULT.SCT_5, FAULT.LCT_5, 0n, ({ vm, context }) => clear(vm, context, 4n)],
    ['context-entry not present', FAULT.SCT_2, FAULT.LCT_2, 0n, ({ vm, context }) => vm.entry(context, 0n)],
    ['root-entry not present', FAULT.SRT_2, FAULT.LRT_2, 0n, ({ vm }) => wipeRoot(vm)],
  ];
  it.each(cases)('%s', (_name, inScalable, inLegacy, address, prepare) => {
    for (const [m, reason] of [[scalable(), inScalable] as const, [legacy(), inLegacy] as const]) {
      prepare(m);
      expect(translated(m.vm, address, WRITE).status).toBe(UNSUPPORTED);
      expect(m.vm.faults()).toMatchObject([{ reason, AT: 2, T1: 0, T2: 0 }]);
    }
  });

  it('are admitted by what the context-cache holds', () => {
    const { vm, context } = scalable();
    translated(vm, 0n);
    clear(vm, context, 4n);
    expect(translated(vm, 0n).ok).toBe(true);
  });
});

/** DTE and TT = 01 are the same bit. */
function clear(vm: TestMachine, context: number, bits: bigint): void {
  vm.entry(context, (vm.memory.peek(context) ?? 0n) & ~bits);
}

function wipeRoot(vm: TestMachine): void {
  vm.entry(ROOT_TABLE, 0n);
  vm.entry(ROOT_TABLE + 8, 0n);
}
