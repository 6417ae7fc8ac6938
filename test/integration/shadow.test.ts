import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ACCESS } from '../../src/device/iommu.js';
import { HOST_ERROR, type SimContainer } from '../../src/sim/container.js';
import { READ_ONLY } from '../../src/sim/page-table.js';
import { SimVm } from '../../src/sim/vm.js';
import type { VtdDriver } from '../../src/sim/vtd-driver.js';
import { ALL_FEATURES, FEATURE, MESSAGE, NOTIFY } from '../../src/wire/frame.js';
import { Daemon, eventually, MAIN } from '../support/daemon.js';
import { DATA, MIB, RAM_BYTES, RID, startDriver } from '../support/rig.js';

/**
 * Assigned devices of a simulated VM, whose host obeys type1's rules: they reach what the guest has
 * mapped and nothing else.
 */

const IOVA = 0x4000_0000n;
const OTHER = RID + 8;

let daemon: Daemon;
let vm: SimVm;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});
beforeEach(() => {
  vm = SimVm.connect(daemon.socket, { ramBytes: RAM_BYTES, options: { 'caching-mode': 'on' } });
});
afterEach(() => {
  for (const host of vm.hosts.values()) expect(host.misuse).toEqual([]);
  vm.close();
});

/** What a host has mapped, by rising address. */
function mapped(host: SimContainer): string[] {
  return [...host.mappings.values()]
    .sort((a, b) => (a.first < b.first ? -1 : 1))
    .map(
      ({ first, last, gpa, access }) =>
        `${first.toString(16)}+${(last - first + 1n).toString(16)} ${gpa.toString(16)} ${access}`,
    );
}

/** `viommu diff` as a person runs it. */
async function diff(): Promise<{ code: number; text: string }> {
  const args = [MAIN, 'diff', '--control', `${daemon.socket}.ctl`];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  return { code, text: text.trim() };
}

const data = (offset: number): string => (DATA + offset).toString(16);

function attached(
  mode: 'legacy' | 'scalable',
  rid = RID,
): { driver: VtdDriver; domain: ReturnType<VtdDriver['createDomain']> } {
  const driver = startDriver(vm, mode);
  const domain = driver.createDomain('second');
  driver.attach(rid, domain);
  return { driver, domain };
}

