/**
 * The port's operations as calls on iommufd objects: what a monitor that holds /dev/iommu does for
 * its guest.
 */
import { HostError } from '../host-errors.js';
import type { HostInvalidations, HostPageRequest, MapChanges, NestedTable, SpaceNumber } from '../port.js';
import { type Endpoint, endpointKey, isOf } from './host-domain.js';
import { Iommufd, type ObjectId } from './iommufd.js';
import type { GuestKernel, KernelPorts } from './kernel.js';

/** One address space of the port. */
interface Space {
  readonly ioas: ObjectId;
  readonly parent: boolean;
  /** Paging HWPT of each kind of endpoint: without and with PASID, made when it is first needed. */
  readonly hwpts: Map<boolean, ObjectId>;
  /** vIOMMU and fault queue on top of a nest parent. */
  viommu: ObjectId | undefined;
  faults: ObjectId | undefined;
  /** vDEVICEs by the guest's StreamID. */
  readonly vdevices: Map<number, ObjectId>;
}

/** What an endpoint goes through. */
interface Attachment {
  readonly space: Space;
  /** HWPT of guest tables. */
  readonly nested: ObjectId | undefined;
}

export class IommufdKernel implements GuestKernel {
  readonly container = 'iommufd';
  readonly fd: Iommufd;
  readonly #spaces = new Map<SpaceNumber, Space>();
  readonly #attachments = new Map<number, Attachment>();
  /** The endpoint behind each of the guest's StreamIDs; every vIOMMU knows them. */
  readonly #streams = new Map<number, Endpoint>();

  constructor(ports: KernelPorts) {
    this.fd = new Iommufd(ports);
  }

  createSpace(space: SpaceNumber, endpoint: Endpoint, parent: boolean): void {
    if (this.#spaces.has(space)) throw new HostError('SPACE_EXISTS', String(space));
    const made: Space = {
      ioas: this.fd.ioasAlloc(),
      parent,
      hwpts: new Map(),
      viommu: undefined,
      faults: undefined,
      vdevices: new Map(),
    };
    try {
      if (parent) this.#makeParent(made, endpoint);
    } catch (error) {
      this.#drop(made);
      throw error;
    }
    this.#spaces.set(space, made);
  }

  #makeParent(space: Space, endpoint: Endpoint): void {
    const hwpt = this.fd.hwptAlloc(endpoint, space.ioas, true);
    space.hwpts.set(false, hwpt);
    space.hwpts.set(true, hwpt);
    space.viommu = this.fd.viommuAlloc(hwpt);
    space.faults = this.fd.faultQueueAlloc();
    for (const [streamId, stream] of this.#streams) this.#makeDevice(space, streamId, stream);
  }

  #makeDevice(space: Space, streamId: number, endpoint: Endpoint): void {
    if (space.viommu === undefined) return;
    space.vdevices.set(streamId, this.fd.vdeviceAlloc(space.viommu, endpoint, streamId));
  }

  destroySpace(space: SpaceNumber): void {
    const found = this.#find(space);
    for (const attachment of this.#attachments.values()) {
      if (attachment.space === found) throw new HostError('IN_USE', `space ${space}`);
    }
    this.#drop(found);
    this.#spaces.delete(space);
  }

