/**
 * Shadows that live in address spaces of a host port: one space for each device, or PASID of one,
 * whose guest tables are shadowed. An mdev is shadowed into its own PASID, and each guest PASID
 * into that PASID.
 */

import { pageOf } from '../base/page.js';
import type { HostErrorName } from '../host/host-errors.js';
import { type HostDevice, type HostDone, type HostIommu, MapChanges, RIGHTS } from '../host/port.js';
import { OPERATION_WORDS } from './map-operations.js';
import type { Batch } from './outbox.js';
import type { Shadow, ShadowedModel } from './shadow.js';

/** Spaces of the port that are shadows; below are others'. */
const FIRST_SPACE = 1000;
/** What a {@link Shadow} calls them: beyond the handles of devices. */
const SHADOW_NUMBERS = 2 ** 32;

/** Error numbers of Linux, as {@link Shadow.answered} wants them. */
const ERRNO: Partial<Record<HostErrorName, number>> = {
  PIN_LIMIT: 12,
  NO_TABLE_MEMORY: 12,
  OVERLAP: 17,
  MAPPING_LIMIT: 28,
};
const EINVAL = 22;

interface HostSpace {
  readonly device: HostDevice;
  readonly pasid: number;
}

/** Completions for what is asked beside the shadow's batches: spaces that come and go. */
interface SpaceOperations {
  begin(what: string, device: number, pasid: number): HostDone;
  detaching(device: number, pasid: number): HostDone;
}

export class HostSpaces {
  readonly #host: HostIommu;
  readonly #shadow: Shadow;
  readonly #operations: SpaceOperations;
  /** The shadow has got an answer. */
  readonly #answered: () => void;
  /** Batches that the host has not done. */
  underWay = 0;
  readonly #spaces = new Map<number, HostSpace>();
  readonly #changes = new MapChanges();
  #next = FIRST_SPACE;

  constructor(host: HostIommu, shadow: Shadow, operations: SpaceOperations, answered: () => void = () => {}) {
    this.#host = host;
    this.#shadow = shadow;
    this.#operations = operations;
    this.#answered = answered;
  }

  /** A device that the guest knows as `rid`, or one PASID of it, is shadowed from now on. */
  attach(device: HostDevice, rid: number, model: ShadowedModel, pasid = -1): void {
    const space = this.#next++;
    this.#spaces.set(space, { device, pasid });
    this.#host.createSpace(space, device, false, this.#operations.begin('shadow', device, pasid));
    this.#host.attach(device, pasid, space, this.#operations.begin('shadow', device, pasid));
    this.#shadow.attach(SHADOW_NUMBERS + space, rid, model, pasid);
    for (const { first, last } of this.#host.limits(device).ranges) {
      this.#shadow.listen(SHADOW_NUMBERS + space, first, last);
    }
  }

  /** Nothing of it is shadowed any more; nothing goes through what was. */
  detach(device: HostDevice, pasid = -1): void {
    for (const [space, found] of this.#spaces) {
      if (found.device === device && found.pasid === pasid) this.#drop(space, found);
    }
  }

  /** The same for a device with all its PASIDs. */
  detachAll(device: HostDevice): void {
    for (const [space, found] of this.#spaces) if (found.device === device) this.#drop(space, found);
  }

  #drop(space: number, { device, pasid }: HostSpace): void {
    this.#shadow.detach(SHADOW_NUMBERS + space);
    this.#spaces.delete(space);
    this.#host.detach(device, pasid, this.#operations.detaching(device, pasid));
    this.#host.destroySpace(space, this.#operations.begin('shadow', device, pasid));
  }

  /** The guest knows the device by another requester id. */
  renumber(device: HostDevice, rid: number, model: ShadowedModel): void {
    for (const [space, found] of this.#spaces) {
      if (found.device === device) this.#shadow.renumber(SHADOW_NUMBERS + space, rid, model);
    }
  }

  /** Sends one of the shadow's batches; false when it is not for a space of the port. */
  takes(batch: Batch): boolean {
    if (batch.space.device < SHADOW_NUMBERS) return false;
    this.underWay++;
    this.#send(batch, 0, []);
    return true;
  }

  /**
   * Sends a batch from an operation on. The port stops at a failure; the rest of a batch goes on
   * behind it.
   */
  #send(batch: Batch, from: number, failures: number[]): void {
    const changes = this.#changes;
    changes.clear();
    for (let index = from; index < batch.count; index++) this.#add(batch.words, index * OPERATION_WORDS);
    this.#host.change(batch.space.device - SHADOW_NUMBERS, changes, ({ code, done }) => {
      // A space that is gone has nothing mapped.
      if (code === 'OK' || code === 'NO_SUCH_SPACE' || from + done >= batch.count) {
        this.underWay--;
        this.#shadow.answered(batch.id, failures);
        this.#answered();
        return;
      }
      failures.push(from + done, ERRNO[code as HostErrorName] ?? EINVAL);
      this.#send(batch, from + done + 1, failures);
    });
  }

  #add(words: Uint32Array, at: number): void {
    const page = pageOf(words[at + 1], words[at + 2]);
    const pages = pageOf(words[at + 3], words[at + 4]) - page + 1;
    const access = words[at] & (RIGHTS.READ | RIGHTS.WRITE);
    if (access === 0) this.#changes.unmap(page, pages);
    else this.#changes.map(page, pageOf(words[at + 5], words[at + 6]), pages, access);
  }
}
