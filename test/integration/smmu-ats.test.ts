import { expect, it } from 'vitest';
import { ACCESS, DEVICE_TLB, PAGE_RESPONSE } from '../../src/device/iommu.js';
import { AtsDevice } from '../../src/sim/ats-device.js';
import { READ_ONLY } from '../../src/sim/page-table.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { CommandQueueError } from '../../src/sim/smmu-queue.js';
import { PRI_RESP } from '../../src/spec/smmuv3/commands.js';
import { DATA, MIB, RAM_BYTES } from '../support/rig.js';
import { SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;
const OFFSET = 2n ** 36n;
const SSID = 7;

onBothTransports(
  'SMMUv3 ATS',
  (rig) => {
    function attached(ats: 'full' | 'none' = 'full', pri = false) {
      const { machine } = rig({ ats: 'on' });
      const driver = startSmmu(machine);
      const domain = driver.createDomain('first');
      const own = driver.createDomain('first');
      driver.attach(SID, domain, { ssidBits: 8, ...(ats === 'none' ? {} : { ats }) });
      driver.attachSubstream(SID, SSID, own);
      return { machine, driver, domain, own, device: new AtsDevice(machine, SID, { pri }) };
    }

    it('a device keeps translations until it is told to drop them', () => {
      const { machine, driver, domain, own, device } = attached();
      driver.map(domain, IOVA, DATA, 4096);
      driver.map(own, IOVA, DATA + MIB, 4096);
      for (const [ssid, gpa] of [
        [-1, DATA],
        [SSID, DATA + MIB],
      ] as const) {
        expect(device.access(ssid, IOVA + 4n, gpa)).toMatchObject({ outcome: 'done' });
        expect(machine.ram.load32(gpa + 4)).toBe(gpa);
        expect(device.access(ssid, IOVA + 4n)).toEqual({ outcome: 'done', value: gpa });
      }
      expect([device.asked, device.size]).toEqual([2, 2]);
      driver.unmap(domain, IOVA, 4096);
      expect([device.size, device.drops]).toEqual([1, 1]);
      expect(device.access(-1, IOVA).outcome).toBe('denied');
      expect(device.access(SSID, IOVA).outcome).toBe('done');
      expect(driver.events.drain()).toEqual([]);
    });

    it('a device that is not told goes on, as on silicon', () => {
      const { driver, domain, device } = attached();
      driver.map(domain, IOVA, DATA, 4096);
      device.access(-1, IOVA);
      domain.table?.unmap(IOVA, 4096);
      driver.invalidateRange(domain, IOVA, 4096);
      driver.commands.sync();
      expect(device.access(-1, IOVA).outcome).toBe('done');
      // Told too early, before the unit's own TLB: the device may fetch the old translation again.
      driver.commands.device(SID, -1, IOVA, 0);
      driver.commands.sync();
      expect(device.access(-1, IOVA).outcome).toBe('denied');
    });

    it('invalidations name an address, a size, a substream, or everything', () => {
      const { driver, domain, own, device } = attached();
      driver.map(domain, IOVA, DATA, 16 * 4096);
      driver.map(own, IOVA, DATA, 16 * 4096);
      const fill = (): void => {
        for (let n = 0; n < 16; n++) {
          device.access(-1, IOVA + BigInt(n * 4096));
          device.access(SSID, IOVA + BigInt(n * 4096));
        }
      };
      const left = (give: () => void): number => {
        fill();
        give();
        driver.commands.sync();
        return device.size;
      };
      const { commands } = driver;
      expect(left(() => commands.device(SID, -1, IOVA + 0x5000n, 0))).toBe(31);
      expect(left(() => commands.device(SID, SSID, IOVA + 0x5000n, 2))).toBe(28);
      expect(left(() => commands.device(SID, SSID, IOVA + 0x5000n, 2, true))).toBe(24);
      expect(left(() => commands.device(SID, -1, 0n, 52))).toBe(16);
      expect(left(() => commands.device(SID, SSID, 0n, 52, true))).toBe(0);
      expect(left(() => commands.device(SID + 1, -1, 0n, 52))).toBe(32);
    });

    it('rights are those of the tables', () => {
      const { driver, domain, device } = attached();
      driver.map(domain, IOVA, DATA, 4096, READ_ONLY);
      expect(device.access(-1, IOVA, 1).outcome).toBe('denied');
      expect(device.access(-1, IOVA).outcome).toBe('done');
    });

    it('is refused where the stream has no ATS: translation requests and translated accesses', () => {
      const { machine, driver, domain, device } = attached('none');
      driver.map(domain, IOVA, DATA, 4096);
      expect(device.access(-1, IOVA).outcome).toBe('unsupported');
      const answer = machine.request(SID, -1, ACCESS.WRITE, BigInt(DATA), 2, false);
      expect(answer.status).toBe(1);
      expect(driver.events.drain()).toMatchObject([
        { name: 'F_BAD_ATS_TREQ', address: IOVA },
        { name: 'F_TRANSL_FORBIDDEN', address: BigInt(DATA) },
      ]);
    });

    it('is aborted where the configuration is wrong, without an event', () => {
      const { driver, device } = attached();
      expect(device.access(99, IOVA).outcome).toBe('aborted');
      expect(driver.events.drain()).toEqual([]);
    });

    it('split-stage: the device keeps intermediate addresses, which stage 2 still checks', () => {
      const { machine } = rig({ ats: 'on' });
      const driver = startSmmu(machine);
      const parent = driver.createDomain('second', { inputBits: 40 });
      driver.map(parent, OFFSET, 0, RAM_BYTES);
      const domain = driver.createNested(parent, {}, (gpa) => OFFSET + BigInt(gpa));
      driver.attach(SID, domain, { ats: 'split' });
      driver.map(domain, IOVA, Number(OFFSET) + DATA, 4096);
      const device = new AtsDevice(machine, SID);
      expect(device.access(-1, IOVA, 5).outcome).toBe('done');
      expect(device.translation(-1, IOVA, ACCESS.READ)).toMatchObject({ gpa: Number(OFFSET) + DATA });
      const moved = parent.table?.entryAddress(OFFSET + BigInt(DATA)) as number;
      machine.ram.store64(moved, 0n);
      driver.commands.vmid(parent.vmid);
      driver.commands.sync();
      expect(device.access(-1, IOVA, 5).outcome).toBe('forbidden');
      expect(driver.events.drain()).toMatchObject([
        { name: 'F_TRANSLATION', address: OFFSET + BigInt(DATA), fields: { S2: 1 } },
      ]);
    });

    it('a device that does not answer has CMD_SYNC fail; repeating it goes on', () => {
      const { driver, device } = attached();
      device.result = DEVICE_TLB.TIMEOUT;
      driver.commands.device(SID, -1, IOVA, 0);
      let found: unknown;
      try {
        driver.commands.sync();
      } catch (error) {
        found = error;
      }
      expect(found).toBeInstanceOf(CommandQueueError);
      expect((found as CommandQueueError).code).toBe('CERROR_ATC_INV_SYNC');
      driver.queue.recover(false);
      driver.commands.sync();
      expect(driver.queue.error()).toBeUndefined();
    });

    it('a device that is not there, or refuses, does not hold anybody up', () => {
      const { driver, device } = attached();
      device.result = DEVICE_TLB.UNSUPPORTED;
      driver.commands.device(SID, -1, IOVA, 0);
      driver.commands.device(0x55, -1, IOVA, 0);
      driver.commands.sync();
      expect([device.drops, driver.queue.error()]).toEqual([1, undefined]);
    });

    /**
     * What a handler does: maps what is asked for below 1 MiB of IOVA, and answers each group when
     * its last request came.
     */
    function serve(driver: SmmuDriver, domains: ReadonlyMap<number, SmmuDomain>): number {
      let served = 0;
      const failed = new Set<number>();
      for (const request of driver.pageRequests.drain()) {
        const { sid, ssid, address, write, group, last } = request;
        const domain = domains.get(ssid);
        const offset = Number(address - IOVA);
        if (domain === undefined || offset < 0 || offset >= MIB) failed.add(group);
        else if (write || request.read) driver.map(domain, address, DATA + offset, 4096);
        if (!last) continue;
        const response = failed.has(group) ? PRI_RESP.INVALID_REQUEST : PRI_RESP.SUCCESS;
        driver.commands.pageResponse(sid, ssid, group, response);
        served++;
      }
      if (served > 0) driver.commands.sync();
      return served;
    }

    it('page requests: a page that is missing is asked for, mapped, and used', () => {
      const { machine, driver, domain, own, device } = attached('full', true);
      const domains = new Map([
        [-1, domain],
        [SSID, own],
      ]);
      let served = 0;
      device.onWait = () => {
        served += serve(driver, domains);
      };
      expect(device.access(-1, IOVA + 0x3004n, 77).outcome).toBe('done');
      expect(device.access(SSID, IOVA + 0x8000n, 78).outcome).toBe('done');
      expect(machine.ram.load32(DATA + 0x3004)).toBe(77);
      expect(machine.ram.load32(DATA + 0x8000)).toBe(78);
      expect(device.access(SSID, IOVA + BigInt(MIB)).outcome).toBe('not paged in');
      expect([served, device.unanswered]).toEqual([3, 0]);
      expect(driver.events.drain()).toEqual([]);
    });

    it('groups of several pages, interleaved, have one answer each', () => {
      const { driver, domain, own, device } = attached('full', true);
      const pages = (first: number) =>
        [0, 1, 2].map((n) => ({ address: IOVA + BigInt((first + n) * 4096), access: ACCESS.WRITE }));
      const groups = [device.requestPages(-1, pages(0)), device.requestPages(SSID, pages(8))];
      device.stopMarker(SSID);
      driver.registers.waitUntil(() => driver.pageRequests.waiting === 7, '7 page requests');
      serve(
        driver,
        new Map([
          [-1, domain],
          [SSID, own],
        ]),
      );
      expect(groups.map((group) => device.awaitResponse(group))).toEqual([0, 0]);
      expect(device.access(SSID, IOVA + 0xa000n).outcome).toBe('done');
    });

    it('a queue that overflows answers by itself, until the overflow is acknowledged', () => {
      const { machine } = rig({ ats: 'on' });
      const driver = startSmmu(machine, { queueLog2: 2 });
      const domain = driver.createDomain('first');
      driver.attach(SID, domain, { ats: 'full', ppar: true });
      const device = new AtsDevice(machine, SID);
      const ask = (n: number): number =>
        device.requestPages(-1, [{ address: IOVA + BigInt(n * 4096), access: ACCESS.READ }]);
      const groups = Array.from({ length: 9 }, (_, n) => ask(n));
      const early = groups.slice(4).map((group) => device.awaitResponse(group));
      expect(early).toEqual(new Array(5).fill(PAGE_RESPONSE.SUCCESS));
      expect(device.unanswered).toBe(4);
      serve(driver, new Map([[-1, domain]]));
      expect(driver.pageRequests.overflows).toBe(1);
      expect(groups.slice(0, 4).map((group) => device.awaitResponse(group))).toEqual([0, 0, 0, 0]);
      ask(3);
      driver.registers.waitUntil(() => driver.pageRequests.waiting === 1, 'a page request');
    });

    it('requests fail while their queue is off', () => {
      const { driver, device } = attached('full', true);
      driver.control({ ...driver.enables, PRIQEN: 0 });
      expect(device.access(-1, IOVA).outcome).toBe('not paged in');
      driver.stop();
      expect(device.access(-1, IOVA).outcome).toBe('unsupported');
    });
  },
  'smmuv3',
);
