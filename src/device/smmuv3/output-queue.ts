/** A queue that the SMMU fills and software empties: Event queue and PRI queue. IHI 0070 §3.5. */
import type { GuestMemory } from '../../memory/guest-memory.js';
import { CR0, EVENTQ_BASE, EVENTQ_PROD, PAGE_1 } from '../../spec/smmuv3/registers.js';
import type { RegisterFile } from '../registers.js';
import { QUEUE_LOG2 } from './config.js';
import type { GlobalErrors } from './global-errors.js';

/** The fields of both queues' registers have the same positions. */
const BASE = EVENTQ_BASE.get;
const OVFLG = 1 << EVENTQ_PROD.fields.OVFLG.lsb;

/**
 * Which queue: its registers (base, and the indexes on page 1), its enable in CR0 and its bit in
 * GERROR.
 */
interface OutputQueuePlace {
  readonly base: number;
  readonly prod: number;
  readonly cons: number;
  readonly enable: number;
  readonly abort: number;
  /** Words of an entry. */
  readonly words: number;
}

export class OutputQueue {
  readonly #place: OutputQueuePlace;
  readonly #file: RegisterFile;
  readonly #memory: GuestMemory;
  readonly #errors: GlobalErrors;
  constructor(place: OutputQueuePlace, file: RegisterFile, memory: GuestMemory, errors: GlobalErrors) {
    this.#place = place;
    this.#file = file;
    this.#memory = memory;
    this.#errors = errors;
  }

  get enabled(): boolean {
    return (this.#file.get(CR0.offset) & this.#place.enable) !== 0;
  }

  /**
   * A write to the queue aborted, and software has not acknowledged it: nothing is written. §7.2.2,
   * §8.2
   */
  get aborted(): boolean {
    return this.#errors.active(this.#place.abort);
  }

  get empty(): boolean {
    return this.#used() === 0;
  }

  /** Indexes further apart than the queue is long count as full. §3.5.1 */
  get full(): boolean {
    return this.#used() >= 2 ** this.#log2();
  }

  /** An overflow that software has not acknowledged. */
  get overflowing(): boolean {
    const file = this.#file;
    const place = this.#place;
    return ((file.get(place.prod) ^ file.get(place.cons)) & OVFLG) !== 0;
  }

  #log2(): number {
    return Math.min(BASE.LOG2SIZE(this.#file.words, this.#place.base >> 2), QUEUE_LOG2);
  }

  #used(): number {
    const file = this.#file;
    const place = this.#place;
    return (file.get(place.prod) - file.get(place.cons)) & (2 ** (this.#log2() + 1) - 1);
  }

  /**
   * Adds an entry to a queue that is enabled and not full. False: the write aborted, which is now a
   * global error.
   */
  append(words: Uint32Array): boolean {
    const file = this.#file;
    const place = this.#place;
    const log2 = this.#log2();
    const prod = file.get(place.prod);
    const base = BASE.ADDR(file.words, place.base >> 2);
    const bytes = place.words * 4;
    // §3.5.1: the base is aligned to the size of the queue, at least to 32 bytes.
    const start = base - (base % Math.max(32, 2 ** log2 * bytes));
    if (!this.#store(start + (prod & (2 ** log2 - 1)) * bytes, words)) {
      this.#errors.raise(place.abort);
      return false;
    }
    this.#publish(((prod & OVFLG) | ((prod + 1) & (2 ** (log2 + 1) - 1))) >>> 0);
    return true;
  }

  /** Something was lost. The flag says it once, until software has acknowledged it. §7.4, §8.1 */
  overflow(): void {
    if (!this.overflowing) this.#publish((this.#file.get(this.#place.prod) ^ OVFLG) >>> 0);
  }

  /** Also where page 0 shows it. */
  #publish(prod: number): void {
    const file = this.#file;
    const place = this.#place;
    file.set(place.prod - PAGE_1, prod);
    file.set(place.prod, prod);
  }

  #store(address: number, words: Uint32Array): boolean {
    const memory = this.#memory;
    const place = this.#place;
    if (!memory.contains(address, place.words * 4)) return false;
    for (let index = place.words - 2; index >= 0; index -= 2) {
      if (!memory.store64(address + index * 4, words[index] | 0, words[index + 1] | 0)) return false;
    }
    return true;
  }
}
