import { expect, it } from 'vitest';
import type { DmaDevice } from '../../src/sim/dma-device.js';
import type { Machine } from '../../src/sim/machine.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { DATA, device, expectReaches, MIB, type Options } from '../support/rig.js';
import { expectEvent, SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;
const OTHER = DATA + MIB;

interface Bench {
  readonly machine: Machine;
  readonly driver: SmmuDriver;
  readonly domain: SmmuDomain;
  readonly dma: DmaDevice;
  /** What the page at IOVA leads to. */
  readonly leadsTo: (gpa: number) => void;
}

type Kind = 'first' | 'second';

onBothTransports(
  'SMMUv3 invalidation',
  (rig) => {
    /** One page, used, whose descriptor then changed under the unit's feet. */
    function changed(kind: Kind, options: Options = {}, global = false): Bench {
      const { machine } = rig(options);
      const driver = startSmmu(machine);
      const domain = driver.createDomain(kind, { global });
      driver.attach(SID, domain);
      driver.map(domain, IOVA, DATA, 4096);
      const dma = device(machine, SID);
      const leadsTo = (gpa: number): void => expectReaches(machine, dma, IOVA, gpa);
      leadsTo(DATA);
      driver.map(domain, IOVA, OTHER, 4096);
      leadsTo(DATA);
      return { machine, driver, domain, dma, leadsTo };
    }

    it.each([14, 16])('one address stands for a whole page of 2^%i bytes', (granule) => {
      const { machine } = rig({ 'range-invalidation': 'off' });
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first', { granule });
      const [near, far] = [SID, SID + 1].map((sid) => {
        driver.attach(sid, domain);
        return device(machine, sid);
      });
      const part = 0x3000;
      driver.map(domain, IOVA, DATA, 2 ** granule);
      // The second gets what the unit kept for the first.
      for (const dma of [near, far]) expectReaches(machine, dma, IOVA + BigInt(part), DATA + part);
      driver.map(domain, IOVA, OTHER, 2 ** granule);
      driver.commands.addresses(domain.vmid, domain.asid, IOVA, granule, 1);
      driver.commands.sync();
      for (const dma of [far, near]) expectReaches(machine, dma, IOVA + BigInt(part), OTHER + part);
    });

    const DROPS: readonly (readonly [string, Kind, (bench: Bench) => void])[] = [
      ['CMD_TLBI_NSNH_ALL', 'first', ({ driver }) => driver.commands.translationsAll()],
      ['CMD_TLBI_NSNH_ALL', 'second', ({ driver }) => driver.commands.translationsAll()],
      ['CMD_TLBI_NH_ALL', 'first', ({ driver, domain }) => driver.commands.firstStage(domain.vmid)],
      ['CMD_TLBI_NH_ASID', 'first', ({ driver, domain: d }) => driver.commands.asid(d.vmid, d.asid)],
      [
        'CMD_TLBI_NH_VA',
        'first',
        ({ driver, domain: d }) => driver.commands.addresses(d.vmid, d.asid, IOVA, 12, 1),
      ],
      [
        'CMD_TLBI_NH_VA of a range',
        'first',
        ({ driver, domain: d }) => driver.commands.addresses(d.vmid, d.asid, IOVA - 0x10_0000n, 12, 777),
      ],
      [
        'CMD_TLBI_NH_VAA',
        'first',
        ({ driver, domain }) => driver.commands.allAddresses(domain.vmid, IOVA, 12, 1),
      ],
      [
        'CMD_TLBI_S2_IPA',
        'second',
        ({ driver, domain }) => driver.commands.intermediateAddresses(domain.vmid, IOVA, 12, 1),
      ],
      ['CMD_TLBI_S12_VMALL', 'second', ({ driver, domain }) => driver.commands.vmid(domain.vmid)],
    ];
    for (const [name, kind, invalidate] of DROPS) {
      it(`${name} drops a translation of the ${kind} stage`, () => {
        const bench = changed(kind);
        invalidate(bench);
        bench.driver.commands.sync();
        bench.leadsTo(OTHER);
      });
    }

    const KEEPS: readonly (readonly [string, Kind, (bench: Bench) => void])[] = [
      ['CMD_TLBI_NH_ALL', 'second', ({ driver, domain }) => driver.commands.firstStage(domain.vmid)],
      [
        'CMD_TLBI_NH_ASID of another',
        'first',
        ({ driver, domain: d }) => driver.commands.asid(d.vmid, d.asid + 1),
      ],
      [
        'CMD_TLBI_NH_ALL of another VMID',
        'first',
        ({ driver, domain: d }) => driver.commands.firstStage(d.vmid + 1),
      ],
      [
        'CMD_TLBI_NH_VA of the next page',
        'first',
        ({ driver, domain: d }) => driver.commands.addresses(d.vmid, d.asid, IOVA + 4096n, 12, 1),
      ],
      [
        'CMD_TLBI_S2_IPA',
        'first',
        ({ driver, domain }) => driver.commands.intermediateAddresses(domain.vmid, IOVA, 12, 1),
      ],
      ['CMD_CFGI_STE', 'first', ({ driver }) => driver.commands.stream(SID)],
      ['CMD_CFGI_CD_ALL', 'first', ({ driver }) => driver.commands.contexts(SID)],
      ['CMD_SYNC alone', 'first', () => {}],
    ];
    for (const [name, kind, invalidate] of KEEPS) {
      it(`${name} keeps a translation of the ${kind} stage`, () => {
        const bench = changed(kind);
        invalidate(bench);
        bench.driver.commands.sync();
        bench.leadsTo(DATA);
      });
    }

    it('without ranges pages are named one by one', () => {
      const bench = changed('first', { 'range-invalidation': 'off' });
      const { driver, domain } = bench;
      driver.commands.addresses(domain.vmid, domain.asid, IOVA - 0x4000n, 12, 5);
      driver.commands.sync();
      bench.leadsTo(OTHER);
      expect(driver.queue.submitted).toBeGreaterThan(5);
    });

    it('leaves of every ASID are found by address under any of them, by ASID not', () => {
      const bench = changed('first', {}, true);
      const { driver, domain } = bench;
      driver.commands.asid(domain.vmid, domain.asid);
      driver.commands.sync();
      bench.leadsTo(DATA);
      driver.commands.addresses(domain.vmid, domain.asid + 7, IOVA, 12, 1);
      driver.commands.sync();
      bench.leadsTo(OTHER);
    });

    it('any address in a block drops it', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first');
      driver.attach(SID, domain);
      driver.map(domain, IOVA, DATA, 2 * MIB, undefined, 21);
      const dma = device(machine, SID);
      expectReaches(machine, dma, IOVA + 0x1f_f000n, DATA + 0x1f_f000);
      driver.map(domain, IOVA, DATA + 2 * MIB, 2 * MIB, undefined, 21);
      driver.commands.addresses(domain.vmid, domain.asid, IOVA + 0x3000n, 12, 1);
      driver.commands.sync();
      expectReaches(machine, dma, IOVA + 0x1f_f000n, DATA + 0x3f_f000);
    });

    it('what both stages made is not found by intermediate address', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const parent = driver.createDomain('second', { inputBits: 40 });
      driver.map(parent, 0n, 0, 16 * MIB);
      const IPA = 2n ** 33n;
      driver.map(parent, IPA, DATA, 4096);
      const domain = driver.createNested(parent);
      driver.attach(SID, domain);
      driver.map(domain, IOVA, Number(IPA), 4096);
      const dma = device(machine, SID);
      expectReaches(machine, dma, IOVA, DATA);
      driver.map(parent, IPA, OTHER, 4096);
      driver.commands.intermediateAddresses(parent.vmid, IPA, 12, 1);
      driver.commands.sync();
      // The machine's own cache was told, the unit's TLB keeps it: both are allowed.
      expectReaches(machine, dma, IOVA, DATA);
      driver.commands.firstStage(parent.vmid);
      driver.commands.sync();
      expectReaches(machine, dma, IOVA, OTHER);
    });

    it('a stream keeps its configuration until it is invalidated', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first');
      driver.attach(SID, domain);
      driver.map(domain, IOVA, DATA, 4096);
      const dma = device(machine, SID);
      expectReaches(machine, dma, IOVA, DATA);
      driver.streams.set(SID, { V: 0 });
      expectReaches(machine, dma, IOVA, DATA);
      driver.commands.stream(SID + 1);
      driver.commands.sync();
      expectReaches(machine, dma, IOVA, DATA);
      driver.commands.stream(SID);
      driver.commands.sync();
      expectEvent(driver, 'write', -1, IOVA, 'C_BAD_STE');
    });

    it('with no cache nothing has to be invalidated', () => {
      const { machine } = rig({ 'cache-policy': 'none' });
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first');
      driver.attach(SID, domain);
      driver.map(domain, IOVA, DATA, 4096);
      const dma = device(machine, SID);
      expectReaches(machine, dma, IOVA, DATA);
      driver.map(domain, IOVA, OTHER, 4096);
      expectReaches(machine, dma, IOVA, OTHER);
      driver.streams.set(SID, { V: 0 });
      expectEvent(driver, 'write', -1, IOVA, 'C_BAD_STE');
    });
  },
  'smmuv3',
);
