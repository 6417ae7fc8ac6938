import { symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Daemon, eventually } from '../support/daemon.js';
import { SmmuAssigned } from './assigned-machine.js';
import { COMMAND, STATUS } from './testdev-driver.js';
import { VirtioDisk } from './virtio-disk.js';

/**
 * A device that QEMU emulates maps guest memory for as long as a transfer takes
 * (`address_space_map`), and stores at its end. Of pages whose stores are trapped QEMU gives it a
 * copy (a bounce buffer), one page at a time; all others it has to get as they are, also where they
 * lie under an overlay that joins two tables.
 */

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const PAGE = 4096;
const ENTRIES = 512;
const MOST_OVERLAYS = 1024;
/** Tables of 512 links each, and what they point to: every third page. */
const UPPER = 3;
const UPPER_AT = 0x4020_0000;
const LOWER_AT = 0x4400_0000;
const STRIDE = 3 * PAGE;
/** Of the disk. */
const DISK_RID = 0x18;
const DISK_BYTES = MIB;
/** Pages of the device's: the disk's queue, and a buffer. */
const [QUEUE, BUFFER] = [300, 301];

/** Of the monitor. */
interface BlockStats {
  readonly device: string;
  readonly stats: { readonly rd_operations: number };
}

let daemon: Daemon;
let machine: SmmuAssigned;
let disk: VirtioDisk;
let bytes: Buffer;

beforeEach(async () => {
  daemon = await Daemon.start();
  machine = new SmmuAssigned();
  symlinkSync(daemon.socket, machine.qemu.socket);
  bytes = Buffer.alloc(DISK_BYTES);
  for (let at = 0; at < DISK_BYTES; at += 4) bytes.writeUInt32LE((at * 2654435761) >>> 0, at);
});
afterEach(async () => {
  machine.dispose();
  await daemon.dispose();
});

const lower = (number: number): number => LOWER_AT + number * STRIDE;
/** Input address of page `index` of a lower table. */
const iova = (number: number, index: number): number =>
  (2 + Math.floor(number / ENTRIES)) * GIB + (number % ENTRIES) * 2 * MIB + index * PAGE;

/** The content of a table whose page `index` is `gpa`. */
function tableOf(index: number, gpa: number): Buffer {
  const table = Buffer.alloc(PAGE);
  table.writeBigUInt64LE(machine.leaf(gpa), index * 8);
  return table;
}

/** A machine with a disk that has `bytes`, and `upper` times 512 tables that are tracked. */
async function start(upper: number): Promise<void> {
  const file = machine.qemu.path('virtio-disk');
  writeFileSync(file, bytes);
  await machine.start('', [
    ...['-drive', `if=none,id=virtio,file=${file},format=raw`],
    ...['-device', 'virtio-blk-pci,drive=virtio,disable-legacy=on,iommu_platform=on,ioeventfd=off'],
  ]);
  await machine.attach(DISK_RID);
  for (let n = 0; n < upper; n++) {
    const table = Buffer.alloc(PAGE);
    for (let entry = 0; entry < ENTRIES; entry++) {
      table.writeBigUInt64LE(machine.link(lower(n * ENTRIES + entry)), entry * 8);
    }
    await machine.writeTable(UPPER_AT + n * PAGE, table);
  }
  await machine.enable();
  for (let n = 0; n < upper; n++) {
    await machine.store(machine.root + (2 + n) * 8, machine.link(UPPER_AT + n * PAGE));
  }
  const page = machine.data + 16 * MIB;
  await machine.change(QUEUE, page);
  disk = await VirtioDisk.start(machine.memory, DISK_RID, page, machine.iova(QUEUE));
}

/**
 * Maps so many pages from `gpa` on as the buffer. The disk is not assigned: it is told of what was
 * there before.
 */
async function mapBuffer(gpa: number, pages: number): Promise<void> {
  for (let n = 0; n < pages; n++) await machine.change(BUFFER + n, gpa + n * PAGE);
  await machine.invalidate();
}

/** What the disk stores to the buffer, from an offset of its own on. */
async function transfer(offset: number, pages: number): Promise<number> {
  await disk.read(offset, machine.iova(BUFFER), pages * PAGE);
  return await disk.ended();
}

async function expectHolds(gpa: number, wanted: Buffer): Promise<void> {
  for (let at = 0; at < wanted.length; at += 1024) {
    const part = await machine.memory.read(gpa + at, 1024);
    expect(part.equals(wanted.subarray(at, at + 1024)), `at 0x${(gpa + at).toString(16)}`).toBe(true);
  }
}

