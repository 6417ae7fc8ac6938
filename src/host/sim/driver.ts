/**
 * What the host's kernel does with its IOMMU, whichever it is. Every driver writes the structures
 * that its hardware reads and invalidates what the hardware caches; what cannot be written down
 * there cannot be had.
 */
import type { HostCapabilities, Level } from '../../assignment/request.js';
import type { TranslateResult } from '../../device/iommu.js';
import { HostError } from '../host-errors.js';
import type { HostInvalidations, NestedTable, PageRange } from '../port.js';
import type { Endpoint, HostDomain, NestedDomain, PagingDomain } from './host-domain.js';

/** A fault record, with the requester that it names. */
export interface RecordedFault extends Endpoint {
  readonly format: 'smmuv3' | 'vtd';
  readonly record: Uint32Array;
}

/** What one driver needs to know about a guest that forwards invalidations. */
export interface VirtualIommu {
  readonly parent: PagingDomain;
  /** SMMUv3: which function a StreamID of the guest is. */
  readonly streams: ReadonlyMap<number, number>;
}

export interface HostDriver {
  /** All that this kind of host can do. */
  readonly capabilities: Omit<HostCapabilities, 'container'>;
  /** What IOMMU_GET_HW_INFO says of it: a type and its structure. */
  hardwareInfo(): { readonly type: number; readonly info: Uint8Array };
  /** Input addresses of host tables of a level. */
  ranges(level: Level): readonly PageRange[];

  /**
   * A function appears behind the IOMMU, or goes. Its requests are refused until something is
   * attached.
   */
  addFunction(rid: number): void;
  removeFunction(rid: number): void;

  /** The level of an endpoint's host tables unless an attachment asks for another. */
  usualLevel(endpoint: Endpoint): Level;
  /** Empty host tables. Throws {@link HostError}. */
  createDomain(level: Level): PagingDomain;
  destroyDomain(domain: PagingDomain): void;
  /** Guest tables. Throws {@link HostError} BAD_TABLE. */
  createNested(parent: PagingDomain, table: NestedTable): NestedDomain;
  destroyNested(domain: NestedDomain): void;

  /**
   * Makes the structures name a domain's tables; replaces what they named there. Throws
   * {@link HostError}.
   */
  attach(endpoint: Endpoint, domain: HostDomain): void;
  /** True when there was something. */
  detach(endpoint: Endpoint): boolean;
  /** The domain that requests of an endpoint go through. */
  attached(endpoint: Endpoint): HostDomain | undefined;

  /**
   * Host tables have changed there: drops cached translations, also those of guest tables on top.
   */
  flush(domain: PagingDomain, page: number, pages: number): void;
  /** Drops what caches hold of PASIDs that nothing is attached to: others may get them. */
  clean(): void;
  /**
   * Forwards one of a guest's invalidations; `index` counts them. Throws {@link HostError}
   * BAD_INVALIDATION.
   */
  invalidate(guest: VirtualIommu, invalidations: HostInvalidations, index: number): void;
  /** Waits until what was forwarded is done. */
  sync(): void;

  /** The hardware: translates a request of a device. False: refused, and perhaps recorded. */
  translate(endpoint: Endpoint, access: number, lo: number, hi: number, result: TranslateResult): boolean;
  /** Takes the faults that the hardware has recorded since the last call. */
  takeFaults(): RecordedFault[];
  /** Structures, tables and tags in use on behalf of assignments. */
  leftovers(): Readonly<Record<string, number>>;
}

/** A field of the structures can't hold a second thing. */
export function fieldInUse(field: string, detail: string): HostError {
  return new HostError('FIELD_IN_USE', `${field}: ${detail}`);
}

export function noPlace(detail: string): HostError {
  return new HostError('NO_PLACE', detail);
}

/** Requester id for people: `01:00.1`. */
export function ridText(rid: number): string {
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return `${hex(rid >> 8)}:${hex((rid >> 3) & 31)}.${rid & 7}`;
}
