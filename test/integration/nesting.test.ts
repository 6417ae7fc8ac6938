import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { SmmuVirtualCommands } from '../../src/sim/smmu-virtual.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import { VirtualCommands } from '../../src/sim/vtd-virtual.js';
import { faultName } from '../../src/spec/vtd/faults.js';
import { CODEC } from '../../src/wire/codec.js';
import { MESSAGE } from '../../src/wire/frame.js';
import { Daemon } from '../support/daemon.js';
import { dmaRead, dmaWrite, leftovers } from '../support/host-rig.js';
import { WiredMachine } from '../support/wired-machine.js';

/**
 * Assigned devices of simulated hosts through a daemon and its socket: their DMA goes where
 * hardware that was programmed so leads.
 */

const RAM = 2 ** 24;
const RID = 0x18;
const HOST_RID = 0x0108;
const IOVA = 0x4000_0000;
const DATA = 0x10_0000;
const SHADOW = 2;
const NEST = 3;

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(() => daemon.dispose());

function machine(
  host: SimHost,
  name: string,
  model: 'vtd' | 'smmuv3',
  options = {},
  more: { readonly pasidQuota?: number; readonly sharedMemory?: boolean } = {},
): WiredMachine {
  return new WiredMachine({ socket: daemon.socket, host, name, bytes: RAM, model, options, ...more });
}

function vtdDriver({ vm }: WiredMachine): VtdDriver {
  const driver = new VtdDriver(vm, { mode: 'scalable', pages: [RAM / 2, RAM], pdts: 3 });
  driver.start();
  return driver;
}

/** One word each way. */
function reaches(wired: WiredMachine, device: SimDevice, gpa: number, pasid = -1): void {
  const word = (gpa ^ 0x5a5a_1234) >>> 0;
  expect(dmaWrite(device, IOVA, [word], pasid)).toBe(4);
  expect(wired.vm.ram.load32(gpa) >>> 0).toBe(word);
  wired.vm.ram.store32(gpa, ~word);
  expect(dmaRead(device, IOVA, 1, pasid)).toEqual([~word >>> 0]);
}

/** Refused; what the guest's own unit has recorded of it. */
function vtdFault(wired: WiredMachine, driver: VtdDriver, device: SimDevice, pasid: number): string[] {
  driver.faults.drain();
  expect(dmaWrite(device, IOVA, [0xdead], pasid)).toBe(0);
  wired.settle();
  return driver.faults.drain().map((fault) => `${faultName(fault.reason).split(':')[0]} ${fault.pasid}`);
}

function clean(host: SimHost): void {
  expect(host.violations).toEqual([]);
  expect(leftovers(host)).toEqual({});
}

describe.each([true, false])('a VF, its guest in memory that the daemon can map: %s', (sharedMemory) => {
  it('of vt-d3 nests: map, unmap, PASIDs, faults, reset, RAM that goes', () => {
    const host = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 24 });
    const wired = machine(host, 'a', 'vtd', { 'caching-mode': 'on' }, { sharedMemory });
    const device = host.addVf(HOST_RID, wired.guest);
    expect(wired.plug(device, RID)).toBe(NEST);
    const driver = vtdDriver(wired);
    const own = driver.createDomain('first');
    driver.attach(RID, own, {});
    driver.map(own, BigInt(IOVA), DATA, 4096);
    reaches(wired, device, DATA);
    driver.unmap(own, BigInt(IOVA), 4096);
    expect(vtdFault(wired, driver, device, -1)).toEqual(['SFS.2 -1']);
    const domain = driver.createDomain('first');
    driver.attach(RID, domain, { pasid: 5 });
    driver.map(domain, BigInt(IOVA), DATA + 4096, 4096);
    reaches(wired, device, DATA + 4096, 5);
    driver.detach(RID, domain, 5);
    expect(vtdFault(wired, driver, device, 5)).toEqual(['SPT.2 5']);
    driver.map(own, BigInt(IOVA), DATA + 8192, 4096);
    reaches(wired, device, DATA + 8192);
    wired.vm.reset();
    expect(dmaRead(device, DATA, 1)).toEqual([wired.vm.ram.load32(DATA) >>> 0]);
    wired.vm.removeRam(wired.vm.ram.regions[0] as never);
    expect(dmaRead(device, DATA, 1)).toBeUndefined();
    expect(leftovers(host)['pinned']).toBeUndefined();
    wired.vm.removeDevice(device.number);
    wired.settle();
    wired.close();
    clean(host);
  });

  it('of an SMMUv3 nests, with the CD table as it is', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    const wired = machine(host, 'a', 'smmuv3', {}, { sharedMemory });
    const device = host.addVf(HOST_RID, wired.guest);
    expect(wired.plug(device, RID)).toBe(NEST);
    const driver = new SmmuDriver(wired.vm, { pages: [RAM / 2, RAM] });
    driver.start();
    const own = driver.createDomain('first');
    driver.attach(RID, own, { ssidBits: 8 });
    driver.map(own, BigInt(IOVA), DATA, 4096);
    reaches(wired, device, DATA);
    const domain = driver.createDomain('first');
    driver.attachSubstream(RID, 7, domain);
    driver.map(domain, BigInt(IOVA), DATA + 4096, 4096);
    reaches(wired, device, DATA + 4096, 7);
    driver.unmap(own, BigInt(IOVA), 4096);
    driver.events.drain();
    expect(dmaWrite(device, IOVA, [1])).toBe(0);
    wired.settle();
    expect(driver.events.drain().map(({ name, ssid }) => `${name} ${ssid}`)).toEqual(['F_TRANSLATION -1']);
    wired.close();
    clean(host);
  });
});

