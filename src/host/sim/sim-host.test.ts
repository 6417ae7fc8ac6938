import { describe, expect, it } from 'vitest';
import { dmaRead, dmaWrite, leftovers, RigGuest, rig } from '../../../test/support/host-rig.js';
import {
  CONTAINERS,
  type Container,
  type DeviceKind,
  HOST_KINDS,
  type HostKind,
} from '../../assignment/request.js';
import { EVENT } from '../../spec/smmuv3/events.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { TYPE1_MAPPINGS } from './type1.js';

const RID = 0x0108;

/** Devices, containers and hosts that go together without a vIOMMU. */
const PLAIN: (readonly [HostKind, DeviceKind, Container])[] = HOST_KINDS.flatMap((kind) =>
  (['vf', 'mdev'] as const).flatMap((device) =>
    CONTAINERS.filter(
      (container) => !(device === 'mdev' && kind !== 'vtd3' && container === 'type1-nesting'),
    ).map((container) => [kind, device, container] as const),
  ),
);

function plug(kind: HostKind, device: DeviceKind, container: Container, options: { pinLimit?: number } = {}) {
  const { host, guest } = rig(kind, container, options);
  if (device === 'mdev') host.addParent(RID);
  const assigned = device === 'mdev' ? host.addMdev(RID, guest.port) : host.addVf(RID, guest.port);
  return { host, guest, device: assigned };
}

