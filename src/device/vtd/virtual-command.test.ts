import { describe, expect, it } from 'vitest';
import { ScriptedSpace } from '../../../test/support/scripted-pasids.js';
import { TestMachine } from '../../../test/support/vtd-unit.js';
import { decode } from '../../spec/define.js';
import { ECAP_REG, VCCAP_REG, VCMD_EO_REG, VCMD_REG, VCRSP_REG } from '../../spec/vtd/registers.js';
import { PASID_ANSWER } from '../pasid-space.js';

const ON = { 'caching-mode': 'on', 'scalable-mode': 'on', 'virtual-commands': 'on' };
const NULL = 0;
const ALLOCATE = 1;
const FREE = 2;

/** One command as a driver gives it; what VCRSP_REG says then. */
function command(vm: TestMachine, code: number, pasid = 0) {
  vm.write64(VCMD_REG.offset, pasid * 2 ** 16 + code);
  return response(vm);
}

function response(vm: TestMachine) {
  const { IP, SC, RSLT } = decode(VCRSP_REG, vm.registers, VCRSP_REG.offset >> 2);
  return { IP, SC, RSLT };
}

const done = (RSLT = 0) => ({ IP: 0, SC: 0, RSLT });
const failed = (SC: number) => ({ IP: 0, SC, RSLT: 0 });
const busy = { IP: 1, SC: 0, RSLT: 0 };

describe('virtual commands', () => {
  it('are there only when asked for', () => {
    const without = new TestMachine({ 'caching-mode': 'on' });
    expect(ECAP_REG.get.VCS(without.registers, ECAP_REG.offset >> 2)).toBe(0);
    expect(command(without, ALLOCATE)).toEqual(done());
    expect([without.read(VCCAP_REG.offset), without.read(VCMD_REG.offset)]).toEqual([0, 0]);
    const vm = new TestMachine(ON);
    expect(ECAP_REG.get.VCS(vm.registers, ECAP_REG.offset >> 2)).toBe(1);
    expect(decode(VCCAP_REG, vm.registers, VCCAP_REG.offset >> 2)).toEqual({ NS: 1, PAS: 1, FPS: 1 });
  });

  it('allocate and free', () => {
    const vm = new TestMachine(ON);
    expect(command(vm, NULL)).toEqual(done());
    expect([command(vm, ALLOCATE), command(vm, ALLOCATE)]).toEqual([done(1), done(2)]);
    expect(command(vm, FREE, 1)).toEqual(done());
    expect(command(vm, FREE, 1)).toEqual(failed(16));
    expect(command(vm, ALLOCATE)).toEqual(done(3));
  });

  it('carry all 20 bits, whose upper four stand in the second word, and ignore what is above', () => {
    const space = new ScriptedSpace(0xabcde);
    const vm = new TestMachine(ON, space);
    expect(command(vm, ALLOCATE)).toEqual(done(0xabcde));
    space.answer = PASID_ANSWER.DONE;
    expect(command(vm, FREE, 0x70_fedc_1)).toEqual(done());
    expect(space.asked).toEqual(['release', 'allocate', 'free 0xfedc1']);
  });

  it('are taken with the low half where a driver writes 32 bits at a time', () => {
    const space = new ScriptedSpace(PASID_ANSWER.DONE);
    const vm = new TestMachine(ON, space);
    vm.write32(VCMD_REG.offset + 4, 0xf);
    expect(space.asked).toEqual(['release']);
    vm.write32(VCMD_REG.offset, 0xedc1_0002);
    expect(space.asked).toEqual(['release', 'free 0xfedc1']);
  });

  it('say what is undefined, and when there is no PASID', () => {
    const vm = new TestMachine(ON, new ScriptedSpace(PASID_ANSWER.REFUSED));
    expect([command(vm, 3), command(vm, 255)]).toEqual([failed(1), failed(1)]);
    expect(command(vm, ALLOCATE)).toEqual(failed(16));
    expect(vm.events.at(-1)).toMatchObject({ name: 'virtual command failed' });
  });

  it('are in progress until the answer is there, and take no other until then', () => {
    const space = new ScriptedSpace(PASID_ANSWER.LATER);
    const vm = new TestMachine(ON, space);
    expect(command(vm, ALLOCATE)).toEqual(busy);
    expect(command(vm, FREE, 7)).toEqual(busy);
    vm.write64(VCMD_EO_REG.offset, 5);
    expect(VCMD_REG.get.CMD(vm.registers, VCMD_REG.offset >> 2)).toBe(ALLOCATE);
    expect(vm.read(VCMD_EO_REG.offset)).toBe(0);
    expect(space.asked).toEqual(['release', 'allocate']);
    vm.model.pasids?.answered(0x12345);
    expect(response(vm)).toEqual(done(0x12345));
    expect(command(vm, FREE, 7)).toEqual(busy);
    vm.model.pasids?.answered(PASID_ANSWER.REFUSED);
    expect(response(vm)).toEqual(failed(16));
  });

  it('give back a PASID that the guest has already, and fail', () => {
    const space = new ScriptedSpace(9);
    const vm = new TestMachine(ON, space);
    expect([command(vm, ALLOCATE), command(vm, ALLOCATE)]).toEqual([done(9), failed(16)]);
    expect(space.asked).toEqual(['release', 'allocate', 'allocate', 'free 0x9']);
    vm.model.pasids?.revoked(9);
    expect(command(vm, ALLOCATE)).toEqual(done(9));
  });

  it('give everything back at a reset, which voids what is in progress', () => {
    const space = new ScriptedSpace(PASID_ANSWER.LATER);
    const vm = new TestMachine(ON, space);
    command(vm, ALLOCATE);
    vm.model.reset();
    expect(space.asked.at(-1)).toBe('release');
    vm.model.pasids?.answered(9);
    expect(response(vm)).toEqual(done());
    const own = new TestMachine(ON);
    command(own, ALLOCATE);
    own.model.reset();
    expect(command(own, ALLOCATE)).toEqual(done(1));
  });
});
