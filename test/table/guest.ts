/** What the scenarios of the table ask of a guest, however it is served. */
import type { Strategy } from '../../src/assignment/planner.js';
import type { DeviceKind, HostKind } from '../../src/assignment/request.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import type { SimHost } from '../../src/host/sim/sim-host.js';
import type { GuestRam } from '../../src/sim/machine.js';

export const RAM = 2 ** 24;
/** What every guest calls its device. */
export const GUEST_RID = 0x18;

/** A fault as the guest finds it: the specification's name, and the PASID. */
export interface GuestFault {
  readonly name: string;
  readonly pasid: number;
}

/** PASID −1: requests without. */
export interface CellGuest {
  readonly ram: GuestRam;
  readonly device: SimDevice;
  /** Its side of the simulated host. */
  readonly side: SimGuest;
  /** One page. */
  map(pasid: number, address: number, gpa: number): void;
  unmap(pasid: number, address: number): void;
  /** A PASID with an empty address space. */
  createPasid(): number;
  destroyPasid(pasid: number): void;
  /**
   * Another address space, with nothing in it, in the place of a PASID's: other tables under the
   * same tags, or the same ones under others, of which [address, address + bytes) is cleared.
   * `first`: what was translated is invalidated before the structure that named it, in one batch.
   */
  exchange?(pasid: number, first: boolean, address: number, bytes: number): void;
  /** Faults of the guest's own unit since the last call; undefined: it has none. */
  faults(): GuestFault[] | undefined;
  /**
   * Machine reset: no PASIDs, nothing mapped; what the device then reaches is the cell's matter.
   */
  reset(): void;
  /** Machine reset, and the guest begins anew: no PASIDs, nothing mapped, its unit at work. */
  restart(): void;
  /** The device is unplugged; its server has taken down what was there for it. */
  unplug(): void;
  /** The guest's process is over, whatever it was doing. */
  close(): void;
}

/** What is to be made. */
export interface Making {
  readonly host: SimHost;
  readonly kind: HostKind;
  readonly deviceKind: DeviceKind;
  readonly name: string;
  readonly hostRid: number;
  readonly strategy: Strategy;
  /** The guest is offered PASIDs. */
  readonly pasids: boolean;
}

export function addDevice({ host, deviceKind, hostRid }: Making, side: SimGuest): SimDevice {
  return deviceKind === 'mdev' ? host.addMdev(hostRid, side) : host.addVf(hostRid, side);
}
