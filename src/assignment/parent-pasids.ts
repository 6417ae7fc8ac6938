/**
 * The PASID space of one parent device, shared by all guests that use it. A device has a single
 * space (a PASID-granular partition is nothing but a PASID of it), so guests can't choose numbers
 * themselves: they ask, through VT-d's virtual command registers or the SMMUv3's counterpart, and
 * this is who answers.
 *
 * A PASID that was freed is not handed out again before the host's caches are clean of it: it stays
 * in quarantine until `cleaned` says that its invalidation was acknowledged. It counts against its
 * owner's quota until then, so a guest that frees and allocates as fast as it can takes nothing
 * from others.
 *
 * Every call is O(1), whatever is live; releasing an owner is O(1) for each PASID that it has.
 * PASID 0 is never handed out: it stands for requests without PASID (RID_PASID, SubstreamID 0).
 */

/** Why there is no PASID. */
export const NO_PASID_FOR_YOU = {
  /** All PASIDs of the parent are in use. */
  EXHAUSTED: -1,
  /** The owner has as many as it may. */
  QUOTA: -2,
  /** None is free, but some are in quarantine: asking again later can help. */
  NOT_CLEAN_YET: -3,
  /** The owner is gone. */
  GONE: -4,
} as const;

/** What became of a free. */
export const FREED = {
  /** Into quarantine. */
  OK: 0,
  /**
   * Not a PASID of this owner: never handed out, already freed, or another owner's. The three look
   * alike on purpose.
   */
  NOT_YOURS: 1,
} as const;

const STATE = { FREE: 0, LIVE: 1, QUARANTINE: 2, CLEANING: 3 } as const;
/** End of a list. */
const NONE = -1;
const MAX_BITS = 20;

/** One guest (or the host itself) that may have PASIDs. Made by {@link ParentPasids.addOwner}. */
export class PasidOwner {
  /** In use. */
  live = 0;
  /** Freed, not clean yet. */
  dirty = 0;
  gone = false;
  /** First of its live PASIDs. */
  head = NONE;

  constructor(
    readonly name: string,
    readonly quota: number,
    readonly index: number,
  ) {}
}

export class ParentPasids {
  /** PASIDs below this number exist. */
  readonly limit: number;
  readonly #state: Uint8Array;
  readonly #ownerIndex: Int32Array;
  /** Links of the one list that a PASID is in; live ones are linked both ways. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #owners: (PasidOwner | undefined)[] = [];
  /** Lowest PASID that was never handed out. All of these go before any is used again. */
  #fresh = 1;
  #freeHead = NONE;
  #freeTail = NONE;
  #dirtyHead = NONE;
  #dirtyTail = NONE;
  #dirtyCount = 0;
  #cleaningCount = 0;
  #liveCount = 0;

  /** `bits`: width of the parent's PASIDs, 1..20. */
  constructor(bits: number) {
    if (!Number.isInteger(bits) || bits < 1 || bits > MAX_BITS) throw new Error(`PASIDs of ${bits} bits`);
    this.limit = 2 ** bits;
    this.#state = new Uint8Array(this.limit);
    this.#ownerIndex = new Int32Array(this.limit);
    this.#next = new Int32Array(this.limit);
    this.#previous = new Int32Array(this.limit);
  }

  /** PASIDs in use. */
  get live(): number {
    return this.#liveCount;
  }

  /** PASIDs that are freed but not clean, with those being cleaned. */
  get dirty(): number {
    return this.#dirtyCount + this.#cleaningCount;
  }

  /**
   * Owners that have, or may get, PASIDs; those that are gone count until their last PASID is
   * clean.
   */
  get ownerCount(): number {
    return this.#owners.reduce((count, owner) => count + (owner === undefined ? 0 : 1), 0);
  }

