/** Operations on their way to the host, in order, in batches of bounded size of which a bounded number is under way. */

import type { DeviceSpace } from './device-space.js';
import { OPERATION_WORDS, type Operations } from './operations.js';

/** Operations of one batch: with its header it fits a frame of the wire. */
export const MOST_PER_BATCH = 2048;
/** Batches that the host has not answered; more wait here. */
const MOST_UNDER_WAY = 16;

/** Some operations of one device. */
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

export class Outbox {
  readonly #waiting: Batch[] = [];
  readonly #underWay = new Map<number, Batch>();
  #head = 0;
  #nextId = 1;

  /** Batches that are not answered, sent or not. */
  get pending(): number {
    return this.waiting + this.#underWay.size;
  }

  /** Batches that are not sent. */
  get waiting(): number {
    return this.#waiting.length - this.#head;
  }

  /** Batches that are sent and not answered. */
  get sent(): number {
    return this.#underWay.size;
  }

  /** Puts operations behind those that wait. Their numbers go on from the device's. */
  put(space: DeviceSpace, operations: Operations, purpose: Purpose): void {
    for (let at = 0; at < operations.count; at += MOST_PER_BATCH) {
      const count = Math.min(MOST_PER_BATCH, operations.count - at);
      const words = operations.words.slice(at * OPERATION_WORDS, (at + count) * OPERATION_WORDS);
      this.#enter(space, words, count, purpose);
    }
  }

  /** Puts a batch of nothing: its answer is the turn in which to go on. */
  pause(space: DeviceSpace): void {
    this.#enter(space, new Uint32Array(0), 0, PURPOSE.PAUSE);
  }

  /** The next batch to be sent now; undefined when none waits or enough are under way. */
  take(): Batch | undefined {
    if (this.waiting === 0 || this.#underWay.size >= MOST_UNDER_WAY) return undefined;
    const batch = this.#waiting[this.#head++];
    if (this.#head === this.#waiting.length) {
      this.#waiting.length = 0;
      this.#head = 0;
    }
    this.#underWay.set(batch.id, batch);
    return batch;
  }

  /** Takes the answer to a batch; undefined when nobody waits for it. */
  answered(id: number): Batch | undefined {
    const batch = this.#underWay.get(id);
    this.#underWay.delete(id);
    return batch;
  }

  /** Drops what is not sent yet for a device. What is under way is answered all the same. */
  forget(space: DeviceSpace): void {
    const kept = this.#waiting.slice(this.#head).filter((batch) => batch.space !== space);
    this.#waiting.length = 0;
    this.#waiting.push(...kept);
    this.#head = 0;
  }

  #enter(space: DeviceSpace, words: Uint32Array, count: number, purpose: Purpose): void {
    const id = this.#nextId;
    this.#nextId = (id + 1) >>> 0 || 1;
    this.#waiting.push({ id, space, words, count, sequence: space.sequence, purpose });
    space.sequence = (space.sequence + count) >>> 0;
  }
}
