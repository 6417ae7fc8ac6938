import { ArrayMemory } from '../../src/memory/array.js';

/**
 * Guest memory of which pieces can be unplugged, and in which another thread may store:
 * `before` is called before everything that the engine reads.
 */
export class PlugMemory extends ArrayMemory {
  before: () => void = () => {};
  /** Reads of the engine, a comparison of many entries being one. */
  reads = 0;
  readonly #gone = new Map<number, number>();

  unplug(first: number, bytes: number): void {
    this.#gone.set(first, first + bytes);
  }

  plug(first: number): void {
    this.#gone.delete(first);
  }

  /**
   * What an entry holds, there or not, without a call of `before`. Undefined where there never is
   * memory.
   */
  raw(gpa: number): bigint | undefined {
    const { lo, hi } = this;
    const found = super.load64(gpa);
    const value = (BigInt(this.hi >>> 0) << 32n) | BigInt(this.lo >>> 0);
    this.lo = lo;
    this.hi = hi;
    return found ? value : undefined;
  }

  /** Does something without calls of `before`, and of which no read counts. */
  quietly(work: () => void): void {
    const { before, reads } = this;
    this.before = () => {};
    work();
    this.before = before;
    this.reads = reads;
  }

  #begin(): void {
    this.reads++;
    this.before();
  }

  #there(gpa: number): boolean {
    for (const [first, end] of this.#gone) if (gpa >= first && gpa < end) return false;
    return true;
  }

  override contains(gpa: number, bytes: number): boolean {
    return this.#there(gpa) && this.#there(gpa + bytes - 1) && super.contains(gpa, bytes);
  }

  override load32(gpa: number): boolean {
    this.#begin();
    return this.#there(gpa) && super.load32(gpa);
  }

  override load64(gpa: number): boolean {
    this.#begin();
    return this.#there(gpa) && super.load64(gpa);
  }

  override loadWords(gpa: number, out: Uint32Array, count: number): boolean {
    this.#begin();
    if (!this.contains(gpa, count * 4)) return false;
    // Another processor changes entries between the first and the last of them, but none in the
    // middle.
    for (let at = 0; at < count; at += 2) {
      if (at % 16 === 0) this.#begin();
      super.load32(gpa + at * 4);
      out[at] = this.lo;
      if (at + 1 === count) break;
      super.load32(gpa + at * 4 + 4);
      out[at + 1] = this.lo;
    }
    return true;
  }

  override store32(gpa: number, value: number): boolean {
    return this.#there(gpa) && super.store32(gpa, value);
  }

  override store64(gpa: number, lo: number, hi: number): boolean {
    return this.#there(gpa) && super.store64(gpa, lo, hi);
  }

  override cas32(gpa: number, expected: number, value: number): boolean {
    this.#begin();
    return this.#there(gpa) && super.cas32(gpa, expected, value);
  }

  override sameBytes(gpa: number, copy: Uint8Array, at: number, bytes: number): boolean {
    this.#begin();
    return this.contains(gpa, bytes) && super.sameBytes(gpa, copy, at, bytes);
  }
}
