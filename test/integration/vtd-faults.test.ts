import { expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS } from '../../src/device/iommu.js';
import { READ_ONLY, WRITE_ONLY } from '../../src/sim/page-table.js';
import type { VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import type { FaultName } from '../../src/spec/vtd/faults.js';
import { FEADDR_REG, FECTL_REG, FSTS_REG } from '../../src/spec/vtd/registers.js';
import {
  DATA,
  device,
  expectFault,
  expectReaches,
  expectSilentRefusal,
  type Options,
  RAM_BYTES,
  RID,
  startDriver,
} from '../support/rig.js';
import { onBothTransports } from '../support/transports.js';

/** Fault records drop address bits above MGAW (§11.4.7.6): this one keeps them. */
const WIDE: Options = { 'aw-bits': '57' };
const IOVA = 0x4000_0000n;
/** Beyond RAM, inside the host address width. */
const NOWHERE = 0x7000_0000;

interface FaultCase {
  readonly name: string;
  readonly reason: FaultName;
  readonly access?: 'read' | 'write';
  readonly address?: bigint;
  readonly pasid?: number;
  readonly options?: Options;
  /**
   * Spoils what was right. The page at IOVA is mapped read-write and attached when this is called.
   */
  readonly spoil?: (driver: VtdDriver, domain: VtdDomain) => void;
}

/** Changes the 64-bit word at `at`. */
function edit(driver: VtdDriver, at: number, change: (value: bigint) => bigint): void {
  const { ram } = driver.machine;
  ram.store64(at, change(ram.load64(at)));
}

function entry(domain: VtdDomain, level: number): number {
  const at = domain.table?.entryAddress(IOVA, level);
  if (at === undefined) throw new Error('not mapped');
  return at;
}

const LEGACY: readonly FaultCase[] = [
  { name: 'root-entry not present', reason: 'LRT_2', spoil: (d) => edit(d, d.root, () => 0n) },
  { name: 'reserved bits in the root-entry', reason: 'LRT_3', spoil: (d) => edit(d, d.root, (v) => v | 2n) },
  {
    name: 'context table outside of RAM',
    reason: 'LCT_1',
    spoil: (d) => edit(d, d.root, () => BigInt(NOWHERE) | 1n),
  },
  { name: 'context-entry not present', reason: 'LCT_2', spoil: (d) => d.legacy?.setContext(RID, {}) },
  {
    name: 'reserved bits in the context-entry',
    reason: 'LCT_3',
    spoil: (d) => edit(d, (d.legacy?.contextEntry(RID) ?? 0) + 8, (v) => v | (1n << 40n)),
  },
  {
    name: 'unsupported AW',
    reason: 'LCT_4',
    spoil: (d) => edit(d, (d.legacy?.contextEntry(RID) ?? 0) + 8, (v) => v | 7n),
  },
  {
    name: 'reserved TT',
    reason: 'LCT_4',
    spoil: (d) => edit(d, d.legacy?.contextEntry(RID) ?? 0, (v) => v | 0b1100n),
  },
  { name: 'address above the domain width', reason: 'LGN_1', address: 2n ** 48n, options: WIDE },
  {
    name: 'write to a read-only page',
    reason: 'LGN_2',
    spoil: (_, m) => m.table?.map(IOVA, DATA, 4096, READ_ONLY),
  },
  {
    name: 'read of a write-only page',
    reason: 'LGN_3',
    access: 'read',
    spoil: (_, m) => m.table?.map(IOVA, DATA, 4096, WRITE_ONLY),
  },
  { name: 'write to nothing', reason: 'LGN_2', address: IOVA + 4096n },
  { name: 'read of nothing', reason: 'LGN_3', access: 'read', address: IOVA + 4096n },
  {
    name: 'rights taken away by an upper level',
    reason: 'LGN_2',
    spoil: (d, m) => edit(d, entry(m, 3), (v) => v & ~2n),
  },
  {
    name: 'page table outside of RAM',
    reason: 'LSS_1',
    spoil: (d, m) => edit(d, entry(m, 2), () => BigInt(NOWHERE) | 3n),
  },
  {
    name: 'reserved bits in a leaf',
    reason: 'LSS_2',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v | (1n << 51n)),
  },
  {
    name: 'a page in the interrupt range',
    reason: 'LGN_4',
    spoil: (_, m) => m.table?.map(IOVA, 0xfee0_0000, 4096),
  },
  { name: 'request with PASID', reason: 'RTA_2', pasid: 3 },
  { name: 'read of the interrupt range', reason: 'IR_29', access: 'read', address: 0xfee0_1000n },
];

