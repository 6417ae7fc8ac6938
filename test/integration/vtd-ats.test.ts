import { expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS, DEVICE_TLB, REQUEST, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { AtsDevice } from '../../src/sim/ats-device.js';
import type { DeviceDrop, Machine } from '../../src/sim/machine.js';
import type { VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { InvalidationQueueError } from '../../src/sim/vtd-queue.js';
import { FECTL_REG, FSTS_REG, IQERCD_REG, IQH_REG } from '../../src/spec/vtd/registers.js';
import { DATA, device, expectFault, expectReaches, MIB, RID, startDriver } from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

const ON = { 'device-tlb': 'on' } as const;
const IOVA = 0x4000_0000n;
const PASID = 5;

/** Proves that a device that translates ahead reaches `gpa`, both ways. */
function expectAhead(machine: Machine, ats: AtsDevice, pasid: number, address: bigint, gpa: number): void {
  const value = (gpa + 0x5a5a) >>> 0;
  expect(ats.access(pasid, address + 8n, value).outcome).toBe('done');
  expect(machine.ram.load32(gpa + 8) >>> 0).toBe(value);
  machine.ram.store32(gpa + 12, ~value);
  expect(ats.access(pasid, address + 12n)).toEqual({ outcome: 'done', value: ~value >>> 0 });
}

function queueOf(driver: VtdDriver): NonNullable<VtdDriver['queue']> {
  if (driver.queue === undefined) throw new Error('no queue');
  return driver.queue;
}

interface Scene {
  readonly machine: Machine;
  readonly driver: VtdDriver;
  readonly domain: VtdDomain;
  readonly ats: AtsDevice;
  /** Invalidation requests that the device was sent. */
  readonly drops: DeviceDrop[];
  readonly pasid: number;
}

const KINDS = [
  { name: 'legacy', mode: 'legacy', kind: 'second', pasid: NO_PASID },
  { name: 'scalable second stage', mode: 'scalable', kind: 'second', pasid: NO_PASID },
  { name: 'scalable first stage', mode: 'scalable', kind: 'first', pasid: NO_PASID },
  { name: 'scalable first stage with PASID', mode: 'scalable', kind: 'first', pasid: PASID },
] as const;

onBothTransports('VT-d Device-TLBs', (rig) => {
  function scene({ mode, kind, pasid }: (typeof KINDS)[number], options: Record<string, string> = ON): Scene {
    const { machine } = rig(options);
    const driver = startDriver(machine, mode);
    const domain = driver.createDomain(kind);
    driver.attach(RID, domain, pasid === NO_PASID ? { ats: true } : { ats: true, pasid });
    driver.map(domain, IOVA, DATA, 16 * 4096);
    const ats = new AtsDevice(machine, RID);
    const drops: DeviceDrop[] = [];
    ats.onDrop = (drop) => drops.push(drop);
    return { machine, driver, domain, ats, drops, pasid };
  }

  for (const kind of KINDS) {
    it(`${kind.name}: translate, keep, lose by invalidation`, () => {
      const { machine, driver, domain, ats, drops, pasid } = scene(kind);
      expectAhead(machine, ats, pasid, IOVA, DATA);
      expect([ats.asked, ats.size]).toEqual([1, 1]);
      // Unmapped, but not told: the device goes on with what it keeps. That is what Device-TLBs
      // are.
      domain.table?.unmap(IOVA, 4096);
      driver.invalidate.iotlbGlobal();
      driver.invalidate.sync();
      expectAhead(machine, ats, pasid, IOVA, DATA);
      driver.unmap(domain, IOVA, 4096);
      expect(drops.at(-1)).toEqual({ pasid, address: IOVA, log2Size: 12, global: false });
      expect(ats.access(pasid, IOVA, 1).outcome).toBe('denied');
      expect(driver.faults.drain()).toEqual([]);
      // Ordinary requests of the same device are translated by the same tables.
      expectReaches(machine, device(machine, RID, pasid), IOVA + 4096n, DATA + 4096);
    });
  }

  it('blocks of every size are dropped, and no other', () => {
    const { machine, driver, domain, ats, drops } = scene(KINDS[1]);
    driver.map(domain, 0x8000_0000n, DATA + 8 * MIB, 2 * MIB, undefined, 21);
    for (let page = 0n; page < 16n; page++) {
      expectAhead(machine, ats, NO_PASID, IOVA + page * 4096n, DATA + Number(page) * 4096);
    }
    expectAhead(machine, ats, NO_PASID, 0x8012_3000n, DATA + 8 * MIB + 0x12_3000);
    expect(ats.size).toBe(17);
    driver.invalidate.deviceTlb(RID, -1, IOVA + 0x2000n, 1);
    driver.invalidate.sync();
    expect(ats.size).toBe(15);
    driver.invalidate.deviceTlb(RID, -1, IOVA + 0x8000n, 3);
    driver.invalidate.sync();
    expect(ats.size).toBe(7);
    driver.invalidate.deviceTlb(RID, -1, 0x8000_0000n, 9);
    driver.invalidate.sync();
    expect(ats.size).toBe(6);
    driver.invalidate.deviceTlb(RID, -1, 0n, 52);
    driver.invalidate.sync();
    expect([ats.size, drops.at(-1)?.log2Size]).toEqual([0, 64]);
  });

  it('an invalidation is for one PASID, or for all that have one', () => {
    const { machine, driver, domain, ats, drops } = scene(KINDS[3]);
    const other = driver.createDomain('first');
    driver.attach(RID, other, { ats: true, pasid: 6 });
    driver.map(other, IOVA, DATA + MIB, 4096);
    expectAhead(machine, ats, PASID, IOVA, DATA);
    expectAhead(machine, ats, 6, IOVA, DATA + MIB);
    driver.unmap(domain, IOVA, 4096);
    expectAhead(machine, ats, 6, IOVA, DATA + MIB);
    expect(ats.size).toBe(1);
    driver.invalidate.deviceTlb(RID, PASID, IOVA, 0, { global: true });
    driver.invalidate.sync();
    expect([ats.size, drops.at(-1)?.global]).toEqual([0, true]);
  });

  it('rights are those of the tables, and a read asks for no more', () => {
    const { machine, driver, domain, ats } = scene(KINDS[2]);
    driver.map(domain, IOVA + 0x10_0000n, DATA, 4096, { read: true, write: false });
    expect(ats.access(NO_PASID, IOVA + 0x10_0000n).outcome).toBe('done');
    expect(ats.access(NO_PASID, IOVA + 0x10_0000n, 1).outcome).toBe('denied');
    const answer = machine.request(RID, NO_PASID, ACCESS.READ, IOVA, REQUEST.TRANSLATION, false);
    expect([answer.status, answer.span[5]]).toEqual([TRANSLATE_STATUS.OK, ACCESS.READ]);
  });

  it('interrupts are sent untranslated', () => {
    const { ats, machine } = scene(KINDS[0]);
    expect([ats.access(NO_PASID, 0xfee0_0000n, 1).outcome, ats.untranslated]).toEqual(['done', 1]);
    const answer = machine.request(RID, -1, ACCESS.WRITE, 0xfee0_0000n, REQUEST.TRANSLATED, false);
    expect(answer.status).toBe(TRANSLATE_STATUS.FAULT);
  });

  it.each([
    ['legacy', 'LCT_5'],
    ['scalable', 'SCT_5'],
  ] as const)('%s: who is not admitted is told so, and it is recorded', (mode, reason) => {
    const { machine } = rig(ON);
    const driver = startDriver(machine, mode);
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    const ats = new AtsDevice(machine, RID);
    expect(ats.access(NO_PASID, IOVA).outcome).toBe('unsupported');
    expect(driver.faults.drain()).toMatchObject([
      { rid: RID, address: IOVA, type: 'read', kind: 'translation' },
    ]);
    const answer = machine.request(RID, NO_PASID, ACCESS.READ, IOVA, REQUEST.TRANSLATED, false);
    expect(answer.status).toBe(TRANSLATE_STATUS.FAULT);
    const records = driver.faults.drain();
    expect(records).toMatchObject([{ rid: RID, address: IOVA, kind: 'translated' }]);
    expect(records[0].text).toContain(reason.replace('_', '.'));
    expectReaches(machine, device(machine), IOVA, DATA);
  });

  it('broken tables are a Completer Abort, and recorded', () => {
    const { driver, ats, domain } = scene(KINDS[1]);
    const leaf = (domain.table?.rootAddress ?? 0n) + 8n * ((IOVA >> 39n) & 511n);
    driver.machine.ram.store64(Number(leaf), driver.machine.ram.load64(Number(leaf)) | 0x80n);
    driver.invalidate.iotlbGlobal();
    driver.invalidate.sync();
    expect(ats.access(NO_PASID, IOVA).outcome).toBe('aborted');
    expect(driver.faults.drain()).toMatchObject([
      { text: expect.stringContaining('SSS.3'), kind: 'translation' },
    ]);
  });

  it('without the option everything of it is refused', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain, { ats: true });
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'SCT_3');
    driver.invalidate.deviceTlb(RID, -1, IOVA, 0);
    expect(() => driver.invalidate.sync()).toThrow(InvalidationQueueError);
    queueOf(driver).recover();
  });

  it('a wait completes after the devices have answered', () => {
    const { driver, ats } = scene(KINDS[0]);
    const queue = queueOf(driver);
    const before = queue.completed();
    const seen: number[] = [];
    ats.onDrop = () => seen.push(queue.completed());
    for (let n = 0; n < 3; n++) driver.invalidate.deviceTlb(RID, -1, IOVA + BigInt(n) * 4096n, 0);
    const value = queue.submitWait();
    queue.kick();
    queue.await(value);
    expect(seen).toEqual([before, before, before]);
  });

  it('more invalidations than a device takes at once all arrive, in order', () => {
    const { driver, drops } = scene(KINDS[1]);
    const queue = queueOf(driver);
    for (let n = 0; n < 100; n++) {
      driver.invalidate.deviceTlb(RID, -1, IOVA + BigInt(n) * 4096n, 0, { most: 1 + (n % 4) });
    }
    queue.sync();
    expect(drops.map(({ address }) => address)).toEqual(
      Array.from({ length: 100 }, (_, n) => IOVA + BigInt(n) * 4096n),
    );
  });

  it.each([DEVICE_TLB.TIMEOUT, DEVICE_TLB.UNSUPPORTED])(
    'a device that fails (%s) stops the queue with ITE',
    (result) => {
      const { machine, driver, ats } = scene(KINDS[1]);
      const queue = queueOf(driver);
      driver.faults.enableInterrupt(0xfee0_2000, 0x55);
      ats.result = result;
      driver.invalidate.deviceTlb(RID, -1, IOVA, 0);
      expect(() => queue.sync()).toThrow(InvalidationQueueError);
      const stuck = queue.completed();
      expect(queue.error()).toMatchObject({ ITE: true, IQE: false, ICE: false });
      expect(driver.registers.field(IQERCD_REG, 'ITESID')).toBe(RID);
      for (let n = 0; n < 300 && machine.interrupts.length === 0; n++) machine.idle(1);
      expect(machine.interrupts).toEqual([{ address: 0xfee0_2000, data: 0x55 }]);
      ats.result = DEVICE_TLB.DONE;
      driver.registers.write(FSTS_REG, { ITE: 1 });
      driver.registers.waitUntil(() => queue.error() === undefined, 'ITE clear');
      // The wait that was aborted stays so: what the driver waits for is what it submits anew.
      expect(queue.completed()).toBe(stuck);
      driver.invalidate.deviceTlb(RID, -1, IOVA, 0);
      queue.sync();
      expect(driver.registers.field(IQH_REG, 'QH')).toBe(queue.tail);
      expect(driver.registers.field(FECTL_REG, 'IP')).toBe(0);
    },
  );
});