describe.each(PLAIN)('%s, %s, %s', (kind, deviceKind, container) => {
  it('moves bytes where they are mapped, faults elsewhere, and leaves nothing', () => {
    const { host, guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    expect(guest.attach(device, 1).code).toBe('OK');
    expect(guest.map(1, 0x1000, 0x20, 3)).toMatchObject({ code: 'OK', done: 1 });
    // Across a page boundary.
    expect(dmaWrite(device, 0x1000ff8, [1, 2, 3, 4])).toBe(16);
    expect([0x20ff8, 0x20ffc, 0x21000, 0x21004].map((gpa) => guest.word(gpa))).toEqual([1, 2, 3, 4]);
    guest.memory.store32(0x22ffc, 0x12345678);
    expect(dmaRead(device, 0x1002ffc, 1)).toEqual([0x12345678]);
    // Beyond the end: what lies before it went through.
    expect(dmaWrite(device, 0x1002ff8, [5, 6, 7])).toBe(8);
    host.run();
    expect(guest.faults).toHaveLength(1);
    expect(guest.faults[0]).toMatchObject({ device: device.number, pasid: -1 });
    // Guest-physical addresses are no device addresses, host-physical ones neither.
    expect(dmaRead(device, 0x20000, 1)).toBeUndefined();
    expect(dmaRead(device, host.memory.windows[0].base + 0x20000, 1)).toBeUndefined();
    expect(host.violations).toEqual([]);
    expect(guest.detach(device).code).toBe('OK');
    expect(dmaRead(device, 0x1000000, 1)).toBeUndefined();
    guest.ok((port, done) => port.destroySpace(1, done));
    host.removeDevice(device);
    expect(leftovers(host)).toEqual({});
  });

  it('keeps nothing in its caches of what was unmapped, and lets go of pins only then', () => {
    const { host, guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    guest.attach(device, 1);
    guest.map(1, 16, 0x20, 2);
    guest.map(1, 32, 0x40, 1, 1);
    expect(dmaWrite(device, 16 * 4096, [7])).toBe(4);
    expect(dmaRead(device, 32 * 4096, 1)).toEqual([0]);
    expect(dmaWrite(device, 32 * 4096, [7])).toBe(0);
    expect(host.leftovers()).toMatchObject({ pinnedPages: 3, pinned: 3, mappings: 2 });
    guest.unmap(1, 16, 2);
    expect(dmaWrite(device, 16 * 4096, [7])).toBe(0);
    expect(host.leftovers()).toMatchObject({ pinnedPages: 1, pinned: 1, mappings: 1 });
    // Remapped elsewhere: the new page, at once.
    guest.map(1, 16, 0x50, 1);
    expect(dmaWrite(device, 16 * 4096, [9])).toBe(4);
    expect([guest.word(0x20000), guest.word(0x50000)]).toEqual([7, 9]);
    expect(host.violations).toEqual([]);
  });

  it('shows a forgotten invalidation', () => {
    const { host, guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    guest.attach(device, 1);
    guest.map(1, 16, 0x20, 1);
    expect(dmaWrite(device, 16 * 4096, [1])).toBe(4);
    host.failures.forgetInvalidations = true;
    guest.unmap(1, 16, 1);
    expect(dmaWrite(device, 16 * 4096, [2])).toBe(4);
    expect(host.violations).toHaveLength(1);
    expect(host.violations[0]).toContain('not pinned');
  });

  it('changes in order until something fails, and says how far it got', () => {
    const { host, guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    guest.attach(device, 1);
    guest.map(1, 16, 0x20, 4);
    const outcome = guest.change(1, (changes) =>
      changes.map(40, 1, 1, 3).unmap(16, 4).map(50, 2, 1, 3).map(40, 3, 1, 3).map(60, 4, 1, 3),
    );
    expect(outcome).toMatchObject({ code: 'OVERLAP', done: 3 });
    expect(dmaRead(device, 50 * 4096, 1)).toEqual([0]);
    expect(dmaRead(device, 60 * 4096, 1)).toBeUndefined();
    expect(dmaRead(device, 16 * 4096, 1)).toBeUndefined();
    expect(guest.unmap(1, 50, 1)).toMatchObject({ code: 'OK', done: 1 });
    // Nothing there: no error.
    expect(guest.unmap(1, 7000, 1).code).toBe('OK');
    host.failures.arm('map', 2);
    expect(
      guest.change(1, (c) => c.map(1, 1, 1, 3).map(2, 2, 1, 3).map(3, 3, 1, 3).map(4, 4, 1, 3)),
    ).toMatchObject({
      code: 'FAILED',
      done: 2,
    });
    expect(host.leftovers()['mappings']).toBe(3);
  });

  it('refuses ranges, memory and cuts that cannot be', () => {
    const { guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    guest.attach(device, 1);
    const memoryEnd = 2 ** 24 / 4096;
    guest.map(1, 16, 0x20, 4);
    expect(guest.unmap(1, 16, 2).code).toBe('PARTIAL_UNMAP');
    expect(guest.unmap(1, 18, 9).code).toBe('PARTIAL_UNMAP');
    expect(guest.unmap(1, 15, 6)).toMatchObject({ code: 'OK' });
    expect(guest.map(1, 0, memoryEnd - 1, 2).code).toBe('NOT_MEMORY');
    expect(guest.map(1, 0, 5, 0).code).toBe('BAD_RANGE');
    expect(guest.map(1, 0, 5, 1, 0).code).toBe('BAD_RANGE');
    const { ranges } = guest.port.limits(device.number);
    const last = ranges.at(-1)?.last as number;
    expect(guest.map(1, last, 5, 2).code).toBe('IOVA_RANGE');
    expect(guest.map(1, last, 5, 1).code).toBe('OK');
    expect(dmaWrite(device, last * 4096, [1])).toBe(4);
    if (kind !== 'smmuv3') expect(guest.map(1, 0xfee00, 5, 1).code).toBe('IOVA_RANGE');
    expect(guest.map(9, 0, 5, 1).code).toBe('NO_SUCH_SPACE');
    expect(guest.outcome((port, done) => port.attach(77, -1, 1, done)).code).toBe('NO_SUCH_DEVICE');
  });

  it('puts what is mapped already into the tables of a device that comes later', () => {
    const { host, guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    guest.map(1, 16, 0x20, 1);
    guest.attach(device, 1);
    expect(dmaWrite(device, 16 * 4096, [5])).toBe(4);
    const other = deviceKind === 'mdev' ? host.addMdev(RID, guest.port) : host.addVf(RID + 1, guest.port);
    guest.attach(other, 1);
    expect(dmaRead(other, 16 * 4096, 1)).toEqual([5]);
    expect(guest.outcome((port, done) => port.destroySpace(1, done)).code).toBe('IN_USE');
    // Another space instead: what the first one maps is out of reach at once.
    guest.space(2, other);
    guest.map(2, 16, 0x30, 1);
    guest.attach(other, 2);
    expect(dmaRead(other, 16 * 4096, 1)).toEqual([0]);
    expect(dmaRead(device, 16 * 4096, 1)).toEqual([5]);
    host.removeGuest(guest.port);
    expect(device.gone).toBe(true);
    expect(dmaRead(device, 16 * 4096, 1)).toBeUndefined();
    expect(leftovers(host)).toEqual({});
  });

  it('stops at the limit of pins, and has room again after an unmap', () => {
    const { guest, device } = plug(kind, deviceKind, container, { pinLimit: 10 });
    guest.space(1, device);
    guest.attach(device, 1);
    expect(guest.map(1, 0, 0, 8).code).toBe('OK');
    expect(guest.map(1, 16, 0, 3).code).toBe('PIN_LIMIT');
    // Each mapping counts, also of pages that are pinned already.
    expect(guest.map(1, 16, 0, 2).code).toBe('OK');
    expect(guest.unmap(1, 0, 8).code).toBe('OK');
    expect(guest.map(1, 32, 0, 8).code).toBe('OK');
  });

  it('has attached nothing when there is no memory for tables', () => {
    const { host, guest, device } = plug(kind, deviceKind, container);
    guest.space(1, device);
    guest.map(1, 16, 0x20, 1);
    const before = leftovers(host);
    host.memory.pool.tableLimit = host.memory.pool.used.tables + 3;
    expect(guest.attach(device, 1).code).toBe('NO_TABLE_MEMORY');
    host.memory.pool.tableLimit = Number.POSITIVE_INFINITY;
    if (container !== 'iommufd') expect(leftovers(host)).toEqual(before);
    expect(guest.attach(device, 1).code).toBe('OK');
    expect(dmaWrite(device, 16 * 4096, [5])).toBe(4);
    host.removeGuest(guest.port);
    expect(leftovers(host)).toEqual({});
  });
});

describe('mapping count', () => {
  it('ends at 65,535 in a type1 container, and nowhere in iommufd', () => {
    for (const container of ['type1', 'iommufd'] as const) {
      const { guest, device } = plug('vtd3', 'vf', container);
      guest.space(1, device);
      const outcome = guest.change(1, (changes) => {
        for (let i = 0; i <= TYPE1_MAPPINGS; i++) changes.map(i * 2, 5, 1, 1);
      });
      expect(guest.port.limits(device.number).mappings).toBe(
        container === 'type1' ? TYPE1_MAPPINGS : Number.POSITIVE_INFINITY,
      );
      if (container === 'type1')
        expect(outcome).toMatchObject({ code: 'MAPPING_LIMIT', done: TYPE1_MAPPINGS });
      else expect(outcome).toMatchObject({ code: 'OK', done: TYPE1_MAPPINGS + 1 });
    }
  });
});

describe('the order of operations', () => {
  it('is that in which they were asked for, and nothing is done before the host runs', () => {
    const { guest, device } = plug('smmuv3', 'vf', 'iommufd');
    const ended: string[] = [];
    const note = (name: string) => (outcome: { code: string }) => void ended.push(`${name}: ${outcome.code}`);
    guest.port.createSpace(1, device.number, false, note('create'));
    guest.port.attach(device.number, -1, 1, note('attach'));
    guest.port.createSpace(1, device.number, false, note('again'));
    guest.port.detach(device.number, -1, (outcome) => {
      note('detach')(outcome);
      guest.port.destroySpace(1, note('destroy'));
    });
    guest.port.destroySpace(1, note('early'));
    expect([ended, guest.port.pending]).toEqual([[], 5]);
    guest.port.step();
    expect(ended).toEqual(['create: OK']);
    guest.port.run();
    expect(ended).toEqual([
      'create: OK',
      'attach: OK',
      'again: SPACE_EXISTS',
      'detach: OK',
      'early: OK',
      'destroy: NO_SUCH_SPACE',
    ]);
  });
});

describe('faults', () => {
  it('come up as the hardware recorded them, to the guest whose device it was', () => {
    for (const kind of HOST_KINDS) {
      const { host, guest, device } = plug(kind, 'mdev', 'iommufd');
      const other = new RigGuest(host, 'other', 'iommufd');
      const neighbour = host.addMdev(RID, other.port);
      for (const [who, what] of [
        [guest, device],
        [other, neighbour],
      ] as const) {
        who.space(1, what);
        who.attach(what, 1);
      }
      dmaWrite(neighbour, 0x7000, [1]);
      host.run();
      expect([guest.faults.length, other.faults.length]).toEqual([0, 1]);
      const { format, record, device: number } = other.faults[0];
      expect(number).toBe(neighbour.number);
      if (kind === 'smmuv3') {
        expect(format).toBe('smmuv3');
        expect(record[0] & 0xff).toBe(EVENT.F_TRANSLATION);
        expect(record[4]).toBe(0x7000);
      } else {
        expect(format).toBe('vtd');
        expect(record[3] & 0xff).toBe(FAULT.SFS_2);
        expect(record[0]).toBe(0x7000);
      }
      host.removeGuest(guest.port);
      host.removeGuest(other.port);
      expect(leftovers(host)).toEqual({});
    }
  });
});