describe('two guests on one parent device of vt-d3', () => {
  it('have PASIDs of it by virtual commands, and nothing of each other', () => {
    const host = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const guests = ['a', 'b'].map((name) => {
      const wired = machine(host, name, 'vtd', { 'caching-mode': 'on', 'virtual-commands': 'on' });
      const device = host.addMdev(HOST_RID, wired.guest);
      expect(wired.plug(device, RID)).toBe(NEST);
      const driver = vtdDriver(wired);
      const pasid = new VirtualCommands(driver.registers).allocate() as number;
      const domain = driver.createDomain('first');
      driver.attach(RID, domain, { pasid });
      driver.map(domain, BigInt(IOVA), DATA, 4096);
      reaches(wired, device, DATA, pasid);
      return { wired, device, driver, pasid, domain };
    });
    const [a, b] = guests;
    expect(a.pasid).not.toBe(b.pasid);
    b.driver.faults.drain();
    expect(vtdFault(a.wired, a.driver, a.device, b.pasid)).toEqual([`SPT.2 ${b.pasid}`]);
    expect(b.driver.faults.drain()).toEqual([]);
    expect(new VirtualCommands(a.driver.registers).free(b.pasid)).toBe(false);
    a.driver.detach(RID, a.domain, a.pasid);
    expect(new VirtualCommands(a.driver.registers).free(a.pasid)).toBe(true);
    expect(vtdFault(a.wired, a.driver, a.device, a.pasid)).toEqual([`SPT.2 ${a.pasid}`]);
    a.wired.close();
    reaches(b.wired, b.device, DATA, b.pasid);
    b.wired.close();
    clean(host);
  });
});

