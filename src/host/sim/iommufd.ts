/**
 * Objects as /dev/iommu has them: IOAS, paging and nested HWPTs, vIOMMUs, vDEVICEs, fault queues,
 * each with a number, and none of them destroyed while another one uses it.
 */
import { NO_PASID } from '../../base/ids.js';
import { HostError } from '../host-errors.js';
import type { HostInvalidations, HostPageRequest, MapChanges, NestedTable } from '../port.js';
import { AddressSpace } from './host-address-space.js';
import { type Endpoint, endpointKey, type NestedDomain, type PagingDomain } from './host-domain.js';
import type { KernelPorts } from './kernel.js';

export type ObjectId = number;

interface Counted {
  /** Objects and attachments that need this one. */
  users: number;
}

interface Ioas extends Counted {
  readonly type: 'ioas';
  readonly space: AddressSpace;
}
interface PagingHwpt extends Counted {
  readonly type: 'hwpt-paging';
  readonly ioas: Ioas;
  readonly domain: PagingDomain;
  readonly nestParent: boolean;
}
interface NestedHwpt extends Counted {
  readonly type: 'hwpt-nested';
  readonly parent: PagingHwpt | VirtualIommuObject;
  readonly faults: FaultQueue;
  readonly domain: NestedDomain;
}
interface VirtualIommuObject extends Counted {
  readonly type: 'viommu';
  readonly parent: PagingHwpt;
  /** Function by the guest's StreamID. */
  readonly streams: Map<number, number>;
}
interface VirtualDevice extends Counted {
  readonly type: 'vdevice';
  readonly viommu: VirtualIommuObject;
  readonly virtualId: number;
}
interface FaultQueue extends Counted {
  readonly type: 'fault-queue';
  readonly requests: HostPageRequest[];
}

type Hwpt = PagingHwpt | NestedHwpt;
type IommufdObject = Ioas | Hwpt | VirtualIommuObject | VirtualDevice | FaultQueue;
type TypeName = IommufdObject['type'];

/** Page requests that a fault queue holds; more are answered with a failure. */
const MOST_REQUESTS = 256;

export class Iommufd {
  readonly #ports: KernelPorts;
  readonly #objects = new Map<ObjectId, IommufdObject>();
  readonly #attachments = new Map<number, { readonly endpoint: Endpoint; readonly hwpt: Hwpt }>();
  #nextId = 1;

  constructor(ports: KernelPorts) {
    this.#ports = ports;
  }

  /** IOMMU_IOAS_ALLOC */
  ioasAlloc(): ObjectId {
    const { driver, window, failures, pinLimit } = this.#ports;
    const limits = { mappings: Number.POSITIVE_INFINITY, pinned: pinLimit };
    return this.#add({ type: 'ioas', users: 0, space: new AddressSpace(driver, window, limits, failures) });
  }

  /** IOMMU_IOAS_UNMAP, IOMMU_IOAS_MAP */
  ioasChange(ioas: ObjectId, changes: MapChanges, progress: { done: number }): void {
    this.#get(ioas, 'ioas').space.change(changes, progress);
  }

  /**
   * IOMMU_HWPT_ALLOC on an IOAS; `nestParent`: IOMMU_HWPT_ALLOC_NEST_PARENT, which asks for the
   * second level.
   */
  hwptAlloc(endpoint: Endpoint, ioas: ObjectId, nestParent: boolean): ObjectId {
    const below = this.#get(ioas, 'ioas');
    const { driver } = this.#ports;
    const domain = driver.createDomain(nestParent ? 'second' : driver.usualLevel(endpoint));
    try {
      below.space.addDomain(domain);
    } catch (error) {
      driver.destroyDomain(domain);
      throw error;
    }
    below.users++;
    return this.#add({ type: 'hwpt-paging', users: 0, ioas: below, domain, nestParent });
  }

  /** IOMMU_HWPT_ALLOC with data, on a nest parent or a vIOMMU, with a fault queue. */
  hwptAllocNested(parent: ObjectId, table: NestedTable, faults: ObjectId): ObjectId {
    const above = this.#find(parent);
    if (above.type !== 'hwpt-paging' && above.type !== 'viommu') throw wrongType(parent, 'viommu');
    const paging = above.type === 'viommu' ? above.parent : above;
    if (!paging.nestParent) throw new HostError('NOT_SUPPORTED', `HWPT ${parent} is no nest parent`);
    const queue = this.#get(faults, 'fault-queue');
    const domain = this.#ports.driver.createNested(paging.domain, table);
    above.users++;
    queue.users++;
    return this.#add({ type: 'hwpt-nested', users: 0, parent: above, faults: queue, domain });
  }

  /** IOMMU_VIOMMU_ALLOC */
  viommuAlloc(parent: ObjectId): ObjectId {
    const paging = this.#get(parent, 'hwpt-paging');
    if (!paging.nestParent) throw new HostError('NOT_SUPPORTED', `HWPT ${parent} is no nest parent`);
    paging.users++;
    return this.#add({ type: 'viommu', users: 0, parent: paging, streams: new Map() });
  }

  /** IOMMU_VDEVICE_ALLOC */
  vdeviceAlloc(viommu: ObjectId, endpoint: Endpoint, virtualId: number): ObjectId {
    const above = this.#get(viommu, 'viommu');
    if (above.streams.has(virtualId)) throw new HostError('IN_USE', `virtual id ${virtualId}`);
    above.streams.set(virtualId, endpoint.rid);
    above.users++;
    return this.#add({ type: 'vdevice', users: 0, viommu: above, virtualId });
  }

