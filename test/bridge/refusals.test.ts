import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BridgeBuild, runCheck } from './make.js';
import { COMMAND, CONTROL_BIT, REG, RESULT, STATUS } from './testdev-driver.js';
import { page, REFUSED, TestdevMachine } from './testdev-machine.js';

/**
 * Transfers of viommu-testdev that are refused, in a stock QEMU that makes them in pieces: what
 * reaches the daemon of each. No clock is of use here: each look at one is a millisecond after the
 * last.
 */

const STRAY = 0xdead_0000;
const MEMORY = 0x10_0000;
const TEXT = Buffer.from('sixteen letters.');

let build: BridgeBuild;
let machine: TestdevMachine;

beforeAll(() => {
  build = new BridgeBuild('slow-clock');
}, 120_000);

afterAll(() => build.dispose());

beforeEach(async () => {
  machine = new TestdevMachine();
  machine.preload = build.path('slow-clock.so');
  await machine.start();
  machine.answer = () => REFUSED;
});

afterEach(async () => {
  await machine.dispose();
});

/** Runs a transfer that has to fault at once; returns what the daemon was asked, sizes and all. */
async function fault(command: number, address: number, length: number, control = 0): Promise<string[]> {
  expect(await machine.device.run(command, { address, length, control })).toBe(STATUS.FAULT);
  expect(await machine.device.reg(REG.RESULT)).toBe(RESULT.REFUSED);
  expect(await machine.device.reg(REG.BYTES_DONE)).toBe(0);
  const sizes = machine.asked.map(({ size }) => size);
  return machine.takeAsked().map((text, index) => text + (sizes[index] ? ` ${sizes[index]} bytes` : ''));
}

describe('what is one request', () => {
  it('holds under the sequences of calls in which QEMU translates', { timeout: 120_000 }, () => {
    expect(runCheck('check-refusals')).toMatch(/refusals: ok/);
  });
});

describe('a refused transfer', () => {
  it('is asked for once, the first one too, however long it is and takes', async () => {
    for (const length of [64, 4, 1, 4096, 4095, 7])
      expect([length, await fault(COMMAND.READ, STRAY, length)]).toEqual([
        length,
        ['untranslated dead0000 r'],
      ]);
    expect(await fault(COMMAND.WRITE, STRAY, 4096)).toEqual(['untranslated dead0000 w']);
    expect(await fault(COMMAND.READ, STRAY + 3, 61)).toEqual(['untranslated dead0003 r']);
    // It ends with the first page that fails.
    expect(await fault(COMMAND.READ, STRAY + 0xfe0, 8192)).toEqual(['untranslated dead0fe0 r']);
  });

  it('is asked for again when the device makes it again, or one beside it', async () => {
    const pieces = [STRAY, STRAY, STRAY + 4, STRAY + 8, STRAY + 4];
    for (const address of pieces)
      expect(await fault(COMMAND.READ, address, 4)).toEqual([`untranslated ${address.toString(16)} r`]);
    expect(await fault(COMMAND.WRITE, STRAY, 4)).toEqual(['untranslated dead0000 w']);
    machine.answer = () => page(STRAY, MEMORY);
    expect(await machine.device.run(COMMAND.WRITE, { address: STRAY + 4, length: 4 })).toBe(STATUS.DONE);
  });
});

describe('the interrupt address range', () => {
  const RANGE = 0xfee0_0000;

  it('takes an aligned write of four bytes for an interrupt, which is not asked for', async () => {
    const { device } = machine;
    for (const address of [RANGE, RANGE + 0x1004, 0xfeef_fffc])
      expect(await device.run(COMMAND.WRITE, { address, length: 4 })).toBe(STATUS.DONE);
    expect(machine.takeAsked()).toEqual([]);
  });

  it('asks for everything else, once, and refuses it as it is told to', async () => {
    expect(await fault(COMMAND.READ, RANGE, 4)).toEqual(['untranslated fee00000 r 4 bytes']);
    expect(await fault(COMMAND.READ, RANGE, 4)).toEqual(['untranslated fee00000 r 4 bytes']);
    expect(await fault(COMMAND.READ, RANGE + 0x10, 64)).toEqual(['untranslated fee00010 r 8 bytes']);
    expect(await fault(COMMAND.WRITE, RANGE, 16)).toEqual(['untranslated fee00000 w 8 bytes']);
    expect(await fault(COMMAND.WRITE, RANGE, 12)).toEqual(['untranslated fee00000 w 8 bytes']);
    expect(await fault(COMMAND.WRITE, RANGE, 4096)).toEqual(['untranslated fee00000 w 8 bytes']);
    expect(await fault(COMMAND.WRITE, RANGE + 2, 4)).toEqual(['untranslated fee00002 w 4 bytes']);
    for (const length of [1, 2, 3])
      expect(await fault(COMMAND.WRITE, RANGE, length)).toEqual([
        `untranslated fee00000 w ${length === 3 ? 2 : length} bytes`,
      ]);
    expect(await fault(COMMAND.WRITE, 0xfeef_fff0, 16)).toEqual(['untranslated feeffff0 w 8 bytes']);
  });

  it('leads where an answer says, as it does without remapping', async () => {
    const { device, memory } = machine;
    await memory.write(MEMORY, TEXT);
    machine.answer = () => page(RANGE, MEMORY);
    expect(await device.run(COMMAND.READ, { address: RANGE })).toBe(STATUS.DONE);
    expect(await device.buffer(0, 16)).toEqual(TEXT);
    await device.setBuffer(0, Buffer.from('and back'));
    expect(await device.run(COMMAND.WRITE, { address: RANGE + 8, length: 8 })).toBe(STATUS.DONE);
    expect((await memory.read(MEMORY + 8, 8)).toString()).toBe('and back');
    machine.takeAsked();
    machine.answer = () => page(RANGE, MEMORY, 1);
    expect(await fault(COMMAND.WRITE, RANGE, 8)).toEqual(['untranslated fee00000 w 8 bytes']);
  });

  it('is no range of requests that say what they are, which tell their size', async () => {
    const { device } = machine;
    expect(await fault(COMMAND.WRITE, RANGE, 64, CONTROL_BIT.STALL)).toEqual([
      'untranslated fee00000 w may stall 64 bytes',
    ]);
    await device.enablePasid();
    expect(await device.run(COMMAND.READ, { address: RANGE, pasid: 5 })).toBe(STATUS.FAULT);
    expect(machine.takeAsked()).toEqual(['untranslated pasid 5 fee00000 r']);
  });

  it('begins and ends where it does', async () => {
    expect(await fault(COMMAND.WRITE, RANGE - 4, 4)).toEqual(['untranslated fedffffc w']);
    expect(await fault(COMMAND.WRITE, RANGE + 0x10_0000, 4)).toEqual(['untranslated fef00000 w']);
  });
});
