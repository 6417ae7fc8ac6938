/**
 * Invalidations on their way to the bridge: epochs, acknowledgements, and which of them need no
 * message.
 *
 * A message is suppressed if the bridge can hold nothing that it would drop. Every answer is tagged
 * with a space, and `#handedOut` has the spaces of the answers since the last whole invalidation of
 * each. An answer for one request alone counts, since a device may still be using it. An answer in
 * flight counts, since it is noted when it is sent. An answer that an earlier whole invalidation
 * overtook has an older epoch, and the bridge drops it. A notified device is always told: it holds
 * mappings that no answer gave it, and waits for new ones.
 *
 * The tables alone do not say which devices have to be told, because an invalidation that follows a
 * change of structures names the tags from before the change. So the tags of each requester's
 * answers are kept until all of a tag is invalidated.
 *
 * A peer that is slow to acknowledge does not make the queue grow without limit. Above
 * `MAX_PENDING`, invalidations are merged into one of everything for every notified device. It is
 * sent when there is room, and counts as pending.
 */
import { ANY } from '../base/ids.js';
import { EVERYTHING, type InvalidateScope, type Iommu } from '../device/iommu.js';
import { Tags } from '../device/tags.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import type { Invalidate } from '../wire/messages.js';
import type { PendingWork } from './completions.js';
import type { DeviceTable } from './devices.js';
import type { PeerWalks } from './peer-walks.js';
import type { Outlet } from './ports.js';
import { notWaitedFor } from './unexpected-reply.js';

const MAX_PENDING = 4096;

export class Invalidations implements PendingWork {
  /** Of the last invalidation sent; what answers carry. Counts modulo 2^32. */
  epoch = 0;
  sent = 0;
  /** Those sent that name devices, modulo 2^32. */
  sentNamed = 0;
  suppressed = 0;
  merged = 0;
  readonly #devices: DeviceTable;
  readonly #unacknowledged = new Set<number>();
  /** Of these, those that name devices: the peer answers them when its main loop has run. */
  readonly #named = new Set<number>();
  readonly #handedOut = new Set<number>();
  /** Tags of what each requester was answered, and of the tables that the peer walks for it. */
  readonly #tags = new Map<number, Tags>();
  /** Of the newest answer that was noted. */
  #lastRid = -1;
  #lastSpace = -1;
  #lastSub = -1;
  /** An invalidation of everything waits for room. */
  #held = false;
  readonly #message: Invalidate = CODEC.Invalidate.create();
  readonly #rids: number[] = [];
  #backend: Outlet | undefined;

  readonly #walks: PeerWalks;

  constructor(devices: DeviceTable, walks: PeerWalks) {
    this.#devices = devices;
    this.#walks = walks;
  }

  open(backend: Outlet): void {
    this.#backend = backend;
  }

  /** Invalidations that the bridge has not answered. */
  get pending(): number {
    return this.#unacknowledged.size + (this.#held ? 1 : 0);
  }

  /** Invalidations that name devices and are not answered. */
  get pendingNamed(): number {
    return this.#named.size;
  }

  /** An answer, or a description of tables, goes out for a requester with these tags. */
  handOut(rid: number, space: number, sub: number): void {
    if (space === this.#lastSpace && rid === this.#lastRid && sub === this.#lastSub) return;
    this.#handedOut.add(space);
    this.#tagsOf(rid).add(space, sub);
    this.#lastRid = rid;
    this.#lastSpace = space;
    this.#lastSub = sub;
  }

  #tagsOf(rid: number): Tags {
    let tags = this.#tags.get(rid);
    if (tags === undefined) {
      tags = new Tags();
      this.#tags.set(rid, tags);
    }
    return tags;
  }

  /**
   * A device has another requester id than before. If it is notified it keeps what it holds, and so
   * its tags.
   */
  renumbered(device: number, before: number): void {
    const known = this.#devices.find(device);
    const tags = this.#tags.get(before);
    if (known !== undefined && known.flags !== 0 && tags !== undefined) this.#tagsOf(known.rid).addAll(tags);
  }

  /** Tells the bridge, unless it has nothing to drop. */
  invalidated(scope: InvalidateScope, model: Iommu): void {
    const devices: number[] = [];
    const notified = this.#devices.notifiedRids;
    if (notified.length > 0) {
      this.#devices.handles(this.#rids, this.#concerned(scope, model, notified), devices);
    }
    this.#invalidate(scope, devices);
  }

