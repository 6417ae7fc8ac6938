import { describe, expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS } from '../../src/device/iommu.js';
import type { Machine } from '../../src/sim/machine.js';
import { SimVm } from '../../src/sim/vm.js';
import type { VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import type { VtdInvalidations } from '../../src/sim/vtd-invalidate.js';
import { DATA, device, expectFault, expectReaches, RAM_BYTES, RID, startDriver } from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;
const OTHER_RID = RID + 8;

interface Scene {
  readonly machine: Machine;
  readonly driver: VtdDriver;
  readonly domain: VtdDomain;
  /** Of another domain, at the same address. */
  readonly other: VtdDomain;
  readonly pasid: number;
}

/**
 * Where requests to `address` land now; undefined when they are refused. Records are thrown away.
 */
function lands(scene: Scene, rid: number, address: bigint): number | undefined {
  const found = scene.machine.translate(rid, scene.pasid, ACCESS.READ, address);
  scene.driver.faults.drain();
  return found?.gpa;
}

/**
 * Two domains with sixteen pages each, every page used once, then both tables emptied without a
 * word.
 */
function forgotten(
  machine: Machine,
  mode: 'legacy' | 'scalable',
  kind: 'first' | 'second' | 'nested',
  pasid = NO_PASID,
): Scene {
  const driver = startDriver(machine, mode);
  const make = (): VtdDomain => {
    if (kind !== 'nested') return driver.createDomain(kind);
    const parent = driver.createDomain('second');
    parent.table?.map(0n, 0, RAM_BYTES, undefined, 21);
    return driver.createNested(parent);
  };
  const [domain, other] = [make(), make()];
  const options = pasid === NO_PASID ? {} : { pasid };
  driver.attach(RID, domain, options);
  driver.attach(OTHER_RID, other, options);
  const scene = { machine, driver, domain, other, pasid };
  const pages = [
    [RID, domain, DATA],
    [OTHER_RID, other, DATA + 2 ** 20],
  ] as const;
  for (const [rid, one, base] of pages) {
    // Not contiguous: no larger span may be made of them.
    for (let page = 0; page < 16; page++)
      one.table?.map(IOVA + BigInt(page) * 4096n, base + page * 8192, 4096);
    for (let page = 0; page < 16; page++)
      expect(lands(scene, rid, IOVA + BigInt(page) * 4096n)).toBe(base + page * 8192);
    one.table?.unmap(IOVA, 16 * 4096);
  }
  return scene;
}

/** Pages of the requester that are still translated. */
function alive(scene: Scene, rid: number): number[] {
  const pages: number[] = [];
  for (let page = 0; page < 16; page++) {
    if (lands(scene, rid, IOVA + BigInt(page) * 4096n) !== undefined) pages.push(page);
  }
  return pages;
}

const ALL = Array.from({ length: 16 }, (_, page) => page);
const range = (from: number, to: number): number[] => ALL.filter((page) => page < from || page >= to);

interface Granularity {
  readonly name: string;
  readonly ask: (invalidate: VtdInvalidations, scene: Scene) => void;
  /** Pages of the domain's requester that must be left, and of the other's. */
  readonly left: readonly number[];
  readonly otherLeft: readonly number[];
}

const SECOND: readonly Granularity[] = [
  { name: 'global', ask: (i) => i.iotlbGlobal(), left: [], otherLeft: [] },
  { name: 'domain', ask: (i, s) => i.iotlbDomain(s.domain.did), left: [], otherLeft: ALL },
  {
    name: 'one page',
    ask: (i, s) => i.iotlbPage(s.domain.did, IOVA + 0x3000n, 0),
    left: range(3, 4),
    otherLeft: ALL,
  },
  {
    name: 'four pages',
    ask: (i, s) => i.iotlbPage(s.domain.did, IOVA + 0x4000n, 2),
    left: range(4, 8),
    otherLeft: ALL,
  },
  {
    name: 'one page with the leaf hint',
    ask: (i, s) => i.iotlbPage(s.domain.did, IOVA, 0, true),
    left: range(0, 1),
    otherLeft: ALL,
  },
  {
    name: 'another page',
    ask: (i, s) => i.iotlbPage(s.domain.did, IOVA + 0x10_0000n, 4),
    left: ALL,
    otherLeft: ALL,
  },
  { name: 'another domain', ask: (i) => i.iotlbDomain(0x1234), left: ALL, otherLeft: ALL },
];

function first(pasid: number): readonly Granularity[] {
  return [
    { name: 'global', ask: (i) => i.iotlbGlobal(), left: [], otherLeft: [] },
    { name: 'domain', ask: (i, s) => i.iotlbDomain(s.domain.did), left: [], otherLeft: ALL },
    { name: 'PASID', ask: (i, s) => i.pasidIotlb(s.domain.did, pasid), left: [], otherLeft: ALL },
    {
      name: 'another PASID',
      ask: (i, s) => i.pasidIotlb(s.domain.did, pasid + 1),
      left: ALL,
      otherLeft: ALL,
    },
    {
      name: 'two pages of the PASID',
      ask: (i, s) => i.pasidIotlbPage(s.domain.did, pasid, IOVA + 0x2000n, 1),
      left: range(2, 4),
      otherLeft: ALL,
    },
    {
      name: 'a page of another PASID',
      ask: (i, s) => i.pasidIotlbPage(s.domain.did, pasid + 1, IOVA, 4),
      left: ALL,
      otherLeft: ALL,
    },
  ];
}

onBothTransports('VT-d invalidation', (rig) => {
  const groups = [
    ['legacy', 'second', NO_PASID, SECOND],
    ['scalable', 'second', NO_PASID, SECOND],
    ['scalable', 'second', 3, SECOND],
    ['scalable', 'first', NO_PASID, first(0)],
    ['scalable', 'first', 3, first(3)],
    ['scalable', 'nested', 3, first(3)],
  ] as const;
  for (const [mode, kind, pasid, granularities] of groups) {
    describe(`${mode}, ${kind} stage, ${pasid < 0 ? 'no PASID' : `PASID ${pasid}`}`, () => {
      it('a forgotten invalidation leaves the old translations in use', () => {
        const scene = forgotten(rig().machine, mode, kind, pasid);
        expect(alive(scene, RID)).toEqual(ALL);
        expect(alive(scene, OTHER_RID)).toEqual(ALL);
      });

      it('with caches switched off nothing old is in use', () => {
        const { machine } = rig({ 'cache-policy': 'none' });
        const scene = forgotten(machine, mode, kind, pasid);
        expect(alive(scene, RID)).toEqual([]);
        expect(alive(scene, OTHER_RID)).toEqual([]);
      });

      for (const one of granularities) {
        it(`${one.name}`, () => {
          const { machine } = rig();
          const scene = forgotten(machine, mode, kind, pasid);
          one.ask(scene.driver.invalidate, scene);
          scene.driver.invalidate.sync();
          // What a page-selective invalidation must leave alone it may drop as well; nothing may
          // survive it.
          const left = alive(scene, RID);
          expect(left.filter((page) => !one.left.includes(page))).toEqual([]);
          // A peer that completes by itself is not told which stage a domain has, and drops all of
          // it.
          const whole = mode === 'scalable' && kind === 'second' && machine instanceof SimVm;
          if (!whole) expect(left).toEqual([...one.left]);
          expect(alive(scene, OTHER_RID)).toEqual([...one.otherLeft]);
        });
      }
    });
  }

  it('legacy: a changed context-entry is seen after its invalidation and not before', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const [one, two] = [driver.createDomain('second'), driver.createDomain('second')];
    driver.map(one, IOVA, DATA, 4096);
    driver.map(two, IOVA, DATA + 4096, 4096);
    driver.attach(RID, one);
    expectReaches(machine, device(machine), IOVA, DATA);
    driver.attach(RID, two);
    expectReaches(machine, device(machine), IOVA, DATA);
    driver.invalidate.contextDevice(one.did, RID);
    driver.invalidate.iotlbDomain(one.did);
    driver.invalidate.sync();
    expectReaches(machine, device(machine), IOVA, DATA + 4096);
  });

  it('legacy: context-cache invalidation by domain and with a function mask', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const domain = driver.createDomain('second');
    driver.map(domain, IOVA, DATA, 4096);
    const functions = [RID, RID + 4, RID + 2];
    for (const rid of functions) {
      driver.attach(rid, domain);
      expectReaches(machine, device(machine, rid), IOVA, DATA);
      driver.legacy?.setContext(rid, {});
    }
    // FM = 1 ignores the highest function bit: functions 0 and 4, not 2. §6.5.2.1
    driver.invalidate.contextDevice(domain.did, RID, 1);
    driver.invalidate.iotlbDomain(domain.did);
    driver.invalidate.sync();
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LCT_2');
    expectFault(driver, 'read', RID + 4, NO_PASID, IOVA, 'LCT_2');
    expectReaches(machine, device(machine, RID + 2), IOVA, DATA);
    driver.invalidate.contextDomain(domain.did);
    driver.invalidate.iotlbDomain(domain.did);
    driver.invalidate.sync();
    expectFault(driver, 'read', RID + 2, NO_PASID, IOVA, 'LCT_2');
  });

  it('scalable: PASID-cache invalidation by PASID, domain and globally', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const ways: ((i: VtdInvalidations, did: number, pasid: number) => void)[] = [
      (i, did, pasid) => i.pasidCache(did, pasid),
      (i, did) => i.pasidCacheDomain(did),
      (i) => i.pasidCacheGlobal(),
    ];
    ways.forEach((way, index) => {
      const pasid = 16 + index;
      const domain = driver.createDomain('first');
      driver.attach(RID, domain, { pasid });
      driver.map(domain, IOVA, DATA, 4096);
      expectReaches(machine, device(machine, RID, pasid), IOVA, DATA);
      driver.scalable?.setPasid(RID, pasid, {});
      driver.invalidate.pasidIotlb(domain.did, pasid);
      driver.invalidate.sync();
      // The PASID-cache still has the entry.
      expectReaches(machine, device(machine, RID, pasid), IOVA, DATA);
      way(driver.invalidate, domain.did, pasid);
      driver.invalidate.pasidIotlb(domain.did, pasid);
      driver.invalidate.sync();
      expectFault(driver, 'read', RID, pasid, IOVA, 'SPT_2');
    });
  });

  it('a large page is gone after the invalidation of any page in it', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 2 ** 21, undefined, 21);
    expectReaches(machine, device(machine), IOVA, DATA);
    domain.table?.unmap(IOVA, 2 ** 21, 21);
    driver.invalidate.iotlbPage(domain.did, IOVA + 0x12_3000n, 0);
    driver.invalidate.sync();
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LGN_3');
  });

  it('an unmapped large page can be replaced by a table of small ones', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const domain = driver.createDomain('first');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 2 ** 21, undefined, 21);
    expectReaches(machine, device(machine), IOVA + 0x5000n, DATA + 0x5000);
    driver.unmap(domain, IOVA, 2 ** 21, 21);
    driver.map(domain, IOVA + 0x5000n, DATA, 4096);
    expectReaches(machine, device(machine), IOVA + 0x5000n, DATA);
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'SFS_2');
  });

  it('caching mode is advertised and needs new mappings announced', () => {
    const { machine } = rig({ 'caching-mode': 'on' });
    const driver = startDriver(machine, 'legacy');
    expect(driver.capabilities.cachingMode).toBe(true);
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LGN_3');
    domain.table?.map(IOVA, DATA, 4096);
    // Not announced: the unit may go on refusing, and this one does.
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LGN_3');
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
    driver.unmap(domain, IOVA, 4096);
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LGN_3');
  });

  it('without caching mode new mappings need no announcement', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'SSS_2');
    domain.table?.map(IOVA, DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
  });

  it('a new root table is in use after Set Root Table Pointer and its invalidations', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
    machine.writeRegister(0x20, 8, BigInt(driver.pages.take()));
    expectReaches(machine, device(machine), IOVA, DATA);
    driver.registers.command('SRTP', 'RTPS');
    driver.invalidate.contextGlobal();
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LRT_2');
  });
});
