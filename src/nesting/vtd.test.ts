import { describe, expect, it } from 'vitest';
import { dmaRead, dmaWrite, leftovers } from '../../test/support/host-rig.js';
import { GUEST_RID, VtdGuest as Guest, HOST_RID, IOVA, vtd3 } from '../../test/support/nested-guests.js';
import { VirtualCommands } from '../sim/vtd-virtual.js';
import { FAULT } from '../spec/vtd/faults.js';

describe('a VF on vt-d3', () => {
  it('reaches guest memory as it is before the guest translates, and its tables afterwards', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    guest.memory.store32(0x5000, 5);
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    const domain = guest.driver.createDomain('first');
    guest.driver.start();
    guest.driver.attach(GUEST_RID, domain);
    expect(dmaRead(device, 0x5000, 1)).toBeUndefined();
    guest.driver.map(domain, BigInt(IOVA), 0x6000, 0x2000);
    expect(dmaWrite(device, IOVA + 0xffc, [1, 2])).toBe(8);
    expect([guest.word(0x6ffc), guest.word(0x7000)]).toEqual([1, 2]);
    guest.driver.stop();
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    expect(guest.host.violations).toEqual([]);
  });

  it('sees map, unmap and remap when the guest has announced them', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(GUEST_RID, domain);
    for (let page = 0; page < 4; page++) guest.memory.store32(0x10000 + page * 4096, 100 + page);
    driver.map(domain, BigInt(IOVA), 0x10000, 0x4000);
    const read = (page: number) => dmaRead(device, IOVA + page * 4096, 1)?.[0];
    expect([0, 1, 2, 3].map(read)).toEqual([100, 101, 102, 103]);
    driver.unmap(domain, BigInt(IOVA + 0x1000), 0x1000);
    expect([0, 1, 2, 3].map(read)).toEqual([100, undefined, 102, 103]);
    driver.map(domain, BigInt(IOVA + 0x1000), 0x13000, 0x1000);
    expect(read(1)).toBe(103);
    // Edited but not invalidated: the host's IOTLB goes on.
    domain.table?.map(BigInt(IOVA), 0x12000, 0x1000);
    expect(read(0)).toBe(100);
    driver.invalidate.pasidIotlb(domain.did, 0);
    driver.invalidate.sync();
    expect(read(0)).toBe(102);
  });

  it('has each guest PASID bound to its own tables', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domains = [3, 64, 200].map((pasid, index) => {
      const domain = driver.createDomain('first');
      guest.memory.store32(0x20000 + index * 4096, pasid);
      driver.map(domain, BigInt(IOVA), 0x20000 + index * 4096, 0x1000);
      driver.attach(GUEST_RID, domain, { pasid });
      return { pasid, domain };
    });
    const read = (pasid: number) => dmaRead(device, IOVA, 1, pasid)?.[0];
    expect([3, 64, 200, 4].map(read)).toEqual([3, 64, 200, undefined]);
    expect(guest.host.leftovers()).toMatchObject({ bindings: 3 });
    driver.detach(GUEST_RID, domains[1].domain, 64);
    expect([3, 64, 200].map(read)).toEqual([3, undefined, 200]);
    // Another address space for the same PASID.
    driver.attach(GUEST_RID, domains[1].domain, { pasid: 3 });
    expect(read(3)).toBe(64);
    // And pass-through, which is guest memory.
    driver.attach(GUEST_RID, driver.createDomain('pass-through'), { pasid: 7 });
    guest.memory.store32(0x7000, 7);
    expect(dmaRead(device, 0x7000, 1, 7)).toEqual([7]);
    expect(guest.host.violations).toEqual([]);
  });

  it("gives its faults to the guest, in the guest's terms and with its numbers", () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(GUEST_RID, domain);
    driver.attach(GUEST_RID, domain, { pasid: 5 });
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000, { read: true, write: false });
    const stray = (pasid: number, address = IOVA + 0x9000) => {
      expect(dmaWrite(device, address, [1], pasid)).toBe(0);
      guest.machine.drain();
      return guest.faults();
    };
    expect(stray(-1)).toEqual([
      { reason: FAULT.SFS_2, rid: GUEST_RID, pasid: -1, address: BigInt(IOVA + 0x9000) },
    ]);
    expect(stray(5)).toEqual([
      { reason: FAULT.SFS_2, rid: GUEST_RID, pasid: 5, address: BigInt(IOVA + 0x9000) },
    ]);
    expect(stray(-1, IOVA)).toEqual([
      { reason: FAULT.SGN_6, rid: GUEST_RID, pasid: -1, address: BigInt(IOVA) },
    ]);
    // A PASID that the guest has not set up.
    expect(stray(9)).toMatchObject([{ reason: FAULT.SPT_2, rid: GUEST_RID, pasid: 9 }]);
    // Tables outside of memory: a fetch error, though the host saw a second level that maps nothing
    // there.
    driver.scalable?.setPasid(GUEST_RID, 12, { P: 1, PGTT: 1, DID: 9, PWSNP: 1, FSPTPTR: 2 ** 40 });
    driver.invalidate.pasidCache(9, 12);
    driver.invalidate.sync();
    expect(stray(12)).toMatchObject([{ reason: FAULT.SFS_4, rid: GUEST_RID, pasid: 12 }]);
    // A mapping to what is no memory is no matter of the guest's unit.
    driver.map(domain, BigInt(IOVA), 2 ** 30, 0x1000);
    expect(stray(-1, IOVA)).toEqual([]);
    expect(guest.machine.nesting.report).toMatchObject({ faultsWithheld: 3 });
  });

  it('refuses a second stage of the guest, once said, and goes on without it', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('second');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(GUEST_RID, domain);
    driver.attach(GUEST_RID, domain, { pasid: 3 });
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    expect(guest.machine.nestingEvents).toEqual([
      {
        kind: 'notNestable',
        device: device.number,
        rid: GUEST_RID,
        pasid: -1,
        reason: 'a second stage of the guest',
      },
    ]);
    const first = driver.createDomain('first');
    driver.map(first, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(GUEST_RID, first);
    expect(dmaRead(device, IOVA, 1)).toEqual([0]);
  });

  it('is clean after reset, unplug and the end of the guest', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const other = guest.vf(HOST_RID + 1, GUEST_RID + 8);
    const { driver, machine } = guest;
    const domain = driver.createDomain('first');
    driver.start();
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    for (const rid of [GUEST_RID, GUEST_RID + 8]) {
      driver.attach(rid, domain);
      driver.attach(rid, domain, { pasid: 6 });
    }
    expect([dmaRead(device, IOVA, 1, 6), dmaRead(other, IOVA, 1, 6)]).toEqual([[0], [0]]);
    expect(guest.host.leftovers()).toMatchObject({ bindings: 4 });
    machine.reset();
    expect(guest.host.leftovers()).toMatchObject({ bindings: 0, attachments: 2 });
    expect(dmaRead(device, IOVA, 1, 6)).toBeUndefined();
    guest.memory.store32(0x5000, 5);
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    machine.unplug(device);
    expect(dmaRead(device, 0x5000, 1)).toBeUndefined();
    expect(dmaRead(other, 0x5000, 1)).toEqual([5]);
    machine.nesting.end();
    machine.drain();
    expect(guest.host.leftovers()).toMatchObject({
      attachments: 0,
      mappings: 0,
      pinnedPages: 0,
      tablePages: 0,
    });
    guest.host.removeGuest(machine.guest);
    expect(leftovers(guest.host)).toEqual({});
  });

  it('completes nothing for the guest before the host has done it', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver, machine } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(GUEST_RID, domain);
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    expect(dmaRead(device, IOVA, 1)).toEqual([0]);
    machine.early = false;
    let waited = 0;
    const idle = machine.idle.bind(machine);
    machine.idle = () => {
      // The driver polls its wait descriptor: until the host has run, the old translation may still
      // be used.
      waited++;
      expect(machine.nesting.pending).toBeGreaterThan(0);
      expect(dmaRead(device, IOVA, 1)).toEqual([0]);
      return idle();
    };
    driver.unmap(domain, BigInt(IOVA), 0x1000);
    expect(waited).toBe(1);
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
  });

  it('forwards in batches, and drops everything when a batch would be too long', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver, machine } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(GUEST_RID, domain);
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    const before = machine.guest.operations;
    for (let page = 0; page < 100; page++)
      driver.invalidate.pasidIotlbPage(domain.did, 0, BigInt(IOVA + page * 4096), 0);
    driver.invalidate.sync();
    expect(machine.guest.operations - before).toBeLessThan(102);
    expect(dmaRead(device, IOVA, 1)).toEqual([0]);
    domain.table?.map(BigInt(IOVA), 0x7000, 0x1000);
    guest.memory.store32(0x7000, 7);
    for (let count = 0; count < 20_000; count++) {
      machine.nesting.invalidated({
        space: domain.did,
        sub: 0,
        rid: 0xffffffff,
        pasid: 0xffffffff,
        lo: 0,
        hi: 0,
        log2Size: 12,
      });
    }
    machine.settle();
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('binds everything anew when an invalidation fails on the host', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver, machine } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.attach(GUEST_RID, domain);
    driver.attach(GUEST_RID, domain, { pasid: 4 });
    guest.memory.store32(0x7000, 7);
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    expect(dmaRead(device, IOVA, 1)).toEqual([0]);
    guest.host.failures.arm('invalidate');
    driver.map(domain, BigInt(IOVA), 0x7000, 0x1000);
    expect(machine.nestingEvents).toMatchObject([
      { kind: 'hostRefused', what: 'invalidation', code: 'FAILED' },
    ]);
    expect([dmaRead(device, IOVA, 1), dmaRead(device, IOVA, 1, 4)]).toEqual([[7], [7]]);
    expect(guest.host.violations).toEqual([]);
  });

  it('blocks what the host does not bind, and tries again when the guest says so', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { driver, machine } = guest;
    const [one, two] = [driver.createDomain('first'), driver.createDomain('first')];
    driver.start();
    driver.map(one, BigInt(IOVA), 0x6000, 0x1000);
    driver.map(two, BigInt(IOVA), 0x7000, 0x1000);
    guest.memory.store32(0x7000, 7);
    driver.attach(GUEST_RID, one);
    expect(dmaRead(device, IOVA, 1)).toEqual([0]);
    guest.host.failures.arm('attach');
    driver.attach(GUEST_RID, two);
    // Not the old tables: the guest has been told that they are gone.
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    expect(machine.nestingEvents).toMatchObject([
      { kind: 'hostRefused', what: 'guest tables', code: 'FAILED' },
    ]);
    driver.invalidate.pasidCache(two.did, 0);
    driver.invalidate.sync();
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('follows the memory table', () => {
    const guest = new Guest(vtd3());
    const device = guest.vf();
    const { machine } = guest;
    expect(dmaRead(device, 0x5000, 1)).toEqual([0]);
    machine.nesting.ramRemoved(0);
    expect(machine.nesting.pending).toBeGreaterThan(0);
    machine.drain();
    expect(dmaRead(device, 0x5000, 1)).toBeUndefined();
    expect(guest.host.leftovers()).toMatchObject({ pinnedPages: 0 });
    machine.nesting.ramAdded(3, 0x4000, 0x2800, true);
    machine.drain();
    expect(dmaRead(device, 0x5000, 1)).toEqual([0]);
    // Not a whole page; and read-only is read-only.
    expect(dmaRead(device, 0x6000, 1)).toBeUndefined();
    expect(dmaWrite(device, 0x5000, [1])).toBe(0);
  });
});

