/**
 * Cache of table entries that configure requesters and interrupts: the context-cache, the
 * PASID-cache and the interrupt entry cache (VT-d §6.2.2, §6.2.3, §6.2.5). An entry is kept until
 * software invalidates it or another one needs its slot, never because memory changed.
 */

/** How long a cache keeps its entries. ARCHITECTURE.md, Models */
export type RetentionPolicy = 'faithful' | 'none' | 'hostile';

/** `find` found nothing. */
export const MISS = -1;

/**
 * Every `HOSTILE_PERIOD`-th find of a hostile cache drops what it finds: software may not count on
 * retention.
 */
const HOSTILE_PERIOD = 7;

export class EntryCache {
  readonly #policy: RetentionPolicy;
  readonly #keyA: Int32Array;
  readonly #keyB: Int32Array;
  readonly #domains: Int32Array;
  readonly #faults: Int32Array;
  readonly #entries: Uint32Array;
  readonly #mask: number;
  readonly #inOrder: boolean;
  #ticks = 0;
  #used = 0;

  /**
   * @param log2Slots log2 of the number of slots
   * @param wordsPerEntry 32-bit words that each entry keeps
   * @param inOrder neighbours by their first key have neighbouring slots, so that none displaces
   *   another
   */
  constructor(
    policy: RetentionPolicy,
    log2Slots: number,
    readonly wordsPerEntry: number,
    inOrder = false,
  ) {
    this.#inOrder = inOrder;
    this.#policy = policy;
    const slots = 1 << log2Slots;
    this.#mask = slots - 1;
    this.#keyA = new Int32Array(slots).fill(MISS);
    this.#keyB = new Int32Array(slots);
    this.#domains = new Int32Array(slots);
    this.#faults = new Int32Array(slots);
    this.#entries = new Uint32Array(slots * wordsPerEntry);
  }

  /** Entries held. */
  get size(): number {
    return this.#used;
  }

  /** Kept words of all slots; a slot's own start at `slot * wordsPerEntry`. */
  get words(): Uint32Array {
    return this.#entries;
  }

  /** Slot of the entry with these keys (`a` ≥ 0), or {@link MISS}. */
  find(a: number, b: number): number {
    const slot = this.#slotOf(a, b);
    if (this.#keyA[slot] !== a || this.#keyB[slot] !== b) return MISS;
    if (this.#policy === 'hostile' && ++this.#ticks % HOSTILE_PERIOD === 0) {
      this.#drop(slot);
      return MISS;
    }
    return slot;
  }

  /** What {@link insert} recorded as the entry's fault reason; 0 = none. */
  faultOf(slot: number): number {
    return this.#faults[slot];
  }

  /**
   * Keeps an entry: the first `wordsPerEntry` words of `source`. `fault` is the reason with which
   * every use of the entry faults (caching mode keeps such entries); 0 when it is usable.
   */
  insert(a: number, b: number, domain: number, fault: number, source: Uint32Array): void {
    if (this.#policy === 'none') return;
    const slot = this.#slotOf(a, b);
    if (this.#keyA[slot] === MISS) this.#used++;
    this.#keyA[slot] = a;
    this.#keyB[slot] = b;
    this.#domains[slot] = domain;
    this.#faults[slot] = fault;
    const base = slot * this.wordsPerEntry;
    for (let index = 0; index < this.wordsPerEntry; index++) this.#entries[base + index] = source[index];
  }

  /** Drops everything. */
  invalidateAll(): void {
    if (this.#used === 0) return;
    this.#keyA.fill(MISS);
    this.#used = 0;
  }

  /** Drops entries of a domain. */
  invalidateDomain(domain: number): void {
    if (this.#used === 0) return;
    for (let slot = 0; slot <= this.#mask; slot++) {
      if (this.#keyA[slot] !== MISS && this.#domains[slot] === domain) this.#drop(slot);
    }
  }

  /**
   * Drops entries of a domain whose second key is `b`, and faulting ones with that key whatever
   * their domain: who has made such an entry usable (caching mode) names the domain that it has
   * now, as Linux does.
   */
  invalidateDomainAndB(domain: number, b: number): void {
    if (this.#used === 0) return;
    for (let slot = 0; slot <= this.#mask; slot++) {
      if (this.#keyA[slot] === MISS || this.#keyB[slot] !== b) continue;
      if (this.#domains[slot] === domain || this.#faults[slot] !== 0) this.#drop(slot);
    }
  }

  /**
   * Drops the entry with these keys if it belongs to `domain`; any domain when that is negative.
   */
  invalidateKey(a: number, b: number, domain: number): void {
    const slot = this.#slotOf(a, b);
    if (this.#keyA[slot] !== a || this.#keyB[slot] !== b) return;
    if (domain < 0 || this.#domains[slot] === domain) this.#drop(slot);
  }

  /** Drops entries whose first key is in the aligned block of 2^log2Count that `a` is in. */
  invalidateBlock(a: number, log2Count: number): void {
    if (this.#used === 0) return;
    const block = a >> log2Count;
    for (let slot = 0; slot <= this.#mask; slot++) {
      if (this.#keyA[slot] !== MISS && this.#keyA[slot] >> log2Count === block) this.#drop(slot);
    }
  }

  #drop(slot: number): void {
    this.#keyA[slot] = MISS;
    this.#used--;
  }

  /** Multiplicative hash of both keys, unless in order; direct-mapped. */
  #slotOf(a: number, b: number): number {
    if (this.#inOrder) return a & this.#mask;
    const mixed = Math.imul(a ^ Math.imul(b, 0x9e3779b1), 0x85ebca6b);
    return (mixed ^ (mixed >>> 15)) & this.#mask;
  }
}
