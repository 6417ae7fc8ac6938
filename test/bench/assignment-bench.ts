/**
 * What forwarding and PASIDs cost on a simulated vt-d3 host, called directly: invalidations in one batch beside one at a
 * time, and allocating, binding and freeing a PASID beside few and beside many live ones.
 */
import { ANY } from '../../src/device/iommu.js';
import { ENTRY, type NestedView, STREAM } from '../../src/device/nested-view.js';
import { SimHost } from '../../src/host/sim/host.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { Nesting } from '../../src/nesting/nesting.js';

const RAM = 2 ** 24;
const RID = 0x0108;
const GUEST_RID = 0x18;
const DID = 3;

export interface AssignmentBench {
  /** Nanoseconds for each of `pages` invalidations. */
  readonly batchedNs: number;
  readonly singleNs: number;
  readonly pages: number;
  /** Nanoseconds to allocate, bind and free a PASID. */
  readonly fewNs: number;
  readonly manyNs: number;
  readonly live: number;
}

/** A guest with one set of first-stage tables for whatever PASID. */
function setUp(mdev: boolean) {
  const host = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 26 });
  const memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  const guest = host.addGuest({
    name: 'bench',
    memory,
    bytes: RAM,
    container: 'iommufd',
    pasidQuota: 2 ** 20,
  });
  const view: NestedView = {
    format: 'vtd',
    stream: () => STREAM.TABLES,
    ste: () => false,
    entry: (_rid, pasid, out) => {
      Object.assign(out, {
        kind: pasid < 0 ? ENTRY.FIRST_STAGE : ENTRY.NONE,
        did: DID,
        tag: 0,
        root: 0x1000,
      });
    },
    nextPasid: () => -1,
    fault: () => {},
    noSuchPasid: () => {},
  };
  const result = { status: 0, count: 0, spans: new Uint32Array(384), space: 0, sub: 0, stall: 0 };
  const nesting = new Nesting(
    guest,
    () => ({ nested: view, translate: () => {} }),
    result,
    () => {},
    () => {},
  );
  nesting.ramAdded(0, 0, RAM, false);
  if (mdev) host.addParent(RID);
  const device = mdev ? host.addMdev(RID, guest) : host.addVf(RID, guest);
  nesting.attach(device.number, GUEST_RID);
  nesting.work();
  host.run();
  return { host, guest, nesting, device };
}

function nanoseconds(count: number, run: () => void): number {
  const begin = process.hrtime.bigint();
  run();
  return Number(process.hrtime.bigint() - begin) / count;
}

/** Each binding on a vt-d3 host takes a domain-id of 16 bits, so no more than 65,535 can be live there. */
const MOST_LIVE = 60_000;

export function benchAssignment(rounds = 10, pages = 10_000, live = MOST_LIVE): AssignmentBench {
  const { host, nesting } = setUp(false);
  const scope = { space: DID, sub: 0, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 12 };
  const all = (each: () => void) => (): void => {
    for (let page = 0; page < pages; page++) {
      scope.lo = page * 4096;
      nesting.touch(scope);
      each();
    }
    nesting.work();
    host.run();
    if (nesting.pending > 0) throw new Error('the host has not done all');
  };
  const single = all(() => {
    nesting.work();
    host.run();
  });
  const batched = all(() => {});
  let singleNs = Number.POSITIVE_INFINITY;
  let batchedNs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    batchedNs = Math.min(batchedNs, nanoseconds(pages, batched));
    singleNs = Math.min(singleNs, nanoseconds(pages, single));
  }
  const { fewNs, manyNs } = benchPasids(rounds, live);
  return { batchedNs, singleNs, pages, fewNs, manyNs, live };
}

function benchPasids(rounds: number, live: number): { fewNs: number; manyNs: number } {
  const { host, guest, device } = setUp(true);
  const table = {
    format: 'vtd',
    root: 0x1000,
    levels: 4,
    writeProtect: false,
    extendedAccessed: false,
    supervisor: false,
  } as const;
  const bound = (): number => {
    let pasid = -1;
    guest.allocatePasid(device.number, ({ value }) => {
      pasid = value;
    });
    host.run();
    guest.attachNested(device.number, pasid, 0, table, ({ code }) => {
      if (code !== 'OK') throw new Error(code);
    });
    host.run();
    return pasid;
  };
  const cycle = (): void => {
    for (let count = 0; count < 200; count++) {
      guest.freePasid(device.number, bound(), () => {});
      host.run();
    }
  };
  const best = (): number => {
    let lowest = Number.POSITIVE_INFINITY;
    for (let round = 0; round < rounds; round++) lowest = Math.min(lowest, nanoseconds(200, cycle));
    return lowest;
  };
  bound();
  const fewNs = best();
  for (let count = 1; count < live; count++) bound();
  return { fewNs, manyNs: best() };
}
