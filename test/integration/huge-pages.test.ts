import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { HUGE_PAGE, HugePages, hugePagesOrWhy } from '../../src/base/testing/huge-pages.js';
import type { RamRegion } from '../../src/sim/sim-ram.js';
import { SimVm } from '../../src/sim/vm.js';
import { MESSAGE } from '../../src/wire/frame.js';
import { Daemon, eventually } from '../support/daemon.js';
import { DATA, device, expectReaches, MIB, RAM_BYTES, RID, startDriver } from '../support/rig.js';

/**
 * A machine whose RAM is in huge pages, told of in the pieces that a PC has of it: a hole, and
 * pieces smaller than a page.
 */

const IOVA = 0x4000_0000n;
const PIECES = [
  [0, 0xa0000],
  [0xc0000, 0xb000],
  [0xcb000, 0x25000],
  [0xf0000, 0x10000],
  [MIB, RAM_BYTES - MIB],
] as const;
const FIRST_REGION = 100;

let reserved: HugePages | string;
let free = 0;
let daemon: Daemon;

beforeAll(async () => {
  reserved = hugePagesOrWhy(RAM_BYTES / HUGE_PAGE);
  free = HugePages.free;
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
  if (typeof reserved !== 'string') reserved.release();
});
beforeEach((context) => {
  if (typeof reserved === 'string') context.skip(reserved);
});

function plug(name: string): { vm: SimVm; region: RamRegion } {
  const vm = SimVm.connect(daemon.socket, { name, ramBytes: 0 });
  const region = vm.ram.add(0, RAM_BYTES, HUGE_PAGE);
  PIECES.forEach(([offset, size], number) => {
    const place = { region: FIRST_REGION + number, gpaLo: offset, gpaHi: 0, sizeLo: size, sizeHi: 0 };
    const file = { offsetLo: offset, offsetHi: 0, readonly: false, shared: true };
    expect(vm.client.request(MESSAGE.MEM_ADD, { ...place, ...file }, [region.fd])).toMatchObject({
      code: 0,
      text: '',
    });
  });
  return { vm, region };
}

/** Mappings of the machine's RAM in the daemon. */
const mapped = (): string[] =>
  readFileSync(`/proc/${daemon.pid}/maps`, 'utf8')
    .split('\n')
    .filter((line) => line.includes('viommu-sim-ram'));

describe('a machine with RAM of huge pages', () => {
  it('does DMA through tables in them, and they are free when it has gone while the daemon runs', async () => {
    const { vm } = plug('huge');
    expect(mapped()).toHaveLength(PIECES.length);
    const driver = startDriver(vm, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    // In all pieces of the first page, and behind it.
    const places = [0x9f000, 0xc0000, 0xcb000, 0xf0000, DATA, RAM_BYTES - 4096];
    places.forEach((gpa, index) => {
      const input = IOVA + BigInt(index) * 4096n;
      driver.map(domain, input, gpa, 4096);
      expectReaches(vm, device(vm), input, gpa);
    });
    vm.close();
    await eventually(() => mapped().length === 0, 'the daemon to give up the memory');
    await eventually(() => HugePages.free === free, 'the huge pages to be free');
    expect(daemon.running).toBe(true);
  });

  it('lets go of a region that is unplugged, and takes another machine’s after many', async () => {
    for (let round = 0; round < 5; round++) {
      const { vm } = plug(`huge-${round}`);
      expect(vm.client.request(MESSAGE.MEM_REMOVE, { region: FIRST_REGION }).code).toBe(0);
      expect(mapped()).toHaveLength(PIECES.length - 1);
      vm.close();
      await eventually(() => HugePages.free === free, 'the huge pages to be free');
    }
    expect(daemon.log().filter(({ level }) => level >= 50)).toEqual([]);
  });
});
