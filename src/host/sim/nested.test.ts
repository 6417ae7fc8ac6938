import { describe, expect, it } from 'vitest';
import { GuestTables, guestSte, writeCd } from '../../../test/support/guest-tables.js';
import { GUEST_BYTES, leftovers } from '../../../test/support/host-rig.js';
import { CASES, IOVA, NestedGuest, PARENT, RID, setUp, vtdTable } from '../../../test/support/nested-host.js';
import { titled } from '../../../test/support/titled.js';
import { ACCESS } from '../../device/iommu.js';
import { CLASS, EVENT, F_TRANSLATION } from '../../spec/smmuv3/events.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { FRCD_REG } from '../../spec/vtd/registers.js';
import type { NestedTable } from '../port.js';

describe.each(titled(CASES, ({ name }) => `guest tables on the host: ${name}`))('%s', (_title, of) => {
  it.each(['iommufd', 'type1-nesting'] as const)('are walked by hardware, in %s', (container) => {
    const { host, guest } = setUp(of, container);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.tables.map(BigInt(IOVA + 0x1000), 0x9000, false);
    expect(guest.write(IOVA, [1])).toBe(0);
    guest.enter();
    expect(guest.write(IOVA + 8, [0xabc])).toBe(4);
    expect(guest.word(0x3008)).toBe(0xabc);
    guest.memory.store32(0x9004, 99);
    expect(guest.read(IOVA + 0x1004)).toBe(99);
    expect(guest.write(IOVA + 0x1004, [1])).toBe(0);
    expect(guest.read(IOVA + 0x2000)).toBeUndefined();
    expect(host.leftovers()).toMatchObject({ bindings: 1 });
    expect(guest.detach(guest.device, of.pasid).code).toBe('OK');
    expect(guest.read(IOVA)).toBeUndefined();
    guest.ok((port, done) => port.destroySpace(PARENT, done));
    host.removeDevice(guest.device);
    expect(host.violations).toEqual([]);
    expect(leftovers(host)).toEqual({});
  });

  it('change for devices when the guest says so, not before', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.tables.map(BigInt(IOVA + 0x1000), 0x4000);
    guest.enter();
    guest.memory.store32(0x3000, 3);
    guest.memory.store32(0x4000, 4);
    guest.memory.store32(0x5000, 5);
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([3, 4]);
    guest.tables.map(BigInt(IOVA), 0x5000);
    guest.tables.unmap(BigInt(IOVA + 0x1000));
    // The hardware's IOTLB has the old translations.
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([3, 4]);
    expect(guest.forget(IOVA)).toBe('OK');
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([5, 4]);
    expect(guest.forget()).toBe('OK');
    expect([guest.read(IOVA), guest.read(IOVA + 0x1000)]).toEqual([5, undefined]);
    expect(host.violations).toEqual([]);
  });

  it('reach nothing that the host has unmapped below them', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.enter();
    expect(guest.write(IOVA, [1])).toBe(4);
    expect(guest.unmap(PARENT, 0, GUEST_BYTES / 4096).code).toBe('OK');
    expect(guest.write(IOVA, [2])).toBe(0);
    expect(guest.word(0x3000)).toBe(1);
    expect(host.violations).toEqual([]);
    expect(host.leftovers()['pinnedPages']).toBe(0);
  });

  it('fault as the hardware recorded it', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000, false);
    guest.tables.map(BigInt(IOVA + 0x1000), GUEST_BYTES);
    guest.enter();
    guest.write(IOVA, [1]);
    guest.write(IOVA + 0x1000, [1]);
    guest.write(IOVA + 0x5000, [1]);
    host.run();
    expect(guest.faults.map(({ device, pasid }) => [device, pasid])).toEqual(
      Array(3).fill([guest.device.number, of.pasid]),
    );
    const records = guest.faults.map(({ record }) => record);
    if (of.kind === 'smmuv3') {
      const get = F_TRANSLATION.get;
      expect(records.map((words) => [get.EventNumber(words), get.S2(words), get.CLASS(words)])).toEqual([
        [EVENT.F_PERMISSION, 0, CLASS.IN],
        [EVENT.F_TRANSLATION, 1, CLASS.IN],
        [EVENT.F_TRANSLATION, 0, CLASS.IN],
      ]);
      expect(get.IPA(records[1])).toBe(GUEST_BYTES);
    } else {
      expect(records.map((words) => FRCD_REG.get.FR(words))).toEqual([FAULT.SGN_6, FAULT.SSS_2, FAULT.SFS_2]);
    }
  });

  it('are replaced by others, and by host tables', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.memory.store32(0x3000, 3);
    guest.memory.store32(0x4000, 4);
    guest.enter();
    expect(guest.read(IOVA)).toBe(3);
    const others = new GuestTables(guest.memory, guest.pages, of.kind === 'smmuv3' ? 'arm' : 'vtd');
    others.map(BigInt(IOVA), 0x4000);
    const cd = guest.pages.take();
    writeCd(guest.memory, cd, others.root, 78);
    const table: NestedTable =
      of.kind === 'smmuv3' ? { format: 'smmuv3', ste: guestSte(cd) } : vtdTable(others.root);
    expect(guest.nest(guest.device, PARENT, table, of.pasid).code).toBe('OK');
    expect(guest.read(IOVA)).toBe(4);
    expect(host.leftovers()).toMatchObject({ bindings: 1 });
    if (of.kind !== 'vtd2') {
      guest.space(2, guest.device);
      guest.map(2, 77, 3, 1);
      expect(guest.attach(guest.device, 2, of.pasid).code).toBe('OK');
      expect([guest.read(77 * 4096), guest.read(IOVA)]).toEqual([3, undefined]);
      expect(host.leftovers()).toMatchObject({ bindings: 0 });
    }
    host.removeGuest(guest.port);
    expect(leftovers(host)).toEqual({});
  });

  it('are refused when they cannot be, and nothing changes', () => {
    const { host, guest } = setUp(of);
    guest.tables.map(BigInt(IOVA), 0x3000);
    guest.enter();
    const before = leftovers(host);
    const bad: NestedTable[] =
      of.kind === 'smmuv3'
        ? [
            vtdTable(0x1000),
            // Stage 2 is the host's.
            { format: 'smmuv3', ste: Uint32Array.of((7 << 1) | 1, 0, 0, 0) },
            // Bits that no guest has a say in.
            { format: 'smmuv3', ste: Uint32Array.of((5 << 1) | 1, 0, 0, 1 << 16) },
            { format: 'smmuv3', ste: guestSte(guest.cd, 21) },
          ]
        : [
            { format: 'smmuv3', ste: guestSte(guest.cd) },
            vtdTable(0x1008),
            vtdTable(2 ** 48),
            { ...vtdTable(guest.tables.root), supervisor: true } as NestedTable,
          ];
    for (const table of bad) {
      expect(guest.nest(guest.device, PARENT, table, of.pasid).code).toBe('BAD_TABLE');
    }
    host.failures.arm('attach');
    expect(guest.nest(guest.device, PARENT, guest.table, of.pasid).code).toBe('FAILED');
    expect(leftovers(host)).toEqual(before);
    expect(guest.read(IOVA)).toBe(0);
  });

  it('are out of reach for another guest behind the same IOMMU', () => {
    const { host, guest } = setUp(of);
    const other = new NestedGuest(host, 'other', of, of.device === 'mdev' ? RID : RID + 1);
    for (const [index, who] of [guest, other].entries()) {
      who.tables.map(BigInt(IOVA), 0x3000);
      who.memory.store32(0x3000, 100 + index);
      who.enter();
    }
    expect([guest.read(IOVA), other.read(IOVA)]).toEqual([100, 101]);
    // One says that all is different: the other one does not notice.
    other.tables.map(BigInt(IOVA), 0x4000);
    guest.tables.map(BigInt(IOVA), 0x4000);
    expect(guest.forget()).toBe('OK');
    expect([guest.read(IOVA), other.read(IOVA)]).toEqual([0, 101]);
    other.write(IOVA + 0x9000, [1]);
    host.run();
    expect([guest.faults.length, other.faults.length]).toEqual([0, 1]);
    other.tables.map(BigInt(IOVA), 0x3000);
    host.removeGuest(guest.port);
    expect(other.read(IOVA)).toBe(101);
    host.removeGuest(other.port);
    expect(host.violations).toEqual([]);
    expect(leftovers(host)).toEqual({});
  });

  it('ask for pages where their guest hears it, and get an answer', () => {
    const { host, guest } = setUp(of);
    const request = { pasid: of.pasid, access: ACCESS.WRITE, lo: IOVA, hi: 0, group: 9, last: true };
    // No guest tables are bound yet.
    guest.device.requestPage(request);
    expect(guest.device.responses).toEqual([{ pasid: of.pasid, group: 9, code: 1 }]);
    guest.enter();
    guest.device.requestPage(request);
    host.run();
    expect(guest.requests).toEqual([{ device: guest.device.number, ...request }]);
    guest.port.respond(guest.device.number, of.pasid, 9, 0);
    expect(guest.device.responses[1]).toEqual({ pasid: of.pasid, group: 9, code: 0 });
  });
});
