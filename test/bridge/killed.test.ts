import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SimVm } from '../../src/sim/vm.js';
import { Daemon, eventually } from '../support/daemon.js';
import { DATA, device, expectReaches, RAM_BYTES, RID, startDriver } from '../support/rig.js';
import { titled } from '../support/titled.js';
import { type AssignedMachine, SmmuAssigned, VtdAssigned } from './assigned-machine.js';
import { type Passing, Relay } from './relay.js';
import { COMMAND, STATUS } from './testdev-driver.js';

/**
 * One side is killed in the middle of what is done to the mappings of an assigned device. Without
 * its daemon the device reaches nothing any more, whatever was mapped, and QEMU says so once and
 * goes on. Without a QEMU the daemon says so and keeps nothing of it, and other machines do not
 * notice.
 */

const UNITS = [
  { unit: 'VT-d', make: () => new VtdAssigned() },
  { unit: 'SMMUv3', make: () => new SmmuAssigned() },
] as const;

/** Where a page that gets other memory stops: at which frame nothing passes any more. */
const MOMENTS: readonly { readonly moment: string; readonly holds: (frame: Passing) => boolean }[] = [
  { moment: 'before the unmapping', holds: ({ operation }) => operation === 'unmap' },
  { moment: 'between the unmapping and the mapping', holds: ({ operation }) => operation === 'map' },
  { moment: 'while the mapping is done', holds: ({ answers }) => answers === 'map' },
];

let daemon: Daemon;
let relay: Relay | undefined;
let machine: AssignedMachine;

beforeEach(async () => {
  daemon = await Daemon.start();
});
afterEach(async () => {
  machine.dispose();
  await relay?.dispose();
  relay = undefined;
  await daemon.dispose();
});

async function kill(): Promise<void> {
  daemon.signal('SIGKILL');
  await daemon.exited;
  relay?.hangUp();
}

/** Pages that were mapped, and all RAM, which was before translation was on. */
async function expectNothingIsReached(indexes: readonly number[]): Promise<void> {
  const { qemu } = machine;
  await eventually(() => qemu.text.includes('get no DMA through'), 'QEMU to notice');
  // An answer from the main loop, behind what it had to do before.
  expect(await qemu.command('query-status')).toMatchObject({ running: false });
  for (const index of indexes) {
    expect(await machine.dma(COMMAND.READ, machine.iova(index)), `page ${index}`).toBe(STATUS.FAULT);
  }
  expect(await machine.dma(COMMAND.READ, machine.data)).toBe(STATUS.FAULT);
  expect(qemu.text.trim().split('\n')).toHaveLength(1);
  expect(await machine.trackedPages()).toEqual([]);
}

describe.each(titled(UNITS, ({ unit }) => `a daemon that is killed, ${unit}:`))(
  '%s',
  (_title, { unit, make }) => {
    it.each(titled(MOMENTS, ({ moment }) => moment))('%s', async (_title, { moment, holds }) => {
      machine = make();
      const { data } = machine;
      relay = await Relay.start(machine.qemu.socket, daemon.socket);
      await machine.start();
      await machine.enable();
      await machine.change(0, data);
      await machine.settled();
      await machine.change(1, data + 0x5000);
      await machine.settled();
      await machine.expectReaches(machine.iova(0), data);
      await machine.expectReaches(machine.iova(1), data + 0x5000);
      relay.holds = holds;
      const change = machine.change(0, data + 0x2000);
      await relay.cut;
      // The SMMUv3's store holds QEMU's main loop until it has ended, a register write until it is
      // answered.
      if (unit === 'VT-d' && !moment.startsWith('before')) {
        await change;
        if (moment.startsWith('while')) await machine.expectReaches(machine.iova(0), data + 0x2000);
        if (moment.startsWith('between')) {
          expect(await machine.dma(COMMAND.READ, machine.iova(0))).toBe(STATUS.FAULT);
        }
        await machine.expectReaches(machine.iova(1), data + 0x5000);
      }
      await kill();
      await change;
      await expectNothingIsReached([0, 1]);
      await machine.qemu.command('system_reset');
      await machine.open();
      await expectNothingIsReached([0, 1]);
      expect(await machine.qemu.quit()).toBe(0);
    });

    it.each([0, 1, 2, 3])('%i ms after mappings of scattered pages were asked for', async (ms) => {
      machine = make();
      const { data } = machine;
      const scattered = (seed: number) => (index: number) => data + (((index + seed) * 7919) % 16384) * 4096;
      relay = await Relay.start(machine.qemu.socket, daemon.socket);
      await machine.start();
      await machine.enable();
      await machine.fill(0, scattered(0));
      await machine.settled();
      await machine.expectReaches(machine.iova(77), scattered(0)(77));
      let killed: Promise<void> | undefined;
      relay.holds = ({ operation }) => {
        if (operation === 'map') killed ??= sleep(ms).then(kill);
        return false;
      };
      await machine.fill(0, scattered(5)).catch(() => undefined);
      await eventually(() => killed !== undefined, 'the mappings to be asked for');
      await killed;
      await expectNothingIsReached([0, 1, 77, 511]);
      expect(await machine.qemu.quit()).toBe(0);
    });
  },
);

