import { describe, expect, it } from 'vitest';
import { GuestTables, guestSte, writeCd } from '../../../test/support/guest-tables.js';
import { dmaRead, leftovers, RigGuest, rig } from '../../../test/support/host-rig.js';
import { pack } from '../../spec/define.js';
import { CMD, CMD_CFGI_STE } from '../../spec/smmuv3/commands.js';
import { STE } from '../../spec/smmuv3/structures.js';
import { EXTENDED_CONTEXT_ENTRY } from '../../spec/vtd/extended.js';
import type { NestedTable } from '../port.js';
import type { SimDevice } from './sim-device.js';
import type { HostSmmuDriver } from './smmuv3-driver.js';
import type { HostVtd2Driver } from './vtd2-driver.js';

/** What a host cannot do, and that its structures are why. */

const RID = 0x0310;
const PARENT = 1;

/**
 * Two guests with an mdev each of one function, their memory below a nest parent, stage-1 tables
 * that map IOVA.
 */
function twoGuests(kind: 'smmuv3' | 'vtd2' | 'vtd3') {
  const { host } = rig(kind, 'iommufd');
  host.addParent(RID);
  const guests = ['a', 'b'].map((name, index) => {
    const guest = new RigGuest(host, name, 'iommufd');
    const device = host.addMdev(RID, guest.port);
    guest.space(PARENT, device, true);
    guest.mapAll(PARENT);
    const tables = new GuestTables(guest.memory, guest.pages, kind === 'smmuv3' ? 'arm' : 'vtd');
    tables.map(0x7000n, 0x3000);
    guest.memory.store32(0x3000, index + 1);
    const cd = guest.pages.take();
    writeCd(guest.memory, cd, tables.root, 5);
    const table: NestedTable =
      kind === 'smmuv3'
        ? { format: 'smmuv3', ste: guestSte(cd) }
        : {
            format: 'vtd',
            root: tables.root,
            levels: 4,
            writeProtect: false,
            extendedAccessed: false,
            supervisor: false,
          };
    return { guest, device, table };
  });
  return { host, a: guests[0], b: guests[1] };
}

type Side = { readonly guest: RigGuest; readonly device: SimDevice; readonly table: NestedTable };
const enter = ({ guest, device, table }: Side) => guest.nest(device, PARENT, table);
const read = ({ device }: Side) => dmaRead(device, 0x7000, 1)?.[0];

describe('one function, mdevs of two guests, nested', () => {
  it('vt-d3: each PASID-table entry has a second level of its own', () => {
    const { a, b } = twoGuests('vtd3');
    expect([enter(a).code, enter(b).code]).toEqual(['OK', 'OK']);
    expect([read(a), read(b)]).toEqual([1, 2]);
  });

  it("SMMUv3: a CD has no place for a guest's table below a stage 2", () => {
    const { host, a } = twoGuests('smmuv3');
    expect(enter(a)).toMatchObject({ code: 'NO_PLACE' });
    expect(enter(a).text).toContain('STE.S1ContextPtr');
    const second = a.guest.attach(a.device, PARENT);
    expect(second.code).toBe('NO_PLACE');
    expect(second.text).toContain('STE.S2TTB');
    // What is refused has left nothing.
    host.removeGuest(a.guest.port);
    expect(host.leftovers()['cdTables']).toBe(0);
  });

  it('vt-d2: the first one sets NESTE and SLPTPTR for everybody', () => {
    const { a, b } = twoGuests('vtd2');
    expect(enter(a).code).toBe('OK');
    expect(read(a)).toBe(1);
    const refused = enter(b);
    expect(refused.code).toBe('FIELD_IN_USE');
    expect(refused.text).toContain('SLPTPTR');
    // Not nested beside nested neither: NESTE is one bit.
    b.guest.space(2, b.device);
    const shadowed = b.guest.attach(b.device, 2);
    expect(shadowed.code).toBe('FIELD_IN_USE');
    expect(shadowed.text).toContain('NESTE');
    expect(read(a)).toBe(1);
    a.guest.detach(a.device);
    expect(b.guest.attach(b.device, 2).code).toBe('OK');
    expect(enter(a).code).toBe('FIELD_IN_USE');
  });

  it('all of them: first levels of their own go side by side', () => {
    for (const kind of ['smmuv3', 'vtd2', 'vtd3'] as const) {
      const { host, a, b } = twoGuests(kind);
      for (const { guest, device } of [a, b]) {
        guest.space(2, device);
        guest.map(2, 7, 3, 1);
        expect(guest.attach(device, 2).code).toBe('OK');
      }
      expect([read(a), read(b)]).toEqual([1, 2]);
      expect(host.violations).toEqual([]);
    }
  });
});