  /**
   * Writes to `#rids` the requesters that may hold something of a scope, or wait for it; returns
   * how many.
   */
  #concerned(scope: InvalidateScope, model: Iommu, notified: readonly number[]): number {
    const rids = this.#rids;
    let count = 0;
    for (const rid of notified) {
      if (scope.rid !== ANY && scope.rid !== rid) continue;
      if (this.#tags.get(rid)?.matches(scope) === true || model.spaces.concerns(scope, rid))
        rids[count++] = rid;
    }
    return count;
  }

  /** The peer has dropped this of its own cache by itself. */
  carriedOut(scope: InvalidateScope): void {
    this.#forget(scope);
  }

  /** Drops everything, for every device: what a reset does. */
  invalidateAll(): void {
    this.#invalidate(EVERYTHING, this.#everyone());
  }

  /** Handles of all devices that want to be notified. */
  #everyone(): number[] {
    const devices: number[] = [];
    const notified = this.#devices.notifiedRids;
    this.#devices.handles(notified, notified.length, devices);
    return devices;
  }

  /** Takes an acknowledgement. Throws `UNEXPECTED_REPLY`. */
  acknowledge(id: number): void {
    if (!this.#unacknowledged.delete(id)) throw notWaitedFor(MESSAGE.INVALIDATE, id);
    this.#named.delete(id);
    if (this.#held && this.#unacknowledged.size <= MAX_PENDING / 2) {
      this.#held = false;
      // It clears the tags of every requester, so it names every notified device.
      this.#send(EVERYTHING, this.#everyone());
    }
  }

  #invalidate(scope: InvalidateScope, devices: number[]): void {
    if (devices.length === 0 && !this.#mayHold(scope)) {
      this.suppressed++;
      if (scope.structures === true) this.#walks.tellAgain();
    } else if (this.#unacknowledged.size >= MAX_PENDING || this.#held) {
      this.merged++;
      this.#held = true;
    } else {
      this.#send(scope, devices);
    }
  }

  #mayHold({ space, structures }: InvalidateScope): boolean {
    if (space === ANY || structures === true ? this.#walks.any : this.#walks.has(space >>> 0)) return true;
    return space === ANY ? this.#handedOut.size > 0 : this.#handedOut.has(space);
  }

  #send(scope: InvalidateScope, devices: readonly number[]): void {
    if (this.#backend === undefined) return;
    this.epoch = (this.epoch + 1) >>> 0;
    this.sent++;
    const message = this.#message;
    message.epoch = this.epoch;
    message.space = scope.space >>> 0;
    message.sub = scope.sub >>> 0;
    message.rid = scope.rid >>> 0;
    // PASID + 1 on the wire, "every one" stays what it is.
    message.pasid = scope.pasid === ANY ? ANY : (scope.pasid + 1) >>> 0;
    message.lo = scope.lo >>> 0;
    message.hi = scope.hi >>> 0;
    message.log2Size = scope.log2Size;
    message.devices = devices;
    message.structures = scope.structures === true;
    // What the peer has found by then it keeps, where this scope leaves it.
    if (message.structures) this.#walks.forget(this.#handedOut);
    this.#unacknowledged.add(this.epoch);
    if (devices.length > 0) {
      this.#named.add(this.epoch);
      this.sentNamed = (this.sentNamed + 1) >>> 0;
    }
    this.#backend.put(MESSAGE.INVALIDATE, FLAG.NEED_REPLY, this.epoch, CODEC.Invalidate, message);
    this.#forget(scope);
  }

  /** After a whole invalidation of a space the bridge holds nothing of it. */
  #forget(scope: InvalidateScope): void {
    const whole = scope.sub === ANY && scope.rid === ANY && scope.pasid === ANY && scope.log2Size >= 64;
    if (!whole) return;
    if (scope.space === ANY) this.#handedOut.clear();
    else this.#handedOut.delete(scope.space >>> 0);
    this.#lastSpace = -1;
    // What the peer walks by itself it finds again, with the same tags.
    if (scope.space === ANY ? this.#walks.any : this.#walks.has(scope.space >>> 0)) return;
    for (const tags of this.#tags.values()) tags.invalidated(scope);
  }
}
