/**
 * Shadowing: keeps the host's mappings of assigned devices equal to the guest's tables, by
 * difference (ARCHITECTURE.md, Shadowing).
 *
 * An invalidation makes pages stale ({@link Shadow.markStale}). `work` looks at the stale pages of
 * the tables, once for all devices that go through them, compares what changed with what each
 * device has mapped, and writes host operations into the outbox: unmaps first. The session sends
 * the batches and brings their answers. Until `pending` is 0 nothing that the guest waits for may
 * be called complete.
 *
 * With {@link Shadow.track} the pages of the tables are tracked: every store of the guest to one
 * comes as `stored`, and what it changed is compared at once. That is for models whose guests do
 * not say when they map something.
 *
 * Nothing here waits, and one call of `work` does a bounded amount. What remains goes on with a
 * later call: after the answer to a batch, be it an empty one that is sent for nothing else.
 */

import { CodedError } from '../base/errors.js';
import { ANY, NO_PASID, NO_TAG } from '../base/ids.js';
import { PAGE_BYTES, pageAt, pageOf } from '../base/page.js';
import type { InvalidateScope, SpacesView } from '../device/iommu.js';
import { type AddressSpaceTables, clearTables, noTables, THROUGH } from '../device/tables.js';
import { names } from '../device/tags.js';
import type { ShadowEvent } from '../events/viommu-events.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { DeviceSpace } from './device-space.js';
import { Difference } from './difference.js';
import { GuestSpace } from './guest-space.js';
import { type Batch, Outbox, PURPOSE } from './outbox.js';
import { LAST_PAGE } from './pages.js';
import { RamMap } from './ram-map.js';
import { PageRanges } from './ranges.js';
import { Refusals } from './refusals.js';
import { MirrorBudget } from './table-pool.js';
import { TrackedPages, type TrackRequest } from './tracking.js';

/** Bytes of table copies: 128 GiB mapped in pages of 4 KiB. */
const MIRROR_BYTES = 256 * 2 ** 20;
/** Entries of the guest's tables that one call of {@link Shadow.work} looks at. */
const MOST_WORK = 1 << 21;
/** Batches that may wait before no more are made. */
const MOST_WAITING = 16;

/** What the engine needs of a model. */
export interface ShadowedModel {
  readonly spaces: Pick<SpacesView, 'tables'>;
}

export class Shadow {
  readonly #memory: GuestMemory;
  readonly #event: (event: ShadowEvent) => void;
  readonly ram = new RamMap();
  /** Calls of {@link work} that had something to do. */
  passes = 0;
  readonly #devices = new Map<number, DeviceSpace>();
  readonly #guests: GuestSpace[] = [];
  readonly #outbox = new Outbox();
  readonly #budget: MirrorBudget;
  readonly #difference = new Difference(this.ram);
  readonly #changed = new PageRanges(1 << 16);
  readonly #tables: AddressSpaceTables = noTables();
  readonly #refusals: Refusals;
  #tracked: TrackedPages | undefined;

  /** @param mirrorBytes of table copies at the most: tables beyond that count as not there */
  constructor(memory: GuestMemory, event: (event: ShadowEvent) => void, mirrorBytes = MIRROR_BYTES) {
    this.#memory = memory;
    this.#event = event;
    this.#budget = new MirrorBudget(mirrorBytes);
    this.#refusals = new Refusals(this.#outbox, event);
  }

  /** True when no device is shadowed. */
  get idle(): boolean {
    return this.#devices.size === 0;
  }

  /** Devices that are shadowed. */
  get devices(): Iterable<DeviceSpace> {
    return this.#devices.values();
  }

  deviceSpace(device: number): DeviceSpace | undefined {
    return this.#devices.get(device);
  }

  /** More than 0 while the host's mappings are not known to equal the guest's tables. */
  get pending(): number {
    return this.#outbox.pending + (this.#tracked?.pending ?? 0) + (this.#unfinished() ? 1 : 0);
  }

  /** The part of {@link pending} that waits for answers to TRACK. */
  get trackPending(): number {
    return this.#tracked?.pending ?? 0;
  }

  /** Table pages that are tracked. */
  get trackedPages(): number {
    return this.#tracked?.count ?? 0;
  }

  /** Batches sent or to be sent that have no answer. */
  get underWay(): number {
    return this.#outbox.pending;
  }

  /** Batches sent that have no answer. */
  get sent(): number {
    return this.#outbox.sent;
  }

  /** Stores to tables are trapped. */
  get tracking(): boolean {
    return this.#tracked !== undefined;
  }

  /** Stores to tables are to be trapped from now on. Before the first device. */
  track(): void {
    this.#tracked = new TrackedPages();
  }

  /** A device's mappings are ours from now on. Nothing is mapped until the host {@link listen}s. */
  attach(device: number, rid: number, model: ShadowedModel, pasid: number = NO_PASID): void {
    this.detach(device);
    const space = new DeviceSpace(device, rid, pasid);
    this.#devices.set(device, space);
    this.#resolve(space, model);
  }

