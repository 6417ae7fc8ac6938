import { expect, it } from 'vitest';
import { SmmuVirtualCommands } from '../../src/sim/smmu-virtual.js';
import { VCMD, VCRSP, VCRSP_STATUS } from '../../src/spec/smmuv3/virtual-commands.js';
import { DATA, device, expectReaches } from '../support/rig.js';
import { expectEvent, SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const ON = { 'virtual-commands': 'on', 'ssid-bits': '8' } as const;
const IOVA = 0x4000_0000n;

onBothTransports(
  'SMMUv3 virtual commands',
  (rig) => {
    it('are not offered unless they are asked for', () => {
      const { machine } = rig();
      expect(new SmmuVirtualCommands(startSmmu(machine).registers).offered).toBe(false);
      for (let offset = 0xe00; offset < 0xf00; offset += 8) {
        machine.writeRegister(offset, 8, 0xffff_ffff_ffff_ffffn);
        expect(machine.readRegister(offset, 8)).toBe(0n);
      }
    });

    it('give a driver the SubstreamIDs that it attaches address spaces to; no other reaches anything', () => {
      const { machine } = rig(ON);
      const driver = startSmmu(machine);
      const commands = new SmmuVirtualCommands(driver.registers);
      expect(commands.offered).toBe(true);
      const spaces = Array.from({ length: 3 }, (_, n) => {
        const ssid = commands.allocate() as number;
        const domain = driver.createDomain('first');
        driver.attachSubstream(SID, ssid, domain);
        driver.map(domain, IOVA, DATA + n * 4096, 4096);
        return { ssid, domain };
      });
      expect(new Set(spaces.map(({ ssid }) => ssid)).size).toBe(3);
      spaces.forEach(({ ssid }, n) => {
        expectReaches(machine, device(machine, SID, ssid), IOVA, DATA + n * 4096);
      });
      // One that it has not, with everything in place for it.
      const strange = Math.max(...spaces.map(({ ssid }) => ssid)) + 1;
      driver.attachSubstream(SID, strange, spaces[0].domain);
      expectEvent(driver, 'read', strange, IOVA, 'C_BAD_SUBSTREAMID', { ssid: strange });
      // Freed while the device still uses it, from caches too, and the driver has forgotten
      // everything else.
      const [{ ssid }] = spaces;
      expectReaches(machine, device(machine, SID, ssid), IOVA, DATA);
      expect([commands.free(ssid), commands.free(ssid)]).toEqual([true, false]);
      expectEvent(driver, 'write', ssid, IOVA, 'C_BAD_SUBSTREAMID', { ssid });
      expectReaches(machine, device(machine, SID, spaces[1].ssid), IOVA, DATA + 4096);
      expect(spaces.map((space) => space.ssid)).not.toContain(commands.allocate());
    });

    it('run out, and start again after a reset', () => {
      const { machine } = rig({ ...ON, 'ssid-bits': '3' });
      const driver = startSmmu(machine);
      const commands = new SmmuVirtualCommands(driver.registers);
      const got = Array.from({ length: 7 }, () => commands.allocate());
      expect(got).toEqual([1, 2, 3, 4, 5, 6, 7]);
      expect(commands.allocate()).toBeUndefined();
      expect([commands.free(3), commands.allocate()]).toEqual([true, 3]);
    });

    it('are there before the unit is enabled, and answer what they do not know', () => {
      const { machine } = rig(ON);
      const driver = startSmmu(machine);
      driver.stop();
      const commands = new SmmuVirtualCommands(driver.registers);
      const ssid = commands.allocate() as number;
      expect(ssid).toBeGreaterThan(0);
      expect(commands.command(0)).toEqual({ status: VCRSP_STATUS.SUCCESS, ssid: 0 });
      expect(commands.command(77).status).toBe(VCRSP_STATUS.UNDEFINED_COMMAND);
      expect([commands.free(0), commands.free(0xfffff)]).toEqual([false, false]);
      // What it has survives an SMMUEN that goes and comes.
      const again = startSmmu(machine);
      const domain = again.createDomain('first');
      again.attachSubstream(SID, ssid, domain);
      again.map(domain, IOVA, DATA, 4096);
      expectReaches(machine, device(machine, SID, ssid), IOVA, DATA);
      machine.writeRegister(VCMD.offset, 8, 0xffff_ffff_0000_0001n);
      again.registers.waitUntil(() => again.registers.field(VCRSP, 'BUSY') === 0, 'VCRSP.BUSY = 0');
      expect(again.registers.field(VCRSP, 'SubstreamID')).toBe(ssid + 1);
    });
  },
  'smmuv3',
);
