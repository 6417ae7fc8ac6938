import { afterEach, describe, expect, it } from 'vitest';
import { MESSAGE } from '../../src/wire/frame.js';
import { eventually } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { type AssignedMachine, SmmuAssigned, VtdAssigned } from './assigned-machine.js';
import { ScriptedDaemon } from './scripted-daemon.js';
import { COMMAND, STATUS } from './testdev-driver.js';

/**
 * What a daemon asked for last may be carried out after QEMU has noticed that it is gone and has
 * unmapped everything: then it must have no effect, because nothing would take it back.
 */

const UNITS = [
  { unit: 'VT-d', make: () => new VtdAssigned(), register: 0xfed9_0018 },
  { unit: 'SMMUv3', make: () => new SmmuAssigned(), register: 0x905_0028 },
] as const;

let machine: AssignedMachine;
let daemon: ScriptedDaemon;

afterEach(async () => {
  machine.dispose();
  await daemon.dispose();
});

/** Asks for a mapping of the device's page `index`, and for a table page to be tracked. */
function askLast(index: number): void {
  const [{ device }] = daemon.listens;
  const [input, memory] = [machine.iova(index), machine.data + index * 4096];
  const ops = Uint32Array.of(3, input, 0, input + 4095, 0, memory, 0);
  daemon.send(MESSAGE.HOST_BATCH, { device, ops }, 100 + index);
  if (machine instanceof SmmuAssigned) {
    daemon.send(MESSAGE.TRACK, { pages: Uint32Array.of(memory + 0x10_0000 + 1, 0) }, 500 + index);
  }
}

interface Way {
  readonly way: string;
  /** Pages asked for. */
  readonly count: number;
  readonly end: (count: number) => void;
  /** Sent in place of the answer to a thread that holds QEMU's big lock. */
  readonly asked: boolean;
}

function askAll(count: number): void {
  for (let index = 1; index <= count; index++) askLast(index);
}

function askAndHangUp(count: number): void {
  askAll(count);
  daemon.hangUp();
}

const WAYS: readonly Way[] = [
  { way: 'and hangs up', count: 1, asked: false, end: askAndHangUp },
  { way: 'of many, and hangs up', count: 50, asked: false, end: askAndHangUp },
  { way: 'instead of an answer, and hangs up', count: 1, asked: true, end: askAndHangUp },
  { way: 'of many instead of an answer, and hangs up', count: 50, asked: true, end: askAndHangUp },
  {
    way: 'after the front channel was closed',
    count: 1,
    asked: true,
    end: (count) => {
      daemon.closeFront();
      askAll(count);
    },
  },
];

describe.each(titled(UNITS, ({ unit }) => `a daemon that asks for a mapping and is gone, ${unit}:`))(
  '%s',
  (_title, { make, register }) => {
    it.each(titled(WAYS, ({ way }) => way))('%s', async (_title, { count, end, asked }) => {
      machine = make();
      daemon = await ScriptedDaemon.start(machine.qemu.socket, { readRegister: () => end(count) });
      await machine.start();
      await eventually(() => daemon.listens.length > 0, 'the device to be announced');
      askLast(0);
      await daemon.answer(MESSAGE.HOST_BATCH, 100);
      if (machine instanceof SmmuAssigned) {
        await daemon.answer(MESSAGE.TRACK, 500);
        expect(await machine.trackedPages()).toHaveLength(1);
      }
      await machine.expectReaches(machine.iova(0), machine.data);
      if (asked) {
        // The shared page does not answer a read that comes behind a write.
        await machine.memory.writeWord(register, 0);
        await machine.memory.readWord(register);
      } else end(count);
      const { qemu } = machine;
      await eventually(() => qemu.text.includes('get no DMA through'), 'QEMU to notice');
      await qemu.command('query-status');
      for (let index = 0; index <= count; index++) {
        expect(await machine.dma(COMMAND.READ, machine.iova(index)), `page ${index}`).toBe(STATUS.FAULT);
      }
      expect(await machine.trackedPages()).toEqual([]);
      expect(qemu.text.trim().split('\n')).toHaveLength(1);
      expect(await qemu.quit()).toBe(0);
    });
  },
);
