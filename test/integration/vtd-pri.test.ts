import { expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS, PAGE_RESPONSE, REQUEST } from '../../src/device/iommu.js';
import { AtsDevice } from '../../src/sim/ats-device.js';
import type { Machine } from '../../src/sim/machine.js';
import type { VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { PageRequestQueue, type PageRequestRecord } from '../../src/sim/vtd-pages.js';
import { RESPONSE_CODE } from '../../src/spec/vtd/descriptors.js';
import { PECTL_REG } from '../../src/spec/vtd/registers.js';
import { DATA, RID, startDriver } from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

const ON = { 'device-tlb': 'on', 'page-requests': 'on' } as const;
const PASID = 9;
const IOVA = 0x7f12_3456_0000n;
const ENTRIES = 128;
const MSI = { address: 0xfee0_4000, data: 0x61 };

interface Scene {
  readonly machine: Machine;
  readonly driver: VtdDriver;
  readonly domain: VtdDomain;
  readonly queue: PageRequestQueue;
  readonly ats: AtsDevice;
  /** Gives pages out as they are asked for, one after the other from DATA on. */
  readonly pager: { readonly asked: PageRequestRecord[]; refuse: boolean; serve(): void };
}

onBothTransports('VT-d page requests', (rig) => {
  function scene(pri = true): Scene {
    const { machine } = rig(ON);
    const driver = startDriver(machine, 'scalable');
    if (driver.queue === undefined) throw new Error('no queue');
    const domain = driver.createDomain('first');
    driver.attach(RID, domain, { pasid: PASID, ats: true, pri });
    const queue = new PageRequestQueue(driver.registers, driver.queue, driver.pages);
    queue.enable(MSI);
    let next = DATA;
    const pager = {
      asked: [] as PageRequestRecord[],
      refuse: false,
      serve: () => {
        pager.asked.push(
          ...queue.service((request) => {
            if (pager.refuse) return RESPONSE_CODE.INVALID_REQUEST;
            // Not announced: a first stage needs no invalidation when a page becomes present.
            domain.table?.map(request.address, next, 4096, { read: true, write: request.write });
            next += 4096;
            return RESPONSE_CODE.SUCCESS;
          }),
        );
      },
    };
    const ats = new AtsDevice(machine, RID, { pri: true });
    return { machine, driver, domain, queue, ats, pager };
  }

  /** Asks for pages, one group; returns its index. */
  const ask = ({ ats }: Scene, access: number, addresses: readonly bigint[], pasid = PASID): number =>
    ats.requestPages(
      pasid,
      addresses.map((address) => ({ address, access })),
    );

  /** Lets the unit handle everything that was posted: an answer to what is asked behind it. */
  const settle = ({ machine }: Scene): void => {
    machine.request(RID, NO_PASID, 0, 0n, REQUEST.UNTRANSLATED, false);
  };

  it('a device faults pages in as it touches them', () => {
    const { machine, ats, pager, driver } = scene();
    ats.onWait = pager.serve;
    const words = Array.from({ length: 48 }, (_, n) => IOVA + 0x800n + BigInt(n) * 256n);
    for (const [n, at] of words.entries()) expect(ats.access(PASID, at, n).outcome).toBe('done');
    expect(pager.asked.map(({ address, write, last, pasid }) => ({ address, write, last, pasid }))).toEqual(
      [0n, 1n, 2n, 3n].map((page) => ({
        address: IOVA + page * 4096n,
        write: true,
        last: true,
        pasid: PASID,
      })),
    );
    expect(machine.ram.load32(DATA + 0x900)).toBe(1);
    expect(words.map((at) => ats.access(PASID, at).value)).toEqual(words.map((_, n) => n));
    expect(pager.asked).toHaveLength(4);
    expect(driver.faults.drain()).toEqual([]);
  });

  it('a right that is granted without an invalidation is found by the next try', () => {
    const { ats, pager, domain } = scene();
    ats.onWait = pager.serve;
    domain.table?.map(IOVA, DATA, 4096, { read: true, write: false });
    expect(ats.access(PASID, IOVA).outcome).toBe('done');
    domain.table?.unmap(IOVA, 4096);
    expect(ats.access(PASID, IOVA, 1).outcome).toBe('done');
    expect(pager.asked).toHaveLength(1);
  });

  it('a refused page ends the access', () => {
    const { ats, pager } = scene();
    ats.onWait = pager.serve;
    pager.refuse = true;
    expect(ats.access(PASID, IOVA, 1).outcome).toBe('not paged in');
    expect(ats.unanswered).toBe(0);
  });

  it('a group has one answer, the event one interrupt, whose mask and pending bits work', () => {
    const s = scene();
    const { machine, ats, queue, pager, driver } = s;
    const group = ask(s, ACCESS.READ | ACCESS.WRITE, [IOVA, IOVA + 0x5000n, IOVA + 0x9000n]);
    settle(s);
    expect(queue.status).toEqual({ pending: true, overflow: false });
    expect(queue.peek().map(({ last, group: g }) => [last, g])).toEqual([
      [false, group],
      [false, group],
      [true, group],
    ]);
    for (let n = 0; n < 300 && machine.interrupts.length === 0; n++) machine.idle(1);
    expect(machine.interrupts.splice(0)).toEqual([MSI]);
    pager.serve();
    expect([ats.awaitResponse(group), ats.takeResponse(group)]).toEqual([PAGE_RESPONSE.SUCCESS, undefined]);
    queue.mask(true);
    ask(s, ACCESS.READ, [IOVA]);
    settle(s);
    expect([driver.registers.field(PECTL_REG, 'IP'), machine.interrupts.length]).toEqual([1, 0]);
    queue.mask(false);
    for (let n = 0; n < 300 && machine.interrupts.length === 0; n++) machine.idle(1);
    expect([driver.registers.field(PECTL_REG, 'IP'), machine.interrupts]).toEqual([0, [MSI]]);
  });

  it('stop markers and requests without PASID are told apart', () => {
    const s = scene();
    const { ats, queue, driver, machine } = s;
    const plain = driver.createDomain('second');
    driver.attach(RID, plain);
    const plainGroup = ask(s, ACCESS.READ, [0x1000n], NO_PASID);
    ats.stopMarker(PASID);
    settle(s);
    expect(queue.peek()).toMatchObject([
      { pasid: NO_PASID, read: true, address: 0x1000n },
      { pasid: PASID, read: false, write: false, last: true },
    ]);
    queue.service(() => RESPONSE_CODE.SUCCESS);
    expect([ats.awaitResponse(plainGroup), machine.pageResponses]).toEqual([PAGE_RESPONSE.SUCCESS, []]);
  });

  it('a full queue overflows: what is lost is answered with success, and asked for again', () => {
    const s = scene();
    const { ats, queue, pager, machine } = s;
    for (let n = 0; n < ENTRIES - 1; n++) ask(s, ACCESS.READ, [IOVA + BigInt(n) * 4096n]);
    settle(s);
    expect(queue.status).toEqual({ pending: true, overflow: false });
    const lost = ask(s, ACCESS.READ, [IOVA + 0x80_0000n]);
    const after = ask(s, ACCESS.READ, [IOVA + 0x90_0000n]);
    settle(s);
    expect(queue.status).toEqual({ pending: true, overflow: true });
    expect([lost, after].map((group) => ats.awaitResponse(group))).toEqual([
      PAGE_RESPONSE.SUCCESS,
      PAGE_RESPONSE.SUCCESS,
    ]);
    expect(machine.pageResponses).toEqual([]);
    pager.serve();
    expect(pager.asked).toHaveLength(ENTRIES - 1);
    expect(queue.status).toEqual({ pending: false, overflow: false });
    ats.onWait = pager.serve;
    // The device finds the page still missing, and asks once more.
    expect(ats.access(PASID, IOVA + 0x80_0000n).outcome).toBe('done');
    expect(pager.asked).toHaveLength(ENTRIES);
  });

  it('many times round the queue nothing is lost or answered twice', () => {
    const s = scene();
    const { ats, pager } = s;
    for (let round = 0; round < 40; round++) {
      const groups = Array.from({ length: 10 }, (_, n) => ask(s, ACCESS.READ, [IOVA + BigInt(n) * 4096n]));
      settle(s);
      pager.serve();
      expect(groups.map((group) => ats.awaitResponse(group))).toEqual(
        groups.map(() => PAGE_RESPONSE.SUCCESS),
      );
    }
    expect(pager.asked).toHaveLength(400);
  });

  it('who may not ask is answered so, and recorded', () => {
    const s = scene(false);
    const { ats, driver, queue } = s;
    const group = ask(s, ACCESS.WRITE, [IOVA]);
    settle(s);
    expect(ats.awaitResponse(group)).toBe(PAGE_RESPONSE.INVALID);
    expect(queue.peek()).toEqual([]);
    expect(driver.faults.drain()).toMatchObject([
      { rid: RID, pasid: PASID, address: IOVA, text: expect.stringContaining('SCT.8') },
    ]);
  });

  it('pages and responses are drained by a Device-TLB invalidation and a wait with PD', () => {
    const s = scene();
    const { ats, driver, queue, machine } = s;
    const seen: number[] = [];
    ats.onDrop = () => {
      ask(s, ACCESS.READ, [IOVA]);
      seen.push(machine.pageResponses.length);
    };
    ask(s, ACCESS.READ, [IOVA + 0x1000n]);
    settle(s);
    const [record] = queue.peek();
    queue.respond(record);
    driver.invalidate.deviceTlb(RID, PASID, 0n, 52);
    const value = driver.queue?.submitWait({ drainPages: true }) ?? 0;
    driver.queue?.kick();
    driver.queue?.await(value);
    // The response was there before the invalidation, the request that it pushed out before the
    // wait's status.
    expect(seen).toEqual([1]);
    expect(queue.peek()).toHaveLength(2);
  });
});
