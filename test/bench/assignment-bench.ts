/**
 * What forwarding and PASIDs cost on a simulated vt-d3 host, called directly: invalidations in one
 * batch beside one at a time, and allocating, binding and freeing a PASID beside few and beside
 * many live ones.
 */
import { ANY } from '../../src/base/ids.js';
import { ENTRY, type NestedView, STREAM } from '../../src/device/nested-view.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { Nesting } from '../../src/nesting/nesting.js';

const RAM = 2 ** 24;
const RID = 0x0108;
const GUEST_RID = 0x18;
const DID = 3;
const PAGE = 4096;

interface AssignmentBench {
  /**
   * Nanoseconds for each of `pages` invalidations: in one batch, and one at a time; of neighbours,
   * and of pages that are none.
   */
  readonly batchedNs: number;
  readonly scatteredNs: number;
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

export function benchAssignment(rounds = 10, pages = 10_000, live = 100_000): AssignmentBench {
  return { ...benchForwarding(rounds, pages), ...benchPasids(rounds, live), pages, live };
}

function benchForwarding(
  rounds: number,
  pages: number,
): Pick<AssignmentBench, 'batchedNs' | 'scatteredNs' | 'singleNs'> {
  const { host, nesting } = setUp(false);
  const scope = { space: DID, sub: 0, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 12 };
  const all = (distance: number, each: () => void) => (): void => {
    for (let page = 0; page < pages; page++) {
      scope.lo = page * distance;
      nesting.invalidated(scope);
      each();
    }
    nesting.work();
    host.run();
    if (nesting.pending > 0) throw new Error('the host has not done all');
  };
  const single = all(PAGE, () => {
    nesting.work();
    host.run();
  });
  const batched = all(PAGE, () => {});
  const scattered = all(2 * PAGE, () => {});
  let singleNs = Number.POSITIVE_INFINITY;
  let batchedNs = Number.POSITIVE_INFINITY;
  let scatteredNs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    batchedNs = Math.min(batchedNs, nanoseconds(pages, batched));
    scatteredNs = Math.min(scatteredNs, nanoseconds(pages, scattered));
    singleNs = Math.min(singleNs, nanoseconds(pages, single));
  }
  return { batchedNs, scatteredNs, singleNs };
}

/** Two hosts, one with a single PASID in use and one with `live` of them, in turns. */
function benchPasids(rounds: number, live: number): Pick<AssignmentBench, 'fewNs' | 'manyNs'> {
  const few = cycles(1);
  const many = cycles(live);
  let fewNs = Number.POSITIVE_INFINITY;
  let manyNs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds * SLICES; round++) {
    fewNs = Math.min(fewNs, nanoseconds(CYCLES, few));
    manyNs = Math.min(manyNs, nanoseconds(CYCLES, many));
  }
  return { fewNs, manyNs };
}

/** Short, so that some are not interrupted: the lowest counts. */
const CYCLES = 50;
const SLICES = 20;

const TABLE = {
  format: 'vtd',
  root: 0x1000,
  levels: 4,
  writeProtect: false,
  extendedAccessed: false,
  supervisor: false,
} as const;

/** Allocates, binds and frees {@link CYCLES} PASIDs, one at a time, beside `live` that stay. */
function cycles(live: number): () => void {
  const { host, guest, device } = setUp(true);
  const bound = (): number => {
    let pasid = -1;
    guest.allocatePasid(device.number, ({ value }) => {
      pasid = value;
    });
    host.run();
    guest.attachNested(device.number, pasid, 0, TABLE, ({ code }) => {
      if (code !== 'OK') throw new Error(code);
    });
    host.run();
    return pasid;
  };
  for (let count = 0; count < live; count++) bound();
  return () => {
    for (let count = 0; count < CYCLES; count++) {
      guest.freePasid(device.number, bound(), () => {});
      host.run();
    }
  };
}