const SECOND: readonly FaultCase[] = [
  { name: 'root-entry not present', reason: 'SRT_2', spoil: (d) => edit(d, d.root, () => 0n) },
  { name: 'reserved bits in the root-entry', reason: 'SRT_3', spoil: (d) => edit(d, d.root, (v) => v | 2n) },
  {
    name: 'context table outside of RAM',
    reason: 'SCT_1',
    spoil: (d) => edit(d, d.root, () => BigInt(NOWHERE) | 1n),
  },
  {
    name: 'context-entry not present',
    reason: 'SCT_2',
    spoil: (d) => edit(d, d.scalable?.contextEntry(RID) ?? 0, () => 0n),
  },
  {
    name: 'reserved bits in the context-entry',
    reason: 'SCT_3',
    spoil: (d) => edit(d, (d.scalable?.contextEntry(RID) ?? 0) + 24, () => 1n),
  },
  {
    name: 'PASIDE clear',
    reason: 'SCT_6',
    pasid: 5,
    spoil: (d) => edit(d, d.scalable?.contextEntry(RID) ?? 0, (v) => v & ~8n),
  },
  { name: 'PASID beyond PDTS', reason: 'SCT_7', pasid: 8192 },
  {
    name: 'PASID directory outside of RAM',
    reason: 'SPD_1',
    spoil: (d) => edit(d, d.scalable?.contextEntry(RID) ?? 0, (v) => (v & 0xfffn) | BigInt(NOWHERE)),
  },
  { name: 'PASID-directory entry not present', reason: 'SPD_2', pasid: 640 },
  {
    name: 'reserved bits in the PASID-directory entry',
    reason: 'SPD_3',
    spoil: (d) => edit(d, d.scalable?.directoryEntry(RID, 0) ?? 0, (v) => v | 4n),
  },
  {
    name: 'PASID table outside of RAM',
    reason: 'SPT_1',
    spoil: (d) => edit(d, d.scalable?.directoryEntry(RID, 0) ?? 0, () => BigInt(NOWHERE) | 1n),
  },
  { name: 'PASID-table entry not present', reason: 'SPT_2', pasid: 6 },
  {
    name: 'reserved bits in the PASID-table entry',
    reason: 'SPT_3',
    spoil: (d) => edit(d, (d.scalable?.pasidEntry(RID, 0) ?? 0) + 56, () => 1n),
  },
  {
    name: 'reserved PGTT',
    reason: 'SPT_4',
    spoil: (d) => edit(d, d.scalable?.pasidEntry(RID, 0) ?? 0, (v) => v | (7n << 6n)),
  },
  {
    name: 'second-stage root table outside of RAM',
    reason: 'SSS_4',
    spoil: (d) => edit(d, d.scalable?.pasidEntry(RID, 0) ?? 0, (v) => (v & 0xfffn) | BigInt(NOWHERE)),
  },
  {
    name: 'second-stage table outside of RAM',
    reason: 'SSS_1',
    spoil: (d, m) => edit(d, entry(m, 3), () => BigInt(NOWHERE) | 3n),
  },
  { name: 'second-stage entry not present', reason: 'SSS_2', address: IOVA + 4096n },
  {
    name: 'reserved bits in a second-stage entry',
    reason: 'SSS_3',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v | (1n << 51n)),
  },
  { name: 'address above the domain width', reason: 'SGN_5', address: 2n ** 48n, options: WIDE },
  {
    name: 'write to a read-only page',
    reason: 'SGN_6',
    spoil: (_, m) => m.table?.map(IOVA, DATA, 4096, READ_ONLY),
  },
  {
    name: 'read of a write-only page',
    reason: 'SGN_7',
    access: 'read',
    spoil: (_, m) => m.table?.map(IOVA, DATA, 4096, WRITE_ONLY),
  },
  {
    name: 'a page in the interrupt range',
    reason: 'SGN_8',
    spoil: (_, m) => m.table?.map(IOVA, 0xfee0_0000, 4096),
  },
];