describe('mdevs on vt-d3', () => {
  const OPTIONS = { 'virtual-commands': 'on' };

  it('of two guests nest side by side, with PASIDs from the virtual command registers', () => {
    const host = vtd3();
    const pasids = host.addParent(HOST_RID);
    const guests = ['a', 'b'].map((name, index) => {
      const guest = new Guest(host, name, OPTIONS);
      const device = guest.mdev();
      const { driver } = guest;
      driver.start();
      const own = driver.createDomain('first');
      driver.map(own, BigInt(IOVA), 0x6000, 0x1000);
      driver.attach(GUEST_RID, own);
      const commands = new VirtualCommands(driver.registers);
      const pasid = commands.allocate() as number;
      const domain = driver.createDomain('first');
      driver.map(domain, BigInt(IOVA), 0x7000, 0x1000);
      driver.attach(GUEST_RID, domain, { pasid });
      guest.memory.store32(0x6000, 10 + index);
      guest.memory.store32(0x7000, 20 + index);
      return { guest, device, commands, pasid, domain };
    });
    const [a, b] = guests;
    expect(new Set([a.pasid, b.pasid, a.device.own, b.device.own]).size).toBe(4);
    expect(guests.map(({ device }) => dmaRead(device, IOVA, 1))).toEqual([[10], [11]]);
    expect(guests.map(({ device, pasid }) => dmaRead(device, IOVA, 1, pasid))).toEqual([[20], [21]]);

    // The other one's PASID, set up in one's own tables: a fault of one's own, and no one else is
    // reached.
    a.guest.driver.attach(GUEST_RID, a.domain, { pasid: b.pasid });
    expect(a.guest.machine.nestingEvents).toMatchObject([{ kind: 'hostRefused', code: 'NOT_YOUR_PASID' }]);
    expect(dmaWrite(a.device, IOVA, [99], b.pasid)).toBe(0);
    a.guest.machine.drain();
    expect(a.guest.faults()).toMatchObject([{ reason: FAULT.SPT_2, rid: GUEST_RID, pasid: b.pasid }]);
    expect(b.guest.faults()).toEqual([]);
    expect(dmaRead(b.device, IOVA, 1, b.pasid)).toEqual([21]);
    expect(a.commands.free(b.pasid)).toBe(false);

    // Freed while bound: unbound.
    expect(a.commands.free(a.pasid)).toBe(true);
    expect(dmaRead(a.device, IOVA, 1, a.pasid)).toBeUndefined();
    expect(a.commands.free(a.pasid)).toBe(false);
    expect([pasids.live, pasids.dirty]).toEqual([3, 0]);

    a.guest.machine.reset();
    b.guest.machine.reset();
    expect([pasids.live, pasids.dirty]).toEqual([2, 0]);
    for (const { guest } of guests) {
      guest.machine.nesting.end();
      guest.machine.drain();
      host.removeGuest(guest.machine.guest);
    }
    expect(host.violations).toEqual([]);
    expect(leftovers(host)).toEqual({});
  });

  it('have a quota of PASIDs, and get more after they gave some back', () => {
    const host = vtd3();
    host.addParent(HOST_RID);
    const guest = new Guest(host, 'guest', OPTIONS, 4);
    guest.mdev();
    const commands = new VirtualCommands(guest.driver.registers);
    const got = [1, 2, 3].map(() => commands.allocate());
    expect(got.every((pasid) => pasid !== undefined)).toBe(true);
    expect(commands.allocate()).toBeUndefined();
    expect(commands.free(got[1] as number)).toBe(true);
    expect(commands.allocate()).toBeDefined();
    expect(commands.allocate()).toBeUndefined();
  });

  it('answer a command later, while the guest polls', () => {
    const host = vtd3();
    host.addParent(HOST_RID);
    const guest = new Guest(host, 'guest', OPTIONS);
    guest.mdev();
    guest.machine.early = false;
    let polls = 0;
    const idle = guest.machine.idle.bind(guest.machine);
    guest.machine.idle = () => {
      polls++;
      return idle();
    };
    const commands = new VirtualCommands(guest.driver.registers);
    expect(commands.allocate()).toBeGreaterThan(0);
    expect(polls).toBe(1);
    // A reset while the answer is on its way: the PASID has no owner.
    guest.machine.writeRegister(0xe00, 8, 1n);
    expect(guest.machine.guest.pending).toBe(1);
    guest.machine.reset();
    guest.machine.early = true;
    guest.machine.drain();
    expect(guest.machine.pasids.live.size).toBe(0);
    expect(host.leftovers()['pasids']).toBe(1);
  });
});
