import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../../memory/array.js';
import { MapChanges, type NestedTable } from '../port.js';
import { Failures } from './failures.js';
import { Iommufd } from './iommufd.js';
import { HostMemory } from './memory.js';
import { HostVtd3Driver } from './vtd3-driver.js';

const RID = 0x0408;
const DEVICE = { rid: RID, pasid: -1 };
const TABLE: NestedTable = {
  format: 'vtd',
  root: 0x1000,
  levels: 4,
  writeProtect: false,
  extendedAccessed: false,
  supervisor: false,
};

function open() {
  const memory = new HostMemory(2 ** 22);
  const driver = new HostVtd3Driver(memory);
  driver.addFunction(RID);
  const window = memory.addGuest(new ArrayMemory([{ base: 0, bytes: 2 ** 20 }]), 2 ** 20);
  const fd = new Iommufd({ driver, window, failures: new Failures(), pinLimit: 100 });
  return { memory, driver, window, fd };
}

const map = (page: number) => new MapChanges().map(page, 0, 1, 3);

describe('iommufd objects', () => {
  it('are not destroyed while something uses them', () => {
    const { fd, memory, driver } = open();
    const ioas = fd.ioasAlloc();
    const parent = fd.hwptAlloc(DEVICE, ioas, true);
    const viommu = fd.viommuAlloc(parent);
    const vdevice = fd.vdeviceAlloc(viommu, DEVICE, 8);
    const faults = fd.faultQueueAlloc();
    const nested = fd.hwptAllocNested(viommu, TABLE, faults);
    fd.attach(DEVICE, nested);
    const order = [nested, faults, vdevice, viommu, parent, ioas];
    for (const id of [nested, faults, viommu, parent, ioas]) expect(() => fd.destroy(id)).toThrow('IN_USE');
    fd.detach(DEVICE);
    expect(() => fd.detach(DEVICE)).toThrow('NOT_ATTACHED');
    for (const id of order) fd.destroy(id);
    for (const id of order) expect(() => fd.destroy(id)).toThrow('NO_SUCH_SPACE');
    expect(fd.leftovers()).toEqual({ objects: 0, mappings: 0, pinned: 0, attachments: 0, bindings: 0 });
    expect(memory.pool.used.tables).toBe(0);
    expect(driver.leftovers()).toEqual({ domains: 0, domainIds: 0, pasidEntries: 0 });
  });

  it('go one after the other when the descriptor is closed', () => {
    const { fd, memory, window } = open();
    const ioas = fd.ioasAlloc();
    fd.ioasChange(ioas, map(5), { done: 0 });
    const parent = fd.hwptAlloc(DEVICE, ioas, true);
    const nested = fd.hwptAllocNested(parent, TABLE, fd.faultQueueAlloc());
    fd.attach(DEVICE, nested);
    fd.attach({ rid: RID, pasid: 9 }, parent);
    expect([window.pinnedPages, fd.endpoints().length]).toEqual([1, 2]);
    fd.close();
    expect([window.pinnedPages, memory.pool.used.tables]).toEqual([0, 0]);
  });

  it('are what their number says, or refused', () => {
    const { fd } = open();
    const ioas = fd.ioasAlloc();
    const plain = fd.hwptAlloc(DEVICE, ioas, false);
    const faults = fd.faultQueueAlloc();
    expect(() => fd.hwptAlloc(DEVICE, plain, true)).toThrow('is no ioas');
    expect(() => fd.hwptAllocNested(plain, TABLE, faults)).toThrow('NOT_SUPPORTED');
    expect(() => fd.hwptAllocNested(ioas, TABLE, faults)).toThrow('is no viommu');
    expect(() => fd.viommuAlloc(plain)).toThrow('NOT_SUPPORTED');
    expect(() => fd.attach(DEVICE, ioas)).toThrow('is no hwpt-paging');
    expect(() => fd.ioasChange(999, map(1), { done: 0 })).toThrow('NO_SUCH_SPACE');
    const viommu = fd.viommuAlloc(fd.hwptAlloc(DEVICE, ioas, true));
    fd.vdeviceAlloc(viommu, DEVICE, 8);
    expect(() => fd.vdeviceAlloc(viommu, DEVICE, 8)).toThrow('IN_USE');
    expect(() => fd.invalidate(plain, { count: 0 } as never, { done: 0 })).toThrow('is no viommu');
  });

  it('share mappings: every HWPT of an IOAS has them, and one unmap takes them from all', () => {
    const { fd, window } = open();
    const ioas = fd.ioasAlloc();
    fd.ioasChange(ioas, map(5), { done: 0 });
    const first = fd.hwptAlloc(DEVICE, ioas, false);
    const second = fd.hwptAlloc(DEVICE, ioas, true);
    fd.ioasChange(ioas, map(6), { done: 0 });
    expect(window.pinnedPages).toBe(1);
    expect(fd.leftovers()).toMatchObject({ mappings: 2, pinned: 2 });
    // The first level ends where addresses stop being canonical, and the IOAS with it.
    expect(() => fd.ioasChange(ioas, map(2 ** 35), { done: 0 })).toThrow('IOVA_RANGE');
    fd.destroy(first);
    fd.ioasChange(ioas, map(2 ** 35), { done: 0 });
    expect(() => fd.hwptAlloc(DEVICE, ioas, false)).toThrow('IOVA_RANGE');
    fd.ioasChange(ioas, new MapChanges().unmap(0, 2 ** 36), { done: 0 });
    expect(window.pinnedPages).toBe(0);
    fd.destroy(second);
    fd.destroy(ioas);
  });

  it('keep page requests only while there is room', () => {
    const { fd } = open();
    const ioas = fd.ioasAlloc();
    const faults = fd.faultQueueAlloc();
    fd.attach(DEVICE, fd.hwptAllocNested(fd.hwptAlloc(DEVICE, ioas, true), TABLE, faults));
    const request = { device: 1, pasid: -1, access: 1, lo: 0, hi: 0, group: 0, last: true };
    let taken = 0;
    while (fd.pageRequest(DEVICE, { ...request, group: taken })) taken++;
    expect(taken).toBe(256);
    expect(fd.takeRequests(faults).map(({ group }) => group)).toEqual(
      Array.from({ length: 256 }, (_, i) => i),
    );
    expect(fd.pageRequest(DEVICE, request)).toBe(true);
    expect(fd.pageRequest({ rid: RID, pasid: 5 }, request)).toBe(false);
  });
});
