/**
 * A guest's side of the simulated host: the port. What is asked for is queued and done when the
 * host gets to run ({@link SimGuest.run}), so a caller that does not wait for completions is found
 * out.
 */
import type { HostCapabilities } from '../../assignment/request.js';
import { HostError } from '../host-errors.js';
import {
  type HostDevice,
  type HostDone,
  type HostEvents,
  type HostFault,
  HostInvalidations,
  type HostIommu,
  type HostLimits,
  type HostOutcome,
  MapChanges,
  type NestedTable,
  type PasidRefusal,
  type SpaceNumber,
} from '../port.js';
import type { HostDriver } from './driver.js';
import type { Endpoint } from './host-domain.js';
import type { GuestKernel } from './kernel.js';
import type { SimDevice } from './sim-device.js';
import { TYPE1_MAPPINGS } from './type1.js';

/** What a guest asks of the machine around it. */
export interface GuestMachine {
  readonly driver: HostDriver;
  /** Width of a device's PASIDs. */
  pasidBits(device: SimDevice): number;
  /** A PASID for a device. Throws {@link HostError} NO_PASID. */
  allocatePasid(device: SimDevice): number;
  /** Takes one back. Throws {@link HostError} NOT_YOUR_PASID, or FAILED while it is not clean. */
  freePasid(device: SimDevice, pasid: number): void;
}

interface Operation {
  readonly act: (progress: { done: number }) => number;
  readonly done: HostDone;
}

/** Faults that wait for a listener; more are lost, as in a queue of hardware. */
const MOST_FAULTS = 128;

export class SimGuest implements HostIommu {
  readonly #machine: GuestMachine;
  readonly devices = new Map<HostDevice, SimDevice>();
  /** Operations carried out, for tests that count them. */
  operations = 0;
  closed = false;
  readonly #queue: Operation[] = [];
  #events: HostEvents | undefined;
  readonly #faults: HostFault[] = [];
  readonly #refusals: PasidRefusal[] = [];

  constructor(
    readonly name: string,
    machine: GuestMachine,
    readonly kernel: GuestKernel,
    /** PASIDs that it may have of one parent device. */
    readonly pasidQuota: number,
  ) {
    this.#machine = machine;
  }

