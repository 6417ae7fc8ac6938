import { symlinkSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Daemon, eventually } from '../support/daemon.js';
import { SmmuAssigned } from './assigned-machine.js';
import { COMMAND, STATUS } from './testdev-driver.js';

/** More tables than there are overlays for: those that lie close are overlaid together, and nothing else changes. */

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const PAGE = 4096;
const ENTRIES = 512;
const MOST_OVERLAYS = 1024;
/** So many tables of 512 links each, and what they point to: every third page from an address on. */
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
  it('are all tracked; what lies between two of them is RAM as before, and can be mapped when they have gone', async () => {
    await machine.start();
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
    // What is between two of them is RAM like any other for processors, and for this device as soon as it can be.
    const between = lower(1500) + PAGE;
    const text = Buffer.from('between two tables');
    await machine.memory.write(between, text);
    expect((await machine.memory.read(between, text.length)).equals(text)).toBe(true);
    await machine.store(lower(10), machine.leaf(between));
    await eventually(() => daemon.log().find(({ msg }) => msg.includes('host refused to map')), 'a log line');
    expect(await machine.dma(COMMAND.READ, iova(10))).toBe(STATUS.FAULT);

    for (let upper = 1; upper < UPPER; upper++) await link(upper, false);
    expect((await machine.trackedPages()).sort()).toEqual(few.sort());
    expect(await machine.dma(COMMAND.READ, iova(1500))).toBe(STATUS.FAULT);
    await machine.expectReaches(iova(0), data);
    await machine.expectReaches(iova(10), between);
    await link(0, false);
    expect((await machine.trackedPages()).length).toBeLessThan(few.length - ENTRIES / 2);
    expect(await machine.dma(COMMAND.READ, iova(0))).toBe(STATUS.FAULT);
    expect(await machine.qemu.quit()).toBe(0);
    expect(machine.qemu.text).toBe('');
  });
});
