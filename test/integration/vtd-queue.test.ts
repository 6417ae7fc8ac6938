import { expect, it } from 'vitest';
import type { Machine } from '../../src/sim/machine.js';
import type { VtdDriver } from '../../src/sim/vtd-driver.js';
import { descriptor } from '../../src/sim/vtd-invalidate.js';
import { InvalidationQueueError } from '../../src/sim/vtd-queue.js';
import { DESCRIPTOR, INV_WAIT_DSC, IOTLB_INV_DSC } from '../../src/spec/vtd/descriptors.js';
import {
  FECTL_REG,
  FSTS_REG,
  ICS_REG,
  IEADDR_REG,
  IECTL_REG,
  IEDATA_REG,
  IQEI,
  IQH_REG,
  IQT_REG,
} from '../../src/spec/vtd/registers.js';
import { DATA, device, expectReaches, RID, startDriver } from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

const IOVA = 0x4000_0000n;

function queueOf(driver: VtdDriver): NonNullable<VtdDriver['queue']> {
  if (driver.queue === undefined) throw new Error('no queue');
  return driver.queue;
}

/** Waits a moment for interrupts that must come, or must not. */
function settle(machine: Machine, count: number): void {
  for (let i = 0; i < 300 && machine.interrupts.length < count; i++) machine.idle(1);
}

const word = (type: number, more: Record<number, number> = {}): Uint32Array => {
  const words = new Uint32Array(8);
  words[0] = (type & 0xf) | ((type >> 4) << 9);
  for (const [index, bits] of Object.entries(more)) words[Number(index)] |= bits;
  return words;
};

const iotlb = (more: Record<number, number>): Uint32Array => {
  const words = descriptor(IOTLB_INV_DSC, DESCRIPTOR.IOTLB, { G: 1 });
  for (const [index, bits] of Object.entries(more)) words[Number(index)] |= bits;
  return words;
};

const BROKEN: readonly (readonly [string, 'legacy' | 'scalable', Uint32Array, number])[] = [
  ['type 0', 'legacy', word(0), IQEI.INVALID_TYPE],
  ['an unknown type', 'legacy', word(0x7f), IQEI.INVALID_TYPE],
  ['an unknown type', 'scalable', word(0xf), IQEI.INVALID_TYPE],
  ['reserved bits in an IOTLB descriptor', 'legacy', iotlb({ 0: 1 << 14 }), IQEI.RESERVED_FIELD],
  ['reserved bits in an IOTLB descriptor', 'scalable', iotlb({ 1: 1 << 5 }), IQEI.RESERVED_FIELD],
  ['reserved bits in the upper half', 'scalable', iotlb({ 6: 1 }), IQEI.RESERVED_FIELD],
];

