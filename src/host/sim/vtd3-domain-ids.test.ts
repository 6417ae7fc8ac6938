import { describe, expect, it } from 'vitest';
import { GuestTables } from '../../../test/support/guest-tables.js';
import { dmaRead, leftovers, RigGuest } from '../../../test/support/host-rig.js';
import type { NestedTable } from '../port.js';
import { SimHost } from './sim-host.js';

const PARENT = 1;
const RID = 0x0210;
const IOVA = 0x40_0000;
const WORD = 0x10_0000;

function nested(root: number): NestedTable {
  return {
    format: 'vtd',
    root,
    levels: 4,
    writeProtect: false,
    extendedAccessed: false,
    supervisor: false,
  };
}

/** Tables that lead from IOVA to a page with a number in it. */
function tablesTo(guest: RigGuest, value: number): NestedTable {
  const tables = new GuestTables(guest.memory, guest.pages, 'vtd');
  const page = WORD + value * 4096;
  guest.memory.store32(page, value);
  tables.map(BigInt(IOVA), page);
  return nested(tables.root);
}

describe('domain-ids of guest tables on a vt-d3 host', () => {
  const host = (): SimHost => new SimHost({ kind: 'vtd3', tableBytes: 2 ** 26 });
  const ids = (of: SimHost): number => of.driver.leftovers()['domainIds'] ?? 0;

  it('are one for each function, so that more PASIDs are nested than there are domain-ids', () => {
    const machine = host();
    const guest = new RigGuest(machine, 'guest', 'iommufd', { pasidQuota: 2 ** 20 });
    const device = machine.addVf(RID, guest.port);
    guest.space(PARENT, device, true);
    guest.mapAll(PARENT);
    const before = ids(machine);
    const tables = [1, 2, 3].map((value) => tablesTo(guest, value));
    const count = 70_000;
    for (let pasid = 1; pasid <= count; pasid++) {
      const { code } = guest.nest(device, PARENT, tables[pasid % 3], pasid);
      if (code !== 'OK') throw new Error(`PASID ${pasid}: ${code}`);
    }
    expect(ids(machine)).toBe(before + 1);
    for (const pasid of [1, 2, 65_535, 65_536, 65_537, count]) {
      expect(dmaRead(device, IOVA, 1, pasid)).toEqual([1 + (pasid % 3)]);
    }
    machine.removeGuest(guest.port);
    expect(leftovers(machine)).toEqual({});
  });

  it('keep the same PASID of two functions apart, and a table from the one that it replaces', () => {
    const machine = host();
    const guest = new RigGuest(machine, 'guest', 'iommufd');
    const devices = [0, 1].map((index) => machine.addVf(RID + index, guest.port));
    guest.space(PARENT, devices[0], true);
    guest.mapAll(PARENT);
    devices.forEach((device, index) => {
      for (const pasid of [-1, 5]) {
        expect(
          guest.nest(device, PARENT, tablesTo(guest, 1 + index * 2 + (pasid > 0 ? 1 : 0)), pasid).code,
        ).toBe('OK');
      }
    });
    const seen = (): unknown[] =>
      devices.flatMap((device) => [-1, 5].map((pasid) => dmaRead(device, IOVA, 1, pasid)?.[0]));
    expect(seen()).toEqual([1, 2, 3, 4]);
    expect(seen()).toEqual([1, 2, 3, 4]);
    guest.nest(devices[1], PARENT, tablesTo(guest, 7), 5);
    expect(seen()).toEqual([1, 2, 3, 7]);
    guest.detach(devices[0], 5);
    expect(seen()).toEqual([1, undefined, 3, 7]);
    guest.detach(devices[0]);
    guest.nest(devices[0], PARENT, tablesTo(guest, 9));
    expect(seen()).toEqual([9, undefined, 3, 7]);
    // What the second stage loses is gone from all of them.
    guest.unmap(PARENT, 0, 2 ** 24 / 4096);
    expect(seen()).toEqual([undefined, undefined, undefined, undefined]);
    machine.removeGuest(guest.port);
    expect(leftovers(machine)).toEqual({});
    expect(machine.violations).toEqual([]);
  });

  it('are given back when an entry could not be written', () => {
    const machine = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 19 });
    const guest = new RigGuest(machine, 'guest', 'iommufd');
    const device = machine.addVf(RID, guest.port);
    guest.space(PARENT, device, true);
    const before = ids(machine);
    const codes = new Set<string>();
    for (let pasid = 1; pasid < 2 ** 14 && !codes.has('NO_TABLE_MEMORY'); pasid += 64) {
      codes.add(guest.nest(device, PARENT, nested(0x1000), pasid).code);
    }
    expect([...codes]).toEqual(['OK', 'NO_TABLE_MEMORY']);
    expect(ids(machine)).toBe(before + 1);
    machine.removeGuest(guest.port);
    expect(leftovers(machine)).toEqual({});
  });
});
