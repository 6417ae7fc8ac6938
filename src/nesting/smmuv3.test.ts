import { describe, expect, it } from 'vitest';
import { dmaRead, dmaWrite, leftovers } from '../../test/support/host-rig.js';
import {
  SmmuGuest as Guest,
  HOST_RID,
  IOVA,
  GUEST_RID as SID,
  smmu,
} from '../../test/support/nested-guests.js';
import { ACCESS } from '../device/iommu.js';
import { CLASS } from '../spec/smmuv3/events.js';
import { S1DSS } from '../spec/smmuv3/structures.js';

describe('a VF on an SMMUv3', () => {
  it('reaches guest memory as it is until the guest enables its unit, then what its stream says', () => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver } = guest;
    guest.memory.store32(0x5000, 5);
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    driver.start();
    expect(dmaRead(device, 0x5000, 1)).toBeUndefined();
    driver.attach(SID, driver.createDomain('bypass'));
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x2000);
    driver.attach(SID, domain);
    expect(dmaRead(device, 0x5000, 1)).toBeUndefined();
    expect(dmaWrite(device, IOVA + 0xffc, [1, 2])).toBe(8);
    expect([guest.word(0x6ffc), guest.word(0x7000)]).toEqual([1, 2]);
    driver.detach(SID);
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    driver.stop();
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    expect(guest.host.violations).toEqual([]);
  });

  it.each([12, 14, 16])(
    'sees unmap and remap of 2^%i-byte granules when the guest has invalidated them',
    (granule) => {
      const guest = new Guest(smmu());
      const device = guest.vf();
      const { driver } = guest;
      driver.start();
      const domain = driver.createDomain('first', { granule });
      driver.attach(SID, domain);
      const size = 2 ** granule;
      for (let page = 0; page < 4; page++) {
        guest.memory.store32(0x10_0000 + page * size, 100 + page);
        driver.map(domain, BigInt(IOVA + page * size), 0x10_0000 + page * size, size);
      }
      const read = (page: number) => dmaRead(device, IOVA + page * size, 1)?.[0];
      expect([0, 1, 2, 3].map(read)).toEqual([100, 101, 102, 103]);
      driver.unmap(domain, BigInt(IOVA + size), size);
      expect([0, 1, 2, 3].map(read)).toEqual([100, undefined, 102, 103]);
      driver.map(domain, BigInt(IOVA + size), 0x10_0000 + 3 * size, size);
      expect(read(1)).toBe(103);
      // Edited but not invalidated: the host's TLB goes on.
      domain.table?.unmap(BigInt(IOVA), size);
      expect(read(0)).toBe(100);
      driver.commands.asid(domain.vmid, domain.asid);
      driver.commands.sync();
      expect(read(0)).toBeUndefined();
    },
  );

  it('has the whole CD table of its guest: SubstreamIDs beside requests without', () => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const own = driver.createDomain('first');
    driver.map(own, BigInt(IOVA), 0x6000, 0x1000);
    guest.memory.store32(0x6000, 99);
    driver.attach(SID, own, { ssidBits: 8 });
    const domains = [1, 63, 64, 255].map((ssid, index) => {
      const domain = driver.createDomain('first');
      guest.memory.store32(0x2_0000 + index * 4096, ssid);
      driver.map(domain, BigInt(IOVA), 0x2_0000 + index * 4096, 0x1000);
      driver.attachSubstream(SID, ssid, domain);
      return { ssid, domain };
    });
    const read = (pasid: number) => dmaRead(device, IOVA, 1, pasid)?.[0];
    expect([-1, 1, 63, 64, 255, 2].map(read)).toEqual([99, 1, 63, 64, 255, undefined]);
    // One pointer: nothing is bound for each of them.
    expect(guest.host.leftovers()).toMatchObject({ bindings: 1 });
    driver.detachSubstream(SID, 63, domains[1].domain);
    expect([1, 63, 64].map(read)).toEqual([1, undefined, 64]);
    driver.attachSubstream(SID, 1, domains[2].domain);
    expect(read(1)).toBe(64);
    expect(guest.machine.nestingEvents).toEqual([]);
  });

  it.each([
    [S1DSS.TERMINATE, undefined],
    [S1DSS.BYPASS, 77],
    [S1DSS.SSID0, 99],
  ])('does with requests without SubstreamID what S1DSS %i says', (s1Dss, expected) => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    const address = 0x8000;
    driver.map(domain, BigInt(address), 0x6000, 0x1000);
    guest.memory.store32(0x6000, 99);
    guest.memory.store32(address, 77);
    driver.attach(SID, domain, { ssidBits: 4, s1Dss });
    expect(dmaRead(device, address, 1)?.[0]).toBe(expected);
  });

  it("gives its faults to the guest, as its own unit's events", () => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(SID, domain, { ssidBits: 8 });
    driver.attachSubstream(SID, 5, domain);
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000, { read: true, write: false });
    const stray = (pasid: number, address: number) => {
      expect(dmaWrite(device, address, [1], pasid)).toBe(0);
      return guest.events().map(({ name, sid, ssid, address: at }) => [name, sid, ssid, Number(at)]);
    };
    expect(stray(-1, IOVA + 0x9000)).toEqual([['F_TRANSLATION', SID, -1, IOVA + 0x9000]]);
    expect(stray(5, IOVA + 0x9000)).toEqual([['F_TRANSLATION', SID, 5, IOVA + 0x9000]]);
    expect(stray(-1, IOVA)).toEqual([['F_PERMISSION', SID, -1, IOVA]]);
    // No such context descriptor.
    expect(stray(9, IOVA)).toMatchObject([['C_BAD_CD', SID, 9, 0]]);
    expect(stray(300, IOVA)).toMatchObject([['C_BAD_SUBSTREAMID', SID, 300, 0]]);
    // An output outside of memory is no event of the guest's.
    driver.map(domain, BigInt(IOVA + 0x2000), 2 ** 30, 0x1000);
    expect(stray(-1, IOVA + 0x2000)).toEqual([]);
    expect(guest.machine.nesting.report).toMatchObject({ faultsWithheld: 1 });
  });

  it('turns what the host saw below into what the guest would have: tables outside of memory', () => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(SID, domain);
    // The root's first entry points out of memory.
    const root = Number(domain.table?.rootAddress ?? 0n);
    guest.memory.poke(root, BigInt(2 ** 40) | 3n);
    dmaRead(device, 0x1000, 1);
    const [walk] = guest.events();
    expect(walk.name).toBe('F_WALK_EABT');
    expect(walk.fields).toMatchObject({ CLASS: CLASS.TT });
    expect(walk.fields['S2'] ?? 0).toBe(0);
    // And a CD table that is not there.
    driver.streams.set(SID, { V: 1, Config: 5, S1ContextPtr: 2 ** 40 });
    driver.commands.stream(SID);
    driver.commands.sync();
    dmaRead(device, 0x1000, 1);
    expect(guest.events().map(({ name }) => name)).toEqual(['F_CD_FETCH']);
  });

  it('refuses a stage 2 of the guest, and says so once', () => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const second = driver.createDomain('second');
    driver.map(second, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(SID, second);
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    expect(guest.machine.nestingEvents).toEqual([
      { kind: 'notNestable', device: device.number, rid: SID, pasid: -1, reason: 'a stage 2 of the guest' },
    ]);
  });

  it('is clean after reset, unplug and the end of the guest', () => {
    const guest = new Guest(smmu());
    const devices = [guest.vf(), guest.vf(HOST_RID + 1, SID + 8)];
    const { driver, machine } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(SID, domain);
    driver.attach(SID + 8, domain);
    expect(devices.map((device) => dmaRead(device, IOVA, 1))).toEqual([[0], [0]]);
    expect(guest.host.leftovers()).toMatchObject({ bindings: 2 });
    machine.reset();
    expect(guest.host.leftovers()).toMatchObject({ bindings: 0, attachments: 2 });
    guest.memory.store32(0x5000, 5);
    expect(devices.map((device) => dmaRead(device, 0x5000, 1))).toEqual([[5], [5]]);
    machine.unplug(devices[0]);
    expect(devices.map((device) => dmaRead(device, 0x5000, 1))).toEqual([undefined, [5]]);
    machine.nesting.end();
    machine.drain();
    guest.host.removeGuest(machine.guest);
    expect(guest.host.violations).toEqual([]);
    expect(leftovers(guest.host)).toEqual({});
  });

  it('completes CMD_SYNC for the guest only after the host has done it', () => {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver, machine } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(SID, domain);
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    expect(dmaRead(device, IOVA, 1)).toEqual([0]);
    machine.early = false;
    let waited = 0;
    const idle = machine.idle.bind(machine);
    machine.idle = () => {
      waited++;
      expect(machine.nesting.pending).toBeGreaterThan(0);
      expect(dmaRead(device, IOVA, 1)).toEqual([0]);
      return idle();
    };
    driver.unmap(domain, BigInt(IOVA), 0x1000);
    expect(waited).toBe(1);
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
  });

  it('asks its guest for pages and brings the answer back', () => {
    const guest = new Guest(smmu(), 'guest', { ats: 'on' });
    const device = guest.vf();
    const { driver, machine } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(SID, domain, { ssidBits: 4 });
    driver.attachSubstream(SID, 3, domain);
    device.requestPage({ pasid: 3, access: ACCESS.WRITE, lo: IOVA, hi: 0, group: 7, last: true });
    machine.drain();
    const [request] = driver.pageRequests.drain();
    expect(request).toMatchObject({
      sid: SID,
      ssid: 3,
      address: BigInt(IOVA),
      group: 7,
      last: true,
      write: true,
    });
    expect(device.responses).toEqual([]);
    driver.commands.pageResponse(SID, 3, 7, 2);
    driver.commands.sync();
    expect(device.responses).toEqual([{ pasid: 3, group: 7, code: 0 }]);
  });
});