describe('the hardware behind the refusals', () => {
  it('SMMUv3: who writes his S2TTB into the STE takes the whole stream', () => {
    const { host, guest } = rig('smmuv3', 'iommufd');
    const device = host.addVf(RID, guest.port);
    const driver = host.driver as HostSmmuDriver;
    guest.space(PARENT, device, true);
    guest.mapAll(PARENT);
    guest.attach(device, PARENT);
    guest.memory.store32(0x5000, 5);
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    const other = new RigGuest(host, 'other', 'iommufd');
    const otherDevice = host.addVf(RID + 1, other.port);
    other.space(PARENT, otherDevice, true);
    other.mapAll(PARENT);
    other.attach(otherDevice, PARENT);
    other.memory.store32(0x5000, 6);
    // A hand that knows no rules copies one stream's STE over the other one's.
    const words = new Uint32Array(STE.wordCount);
    host.memory.loadWords(driver.steAddress(RID + 1), words, words.length);
    host.memory.storeWords(driver.steAddress(RID), words);
    driver.queues.push(pack(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: RID }));
    driver.queues.sync();
    expect(dmaRead(device, 0x5000, 1)).toEqual([6]);
    expect(host.violations[0]).toContain("another guest's memory");
  });

  it('vt-d2: without NESTE the same first level is read at host addresses', () => {
    const { host, guest } = rig('vtd2', 'iommufd');
    const device = host.addVf(RID, guest.port);
    const driver = host.driver as HostVtd2Driver;
    guest.space(PARENT, device, true);
    guest.mapAll(PARENT);
    const tables = new GuestTables(guest.memory, guest.pages, 'vtd');
    tables.map(0x7000n, 0x3000);
    const table: NestedTable = {
      format: 'vtd',
      root: tables.root,
      levels: 4,
      writeProtect: false,
      extendedAccessed: false,
      supervisor: false,
    };
    expect(guest.nest(device, PARENT, table, 4).code).toBe('OK');
    expect(dmaRead(device, 0x7000, 1, 4)).toEqual([0]);
    const address = driver.contextAddress(RID);
    const words = new Uint32Array(EXTENDED_CONTEXT_ENTRY.wordCount);
    host.memory.loadWords(address, words, words.length);
    expect(EXTENDED_CONTEXT_ENTRY.get.NESTE(words)).toBe(1);
    words[0] &= ~(1 << EXTENDED_CONTEXT_ENTRY.fields.NESTE.lsb);
    host.memory.storeWords(address, words);
    driver.unit.contexts.invalidateAll();
    driver.unit.pasids.invalidateAll();
    driver.unit.iotlb.invalidateAll();
    expect(dmaRead(device, 0x7000, 1, 4)).toBeUndefined();
  });
});

describe('requests without PASID', () => {
  it('vt-d2: go through the second level alone, so they are never nested', () => {
    const { host, guest } = rig('vtd2', 'iommufd');
    const device = host.addVf(RID, guest.port);
    guest.space(PARENT, device, true);
    guest.mapAll(PARENT);
    const tables = new GuestTables(guest.memory, guest.pages, 'vtd');
    const table: NestedTable = {
      format: 'vtd',
      root: tables.root,
      levels: 4,
      writeProtect: false,
      extendedAccessed: false,
      supervisor: false,
    };
    expect(guest.nest(device, PARENT, table).code).toBe('NO_PLACE');
    expect(guest.nest(device, PARENT, table, 9).code).toBe('OK');
    // With a PASID nested, the second level below it is also that of requests without.
    guest.memory.store32(0x5000, 5);
    expect(dmaRead(device, 0x5000, 1)).toEqual([5]);
    // Not another one.
    guest.space(2, device);
    expect(guest.attach(device, 2).code).toBe('FIELD_IN_USE');
    expect(guest.attach(device, PARENT).code).toBe('OK');
    expect(guest.nest(device, PARENT, { ...table, levels: 5 }, 9).code).toBe('BAD_TABLE');
  });

  it('SMMUv3: a stream with host CDs has no room for a guest CD table, and the other way round', () => {
    const { host, guest } = rig('smmuv3', 'iommufd');
    const device = host.addVf(RID, guest.port);
    guest.space(PARENT, device, true);
    guest.mapAll(PARENT);
    guest.space(2, device);
    guest.map(2, 7, 3, 1);
    const table: NestedTable = { format: 'smmuv3', ste: guestSte(guest.pages.take()) };
    expect(guest.attach(device, 2, 12).code).toBe('OK');
    expect(dmaRead(device, 0x7000, 1, 12)).toEqual([0]);
    expect(guest.nest(device, PARENT, table)).toMatchObject({ code: 'FIELD_IN_USE' });
    expect(guest.attach(device, PARENT)).toMatchObject({ code: 'FIELD_IN_USE' });
    // Host tables for requests without SubstreamID go beside the others.
    expect(guest.attach(device, 2).code).toBe('OK');
    expect(dmaRead(device, 0x7000, 1)).toEqual([0]);
    expect(guest.detach(device, 12).code).toBe('OK');
    expect(guest.nest(device, PARENT, table).code).toBe('OK');
    expect(guest.attach(device, 2, 12)).toMatchObject({ code: 'FIELD_IN_USE' });
    host.removeGuest(guest.port);
    expect(leftovers(host)).toEqual({});
  });
});

