/**
 * Blocks of interrupt entries that a model has invalidated and the peer has not been told of, in
 * order.
 */

import { ALL_ENTRIES } from '../device/interrupts.js';

/** Above this, one invalidation of all takes the place of what is recorded. */
const MOST_BLOCKS = 256;

export class RecordedInterrupts {
  readonly #index = new Uint32Array(MOST_BLOCKS);
  readonly #log2Count = new Uint8Array(MOST_BLOCKS);
  #first = 0;
  #end = 0;
  /** Of the block that {@link take} took. */
  index = 0;
  log2Count = 0;

  get count(): number {
    return this.#end - this.#first;
  }

  add(index: number, log2Count: number): void {
    const all = log2Count >= ALL_ENTRIES || this.#end === MOST_BLOCKS;
    if (all) this.clear();
    this.#index[this.#end] = all ? 0 : (index & -(2 ** log2Count)) >>> 0;
    this.#log2Count[this.#end++] = all ? ALL_ENTRIES : log2Count;
  }

  /** Takes the oldest block. False: there is none. */
  take(): boolean {
    if (this.#first === this.#end) return false;
    this.index = this.#index[this.#first] as number;
    this.log2Count = this.#log2Count[this.#first] as number;
    if (++this.#first === this.#end) this.clear();
    return true;
  }

  clear(): void {
    this.#first = 0;
    this.#end = 0;
  }
}
