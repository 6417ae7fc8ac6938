import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ANY } from '../../src/base/ids.js';
import { ALL_FEATURES, FEATURE, MESSAGE, NOTIFY } from '../../src/wire/frame.js';
import { eventually } from '../support/daemon.js';
import { BridgeBuild } from './make.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { answerHello, type Script, ScriptedDaemon } from './scripted-daemon.js';
import { TestdevDriver } from './testdev-driver.js';

/** IOMMU notifiers: what VFIO and vhost hear, and what the daemon hears of them. */

const EVERYTHING = {
  space: ANY,
  sub: ANY,
  rid: ANY,
  pasid: ANY,
  lo: 0,
  hi: 0,
  log2Size: 64,
  structures: false,
};
/** Machine of {@link BridgeQemu}: pci.0 slots 1 (NVMe) and 2. */
const TESTDEV_RID = 0x10;
const UNIT = 0xfed9_0000;

let probes: BridgeBuild;
let qemu: BridgeQemu;
let daemon: ScriptedDaemon | undefined;

beforeAll(() => {
  probes = new BridgeBuild('probe');
});

afterAll(() => {
  probes.dispose();
});

beforeEach(() => {
  qemu = new BridgeQemu();
});

afterEach(async () => {
  qemu.dispose();
  await daemon?.dispose();
  daemon = undefined;
});

async function start(asks: string, options: string, given: Script): Promise<ScriptedDaemon> {
  const script = { without: FEATURE.HOST_BATCH, ...given };
  daemon = await ScriptedDaemon.start(qemu.socket, script);
  const object = probes.path('notifier-probe.so');
  const gdb = `unix:${qemu.path('gdb')},server=on,wait=off`;
  qemu.start(options, ['-S', '-device', 'viommu-testdev', '-gdb', gdb], { asks, object });
  const running = daemon;
  await eventually(() => running.received.includes('RESET'), 'the reset at power-on');
  // The monitor answers when the main loop is through with it, notifiers included.
  await qemu.command('query-status');
  await eventually(() => /probe: (registered|refused)/.test(qemu.text), `the probe: ${qemu.text}`);
  return running;
}

/** What the guest's kernel does to the test device before it translates ahead. */
async function switchAtsOn(): Promise<void> {
  const memory = await PhysicalMemory.connect(qemu.path('gdb'));
  const device = await TestdevDriver.start(qemu, memory, TESTDEV_RID, 0);
  await device.enableAts();
  memory.close();
}

/** Events so far, without the probe's own remarks. */
function events(): string[] {
  return qemu.text
    .split('\n')
    .map((line) => line.replace(/^probe: /, ''))
    .filter((line) => /^(un)?map /.test(line));
}

/**
 * What comes after the first `count` events, when there are as many as expected: text may lag
 * behind sockets.
 */
async function eventsAfter(count: number, expected: readonly string[]): Promise<void> {
  await eventually(() => events().length >= count + expected.length, `events: ${qemu.text}`);
  expect(events().slice(count)).toEqual(expected);
}

/** Two pages and a 2 MiB block far above, in two answers. */
const TWO_ANSWERS: NonNullable<Script['replay']> = (from) =>
  from <= 0x5000
    ? { spans: [0x4000, 0, 0x9000, 0, 12, 3, 0x5000, 0, 0x7000, 0, 12, 1], more: true }
    : { spans: [0, 1, 0x400000, 0, 21, 3], more: false };
const UNMAPPED = 'unmap 0+ffffffffffff -> 0 perm 0';
const REPLAYED = [
  'map 4000+fff -> 9000 perm 3',
  'map 5000+fff -> 7000 perm 1',
  'map 100000000+1fffff -> 400000 perm 3',
];

