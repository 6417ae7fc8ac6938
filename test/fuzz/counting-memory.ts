import type { GuestMemory } from '../../src/memory/guest-memory.js';

/** Guest memory that counts what the engine does to it, so that work per input can be bounded. */
export class CountingMemory implements GuestMemory {
  lo = 0;
  hi = 0;
  /** 32-bit words loaded. */
  loads = 0;
  stores = 0;
  /** Stores since the beginning. */
  written = 0;

  constructor(readonly inner: GuestMemory) {}

  /** Words loaded and stored since the last call. */
  taken(): number {
    const count = this.loads + this.stores;
    this.loads = 0;
    this.stores = 0;
    return count;
  }

  load32(gpa: number): boolean {
    this.loads++;
    return this.#keep(this.inner.load32(gpa));
  }
  load64(gpa: number): boolean {
    this.loads += 2;
    return this.#keep(this.inner.load64(gpa));
  }
  loadWords(gpa: number, out: Uint32Array, count: number): boolean {
    this.loads += count;
    return this.inner.loadWords(gpa, out, count);
  }
  store32(gpa: number, value: number): boolean {
    this.stores++;
    this.written++;
    return this.inner.store32(gpa, value);
  }
  store64(gpa: number, lo: number, hi: number): boolean {
    this.stores += 2;
    this.written++;
    return this.inner.store64(gpa, lo, hi);
  }
  cas32(gpa: number, expected: number, value: number): boolean {
    this.stores++;
    this.written++;
    return this.#keep(this.inner.cas32(gpa, expected, value));
  }
  contains(gpa: number, bytes: number): boolean {
    return this.inner.contains(gpa, bytes);
  }

  #keep(done: boolean): boolean {
    this.lo = this.inner.lo;
    this.hi = this.inner.hi;
    return done;
  }
}