  addOwner(name: string, quota: number): PasidOwner {
    const free = this.#owners.indexOf(undefined);
    const owner = new PasidOwner(name, quota, free < 0 ? this.#owners.length : free);
    this.#owners[owner.index] = owner;
    return owner;
  }

  /** A PASID for this owner, or one of {@link NO_PASID_FOR_YOU}. */
  allocate(owner: PasidOwner): number {
    if (owner.gone) return NO_PASID_FOR_YOU.GONE;
    if (owner.live + owner.dirty >= owner.quota) return NO_PASID_FOR_YOU.QUOTA;
    const pasid = this.#take();
    if (pasid === NONE) return this.dirty > 0 ? NO_PASID_FOR_YOU.NOT_CLEAN_YET : NO_PASID_FOR_YOU.EXHAUSTED;
    this.#state[pasid] = STATE.LIVE;
    this.#ownerIndex[pasid] = owner.index;
    this.#next[pasid] = owner.head;
    this.#previous[pasid] = NONE;
    if (owner.head !== NONE) this.#previous[owner.head] = pasid;
    owner.head = pasid;
    owner.live++;
    this.#liveCount++;
    return pasid;
  }

  /** True when the PASID is in use, and this owner's. */
  owns(owner: PasidOwner, pasid: number): boolean {
    return this.#isLive(pasid) && this.#ownerIndex[pasid] === owner.index;
  }

  /** The owner of a PASID that is in use, or undefined. */
  ownerOf(pasid: number): PasidOwner | undefined {
    return this.#isLive(pasid) ? this.#owners[this.#ownerIndex[pasid]] : undefined;
  }

  /** Gives a PASID back, into quarantine. Returns one of {@link FREED}. */
  free(owner: PasidOwner, pasid: number): number {
    if (!this.owns(owner, pasid)) return FREED.NOT_YOURS;
    const next = this.#next;
    const previous = this.#previous;
    const before = previous[pasid];
    const after = next[pasid];
    if (before === NONE) owner.head = after;
    else next[before] = after;
    if (after !== NONE) previous[after] = before;
    owner.live--;
    owner.dirty++;
    this.#liveCount--;
    this.#quarantine(pasid);
    return FREED.OK;
  }

  /**
   * Reset of a guest: everything that it has goes into quarantine; it may ask again. Returns how
   * many these were.
   */
  release(owner: PasidOwner): number {
    const count = owner.live;
    while (owner.head !== NONE) this.free(owner, owner.head);
    return count;
  }

  /**
   * Disconnect of a guest: {@link release}, and it gets nothing more. Forgotten when its last PASID
   * is clean.
   */
  remove(owner: PasidOwner): number {
    const count = this.release(owner);
    owner.gone = true;
    this.#forget(owner);
    return count;
  }

  /**
   * Takes PASIDs out of quarantine, longest there first, to invalidate them: at most `out.length`.
   * Returns how many it put into `out`. Each has to be told {@link cleaned} or {@link notCleaned}
   * later.
   */
  beginCleaning(out: Int32Array): number {
    let count = 0;
    while (count < out.length && this.#dirtyHead !== NONE) {
      const pasid = this.#dirtyHead;
      this.#dirtyHead = this.#next[pasid];
      if (this.#dirtyHead === NONE) this.#dirtyTail = NONE;
      this.#dirtyCount--;
      this.#cleaningCount++;
      this.#state[pasid] = STATE.CLEANING;
      out[count++] = pasid;
    }
    return count;
  }

  /**
   * The host has acknowledged that its caches hold nothing of this PASID: it may be handed out
   * again.
   */
  cleaned(pasid: number): void {
    const owner = this.#endCleaning(pasid);
    owner.dirty--;
    this.#state[pasid] = STATE.FREE;
    this.#next[pasid] = NONE;
    if (this.#freeTail === NONE) this.#freeHead = pasid;
    else this.#next[this.#freeTail] = pasid;
    this.#freeTail = pasid;
    this.#forget(owner);
  }

  /** The invalidation failed: back into quarantine. */
  notCleaned(pasid: number): void {
    this.#endCleaning(pasid);
    this.#quarantine(pasid);
  }

  #endCleaning(pasid: number): PasidOwner {
    const owner = this.#owners[this.#ownerIndex[pasid]];
    if (this.#state[pasid] !== STATE.CLEANING || owner === undefined) {
      throw new Error(`PASID ${pasid} is not being cleaned`);
    }
    this.#cleaningCount--;
    return owner;
  }

  #isLive(pasid: number): boolean {
    return this.#state[pasid] === STATE.LIVE;
  }

  #take(): number {
    if (this.#fresh < this.limit) return this.#fresh++;
    const pasid = this.#freeHead;
    if (pasid === NONE) return NONE;
    this.#freeHead = this.#next[pasid];
    if (this.#freeHead === NONE) this.#freeTail = NONE;
    return pasid;
  }

  #quarantine(pasid: number): void {
    this.#state[pasid] = STATE.QUARANTINE;
    this.#next[pasid] = NONE;
    if (this.#dirtyTail === NONE) this.#dirtyHead = pasid;
    else this.#next[this.#dirtyTail] = pasid;
    this.#dirtyTail = pasid;
    this.#dirtyCount++;
  }

  #forget(owner: PasidOwner): void {
    if (owner.gone && owner.live + owner.dirty === 0) this.#owners[owner.index] = undefined;
  }
}
