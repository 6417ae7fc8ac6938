/** Where a guest's paravirtual PASIDs come from (VT-d's virtual commands, and what SMMUv3 has instead). */

/** Answers of a {@link PasidSpace} that are no PASID. */
export const PASID_ANSWER = {
  DONE: 0,
  /** Nothing to allocate, or not the caller's to free. */
  REFUSED: -1,
  /** {@link Iommu.pasidAnswered} brings it. One question at a time: none is asked meanwhile. */
  LATER: -2,
} as const;

/**
 * The PASIDs that one guest may have. Whoever shares a parent device among guests hands in one that is aware of the
 * others; a model that is given none has a space of its own ({@link PrivatePasids}).
 */
export interface PasidSpace {
  /** A PASID that nobody else has, > 0; or REFUSED, or LATER. */
  allocate(): number;
  /** DONE, REFUSED when the guest does not have it, or LATER. */
  free(pasid: number): number;
  /**
   * The guest was reset: everything it has is given back, and an answer that is still to come is void. The end of the
   * guest is the matter of whoever made the space.
   */
  releaseAll(): void;
}

const PASIDS = 1 << 20;
const WORDS = PASIDS >> 5;

/**
 * All 20 bits for one guest. PASID 0 is never given out: guests keep it for requests without PASID. A number is used
 * again as late as possible, so that what a guest forgot to invalidate does not meet its next user at once.
 */
export class PrivatePasids implements PasidSpace {
  private readonly taken = new Uint32Array(WORDS);
  private live = 0;
  private next = 1;

  constructor() {
    this.releaseAll();
  }

  allocate(): number {
    if (this.live === PASIDS - 1) return PASID_ANSWER.REFUSED;
    const pasid = this.firstFree();
    this.taken[pasid >> 5] |= 1 << (pasid & 31);
    this.next = (pasid + 1) % PASIDS;
    this.live++;
    return pasid;
  }

  free(pasid: number): number {
    const bit = 1 << (pasid & 31);
    if (pasid <= 0 || pasid >= PASIDS || (this.taken[pasid >> 5] & bit) === 0) return PASID_ANSWER.REFUSED;
    this.taken[pasid >> 5] &= ~bit;
    this.live--;
    return PASID_ANSWER.DONE;
  }

  releaseAll(): void {
    this.taken.fill(0);
    this.taken[0] = 1;
    this.live = 0;
    this.next = 1;
  }

  /** From `next` on, around; there is one. */
  private firstFree(): number {
    for (let step = 0, word = this.next >> 5; step <= WORDS; step++, word = (word + 1) % WORDS) {
      let free = ~this.taken[word];
      // Below `next` only on the way round.
      if (step === 0) free &= -1 << (this.next & 31);
      if (free !== 0) return (word << 5) | (31 - Math.clz32(free & -free));
    }
    throw new Error('no PASID is free, though some are');
  }
}
