import { rmSync, symlinkSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { viommu } from '../guests/viommu.js';
import { Daemon, eventually } from '../support/daemon.js';
import { BridgeBuild } from './make.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { COMMAND, REG, STATUS, TestdevDriver } from './testdev-driver.js';

/**
 * Objects of the host, from a real daemon's decision through the bridge in a stock QEMU to the
 * calls of iommufd: a stand-in for the kernel (qemu-bridge/test/host-probe.c) says what it is asked
 * for. The guest's part is played from outside.
 */

const RID = 0x10;
const UNIT = 0xfed9_0000;
const [GCMD, GSTS, RTADDR, IQT, IQA] = [0x18, 0x1c, 0x20, 0x88, 0x90];
const [SRTP, TE, QIE] = [1 << 30, 0x8000_0000, 1 << 26];
const [ROOT, CONTEXT, DIRECTORY, PASIDS, L4, QUEUE, STATUS_WORD] = [
  0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000, 0x10_4000, 0x10_5000, 0x10_6000,
];
const DID = 5n;
/** Descriptors of 256 bits, their lower half: invalidate everything of their cache. */
const CONTEXT_GLOBAL = [0x1n | (1n << 4n), 0n];
const PASID_GLOBAL = [0x7n | (3n << 4n), 0n];
const IOTLB_GLOBAL = [0x2n | (1n << 4n), 0n];
/** Of PASID 0 in our domain. */
const FIRST_STAGE = [0x6n | (2n << 4n) | (DID << 16n), 0n];

let build: BridgeBuild;
let daemon: Daemon;
let qemu: BridgeQemu;
let memory: PhysicalMemory | undefined;
let tail = 0;

beforeAll(() => {
  build = new BridgeBuild('host-probe');
});
afterAll(() => {
  build.dispose();
});
beforeEach(async () => {
  daemon = await Daemon.start();
  qemu = new BridgeQemu();
  symlinkSync(daemon.socket, qemu.socket);
  tail = 0;
});
afterEach(async () => {
  memory?.close();
  memory = undefined;
  qemu.dispose();
  await daemon.dispose();
});

async function start(asks = 'nest', options = ',scalable-mode=on,caching-mode=on'): Promise<PhysicalMemory> {
  const gdb = `unix:${qemu.path('gdb')},server=on,wait=off`;
  const object = build.path('host-probe.so');
  qemu.start(options, ['-S', '-device', 'viommu-testdev,assigned=on', '-gdb', gdb], {
    asks,
    object,
    first: true,
  });
  await qemu.command('query-status');
  memory = await PhysicalMemory.connect(qemu.path('gdb'));
  return memory;
}

/** What the kernel was asked for, in short. */
function asked(): string[] {
  return qemu.text.split('\n').flatMap((line) => /^kernel: (.*)$/.exec(line.trim())?.slice(1, 2) ?? []);
}

function untilAsked(pattern: RegExp, after = 0): Promise<unknown> {
  return eventually(
    () =>
      asked()
        .slice(after)
        .some((line) => pattern.test(line)),
    `${pattern}: ${qemu.text}`,
    20_000,
  );
}

async function store(address: number, value: bigint): Promise<void> {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  await (memory as PhysicalMemory).write(address, bytes);
}

async function command(bits: number, status: number): Promise<void> {
  const m = memory as PhysicalMemory;
  await m.writeWord(UNIT + GCMD, bits >>> 0);
  await eventually(async () => ((await m.readWord(UNIT + GSTS)) & status) !== 0, `GSTS ${status}`, 10_000);
}

/** Descriptors, then a wait descriptor, and until it has completed. */
async function invalidate(...descriptors: bigint[][]): Promise<void> {
  const m = memory as PhysicalMemory;
  await m.writeWord(STATUS_WORD, 0);
  const wait = [0x5n | (1n << 5n) | (1n << 32n), BigInt(STATUS_WORD)];
  for (const [lo, hi] of [...descriptors, wait] as [bigint, bigint][]) {
    await store(QUEUE + tail, lo);
    await store(QUEUE + tail + 8, hi);
    tail += 32;
  }
  await m.writeWord(UNIT + IQT, tail);
  await eventually(async () => (await m.readWord(STATUS_WORD)) === 1, 'the wait descriptor', 10_000);
}

/** Scalable mode: an empty first-stage table for requests without PASID; then translation on. */
async function enable(): Promise<void> {
  await store(ROOT, BigInt(CONTEXT) | 1n);
  await store(CONTEXT + RID * 32, BigInt(DIRECTORY) | 1n);
  await store(DIRECTORY, BigInt(PASIDS) | 1n);
  await store(PASIDS, 1n | (1n << 6n));
  await store(PASIDS + 8, DID);
  await store(PASIDS + 16, BigInt(L4));
  await store(UNIT + RTADDR, BigInt(ROOT) | (1n << 10n));
  await command(SRTP, SRTP);
  await store(UNIT + IQA, BigInt(QUEUE) | (1n << 11n));
  await command(QIE, QIE);
  await invalidate(CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL);
  await command(QIE | TE, TE);
}

describe('a device of the host by iommufd', () => {
  it("is nested: guest memory below, the guest's own tables on top, its invalidations forwarded", async () => {
    await start();
    await untilAsked(/attach; device through parent/);
    expect(qemu.text).toMatch(/fake by iommufd, behind VT-d: can nest, page requests/);
    expect(qemu.text).toMatch(/fake is nested: /);
    expect(asked().filter((line) => line.startsWith('map;')).length).toBeGreaterThan(1);
    await enable();
    await untilAsked(/attach; device through tables/);
    const before = asked().length;
    await invalidate(FIRST_STAGE);
    expect(asked().slice(before)).toEqual([expect.stringMatching(/^invalidate 1; device through tables/)]);
    const report = JSON.parse((await viommu(daemon, 'report')).text).report as Report;
    expect(report.assigned).toMatchObject([{ rid: RID, kind: 'vf', choice: 'nest', batches: false }]);
    expect(report.nesting).toMatchObject({ devices: 1, refused: 0 });
  });

  it("is reached by nothing through QEMU's own mappings any more", async () => {
    await start();
    await untilAsked(/attach; device through parent/);
    const device = await TestdevDriver.start(qemu, memory as PhysicalMemory, RID, 0);
    await device.command(COMMAND.READ, { address: 0x200_0000, length: 16 });
    expect(await device.ended()).toBe(STATUS.FAULT);
    expect(await device.reg(REG.FAULT_LO)).toBe(0x200_0000);
  });

  it("is taken off the guest's tables by a reset of the machine", async () => {
    await start();
    await enable();
    await untilAsked(/attach; device through tables/);
    const before = asked().length;
    await qemu.command('system_reset');
    await untilAsked(/attach; device through parent/, before);
    await qemu.command('query-status');
  });

  it('asks for pages: a guest that has no page request queue refuses them', async () => {
    await start('fault');
    await enable();
    await untilAsked(/page response 1 for 77/);
  });

  it('goes on without page requests when the queue cannot be read any more, and says so', async () => {
    await start('cut');
    await enable();
    const said = /queues of faults and page requests cannot be read any more/g;
    await eventually(() => said.test(qemu.text), qemu.text, 20_000);
    await invalidate(FIRST_STAGE);
    expect(qemu.text.match(said)).toHaveLength(1);
  });

  it('leaves nothing when QEMU ends, and reaches nothing when the daemon dies', async () => {
    await start();
    await enable();
    await untilAsked(/attach; device through tables/);
    daemon.signal('SIGKILL');
    await untilAsked(/detach; device through nothing/);
    await qemu.command('query-status');
    expect(qemu.text).toMatch(/from now on devices behind this IOMMU get no DMA through/);
    expect(await qemu.quit()).toBe(0);
    expect(asked().at(-1)).toBe('end, 0 attachments, 0 objects, 0 queues');
  });

  it('is refused where its mode is impossible, with the rule and what would work', async () => {
    await daemon.dispose();
    daemon = await Daemon.start(['--mode', 'nest']);
    rmSync(qemu.socket);
    symlinkSync(daemon.socket, qemu.socket);
    await start('nest', ',caching-mode=on');
    expect(asked()).toEqual([
      expect.stringMatching(
        /^refused: viommu: fake: no nest \(LEGACY_HAS_NO_FIRST_LEVEL\): .*What would work: /,
      ),
    ]);
  });

  it('is shadowed in legacy mode, whose tables hardware does not nest', async () => {
    await start('nest', ',caching-mode=on');
    expect(qemu.text).toMatch(/fake is shadowed: /);
    const device = await TestdevDriver.start(qemu, memory as PhysicalMemory, RID, 0);
    await device.command(COMMAND.READ, { address: 0x200_0000, length: 16 });
    expect(await device.ended()).toBe(STATUS.DONE);
    expect(asked()).toEqual([]);
  });
});

interface Report {
  readonly assigned: readonly object[];
  readonly nesting: object;
}