onBothTransports('VT-d invalidation queue', (rig) => {
  for (const wide of [false, true]) {
    for (const size of [0, 2]) {
      it(`${wide ? 256 : 128}-bit descriptors in ${2 ** size} pages, several times round`, () => {
        const { machine } = rig();
        const driver = startDriver(machine, wide ? 'scalable' : 'legacy', { queueSize: size });
        const queue = queueOf(driver);
        const domain = driver.createDomain('second');
        driver.attach(RID, domain);
        const slots = queue.bytes / queue.descriptorBytes;
        for (let round = 0; round < 3; round++) {
          for (let n = 0; n < slots; n++) driver.invalidate.iotlbPage(domain.did, IOVA, 0);
          driver.map(domain, IOVA, DATA + round * 4096, 4096);
          driver.invalidate.sync();
          expectReaches(machine, device(machine), IOVA, DATA + round * 4096);
          driver.unmap(domain, IOVA, 4096);
        }
        expect(driver.registers.field(IQH_REG, 'QH')).toBe(queue.tail);
        expect(queue.error()).toBeUndefined();
      });
    }
  }

  for (const [what, mode, words, iqei] of BROKEN) {
    it(`${mode}: ${what} stops the queue at the descriptor, which goes on once it is repaired`, () => {
      const { machine } = rig();
      const driver = startDriver(machine, mode);
      const queue = queueOf(driver);
      const at = queue.tail;
      queue.submit(words);
      expect(() => queue.sync()).toThrow(InvalidationQueueError);
      expect(queue.error()).toMatchObject({ IQE: true, IQEI: iqei, head: at });
      const behind = queue.completed();
      machine.writeRegister(IQT_REG.offset, 8, BigInt(queue.tail));
      expect(queue.completed(), 'nothing behind it runs').toBe(behind);
      queue.recover();
      driver.invalidate.iotlbGlobal();
      queue.sync();
      expect(queue.error()).toBeUndefined();
    });
  }

  it('a queue error raises the fault event', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy', { faultMsi: { address: 0xfee0_2000, data: 0x55 } });
    const queue = queueOf(driver);
    queue.submit(word(0x3f));
    expect(() => queue.sync()).toThrow(InvalidationQueueError);
    settle(machine, 1);
    expect(machine.interrupts).toEqual([{ address: 0xfee0_2000, data: 0x55 }]);
    queue.recover();
    expect(driver.registers.field(FSTS_REG, 'IQE')).toBe(0);
    expect(driver.registers.field(FECTL_REG, 'IP')).toBe(0);
  });

  it('a tail beyond the ring is an error', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    machine.writeRegister(IQT_REG.offset, 8, 0x2000n);
    driver.registers.waitUntil(() => queueOf(driver).error() !== undefined, 'IQE');
    expect(queueOf(driver).error()).toMatchObject({ IQE: true, IQEI: IQEI.INVALID_TAIL });
  });

  it('a tail not aligned to 256-bit descriptors is an error', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    machine.writeRegister(IQT_REG.offset, 8, BigInt((queueOf(driver).tail + 16) % 4096));
    driver.registers.waitUntil(() => queueOf(driver).error() !== undefined, 'IQE');
    expect(queueOf(driver).error()).toMatchObject({ IQE: true, IQEI: IQEI.TAIL_ALIGNMENT });
  });

  it('a ring outside of RAM is a fetch error', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    driver.queue?.disable();
    machine.writeRegister(IQT_REG.offset, 8, 0n);
    machine.writeRegister(0x90, 8, 0x7000_0000n);
    driver.registers.command('QIE', 'QIES');
    machine.writeRegister(IQT_REG.offset, 8, 16n);
    driver.registers.waitUntil(() => queueOf(driver).error() !== undefined, 'IQE');
    expect(queueOf(driver).error()).toMatchObject({ IQE: true, IQEI: IQEI.FETCH, head: 0 });
  });

  it('a wait descriptor with IF raises the completion interrupt and sets IWC', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const queue = queueOf(driver);
    driver.registers.write(IEDATA_REG, { IMD: 0x77 });
    driver.registers.write(IEADDR_REG, { MA: 0xfee0_3000 });
    driver.registers.write(IECTL_REG, { IM: 0 });
    const value = queue.submitWait({ interrupt: true });
    queue.kick();
    queue.await(value);
    settle(machine, 1);
    expect(machine.interrupts.splice(0)).toEqual([{ address: 0xfee0_3000, data: 0x77 }]);
    expect(driver.registers.field(ICS_REG, 'IWC')).toBe(1);
    driver.registers.write(ICS_REG, { IWC: 1 });
    expect(driver.registers.field(ICS_REG, 'IWC')).toBe(0);
    // Masked, it stays pending until it is unmasked.
    driver.registers.write(IECTL_REG, { IM: 1 });
    const masked = queue.submitWait({ interrupt: true });
    queue.kick();
    queue.await(masked);
    expect(driver.registers.field(IECTL_REG, 'IP')).toBe(1);
    expect(machine.interrupts).toEqual([]);
    driver.registers.write(IECTL_REG, { IM: 0 });
    settle(machine, 1);
    expect(machine.interrupts).toHaveLength(1);
  });

  it('a wait without a status write still moves the head', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const queue = queueOf(driver);
    const before = queue.completed();
    queue.submitWait({ status: false, fence: true });
    queue.kick();
    driver.registers.waitUntil(() => driver.registers.field(IQH_REG, 'QH') === queue.tail, 'the head');
    expect(queue.completed()).toBe(before);
  });

  it('a status address outside of RAM does not stop the unit', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const queue = queueOf(driver);
    const lost = descriptor(INV_WAIT_DSC, DESCRIPTOR.WAIT, {
      SW: 1,
      StatusData: 7,
      StatusAddress: 0x7000_0000,
    });
    queue.submit(lost);
    queue.kick();
    driver.registers.waitUntil(
      () => driver.registers.field(IQH_REG, 'QH') === queue.tail || queue.error() !== undefined,
      'the descriptor',
    );
    if (queue.error() !== undefined) queue.recover();
    driver.invalidate.iotlbGlobal();
    queue.sync();
  });
});