describe('two guests behind one SMMUv3', () => {
  it('do not reach each other, whatever they invalidate and however their ASIDs meet', () => {
    const host = smmu();
    const guests = ['a', 'b'].map((name, index) => {
      const guest = new Guest(host, name);
      const device = guest.vf(HOST_RID + index);
      guest.driver.start();
      const domain = guest.driver.createDomain('first');
      guest.driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
      guest.driver.attach(SID, domain);
      guest.memory.store32(0x6000, index + 1);
      return { guest, device, domain };
    });
    const [a, b] = guests;
    expect(a.domain.asid).toBe(b.domain.asid);
    const read = () => guests.map(({ device }) => dmaRead(device, IOVA, 1)?.[0]);
    expect(read()).toEqual([1, 2]);
    b.domain.table?.unmap(BigInt(IOVA), 0x1000);
    a.guest.driver.commands.translationsAll();
    a.guest.driver.commands.sync();
    expect(read()).toEqual([1, 2]);
    b.guest.driver.commands.asid(0, b.domain.asid);
    b.guest.driver.commands.sync();
    expect(read()).toEqual([1, undefined]);
    expect(a.guest.events()).toEqual([]);
    expect(b.guest.events().map(({ name }) => name)).toEqual(['F_TRANSLATION']);
    expect(host.violations).toEqual([]);
  });
});