const FIRST: readonly FaultCase[] = [
  {
    name: 'first-stage root table outside of RAM',
    reason: 'SFS_4',
    spoil: (d) => edit(d, (d.scalable?.pasidEntry(RID, 0) ?? 0) + 16, (v) => (v & 0xfffn) | BigInt(NOWHERE)),
  },
  {
    name: 'first-stage table outside of RAM',
    reason: 'SFS_1',
    spoil: (d, m) => edit(d, entry(m, 2), () => BigInt(NOWHERE) | 7n),
  },
  { name: 'first-stage entry not present', reason: 'SFS_2', address: IOVA + 4096n },
  {
    name: 'reserved bits in a first-stage entry',
    reason: 'SFS_3',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v | (1n << 51n)),
  },
  { name: 'address not canonical', reason: 'SGN_1', address: 2n ** 47n },
  {
    name: 'supervisor page',
    reason: 'SGN_2',
    access: 'read',
    spoil: (d, m) => edit(d, entry(m, 1), (v) => v & ~4n),
  },
  {
    name: 'write to a read-only page',
    reason: 'SGN_6',
    spoil: (_, m) => m.table?.map(IOVA, DATA, 4096, READ_ONLY),
  },
  {
    name: 'a page in the interrupt range',
    reason: 'SGN_8',
    spoil: (_, m) => m.table?.map(IOVA, 0xfee0_0000, 4096),
  },
];