describe.each(titled(UNITS, ({ unit }) => `a QEMU that is killed, ${unit}:`))('%s', (_title, { make }) => {
  const IOVA = 0x4000_0000n;
  let other: SimVm;

  beforeEach(() => {
    other = SimVm.connect(daemon.socket, { name: 'other', ramBytes: RAM_BYTES });
    const driver = startDriver(other, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
  });
  afterEach(() => other.close());

  /** The daemon walks the other machine's tables. */
  function expectOtherGoesOn(): void {
    other.iotlb.clear();
    expectReaches(other, device(other), IOVA, DATA);
  }

  async function begin(): Promise<Relay> {
    machine = make();
    relay = await Relay.start(machine.qemu.socket, daemon.socket);
    await machine.start();
    await machine.enable();
    await machine.change(0, machine.data);
    await machine.settled();
    await machine.expectReaches(machine.iova(0), machine.data);
    return relay;
  }

  async function end(): Promise<void> {
    machine.qemu.kill();
    await machine.qemu.exited;
    machine.dispose();
    await relay?.dispose();
  }

  it('in the middle of a batch, however often: nothing is left of it', async () => {
    expectOtherGoesOn();
    const [mappings, descriptors] = [daemon.guestMappings().length, daemon.descriptors().length];
    let [threads, all] = [0, 0];
    for (const { moment, holds } of MOMENTS) {
      const passing = await begin();
      expect(daemon.guestMappings().length).toBeGreaterThan(mappings);
      passing.holds = holds;
      // This QEMU is killed before it answers.
      machine.change(0, machine.data + 0x2000).catch(() => undefined);
      await passing.cut;
      const before = daemon.log().length;
      await end();
      const line = await eventually(
        () => daemon.log().find((_, at) => at >= before),
        `a log line, ${moment}`,
      );
      expect(line).toMatchObject({ vm: 'bridge-test', code: 'PEER_CLOSED', level: 30 });
      expect(line.msg).toBe('disconnected: the peer closed the connection');
      await eventually(() => daemon.guestMappings().length === mappings, `mappings, ${moment}`);
      await eventually(() => daemon.descriptors().length === descriptors, `descriptors, ${moment}`);
      expectOtherGoesOn();
      if (threads === 0) [threads, all] = [daemon.threadCount(), daemon.descriptorCount()];
    }
    // A thread is made ahead: one for each machine that was killed would be more.
    await eventually(() => daemon.threadCount() <= threads + 1, 'the threads to be gone');
    await eventually(() => daemon.descriptorCount() < all + 12, 'the other descriptors to be gone');
    expect(daemon.log().filter(({ level }) => level > 30)).toEqual([]);
    expect(await daemon.stop()).toBe(0);
  });

  it.each([0, 1, 2])('%i ms after mappings of scattered pages were asked for', async (ms) => {
    const passing = await begin();
    let killed: Promise<void> | undefined;
    passing.holds = ({ operation }) => {
      if (operation === 'map') killed ??= sleep(ms).then(() => machine.qemu.kill());
      return false;
    };
    const { data } = machine;
    machine.fill(1, (index) => data + ((index * 7919) % 16384) * 4096).catch(() => undefined);
    await eventually(() => killed !== undefined, 'the mappings to be asked for');
    await end();
    const line = await eventually(() => daemon.log().find(({ code }) => code !== undefined), 'a log line');
    expect(line).toMatchObject({ vm: 'bridge-test', code: 'PEER_CLOSED' });
    expectOtherGoesOn();
  });
});
