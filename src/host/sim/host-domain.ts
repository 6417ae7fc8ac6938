/** What devices are attached to: host tables, or guest tables on top of some. */
import type { Level } from '../../assignment/request.js';
import type { NestedTable } from '../port.js';
import type { HostPageTable } from './host-page-table.js';

/** Where requests come from: a function, and a PASID of it or none (−1). */
export interface Endpoint {
  readonly rid: number;
  readonly pasid: number;
}

/** A number for an endpoint. */
export function endpointKey({ rid, pasid }: Endpoint): number {
  return rid * 2 ** 21 + pasid + 1;
}

/** True for endpoints of a function, or of some of its PASIDs. */
export function isOf(endpoint: Endpoint, rid: number, pasids: readonly number[] | undefined): boolean {
  return endpoint.rid === rid && (pasids === undefined || pasids.includes(endpoint.pasid));
}

/** Where a domain is attached. */
class Endpoints {
  readonly #byKey = new Map<number, Endpoint>();

  get size(): number {
    return this.#byKey.size;
  }

  add(endpoint: Endpoint): void {
    this.#byKey.set(endpointKey(endpoint), { rid: endpoint.rid, pasid: endpoint.pasid });
  }

  delete(endpoint: Endpoint): void {
    this.#byKey.delete(endpointKey(endpoint));
  }

  [Symbol.iterator](): Iterator<Endpoint> {
    return this.#byKey.values();
  }
}

/** Says at a domain that something is attached to it, and no longer to another one. */
export function moveEndpoint(
  endpoint: Endpoint,
  from: HostDomain | undefined,
  to: HostDomain | undefined,
): void {
  from?.endpoints.delete(endpoint);
  to?.endpoints.add(endpoint);
}

/** Host tables of one level, under one tag (DID, VMID or ASID) in the IOMMU's caches. */
export class PagingDomain {
  readonly kind = 'paging';
  readonly endpoints = new Endpoints();

  constructor(
    readonly level: Level,
    readonly table: HostPageTable,
    readonly tag: number,
  ) {}
}

/**
 * Guest tables on top of a second level. The tag is that of the second level, or goes with what
 * they are attached to.
 */
export class NestedDomain {
  readonly kind = 'nested';
  readonly endpoints = new Endpoints();

  constructor(
    readonly parent: PagingDomain,
    readonly stage1: NestedTable,
  ) {}
}

export type HostDomain = PagingDomain | NestedDomain;

/**
 * Numbers from a range, the lowest that were never used first, then those given back: DIDs, VMIDs,
 * ASIDs.
 */
export class HostTags {
  #next: number;
  readonly #end: number;
  live = 0;
  readonly #free: number[] = [];

  constructor(next: number, end: number) {
    this.#next = next;
    this.#end = end;
  }

  /** −1 when all are in use. */
  take(): number {
    const tag = this.#next < this.#end ? this.#next++ : (this.#free.shift() ?? -1);
    if (tag >= 0) this.live++;
    return tag;
  }

  give(tag: number): void {
    this.live--;
    this.#free.push(tag);
  }
}