describe('guests on one parent device of an SMMUv3', () => {
  const ON = { 'virtual-commands': 'on', 'ssid-bits': '8' };

  /** A guest with an mdev that is shadowed, and a driver at work. */
  function guest(host: SimHost, name: string, options = {}, pasidQuota?: number) {
    const wired = machine(host, name, 'smmuv3', options, pasidQuota === undefined ? {} : { pasidQuota });
    const device = host.addMdev(HOST_RID, wired.guest);
    expect(wired.plug(device, RID)).toBe(SHADOW);
    const driver = new SmmuDriver(wired.vm, { pages: [RAM / 2, RAM] });
    driver.start();
    const own = driver.createDomain('first');
    driver.attach(RID, own, { ssidBits: 8 });
    driver.map(own, BigInt(IOVA), DATA, 4096);
    reaches(wired, device, DATA);
    return { wired, device, driver, commands: new SmmuVirtualCommands(driver.registers) };
  }
  type Guest = ReturnType<typeof guest>;

  /** A SubstreamID with an address space of its own. */
  function attach({ driver, commands }: Guest, gpa: number): number {
    const ssid = commands.allocate() as number;
    const domain = driver.createDomain('first');
    driver.attachSubstream(RID, ssid, domain);
    driver.map(domain, BigInt(IOVA), gpa, 4096);
    return ssid;
  }

  /** Refused; what the guest's own unit has recorded of it. */
  function events({ wired, driver, device }: Guest, pasid: number): string[] {
    driver.events.drain();
    expect(dmaWrite(device, IOVA, [0xdead], pasid)).toBe(0);
    wired.settle();
    return driver.events.drain().map(({ name, ssid }) => `${name} ${ssid}`);
  }

  it('have SubstreamIDs of it by virtual commands, shadowed, and nothing of each other', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const a = guest(host, 'a', ON);
    const b = guest(host, 'b', ON);
    const [mine, theirs] = [attach(a, DATA + 4096), attach(b, DATA + 4096)];
    expect(mine).not.toBe(theirs);
    reaches(a.wired, a.device, DATA + 4096, mine);
    reaches(b.wired, b.device, DATA + 4096, theirs);
    b.driver.events.drain();
    // Its own tables may say what they want.
    a.driver.attachSubstream(RID, theirs, a.driver.createDomain('first'));
    expect(events(a, theirs)).toEqual([`C_BAD_SUBSTREAMID ${theirs}`]);
    expect(a.commands.free(theirs)).toBe(false);
    expect(b.driver.events.drain()).toEqual([]);
    reaches(b.wired, b.device, DATA + 4096, theirs);
    // Freed without detaching anything first.
    expect([a.commands.free(mine), a.commands.free(mine)]).toEqual([true, false]);
    expect(events(a, mine)).toEqual([`C_BAD_SUBSTREAMID ${mine}`]);
    reaches(a.wired, a.device, DATA);
    expect([mine, theirs]).not.toContain(attach(a, DATA + 8192));
    a.wired.close();
    reaches(b.wired, b.device, DATA + 4096, theirs);
    b.wired.close();
    clean(host);
  });

  it('have no more than their quota, and all of it again after a reset', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    const parent = host.addParent(HOST_RID);
    // The mdev itself is one.
    const a = guest(host, 'a', ON, 4);
    const b = guest(host, 'b', ON);
    const got = [1, 2, 3].map(() => attach(a, DATA + 4096));
    expect(a.commands.allocate()).toBeUndefined();
    expect(b.commands.allocate()).toBeGreaterThan(0);
    expect(a.commands.free(got[1])).toBe(true);
    const again = attach(a, DATA + 4096);
    reaches(a.wired, a.device, DATA + 4096, again);
    expect(a.commands.allocate()).toBeUndefined();
    const before = parent.live;
    a.wired.vm.reset();
    expect(before - parent.live).toBe(3);
    a.driver.start();
    expect(events(a, again)).toEqual([`C_BAD_SUBSTREAMID ${again}`]);
    expect([1, 2, 3].map(() => a.commands.allocate())).not.toContain(undefined);
    expect(a.commands.allocate()).toBeUndefined();
    a.wired.close();
    b.wired.close();
    clean(host);
  });

  it('lose what they have with the device that it is of; private ones go on', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    const parent = host.addParent(HOST_RID);
    const wired = machine(host, 'a', 'smmuv3', ON);
    const driver = new SmmuDriver(wired.vm, { pages: [RAM / 2, RAM] });
    driver.start();
    const commands = new SmmuVirtualCommands(driver.registers);
    // Without an mdev numbers are the guest's own.
    const privates = [commands.allocate(), commands.allocate()] as number[];
    expect(parent.live).toBe(0);
    const device = host.addMdev(HOST_RID, wired.guest);
    expect(wired.plug(device, RID)).toBe(SHADOW);
    const shared = Array.from({ length: 3 }, () => commands.allocate()).filter((ssid) => ssid !== undefined);
    expect(shared.length).toBeGreaterThan(0);
    expect(shared.some((ssid) => privates.includes(ssid))).toBe(false);
    expect(parent.live).toBe(1 + shared.length);
    wired.vm.removeDevice(device.number);
    wired.settle();
    expect(shared.map((ssid) => commands.free(ssid))).toEqual(shared.map(() => false));
    expect(privates.map((ssid) => commands.free(ssid))).toEqual([true, true]);
    wired.close();
    clean(host);
  });

  it('hear of a PASID that hardware refuses what their own unit has against it', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const a = guest(host, 'a', ON);
    // Within S1CDMax or not, and one that belongs to requests without a SubstreamID.
    expect([200, 300].map((ssid) => events(a, ssid))).toEqual([
      ['C_BAD_SUBSTREAMID 200'],
      ['C_BAD_SUBSTREAMID 300'],
    ]);
    expect(events(a, 0)[0]).toMatch(/^F_STREAM_DISABLED/);
    // An aborting stream records nothing, and a unit that is off neither.
    a.wired.vm.ram.store64(a.driver.streams.entry(RID), 1n);
    a.driver.commands.stream(RID);
    a.driver.commands.sync();
    expect(events(a, 200)).toEqual([]);
    a.driver.stop();
    expect(events(a, 200)).toEqual([]);
    a.wired.close();
    clean(host);
  });

  it('have none where they are not offered, and everything else works', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const a = guest(host, 'a');
    expect(a.commands.offered).toBe(false);
    a.driver.attachSubstream(RID, 7, a.driver.createDomain('first'));
    expect(events(a, 7)).toEqual(['C_BAD_SUBSTREAMID 7']);
    a.wired.close();
    clean(host);
  });
});

