import { expect } from 'vitest';
import { ACCESS } from '../../src/device/iommu.js';
import type { Machine } from '../../src/sim/machine.js';
import { SmmuDriver, type SmmuDriverOptions } from '../../src/sim/smmu-driver.js';
import type { SmmuEvent } from '../../src/sim/smmu-output.js';
import { TABLES } from './rig.js';

/** StreamID of the device under test. */
export const SID = 0x18;

export function startSmmu(machine: Machine, options: Partial<SmmuDriverOptions> = {}): SmmuDriver {
  const driver = new SmmuDriver(machine, { pages: TABLES, ...options });
  driver.start();
  return driver;
}

/** What an expected event must say, beside its name. */
export interface Expected {
  readonly sid?: number;
  readonly ssid?: number;
  readonly address?: bigint;
  /** Further fields, by name. */
  readonly fields?: Readonly<Record<string, number>>;
}

/**
 * Proves that an access is refused and leaves exactly one event, with this name and these fields.
 */
export function expectEvent(
  driver: SmmuDriver,
  access: 'read' | 'write',
  ssid: number,
  address: bigint,
  name: string,
  expected: Expected = {},
): SmmuEvent {
  const bits = access === 'read' ? ACCESS.READ : ACCESS.WRITE;
  const found = driver.machine.translate(expected.sid ?? SID, ssid, bits, address);
  expect(found, `${access} of 0x${address.toString(16)}`).toBeUndefined();
  const events = driver.events.drain();
  expect(events.map(({ name: was }) => was)).toEqual([name]);
  const [event] = events;
  expect(event.sid).toBe(expected.sid ?? SID);
  if (expected.ssid !== undefined) expect(event.ssid).toBe(expected.ssid);
  if (expected.address !== undefined) expect(event.address).toBe(expected.address);
  expect(event.fields).toMatchObject(expected.fields ?? {});
  return event;
}

/** Proves that an access is refused without an event. */
export function expectSilentAbort(driver: SmmuDriver, ssid: number, address: bigint, sid = SID): void {
  expect(driver.machine.translate(sid, ssid, ACCESS.WRITE, address)).toBeUndefined();
  expect(driver.events.drain()).toEqual([]);
}
