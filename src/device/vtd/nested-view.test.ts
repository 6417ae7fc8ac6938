import { describe, expect, it } from 'vitest';
import { contextEntry, TestMachine } from '../../../test/support/vtd-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { pack } from '../../spec/define.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { FRCD_REG } from '../../spec/vtd/registers.js';
import { ENTRY, type NestedView, newPasidEntryView, newStreamEntryView, STREAM } from '../nested-view.js';

const RID = 0x18;
const PWSNP = 1n << 23n;
const PASS_THROUGH = [1n | (4n << 6n), 3n] as const;

/** Scalable mode; requests with PASID and without are looked up under `directory`. */
function scalable(fields: { paside?: boolean; pdts?: number } = { paside: true }) {
  const vm = new TestMachine();
  const { address, directory } = vm.scalableContext(RID, fields);
  vm.setRoot(1);
  vm.enable();
  const view = vm.model.nested as NestedView;
  const entry = (pasid: number) => {
    const out = newPasidEntryView();
    view.entry(RID, pasid, out);
    return out;
  };
  return { vm, address, directory, view, entry };
}

describe('what hardware that nests has to know', () => {
  it('is whether structures decide at all, and no stream table entry', () => {
    const vm = new TestMachine();
    const view = vm.model.nested as NestedView;
    expect(view.stream(RID)).toBe(STREAM.IDENTITY);
    vm.enable();
    expect([view.stream(RID), view.ste(RID, newStreamEntryView())]).toEqual([STREAM.TABLES, false]);
  });

  it('is what the entry of each PASID says, with its tags', () => {
    const { vm, directory, entry } = scalable();
    const root = vm.page();
    vm.pasidEntry(directory, 0, ...PASS_THROUGH);
    vm.pasidEntry(directory, 4, 1n | (1n << 6n), 9n | PWSNP, BigInt(root) | 4n);
    vm.pasidEntry(directory, 5, 1n | (1n << 6n), 9n | PWSNP, BigInt(root) | (1n << 7n));
    vm.pasidEntry(directory, 6, 1n | (2n << 6n) | (2n << 2n) | BigInt(root), 8n | PWSNP);
    vm.pasidEntry(directory, 7, 1n | (3n << 6n) | (2n << 2n) | BigInt(root), 8n | PWSNP, BigInt(root));
    expect(entry(NO_PASID)).toMatchObject({ kind: ENTRY.PASS_THROUGH, did: 3, tag: 0 });
    const first = { kind: ENTRY.FIRST_STAGE, did: 9, root };
    expect(entry(4)).toEqual({ ...first, tag: 4, levels: 5, extendedAccessed: false });
    expect(entry(5)).toEqual({ ...first, tag: 5, levels: 4, extendedAccessed: true });
    expect([6, 7, 8].map((pasid) => entry(pasid).kind)).toEqual([
      ENTRY.SECOND_STAGE,
      ENTRY.SECOND_STAGE,
      ENTRY.NONE,
    ]);
    expect(vm.faults()).toEqual([]);
  });

  it('is of legacy mode the context-entry', () => {
    const vm = new TestMachine();
    vm.context(RID, ...contextEntry(vm.page(), 5));
    vm.setRoot(0);
    vm.enable();
    const out = newPasidEntryView();
    vm.model.nested?.entry(RID, NO_PASID, out);
    expect(out).toMatchObject({ kind: ENTRY.SECOND_STAGE, did: 5, tag: ANY });
    vm.model.nested?.entry(RID, 4, out);
    expect(out.kind).toBe(ENTRY.NONE);
  });
});

