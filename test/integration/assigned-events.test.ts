import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ACCESS, PAGE_RESPONSE } from '../../src/device/iommu.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import { PageRequestQueue } from '../../src/sim/vtd-pages.js';
import { RESPONSE_CODE } from '../../src/spec/vtd/descriptors.js';
import { Daemon, eventually } from '../support/daemon.js';
import { dmaRead, dmaWrite, leftovers } from '../support/host-rig.js';
import { WiredMachine } from '../support/wired-machine.js';

/**
 * Page requests of assigned devices over the wire, and what is left when either side ends in the
 * middle of something.
 */

const RAM = 2 ** 24;
const RID = 0x18;
const HOST_RID = 0x0108;
const IOVA = 0x4000_0000;
const DATA = 0x10_0000;
const PASID = 5;
const PAGES = [RAM / 2, RAM] as const;
/** CMD_PRI_RESP.Resp. IHI 0070 §4.5.2 */
const SMMU_RESPONSE = { INVALID: 1, SUCCESS: 2 } as const;

type Kind = 'smmuv3' | 'vtd3';

/** What a guest was asked. */
interface Asked {
  readonly pasid: number;
  readonly address: bigint;
  readonly group: number;
  readonly last: boolean;
}

/**
 * A guest with a VF that may ask for pages, with a PASID. Page requests are offered by the plan, on
 * an SMMUv3 with ATS.
 */
class PagedGuest {
  readonly wired: WiredMachine;
  readonly device: SimDevice;
  /** Takes what is queued, answers each group. */
  readonly service: (grant: boolean) => Asked[];
  readonly map: (address: number, gpa: number) => void;
  readonly unmap: (address: number) => void;

  constructor(daemon: Daemon, host: SimHost, kind: Kind, name: string, hostRid = HOST_RID) {
    const model = kind === 'smmuv3' ? 'smmuv3' : 'vtd';
    const options: Record<string, string> = kind === 'smmuv3' ? { ats: 'on' } : {};
    this.wired = new WiredMachine({ socket: daemon.socket, host, name, bytes: RAM, model, options });
    this.device = host.addVf(hostRid, this.wired.guest);
    this.wired.plug(this.device, RID);
    if (kind === 'smmuv3') {
      const driver = new SmmuDriver(this.wired.vm, { pages: PAGES });
      expect(driver.capabilities.pri).toBe(true);
      driver.start();
      const domain = driver.createDomain('first');
      driver.attach(RID, domain, { ats: 'full', ssidBits: 8 });
      driver.attachSubstream(RID, PASID, domain);
      this.map = (address, gpa) => driver.map(domain, BigInt(address), gpa, 4096);
      this.unmap = (address) => driver.unmap(domain, BigInt(address), 4096);
      this.service = (grant) => {
        const requests = driver.pageRequests.drain();
        for (const { ssid, group, last } of requests) {
          const response = grant ? SMMU_RESPONSE.SUCCESS : SMMU_RESPONSE.INVALID;
          if (last) driver.commands.pageResponse(RID, ssid, group, response);
        }
        driver.commands.sync();
        return requests.map(({ ssid, address, group, last }) => ({ pasid: ssid, address, group, last }));
      };
      return;
    }
    const driver = new VtdDriver(this.wired.vm, { mode: 'scalable', pages: PAGES, pdts: 3 });
    driver.start();
    if (driver.queue === undefined) throw new Error('no queue');
    const queue = new PageRequestQueue(driver.registers, driver.queue, driver.pages);
    queue.enable();
    const domain = driver.createDomain('first');
    driver.attach(RID, domain, { pasid: PASID, ats: true, pri: true });
    this.map = (address, gpa) => driver.map(domain, BigInt(address), gpa, 4096);
    this.unmap = (address) => driver.unmap(domain, BigInt(address), 4096);
    this.service = (grant) =>
      queue
        .service(() => (grant ? RESPONSE_CODE.SUCCESS : RESPONSE_CODE.INVALID_REQUEST))
        .map(({ pasid, address, group, last }) => ({ pasid, address, group, last }));
  }

