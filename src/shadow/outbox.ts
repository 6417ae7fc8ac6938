/** Operations on their way to the host, in order, in batches of bounded size of which a bounded number is under way. */

import type { DeviceSpace } from './device-space.js';
import { OPERATION_WORDS, type Operations } from './operations.js';

/** Operations of one batch: with its header it fits a frame of the wire. */
export const MOST_PER_BATCH = 2048;
/** Batches that the host has not answered; more wait here. */
const MOST_UNDER_WAY = 16;
/** Batches of so few operations are used again. */
const FEW = 16;
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

/** Unmapping frees room on the host; AGAIN asks for what was refused; EMPTY takes everything away, as the last resort. */
export const PURPOSE = { UNMAP: 0, MAP: 1, AGAIN: 2, EMPTY: 3, PAUSE: 4 } as const;
export type Purpose = (typeof PURPOSE)[keyof typeof PURPOSE];

class Small implements Batch {
  id = 0;
  words: Uint32Array = NO_WORDS;
  count = 0;
  sequence = 0;
  purpose: Purpose = PURPOSE.PAUSE;
  readonly #room = new Uint32Array(FEW * OPERATION_WORDS);

  constructor(public space: DeviceSpace) {}

  copy(from: Uint32Array, at: number, count: number): void {
    const length = count * OPERATION_WORDS;
    if (this.words.length !== length) this.words = this.#room.subarray(0, length);
    for (let word = 0; word < length; word++) this.words[word] = from[at + word];
  }
}

export class Outbox {
  /** In [#head, #tail): an array that is never cut, as it would be made anew. */
  readonly #waiting: (Batch | undefined)[] = [];
  #head = 0;
  #tail = 0;
  readonly #underWay: (Batch | undefined)[] = new Array(MOST_UNDER_WAY).fill(undefined);
  #sent = 0;
  readonly #spare: Small[] = [];
  #spares = 0;
  #nextId = 1;

  /** Batches that are not answered, sent or not. */
  get pending(): number {
    return this.waiting + this.#sent;
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

  /** Takes the answer to a batch; undefined when nobody waits for it. To be {@link finish}ed. */
  answered(id: number): Batch | undefined {
    for (let at = 0; at < MOST_UNDER_WAY; at++) {
      const batch = this.#underWay[at];
      if (batch === undefined || batch.id !== id) continue;
      this.#underWay[at] = undefined;
      this.#sent--;
      return batch;
    }
    return undefined;
  }

  /** What came of a batch has been dealt with: nobody looks at it any more. */
  finish(batch: Batch): void {
    if (batch instanceof Small && this.#spares < MOST_UNDER_WAY) this.#spare[this.#spares++] = batch;
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
    const id = this.#nextId;
    this.#nextId = (id + 1) >>> 0 || 1;
    this.#waiting[this.#tail++] =
      count > FEW
        ? {
            id,
            space,
            words: words.slice(at, at + count * OPERATION_WORDS),
            count,
            sequence: space.sequence,
            purpose,
          }
        : this.#small(id, space, words, at, count, purpose);
    space.sequence = (space.sequence + count) >>> 0;
  }

  #small(
    id: number,
    space: DeviceSpace,
    words: Uint32Array,
    at: number,
    count: number,
    purpose: Purpose,
  ): Small {
    const batch = this.#spares > 0 ? this.#spare[--this.#spares] : new Small(space);
    batch.id = id;
    batch.space = space;
    batch.count = count;
    batch.sequence = space.sequence;
    batch.purpose = purpose;
    batch.copy(words, at, count);
    return batch;
  }
}