/** The disk's requests take ages from the next but one on, or as long as they take. */
async function slow(on: boolean): Promise<void> {
  const limits = { bps: 0, bps_rd: on ? 1 : 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
  await machine.qemu.command('block_set_io_throttle', { device: 'virtio', ...limits });
}

/** Reads of the disk that have ended. */
async function reads(): Promise<number> {
  const all = (await machine.qemu.command('query-blockstats')) as BlockStats[];
  return all.find(({ device }) => device === 'virtio')?.stats.rd_operations ?? -1;
}

/**
 * The disk has been given a request for the page of a table, and holds a bounce buffer until
 * {@link slow} ends.
 */
async function hold(table: number): Promise<void> {
  await mapBuffer(machine.data + 17 * MIB, 1);
  await slow(true);
  expect(await transfer(0, 1)).toBe(0);
  await mapBuffer(table, 1);
  await disk.read(0, machine.iova(BUFFER), PAGE);
  // Answers come behind what the main loop had to do before.
  await machine.qemu.command('query-status');
  expect(await disk.idle()).toBe(false);
  expect((await machine.memory.read(table, 8)).readBigUInt64LE()).toBe(0n);
}

it('a buffer across joined overlays: every byte arrives, and what is stored to a table between is in force', async () => {
  const [first, table] = [lower(1200) + PAGE, 1201];
  tableOf(7, machine.data).copy(bytes, 2 * PAGE);
  await start(UPPER);
  // Many more tables than overlays: these lie over what is between, too.
  expect((await machine.trackedPages()).length).toBeLessThan(MOST_OVERLAYS / 2);
  await mapBuffer(first, 5);
  expect(lower(table)).toBe(first + 2 * PAGE);
  expect(await machine.dma(COMMAND.READ, iova(table, 7))).toBe(STATUS.FAULT);
  expect(await transfer(0, 5), machine.qemu.text).toBe(0);
  await expectHolds(first, bytes.subarray(0, 5 * PAGE));
  // Without any invalidation.
  await machine.expectReaches(iova(table, 7), machine.data);
  // A part of the table alone, and what is stored takes the page away.
  expect(await transfer(64 * PAGE, 2)).toBe(0);
  await expectHolds(first, bytes.subarray(64 * PAGE, 66 * PAGE));
  await machine.expectReaches(iova(table, 7), machine.data);
  bytes.fill(0, 128 * PAGE, 129 * PAGE);
  writeFileSync(machine.qemu.path('virtio-disk'), bytes);
  await mapBuffer(lower(table), 1);
  expect(await transfer(128 * PAGE, 1)).toBe(0);
  expect(await machine.dma(COMMAND.READ, iova(table, 7))).toBe(STATUS.FAULT);
  expect(daemon.log().filter(({ msg }) => msg.includes('refused'))).toEqual([]);
  expect(await machine.qemu.quit()).toBe(0);
  expect(machine.qemu.text).toBe('');
});

it('a buffer that is in use while its table is unlinked: the bytes arrive where they were to', async () => {
  tableOf(7, machine.data).copy(bytes);
  await start(1);
  const table = lower(5);
  await hold(table);
  await machine.store(UPPER_AT + 5 * 8, 0n);
  await slow(false);
  expect(await disk.ended()).toBe(0);
  await expectHolds(table, bytes.subarray(0, PAGE));
  expect(await machine.dma(COMMAND.READ, iova(5, 7))).toBe(STATUS.FAULT);
  await machine.store(UPPER_AT + 5 * 8, machine.link(table));
  await machine.expectReaches(iova(5, 7), machine.data);
  expect(await machine.qemu.quit()).toBe(0);
  expect(machine.qemu.text).toBe('');
});

it('a buffer that is in use when all overlays go with their daemon: nothing is stored, and QEMU goes on', async () => {
  tableOf(7, machine.data).copy(bytes);
  await start(1);
  const table = lower(5);
  await hold(table);
  daemon.signal('SIGKILL');
  await daemon.exited;
  await eventually(() => machine.qemu.text.includes('get no DMA through'), 'QEMU to notice');
  expect(await machine.trackedPages()).toEqual([]);
  expect(await reads()).toBe(1);
  await slow(false);
  await eventually(async () => (await reads()) === 2, 'the end of the transfer');
  await expectHolds(table, Buffer.alloc(PAGE));
  await machine.qemu.command('system_reset');
  await machine.qemu.command('query-status');
  expect(machine.qemu.text.trim().split('\n')).toHaveLength(1);
  expect(await machine.qemu.quit()).toBe(0);
});
