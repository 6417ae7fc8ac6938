import { describe, expect, it } from 'vitest';
import { ENABLES, SID, TestSmmu } from '../../../test/support/smmu-unit.js';
import { NO_PASID } from '../../base/ids.js';
import { pack } from '../../spec/define.js';
import { EVENT, F_TRANSLATION } from '../../spec/smmuv3/events.js';
import { CR0, GBPA } from '../../spec/smmuv3/registers.js';
import { STE, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { ENTRY, type NestedView, newPasidEntryView, newStreamEntryView, STREAM } from '../nested-view.js';

const UPDATE_ABORT = 0x8010_0000;
const nested = (vm: TestSmmu): NestedView => vm.model.nested as NestedView;
const faults = (vm: TestSmmu) => vm.events.filter(({ kind }) => kind === 'fault');

describe('what hardware that nests has to know', () => {
  it('is whether structures decide at all', () => {
    const vm = new TestSmmu();
    expect(nested(vm).stream(SID)).toBe(STREAM.IDENTITY);
    vm.write32(GBPA.offset, UPDATE_ABORT);
    expect(nested(vm).stream(SID)).toBe(STREAM.BLOCKED);
    vm.start();
    expect(nested(vm).stream(SID)).toBe(STREAM.TABLES);
  });

  it.each([
    ['', 7],
    ['1', 0],
  ])('is the first half of the STE, with the VMID where there is a stage 2 (stages %s)', (stages, vmid) => {
    const vm = new TestSmmu(stages === '' ? {} : { stages }).start();
    const fields = { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: 0x9000, S1CDMax: 4, S2VMID: 7 };
    vm.ste(SID, fields);
    const out = newStreamEntryView();
    expect(nested(vm).ste(SID, out)).toBe(true);
    expect([...out.words]).toEqual([...pack(STE, fields)].slice(0, 4));
    expect(out.vmid).toBe(vmid);
    // Read afresh.
    vm.ste(SID, { V: 0 });
    expect(nested(vm).ste(SID, out)).toBe(false);
    expect(vm.recorded()).toEqual([]);
  });

  it('is of no PASID: the CD table is handed over as it is', () => {
    const vm = new TestSmmu().start();
    vm.stage1(SID, {}, { S1CDMax: 4 });
    expect(nested(vm).nextPasid(SID, 0, 99)).toBe(-1);
    const out = newPasidEntryView();
    nested(vm).entry(SID, 3, out);
    expect(out.kind).toBe(ENTRY.NONE);
  });
});

describe('what such hardware reports', () => {
  it('is recorded as it came, under the guest’s StreamID', () => {
    const vm = new TestSmmu().start();
    const fields = { EventNumber: EVENT.F_TRANSLATION, SSV: 1, SubstreamID: 3, RnW: 1, CLASS: 2 };
    const record = pack(F_TRANSLATION, { ...fields, StreamID: 0x999 }) as Uint32Array;
    record[4] = 0x7000;
    record[5] = 0x12;
    nested(vm).fault({ rid: SID, pasid: 3, record });
    const { EventNumber: _, ...recorded } = fields;
    expect(vm.recorded()).toEqual([
      { name: 'F_TRANSLATION', ...recorded, StreamID: SID, InputAddr: 0x12_0000_7000n },
    ]);
    expect(record[1]).toBe(0x999);
    const event = {
      kind: 'fault',
      rid: SID,
      reason: EVENT.F_TRANSLATION,
      name: 'F_TRANSLATION',
      recorded: true,
    };
    expect(faults(vm)).toEqual([{ ...event, pasid: 3, lo: 0x7000, hi: 0x12, access: 1 }]);
    const write = pack(F_TRANSLATION, { EventNumber: EVENT.F_TRANSLATION, SubstreamID: 3 }) as Uint32Array;
    nested(vm).fault({ rid: SID, pasid: NO_PASID, record: write });
    expect(vm.events.at(-1)).toMatchObject({ pasid: NO_PASID, access: 2 });
    expect(vm.model.counters.faults).toBe(2);
  });

  it('is told and not recorded while the Event queue is off', () => {
    const vm = new TestSmmu().start(ENABLES.ALL & ~ENABLES.EVENTQEN);
    const record = pack(F_TRANSLATION, { EventNumber: EVENT.F_TRANSLATION }) as Uint32Array;
    nested(vm).fault({ rid: SID, pasid: NO_PASID, record });
    expect(faults(vm)).toMatchObject([{ recorded: false }]);
    vm.write32(CR0.offset, ENABLES.ALL);
    expect(vm.recorded()).toEqual([]);
  });

  it('may be a SubstreamID that the stream does not have', () => {
    const vm = new TestSmmu().start();
    nested(vm).noSuchPasid(SID, 0x77, 1, 0, 0);
    // Recorded without SSV, as the event is of the stream.
    expect(vm.recorded()).toEqual([{ name: 'C_BAD_SUBSTREAMID', StreamID: SID, SubstreamID: 0x77 }]);
  });
});