  ask(address: number, group: number, last = true): void {
    this.device.requestPage({
      pasid: PASID,
      access: ACCESS.READ | ACCESS.WRITE,
      lo: address,
      hi: 0,
      group,
      last,
    });
    this.wired.settle();
  }

  /**
   * Answers that have come to the device, when there are so many. They come on the other channel
   * than what is waited for.
   */
  responses(
    count: number,
  ): readonly { readonly pasid: number; readonly group: number; readonly code: number }[] {
    const { responses } = this.device;
    for (let tries = 0; responses.length < count && tries < 50; tries++) this.wired.vm.idle(100);
    return responses;
  }

  close(): void {
    this.wired.close();
  }
}

function clean(host: SimHost): void {
  expect(host.violations).toEqual([]);
  expect(leftovers(host)).toEqual({});
}

describe.each<Kind>(['smmuv3', 'vtd3'])('page requests of a nested VF behind %s', (kind) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await Daemon.start(['--host', kind, '--device', 'vf']);
  });
  afterAll(() => daemon.dispose());
  const asked = (address: number, group: number, last = true): Asked => ({
    pasid: PASID,
    address: BigInt(address),
    group,
    last,
  });

  it('come to its guest, and the answer to the device; a page that was faulted in is reached', () => {
    const host = new SimHost({ kind, tableBytes: 2 ** 24 });
    const guest = new PagedGuest(daemon, host, kind, 'a');
    guest.ask(IOVA, 7);
    expect(guest.device.responses).toEqual([]);
    guest.map(IOVA, DATA);
    expect(guest.service(true)).toEqual([asked(IOVA, 7)]);
    expect(guest.responses(1)).toEqual([{ pasid: PASID, group: 7, code: PAGE_RESPONSE.SUCCESS }]);
    expect(dmaWrite(guest.device, IOVA, [0x77], PASID)).toBe(4);
    expect(guest.wired.vm.ram.load32(DATA)).toBe(0x77);
    // The device translates ahead as far as the guest knows: its host drops what it keeps.
    guest.unmap(IOVA);
    expect(dmaRead(guest.device, IOVA, 1, PASID)).toBeUndefined();
    guest.close();
    clean(host);
  });

  it('are answered once for each group, in the words of the guest', () => {
    const host = new SimHost({ kind, tableBytes: 2 ** 24 });
    const guest = new PagedGuest(daemon, host, kind, 'a');
    guest.ask(IOVA, 1, false);
    guest.ask(IOVA + 4096, 2);
    guest.ask(IOVA + 8192, 1);
    expect(guest.service(false)).toEqual([
      asked(IOVA, 1, false),
      asked(IOVA + 4096, 2),
      asked(IOVA + 8192, 1),
    ]);
    expect(guest.responses(2).map(({ group, code }) => [group, code])).toEqual([
      [2, PAGE_RESPONSE.INVALID],
      [1, PAGE_RESPONSE.INVALID],
    ]);
    guest.close();
    clean(host);
  });

  it('belong to one guest, and end with it', () => {
    const host = new SimHost({ kind, tableBytes: 2 ** 24 });
    const a = new PagedGuest(daemon, host, kind, 'a');
    const b = new PagedGuest(daemon, host, kind, 'b', HOST_RID + 1);
    a.ask(IOVA, 3);
    b.ask(IOVA + 4096, 3);
    expect(b.service(true)).toEqual([asked(IOVA + 4096, 3)]);
    expect([a.responses(0).length, b.responses(1).length]).toEqual([0, 1]);
    // One request has no answer yet.
    a.close();
    b.ask(IOVA, 4);
    expect(b.service(true)).toEqual([asked(IOVA, 4)]);
    b.close();
    clean(host);
  });
});

