/**
 * A host's IOMMU, as shadowing and nesting use it (ARCHITECTURE.md, Hosts). One object serves one
 * guest.
 *
 * Operations are carried out in the order in which they were given. Each ends with a call of its
 * completion, which never comes from within the call that gave it: for the engine it is an input of
 * its own. What an operation promises (a mapping gone from every cache, a device that reaches new
 * tables) holds when it has completed, not before.
 *
 * Addresses are in pages of 4 KiB, so that 64-bit ones are exact numbers. Arguments are read before
 * a call returns.
 */
import type { HostCapabilities } from '../assignment/request.js';
import type { HostErrorName } from './host-errors.js';

/** A device that the host has assigned to the guest; the host's number. */
export type HostDevice = number;

/** An address space of host mappings; a number of the caller's choice. */
export type SpaceNumber = number;

/**
 * How an operation ended. `done` counts the parts that were carried out: pages changed,
 * invalidations forwarded.
 */
export interface HostOutcome {
  readonly code: 'OK' | HostErrorName;
  readonly text: string;
  readonly done: number;
  /** A PASID, where that was asked for. */
  readonly value: number;
}

export type HostDone = (outcome: HostOutcome) => void;

/** Pages of 4 KiB: [first, last]. */
export interface PageRange {
  readonly first: number;
  readonly last: number;
}

/** What host mappings are limited by. */
export interface HostLimits {
  /** Mappings at a time in one space; infinite where there is no limit. */
  readonly mappings: number;
  /** Where devices may be given addresses, ascending. */
  readonly ranges: readonly PageRange[];
  /**
   * Whether a nest parent takes mappings that may be read only; some VT-d hardware has an erratum
   * there.
   */
  readonly readOnlyParents: boolean;
}

/** Rights of a mapping; the same bits as of every access. */
export const RIGHTS = { READ: 1, WRITE: 2 } as const;

/**
 * A list of changes to an address space: first the unmaps, then the maps, each in order. Reused by
 * its owner.
 */
export class MapChanges {
  unmapCount = 0;
  mapCount = 0;
  /** [page, pages] each. */
  unmaps = new Float64Array(64);
  /** [page, guest-physical page, pages, rights] each. */
  maps = new Float64Array(128);

  clear(): this {
    this.unmapCount = 0;
    this.mapCount = 0;
    return this;
  }

  /** What is not mapped is no error; a range that cuts a mapping is. */
  unmap(page: number, pages: number): this {
    const at = this.unmapCount * 2;
    if (at === this.unmaps.length) this.unmaps = grown(this.unmaps);
    this.unmaps[at] = page;
    this.unmaps[at + 1] = pages;
    this.unmapCount++;
    return this;
  }

  map(page: number, guestPage: number, pages: number, rights: number): this {
    const at = this.mapCount * 4;
    if (at === this.maps.length) this.maps = grown(this.maps);
    this.maps[at] = page;
    this.maps[at + 1] = guestPage;
    this.maps[at + 2] = pages;
    this.maps[at + 3] = rights;
    this.mapCount++;
    return this;
  }
}

function grown(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}

/**
 * Stage-1 tables of the guest, as its own structures describe them.
 * - SMMUv3: the first four words of the guest's STE (V to EATS); its CD table and all below are
 *   guest-physical.
 * - VT-d: what a PASID-table entry says of its first stage: FSPTPTR, 4 or 5 levels, WPE, EAFE, SRE.
 */
export type NestedTable =
  | { readonly format: 'smmuv3'; readonly ste: Uint32Array }
  | {
      readonly format: 'vtd';
      readonly root: number;
      readonly levels: 4 | 5;
      readonly writeProtect: boolean;
      readonly extendedAccessed: boolean;
      readonly supervisor: boolean;
    };

/** Stands for the whole address space in {@link HostInvalidations}. */
export const ALL_PAGES = 0xffffffff;

/**
 * Invalidations of guest tables, in the host's own form, to be forwarded in one go.
 * - SMMUv3: the guest's commands, four words each; StreamIDs are the guest's (see
 *   {@link HostIommu.identify}).
 * - VT-d: [device, PASID + 1 (0: none), address low, address high, pages] each.
 */
export class HostInvalidations {
  count = 0;
  words = new Uint32Array(640);

  clear(): this {
    this.count = 0;
    return this;
  }

  command(word0: number, word1: number, word2: number, word3: number): this {
    const at = this.#room(4);
    this.words[at] = word0;
    this.words[at + 1] = word1;
    this.words[at + 2] = word2;
    this.words[at + 3] = word3;
    this.count++;
    return this;
  }

