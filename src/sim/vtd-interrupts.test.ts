import { describe, expect, it } from 'vitest';
import { LocalMachine } from '../../test/support/local-machine.js';
import { ANY } from '../base/ids.js';
import type { InterruptResult } from '../device/interrupts.js';
import { ArrayMemory } from '../memory/array.js';
import { VtdDriver } from './vtd-driver.js';
import { VtdInterrupts } from './vtd-interrupts.js';

function guest(options: Readonly<Record<string, string>>, mode: 'legacy' | 'scalable') {
  const machine = new LocalMachine(new ArrayMemory([{ base: 0, bytes: 0x40_0000 }]), options);
  const driver = new VtdDriver(machine, { mode, pages: [0x10_0000, 0x40_0000] });
  driver.start();
  const { queue, registers, pages } = driver;
  if (queue === undefined) throw new Error('the driver has no queue');
  const interrupts = new VtdInterrupts(registers, queue, machine.ram, pages);
  const raise = (rid: number, index: number, subhandle?: number): InterruptResult => {
    const { address, data } = interrupts.message(index, subhandle);
    const result: InterruptResult = { status: -1, lo: 0, hi: 0, data: 0, index: ANY, passAll: false };
    machine.model.interrupts?.remap({ rid, lo: address, hi: 0, data, look: false }, result);
    return result;
  };
  return { machine, driver, interrupts, raise };
}

describe.each(['legacy', 'scalable'] as const)('a driver in %s mode', (mode) => {
  it('sets up interrupts, moves them, and takes them away', () => {
    const { driver, interrupts, raise } = guest({ intremap: 'on', eim: 'on' }, mode);
    expect(interrupts.offered).toBe(true);
    interrupts.enable(true);
    interrupts.set(7, { P: 1, V: 0x33, DST: 0x1_0203, SVT: 1, SID: 0x18 });
    expect(raise(0x18, 7)).toMatchObject({ status: 0, lo: 0xfee03000, hi: 0x1_0200, data: 0x4033, index: 7 });
    expect(raise(0x18, 4, 3)).toMatchObject({ status: 0, index: 7 });
    interrupts.set(7, { P: 1, V: 0x44, SVT: 1, SID: 0x18 });
    expect(raise(0x18, 7)).toMatchObject({ lo: 0xfee00000, data: 0x4044 });
    expect(raise(0x20, 7)).toMatchObject({ status: 1 });
    interrupts.set(7, {});
    expect(raise(0x18, 7)).toMatchObject({ status: 1 });
    expect(driver.faults.drain().map(({ reason }) => reason)).toEqual([0x26, 0x22]);
    interrupts.disable();
    expect(raise(0x18, 7)).toMatchObject({ status: 0, passAll: true });
  });

  it('that forgets an invalidation keeps its old interrupt', () => {
    const { machine, interrupts, raise } = guest({ intremap: 'on' }, mode);
    interrupts.enable();
    machine.model.interrupts?.check?.(true);
    interrupts.set(7, { P: 1, V: 0x33 });
    raise(0x18, 7);
    interrupts.set(7, { P: 1, V: 0x44 }, false);
    expect(raise(0x18, 7)).toMatchObject({ data: 0x4033 });
    const told = machine.outputs.events.filter(({ kind }) => kind === 'staleInterrupt');
    expect(told).toMatchObject([{ index: 7, differs: 'V 51, now 68' }]);
  });
});