describe('where hardware cannot nest', () => {
  it('a store to a live table of an SMMUv3 ends when the host has what it maps, and is told so once', () => {
    const host = new SimHost({ kind: 'smmuv3', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const wired = machine(host, 'a', 'smmuv3');
    const device = host.addMdev(HOST_RID, wired.guest);
    expect(wired.plug(device, RID)).toBe(SHADOW);
    const driver = new SmmuDriver(wired.vm, { pages: [RAM / 2, RAM] });
    driver.start();
    const own = driver.createDomain('first');
    driver.attach(RID, own);
    own.table?.map(BigInt(IOVA), DATA, 4096);
    // The tables are there and tracked: a store that maps one page more is a matter of host objects
    // alone.
    const { client } = wired.vm;
    const settled: boolean[] = [];
    const request = client.request.bind(client) as (type: number, body: object) => { settled?: boolean };
    client.request = ((type: number, body: object) => {
      const reply = request(type, body);
      if (type === MESSAGE.TABLE_WRITE || type === MESSAGE.HOST_SETTLE) settled.push(reply.settled === true);
      return reply;
    }) as typeof client.request;
    for (const page of [1, 2, 3]) {
      own.table?.map(BigInt(IOVA + page * 4096), DATA + page * 4096, 4096);
      expect(dmaWrite(device, IOVA + page * 4096, [page])).toBe(4);
    }
    expect(settled.length).toBeGreaterThanOrEqual(3);
    expect(new Set(settled)).toEqual(new Set([true]));
    wired.close();
    clean(host);
  });

  it('mdevs of vt-d2 are shadowed into their PASIDs', () => {
    const host = new SimHost({ kind: 'vtd2', tableBytes: 2 ** 24 });
    host.addParent(HOST_RID);
    const wired = machine(host, 'a', 'vtd', { 'caching-mode': 'on', 'virtual-commands': 'on' });
    const device = host.addMdev(HOST_RID, wired.guest);
    expect(wired.plug(device, RID)).toBe(SHADOW);
    const driver = vtdDriver(wired);
    const own = driver.createDomain('first');
    driver.attach(RID, own, {});
    driver.map(own, BigInt(IOVA), DATA, 4096);
    reaches(wired, device, DATA);
    const pasid = new VirtualCommands(driver.registers).allocate() as number;
    const domain = driver.createDomain('first');
    driver.attach(RID, domain, { pasid });
    driver.map(domain, BigInt(IOVA), DATA + 4096, 4096);
    reaches(wired, device, DATA + 4096, pasid);
    reaches(wired, device, DATA);
    driver.unmap(own, BigInt(IOVA), 4096);
    expect(vtdFault(wired, driver, device, -1)).toEqual(['SFS.2 -1']);
    driver.detach(RID, domain, pasid);
    expect(new VirtualCommands(driver.registers).free(pasid)).toBe(true);
    expect(vtdFault(wired, driver, device, pasid)).toEqual([`SPT.2 ${pasid}`]);
    wired.vm.removeDevice(device.number);
    wired.settle();
    wired.close();
    clean(host);
  });
});

describe('a device that no rule allows', () => {
  it('is refused with the rule, and the machine goes on', () => {
    const host = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 24 });
    const wired = machine(host, 'a', 'smmuv3');
    host.addParent(HOST_RID);
    const device = host.addMdev(HOST_RID, wired.guest);
    wired.vm.addDevice(device.number, RID);
    // The IOMMU is a vt-d3, whose kernel lends no PASIDs.
    const { type, info } = host.driver.hardwareInfo();
    const reply = wired.vm.client.request(MESSAGE.HOST_DEVICE, {
      ...CODEC.HostDevice.create(),
      device: device.number,
      kind: 1,
      infoType: type,
      info,
      pasidBits: 20,
    });
    expect(reply.choice).toBe(0);
    expect(reply.code).toBe(45);
    expect(reply.text).toContain('MDEV_NEEDS_HOST_PASIDS');
    wired.vm.reset();
    wired.close();
    clean(host);
  });
});
