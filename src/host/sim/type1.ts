/**
 * VFIO type1v2 containers. One container is one address space. An ordinary one fills the level that
 * its devices have by default (the first, where there is one), a nesting one
 * (VFIO_TYPE1_NESTING_IOMMU) fills the second level and takes guest tables on top.
 */
import { HostError } from '../host-errors.js';
import type { HostInvalidations, HostPageRequest, MapChanges, NestedTable, SpaceNumber } from '../port.js';
import { AddressSpace } from './host-address-space.js';
import { type Endpoint, endpointKey, isOf, type NestedDomain, type PagingDomain } from './host-domain.js';
import type { GuestKernel, KernelPorts } from './kernel.js';

/** VFIO's limit of mappings for each container. */
export const TYPE1_MAPPINGS = 65_535;

/** What an endpoint is attached to. */
interface Attachment {
  readonly endpoint: Endpoint;
  readonly container: Type1Container;
  readonly domain: PagingDomain;
  readonly nested: NestedDomain | undefined;
}

class Type1Container {
  readonly #ports: KernelPorts;
  readonly space: AddressSpace;
  /** Attachments by domain. */
  readonly users = new Map<PagingDomain, number>();

  constructor(ports: KernelPorts) {
    this.#ports = ports;
    const limits = { mappings: TYPE1_MAPPINGS, pinned: ports.pinLimit };
    this.space = new AddressSpace(ports.driver, ports.window, limits, ports.failures);
  }

  /** The domain of a level, made when the first device needs it. */
  domain(level: PagingDomain['level']): PagingDomain {
    for (const domain of this.users.keys()) if (domain.level === level) return domain;
    const domain = this.#ports.driver.createDomain(level);
    try {
      this.space.addDomain(domain);
    } catch (error) {
      this.#ports.driver.destroyDomain(domain);
      throw error;
    }
    this.users.set(domain, 0);
    return domain;
  }

  use(domain: PagingDomain, change: number): void {
    const users = (this.users.get(domain) ?? 0) + change;
    this.users.set(domain, users);
    if (users > 0) return;
    this.users.delete(domain);
    this.space.removeDomain(domain);
    this.#ports.driver.destroyDomain(domain);
  }
}

export class Type1Kernel implements GuestKernel {
  readonly #ports: KernelPorts;
  readonly #nesting: boolean;
  readonly container;
  readonly #containers = new Map<SpaceNumber, Type1Container>();
  readonly #attachments = new Map<number, Attachment>();
  readonly #streams = new Map<number, number>();
  readonly #requests: HostPageRequest[] = [];

  constructor(ports: KernelPorts, nesting: boolean) {
    this.#ports = ports;
    this.#nesting = nesting;
    this.container = nesting ? ('type1-nesting' as const) : ('type1' as const);
  }

