import { symlinkSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { SmmuAssigned } from './assigned-machine.js';
import { COMMAND, CONTROL_BIT, STATUS, TestdevDriver } from './testdev-driver.js';

/**
 * What traps stores to the tables of an assigned device: only vCPUs meet it. With
 * more tables than there are overlays for, those that lie close are overlaid together.
 */

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const PAGE = 4096;
const ENTRIES = 512;
const MOST_OVERLAYS = 1024;
/**
 * So many tables of 512 links each, and what they point to: every third page from an address on.
 */
const UPPER = 4;
const UPPER_AT = 0x4020_0000;
const LOWER_AT = 0x4400_0000;
const STRIDE = 3 * PAGE;

let daemon: Daemon;
let machine: SmmuAssigned;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});
beforeEach(() => {
  machine = new SmmuAssigned();
  symlinkSync(daemon.socket, machine.qemu.socket);
});
afterEach(() => machine.dispose());

const lower = (number: number): number => LOWER_AT + number * STRIDE;
/** Input address of the first page of a lower table. */
const iova = (number: number): number =>
  (2 + Math.floor(number / ENTRIES)) * GIB + (number % ENTRIES) * 2 * MIB;

/** Puts an upper table in, or takes it out: a store that is trapped. */
async function link(upper: number, on: boolean): Promise<void> {
  await machine.store(machine.root + (2 + upper) * 8, on ? machine.link(UPPER_AT + upper * PAGE) : 0n);
}

describe('two thousand tables of an assigned device', () => {
  it('are all tracked; they are RAM like any other for who maps guest memory, and so is what lies between two', async () => {
    await machine.start();
    expect(await machine.ramPieces('memory')).toBe(1);
    for (let upper = 0; upper < UPPER; upper++) {
      const table = Buffer.alloc(PAGE);
      for (let n = 0; n < ENTRIES; n++) {
        table.writeBigUInt64LE(machine.link(lower(upper * ENTRIES + n)), n * 8);
      }
      await machine.writeTable(UPPER_AT + upper * PAGE, table);
    }
    await machine.enable();
    await link(0, true);
    const few = await machine.trackedPages();
    expect(few.length).toBeGreaterThan(ENTRIES);
    expect(few.length).toBeLessThanOrEqual(MOST_OVERLAYS);
    expect(await machine.ramPieces('memory')).toBe(1);
    expect(await machine.ramPieces('cpu-memory-0')).toBeGreaterThan(ENTRIES);
    for (let upper = 1; upper < UPPER; upper++) await link(upper, true);
    const names = await machine.trackedPages();
    expect(names.length).toBeGreaterThan(0);
    expect(names.length).toBeLessThanOrEqual(MOST_OVERLAYS);

    // Stores to the first and the last of them, and to one in the middle, map at once.
    const { data } = machine;
    for (const [n, number] of [0, 700, 1500, UPPER * ENTRIES - 1].entries()) {
      await machine.store(lower(number), machine.leaf(data + n * PAGE));
      await machine.expectReaches(iova(number), data + n * PAGE);
    }
    // What is between two of them, and a table itself, can be mapped.
    const between = lower(1500) + PAGE;
    const text = Buffer.from('between two tables');
    await machine.memory.write(between, text);
    expect((await machine.memory.read(between, text.length)).equals(text)).toBe(true);
    await machine.store(lower(10), machine.leaf(between));
    await machine.expectReaches(iova(10), between);
    const unused = 0x800;
    await machine.store(lower(11), machine.leaf(lower(1500)));
    await machine.expectReaches(iova(11) + unused, lower(1500) + unused);
    expect(daemon.log().filter(({ msg }) => msg.includes('refused'))).toEqual([]);

    for (let upper = 1; upper < UPPER; upper++) await link(upper, false);
    expect((await machine.trackedPages()).sort()).toEqual(few.sort());
    expect(await machine.dma(COMMAND.READ, iova(1500))).toBe(STATUS.FAULT);
    await machine.expectReaches(iova(0), data);
    await machine.expectReaches(iova(10), between);
    expect(await machine.ramPieces('memory')).toBe(1);
    await link(0, false);
    expect((await machine.trackedPages()).length).toBeLessThan(few.length - ENTRIES / 2);
    expect(await machine.dma(COMMAND.READ, iova(0))).toBe(STATUS.FAULT);
    expect(await machine.qemu.quit()).toBe(0);
    expect(machine.qemu.text).toBe('');
  });
});