describe('page requests of a shadowed device', () => {
  it('are refused at once: its tables are the host’s, and have what the guest’s have', async () => {
    const daemon = await Daemon.start(['--host', 'smmuv3', '--mode', 'shadow']);
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    const given = { socket: daemon.socket, host, name: 'a', bytes: RAM, model: 'smmuv3' } as const;
    const wired = new WiredMachine({ ...given, options: { ats: 'on' } });
    const device = host.addVf(HOST_RID, wired.guest);
    wired.plug(device, RID);
    const driver = new SmmuDriver(wired.vm, { pages: PAGES });
    expect(driver.capabilities.pri).toBe(false);
    driver.start();
    driver.attach(RID, driver.createDomain('first'));
    device.requestPage({ pasid: -1, access: ACCESS.READ, lo: IOVA, hi: 0, group: 2, last: true });
    wired.settle();
    while (device.responses.length === 0) expect(wired.vm.idle(1000)).toBe(true);
    expect(device.responses).toEqual([{ pasid: -1, group: 2, code: PAGE_RESPONSE.INVALID }]);
    wired.close();
    clean(host);
    await daemon.dispose();
  });
});

describe.each<Kind>(['smmuv3', 'vtd3'])('in the middle of what a host of kind %s is asked for', (kind) => {
  class Gone extends Error {}

  /** Makes the next but `after` operations of the host end in something else. */
  function interrupt(wired: WiredMachine, after: number, act: () => void): void {
    const { assigned } = wired;
    const operation = assigned.operation.bind(assigned);
    let left = after;
    assigned.operation = (type, message) => {
      if (left-- === 0) act();
      return operation(type, message);
    };
  }

  /**
   * Everything that a guest's driver does until the interruption; returns at which operation it
   * was, or undefined.
   */
  function drive(daemon: Daemon, host: SimHost, after: number, act: () => void): WiredMachine | undefined {
    const model = kind === 'smmuv3' ? 'smmuv3' : 'vtd';
    const wired = new WiredMachine({ socket: daemon.socket, host, name: 'a', bytes: RAM, model });
    const device = host.addVf(HOST_RID, wired.guest);
    interrupt(wired, after, act);
    try {
      wired.plug(device, RID);
      if (kind === 'smmuv3') {
        const driver = new SmmuDriver(wired.vm, { pages: PAGES });
        driver.start();
        const domain = driver.createDomain('first');
        driver.attach(RID, domain);
        driver.map(domain, BigInt(IOVA), DATA, 4096);
        driver.unmap(domain, BigInt(IOVA), 4096);
      } else {
        const driver = new VtdDriver(wired.vm, { mode: 'scalable', pages: PAGES, pdts: 3 });
        driver.start();
        for (const pasid of [PASID, PASID + 1]) {
          const domain = driver.createDomain('first');
          driver.attach(RID, domain, { pasid });
          driver.map(domain, BigInt(IOVA), DATA, 4096);
        }
      }
      wired.vm.reset();
      wired.settle();
    } catch {
      return wired;
    }
    wired.close();
    return undefined;
  }

  it('a VM vanishes: nothing is left of it on the host, and nothing in the daemon', async () => {
    const daemon = await Daemon.start(['--host', kind]);
    const host = new SimHost({ kind, tableBytes: 2 ** 24 });
    const idle = await eventually(() => daemon.descriptors().length, 'descriptors');
    let at = 0;
    for (; ; at++) {
      const wired = drive(daemon, host, at, () => {
        throw new Gone();
      });
      if (wired === undefined) break;
      wired.close();
      clean(host);
    }
    // All that it does was cut short once.
    expect(at).toBeGreaterThan(5);
    clean(host);
    // A session closes its descriptors first, and unmaps guest memory a moment later.
    await eventually(() => daemon.descriptors().length <= idle, 'sessions to end');
    await eventually(() => daemon.guestMappings().length === 0, 'every mapping to be gone');
    expect(daemon.text()).not.toContain('internal error');
    await daemon.dispose();
  });

  it.each([1, 3, 5])(
    'the daemon is killed, at operation %i: nothing is left, and the next one begins anew',
    async (at) => {
      const host = new SimHost({ kind, tableBytes: 2 ** 24 });
      const daemon = await Daemon.start(['--host', kind]);
      const wired = drive(daemon, host, at, () => daemon.signal('SIGKILL'));
      expect(wired).toBeDefined();
      wired?.ended();
      wired?.close();
      clean(host);
      await daemon.dispose();
      const next = await Daemon.start(['--host', kind]);
      expect(drive(next, host, Number.POSITIVE_INFINITY, () => {})).toBeUndefined();
      clean(host);
      await next.dispose();
    },
  );
});