describe('a listener that wants to hear of new mappings', () => {
  it('is refused without caching mode', async () => {
    const running = await start('map', '', {});
    expect(qemu.text).toMatch(/refused: device 02\.0 .*caching-mode=on/);
    expect(running.notifiers).toEqual([]);
  });

  it('hears what is mapped, page by page of the enumeration', async () => {
    const running = await start('map', ',caching-mode=on', { replay: TWO_ANSWERS });
    await eventsAfter(0, [...REPLAYED, UNMAPPED, ...REPLAYED]);
    const device = running.devices.find(({ rid }) => rid === TESTDEV_RID);
    expect(running.notifiers).toEqual([{ device: device?.device, flags: NOTIFY.UNMAP | NOTIFY.MAP }]);
  });

  it('hears of pass-through as the RAM that there is', async () => {
    await start('map', ',caching-mode=on', {
      replay: () => ({ spans: [0, 0, 0, 0, 64, 3], more: false }),
    });
    const pieces = events()
      .slice(events().indexOf(UNMAPPED) + 1)
      .map((line) => /^map (\w+)\+(\w+) -> (\w+) perm 3$/.exec(line));
    let bytes = 0;
    for (const piece of pieces) {
      const [iova, mask, to] = (piece ?? []).slice(1).map((text) => Number.parseInt(text, 16));
      expect(to).toBe(iova);
      expect((iova ?? 1) % ((mask ?? 0) + 1)).toBe(0);
      bytes += (mask ?? 0) + 1;
    }
    // 128 MiB, less what the firmware's shadow makes read-only, plus the test device's buffer.
    expect(bytes).toBeGreaterThan(127 << 20);
    expect(bytes).toBeLessThan(129 << 20);
  });

  it('hears of an invalidation: unmapped, then what is mapped now', async () => {
    const running = await start('map', ',caching-mode=on', { replay: TWO_ANSWERS });
    await eventsAfter(4, REPLAYED);
    const devices = running.notifiers.map(({ device }) => device);
    await running.ask(MESSAGE.INVALIDATE, { ...EVERYTHING, epoch: 1, devices });
    await eventsAfter(7, [UNMAPPED, ...REPLAYED]);
    await running.ask(MESSAGE.INVALIDATE, { ...EVERYTHING, epoch: 2, lo: 0x5000, log2Size: 12, devices });
    await eventsAfter(11, ['unmap 5000+fff -> 0 perm 0', 'map 5000+fff -> 7000 perm 1']);
  });

  it('hears at a reset that nothing is mapped any more, then what is', async () => {
    await start('map', ',caching-mode=on', { replay: TWO_ANSWERS });
    await eventsAfter(4, REPLAYED);
    await qemu.command('system_reset');
    await eventsAfter(7, [UNMAPPED, ...REPLAYED]);
    expect(await qemu.quit()).toBe(0);
  });
});

describe('a listener that wants to hear of invalidations only', () => {
  it('needs no caching mode, and hears of nothing else', async () => {
    const running = await start('unmap', '', { replay: TWO_ANSWERS });
    expect(running.notifiers.map(({ flags }) => flags)).toEqual([NOTIFY.UNMAP]);
    await eventsAfter(0, [UNMAPPED]);
    const devices = running.notifiers.map(({ device }) => device);
    await running.ask(MESSAGE.INVALIDATE, { ...EVERYTHING, epoch: 1, lo: 0x200000, log2Size: 21, devices });
    await eventsAfter(1, ['unmap 200000+1fffff -> 0 perm 0']);
  });
});

describe('a listener that keeps translations for a device with ATS', () => {
  it('hears of the invalidations of that device, and not of the IOMMU', async () => {
    const running = await start('device-iotlb', '', {});
    expect(running.notifiers.map(({ flags }) => flags)).toEqual([0]);
    await running.ask(MESSAGE.INVALIDATE, { ...EVERYTHING, epoch: 1, devices: [] });
    const drop = { rid: TESTDEV_RID, pasid: 0, lo: 0x20_0000, hi: 0, log2Size: 21, global: false };
    await running.ask(MESSAGE.DEVICE_TLB, { ...drop, rid: 0x48 });
    await running.ask(MESSAGE.DEVICE_TLB, { ...drop, pasid: 5 });
    await switchAtsOn();
    await running.ask(MESSAGE.DEVICE_TLB, drop);
    await eventsAfter(0, ['unmap 200000+1fffff -> 0 perm 0']);
  });

  it('is refused where the daemon has no ATS', async () => {
    const features = ALL_FEATURES & ~FEATURE.ATS;
    await start('device-iotlb', '', { hello: (channel, id) => answerHello(channel, id, { features }) });
    expect(qemu.text).toMatch(/refused: device 02\.0: this IOMMU offers no device IOTLB/);
  });
});

/** Words of one operation of a HOST_BATCH. */
function operation(access: number, first: number, last: number, gpa = 0): number[] {
  return [
    access,
    first % 2 ** 32,
    Math.floor(first / 2 ** 32),
    last % 2 ** 32,
    Math.floor(last / 2 ** 32),
    gpa,
    0,
  ];
}