  /** `pasid` −1: requests without. `pages` {@link ALL_PAGES}: everything. */
  range(device: HostDevice, pasid: number, lo: number, hi: number, pages: number): this {
    const at = this.#room(5);
    this.words[at] = device;
    this.words[at + 1] = pasid + 1;
    this.words[at + 2] = lo;
    this.words[at + 3] = hi;
    this.words[at + 4] = pages;
    this.count++;
    return this;
  }

  #room(entry: number): number {
    const at = this.count * entry;
    if (at + entry > this.words.length) {
      const larger = new Uint32Array(this.words.length * 2);
      larger.set(this.words);
      this.words = larger;
    }
    return at;
  }
}

/**
 * A fault that the host's IOMMU recorded, as it recorded it: an event record of 8 words, or a fault
 * record of 4.
 */
export interface HostFault {
  readonly device: HostDevice;
  /** The PASID of the request; −1 without, also where that stands for an mdev's own. */
  readonly pasid: number;
  readonly format: 'smmuv3' | 'vtd';
  readonly record: Uint32Array;
}

/** A page request of a device whose tables are the guest's. */
export interface HostPageRequest {
  readonly device: HostDevice;
  readonly pasid: number;
  readonly access: number;
  readonly lo: number;
  readonly hi: number;
  readonly group: number;
  readonly last: boolean;
}

/** A device model of the host refused a request: it has no such PASID. The IOMMU never saw it. */
export interface PasidRefusal {
  readonly device: HostDevice;
  readonly pasid: number;
  readonly access: number;
  readonly lo: number;
  readonly hi: number;
}

/** What comes up from the host, whenever it happens. */
export interface HostEvents {
  fault(fault: HostFault): void;
  refusedPasid(refusal: PasidRefusal): void;
  pageRequest(request: HostPageRequest): void;
}

export interface HostIommu {
  /** What the IOMMU in front of a device can do. Throws {@link HostError} NO_SUCH_DEVICE. */
  capabilities(device: HostDevice): HostCapabilities;
  /** What mappings for this device are limited by. Throws {@link HostError} NO_SUCH_DEVICE. */
  limits(device: HostDevice): HostLimits;
  listen(events: HostEvents): void;

  /**
   * An empty address space for devices behind the same IOMMU as this one. `parent`: it will be
   * below guest tables.
   */
  createSpace(space: SpaceNumber, device: HostDevice, parent: boolean, done: HostDone): void;
  /** Drops an address space with its mappings; nothing may be attached to it. */
  destroySpace(space: SpaceNumber, done: HostDone): void;
  /**
   * Unmaps, then maps. Stops at the first change that fails: those before it hold, it and those
   * behind it do not. When it has completed, what was unmapped is in no cache and no longer pinned.
   */
  change(space: SpaceNumber, changes: MapChanges, done: HostDone): void;

  /**
   * Requests of a device, with this PASID or without (−1), go through the space from now on;
   * replaces what was there.
   */
  attach(device: HostDevice, pasid: number, space: SpaceNumber, done: HostDone): void;
  /**
   * They go through guest tables on top of the space `parent`; replaces what was there. What caches
   * hold of tables that are left, here and in {@link detach}:
   * - VT-d: nothing. Entries are tagged with the host's own domain-ids.
   * - SMMUv3: all of it stays, under the VMID of `parent` and the guest's ASIDs, until it is
   *   invalidated or `parent` is gone.
   */
  attachNested(
    device: HostDevice,
    pasid: number,
    parent: SpaceNumber,
    table: NestedTable,
    done: HostDone,
  ): void;
  /** They are refused from now on. */
  detach(device: HostDevice, pasid: number, done: HostDone): void;
  /** SMMUv3: the StreamID that the guest knows a device by, for {@link invalidate} and faults. */
  identify(device: HostDevice, streamId: number, done: HostDone): void;
  /**
   * Invalidations of guest tables on top of one space. Stops at the first one that is not allowed:
   * VT-d, of what is not nested; SMMUv3, of a StreamID that is not known. Its other commands are
   * good whatever is attached.
   */
  invalidate(parent: SpaceNumber, invalidations: HostInvalidations, done: HostDone): void;

  /**
   * A PASID of the parent device for the guest, to be used on this mdev. `value` of the outcome is
   * the PASID.
   */
  allocatePasid(device: HostDevice, done: HostDone): void;
  /**
   * Gives it back; whatever is attached to it is detached, and caches are clean when this has
   * completed.
   */
  freePasid(device: HostDevice, pasid: number, done: HostDone): void;

  /** Answers a group of page requests; `code` as PCI Express numbers it. */
  respond(device: HostDevice, pasid: number, group: number, code: number): void;
}