describe('vCPUs with more than one address space', () => {
  it.each(
    titled(
      [
        // Their view of secure memory is one of all system memory, too; and they start there.
        { what: 'TrustZone', options: ',secure=on', spaces: ['cpu-memory-0', 'cpu-secure-memory-0'] },
        { what: 'memory tags', options: ',mte=on', spaces: ['cpu-memory-0'] },
        { what: 'both', options: ',secure=on,mte=on', spaces: ['cpu-memory-0', 'cpu-secure-memory-0'] },
      ],
      ({ what }) => `${what}: stores are trapped in what shows guest RAM, and the rest stays as it was`,
    ),
  )('%s', async (_title, { options, spaces }) => {
    await machine.start('', ['-cpu', 'max'], options);
    const tags = options.includes('mte');
    const tagMap = tags ? await machine.memoryMap('cpu-tag-memory-0') : '';
    await machine.enable();
    await machine.change(0, machine.data);
    await machine.expectReaches(machine.iova(0), machine.data);
    for (const space of spaces) expect(await machine.ramPieces(space), space).toBeGreaterThan(1);
    expect(await machine.ramPieces('memory')).toBe(1);
    if (tags) {
      const ranges = (map: string): string[] => (map.match(/^ +[0-9a-f]{16}-.*$/gm) ?? []).sort();
      expect(ranges(await machine.memoryMap('cpu-tag-memory-0'))).toEqual(ranges(tagMap));
    }
    // Finds a region inside system memory.
    expect(await machine.monitor('gpa2hva 0x42000000')).toMatch(/\(ram0\) is 0x/);
    await machine.change(0);
    expect(await machine.dma(COMMAND.READ, machine.iova(0))).toBe(STATUS.FAULT);
    expect(await machine.qemu.quit()).toBe(0);
    expect(machine.qemu.text).toBe('');
  });
});

describe('a device that stores to a table', () => {
  /** Of the device that is not assigned. */
  const SECOND_RID = 0x18;
  /** Pages that nothing maps before. */
  const [FIRST, SECOND] = [100, 200];

  /** The entry of page `index`, through a page that maps the table which it stands in. */
  async function mapTable(): Promise<(index: number) => number> {
    await machine.change(0, machine.leaves);
    return (index) => machine.iova(0) + index * 8;
  }

  function entry(gpa: number): Buffer {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(machine.leaf(gpa));
    return bytes;
  }

  async function storeBy(device: TestdevDriver, address: number, bytes: Buffer): Promise<void> {
    await device.setBuffer(0, bytes);
    expect(await device.run(COMMAND.WRITE, { address, length: bytes.length })).toBe(STATUS.DONE);
  }

  it("is noticed when it is one of QEMU's own, also when its request may stall", async () => {
    await machine.start('', ['-device', 'viommu-testdev']);
    await machine.attach(SECOND_RID);
    await machine.enable();
    const emulated = await TestdevDriver.startOnVirt(machine.memory, SECOND_RID, 1);
    const at = await mapTable();
    await storeBy(emulated, at(FIRST), entry(machine.data));
    await machine.expectReaches(machine.iova(FIRST), machine.data);
    await emulated.setBuffer(0, entry(machine.data + PAGE));
    const mayStall = { address: at(SECOND), length: 8, control: CONTROL_BIT.STALL };
    expect(await emulated.run(COMMAND.WRITE, mayStall)).toBe(STATUS.DONE);
    await machine.expectReaches(machine.iova(SECOND), machine.data + PAGE);
    expect(await machine.qemu.quit()).toBe(0);
    expect(machine.qemu.text).toBe('');
  });

  it('is followed with the next invalidation when it is assigned', async () => {
    await machine.start();
    await machine.enable();
    const at = await mapTable();
    await storeBy(machine.device, at(FIRST), entry(machine.data));
    expect(await machine.dma(COMMAND.READ, machine.iova(FIRST))).toBe(STATUS.FAULT);
    await machine.invalidate();
    await machine.expectReaches(machine.iova(FIRST), machine.data);
    await storeBy(machine.device, at(FIRST), Buffer.alloc(8));
    await machine.invalidate();
    expect(await machine.dma(COMMAND.READ, machine.iova(FIRST))).toBe(STATUS.FAULT);
    expect(await machine.qemu.quit()).toBe(0);
    expect(machine.qemu.text).toBe('');
  });
});