describe('one PASID space for each parent', () => {
  it('gives mdevs of different guests different PASIDs, and takes them back clean', () => {
    for (const kind of ['smmuv3', 'vtd2', 'vtd3'] as const) {
      const { host, guest } = rig(kind, 'iommufd', { pasidQuota: 3 });
      const pasids = host.addParent(RID);
      const other = new RigGuest(host, 'other', 'iommufd');
      const mine = host.addMdev(RID, guest.port);
      const theirs = host.addMdev(RID, other.port);
      expect(mine.own).not.toBe(theirs.own);
      const ask = (who: RigGuest, device: SimDevice) =>
        who.outcome((port, done) => port.allocatePasid(device.number, done));
      const first = ask(guest, mine);
      const second = ask(guest, mine);
      expect([first.code, second.code, ask(guest, mine).code]).toEqual(['OK', 'OK', 'NO_PASID']);
      expect(new Set([mine.own, theirs.own, first.value, second.value]).size).toBe(4);

      // A PASID is used on the mdev that it was allocated for; others are refused by the device
      // itself.
      guest.space(2, mine);
      guest.map(2, 7, 3, 1);
      expect(guest.attach(mine, 2, first.value).code).toBe('OK');
      guest.memory.store32(0x3000, 3);
      expect(dmaRead(mine, 0x7000, 1, first.value)).toEqual([3]);
      expect(dmaRead(theirs, 0x7000, 1, first.value)).toBeUndefined();
      host.run();
      expect(other.refusals).toEqual([
        { device: theirs.number, pasid: first.value, access: 1, lo: 0x7000, hi: 0 },
      ]);
      expect(guest.refusals).toEqual([]);
      other.space(2, theirs);
      expect(other.attach(theirs, 2, first.value).code).toBe('NOT_YOUR_PASID');
      const free = (who: RigGuest, device: SimDevice, pasid: number) =>
        who.outcome((port, done) => port.freePasid(device.number, pasid, done)).code;
      expect(free(other, theirs, first.value)).toBe('NOT_YOUR_PASID');
      expect(free(guest, mine, mine.own)).toBe('NOT_YOUR_PASID');

      // Freed while attached: nothing goes through it any more, and it is clean before anybody gets
      // it.
      expect(free(guest, mine, first.value)).toBe('OK');
      expect(dmaRead(mine, 0x7000, 1, first.value)).toBeUndefined();
      expect([pasids.live, pasids.dirty]).toEqual([3, 0]);
      host.failures.arm('invalidate');
      expect(free(guest, mine, second.value)).toBe('FAILED');
      expect([pasids.live, pasids.dirty]).toEqual([2, 1]);
      // On the quota until it is clean; the next allocation sees to that.
      expect([ask(guest, mine).code, ask(guest, mine).code, ask(guest, mine).code]).toEqual([
        'OK',
        'OK',
        'NO_PASID',
      ]);
      expect(pasids.dirty).toBe(0);

      host.removeGuest(guest.port);
      expect([pasids.live, pasids.ownerCount]).toEqual([1, 1]);
      host.removeGuest(other.port);
      host.removeParent(RID);
      expect(leftovers(host)).toEqual({});
    }
  });

  it("does not give out a VF's PASIDs, which are its guest's own", () => {
    const { host, guest } = rig('vtd3', 'iommufd');
    const device = host.addVf(RID, guest.port);
    expect(guest.outcome((port, done) => port.allocatePasid(device.number, done)).code).toBe('NOT_SUPPORTED');
  });

  it('has no PASIDs of a device in a type1 container', () => {
    const { host, guest } = rig('vtd3', 'type1');
    const device = host.addVf(RID, guest.port);
    guest.space(1, device);
    expect(guest.attach(device, 1, 5).code).toBe('NOT_SUPPORTED');
    expect(guest.outcome((port, done) => port.createSpace(2, device.number, true, done)).code).toBe(
      'NOT_SUPPORTED',
    );
  });
});
