/**
 * Room for copies of the guest's table pages: slots of one size in chunks, given out and taken
 * back.
 */

const CHUNK_BYTES = 1 << 18;

/**
 * Copies that all mirrors of a unit may hold together: a guest that has more tables is not shadowed
 * beyond that.
 */
export class MirrorBudget {
  constructor(public bytes: number) {}
}

export class TablePool {
  readonly #budget: MirrorBudget;
  readonly #words: Int32Array[] = [];
  readonly #bytes: Uint8Array[] = [];
  readonly #slotsLog2: number;
  #next = 0;
  readonly #free: number[] = [];

  /** @param bytes of a slot, a power of two */
  constructor(
    readonly bytes: number,
    budget: MirrorBudget,
  ) {
    this.#budget = budget;
    this.#slotsLog2 = Math.max(0, Math.log2(CHUNK_BYTES / bytes));
  }

  /** A slot of zeros, or −1 when the budget is used up. */
  take(): number {
    if (this.#budget.bytes < this.bytes) return -1;
    this.#budget.bytes -= this.bytes;
    const again = this.#free.pop();
    if (again !== undefined) {
      const at = this.offsetOf(again);
      this.wordsOf(again).fill(0, at, at + this.bytes / 4);
      return again;
    }
    const slot = this.#next++;
    if (slot >>> this.#slotsLog2 === this.#words.length) {
      const buffer = new ArrayBuffer(this.bytes * 2 ** this.#slotsLog2);
      this.#words.push(new Int32Array(buffer));
      this.#bytes.push(new Uint8Array(buffer));
    }
    return slot;
  }

  give(slot: number): void {
    this.#budget.bytes += this.bytes;
    this.#free.push(slot);
  }

  /** The array that a slot lies in; its words begin at {@link offsetOf}. */
  wordsOf(slot: number): Int32Array {
    return this.#words[slot >>> this.#slotsLog2];
  }

  bytesOf(slot: number): Uint8Array {
    return this.#bytes[slot >>> this.#slotsLog2];
  }

  /** In 32-bit words. */
  offsetOf(slot: number): number {
    return (slot & ((1 << this.#slotsLog2) - 1)) * (this.bytes / 4);
  }

  /** Gives everything back. */
  clear(): void {
    this.#budget.bytes += (this.#next - this.#free.length) * this.bytes;
    this.#words.length = 0;
    this.#bytes.length = 0;
    this.#free.length = 0;
    this.#next = 0;
  }
}
