/**
 * What a kernel offers to the process of one guest, whichever API that goes through: the operations
 * of the port, done at once, throwing {@link HostError}.
 */
import type { Container } from '../../assignment/request.js';
import type { HostInvalidations, HostPageRequest, MapChanges, NestedTable, SpaceNumber } from '../port.js';
import type { HostDriver } from './driver.js';
import type { Failures } from './failures.js';
import type { Endpoint } from './host-domain.js';
import type { GuestWindow } from './memory.js';

export interface GuestKernel {
  readonly container: Container;
  createSpace(space: SpaceNumber, endpoint: Endpoint, parent: boolean): void;
  destroySpace(space: SpaceNumber): void;
  change(space: SpaceNumber, changes: MapChanges, progress: { done: number }): void;
  attach(endpoint: Endpoint, space: SpaceNumber): void;
  attachNested(endpoint: Endpoint, parent: SpaceNumber, table: NestedTable): void;
  detach(endpoint: Endpoint): void;
  identify(endpoint: Endpoint, streamId: number): void;
  invalidate(parent: SpaceNumber, invalidations: HostInvalidations, progress: { done: number }): void;
  /** A page request for guest tables. False: there is no process to take it. */
  pageRequest(endpoint: Endpoint, request: HostPageRequest): boolean;
  /** Page requests that wait for the process. */
  takeRequests(): HostPageRequest[];
  /** A function, or PASIDs of it, are taken away: whatever they are attached to. */
  forget(rid: number, pasids: readonly number[] | undefined): void;
  /** The process is gone: everything that it had goes. */
  close(): void;
  /** Objects, mappings and pins in use. */
  leftovers(): Readonly<Record<string, number>>;
}

/** What a kernel works with on behalf of one guest. */
export interface KernelPorts {
  readonly driver: HostDriver;
  readonly window: GuestWindow;
  readonly failures: Failures;
  /** Pages that may be pinned in one container or IOAS. */
  readonly pinLimit: number;
}