onBothTransports('VT-d faults', (rig) => {
  const groups = [
    ['legacy', 'second', LEGACY],
    ['scalable', 'second', SECOND],
    ['scalable', 'first', FIRST],
  ] as const;
  for (const [mode, kind, cases] of groups) {
    for (const one of cases) {
      it(`${mode} ${kind} stage: ${one.name} is ${one.reason}`, () => {
        const { machine } = rig(one.options);
        const driver = startDriver(machine, mode);
        const domain = driver.createDomain(kind);
        driver.attach(RID, domain);
        driver.map(domain, IOVA, DATA, 4096);
        one.spoil?.(driver, domain);
        const { access = 'write', address = IOVA, pasid = NO_PASID } = one;
        if (mode === 'legacy' && pasid !== NO_PASID) {
          // A legacy unit has no PASID to record.
          expect(machine.translate(RID, pasid, ACCESS.WRITE, address)).toBeUndefined();
          expect(driver.faults.drain().map((r) => r.reason)).toEqual([0x31]);
          return;
        }
        expectFault(driver, access, RID, pasid, address, one.reason);
      });
    }
  }

  it('root table outside of RAM is LRT_1 or SRT_1', () => {
    for (const [mode, reason] of [
      ['legacy', 'LRT_1'],
      ['scalable', 'SRT_1'],
    ] as const) {
      const { machine } = rig();
      const driver = startDriver(machine, mode);
      const ttm = mode === 'scalable' ? 1n << 10n : 0n;
      machine.writeRegister(0x20, 8, BigInt(NOWHERE) | ttm);
      driver.registers.command('SRTP', 'RTPS');
      driver.invalidate.contextGlobal();
      driver.invalidate.sync();
      expectFault(driver, 'write', RID, NO_PASID, IOVA, reason);
    }
  });

  it('nested: a fault of the second stage under the first is reported as one', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const parent = driver.createDomain('second');
    parent.table?.map(0n, 0, RAM_BYTES, undefined, 21);
    const nested = driver.createNested(parent);
    driver.attach(RID, nested);
    driver.map(nested, IOVA, NOWHERE, 4096);
    expectFault(driver, 'write', RID, NO_PASID, IOVA, 'SSS_2');
    // The first-stage table itself at an intermediate address that the second stage does not map.
    const lost = driver.createNested(parent, 4, (gpa) => BigInt(gpa) + BigInt(NOWHERE));
    driver.attach(RID, lost, { pasid: 4 });
    driver.map(lost, IOVA, DATA, 4096);
    expectFault(driver, 'write', RID, 4, IOVA, 'SSS_2');
  });

  it('nested: rights of both stages are intersected', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    const parent = driver.createDomain('second');
    parent.table?.map(0n, 0, 4 * 2 ** 20, undefined, 21);
    parent.table?.map(4n * 2n ** 20n, 4 * 2 ** 20, RAM_BYTES - 4 * 2 ** 20, undefined, 21);
    parent.table?.map(BigInt(DATA), DATA, 2 ** 21, READ_ONLY, 21);
    const nested = driver.createNested(parent);
    driver.attach(RID, nested);
    driver.map(nested, IOVA, DATA, 4096);
    expect(device(machine).read(IOVA, new Uint32Array(4)).failedAt).toBeUndefined();
    expectFault(driver, 'write', RID, NO_PASID, IOVA, 'SGN_6');
  });

  it('FPD suppresses the record of a qualified fault, and not of others', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain, { fpd: true });
    expectSilentRefusal(driver, RID, NO_PASID, IOVA);
    expectFault(driver, 'write', RID + 0x100, NO_PASID, IOVA, 'LRT_2');
  });

  it('FPD in a PASID-table entry suppresses faults of that PASID alone', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'scalable');
    driver.attach(RID, driver.createDomain('first'), { pasid: 3, fpd: true });
    driver.attach(RID, driver.createDomain('first'), { pasid: 4 });
    expectSilentRefusal(driver, RID, 3, IOVA);
    expectFault(driver, 'write', RID, 4, IOVA, 'SFS_2');
  });

  it('records in order, overflows when every register is taken, and goes on when they are cleared', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const count = driver.faults.records;
    expect(count).toBeGreaterThanOrEqual(8);
    const fault = (n: number): void => {
      machine.translate(n, NO_PASID, ACCESS.WRITE, IOVA);
    };
    for (let n = 0; n < count; n++) fault(n);
    expect(driver.faults.status()).toEqual({ overflow: false, pending: true, index: 0 });
    fault(count);
    expect(driver.faults.status().overflow).toBe(true);
    const first = driver.faults.drain();
    expect(first.map((record) => record.rid)).toEqual(Array.from({ length: count }, (_, n) => n));
    expect(driver.faults.status()).toMatchObject({ overflow: false, pending: false });
    fault(0x77);
    expect(driver.faults.drain().map((record) => record.rid)).toEqual([0x77]);
  });

  it('raises the fault event once until it is serviced; a masked one stays pending', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy', { faultMsi: { address: 0xfee0_1000, data: 0x41 } });
    const served = (n: number): boolean => {
      for (let i = 0; i < 200 && machine.interrupts.length < n; i++) machine.idle(1);
      return machine.interrupts.length === n;
    };
    machine.translate(1, NO_PASID, ACCESS.WRITE, IOVA);
    machine.translate(2, NO_PASID, ACCESS.WRITE, IOVA);
    expect(served(1)).toBe(true);
    expect(machine.interrupts.splice(0)).toEqual([{ address: 0xfee0_1000, data: 0x41 }]);
    expect(driver.faults.drain()).toHaveLength(2);
    driver.faults.mask(true);
    machine.translate(3, NO_PASID, ACCESS.WRITE, IOVA);
    expect(driver.registers.field(FECTL_REG, 'IP')).toBe(1);
    expect(machine.interrupts).toEqual([]);
    driver.faults.mask(false);
    expect(served(1)).toBe(true);
    expect(driver.registers.field(FECTL_REG, 'IP')).toBe(0);
    expect(driver.registers.read(FEADDR_REG)[0]).toBe(0xfee0_1000);
    driver.faults.drain();
    expect(driver.registers.read(FSTS_REG)[0] & 0xff).toBe(0);
  });

  it('a fault is not cached: mapping the page makes the same access work', () => {
    const { machine } = rig();
    const driver = startDriver(machine, 'legacy');
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    expectFault(driver, 'write', RID, NO_PASID, IOVA, 'LGN_2');
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(machine, device(machine), IOVA, DATA);
  });
});