  createSpace(space: SpaceNumber, _endpoint: Endpoint, parent: boolean): void {
    if (parent && !this.#nesting)
      throw new HostError('NOT_SUPPORTED', 'an ordinary container has no guest tables');
    if (this.#containers.has(space)) throw new HostError('SPACE_EXISTS', String(space));
    this.#containers.set(space, new Type1Container(this.#ports));
  }

  destroySpace(space: SpaceNumber): void {
    const container = this.#find(space);
    if (container.users.size > 0) throw new HostError('IN_USE', `space ${space}`);
    container.space.clear();
    this.#containers.delete(space);
  }

  change(space: SpaceNumber, changes: MapChanges, progress: { done: number }): void {
    this.#find(space).space.change(changes, progress);
  }

  attach(endpoint: Endpoint, space: SpaceNumber): void {
    const level = this.#nesting ? 'second' : this.#ports.driver.usualLevel(endpoint);
    this.#join(endpoint, this.#find(space), level, undefined);
  }

  attachNested(endpoint: Endpoint, parent: SpaceNumber, table: NestedTable): void {
    if (!this.#nesting) throw new HostError('NOT_SUPPORTED', 'an ordinary container has no guest tables');
    this.#join(endpoint, this.#find(parent), 'second', table);
  }

  /** A group moves to a container: out of the old one first, as there is nothing in between. */
  #join(
    endpoint: Endpoint,
    container: Type1Container,
    level: PagingDomain['level'],
    table: NestedTable | undefined,
  ): void {
    const { driver, failures } = this.#ports;
    failures.check('attach');
    const before = this.#attachments.get(endpointKey(endpoint));
    const domain = container.domain(level);
    let nested: NestedDomain | undefined;
    container.use(domain, 1);
    try {
      nested = table && driver.createNested(domain, table);
      driver.attach(endpoint, nested ?? domain);
    } catch (error) {
      if (nested !== undefined) driver.destroyNested(nested);
      container.use(domain, -1);
      throw error;
    }
    this.#attachments.set(endpointKey(endpoint), { endpoint, container, domain, nested });
    if (before !== undefined) this.#leave(before);
  }

  detach(endpoint: Endpoint): void {
    const attachment = this.#attachments.get(endpointKey(endpoint));
    if (attachment === undefined) throw new HostError('NOT_ATTACHED', `PASID ${endpoint.pasid}`);
    this.#ports.driver.detach(endpoint);
    this.#attachments.delete(endpointKey(endpoint));
    this.#leave(attachment);
  }

  #leave({ container, domain, nested }: Attachment): void {
    if (nested !== undefined) this.#ports.driver.destroyNested(nested);
    container.use(domain, -1);
  }

  identify(endpoint: Endpoint, streamId: number): void {
    this.#streams.set(streamId, endpoint.rid);
  }

  invalidate(parent: SpaceNumber, invalidations: HostInvalidations, progress: { done: number }): void {
    const container = this.#find(parent);
    const domain = [...container.users.keys()].find(({ level }) => level === 'second');
    if (domain === undefined || !this.#nesting)
      throw new HostError('BAD_INVALIDATION', 'nothing is nested there');
    const guest = { parent: domain, streams: this.#streams };
    try {
      for (; progress.done < invalidations.count; progress.done++) {
        this.#ports.failures.check('invalidate');
        this.#ports.driver.invalidate(guest, invalidations, progress.done);
      }
    } finally {
      this.#ports.driver.sync();
    }
  }

  pageRequest(endpoint: Endpoint, request: HostPageRequest): boolean {
    const domain = this.#ports.driver.attached(endpoint);
    const mine = [...this.#attachments.values()].some(
      ({ nested }) => nested !== undefined && nested === domain,
    );
    if (mine) this.#requests.push(request);
    return mine;
  }

  takeRequests(): HostPageRequest[] {
    return this.#requests.splice(0);
  }

  forget(rid: number, pasids: readonly number[] | undefined): void {
    for (const { endpoint } of [...this.#attachments.values()]) {
      if (isOf(endpoint, rid, pasids)) this.detach(endpoint);
    }
    if (pasids !== undefined) return;
    for (const [streamId, stream] of this.#streams) if (stream === rid) this.#streams.delete(streamId);
  }

  close(): void {
    for (const { endpoint } of [...this.#attachments.values()]) this.detach(endpoint);
    for (const space of [...this.#containers.keys()]) this.destroySpace(space);
  }

  leftovers(): Readonly<Record<string, number>> {
    const containers = [...this.#containers.values()];
    const sum = (of: (container: Type1Container) => number): number =>
      containers.reduce((total, container) => total + of(container), 0);
    return {
      containers: containers.length,
      mappings: sum(({ space }) => space.mappings),
      pinned: sum(({ space }) => space.pinned),
      attachments: this.#attachments.size,
      bindings: [...this.#attachments.values()].filter(({ nested }) => nested !== undefined).length,
    };
  }

  #find(space: SpaceNumber): Type1Container {
    const container = this.#containers.get(space);
    if (container === undefined) throw new HostError('NO_SUCH_SPACE', String(space));
    return container;
  }
}
