import { symlinkSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Daemon, eventually } from '../support/daemon.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { COMMAND, REG, STATUS, TestdevDriver } from './testdev-driver.js';

/**
 * viommu-testdev as an assigned device: it reaches what IOMMU notifiers have mapped and nothing else, in a stock QEMU with
 * a real daemon. The guest's part (tables, registers) is played from outside.
 */

const RID = 0x10;
const UNIT = 0xfed9_0000;
const [RTADDR, GCMD, GSTS, CCMD, ECAP] = [0x20, 0x18, 0x1c, 0x28, 0x10];
const [ROOT, CONTEXT, L4, L3, L2, L1] = [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000, 0x10_4000, 0x10_5000];
const DATA = 0x200_0000;
const IOVA = 0x4000_0000;
const DID = 5;
const TEXT = Buffer.from('sixteen letters.');

let daemon: Daemon;
let qemu: BridgeQemu;
let memory: PhysicalMemory;
let device: TestdevDriver;
let iotlb: number;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});
beforeEach(() => {
  qemu = new BridgeQemu();
  symlinkSync(daemon.socket, qemu.socket);
});
afterEach(() => {
  memory.close();
  qemu.dispose();
});

async function start(options = ''): Promise<void> {
  const gdb = `unix:${qemu.path('gdb')},server=on,wait=off`;
  qemu.start(',caching-mode=on', ['-S', '-device', `viommu-testdev,assigned=on${options}`, '-gdb', gdb]);
  await qemu.command('query-status');
  memory = await PhysicalMemory.connect(qemu.path('gdb'));
  device = await TestdevDriver.start(qemu, memory, RID, 0);
}

async function store(address: number, value: bigint): Promise<void> {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  await memory.write(address, bytes);
}

async function command(bits: number, status: number): Promise<void> {
  await memory.writeWord(UNIT + GCMD, bits);
  await completed(UNIT + GSTS, (value) => (value & status) !== 0);
}

async function completed(address: number, done: (value: number) => boolean): Promise<void> {
  for (let tries = 0; !done((await memory.readWord(address)) >>> 0); tries++) {
    if (tries === 500) throw new Error(`no completion at 0x${address.toString(16)}`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
}

/** Register-based invalidation of a page, or of everything. */
async function invalidate(page?: number): Promise<void> {
  const granularity = page === undefined ? 1n : 3n;
  if (page !== undefined) await store(iotlb - 8, BigInt(page));
  await store(iotlb, (1n << 63n) | (granularity << 60n) | (BigInt(DID) << 32n));
  await completed(iotlb + 4, (high) => high >>> 31 === 0);
}

/** Tables with nothing in them (nothing has run yet, so RAM is zeros), for the test device; then translation on. */
async function enable(): Promise<void> {
  const ecap = await memory.readWord(UNIT + ECAP);
  iotlb = UNIT + ((ecap >>> 8) & 0x3ff) * 16 + 8;
  await store(ROOT, BigInt(CONTEXT) | 1n);
  await store(CONTEXT + RID * 16, BigInt(L4) | 1n);
  await store(CONTEXT + RID * 16 + 8, 2n | (BigInt(DID) << 8n));
  await store(L4, BigInt(L3) | 3n);
  await store(L3 + 8, BigInt(L2) | 3n);
  await store(L2, BigInt(L1) | 3n);
  await store(UNIT + RTADDR, BigInt(ROOT));
  await command(0x4000_0000, 0x4000_0000);
  await store(UNIT + CCMD, (1n << 63n) | (1n << 61n));
  await completed(UNIT + CCMD + 4, (high) => high >>> 31 === 0);
  await invalidate();
  await command(0x8000_0000, 0x8000_0000);
}

async function dma(kind: number, address: number): Promise<number> {
  await device.command(kind, { address, length: TEXT.length });
  return await device.ended();
}

/** Writes through the device and looks where it came out. */
async function expectReaches(address: number, gpa: number): Promise<void> {
  await memory.write(gpa, Buffer.alloc(TEXT.length));
  await device.setBuffer(0, TEXT);
  expect(await dma(COMMAND.WRITE, address)).toBe(STATUS.DONE);
  expect((await memory.read(gpa, TEXT.length)).equals(TEXT)).toBe(true);
}

describe('an assigned test device', () => {
  it('reaches all RAM before translation is on, then what the tables map when an invalidation has completed', async () => {
    await start();
    await expectReaches(DATA, DATA);
    await enable();
    expect(await dma(COMMAND.READ, DATA)).toBe(STATUS.FAULT);
    expect(await device.reg(REG.FAULT_LO)).toBe(DATA);
    await store(L1, BigInt(DATA) | 3n);
    await store(L1 + 8, BigInt(DATA + 0x5000) | 1n);
    await invalidate();
    await expectReaches(IOVA, DATA);
    expect(await dma(COMMAND.READ, IOVA + 4096)).toBe(STATUS.DONE);
    expect(await dma(COMMAND.WRITE, IOVA + 4096), 'a page that may be read only').toBe(STATUS.FAULT);
    expect(await dma(COMMAND.READ, IOVA + 8192)).toBe(STATUS.FAULT);
    await store(L1, 0n);
    await invalidate(IOVA);
    expect(await dma(COMMAND.READ, IOVA)).toBe(STATUS.FAULT);
    expect(await dma(COMMAND.READ, IOVA + 4096)).toBe(STATUS.DONE);
  });

  it('a machine reset gives it all RAM again', async () => {
    await start();
    await enable();
    expect(await dma(COMMAND.READ, DATA)).toBe(STATUS.FAULT);
    await qemu.command('system_reset');
    await qemu.command('query-status');
    device = await TestdevDriver.start(qemu, memory, RID, 0);
    await expectReaches(DATA, DATA);
  });

  it('does without what the host refuses, and has it when there is room', async () => {
    await start(',mapping-limit=1');
    await enable();
    await store(L1, BigInt(DATA) | 3n);
    await invalidate(IOVA);
    await store(L1 + 16, BigInt(DATA + 0x2000) | 3n);
    await invalidate(IOVA + 8192);
    await expectReaches(IOVA, DATA);
    expect(await dma(COMMAND.READ, IOVA + 8192)).toBe(STATUS.FAULT);
    await eventually(() => daemon.log().find(({ msg }) => msg.includes('host refused to map')), 'a log line');
    await store(L1, 0n);
    await invalidate(IOVA);
    await expectReaches(IOVA + 8192, DATA + 0x2000);
  });

  it('reaches nothing when the daemon has gone', async () => {
    const doomed = await Daemon.start();
    qemu.dispose();
    qemu = new BridgeQemu();
    symlinkSync(doomed.socket, qemu.socket);
    await start();
    await expectReaches(DATA, DATA);
    doomed.signal('SIGKILL');
    await doomed.exited;
    await eventually(() => qemu.text.includes('get no DMA through'), 'QEMU to notice');
    expect(await dma(COMMAND.READ, DATA)).toBe(STATUS.FAULT);
    await doomed.dispose();
  });
});