describe('assigned devices', () => {
  it('reach all RAM while translation is off, and nothing when it is on', () => {
    const host = vm.assignDevice(1, RID);
    expect(mapped(host)).toEqual([`0+${RAM_BYTES.toString(16)} 0 3`]);
    startDriver(vm, 'legacy');
    vm.settle();
    expect(mapped(host)).toEqual([]);
  });

  for (const mode of ['legacy', 'scalable'] as const) {
    it(`${mode}: a map is in force when its invalidation completes, an unmap when its own does`, () => {
      const host = vm.assignDevice(1, RID);
      const { driver, domain } = attached(mode);
      driver.map(domain, IOVA, DATA, 4 * MIB);
      expect(mapped(host)).toEqual([`${IOVA.toString(16)}+400000 ${data(0)} 3`]);
      driver.map(domain, IOVA + 0x80_0000n, DATA, 4096, READ_ONLY);
      expect(host.reach(IOVA + 0x80_0004n, ACCESS.WRITE)).toBeUndefined();
      expect(host.reach(IOVA + 0x80_0004n, ACCESS.READ)?.gpa).toBe(DATA);
      driver.unmap(domain, IOVA, 4 * MIB);
      expect(mapped(host)).toEqual([`${(IOVA + 0x80_0000n).toString(16)}+1000 ${data(0)} 1`]);
      driver.detach(RID, domain);
      expect(mapped(host)).toEqual([]);
      // One operation for each change: 1024 pages are one mapping.
      expect(host.maps).toBeLessThanOrEqual(3);
    });
  }

  it('first-stage tables change in silence: it is said, once, and what a machine can do about it', async () => {
    vm.assignDevice(1, RID);
    const driver = startDriver(vm, 'scalable');
    const warnings = (): number => daemon.log().filter(({ msg }) => msg.includes('first-stage=off')).length;
    driver.attach(RID, driver.createDomain('second'));
    vm.settle();
    const before = warnings();
    for (let again = 0; again < 2; again++) {
      const domain = driver.createDomain('first');
      driver.attach(RID, domain);
      driver.detach(RID, domain);
    }
    vm.settle();
    await eventually(() => warnings() > before, 'the warning');
    expect(warnings()).toBe(before + 1);
  });

  it('no completion is seen before the host has answered', () => {
    const host = vm.assignDevice(1, RID);
    const { driver, domain } = attached('legacy');
    const seen: (number | undefined)[] = [];
    vm.onHostBatch = () => seen.push(driver.queue?.completed());
    const before = driver.queue?.completed();
    driver.map(domain, IOVA, DATA, 4096);
    expect(seen).toEqual([before]);
    expect(driver.queue?.completed()).not.toBe(before);
    expect(host.mappings.size).toBe(1);
  });

  it('an invalidation that changed nothing sends nothing, and completes', () => {
    const host = vm.assignDevice(1, RID);
    const { driver, domain } = attached('legacy');
    driver.map(domain, IOVA, DATA, 4 * MIB);
    const { maps, unmaps } = host;
    driver.invalidate.iotlbDomain(domain.did);
    driver.invalidate.sync();
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expect([host.maps, host.unmaps]).toEqual([maps, unmaps]);
  });

  it('two devices in one domain have the same; invalidations name neither', () => {
    const named: number[] = [];
    vm.onInvalidate = (message) => named.push(...Array.from(message.devices));
    const [one, two] = [vm.assignDevice(1, RID), vm.assignDevice(2, OTHER)];
    const { driver, domain } = attached('legacy');
    driver.attach(OTHER, domain);
    driver.map(domain, IOVA, DATA, 64 * 1024);
    expect(mapped(one)).toEqual(mapped(two));
    expect(mapped(one)).toHaveLength(1);
    expect(named).toEqual([]);
  });

  it('mappings that the host refuses are reported, and made when there is room', async () => {
    const host = vm.assignDevice(1, RID, 'nic');
    const { driver, domain } = attached('legacy');
    host.limit = 2;
    for (let n = 0; n < 4; n++) driver.map(domain, IOVA + BigInt(n * 8192), DATA, 4096);
    expect(host.mappings.size).toBe(2);
    expect(host.reach(IOVA + 3n * 8192n, ACCESS.READ)).toBeUndefined();
    driver.unmap(domain, IOVA, 4096);
    expect(host.reach(IOVA + 2n * 8192n, ACCESS.READ)?.gpa).toBe(DATA);
    driver.unmap(domain, IOVA + 8192n, 4096);
    vm.settle();
    expect(host.mappings.size).toBe(2);
    await eventually(() => daemon.log().find(({ msg }) => msg.includes('host refused to map')), 'a log line');
  });

  it('a host that keeps a mapping is emptied; one that keeps everything ends the session', () => {
    const host = vm.assignDevice(1, RID);
    const { driver, domain } = attached('legacy');
    driver.map(domain, IOVA, DATA, 4096);
    driver.map(domain, IOVA + 8192n, DATA, 4096);
    let refusals = 1;
    host.refuse = (access) => (access === 0 && refusals-- > 0 ? HOST_ERROR.INVALID : 0);
    driver.unmap(domain, IOVA, 4096);
    vm.settle();
    expect(mapped(host)).toEqual([`${(IOVA + 8192n).toString(16)}+1000 ${data(0)} 3`]);
    host.refuse = (access) => (access === 0 ? HOST_ERROR.INVALID : 0);
    expect(() => driver.unmap(domain, IOVA + 8192n, 4096)).toThrow();
    expect(vm.client.awaitEnd().message).toMatch(/keeps mappings that must go/);
  });

  it('RAM that goes is unmapped before MEM_REMOVE is settled', () => {
    const host = vm.assignDevice(1, RID);
    const region = vm.addRam(0x1_0000_0000, 2 * MIB);
    vm.settle();
    expect(host.reach(0x1_0000_0000n, ACCESS.READ)?.gpa).toBe(0x1_0000_0000);
    vm.removeRam(region);
    vm.settle();
    expect(host.reach(0x1_0000_0000n, ACCESS.READ)).toBeUndefined();
    const { driver, domain } = attached('legacy');
    driver.map(domain, IOVA, 0x1_0000_0000, 4096);
    expect(mapped(host)).toEqual([]);
    vm.addRam(0x1_0000_0000, 2 * MIB);
    vm.settle();
    expect(mapped(host)).toEqual([`${IOVA.toString(16)}+1000 100000000 3`]);
  });

  it('viommu diff is empty when all is right, and names what is not with its entries', async () => {
    const host = vm.assignDevice(1, RID);
    const { driver, domain } = attached('legacy');
    driver.map(domain, IOVA, DATA, 64 * 1024);
    expect(await diff()).toEqual({ code: 0, text: 'no difference: 1 assigned devices, 1 host mappings' });
    // Changed behind the unit's back: not announced, so not mapped.
    domain.table?.map(IOVA + 0x80_0000n, DATA, 4096);
    domain.table?.unmap(IOVA + 4096n, 4096);
    const { code, text } = await diff();
    expect(code).toBe(1);
    const lines = text.split('\n');
    expect(lines.filter((line) => line.startsWith('00:03.0'))).toEqual([
      '00:03.0 0x0000000040001000-0x0000000040001fff  tables: nothing  host: 0x0000000001001000 rw',
      '00:03.0 0x0000000040800000-0x0000000040800fff  tables: 0x0000000001000000 rw  host: not mapped',
    ]);
    expect(text).toMatch(/SS-PTE\[1\] at 0x[0-9a-f]+: 0x0000000000000000/);
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expect((await diff()).code).toBe(0);
    expect(host.misuse).toEqual([]);
  });

  it('a reset leaves what the power-on state says', () => {
    const host = vm.assignDevice(1, RID);
    const { driver, domain } = attached('legacy');
    driver.map(domain, IOVA, DATA, 4096);
    vm.reset();
    vm.settle();
    expect(mapped(host)).toEqual([`0+${RAM_BYTES.toString(16)} 0 3`]);
  });

  it('a peer without the feature is told by INVALIDATE and REPLAY, as before', () => {
    vm.close();
    vm = SimVm.connect(daemon.socket, {
      ramBytes: RAM_BYTES,
      options: { 'caching-mode': 'on' },
      features: ALL_FEATURES & ~FEATURE.HOST_BATCH,
    });
    const named: number[] = [];
    vm.onInvalidate = (message) => named.push(...Array.from(message.devices));
    vm.addDevice(1, RID);
    vm.notify(1, NOTIFY.UNMAP | NOTIFY.MAP);
    const { driver, domain } = attached('legacy');
    named.length = 0;
    driver.map(domain, IOVA, DATA, 4096);
    expect(named).toEqual([1]);
    expect(() => vm.client.request(MESSAGE.HOST_SETTLE, {})).toThrow(/not in force/);
  });

  it('a range of a device that wants no MAP events, or of half pages, ends the session', () => {
    vm.addDevice(1, RID);
    const all = { firstLo: 0, firstHi: 0, lastLo: 0xffff_ffff, lastHi: 0xffff_ffff };
    vm.client.post(MESSAGE.HOST_LISTEN, { device: 1, ...all });
    expect(() => vm.settle()).toThrow(/does not want MAP events/);
  });
});
