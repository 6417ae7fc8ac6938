/**
 * A simulated host: physical memory, an IOMMU with its driver, functions behind it, and the guests
 * that these are assigned to. ARCHITECTURE.md, Hosts.
 */

import { NO_PASID_FOR_YOU, ParentPasids, type PasidOwner } from '../../assignment/parent-pasids.js';
import type { Container, HostKind } from '../../assignment/request.js';
import { NO_PASID } from '../../base/ids.js';
import { pageAt } from '../../base/page.js';
import { PAGE_RESPONSE, type TranslateResult } from '../../device/iommu.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { HostError } from '../host-errors.js';
import { type HostDriver, ridText } from './driver.js';
import { Failures } from './failures.js';
import type { Endpoint } from './host-domain.js';
import { IommufdKernel } from './iommufd-kernel.js';
import type { KernelPorts } from './kernel.js';
import { type GuestWindow, HostMemory } from './memory.js';
import { type DeviceBus, SimDevice, type SimPageRequest } from './sim-device.js';
import { type GuestMachine, SimGuest } from './sim-guest.js';
import { HostSmmuDriver } from './smmuv3-driver.js';
import { Type1Kernel } from './type1.js';
import { HostVtd2Driver } from './vtd2-driver.js';
import { HostVtd3Driver } from './vtd3-driver.js';

interface SimHostOptions {
  readonly kind: HostKind;
  /** Bytes for tables; whole pages. */
  readonly tableBytes?: number;
  /** Number of the first device; default 1. */
  readonly firstDevice?: number;
}

interface SimGuestOptions {
  readonly name: string;
  readonly memory: GuestMemory;
  /** End of its guest-physical addresses. */
  readonly bytes: number;
  readonly container: Container;
  /** Pages that may be pinned in one container or IOAS; no limit unless said. */
  readonly pinLimit?: number;
  /** PASIDs that it may have of one parent device. */
  readonly pasidQuota?: number;
}

const TABLE_BYTES = 2 ** 26;
const PASID_QUOTA = 2 ** 16;

/** A function of which guests have PASIDs. */
interface Parent {
  readonly rid: number;
  readonly pasids: ParentPasids;
  readonly pasidBits: number;
  readonly owners: Map<SimGuest, PasidOwner>;
  devices: number;
}

export class SimHost implements GuestMachine, DeviceBus {
  readonly memory: HostMemory;
  readonly driver: HostDriver;
  readonly failures = new Failures();
  readonly guests = new Set<SimGuest>();
  /**
   * DMA that should have been impossible: to memory that is not pinned, not of the device's guest,
   * or no guest's at all. Empty unless an invalidation is missing or there is a hole.
   */
  readonly violations: string[] = [];
  readonly #windows = new Map<SimGuest, GuestWindow>();
  readonly #owners = new Map<SimDevice, SimGuest>();
  readonly #parents = new Map<number, Parent>();
  #nextDevice: number;

  constructor({ kind, tableBytes = TABLE_BYTES, firstDevice = 1 }: SimHostOptions) {
    this.#nextDevice = firstDevice;
    this.memory = new HostMemory(tableBytes);
    this.driver = makeDriver(kind, this.memory);
  }

  addGuest(options: SimGuestOptions): SimGuest {
    const window = this.memory.addGuest(options.memory, options.bytes);
    const ports: KernelPorts = {
      driver: this.driver,
      window,
      failures: this.failures,
      pinLimit: options.pinLimit ?? Number.POSITIVE_INFINITY,
    };
    const kernel =
      options.container === 'iommufd'
        ? new IommufdKernel(ports)
        : new Type1Kernel(ports, options.container === 'type1-nesting');
    const guest = new SimGuest(options.name, this, kernel, options.pasidQuota ?? PASID_QUOTA);
    this.guests.add(guest);
    this.#windows.set(guest, window);
    return guest;
  }

  /** A guest's process ends: all that it had is gone, and its devices belong to no guest. */
  removeGuest(guest: SimGuest): void {
    guest.close();
    for (const device of [...guest.devices.values()]) this.removeDevice(device);
    this.guests.delete(guest);
  }