  /** The host has taken a device's mappings away itself, or no longer listens. */
  detach(device: number): void {
    const space = this.#devices.get(device);
    if (space === undefined) return;
    this.#outbox.forget(space);
    this.#leave(space);
    this.#devices.delete(device);
  }

  /**
   * The host takes operations for input pages [first, last] of a device, and has nothing mapped
   * there.
   */
  listen(device: number, first: number, last: number): void {
    this.#devices.get(device)?.listen(first, last);
  }

  /** A device got another requester id. */
  renumber(device: number, rid: number, model: ShadowedModel): void {
    const space = this.#devices.get(device);
    if (space === undefined || space.rid === rid) return;
    space.rid = rid;
    this.#resolve(space, model);
  }

  /**
   * The guest invalidates: its tables within the scope may have changed. That concerns a device
   * whose structures say the scope's tags now, and one whose mappings were made when they said so.
   */
  markStale(scope: InvalidateScope, model: ShadowedModel): void {
    for (const space of this.#devices.values()) {
      if (scope.rid !== ANY && scope.rid !== space.rid) continue;
      const tables = this.#read(space, model);
      const named = scope.rid === space.rid || names(scope, tables.space, tables.sub);
      // Where nothing goes through no tag was read, so whatever is invalidated may be what the
      // guest has made of it.
      const nothing = space.guest?.through === THROUGH.NOTHING;
      if (named || nothing || space.tags.matches(scope)) this.#markSpaceStale(space, tables, scope);
    }
  }

