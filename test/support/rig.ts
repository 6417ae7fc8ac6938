import { expect } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS } from '../../src/device/iommu.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { DmaDevice, pattern } from '../../src/sim/dma-device.js';
import type { Machine } from '../../src/sim/machine.js';
import { type DriverOptions, VtdDriver } from '../../src/sim/vtd-driver.js';
import { faultText } from '../../src/sim/vtd-faults.js';
import { FAULT, type FaultName } from '../../src/spec/vtd/faults.js';
import { LocalMachine } from './local-machine.js';

export const MIB = 2 ** 20;
export const RAM_BYTES = 64 * MIB;
/** Where tables and rings live. */
export const TABLES: DriverOptions['pages'] = [MIB, 16 * MIB];
/** Where data lives. */
export const DATA = 16 * MIB;
export const RID = 0x0018;

export type Options = Readonly<Record<string, string>>;

/** A machine with an IOMMU, however it is reached. */
export interface Rig {
  readonly machine: Machine;
}

/** The model called directly. */
export const directRig = (options: Options = {}, model = 'vtd'): Rig => ({
  machine: new LocalMachine(new ArrayMemory([{ base: 0, bytes: RAM_BYTES }]), options, model),
});

export function startDriver(
  machine: Machine,
  mode: 'legacy' | 'scalable',
  options: Partial<DriverOptions> = {},
): VtdDriver {
  const driver = new VtdDriver(machine, { mode, pages: TABLES, ...options });
  driver.start();
  return driver;
}

let seed = 1;

/** Checks that `address` reaches `gpa`, by a write and by a read through the IOMMU. */
export function expectReaches(machine: Machine, device: DmaDevice, address: bigint, gpa: number): void {
  const out = pattern(16, seed++);
  expect(device.write(address, out).failedAt, `write to 0x${address.toString(16)}`).toBeUndefined();
  const seen = Uint32Array.from(out, (_, i) => machine.ram.load32(gpa + i * 4));
  expect(seen, `memory at 0x${gpa.toString(16)}`).toEqual(out);
  const other = pattern(16, seed++);
  other.forEach((word, i) => {
    machine.ram.store32(gpa + i * 4, word);
  });
  const back = new Uint32Array(16);
  expect(device.read(address, back).failedAt, `read of 0x${address.toString(16)}`).toBeUndefined();
  expect(back).toEqual(other);
}

/**
 * Checks that an access is refused and leaves exactly one record, with this reason and these
 * fields.
 */
export function expectFault(
  driver: VtdDriver,
  access: 'read' | 'write',
  rid: number,
  pasid: number,
  address: bigint,
  reason: FaultName,
): void {
  const bits = access === 'read' ? ACCESS.READ : ACCESS.WRITE;
  const found = driver.machine.translate(rid, pasid, bits, address);
  expect(found, `${access} of 0x${address.toString(16)}`).toBeUndefined();
  const records = driver.faults.drain();
  expect(records.map(faultText), 'fault records').toHaveLength(1);
  const record = records[0];
  const name = (Object.keys(FAULT) as FaultName[]).find((key) => FAULT[key] === record.reason);
  expect({ name, rid: record.rid, pasid: record.pasid, address: record.address, type: record.type }).toEqual({
    name: reason,
    rid,
    pasid,
    address: address & ~0xfffn,
    type: access,
  });
}

/** Proves that an access is refused without a record. */
export function expectSilentRefusal(driver: VtdDriver, rid: number, pasid: number, address: bigint): void {
  expect(driver.machine.translate(rid, pasid, ACCESS.WRITE, address)).toBeUndefined();
  expect(driver.faults.drain().map(faultText)).toEqual([]);
}

/** A device without PASID. */
export function device(machine: Machine, rid = RID, pasid = NO_PASID): DmaDevice {
  return new DmaDevice(machine, rid, pasid);
}
