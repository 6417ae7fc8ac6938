import { expect, it } from 'vitest';
import { ACCESS } from '../../src/device/iommu.js';
import type { Machine } from '../../src/sim/machine.js';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { type CommandErrorName, CommandQueueError, command } from '../../src/sim/smmu-queue.js';
import { CMD, CMD_ATC_INV, CMD_CFGI_STE, CMD_SYNC, CMD_TLBI } from '../../src/spec/smmuv3/commands.js';
import { CMDQ_BASE, EVENTQ_BASE, EVENTQ_PROD, GERROR, GERRORN } from '../../src/spec/smmuv3/registers.js';
import { DATA, device, expectReaches, RAM_BYTES } from '../support/rig.js';
import { expectEvent, SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;
const MESSAGES = { address: 0x0808_0040, data: 0x60 } as const;

/** Waits a moment for interrupts that must come. */
function settle(machine: Machine, count: number): void {
  for (let i = 0; i < 300 && machine.interrupts.length < count; i++) machine.idle(1);
}

/** Runs `work`, which must be stopped by this error. */
function stopped(work: () => void, code: CommandErrorName): CommandQueueError {
  let found: unknown;
  try {
    work();
  } catch (error) {
    found = error;
  }
  expect(found).toBeInstanceOf(CommandQueueError);
  expect((found as CommandQueueError).code).toBe(code);
  return found as CommandQueueError;
}

const BROKEN: readonly (readonly [string, Uint32Array])[] = [
  ['opcode 0', new Uint32Array(4)],
  ['an unknown opcode', new Uint32Array([0xff, 0, 0, 0])],
  ['a command of EL2', command(CMD_TLBI, { Opcode: CMD.TLBI_EL2_ALL })],
  ['a command of EL3', command(CMD_TLBI, { Opcode: CMD.TLBI_EL3_ALL })],
  ['a Secure command', command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, SSec: 1 })],
  ['a reserved signal', command(CMD_SYNC, { Opcode: CMD.SYNC, CS: 3 })],
  ['a range of nothing', command(CMD_TLBI, { Opcode: CMD.TLBI_NH_VA, TG: 1 })],
  ['an impossible size', command(CMD_ATC_INV, { Opcode: CMD.ATC_INV, Size: 60 })],
];

