import { expect, it } from 'vitest';
import { VirtualCommands } from '../../src/sim/vtd-virtual.js';
import { VCMD_REG, VCRSP_REG, VIRTUAL_STATUS } from '../../src/spec/vtd/registers.js';
import { DATA, device, expectFault, expectReaches, RID, startDriver } from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

const ON = { 'caching-mode': 'on', 'virtual-commands': 'on' } as const;
const IOVA = 0x7f00_0000_0000n;

onBothTransports('VT-d virtual commands', (rig) => {
  it('are not offered unless they are asked for', () => {
    const driver = startDriver(rig({ 'caching-mode': 'on' }).machine, 'scalable');
    expect(new VirtualCommands(driver.registers).offered).toBe(false);
  });

  it('give a driver the PASIDs that it attaches address spaces to', () => {
    const { machine } = rig(ON);
    const driver = startDriver(machine, 'scalable', { pdts: 7 });
    const commands = new VirtualCommands(driver.registers);
    expect(commands.offered).toBe(true);
    const spaces = Array.from({ length: 3 }, (_, n) => {
      const pasid = commands.allocate() as number;
      const domain = driver.createDomain('first');
      driver.attach(RID, domain, { pasid });
      driver.map(domain, IOVA, DATA + n * 4096, 4096);
      return { pasid, domain };
    });
    expect(new Set(spaces.map(({ pasid }) => pasid)).size).toBe(3);
    spaces.forEach(({ pasid }, n) => {
      expectReaches(machine, device(machine, RID, pasid), IOVA, DATA + n * 4096);
    });
    const [{ pasid, domain }] = spaces;
    driver.detach(RID, domain, pasid);
    expect([commands.free(pasid), commands.free(pasid)]).toEqual([true, false]);
    expectFault(driver, 'read', RID, pasid, IOVA, 'SPT_2');
    const next = commands.allocate() as number;
    expect(spaces.some((space) => space.pasid === next)).toBe(false);
  });

  it('give no PASID that the unit is too narrow for, and all others', () => {
    const { machine } = rig({ ...ON, 'pasid-bits': '6' });
    const commands = new VirtualCommands(startDriver(machine, 'scalable').registers);
    const got = Array.from({ length: 63 }, () => commands.allocate());
    expect(got).toEqual(Array.from({ length: 63 }, (_, n) => n + 1));
    expect(commands.allocate()).toBeUndefined();
    expect([commands.free(5), commands.allocate()]).toEqual([true, 5]);
  });

  it('are there before remapping is on, and answer what they do not know', () => {
    const { machine } = rig(ON);
    const driver = startDriver(machine, 'scalable');
    driver.stop();
    const commands = new VirtualCommands(driver.registers);
    expect(commands.allocate()).toBeGreaterThan(0);
    expect(commands.command(0)).toEqual({ status: VIRTUAL_STATUS.SUCCESS, result: 0 });
    expect(commands.command(77).status).toBe(VIRTUAL_STATUS.UNDEFINED_COMMAND);
    expect([commands.free(0), commands.free(0xfffff)]).toEqual([false, false]);
    // Written in halves, the low one submits.
    machine.writeRegister(VCMD_REG.offset + 4, 4, 0n);
    machine.writeRegister(VCMD_REG.offset, 4, 1n);
    driver.registers.waitUntil(() => driver.registers.field(VCRSP_REG, 'IP') === 0, 'VCRSP_REG.IP = 0');
    expect(driver.registers.field(VCRSP_REG, 'RSLT')).toBeGreaterThan(0);
  });
});