describe('the next PASID with a present entry', () => {
  it('is found in any table of the directory', () => {
    const { vm, directory, view } = scalable({ paside: true, pdts: 1 });
    for (const pasid of [3, 4, 63, 130, 0x3fff]) vm.pasidEntry(directory, pasid, ...PASS_THROUGH);
    vm.pasidEntry(directory, 5, 2n, 0n);
    const found: number[] = [];
    for (let from = 0; found.at(-1) !== -1 && found.length < 9; from = (found.at(-1) ?? 0) + 1) {
      found.push(view.nextPasid(RID, from, 1e6));
    }
    expect(found).toEqual([3, 4, 63, 130, 0x3fff, -1]);
  });

  it('is looked for in pieces, which go on where the last one ended', () => {
    const { vm, directory, view } = scalable();
    // 40 tables that are not present.
    expect(view.nextPasid(RID, 64, 40)).toBe(-2 - 64 * 41);
    vm.pasidEntry(directory, 50, ...PASS_THROUGH);
    vm.pasidEntry(directory, 64 * 100 + 1, ...PASS_THROUGH);
    let [from, pieces] = [0, 0];
    const found: number[] = [];
    while (pieces++ < 100) {
      const next = view.nextPasid(RID, from, 40);
      if (next === -1) break;
      if (next >= 0) found.push(next);
      const last = from;
      from = next >= 0 ? next + 1 : -2 - next;
      expect(from).toBeGreaterThan(last);
      expect(from - last).toBeLessThanOrEqual(41 * 64);
    }
    expect(found).toEqual([50, 64 * 100 + 1]);
    expect(pieces).toBeGreaterThan(3);
  });

  it('is none where a requester may use none', () => {
    const { vm, directory, view } = scalable({ paside: false });
    vm.pasidEntry(directory, 3, ...PASS_THROUGH);
    expect([view.nextPasid(RID, 0, 99), view.nextPasid(RID + 1, 0, 99)]).toEqual([-1, -1]);
    const legacy = new TestMachine();
    expect(legacy.model.nested?.nextPasid(RID, 0, 99)).toBe(-1);
  });
});

describe('what such hardware reports', () => {
  const record = (fields: Parameters<typeof pack<keyof typeof FRCD_REG.fields>>[1]) =>
    pack({ ...FRCD_REG, bytes: 16 }, fields) as Uint32Array;

  it('becomes a fault of the guest, under the guest’s numbers', () => {
    const { vm, view } = scalable();
    view.fault({ rid: RID, pasid: 4, record: record({ FI: 0x7000, FR: FAULT.SFS_2, SID: 0x999, T1: 1 }) });
    view.fault({ rid: RID, pasid: NO_PASID, record: record({ FR: FAULT.SFS_2 }) });
    view.fault({ rid: RID, pasid: 4, record: record({ FR: FAULT.SFS_2, T1: 1, T2: 1, EXE: 1, PRIV: 1 }) });
    const [one, two, three] = vm.faults();
    expect(one).toMatchObject({ reason: FAULT.SFS_2, sid: RID, address: 0x7000, T1: 1, T2: 0, PP: 1, PV: 4 });
    expect(two).toMatchObject({ sid: RID, T1: 0, T2: 0, PP: 0, PV: 0 });
    expect(three).toMatchObject({ T1: 1, T2: 1 });
    expect(
      vm.events.flatMap((event) => (event.kind === 'fault' ? [[event.access, event.recorded]] : [])),
    ).toEqual([
      [1, true],
      [2, true],
      [15, true],
    ]);
  });

  it('is not recorded where the guest’s structures say FPD', () => {
    const { vm, directory, view } = scalable();
    vm.pasidEntry(directory, 4, 3n | (4n << 6n), 3n);
    view.fault({ rid: RID, pasid: 4, record: record({ FR: FAULT.SFS_2, T1: 1 }) });
    expect(vm.faults()).toEqual([]);
    expect(vm.model.counters.faults).toBe(1);
  });

  it('may be a PASID that the requester does not have', () => {
    const { vm, view } = scalable();
    view.noSuchPasid(RID, 0x77, 2, 0x5000, 1);
    expect(vm.faults()).toMatchObject([
      { reason: FAULT.SPT_2, sid: RID, PV: 0x77, address: 0x1_0000_5000, T1: 0 },
    ]);
  });
});