  /** A function as a whole. */
  addVf(rid: number, guest: SimGuest): SimDevice {
    if (this.#parents.has(rid)) throw new Error(`${ridText(rid)} is divided into PASIDs`);
    this.driver.addFunction(rid);
    return this.#assign(new SimDevice(this, this.#nextDevice++, 'vf', rid, NO_PASID), guest);
  }

  /** A function that is to be divided; its PASIDs may be narrower than what the IOMMU takes. */
  addParent(rid: number, pasidBits = this.driver.capabilities.pasidBits): ParentPasids {
    this.driver.addFunction(rid);
    const pasids = new ParentPasids(pasidBits);
    this.#parents.set(rid, { rid, pasids, pasidBits, owners: new Map(), devices: 0 });
    return pasids;
  }

  pasidBits(device: SimDevice): number {
    return this.#parents.get(device.rid)?.pasidBits ?? this.driver.capabilities.pasidBits;
  }

  removeParent(rid: number): void {
    if (this.#parent(rid).devices > 0) throw new Error(`${ridText(rid)} has mdevs`);
    this.#parents.delete(rid);
    this.driver.removeFunction(rid);
  }

  /** A PASID of a function. Throws {@link HostError} NO_PASID. */
  addMdev(rid: number, guest: SimGuest): SimDevice {
    const parent = this.#parent(rid);
    const own = this.#take(parent, guest);
    parent.devices++;
    return this.#assign(new SimDevice(this, this.#nextDevice++, 'mdev', rid, own), guest);
  }

  #assign(device: SimDevice, guest: SimGuest): SimDevice {
    guest.devices.set(device.number, device);
    this.#owners.set(device, guest);
    return device;
  }

  /** Unplugged, or its guest is gone. Attachments that are left go first. */
  removeDevice(device: SimDevice): void {
    const guest = this.#owners.get(device);
    if (guest === undefined) return;
    device.gone = true;
    guest.devices.delete(device.number);
    if (!guest.closed) guest.kernel.forget(device.rid, this.#goneWith(device, guest));
    this.#owners.delete(device);
    if (device.kind === 'vf') {
      this.driver.removeFunction(device.rid);
      return;
    }
    const parent = this.#parent(device.rid);
    const owner = this.#ownerAt(parent, guest);
    const last = partsOf(guest, device.rid).length === 0;
    parent.pasids.free(owner, device.own);
    if (last) {
      parent.pasids.remove(owner);
      parent.owners.delete(guest);
    }
    parent.devices--;
    this.#clean(parent);
  }

  /**
   * Endpoints that have no owner without a device: of a VF all; of an mdev its PASID, and with the
   * last one all the guest's.
   */
  #goneWith(device: SimDevice, guest: SimGuest): readonly number[] | undefined {
    if (device.kind === 'vf') return undefined;
    return partsOf(guest, device.rid).length === 0 ? device.allPasids() : [device.own];
  }

  /**
   * Lets every guest's operations be done, and delivers what came up. Returns how many operations.
   */
  run(): number {
    let total = 0;
    for (;;) {
      let count = 0;
      for (const guest of this.guests) count += guest.run();
      if (count === 0) return total;
      total += count;
    }
  }

  allocatePasid(device: SimDevice): number {
    const guest = this.#owners.get(device);
    if (guest === undefined || device.kind !== 'mdev') {
      throw new HostError('NOT_SUPPORTED', "a VF's PASIDs are the guest's own");
    }
    this.failures.check('pasid');
    const pasid = this.#take(this.#parent(device.rid), guest);
    // A guest's PASIDs are good for all that it has of the parent.
    for (const mdev of partsOf(guest, device.rid)) mdev.allocated.add(pasid);
    return pasid;
  }

  freePasid(device: SimDevice, pasid: number): void {
    const guest = this.#owners.get(device) as SimGuest;
    const parent = this.#parent(device.rid);
    for (const mdev of partsOf(guest, device.rid)) mdev.allocated.delete(pasid);
    parent.pasids.free(this.#ownerAt(parent, guest), pasid);
    this.failures.check('invalidate');
    this.#clean(parent);
  }

  #take(parent: Parent, guest: SimGuest): number {
    const owner = this.#ownerAt(parent, guest);
    let pasid = parent.pasids.allocate(owner);
    if (pasid === NO_PASID_FOR_YOU.NOT_CLEAN_YET || pasid === NO_PASID_FOR_YOU.QUOTA) {
      // What an earlier failure left in quarantine may come clean now.
      this.#clean(parent);
      pasid = parent.pasids.allocate(owner);
    }
    if (pasid < 0) throw new HostError('NO_PASID', `${guest.name} on ${ridText(parent.rid)}`);
    return pasid;
  }

  #ownerAt(parent: Parent, guest: SimGuest): PasidOwner {
    let owner = parent.owners.get(guest);
    if (owner === undefined) {
      owner = parent.pasids.addOwner(guest.name, guest.pasidQuota);
      parent.owners.set(guest, owner);
    }
    return owner;
  }