  capabilities(device: HostDevice): HostCapabilities {
    const pasidBits = this.#machine.pasidBits(this.#device(device));
    return { ...this.#machine.driver.capabilities, pasidBits, container: this.kernel.container };
  }

  limits(device: HostDevice): HostLimits {
    const { driver } = this.#machine;
    const endpoint = this.#endpoint(device, -1);
    const level = this.kernel.container === 'type1-nesting' ? 'second' : driver.usualLevel(endpoint);
    const mappings = this.kernel.container === 'iommufd' ? Number.POSITIVE_INFINITY : TYPE1_MAPPINGS;
    return { mappings, ranges: driver.ranges(level), readOnlyParents: true };
  }

  listen(events: HostEvents): void {
    this.#events = events;
  }

  createSpace(space: SpaceNumber, device: HostDevice, parent: boolean, done: HostDone): void {
    this.#ask(done, () => this.kernel.createSpace(space, this.#endpoint(device, -1), parent));
  }

  destroySpace(space: SpaceNumber, done: HostDone): void {
    this.#ask(done, () => this.kernel.destroySpace(space));
  }

  change(space: SpaceNumber, changes: MapChanges, done: HostDone): void {
    const copy = new MapChanges();
    copy.unmaps = changes.unmaps.slice(0, changes.unmapCount * 2);
    copy.maps = changes.maps.slice(0, changes.mapCount * 4);
    copy.unmapCount = changes.unmapCount;
    copy.mapCount = changes.mapCount;
    this.#ask(done, (progress) => this.kernel.change(space, copy, progress));
  }

  attach(device: HostDevice, pasid: number, space: SpaceNumber, done: HostDone): void {
    this.#ask(done, () => {
      const endpoint = this.#endpoint(device, pasid);
      const own = this.#device(device).own;
      if (this.kernel.container !== 'iommufd' && endpoint.pasid !== own) {
        throw new HostError('NOT_SUPPORTED', 'a container holds devices, not PASIDs of them');
      }
      this.kernel.attach(endpoint, space);
    });
  }

  attachNested(
    device: HostDevice,
    pasid: number,
    parent: SpaceNumber,
    table: NestedTable,
    done: HostDone,
  ): void {
    const copy = table.format === 'smmuv3' ? { ...table, ste: table.ste.slice() } : { ...table };
    this.#ask(done, () => this.kernel.attachNested(this.#endpoint(device, pasid), parent, copy));
  }

  detach(device: HostDevice, pasid: number, done: HostDone): void {
    this.#ask(done, () => this.kernel.detach(this.#endpoint(device, pasid)));
  }

  identify(device: HostDevice, streamId: number, done: HostDone): void {
    this.#ask(done, () => this.kernel.identify(this.#endpoint(device, -1), streamId));
  }

  invalidate(parent: SpaceNumber, invalidations: HostInvalidations, done: HostDone): void {
    const copy = new HostInvalidations();
    const entry = this.#machine.driver.capabilities.kind === 'smmuv3' ? 4 : 5;
    copy.words = invalidations.words.slice(0, invalidations.count * entry);
    copy.count = invalidations.count;
    this.#ask(done, (progress) => {
      if (this.#machine.driver.capabilities.kind !== 'smmuv3') this.#resolve(copy);
      this.kernel.invalidate(parent, copy, progress);
    });
  }

  allocatePasid(device: HostDevice, done: HostDone): void {
    this.#askFor(done, () => this.#machine.allocatePasid(this.#device(device)));
  }

  freePasid(device: HostDevice, pasid: number, done: HostDone): void {
    this.#ask(done, () => {
      const found = this.#device(device);
      if (!found.allocated.has(pasid)) throw new HostError('NOT_YOUR_PASID', `PASID ${pasid}`);
      const endpoint = { rid: found.rid, pasid };
      if (this.#machine.driver.attached(endpoint) !== undefined) this.kernel.detach(endpoint);
      this.#machine.freePasid(found, pasid);
    });
  }

  respond(device: HostDevice, pasid: number, group: number, code: number): void {
    this.devices.get(device)?.responses.push({ pasid, group, code });
  }

  /**
   * Does what was asked for so far and what completions ask for, and delivers what came up. Returns
   * how many operations.
   */
  run(): number {
    let count = 0;
    while (this.step()) count++;
    this.deliver();
    return count;
  }

  /** Does one operation, and tells its completion. False when there is none. */
  step(): boolean {
    const operation = this.#queue.shift();
    if (operation === undefined) return false;
    const progress = { done: 0 };
    let outcome: HostOutcome;
    this.operations++;
    try {
      const value = operation.act(progress);
      outcome = { code: 'OK', text: '', done: progress.done, value };
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      outcome = { code: error.code, text: error.message, done: progress.done, value: 0 };
    }
    operation.done(outcome);
    return true;
  }

  /** Operations that wait. */
  get pending(): number {
    return this.#queue.length;
  }

  /** A fault or page request of one of this guest's devices has come in. */
  fault(fault: HostFault): void {
    if (this.#faults.length < MOST_FAULTS) this.#faults.push(fault);
  }

  /** A device of this guest has refused to use a PASID that is not one of its own. */
  refused(refusal: PasidRefusal): void {
    if (this.#refusals.length < MOST_FAULTS) this.#refusals.push(refusal);
  }

  /** Gives what came up to the listener. */
  deliver(): void {
    const events = this.#events;
    if (events === undefined) return;
    for (const fault of this.#faults.splice(0)) events.fault(fault);
    for (const refusal of this.#refusals.splice(0)) events.refusedPasid(refusal);
    for (const request of this.kernel.takeRequests()) events.pageRequest(request);
  }

  /** Queues an operation. */
  #ask(done: HostDone, act: (progress: { done: number }) => void): void {
    this.#askFor(done, (progress) => {
      act(progress);
      return 0;
    });
  }

  /** The same for one that has a value. */
  #askFor(done: HostDone, act: Operation['act']): void {
    if (this.closed) throw new Error(`guest ${this.name} is gone`);
    this.#queue.push({ act, done });
  }

  #device(number: HostDevice): SimDevice {
    const device = this.devices.get(number);
    if (device === undefined) throw new HostError('NO_SUCH_DEVICE', String(number));
    return device;
  }

  #endpoint(number: HostDevice, pasid: number): Endpoint {
    const device = this.#device(number);
    const endpoint = device.endpoint(pasid);
    if (endpoint === undefined) throw new HostError('NOT_YOUR_PASID', `PASID ${pasid} on device ${number}`);
    return endpoint;
  }

  /** VT-d: the port's devices become requester ids, and their own PASIDs stand for none. */
  #resolve({ words, count }: HostInvalidations): void {
    let device = -1;
    let field = -1;
    let endpoint: Endpoint = { rid: -1, pasid: -1 };
    for (let at = 0; at < count * 5; at += 5) {
      // Many in a row are of one endpoint.
      if (words[at] !== device || words[at + 1] !== field) {
        device = words[at];
        field = words[at + 1];
        endpoint = this.#endpoint(device, field - 1);
      }
      words[at] = endpoint.rid;
      words[at + 1] = endpoint.pasid + 1;
    }
  }

  /** The guest's process is gone: what it asked for last is not done any more. */
  close(): void {
    this.#queue.length = 0;
    this.closed = true;
    this.kernel.close();
  }
}
