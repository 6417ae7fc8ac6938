/**
 * The host's second level below everything that is nested for one guest: guest-physical addresses
 * to memory. It follows the memory table; a region that goes has left every cache before the
 * removal is over.
 */
import { PAGE_BYTES, pageAt } from '../base/page.js';
import { type HostDevice, type HostIommu, MapChanges, RIGHTS } from '../host/port.js';
import type { HostOperations } from './host-operations.js';

/** Number of this space at the host. */
export const PARENT_SPACE = 0;

interface Region {
  readonly page: number;
  readonly pages: number;
  readonly rights: number;
}

export class NestParent {
  readonly #host: HostIommu;
  readonly #operations: HostOperations;
  readonly #regions = new Map<number, Region>();
  readonly #changes = new MapChanges();
  #device: HostDevice | undefined;
  #readOnly = true;
  /**
   * The host has not made it: there is nothing that guest tables could be on top of, and nothing
   * that is cached of them.
   */
  refused = false;
  /**
   * Which one it is. What fails of an earlier one, and is heard of only now, says nothing of this
   * one.
   */
  generation = 0;

  constructor(host: HostIommu, operations: HostOperations) {
    this.#host = host;
    this.#operations = operations;
  }

  /** Whether the space is there. */
  get exists(): boolean {
    return this.#device !== undefined;
  }

  /** Makes the space, when the first device needs it, and maps what memory there is. */
  provide(device: HostDevice): void {
    if (this.#device !== undefined) return;
    this.#device = device;
    this.refused = false;
    const { generation } = this;
    const refused = (): void => {
      if (generation === this.generation) this.refused = true;
    };
    this.#host.createSpace(
      PARENT_SPACE,
      device,
      true,
      this.#operations.begin('nest parent', device, -1, refused),
    );
    this.#readOnly = this.#host.limits(device).readOnlyParents;
    for (const region of this.#regions.values()) this.#map(region);
  }

  /** The last device has gone. */
  drop(): void {
    const device = this.#device;
    if (device === undefined) return;
    this.#device = undefined;
    this.generation++;
    this.#host.destroySpace(PARENT_SPACE, this.#operations.begin('nest parent', device, -1));
  }

  /** RAM has come. Only whole pages can be given to devices. */
  ramAdded(region: number, gpa: number, bytes: number, readonly: boolean): void {
    const page = Math.ceil(gpa / PAGE_BYTES);
    const pages = pageAt(gpa + bytes) - page;
    if (pages <= 0) return;
    const rights = readonly ? RIGHTS.READ : RIGHTS.READ | RIGHTS.WRITE;
    const added = { page, pages, rights };
    this.#regions.set(region, added);
    this.#map(added);
  }

  ramRemoved(region: number): void {
    const found = this.#regions.get(region);
    if (found === undefined) return;
    this.#regions.delete(region);
    if (this.#takes(found)) this.#send(this.#changes.clear().unmap(found.page, found.pages));
  }

  /**
   * What may only be read is not there for devices, where hardware cannot have it so: it is ROM.
   */
  #takes({ rights }: Region): boolean {
    return this.#readOnly || (rights & RIGHTS.WRITE) !== 0;
  }

  /** On its own: a list ends with the first mapping that is refused. */
  #map(region: Region): void {
    const { page, pages, rights } = region;
    if (this.#takes(region)) this.#send(this.#changes.clear().map(page, page, pages, rights));
  }

  #send(changes: MapChanges): void {
    const device = this.#device;
    if (device === undefined) return;
    this.#host.change(PARENT_SPACE, changes, this.#operations.begin('guest memory', device, -1));
  }
}
