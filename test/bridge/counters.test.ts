import { afterEach, beforeEach, expect, it } from 'vitest';
import { CODEC } from '../../src/wire/codec.js';
import { CONTROL, FLAG, MESSAGE } from '../../src/wire/frame.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { ScriptedDaemon } from './scripted-daemon.js';
import { COMMAND, STATUS, TestdevDriver, VIRT_MACHINE } from './testdev-driver.js';

/** What the control page says of hits and misses, where several requesters count them. */

const DATA = 0x4100_0000;
const PAGE = 0x1000;
/** More than requesters in this machine. */
const MANY = 16;

let qemu: BridgeQemu;
let daemon: ScriptedDaemon;
let memory: PhysicalMemory;
let devices: TestdevDriver[];
let misses: number;

beforeEach(async () => {
  qemu = new BridgeQemu('arm64');
  misses = 0;
  daemon = await ScriptedDaemon.start(qemu.socket, {
    translate: (channel, id) => {
      misses++;
      const spans = Uint32Array.of(channel.body(CODEC.Translate).lo & ~0xfff, 0, DATA, 0, 12, 3);
      const rest = { status: 0, epoch: 0, once: false, stall: 0, space: 1, sub: 0 };
      channel.put(MESSAGE.TRANSLATE, FLAG.REPLY, id, CODEC.TranslateReply, { ...rest, spans });
    },
  });
  const gdb = `unix:${qemu.path('gdb')},server=on,wait=off`;
  const two = ['-device', 'viommu-testdev', '-device', 'viommu-testdev'];
  qemu.start('', ['-S', ...two, '-gdb', gdb, '-cpu', 'cortex-a57'], undefined, VIRT_MACHINE);
  await qemu.command('query-status');
  memory = await PhysicalMemory.connect(qemu.path('gdb'));
  devices = [];
  for (const [number, rid] of [0x10, 0x18].entries())
    devices.push(await TestdevDriver.startOnVirt(memory, rid, number));
});

afterEach(async () => {
  memory.close();
  qemu.dispose();
  await daemon.dispose();
});

async function read(device: number, page: number): Promise<void> {
  expect(await devices[device]?.run(COMMAND.READ, { address: page * PAGE }), qemu.text).toBe(STATUS.DONE);
}

const shown = (): { hits: number; misses: number } => ({
  hits: daemon.controlWord(CONTROL.HITS_LO),
  misses: daemon.controlWord(CONTROL.MISSES_LO),
});

/** Of a space that no entry has. */
async function invalidate(epoch: number): Promise<void> {
  const scope = { space: 0x7ff0, sub: 0, rid: 0xfffe, pasid: 0, lo: 0, hi: 0, log2Size: 12, epoch };
  await daemon.ask(MESSAGE.INVALIDATE, { ...scope, devices: [], structures: false });
}

it('sums up all of them at an invalidation, and with misses after as many as there are requesters', async () => {
  await read(0, 1);
  await read(1, 1);
  expect(shown().misses).toBe(misses);
  await invalidate(1);
  const before = shown();
  await read(0, 1);
  await invalidate(2);
  const once = shown().hits - before.hits;
  expect(once).toBeGreaterThan(0);
  expect(shown().misses).toBe(misses);
  // A miss of the same requester shows its hits at once.
  await read(0, 1);
  await read(0, 2);
  expect(shown().misses).toBe(misses);
  const known = shown().hits;
  expect(known).toBeGreaterThanOrEqual(before.hits + 2 * once);
  // A hit of the first device shows as the second one misses.
  await read(0, 1);
  for (let page = 2; page < 2 + MANY; page++) await read(1, page);
  const all = shown();
  expect(all.hits).toBeGreaterThanOrEqual(known + once);
  expect(all.misses).toBe(misses);
  // Nothing is counted twice.
  await invalidate(3);
  await invalidate(4);
  expect(shown().misses).toBe(misses);
  expect(shown().hits - all.hits).toBeLessThanOrEqual(once);
});
