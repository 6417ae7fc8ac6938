import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ERRORS } from '../../src/base/errors.js';
import { NO_PASID } from '../../src/base/ids.js';
import { closeFd, memoryFile } from '../../src/base/native.js';
import { SimVm, type SimVmOptions } from '../../src/sim/vm.js';
import { FIRST_STAGE } from '../../src/sim/vtd-table-format.js';
import { CODEC } from '../../src/wire/codec.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../../src/wire/frame.js';
import type { MemAdd } from '../../src/wire/messages.js';
import { Daemon } from '../support/daemon.js';
import {
  DATA,
  device,
  expectFault,
  expectReaches,
  MIB,
  RAM_BYTES,
  RID,
  startDriver,
} from '../support/rig.js';

const IOVA = 0x4000_0000n;
/** Where plugged memory appears. */
const PLUGGED = 0x1_0000_0000;

describe('guest memory', () => {
  let daemon: Daemon;
  const open: SimVm[] = [];
  beforeAll(async () => {
    daemon = await Daemon.start();
  });
  afterAll(async () => {
    for (const vm of open) vm.close();
    await daemon.dispose();
  });
  const plug = (options: SimVmOptions = {}): SimVm => {
    const vm = SimVm.connect(daemon.socket, { ramBytes: RAM_BYTES, ...options });
    open.push(vm);
    return vm;
  };

  it('regions come and go: data in them is reached, and refused when they are gone', () => {
    const vm = plug();
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, PLUGGED, 4096);
    for (let round = 0; round < 3; round++) {
      const region = vm.addRam(PLUGGED, 4 * MIB);
      expectReaches(vm, device(vm), IOVA, PLUGGED);
      vm.removeRam(region);
      expect(device(vm).write(IOVA, new Uint32Array(4)).failedAt).toBe(IOVA);
    }
  });

  it('tables in memory that was unplugged are a fetch fault', () => {
    const vm = plug();
    const region = vm.addRam(PLUGGED, 4 * MIB);
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    // The last level's table moves to the plugged memory.
    const directory = domain.table?.entryAddress(IOVA, 2) ?? 0;
    const leaf = domain.table?.entryAddress(IOVA, 1) ?? 0;
    vm.ram.store64(PLUGGED + (leaf & 0xfff), vm.ram.load64(leaf));
    vm.ram.store64(directory, BigInt(PLUGGED) | 3n);
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expectReaches(vm, device(vm), IOVA, DATA);
    vm.removeRam(region);
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'LSS_1');
    const again = vm.addRam(PLUGGED, 4 * MIB);
    vm.ram.store64(PLUGGED + (leaf & 0xfff), BigInt(DATA) | 3n);
    expectReaches(vm, device(vm), IOVA, DATA);
    vm.removeRam(again);
  });

  for (const mode of ['legacy', 'scalable'] as const) {
    it(`without shared files, ${mode}: every table and queue is read and written by messages`, () => {
      const vm = plug({ sharedMemory: false });
      const driver = startDriver(vm, mode);
      const domain = driver.createDomain(mode === 'legacy' ? 'second' : 'first');
      driver.attach(RID, domain);
      driver.map(domain, IOVA, DATA, 64 * 4096);
      for (let page = 0; page < 64; page++) {
        expectReaches(vm, device(vm), IOVA + BigInt(page) * 4096n, DATA + page * 4096);
      }
      driver.unmap(domain, IOVA, 4096);
      expectFault(driver, 'write', RID, NO_PASID, IOVA, mode === 'legacy' ? 'LGN_2' : 'SFS_2');
      expect(vm.traffic.memReads).toBeGreaterThan(0);
      expect(vm.traffic.memWrites, 'wait descriptors store their status').toBeGreaterThan(0);
      if (mode === 'scalable') {
        expect(vm.traffic.memCas, 'Accessed and Dirty').toBeGreaterThan(0);
        const entry = domain.table?.entryAddress(IOVA + 4096n) ?? 0;
        expect(vm.ram.load64(entry) & FIRST_STAGE.D).toBe(FIRST_STAGE.D);
      }
      // A table outside of this memory is what it is with shared files.
      const top = domain.table?.entryAddress(IOVA, 3) ?? 0;
      vm.ram.store64(top, 0x7000_0000n | 7n);
      driver.invalidate.iotlbGlobal();
      driver.invalidate.sync();
      expectFault(driver, 'write', RID, NO_PASID, IOVA + 4096n, mode === 'legacy' ? 'LSS_1' : 'SFS_1');
      expect(daemon.guestMappings().filter((line) => line.includes('ram'))).toHaveLength(
        open.length * 1 - 1 - (mode === 'scalable' ? 1 : 0),
      );
    });
  }

  it('answers impossible regions with a code and goes on', () => {
    // Where messages are served, a file that cannot be mapped is no reason to refuse its region.
    const vm = plug({ features: ALL_FEATURES & ~(FEATURE.PEER_WALKS | FEATURE.REMOTE_MEMORY) });
    const fd = memoryFile('viommu-sim-odd', MIB);
    const add = (change: Partial<MemAdd>): number =>
      vm.client.request(
        MESSAGE.MEM_ADD,
        { ...CODEC.MemAdd.create(), region: 50, gpaHi: 4, sizeLo: MIB, shared: true, ...change },
        [fd],
      ).code;
    expect(add({ sizeLo: 0 }), 'no bytes').toBe(ERRORS.BAD_REGION.code);
    expect(add({ sizeLo: 100 }), 'not whole pages').toBe(ERRORS.BAD_REGION.code);
    expect(add({ gpaLo: 12 }), 'not at a page').toBe(ERRORS.BAD_REGION.code);
    expect(add({ gpaHi: 0xffff_ffff }), 'beyond any address').toBe(ERRORS.BAD_REGION.code);
    expect(add({ sizeHi: 0x7fff_ffff }), 'absurdly large').not.toBe(0);
    expect(add({ sizeLo: 2 * MIB }), 'beyond its file').toBe(ERRORS.FILE_TOO_SHORT.code);
    expect(add({ offsetLo: 4096 }), 'offset beyond its file').toBe(ERRORS.FILE_TOO_SHORT.code);
    expect(add({ gpaHi: 0 }), 'on top of RAM').toBe(ERRORS.REGION_OVERLAPS.code);
    expect(add({}), 'the good one').toBe(0);
    expect(add({ gpaHi: 5 }), 'its number again').toBe(ERRORS.REGION_EXISTS.code);
    expect(vm.client.request(MESSAGE.MEM_REMOVE, { region: 51 }).code).toBe(ERRORS.REGION_UNKNOWN.code);
    expect(vm.client.request(MESSAGE.MEM_REMOVE, { region: 50 }).code).toBe(0);
    closeFd(fd);
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(vm, device(vm), IOVA, DATA);
  });

  it('more than 4 GiB of RAM, in regions of 1 GiB', () => {
    const vm = plug({ ramBytes: 32 * MIB });
    for (let n = 0; n < 5; n++) vm.addRam(PLUGGED + n * 2 ** 30, 2 ** 30);
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    const last = PLUGGED + 5 * 2 ** 30 - 4096;
    driver.map(domain, IOVA, last, 4096);
    expectReaches(vm, device(vm), IOVA, last);
    // Tables above 4 GiB, too.
    const leaf = domain.table?.entryAddress(IOVA, 1) ?? 0;
    vm.ram.store64(last - 4096 + (leaf & 0xfff), vm.ram.load64(leaf));
    vm.ram.store64(domain.table?.entryAddress(IOVA, 2) ?? 0, BigInt(last - 4096) | 3n);
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expectReaches(vm, device(vm), IOVA, last);
  });
});