  #drop(space: Space): void {
    for (const vdevice of space.vdevices.values()) this.fd.destroy(vdevice);
    space.vdevices.clear();
    if (space.viommu !== undefined) this.fd.destroy(space.viommu);
    space.viommu = undefined;
    if (space.faults !== undefined) this.fd.destroy(space.faults);
    space.faults = undefined;
    for (const hwpt of new Set(space.hwpts.values())) this.fd.destroy(hwpt);
    space.hwpts.clear();
    this.fd.destroy(space.ioas);
  }

  change(space: SpaceNumber, changes: MapChanges, progress: { done: number }): void {
    this.fd.ioasChange(this.#find(space).ioas, changes, progress);
  }

  attach(endpoint: Endpoint, space: SpaceNumber): void {
    const found = this.#find(space);
    const withPasid = endpoint.pasid >= 0;
    let hwpt = found.hwpts.get(withPasid);
    if (hwpt === undefined) {
      hwpt = this.fd.hwptAlloc(endpoint, found.ioas, false);
      found.hwpts.set(withPasid, hwpt);
    }
    this.fd.attach(endpoint, hwpt);
    this.#moved(endpoint, { space: found, nested: undefined });
  }

  attachNested(endpoint: Endpoint, parent: SpaceNumber, table: NestedTable): void {
    const space = this.#find(parent);
    const { viommu, faults } = space;
    if (viommu === undefined || faults === undefined) {
      throw new HostError('NOT_SUPPORTED', `space ${parent} is no nest parent`);
    }
    const hwpt = this.fd.hwptAllocNested(viommu, table, faults);
    try {
      this.fd.attach(endpoint, hwpt);
    } catch (error) {
      this.fd.destroy(hwpt);
      throw error;
    }
    this.#moved(endpoint, { space, nested: hwpt });
  }

  detach(endpoint: Endpoint): void {
    this.fd.detach(endpoint);
    this.#moved(endpoint, undefined);
  }

  /** Guest tables that an endpoint has left are gone for good. */
  #moved(endpoint: Endpoint, to: Attachment | undefined): void {
    const key = endpointKey(endpoint);
    const from = this.#attachments.get(key);
    if (to === undefined) this.#attachments.delete(key);
    else this.#attachments.set(key, to);
    if (from?.nested !== undefined) this.fd.destroy(from.nested);
  }

  identify(endpoint: Endpoint, streamId: number): void {
    const known = this.#streams.get(streamId);
    if (known?.rid === endpoint.rid) return;
    if (known !== undefined) throw new HostError('IN_USE', `StreamID ${streamId}`);
    // A function has one StreamID: an earlier one is void.
    this.#forgetStreams(endpoint.rid);
    this.#streams.set(streamId, endpoint);
    for (const space of this.#spaces.values()) this.#makeDevice(space, streamId, endpoint);
  }

  invalidate(parent: SpaceNumber, invalidations: HostInvalidations, progress: { done: number }): void {
    const { viommu } = this.#find(parent);
    if (viommu === undefined) throw new HostError('BAD_INVALIDATION', `space ${parent} is no nest parent`);
    this.fd.invalidate(viommu, invalidations, progress);
  }

  pageRequest(endpoint: Endpoint, request: HostPageRequest): boolean {
    return this.fd.pageRequest(endpoint, request);
  }

  /** Everything that waits in fault queues. */
  takeRequests(): HostPageRequest[] {
    return [...this.#spaces.values()].flatMap(({ faults }) =>
      faults === undefined ? [] : this.fd.takeRequests(faults),
    );
  }

  forget(rid: number, pasids: readonly number[] | undefined): void {
    for (const endpoint of this.fd.endpoints()) if (isOf(endpoint, rid, pasids)) this.detach(endpoint);
    if (pasids === undefined) this.#forgetStreams(rid);
  }

  #forgetStreams(rid: number): void {
    for (const [streamId, endpoint] of [...this.#streams]) {
      if (endpoint.rid !== rid) continue;
      this.#streams.delete(streamId);
      for (const { vdevices } of this.#spaces.values()) {
        const vdevice = vdevices.get(streamId);
        if (vdevice !== undefined) this.fd.destroy(vdevice);
        vdevices.delete(streamId);
      }
    }
  }

  close(): void {
    this.fd.close();
    this.#spaces.clear();
    this.#attachments.clear();
    this.#streams.clear();
  }

  leftovers(): Readonly<Record<string, number>> {
    return this.fd.leftovers();
  }

  #find(space: SpaceNumber): Space {
    const found = this.#spaces.get(space);
    if (found === undefined) throw new HostError('NO_SUCH_SPACE', String(space));
    return found;
  }
}
