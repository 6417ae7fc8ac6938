import { expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import type { DomainKind } from '../../src/sim/vtd-driver.js';
import { FIRST_STAGE, SECOND_STAGE } from '../../src/sim/vtd-table-format.js';
import { ECAP_REG } from '../../src/spec/vtd/registers.js';
import {
  DATA,
  device,
  expectFault,
  expectReaches,
  MIB,
  RAM_BYTES,
  RID,
  startDriver,
} from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

const WIDE = { 'aw-bits': '57' };
const IOVA = 0x4000_0000n;
const NESTED_OFFSET = 2n ** 36n;

/** An input address near the top of what `levels` reach. */
function high(kind: DomainKind, levels: number): bigint {
  const bits = 12n + 9n * BigInt(levels);
  // First stages are canonical: half of the space stands at each end of 2^64. §3.6
  if (kind === 'second') return 2n ** bits - 2n ** 30n;
  return 2n ** 64n - 2n ** 30n;
}

onBothTransports('VT-d modes', (rig) => {
  for (const levels of [3, 4, 5]) {
    for (const log2 of [12, 21, 30]) {
      it(`legacy: second stage, ${levels} levels, 2^${log2} pages`, () => {
        const { machine } = rig(WIDE);
        const driver = startDriver(machine, 'legacy');
        const domain = driver.createDomain('second', levels);
        driver.attach(RID, domain);
        const base = log2 === 30 ? 0 : DATA;
        for (const address of [IOVA, high('second', levels)]) {
          driver.map(domain, address, base, 2 ** log2, undefined, log2);
          const offset = log2 === 30 ? BigInt(DATA) : 0n;
          expectReaches(machine, device(machine), address + offset + 0x40n, DATA + 0x40);
        }
        expect(driver.faults.drain()).toEqual([]);
      });
    }
  }

  it('legacy: pass-through', () => {
    const { machine } = rig(WIDE);
    const driver = startDriver(machine, 'legacy');
    expect(ECAP_REG.get.PT(driver.capabilities.ecap)).toBe(1);
    driver.attach(RID, driver.createDomain('pass-through'));
    expectReaches(machine, device(machine), BigInt(DATA + 0x80), DATA + 0x80);
  });

  for (const pasid of [NO_PASID, 1, 63, 64, 8191]) {
    const who = pasid === NO_PASID ? 'RID_PASID' : `PASID ${pasid}`;
    const attach = pasid === NO_PASID ? {} : { pasid };

    for (const kind of ['second', 'first'] as const) {
      for (const levels of kind === 'first' ? [4, 5] : [3, 4, 5]) {
        it(`scalable: ${kind} stage, ${levels} levels, ${who}`, () => {
          const { machine } = rig(WIDE);
          const driver = startDriver(machine, 'scalable');
          const domain = driver.createDomain(kind, levels);
          driver.attach(RID, domain, attach);
          for (const address of [IOVA, high(kind, levels)]) {
            driver.map(domain, address, DATA, MIB);
            expectReaches(machine, device(machine, RID, pasid), address + 0x5040n, DATA + 0x5040);
          }
          driver.unmap(domain, IOVA, MIB);
          const reason = kind === 'first' ? 'SFS_2' : 'SSS_2';
          expectFault(driver, 'write', RID, pasid, IOVA + 0x5040n, reason);
        });
      }
    }

    it(`scalable: nested, ${who}`, () => {
      const { machine } = rig(WIDE);
      const driver = startDriver(machine, 'scalable');
      const parent = driver.createDomain('second', 4);
      parent.table?.map(NESTED_OFFSET, 0, RAM_BYTES, undefined, 21);
      const nested = driver.createNested(parent, 4, (gpa) => NESTED_OFFSET + BigInt(gpa));
      driver.attach(RID, nested, attach);
      driver.map(nested, IOVA, Number(NESTED_OFFSET) + DATA, MIB);
      expectReaches(machine, device(machine, RID, pasid), IOVA + 0x3000n, DATA + 0x3000);
      driver.unmap(nested, IOVA, MIB);
      expectFault(driver, 'read', RID, pasid, IOVA, 'SFS_2');
    });

    it(`scalable: pass-through, ${who}`, () => {
      const { machine } = rig(WIDE);
      const driver = startDriver(machine, 'scalable');
      driver.attach(RID, driver.createDomain('pass-through'), attach);
      expectReaches(machine, device(machine, RID, pasid), BigInt(DATA + 0x80), DATA + 0x80);
    });
  }

  for (const log2 of [21, 30]) {
    it(`scalable: first stage and nested with 2^${log2} pages`, () => {
      const { machine } = rig(WIDE);
      const driver = startDriver(machine, 'scalable');
      const first = driver.createDomain('first');
      driver.attach(RID, first);
      const base = log2 === 30 ? 0 : DATA;
      const address = IOVA + BigInt(DATA - base);
      driver.map(first, IOVA, base, 2 ** log2, undefined, log2);
      expectReaches(machine, device(machine), address, DATA);
      const parent = driver.createDomain('second', 5);
      parent.table?.map(0n, 0, 2 ** 30, undefined, 30);
      const nested = driver.createNested(parent);
      driver.attach(RID, nested, { pasid: 9 });
      driver.map(nested, IOVA, base, 2 ** log2, undefined, log2);
      expectReaches(machine, device(machine, RID, 9), address + 0x100n, DATA + 0x100);
    });
  }

  it('two requesters and two PASIDs see different memory at the same address', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const where: [number, number, number][] = [
      [RID, NO_PASID, 0],
      [RID, 7, 1],
      [RID, 8, 2],
      [RID + 1, 7, 3],
      [0xff80, 7, 4],
    ];
    for (const [rid, pasid, page] of where) {
      const domain = driver.createDomain('first');
      driver.attach(rid, domain, pasid === NO_PASID ? {} : { pasid });
      driver.map(domain, IOVA, DATA + page * 4096, 4096);
    }
    for (const [rid, pasid, page] of where) {
      expectReaches(machine, device(machine, rid, pasid), IOVA, DATA + page * 4096);
    }
  });

  it('sets Accessed and Dirty in first-stage entries, and not before they are due', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const domain = driver.createDomain('first');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 8192);
    const entry = domain.table?.entryAddress(IOVA) ?? 0;
    const flags = (at: number): bigint => machine.ram.load64(at) & (FIRST_STAGE.A | FIRST_STAGE.D);
    device(machine).read(IOVA, new Uint32Array(4));
    expect(flags(entry)).toBe(FIRST_STAGE.A);
    device(machine).write(IOVA, new Uint32Array(4));
    expect(flags(entry)).toBe(FIRST_STAGE.A | FIRST_STAGE.D);
    expect(flags(entry + 8), 'the neighbour that was not accessed').toBe(0n);
  });

  it('leaves second-stage entries alone while SSADE is clear', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
    const entry = domain.table?.entryAddress(IOVA) ?? 0;
    expect(machine.ram.load64(entry) & (SECOND_STAGE.A | SECOND_STAGE.D)).toBe(0n);
  });

  it('sets Accessed and Dirty in second-stage entries when SSADE asks for it', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    expect(ECAP_REG.get.SSADS(driver.capabilities.ecap)).toBe(1);
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    const pasidEntry = driver.scalable?.pasidEntry(RID, 0) ?? 0;
    machine.ram.store64(pasidEntry, machine.ram.load64(pasidEntry) | (1n << 9n));
    driver.map(domain, IOVA, DATA, 8192);
    const leaf = domain.table?.entryAddress(IOVA) ?? 0;
    const flags = (at: number): bigint => machine.ram.load64(at) & (SECOND_STAGE.A | SECOND_STAGE.D);
    device(machine).read(IOVA, new Uint32Array(4));
    expect(flags(leaf)).toBe(SECOND_STAGE.A);
    const upper = domain.table?.entryAddress(IOVA, 2) ?? 0;
    expect(flags(upper) & SECOND_STAGE.A, 'the entry that leads there').toBe(SECOND_STAGE.A);
    device(machine).write(IOVA, new Uint32Array(4));
    expect(flags(leaf)).toBe(SECOND_STAGE.A | SECOND_STAGE.D);
    expect(flags(leaf + 8)).toBe(0n);
  });

  it('nested: sets the first stage its flags through the second, and marks the second dirty for it', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const parent = driver.createDomain('second');
    parent.table?.map(NESTED_OFFSET, 0, RAM_BYTES);
    const nested = driver.createNested(parent, 4, (gpa) => NESTED_OFFSET + BigInt(gpa));
    driver.attach(RID, nested);
    const pasidEntry = driver.scalable?.pasidEntry(RID, 0) ?? 0;
    machine.ram.store64(pasidEntry, machine.ram.load64(pasidEntry) | (1n << 9n));
    driver.map(nested, IOVA, Number(NESTED_OFFSET) + DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
    const leaf = nested.table?.entryAddress(IOVA) ?? 0;
    expect(machine.ram.load64(leaf) & FIRST_STAGE.D).toBe(FIRST_STAGE.D);
    const both = SECOND_STAGE.A | SECOND_STAGE.D;
    const ofTable = parent.table?.entryAddress(NESTED_OFFSET + BigInt(leaf)) ?? 0;
    expect(machine.ram.load64(ofTable) & both, 'second-stage entry of the first-stage table').toBe(both);
    const ofData = parent.table?.entryAddress(NESTED_OFFSET + BigInt(DATA)) ?? 0;
    expect(machine.ram.load64(ofData) & both, 'second-stage entry of the data').toBe(both);
  });

  it('sets Extended Accessed in first-stage entries when EAFE asks for it', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    expect(ECAP_REG.get.EAFS(driver.capabilities.ecap)).toBe(1);
    const domain = driver.createDomain('first');
    driver.attach(RID, domain);
    const third = (driver.scalable?.pasidEntry(RID, 0) ?? 0) + 16;
    machine.ram.store64(third, machine.ram.load64(third) | (1n << 7n));
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
    const leaf = domain.table?.entryAddress(IOVA) ?? 0;
    expect(machine.ram.load64(leaf) & (1n << 10n)).toBe(1n << 10n);
  });

  it('refuses flags that it would have to set without page-walk snooping', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const domain = driver.createDomain('first');
    driver.attach(RID, domain);
    const second = (driver.scalable?.pasidEntry(RID, 0) ?? 0) + 8;
    machine.ram.store64(second, machine.ram.load64(second) & ~(1n << 23n));
    driver.map(domain, IOVA, DATA, 4096);
    expectFault(driver, 'read', RID, NO_PASID, IOVA, 'SFS_9');
  });

  it('lets everything through while TE is clear, and nothing unmapped once it is set', () => {
    const { machine } = rig();
    expectReaches(machine, device(machine), BigInt(DATA), DATA);
    const driver = startDriver(machine, 'legacy');
    expectFault(driver, 'read', RID, NO_PASID, BigInt(DATA), 'LRT_2');
    driver.stop();
    expectReaches(machine, device(machine), BigInt(DATA), DATA);
  });

  it('invalidates through CCMD_REG and IOTLB_REG when there is no queue', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy', { invalidation: 'registers' });
    const domain = driver.createDomain('second', 3);
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 8192);
    expectReaches(machine, device(machine), IOVA, DATA);
    driver.unmap(domain, IOVA, 4096);
    expectFault(driver, 'write', RID, NO_PASID, IOVA, 'LGN_2');
    driver.detach(RID, domain);
    expectFault(driver, 'read', RID, NO_PASID, IOVA + 4096n, 'LCT_2');
  });
});