onBothTransports(
  'SMMUv3 queues',
  (rig) => {
    for (const sync of ['poll', 'message'] as const) {
      for (const queueLog2 of [1, 8]) {
        it(`CMD_SYNC by ${sync}, ${2 ** queueLog2} entries, several times round`, () => {
          const { machine } = rig();
          const driver = startSmmu(machine, { queueLog2, sync });
          const domain = driver.createDomain('first');
          driver.attach(SID, domain);
          for (let round = 0; round < 3; round++) {
            for (let n = 0; n < driver.queue.entries; n++) driver.commands.asid(0, 99);
            driver.map(domain, IOVA, DATA + round * 4096, 4096);
            expectReaches(machine, device(machine, SID), IOVA, DATA + round * 4096);
            driver.unmap(domain, IOVA, 4096);
            expectEvent(driver, 'write', -1, IOVA, 'F_TRANSLATION');
          }
          expect(driver.queue.consumed()).toBe(driver.queue.prod);
          expect(driver.queue.error()).toBeUndefined();
        });
      }
    }

    for (const [what, words] of BROKEN) {
      it(`${what} stops the queue there, which goes on once it is repaired`, () => {
        const { machine } = rig({ ats: 'on' });
        const driver = startSmmu(machine);
        const domain = driver.createDomain('first');
        driver.attach(SID, domain);
        driver.map(domain, IOVA, DATA, 4096);
        expectReaches(machine, device(machine, SID), IOVA, DATA);
        domain.table?.map(IOVA, DATA + 4096, 4096);
        const at = driver.queue.prod;
        driver.queue.submit(words);
        driver.commands.asid(domain.vmid, domain.asid);
        const error = stopped(() => driver.commands.sync(), 'CERROR_ILL');
        expect(error.index).toBe(at % driver.queue.entries);
        expectReaches(machine, device(machine, SID), IOVA, DATA);
        driver.queue.recover();
        driver.commands.sync();
        expectReaches(machine, device(machine, SID), IOVA, DATA + 4096);
      });
    }

    it('a ring outside of RAM is an abort', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      driver.control({});
      driver.registers.write(CMDQ_BASE, { LOG2SIZE: driver.queue.log2, ADDR: RAM_BYTES });
      driver.control({ CMDQEN: 1 });
      stopped(() => driver.commands.sync(), 'CERROR_ABT');
    });

    it('errors and events interrupt by message where one is configured', () => {
      const { machine } = rig();
      const driver = startSmmu(machine, { messages: MESSAGES });
      expect(machine.interrupts).toEqual([]);
      driver.queue.submit(new Uint32Array(4));
      driver.queue.kick();
      settle(machine, 1);
      expect(machine.interrupts).toEqual([{ address: MESSAGES.address, data: MESSAGES.data + 1 }]);
      driver.queue.recover();
      driver.attach(SID, driver.createDomain('first'));
      machine.translate(SID, -1, ACCESS.READ, IOVA);
      settle(machine, 2);
      expect(machine.interrupts[1]).toEqual({ address: MESSAGES.address, data: MESSAGES.data });
      expect(driver.events.drain()).toMatchObject([{ name: 'F_TRANSLATION' }]);
    });

    it('events that find the queue full are lost, which is told once', () => {
      const { machine } = rig();
      const driver = startSmmu(machine, { queueLog2: 3 });
      driver.attach(SID, driver.createDomain('first'));
      const fault = (n: number): void => {
        expect(machine.translate(SID, -1, ACCESS.READ, IOVA + BigInt(n * 4096))).toBeUndefined();
      };
      for (let n = 0; n < 11; n++) fault(n);
      expect(driver.registers.field(EVENTQ_PROD, 'OVFLG')).toBe(1);
      const events = driver.events.drain();
      expect(events.map(({ address }) => address)).toEqual(
        Array.from({ length: 8 }, (_, n) => IOVA + BigInt(n * 4096)),
      );
      expect(driver.events.overflows).toBe(1);
      for (let n = 0; n < 8; n++) fault(n);
      expect(driver.events.drain()).toHaveLength(8);
      expect(driver.events.overflows).toBe(1);
    });

    it('an event queue outside of RAM is a global error', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      driver.attach(SID, driver.createDomain('first'));
      driver.control({});
      driver.registers.write(EVENTQ_BASE, { LOG2SIZE: 3, ADDR: RAM_BYTES });
      driver.control(driver.enables);
      machine.translate(SID, -1, ACCESS.READ, IOVA);
      const active = driver.registers.read(GERROR)[0] ^ driver.registers.read(GERRORN)[0];
      expect(active).toBe(1 << GERROR.fields.EVENTQ_ABT_ERR.lsb);
    });

    it('merges events of a stream that allows it', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      driver.attach(SID, driver.createDomain('first'), { mergeEvents: true });
      driver.attach(SID + 1, driver.createDomain('first'));
      const faults = (sid: number): number => {
        for (let n = 0; n < 4; n++) machine.translate(sid, -1, ACCESS.WRITE, IOVA + BigInt(n * 64));
        return driver.events.drain().length;
      };
      expect([faults(SID), faults(SID + 1)]).toEqual([1, 4]);
    });

    it('records an impossible StreamID on request', () => {
      const { machine } = rig();
      const driver: SmmuDriver = startSmmu(machine, {
        streamTable: 'linear',
        recordInvalidStreams: true,
      });
      expectEvent(driver, 'read', -1, IOVA, 'C_BAD_STREAMID', { sid: 0x100 });
    });
  },
  'smmuv3',
);
