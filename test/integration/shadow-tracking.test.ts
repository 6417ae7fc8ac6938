import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { SimContainer } from '../../src/sim/container.js';
import { READ_ONLY } from '../../src/sim/page-table.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { SimVm } from '../../src/sim/vm.js';
import { Daemon } from '../support/daemon.js';
import { DATA, MIB, RAM_BYTES } from '../support/rig.js';
import { SID, startSmmu } from '../support/smmu-rig.js';

/**
 * An assigned device behind an SMMUv3: there is no caching mode, so the guest's stores to its live
 * tables are trapped. When a store has ended the host has what it maps; when an invalidation has
 * completed, nothing that it took away.
 */

const IOVA = 0x4000_0000n;
const OTHER = SID + 8;

let daemon: Daemon;
let vm: SimVm;
let driver: SmmuDriver;
let domain: SmmuDomain;
let host: SimContainer;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});
beforeEach(() => {
  vm = SimVm.connect(daemon.socket, { model: 'smmuv3', ramBytes: RAM_BYTES });
  driver = startSmmu(vm);
  host = vm.assignDevice(1, SID);
  domain = driver.createDomain('first');
  driver.attach(SID, domain);
});
afterEach(() => {
  for (const one of vm.hosts.values()) expect(one.misuse).toEqual([]);
  vm.close();
});

/** What a host has mapped, by rising address. */
function mapped(of: SimContainer = host): string[] {
  return [...of.mappings.values()]
    .sort((a, b) => (a.first < b.first ? -1 : 1))
    .map(
      ({ first, last, gpa, access }) =>
        `${first.toString(16)}+${(last - first + 1n).toString(16)} ${gpa.toString(16)} ${access}`,
    );
}

const data = (offset: number): string => (DATA + offset).toString(16);
const map = (input: bigint, offset: number, bytes = 4096): void =>
  domain.table?.map(input, DATA + offset, bytes);

describe('stores to the live tables of an assigned device', () => {
  it('map at once, without a command, through tables of every level that are linked on the way', () => {
    expect(mapped()).toEqual([]);
    map(IOVA, 0);
    expect(mapped()).toEqual([`40000000+1000 ${data(0)} 3`]);
    domain.table?.map(IOVA + 4096n, DATA + MIB, 4096, READ_ONLY);
    map(IOVA + 0x80_0000_0000n, 0x3000);
    expect(mapped()).toEqual([
      `40000000+1000 ${data(0)} 3`,
      `40001000+1000 ${data(MIB)} 1`,
      `8040000000+1000 ${data(0x3000)} 3`,
    ]);
  });

  it('take away with the store, and again with the command', () => {
    map(IOVA, 0, 8192);
    domain.table?.unmap(IOVA, 4096);
    driver.invalidateRange(domain, IOVA, 4096);
    expect(mapped()).toEqual([`40001000+1000 ${data(0x1000)} 3`]);
  });

  it('end when the halves of an entry have come one by one, and a repeated one asks for nothing', () => {
    map(IOVA, 0);
    const entry = domain.table?.entryAddress(IOVA + 4096n) as number;
    const value = domain.table?.leaf(DATA + 0x5000, { read: true, write: true }, 12) as bigint;
    vm.ram.store32(entry + 4, Number(value >> 32n));
    expect(mapped()).toHaveLength(1);
    vm.ram.store32(entry, Number(value & 0xffff_ffffn));
    expect(mapped()[1]).toBe(`40001000+1000 ${data(0x5000)} 3`);
    const { maps, unmaps } = host;
    vm.ram.store64(entry, value);
    expect([host.maps, host.unmaps]).toEqual([maps, unmaps]);
  });

  it('turn a table into a block and back by break-before-make', () => {
    map(IOVA, 0, 8192);
    const entry = domain.table?.entryAddress(IOVA, 2) as number;
    const table = vm.ram.load64(entry);
    vm.ram.store64(entry, 0n);
    expect(mapped()).toEqual([]);
    driver.invalidateRange(domain, IOVA, 2 * MIB);
    vm.ram.store64(entry, domain.table?.leaf(DATA, { read: true, write: true }, 21) as bigint);
    expect(mapped()).toEqual([`40000000+200000 ${data(0)} 3`]);
    vm.ram.store64(entry, 0n);
    driver.invalidateRange(domain, IOVA, 2 * MIB);
    // What the table has kept comes in one piece.
    vm.ram.store64(entry, table);
    expect(mapped()).toEqual([`40000000+2000 ${data(0)} 3`]);
  });

  it('to a table that is linked twice change both ranges, and none when it is linked no more', () => {
    map(IOVA, 0);
    const entry = domain.table?.entryAddress(IOVA, 2) as number;
    const leaf = domain.table?.entryAddress(IOVA) as number;
    vm.ram.store64(entry + 8, vm.ram.load64(entry));
    expect(mapped()).toEqual([`40000000+1000 ${data(0)} 3`, `40200000+1000 ${data(0)} 3`]);
    const page = leaf / 4096;
    expect(vm.tracked.has(page)).toBe(true);
    vm.ram.store64(leaf + 8, vm.ram.load64(leaf) + 0x1000n);
    expect(mapped()).toHaveLength(4);
    vm.ram.store64(entry, 0n);
    expect(mapped()).toHaveLength(2);
    expect(vm.tracked.has(page)).toBe(true);
    vm.ram.store64(entry + 8, 0n);
    expect(mapped()).toEqual([]);
    expect(vm.tracked.has(page)).toBe(false);
  });

  it('of two streams are tracked once and shadowed for both', () => {
    const other = vm.assignDevice(2, OTHER);
    driver.attach(OTHER, domain);
    map(IOVA, 0);
    expect(mapped(other)).toEqual(mapped());
    const { size } = vm.tracked;
    vm.removeDevice(2);
    vm.settle();
    expect(vm.tracked.size).toBe(size);
    vm.removeDevice(1);
    vm.settle();
    expect(vm.tracked.size).toBe(0);
  });

  it('end with the device, with a reset, and with the stream', () => {
    map(IOVA, 0);
    expect(vm.tracked.size).toBe(domain.table?.levels);
    driver.detach(SID);
    expect(mapped()).toEqual([]);
    expect(vm.tracked.size).toBe(0);
    driver.attach(SID, domain);
    expect(mapped()).toEqual([`40000000+1000 ${data(0)} 3`]);
    vm.reset();
    vm.settle();
    expect(vm.tracked.size).toBe(0);
  });

  it('come for tables in memory that the daemon cannot map, too', () => {
    vm.close();
    vm = SimVm.connect(daemon.socket, { model: 'smmuv3', ramBytes: RAM_BYTES, sharedMemory: false });
    driver = startSmmu(vm);
    host = vm.assignDevice(1, SID);
    domain = driver.createDomain('first');
    driver.attach(SID, domain);
    map(IOVA, 0);
    expect(mapped()).toEqual([`40000000+1000 ${data(0)} 3`]);
  });

  it('of a simulated VM that knows no caching mode are its own business where nothing is assigned', () => {
    vm.removeDevice(1);
    vm.settle();
    map(IOVA, 0);
    expect(vm.tracked.size).toBe(0);
  });
});
