import { symlinkSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Daemon, eventually } from '../support/daemon.js';
import { VtdAssigned } from './assigned-machine.js';
import { COMMAND, REG, STATUS } from './testdev-driver.js';

/**
 * viommu-testdev as an assigned device: it reaches what IOMMU notifiers have mapped and nothing
 * else, in a stock QEMU with a real daemon. The guest's part (tables, registers) is played from
 * outside.
 */

let daemon: Daemon;
let machine: VtdAssigned;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});
beforeEach(() => {
  machine = new VtdAssigned();
  symlinkSync(daemon.socket, machine.qemu.socket);
});
afterEach(() => machine.dispose());

describe('an assigned test device', () => {
  it('reaches all RAM before translation is on, then what the tables map when an invalidation has completed', async () => {
    const { data } = machine;
    await machine.start();
    await machine.expectReaches(data, data);
    await machine.enable();
    expect(await machine.dma(COMMAND.READ, data)).toBe(STATUS.FAULT);
    expect(await machine.device.reg(REG.FAULT_LO)).toBe(data);
    await machine.change(0, data);
    await machine.settled();
    await machine.changeTo(1, BigInt(data + 0x5000) | 1n);
    await machine.settled();
    await machine.expectReaches(machine.iova(0), data);
    expect(await machine.dma(COMMAND.READ, machine.iova(1))).toBe(STATUS.DONE);
    expect(await machine.dma(COMMAND.WRITE, machine.iova(1)), 'a page that may be read only').toBe(
      STATUS.FAULT,
    );
    expect(await machine.dma(COMMAND.READ, machine.iova(2))).toBe(STATUS.FAULT);
    await machine.change(0);
    await machine.settled();
    expect(await machine.dma(COMMAND.READ, machine.iova(0))).toBe(STATUS.FAULT);
    expect(await machine.dma(COMMAND.READ, machine.iova(1))).toBe(STATUS.DONE);
  });

  it('a machine reset gives it all RAM again', async () => {
    const { data } = machine;
    await machine.start();
    await machine.enable();
    expect(await machine.dma(COMMAND.READ, data)).toBe(STATUS.FAULT);
    await machine.qemu.command('system_reset');
    await machine.qemu.command('query-status');
    await machine.open();
    await machine.expectReaches(data, data);
  });

  it('does without what the host refuses, and has it when there is room', async () => {
    const { data } = machine;
    await machine.start(',mapping-limit=1');
    await machine.enable();
    await machine.change(0, data);
    await machine.settled();
    await machine.change(2, data + 0x2000);
    await machine.settled();
    await machine.expectReaches(machine.iova(0), data);
    expect(await machine.dma(COMMAND.READ, machine.iova(2))).toBe(STATUS.FAULT);
    await eventually(() => daemon.log().find(({ msg }) => msg.includes('host refused to map')), 'a log line');
    await machine.change(0);
    await machine.settled();
    await machine.expectReaches(machine.iova(2), data + 0x2000);
  });
});
