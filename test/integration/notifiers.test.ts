import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { SPAN_WORDS } from '../../src/device/iommu.js';
import { READ_ONLY } from '../../src/sim/page-table.js';
import { SimVm } from '../../src/sim/vm.js';
import { FIRST_STAGE } from '../../src/sim/vtd-table-format.js';
import { ALL_FEATURES, FEATURE, MESSAGE, NOTIFY } from '../../src/wire/frame.js';
import { Daemon } from '../support/daemon.js';
import { DATA, RAM_BYTES, RID, startDriver } from '../support/rig.js';

const IOVA = 0x4000_0000n;
const OTHER = RID + 8;

interface Mapping {
  readonly input: bigint;
  readonly output: number;
  readonly log2: number;
  readonly permissions: number;
}

/** Everything that REPLAY tells of a requester, asked page by page as a bridge does. */
function replay(vm: SimVm, rid: number, pasid = NO_PASID, from = 0n): Mapping[] {
  const found: Mapping[] = [];
  for (let at = from, round = 0; round < 1000; round++) {
    const message = { rid, pasid: pasid + 1, lo: Number(at & 0xffff_ffffn), hi: Number(at >> 32n) };
    const { spans, more } = vm.client.request(MESSAGE.REPLAY, message);
    for (let i = 0; i < spans.length; i += SPAN_WORDS) {
      found.push({
        input: (BigInt(spans[i + 1]) << 32n) | BigInt(spans[i]),
        output: spans[i + 3] * 2 ** 32 + spans[i + 2],
        log2: spans[i + 4],
        permissions: spans[i + 5],
      });
    }
    const last = found.at(-1);
    if (!more || last === undefined) return found;
    at = last.input + (1n << BigInt(last.log2));
  }
  throw new Error('REPLAY does not come to an end');
}

/** Page by page, so that it does not matter how spans were joined. */
function pages(mappings: readonly Mapping[]): Map<bigint, string> {
  const found = new Map<bigint, string>();
  for (const { input, output, log2, permissions } of mappings) {
    for (let n = 0; n < 2 ** (log2 - 12); n++) {
      const page = input + BigInt(n) * 4096n;
      expect(found.has(page), `page 0x${page.toString(16)} told twice`).toBe(false);
      found.set(page, `${(output + n * 4096).toString(16)} ${permissions & 3}`);
    }
  }
  return found;
}

/** Peers without HOST_BATCH: the daemon names devices and is asked what is mapped. */
describe('notifiers and replay', () => {
  let daemon: Daemon;
  let vm: SimVm;
  const heard: number[][] = [];
  beforeAll(async () => {
    daemon = await Daemon.start();
    vm = SimVm.connect(daemon.socket, {
      ramBytes: RAM_BYTES,
      options: { 'caching-mode': 'on' },
      features: ALL_FEATURES & ~FEATURE.HOST_BATCH,
    });
    vm.addDevice(1, RID, 'one');
    vm.addDevice(2, OTHER, 'two');
  });
  beforeEach(() => {
    for (const device of [1, 2]) vm.notify(device, 0);
    vm.reset();
    heard.length = 0;
    vm.onInvalidate = (message) => heard.push(Array.from(message.devices));
  });
  afterAll(async () => {
    vm.close();
    await daemon.dispose();
  });

  it('tells exactly what is mapped, in ascending order, over several answers', () => {
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    const expected = new Map<bigint, string>();
    for (let n = 0; n < 300; n++) {
      // Odd pages only, backwards in memory: nothing can be joined.
      const input = IOVA + BigInt(n) * 8192n;
      const output = DATA + (300 - n) * 4096;
      domain.table?.map(input, output, 4096, n % 3 === 0 ? READ_ONLY : undefined);
      expected.set(input, `${output.toString(16)} ${n % 3 === 0 ? 1 : 3}`);
    }
    domain.table?.map(0x80_0000_0000n, DATA, 2 ** 21, undefined, 21);
    for (let n = 0; n < 512; n++) {
      expected.set(0x80_0000_0000n + BigInt(n) * 4096n, `${(DATA + n * 4096).toString(16)} 3`);
    }
    const told = replay(vm, RID);
    expect(pages(told)).toEqual(expected);
    const inputs = told.map(({ input }) => input);
    expect(inputs).toEqual([...inputs].sort((a, b) => (a < b ? -1 : 1)));
    expect(replay(vm, RID, NO_PASID, IOVA + 299n * 8192n).length).toBeLessThan(5);
  });

  it('tells of a first stage without setting Accessed or Dirty', () => {
    const driver = startDriver(vm, 'scalable');
    const domain = driver.createDomain('first');
    driver.attach(RID, domain, { pasid: 3 });
    driver.map(domain, IOVA, DATA, 4 * 4096);
    expect(pages(replay(vm, RID, 3)).size).toBe(4);
    const entry = domain.table?.entryAddress(IOVA) ?? 0;
    expect(vm.ram.load64(entry) & (FIRST_STAGE.A | FIRST_STAGE.D)).toBe(0n);
  });

  it('tells nothing of requesters without tables, and records no fault', () => {
    const driver = startDriver(vm, 'legacy');
    expect(replay(vm, 0x1234)).toEqual([]);
    expect(driver.faults.drain()).toEqual([]);
  });

  it('names the devices whose translations an invalidation may concern, and those only', () => {
    const driver = startDriver(vm, 'legacy');
    const [one, two] = [driver.createDomain('second'), driver.createDomain('second')];
    driver.attach(RID, one);
    driver.attach(OTHER, two);
    vm.notify(1, NOTIFY.UNMAP | NOTIFY.MAP);
    vm.notify(2, NOTIFY.UNMAP);
    heard.length = 0;
    driver.map(one, IOVA, DATA, 4096);
    expect(heard.flat(), 'a new mapping is announced under caching mode').toEqual([1]);
    heard.length = 0;
    driver.unmap(two, IOVA, 4096);
    expect(heard.flat()).toEqual([2]);
    heard.length = 0;
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expect(new Set(heard.flat())).toEqual(new Set([1, 2]));
    vm.notify(1, 0);
    heard.length = 0;
    driver.unmap(one, IOVA, 4096);
    expect(heard.flat(), 'a device without notifiers is not named').toEqual([]);
  });

  it('a wait completes only after the notified device was heard of, though no translation was asked for', () => {
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    vm.notify(1, NOTIFY.UNMAP | NOTIFY.MAP);
    const before = driver.queue?.completed();
    let during: number | undefined;
    vm.onInvalidate = () => {
      during = driver.queue?.completed();
    };
    driver.map(domain, IOVA, DATA, 4096);
    expect(during).toBe(before);
    expect(driver.queue?.completed()).not.toBe(before);
  });

  it('forgets a removed device', () => {
    vm.addDevice(9, 0x40, 'nine');
    vm.notify(9, NOTIFY.UNMAP);
    vm.removeDevice(9);
    const driver = startDriver(vm, 'legacy');
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expect(heard.flat()).not.toContain(9);
  });
});
