/** Guest memory for an observer: no writes, and a bounded number of reads. */
import type { PhysicalAddress } from '../../base/u64.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ReadOnlyMemory } from '../../memory/read-only.js';

/** What a guest has made is too much to look at. */
export class TooMuch extends Error {}

export class BoundedMemory extends ReadOnlyMemory {
  /** Reads since {@link allow}. */
  reads = 0;
  #most = 0;

  constructor(memory: GuestMemory) {
    super(memory);
  }

  /** From now on so many reads; one more throws {@link TooMuch}. */
  allow(reads: number): void {
    this.reads = 0;
    this.#most = reads;
  }

  override load32(gpa: PhysicalAddress): boolean {
    this.#count();
    return super.load32(gpa);
  }

  override load64(gpa: PhysicalAddress): boolean {
    this.#count();
    return super.load64(gpa);
  }

  override loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    this.#count();
    return super.loadWords(gpa, out, count);
  }

  #count(): void {
    if (++this.reads > this.#most) throw new TooMuch();
  }
}
