/**
 * Operations on their way to the host, in order, in batches of bounded size of which a bounded
 * number is under way.
 */

import type { DeviceSpace } from './device-space.js';
import { OPERATION_WORDS, type Operations } from './map-operations.js';

/** Operations of one batch: with its header it fits a frame of the wire. */
export const MOST_PER_BATCH = 2048;
/** Batches that the host has not answered; more wait here. */
const MOST_UNDER_WAY = 16;
/** Operations of a batch that has no room for as many as there may be. */
const FEW = 16;
/** Batches that are kept to be used again, of either size. */
const MOST_SPARE = 32;
const NO_WORDS = new Uint32Array(0);

/** Some operations of one device. Good until its answer has been dealt with. */
export interface Batch {
  readonly id: number;
  readonly space: DeviceSpace;
  readonly words: Uint32Array;
  readonly count: number;
  /** Number of the first operation, see `DeviceSpace.sequence`. */
  readonly sequence: number;
  /** What the batch is for: one of {@link PURPOSE}. */
  readonly purpose: Purpose;
}

/**
 * Unmapping frees room on the host; AGAIN asks for what was refused; EMPTY takes everything away,
 * as the last resort.
 */
export const PURPOSE = { UNMAP: 0, MAP: 1, AGAIN: 2, EMPTY: 3, PAUSE: 4 } as const;
export type Purpose = (typeof PURPOSE)[keyof typeof PURPOSE];

/**
 * A batch that is used again and again: a guest that is at it would leave megabytes behind in no
 * time.
 */
class Kept implements Batch {
  id = 0;
  words: Uint32Array = NO_WORDS;
  count = 0;
  sequence = 0;
  purpose: Purpose = PURPOSE.PAUSE;
  readonly #room: Uint32Array;

  constructor(
    public space: DeviceSpace,
    readonly large: boolean,
  ) {
    this.#room = new Uint32Array((large ? MOST_PER_BATCH : FEW) * OPERATION_WORDS);
  }

  copy(from: Uint32Array, at: number, count: number): void {
    const length = count * OPERATION_WORDS;
    if (this.words.length !== length) this.words = this.#room.subarray(0, length);
    if (this.large) this.words.set(from.subarray(at, at + length));
    // For a few words a loop is faster than a call.
    else for (let word = 0; word < length; word++) this.words[word] = from[at + word];
  }
}

/** Batches that are kept; the list is never cut, as it would be made anew. */
class Spares {
  readonly #large: boolean;
  readonly #kept: Kept[] = [];
  #count = 0;

  constructor(large: boolean) {
    this.#large = large;
  }

  take(space: DeviceSpace): Kept {
    return this.#count > 0 ? this.#kept[--this.#count] : new Kept(space, this.#large);
  }

  give(batch: Kept): void {
    if (this.#count < MOST_SPARE) this.#kept[this.#count++] = batch;
  }
}

export class Outbox {
  /** In [#head, #tail); never cut either. */
  readonly #waiting: (Kept | undefined)[] = [];
  #head = 0;
  #tail = 0;
  readonly #underWay: (Kept | undefined)[] = new Array(MOST_UNDER_WAY).fill(undefined);
  #sent = 0;
  readonly #small = new Spares(false);
  readonly #large = new Spares(true);
  #nextId = 1;

  /** Batches that are not answered, sent or not. */
  get pending(): number {
    return this.#tail - this.#head + this.#sent;
  }

  /** Batches that are not sent. */
  get waiting(): number {
    return this.#tail - this.#head;
  }

  /** Batches that are sent and not answered. */
  get sent(): number {
    return this.#sent;
  }

  /** Puts operations behind those that wait. Their numbers go on from the device's. */
  put(space: DeviceSpace, operations: Operations, purpose: Purpose): void {
    const { words } = operations;
    for (let at = 0; at < operations.count; at += MOST_PER_BATCH) {
      const count = Math.min(MOST_PER_BATCH, operations.count - at);
      this.#enter(space, words, at * OPERATION_WORDS, count, purpose);
    }
  }

  /** Puts a batch of nothing: its answer is the turn in which to go on. */
  pause(space: DeviceSpace): void {
    this.#enter(space, NO_WORDS, 0, 0, PURPOSE.PAUSE);
  }

  /** The next batch to be sent now; undefined when none waits or enough are under way. */
  take(): Batch | undefined {
    if (this.waiting === 0 || this.#sent >= MOST_UNDER_WAY) return undefined;
    const batch = this.#waiting[this.#head];
    this.#waiting[this.#head++] = undefined;
    if (this.#head === this.#tail) this.#rewind(0);
    this.#underWay[this.#underWay.indexOf(undefined)] = batch;
    this.#sent++;
    return batch;
  }

  /** Takes the answer to a batch; undefined: there is no such batch. To be {@link finish}ed. */
  answered(id: number): Kept | undefined {
    for (let at = 0; at < MOST_UNDER_WAY; at++) {
      const batch = this.#underWay[at];
      if (batch === undefined || batch.id !== id) continue;
      this.#underWay[at] = undefined;
      this.#sent--;
      return batch;
    }
    return undefined;
  }

  /** The answer to a batch has been dealt with, so its memory can be used again. */
  finish(batch: Kept): void {
    (batch.large ? this.#large : this.#small).give(batch);
  }

  /** Drops what is not sent yet for a device. What is under way is answered all the same. */
  forget(space: DeviceSpace): void {
    let kept = 0;
    for (let at = this.#head; at < this.#tail; at++) {
      const batch = this.#waiting[at];
      if (batch?.space !== space) this.#waiting[kept++] = batch;
    }
    this.#waiting.fill(undefined, kept);
    this.#rewind(kept);
  }

  #rewind(kept: number): void {
    this.#head = 0;
    this.#tail = kept;
  }

  #enter(space: DeviceSpace, words: Uint32Array, at: number, count: number, purpose: Purpose): void {
    const batch = (count > FEW ? this.#large : this.#small).take(space);
    batch.id = this.#nextId;
    this.#nextId = (this.#nextId + 1) >>> 0 || 1;
    batch.space = space;
    batch.count = count;
    batch.sequence = space.sequence;
    batch.purpose = purpose;
    batch.copy(words, at, count);
    this.#waiting[this.#tail++] = batch;
    space.sequence = (space.sequence + count) >>> 0;
  }
}
