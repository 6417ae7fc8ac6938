/** How many PASIDs of a VT-d guest are bound at a time. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { ENTRY, type NestedView, type PasidEntryView, STREAM } from '../device/nested-view.js';
import type { HostDone, HostIommu, NestedTable } from '../host/port.js';
import { Bindings } from './binding.js';
import { ForwardQueue } from './forward-queue.js';
import { HostOperations, type NestingEvent } from './host-operations.js';
import { NestedDevice } from './nested-device.js';
import { VtdNesting } from './vtd.js';

const DEVICE = 3;
const RID = 0x18;
const MOST = 2 ** 16;
const DONE = { code: 'OK', text: '', done: 0, value: 0 } as const;

/** PASIDs whose entries are present, and those that the host has bound. */
let present: Set<number>;
let bound: Set<number>;
let events: NestingEvent[];
let nesting: VtdNesting;
let device: NestedDevice;

const view = {
  format: 'vtd',
  stream: () => STREAM.TABLES,
  entry: (_rid: number, pasid: number, out: PasidEntryView) => {
    out.kind = present.has(pasid) ? ENTRY.FIRST_STAGE : ENTRY.NONE;
    Object.assign(out, { did: 1, tag: pasid, root: 0x1000 * pasid, levels: 4 });
  },
} as unknown as NestedView;

beforeEach(() => {
  present = new Set();
  bound = new Set();
  events = [];
  const host = {
    attachNested: (_device: number, pasid: number, _parent: number, _table: NestedTable, done: HostDone) => {
      bound.add(pasid);
      done(DONE);
    },
    detach: (_device: number, pasid: number, done: HostDone) => {
      bound.delete(pasid);
      done(DONE);
    },
  } as unknown as HostIommu;
  const operations = new HostOperations(
    () => {},
    () => {},
  );
  const bindings = new Bindings(host, operations, () => {});
  nesting = new VtdNesting(bindings, new ForwardQueue(), (event) => events.push(event));
  device = new NestedDevice(DEVICE, RID);
});

/** The guest has changed an entry, and says so. */
function change(pasid: number, there: boolean): void {
  if (there) present.add(pasid);
  else present.delete(pasid);
  const scope = { space: 1, sub: pasid, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64, structures: true };
  nesting.changed(device, scope, view);
}

describe('PASIDs', () => {
  it('that have gone make room: a guest may use more than are bound at a time', () => {
    for (let pasid = 1; pasid <= MOST; pasid++) {
      change(pasid, true);
      change(pasid, false);
    }
    change(MOST + 1, true);
    expect([[...bound], events]).toEqual([[MOST + 1], []]);
  });

  it('beyond those that are bound at a time are refused, which is said once, until one goes', () => {
    for (let pasid = 1; pasid <= MOST + 2; pasid++) change(pasid, true);
    expect(bound.size).toBe(MOST);
    expect(events).toEqual([
      { kind: 'notNestable', device: DEVICE, rid: RID, pasid: MOST + 1, reason: 'more than 65536 PASIDs' },
    ]);
    change(7, false);
    change(MOST + 2, true);
    expect([bound.has(7), bound.has(MOST + 1), bound.has(MOST + 2)]).toEqual([false, false, true]);
  });
});
