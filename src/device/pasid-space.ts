/**
 * Where a guest's paravirtual PASIDs come from: what virtual commands of VT-d and of the SMMUv3
 * give out.
 */

/** Answers of a {@link PasidSpace} that are no PASID. */
export const PASID_ANSWER = {
  DONE: 0,
  /** Nothing to allocate, or not the caller's to free. */
  REFUSED: -1,
  /** {@link PasidView.answered} brings it. One question at a time. */
  LATER: -2,
} as const;

/**
 * The PASIDs that one guest may have. Where guests share a parent device, the daemon hands in one
 * that is aware of the others; a model that is given none has a space of its own
 * ({@link PrivatePasids}).
 */
export interface PasidSpace {
  /** A PASID that no other guest has, > 0; or REFUSED, or LATER. */
  allocate(): number;
  /** DONE, REFUSED when the guest does not have it, or LATER. */
  free(pasid: number): number;
  /**
   * The guest was reset: everything it has is given back, and an answer that is still to come is
   * void. The end of the guest is the matter of the space's maker.
   */
  releaseAll(): void;
}

const MOST_BITS = 20;

/**
 * All PASIDs for one guest. PASID 0 is never given out: guests keep it for requests without PASID.
 * A number is used again as late as possible, so that what a guest forgot to invalidate does not
 * meet its next user at once.
 */
export class PrivatePasids implements PasidSpace {
  readonly #count: number;
  readonly #taken: Uint32Array;
  #live = 0;
  #next = 1;

  /** `bits`: width of the PASIDs, 1..20. */
  constructor(bits = MOST_BITS) {
    this.#count = 2 ** bits;
    this.#taken = new Uint32Array(Math.max(1, this.#count >> 5));
    this.releaseAll();
  }

  has(pasid: number): boolean {
    const bit = 1 << (pasid & 31);
    return pasid > 0 && pasid < this.#count && (this.#taken[pasid >> 5] & bit) !== 0;
  }

  allocate(): number {
    if (this.#live === this.#count - 1) return PASID_ANSWER.REFUSED;
    const pasid = this.#firstFree();
    this.#taken[pasid >> 5] |= 1 << (pasid & 31);
    this.#next = (pasid + 1) % this.#count;
    this.#live++;
    return pasid;
  }

  free(pasid: number): number {
    if (!this.has(pasid)) return PASID_ANSWER.REFUSED;
    this.#taken[pasid >> 5] &= ~(1 << (pasid & 31));
    this.#live--;
    return PASID_ANSWER.DONE;
  }

  releaseAll(): void {
    this.#taken.fill(0);
    this.#taken[0] = 1;
    // Fewer than fill a word: the rest of it does not exist.
    if (this.#count < 32) this.#taken[0] |= -1 << this.#count;
    this.#live = 0;
    this.#next = 1;
  }

  /** From `next` on, around; there is one. */
  #firstFree(): number {
    const words = this.#taken.length;
    for (let step = 0, word = this.#next >> 5; step <= words; step++, word = (word + 1) % words) {
      let free = ~this.#taken[word];
      // Below `next` only on the way round.
      if (step === 0) free &= -1 << (this.#next & 31);
      if (free !== 0) return (word << 5) | (31 - Math.clz32(free & -free));
    }
    throw new Error('no PASID is free, though some are');
  }
}