  /**
   * Everything in quarantine: nothing is attached to these PASIDs, and now nothing is cached of
   * them either.
   */
  #clean({ pasids }: Parent): void {
    const batch = new Int32Array(256);
    for (let count = pasids.beginCleaning(batch); count > 0; count = pasids.beginCleaning(batch)) {
      this.driver.clean();
      for (let index = 0; index < count; index++) pasids.cleaned(batch[index]);
    }
  }

  #parent(rid: number): Parent {
    const parent = this.#parents.get(rid);
    if (parent === undefined) throw new Error(`${ridText(rid)} is not divided into PASIDs`);
    return parent;
  }

  translate(
    _device: SimDevice,
    endpoint: Endpoint,
    access: number,
    lo: number,
    hi: number,
    result: TranslateResult,
  ): boolean {
    const translated = this.driver.translate(endpoint, access, lo, hi, result);
    if (!translated) this.#routeFaults();
    return translated;
  }

  /** Faults that the hardware has recorded go to the guest whose device it was. */
  #routeFaults(): void {
    for (const { rid, pasid, format, record } of this.driver.takeFaults()) {
      for (const [device, guest] of this.#owners) {
        const mine = device.rid === rid && (device.kind === 'vf' || device.allPasids().includes(pasid));
        if (mine)
          guest.fault({
            device: device.number,
            pasid: pasid === device.own ? NO_PASID : pasid,
            format,
            record,
          });
      }
    }
  }

  refusePasid(device: SimDevice, pasid: number, access: number, lo: number, hi: number): void {
    this.#owners.get(device)?.refused({ device: device.number, pasid, access, lo, hi });
  }

  load(device: SimDevice, hostAddress: number): number | undefined {
    this.#checkReach(device, hostAddress);
    return this.memory.load32(hostAddress) ? this.memory.lo >>> 0 : undefined;
  }

  store(device: SimDevice, hostAddress: number, value: number): boolean {
    this.#checkReach(device, hostAddress);
    return this.memory.store32(hostAddress, value);
  }

  #checkReach(device: SimDevice, hostAddress: number): void {
    const guest = this.#owners.get(device);
    const window = this.memory.windowAt(hostAddress);
    const where = `device ${device.number} at host address 0x${hostAddress.toString(16)}`;
    if (window === undefined) this.violations.push(`${where}: no guest's memory`);
    else if (guest === undefined || window !== this.#windows.get(guest))
      this.violations.push(`${where}: another guest's memory`);
    else if (!window.isPinned(pageAt(hostAddress - window.base))) {
      this.violations.push(`${where}: memory that is not pinned`);
    }
  }

  pageRequest(device: SimDevice, endpoint: Endpoint, request: SimPageRequest): void {
    const guest = this.#owners.get(device);
    const { pasid, access, lo, hi, group, last } = request;
    const up = { device: device.number, pasid, access, lo, hi, group, last };
    const nested = this.driver.attached(endpoint)?.kind === 'nested';
    if (guest !== undefined && nested && guest.kernel.pageRequest(endpoint, up)) return;
    device.responses.push({ pasid, group, code: PAGE_RESPONSE.INVALID });
  }

  /** All that assignments have left in the host; every number is 0 after a clean end. */
  leftovers(): Readonly<Record<string, number>> {
    const sums: Record<string, number> = {
      tablePages: this.memory.pool.used.tables,
      pinnedPages: this.memory.windows.reduce((sum, window) => sum + window.pinnedPages, 0),
      pasids: [...this.#parents.values()].reduce((sum, { pasids }) => sum + pasids.live + pasids.dirty, 0),
    };
    const add = (counts: Readonly<Record<string, number>>): void => {
      for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
    };
    add(this.driver.leftovers());
    for (const guest of this.guests) add(guest.kernel.leftovers());
    return sums;
  }
}

/** The mdevs that a guest has of one function. */
function partsOf(guest: SimGuest, rid: number): SimDevice[] {
  return [...guest.devices.values()].filter((device) => device.rid === rid && device.kind === 'mdev');
}

function makeDriver(kind: HostKind, memory: HostMemory): HostDriver {
  switch (kind) {
    case 'smmuv3':
      return new HostSmmuDriver(memory);
    case 'vtd2':
      return new HostVtd2Driver(memory);
    default:
      return new HostVtd3Driver(memory);
  }
}
