import { expect, it } from 'vitest';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { StallingDevice } from '../../src/sim/stalling-device.js';
import { DATA, MIB } from '../support/rig.js';
import { SID, startSmmu } from '../support/smmu-rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;
const SSID = 5;
const page = (n: number): bigint => IOVA + BigInt(n * 4096);

onBothTransports(
  'SMMUv3 stalls',
  (rig) => {
    /** A stream and a substream whose stage 1 stalls, with nothing mapped, and devices on both. */
    function stalling(queueLog2 = 6) {
      const { machine } = rig();
      const driver = startSmmu(machine, { queueLog2 });
      const domain = driver.createDomain('first', { stall: true });
      const own = driver.createDomain('first', { stall: true });
      driver.attach(SID, domain, { ssidBits: 8 });
      driver.attachSubstream(SID, SSID, own);
      const dma = new StallingDevice(machine, SID);
      return { machine, driver, domain, own, dma, ssidDma: new StallingDevice(machine, SID, SSID) };
    }

    /** Waits until what the daemon said has reached the device. */
    function settle(driver: SmmuDriver, device: StallingDevice, left: number): void {
      driver.registers.waitUntil(() => {
        device.poll();
        return device.waiting.length === left;
      }, `${left} stalled accesses`);
    }

    it('an access waits for its page, like a fault of a process', () => {
      const { machine, driver, domain, own, dma, ssidDma } = stalling();
      const write = dma.write(IOVA, 0x1234_5678);
      const read = ssidDma.read(IOVA + 8n);
      expect([write.state, read.state]).toEqual(['waiting', 'waiting']);
      machine.ram.store32(DATA + MIB + 8, 0xfeed);
      const events = driver.events.drain();
      expect(events.map(({ name, ssid, stall, read: r }) => [name, ssid, stall, r])).toEqual([
        ['F_TRANSLATION', -1, true, false],
        ['F_TRANSLATION', SSID, true, true],
      ]);
      driver.map(domain, IOVA, DATA, 4096);
      driver.map(own, IOVA, DATA + MIB, 4096);
      expect(dma.poll() + ssidDma.poll()).toBe(0);
      for (const { stag } of events) driver.commands.resume(SID, stag, true);
      driver.commands.sync();
      settle(driver, dma, 0);
      settle(driver, ssidDma, 0);
      expect([write.state, read.state, read.result]).toEqual(['done', 'done', 0xfeed]);
      expect(machine.ram.load32(DATA)).toBe(0x1234_5678);
      expect(driver.events.drain()).toEqual([]);
    });

    it('an access that is terminated fails, and changes nothing', () => {
      const { machine, driver, domain, dma } = stalling();
      driver.map(domain, IOVA + 4096n, DATA, 4096);
      machine.ram.store32(DATA, 1);
      const write = dma.write(IOVA, 2);
      driver.commands.resume(SID, driver.events.drain()[0].stag, false);
      driver.commands.sync();
      settle(driver, dma, 0);
      expect([write.state, machine.ram.load32(DATA)]).toEqual(['failed', 1]);
    });

    it('an access that is tried in vain stalls again', () => {
      const { driver, domain, dma } = stalling();
      const write = dma.write(IOVA, 7);
      for (let round = 1; round <= 3; round++) {
        const [event, ...others] = driver.events.drain();
        expect([write.stalls, others]).toEqual([round, []]);
        if (round === 3) driver.map(domain, IOVA, DATA, 4096);
        driver.commands.resume(SID, event.stag, true);
        driver.commands.sync();
        driver.registers.waitUntil(() => dma.poll() > 0 || write.stalls > round, 'the retry');
      }
      expect([write.state, write.stalls]).toEqual(['done', 3]);
    });

    it('many accesses wait behind a full event queue, and none is lost', () => {
      const { driver, domain, dma } = stalling(2);
      const writes = Array.from({ length: 20 }, (_, n) => dma.write(page(n), n));
      // The last ones are on pages that others have asked for already.
      for (let n = 0; n < 20; n += 4) writes.push(dma.write(page(n) + 64n, n));
      expect(dma.waiting).toHaveLength(25);
      driver.map(domain, IOVA, DATA, 20 * 4096);
      let handled = 0;
      driver.registers.waitUntil(() => {
        for (const { stag, stall } of driver.events.drain(3)) {
          expect(stall).toBe(true);
          handled++;
          driver.commands.resume(SID, stag, true);
        }
        driver.commands.sync();
        dma.poll();
        return dma.waiting.length === 0;
      }, 'every access');
      expect(writes.every(({ state }) => state === 'done')).toBe(true);
      expect(handled).toBe(20);
      expect(driver.events.overflows).toBe(0);
    });

    it('a stream that is given up ends its stalls (CMD_STALL_TERM)', () => {
      const { driver, dma, ssidDma } = stalling();
      const writes = [dma.write(IOVA, 1), dma.write(page(1), 1), ssidDma.write(IOVA, 1)];
      driver.detach(SID);
      driver.commands.terminateStalls(SID);
      driver.commands.sync();
      settle(driver, dma, 0);
      settle(driver, ssidDma, 0);
      expect(writes.map(({ state }) => state)).toEqual(['failed', 'failed', 'failed']);
      expect(dma.write(IOVA, 1).state).toBe('failed');
    });

    it('disabling the SMMU ends every stall', () => {
      const { driver, dma } = stalling();
      const write = dma.write(IOVA, 1);
      driver.stop();
      settle(driver, dma, 0);
      expect(write.state).toBe('failed');
    });

    it('a device that cannot wait is refused, with an event that says so', () => {
      const { machine, driver } = stalling();
      expect(machine.translate(SID, -1, 2, IOVA)).toBeUndefined();
      expect(driver.events.drain()).toMatchObject([{ name: 'F_TRANSLATION', stall: false }]);
    });

    it('stage 2 stalls as well, and terminates where it is not told to', () => {
      const { machine } = rig();
      const driver = startSmmu(machine);
      const domain = driver.createDomain('second', { inputBits: 40, stall: true, record: false });
      driver.attach(SID, domain);
      const dma = new StallingDevice(machine, SID);
      const write = dma.write(IOVA, 9);
      const [event] = driver.events.drain();
      expect([event.stall, event.fields['S2'], event.fields['IPA']]).toEqual([true, 1, Number(IOVA)]);
      driver.map(domain, IOVA, DATA, 4096);
      driver.commands.resume(SID, event.stag, true);
      driver.commands.sync();
      settle(driver, dma, 0);
      expect(write.state).toBe('done');
      driver.attach(SID + 1, driver.createDomain('second', { inputBits: 40 }));
      expect(new StallingDevice(machine, SID + 1).write(IOVA, 9).state).toBe('failed');
    });
  },
  'smmuv3',
);