describe('a listener whose mappings the daemon keeps', () => {
  it('is announced with its range, and hears what is asked for in blocks', async () => {
    const running = await start('map', ',caching-mode=on', { without: 0 });
    expect(running.notifiers.map(({ flags }) => flags)).toEqual([NOTIFY.UNMAP | NOTIFY.MAP]);
    const device = running.notifiers[0]?.device ?? 0;
    expect(running.listens).toEqual([
      { device, firstLo: 0, firstHi: 0, lastLo: 0xffff_ffff, lastHi: 0xffff },
    ]);
    const ops = [
      ...operation(0, 0, 2 ** 48 - 1),
      ...operation(3, 0x5000, 0x7fff, 0x9000),
      ...operation(1, 2 ** 33, 2 ** 33 + 0x1f_ffff, 0x40_0000),
      ...operation(0, 0x5000, 0x5fff),
    ];
    const { failures } = await running.ask(MESSAGE.HOST_BATCH, { device, ops });
    expect(Array.from(failures)).toEqual([]);
    await eventsAfter(0, [
      UNMAPPED,
      'map 5000+fff -> 9000 perm 3',
      'map 6000+1fff -> a000 perm 3',
      'map 200000000+1fffff -> 400000 perm 1',
      'unmap 5000+fff -> 0 perm 0',
    ]);
  });

  it('hears what comes with the answer to a register write before the write ends, and the daemon hears of it', async () => {
    const write: Script['write'] = ({ lo }) => ({
      batch: lo,
      device: 1,
      ops: lo === 0 ? [] : [...operation(3, 0x5000, 0x5fff, 0x9000), ...operation(0, 0, 2 ** 48 - 1)],
    });
    const running = await start('map', ',caching-mode=on', { without: 0, write });
    const memory = await PhysicalMemory.connect(qemu.path('gdb'));
    await memory.writeWord(UNIT + 8, 0);
    await memory.writeWord(UNIT + 8, 77);
    // The monitor is asked by the same thread as the stub: all of it is done.
    await qemu.command('query-status');
    await eventually(() => running.done.length > 0, 'the answer to the batch');
    expect(running.done).toEqual([{ id: 77, failures: [] }]);
    expect(running.writes).toEqual([
      { offset: 8, size: 4, lo: 0, hi: 0, asks: true },
      { offset: 8, size: 4, lo: 77, hi: 0, asks: true },
    ]);
    await eventsAfter(0, ['map 5000+fff -> 9000 perm 3', UNMAPPED]);
    memory.close();
  });

  it('a piece of an operation that comes with an answer ends the session', async () => {
    const write: Script['write'] = () => ({ batch: 5, device: 1, ops: [3, 0] });
    const running = await start('map', ',caching-mode=on', { without: 0, write });
    const memory = await PhysicalMemory.connect(qemu.path('gdb'));
    await memory.writeWord(UNIT + 8, 1);
    await eventsAfter(0, [UNMAPPED]);
    expect(qemu.text).toMatch(/a piece of a host operation/);
    expect(running.done).toEqual([]);
    memory.close();
  });

  it('register writes are posted without a notifier of new mappings, or a daemon that answers them', async () => {
    for (const [asks, without] of [
      ['unmap', 0],
      ['map', FEATURE.WRITE_REPLY],
    ] as const) {
      const running = await start(asks, ',caching-mode=on', { without });
      const memory = await PhysicalMemory.connect(qemu.path('gdb'));
      await memory.writeWord(UNIT + 8, 1);
      await eventually(() => running.writes.length > 0, 'the register write');
      expect(running.writes).toMatchObject([{ offset: 8, asks: false }]);
      memory.close();
      qemu.dispose();
      await running.dispose();
      qemu = new BridgeQemu();
    }
  });

  it('hears of no invalidation, and nothing but what is asked for at a reset', async () => {
    const running = await start('map', ',caching-mode=on', { without: 0, replay: TWO_ANSWERS });
    const devices = running.notifiers.map(({ device }) => device);
    await running.ask(MESSAGE.INVALIDATE, { ...EVERYTHING, epoch: 1, devices });
    await qemu.command('system_reset');
    await running.ask(MESSAGE.HOST_BATCH, {
      device: devices[0] as number,
      ops: operation(3, 0x1000, 0x1fff),
    });
    await eventsAfter(0, ['map 1000+fff -> 0 perm 3']);
    expect(running.received).not.toContain('REPLAY');
  });

  it('hears that nothing is mapped any more when the daemon is gone', async () => {
    const running = await start('map', ',caching-mode=on', { without: 0 });
    running.hangUp();
    await eventsAfter(0, [UNMAPPED]);
    expect(await qemu.quit()).toBe(0);
  });
});