  /** IOMMU_FAULT_QUEUE_ALLOC */
  faultQueueAlloc(): ObjectId {
    return this.#add({ type: 'fault-queue', users: 0, requests: [] });
  }

  /** Reads a fault queue. */
  takeRequests(faults: ObjectId): HostPageRequest[] {
    return this.#get(faults, 'fault-queue').requests.splice(0);
  }

  /** IOMMU_HWPT_INVALIDATE: on a nested HWPT's parent (VT-d) or a vIOMMU (SMMUv3). */
  invalidate(id: ObjectId, invalidations: HostInvalidations, progress: { done: number }): void {
    const object = this.#find(id);
    if (object.type !== 'viommu') throw wrongType(id, 'viommu');
    const { driver, failures } = this.#ports;
    const guest = { parent: object.parent.domain, streams: object.streams };
    try {
      for (; progress.done < invalidations.count; progress.done++) {
        failures.check('invalidate');
        driver.invalidate(guest, invalidations, progress.done);
      }
    } finally {
      driver.sync();
    }
  }

  /** VFIO_DEVICE_ATTACH_IOMMUFD_PT, of a device or one of its PASIDs; replaces. */
  attach(endpoint: Endpoint, hwpt: ObjectId): void {
    const object = this.#find(hwpt);
    if (object.type !== 'hwpt-paging' && object.type !== 'hwpt-nested') throw wrongType(hwpt, 'hwpt-paging');
    this.#ports.failures.check('attach');
    this.#ports.driver.attach(endpoint, object.domain);
    const key = endpointKey(endpoint);
    const before = this.#attachments.get(key);
    if (before !== undefined) before.hwpt.users--;
    object.users++;
    this.#attachments.set(key, { endpoint, hwpt: object });
  }

  /** VFIO_DEVICE_DETACH_IOMMUFD_PT */
  detach(endpoint: Endpoint): void {
    const key = endpointKey(endpoint);
    const attachment = this.#attachments.get(key);
    if (attachment === undefined) throw new HostError('NOT_ATTACHED', `PASID ${endpoint.pasid}`);
    this.#ports.driver.detach(endpoint);
    this.#attachments.delete(key);
    attachment.hwpt.users--;
  }

  /** Everything that is attached. */
  endpoints(): Endpoint[] {
    return [...this.#attachments.values()].map(({ endpoint }) => endpoint);
  }

  /**
   * A device's page request goes to the fault queue of the guest tables that it is for. False:
   * there is none, or no room.
   */
  pageRequest(endpoint: Endpoint, request: HostPageRequest): boolean {
    const own = this.#attachments.get(endpointKey(endpoint));
    // PASIDs that nothing is attached to by itself are those of the function's guest tables, where
    // hardware has it so.
    const { hwpt } = own ?? this.#attachments.get(endpointKey({ rid: endpoint.rid, pasid: NO_PASID })) ?? {};
    if (hwpt?.type !== 'hwpt-nested' || hwpt.domain !== this.#ports.driver.attached(endpoint)) return false;
    if (hwpt.faults.requests.length >= MOST_REQUESTS) return false;
    hwpt.faults.requests.push(request);
    return true;
  }

  /** IOMMU_DESTROY */
  destroy(id: ObjectId): void {
    const object = this.#find(id);
    if (object.users > 0) throw new HostError('IN_USE', `object ${id} (${object.type})`);
    this.#objects.delete(id);
    switch (object.type) {
      case 'ioas':
        object.space.clear();
        return;
      case 'hwpt-paging':
        object.ioas.space.removeDomain(object.domain);
        object.ioas.users--;
        this.#ports.driver.destroyDomain(object.domain);
        return;
      case 'hwpt-nested':
        object.parent.users--;
        object.faults.users--;
        this.#ports.driver.destroyNested(object.domain);
        return;
      case 'viommu':
        object.parent.users--;
        return;
      case 'vdevice':
        object.viommu.streams.delete(object.virtualId);
        object.viommu.users--;
        return;
      default:
    }
  }

  /**
   * The descriptor is closed. Attachments go first, then objects, each before those that it uses.
   */
  close(): void {
    for (const { endpoint } of [...this.#attachments.values()]) this.detach(endpoint);
    while (this.#objects.size > 0) {
      for (const [id, { users }] of [...this.#objects]) if (users === 0) this.destroy(id);
    }
  }

  leftovers(): Readonly<Record<string, number>> {
    const objects = [...this.#objects.values()];
    const spaces = objects.flatMap((object) => (object.type === 'ioas' ? [object.space] : []));
    return {
      objects: objects.length,
      mappings: spaces.reduce((sum, space) => sum + space.mappings, 0),
      pinned: spaces.reduce((sum, space) => sum + space.pinned, 0),
      attachments: this.#attachments.size,
      bindings: objects.filter(({ type }) => type === 'hwpt-nested').length,
    };
  }

  #add(object: IommufdObject): ObjectId {
    this.#objects.set(this.#nextId, object);
    return this.#nextId++;
  }

  #find(id: ObjectId): IommufdObject {
    const object = this.#objects.get(id);
    if (object === undefined) throw new HostError('NO_SUCH_SPACE', `no object ${id}`);
    return object;
  }

  #get<T extends TypeName>(id: ObjectId, type: T): Extract<IommufdObject, { type: T }> {
    const object = this.#find(id);
    if (object.type !== type) throw wrongType(id, type);
    return object as Extract<IommufdObject, { type: T }>;
  }
}

function wrongType(id: ObjectId, type: TypeName): HostError {
  return new HostError('NO_SUCH_SPACE', `object ${id} is no ${type}`);
}