  /** The guest has stored `bytes` at `gpa`, where tables may be. */
  stored(gpa: number, bytes: number): void {
    for (const guest of this.#guests) guest.stored(gpa, gpa + bytes - 1);
  }

  /** Everything may have changed: reset, memory that came or went. */
  markAllStale(model: ShadowedModel): void {
    for (const space of this.#devices.values()) this.#resolve(space, model);
    for (const guest of this.#guests) guest.markAllStale();
  }

  /** RAM has come: what leads to it can be mapped now. */
  ramAdded(region: number, gpa: number, bytes: number, readonly: boolean, model: ShadowedModel): void {
    this.ram.add(region, gpa, bytes, readonly);
    this.#tracked?.renew(pageAt(gpa), pageAt(gpa + bytes - 1));
    this.#ramChanged(model);
  }

  /** RAM goes: what leads to it is taken away whatever the tables say. */
  ramRemoved(region: number, model: ShadowedModel): void {
    const index = this.ram.indexOf(region);
    if (index < 0) return;
    const first = this.ram.first(index);
    const last = this.ram.last(index);
    this.ram.remove(region);
    for (const space of this.#devices.values()) {
      this.#difference.revoke(space, first, last);
      this.#send(space);
    }
    this.#ramChanged(model);
  }

  /**
   * Looks at what is stale and writes what has to be done into the outbox, up to a bounded amount.
   */
  work(): void {
    if (!this.#unfinished()) return;
    this.passes++;
    let left = MOST_WORK;
    for (const guest of this.#guests) {
      if (guest.stale.count === 0 || left <= 0) continue;
      this.#changed.clear();
      left -= guest.refresh(this.#changed, left);
      if (this.#changed.count > 0) this.#spread(guest);
    }
    for (const space of this.#devices.values()) {
      if (this.#outbox.waiting < MOST_WAITING) this.#refusals.retry(space);
      while (space.dirty.count > 0 && this.#outbox.waiting < MOST_WAITING) {
        const first = space.dirty.first(0);
        const last = space.dirty.last(0);
        space.dirty.advance(last + 1);
        this.#difference.compare(space, first, last);
        this.#send(space);
      }
    }
    // No answer is in flight that would bring another call.
    if (this.#outbox.pending === 0 && this.#unfinished()) this.pause();
  }

  /** Asks the host for an answer to nothing, so that there is a moment to go on in. */
  pause(): void {
    for (const space of this.#devices.values()) {
      this.#outbox.pause(space);
      return;
    }
  }

  /** The next batch to be sent, if one may be sent now. */
  take(): Batch | undefined {
    return this.#outbox.take();
  }

  /**
   * The next TRACK to be sent, if there is one. It goes before the batches that {@link take} gives.
   */
  takeTrack(): TrackRequest | undefined {
    return this.#tracked?.take();
  }

  /**
   * The monitor tells of stores to the pages of a TRACK from now on. One may have gone unseen
   * before: their tables are looked at again. Throws `UNEXPECTED_REPLY` if that TRACK is not waited
   * for.
   */
  trackAnswered(id: number): void {
    if (this.#tracked === undefined)
      throw new CodedError('UNEXPECTED_REPLY', `TRACK ${id} is not waited for`);
    this.#tracked.answered(id, this.#again);
  }

  readonly #again = (page: number): void => this.stored(page * PAGE_BYTES, PAGE_BYTES);

  /**
   * The host has done a batch. `failures` are pairs of the index of an operation and an error
   * number. Throws `UNEXPECTED_REPLY` if the batch is not waited for, `BAD_ARGUMENT` when they name
   * what the batch does not have, and `PEER_REFUSED` when the host takes nothing away any more.
   */
  answered(id: number, failures: ArrayLike<number>): void {
    const batch = this.#outbox.answered(id);
    if (batch === undefined) throw new CodedError('UNEXPECTED_REPLY', `HOST_BATCH ${id} is not waited for`);
    for (let at = 0; at < failures.length; at += 2) {
      if (failures[at] >= batch.count || at + 1 === failures.length) {
        throw new CodedError('BAD_ARGUMENT', `HOST_BATCH ${id}: failure of operation ${failures[at]}`);
      }
    }
    const { space, purpose } = batch;
    if (this.#devices.get(space.device) === space) {
      if (failures.length > 0) this.#refusals.refused(batch, failures);
      else this.#refusals.accepted(space, purpose);
    }
    this.#outbox.finish(batch);
  }

  /** The end: nothing is kept. */
  end(): void {
    for (const guest of this.#guests) guest.dispose();
    this.#guests.length = 0;
    this.#devices.clear();
    this.ram.clear();
  }

  #unfinished(): boolean {
    for (const guest of this.#guests) if (guest.stale.count > 0) return true;
    for (const space of this.#devices.values()) if (space.dirty.count > 0 || space.retries > 0) return true;
    return false;
  }

  #markSpaceStale(space: DeviceSpace, tables: AddressSpaceTables, scope: InvalidateScope): void {
    space.tags.invalidated(scope);
    if (this.#follow(space, tables)) return;
    const guest = space.guest as GuestSpace;
    const whole = scope.log2Size >= 64 || (scope.sub === ANY && !guest.addressed);
    if (whole) guest.markAllStale();
    else {
      const first = pageOf(scope.lo, scope.hi);
      const last = Math.min(LAST_PAGE, first + 2 ** Math.max(0, scope.log2Size - 12) - 1);
      guest.markStale(first, last);
    }
  }

  #resolve(space: DeviceSpace, model: ShadowedModel): void {
    this.#follow(space, this.#read(space, model));
  }

  /** The tables that a device goes through by what structures say now. The object is reused. */
  #read(space: DeviceSpace, model: ShadowedModel): AddressSpaceTables {
    const tables = this.#tables;
    clearTables(tables);
    model.spaces.tables?.(space.rid, space.pasid, tables);
    return tables;
  }

  /** Takes these tables for a device's. True when they are others than before. */
  #follow(space: DeviceSpace, tables: AddressSpaceTables): boolean {
    if (tables.space !== NO_TAG) space.tags.add(tables.space, tables.sub);
    if (space.guest?.matches(tables) === true) return false;
    this.#leave(space);
    space.guest = this.#guestFor(tables);
    space.guest.users++;
    space.mark(0, LAST_PAGE);
    if (tables.silent && this.#tracked === undefined) {
      this.#event({ kind: 'shadowSilent', device: space.device, rid: space.rid });
    }
    return true;
  }

  #guestFor(tables: AddressSpaceTables): GuestSpace {
    for (const guest of this.#guests) if (guest.matches(tables)) return guest;
    const guest = new GuestSpace(tables, this.#memory, this.ram, this.#budget, this.#tracked);
    this.#guests.push(guest);
    return guest;
  }

  #leave(space: DeviceSpace): void {
    const { guest } = space;
    space.guest = undefined;
    if (guest === undefined || --guest.users > 0) return;
    this.#guests.splice(this.#guests.indexOf(guest), 1);
    guest.dispose();
  }

  #spread(guest: GuestSpace): void {
    const beyond = guest.missing > 0 && !guest.reported;
    guest.reported = guest.missing > 0;
    for (const space of this.#devices.values()) {
      if (space.guest !== guest) continue;
      space.markAll(this.#changed);
      if (beyond) this.#beyond(space, 'tables');
    }
  }

  #beyond(space: DeviceSpace, what: 'tables' | 'mappings'): void {
    this.#event({ kind: 'shadowLimit', device: space.device, rid: space.rid, what });
  }

  #ramChanged(model: ShadowedModel): void {
    this.markAllStale(model);
    for (const space of this.#devices.values()) space.mark(0, LAST_PAGE);
  }

  /** Sends what the comparison found. */
  #send(space: DeviceSpace): void {
    const { unmaps, maps, splits, beyond } = this.#difference;
    if (beyond > 0) this.#beyond(space, 'mappings');
    this.#outbox.put(space, unmaps, PURPOSE.UNMAP);
    this.#outbox.put(space, maps, PURPOSE.MAP);
    if (splits > 0) {
      this.#event({ kind: 'hostSplit', device: space.device, rid: space.rid, count: splits });
    }
  }
}
