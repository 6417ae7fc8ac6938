/**
 * The model's IOTLB (VT-d §6.2.4): set-associative, typed arrays only. Lookups are tagged by
 * requester, PASID and address; invalidations by domain, tag, stage and address (§6.2.1, Tables 23
 * and 24).
 *
 * A set is chosen by address alone, so that an invalidation of a few pages looks at a few sets,
 * no matter which requester has the entries.
 */
import { PAGE_LOG2 } from '../base/page.js';
import type { RetentionPolicy } from './entry-cache.js';
import { MISS } from './entry-cache.js';

/** What an entry's mapping came from. §6.2.4 */
export const STAGE = {
  /**
   * Legacy, second-stage or pass-through: address-selective IOTLB invalidations look at the
   * address.
   */
  SECOND: 0,
  /**
   * First-stage or nested: any IOTLB invalidation of the domain hits; P_IOTLB ones look at the
   * address.
   */
  FIRST: 1,
} as const;

const WAYS = 4;
const WAYS_LOG2 = 2;
/** Page sizes are 2^(12 + 9 × class). */
const CLASSES = 5;
/** Constant to the compiler, which what a module imports is not. */
const LEAST_LOG2 = PAGE_LOG2;
/**
 * Above this many pages a page-selective invalidation looks at every entry instead of probing sets.
 */
const PROBE_LIMIT = 64;
/** Every so many lookups a hostile IOTLB drops what it found. */
const HOSTILE_PERIOD = 13;
const EMPTY = -1;
/** Matches first-stage entries of every tag. */
const ANY_TAG = -2;

/** log2 of the page size of a class. */
function log2Of(sizeClass: number): number {
  return LEAST_LOG2 + 9 * sizeClass;
}

/** Size class of a page of 2^log2 bytes; smaller or odd sizes round down. */
function classOf(log2Size: number): number {
  return Math.min(CLASSES - 1, Math.max(0, Math.floor((log2Size - LEAST_LOG2) / 9)));
}

export class Iotlb {
  readonly #policy: RetentionPolicy;
  readonly #rids: Int32Array;
  readonly #pasids: Int32Array;
  readonly #classes: Uint8Array;
  readonly #pageLo: Int32Array;
  readonly #pageHi: Int32Array;
  readonly #domains: Int32Array;
  readonly #tags: Int32Array;
  readonly #stages: Uint8Array;
  /** log2 of the block that the tables map, where an entry holds only a part of it. */
  readonly #origins: Uint8Array;
  readonly #next: Uint8Array;
  /** Entries that hold a part of a larger block. */
  #fragments = 0;
  readonly #live = new Int32Array(CLASSES);
  /** Entries of each domain, and those of them that are first-stage or nested. */
  readonly #entriesOf = new Int32Array(0x10000);
  readonly #firstStageOf = new Int32Array(0x10000);
  readonly #setMask: number;
  #ticks = 0;

  /** Of the slot that {@link lookup} returned, indexed by it. */
  readonly outLo: Int32Array;
  readonly outHi: Int32Array;
  /** ACCESS bits that the mapping allows. */
  readonly permissions: Uint8Array;
  /**
   * ACCESS bits that can be answered without another walk (Dirty already set where that matters).
   */
  readonly cachable: Uint8Array;
  /** Fault reason of a cached fault, 0 of a mapping. */
  readonly faults: Uint8Array;

  constructor(policy: RetentionPolicy, log2Entries = policy === 'hostile' ? 14 : 12) {
    this.#policy = policy;
    const entries = 1 << log2Entries;
    this.#setMask = (entries >> WAYS_LOG2) - 1;
    this.#rids = new Int32Array(entries).fill(EMPTY);
    this.#pasids = new Int32Array(entries);
    this.#classes = new Uint8Array(entries);
    this.#pageLo = new Int32Array(entries);
    this.#pageHi = new Int32Array(entries);
    this.#domains = new Int32Array(entries);
    this.#tags = new Int32Array(entries);
    this.#stages = new Uint8Array(entries);
    this.#origins = new Uint8Array(entries);
    this.#next = new Uint8Array(entries >> WAYS_LOG2);
    this.outLo = new Int32Array(entries);
    this.outHi = new Int32Array(entries);
    this.permissions = new Uint8Array(entries);
    this.cachable = new Uint8Array(entries);
    this.faults = new Uint8Array(entries);
  }

  /** Entries held. */
  get size(): number {
    let sum = 0;
    for (let index = 0; index < CLASSES; index++) sum += this.#live[index];
    return sum;
  }

  /** log2 of the page size of a slot. */
  log2SizeOf(slot: number): number {
    return log2Of(this.#classes[slot]);
  }

  /**
   * log2 of the block that the tables map around a slot's page: an invalidation of any address in
   * it hits.
   */
  blockLog2Of(slot: number): number {
    return Math.max(this.log2SizeOf(slot), this.#origins[slot]);
  }

  /** Domain of a slot. */
  domainOf(slot: number): number {
    return this.#domains[slot];
  }

  /** {@link STAGE} of a slot. */
  stageOf(slot: number): number {
    return this.#stages[slot];
  }

  /** Second tag (PASID) of a slot, unsigned. */
  tagOf(slot: number): number {
    return this.#tags[slot] >>> 0;
  }

  /** Slot that translates this address for this requester and PASID (−1 = none), or MISS. */
  lookup(rid: number, pasid: number, lo: number, hi: number): number {
    for (let sizeClass = 0; sizeClass < CLASSES; sizeClass++) {
      if (this.#live[sizeClass] === 0) continue;
      const pageLo = maskLo(lo, sizeClass);
      const pageHi = maskHi(hi, sizeClass);
      const base = this.#setOf(pageLo, pageHi, sizeClass) << WAYS_LOG2;
      for (let slot = base; slot < base + WAYS; slot++) {
        if (
          this.#rids[slot] === rid &&
          this.#pageLo[slot] === pageLo &&
          this.#pageHi[slot] === pageHi &&
          this.#pasids[slot] === pasid &&
          this.#classes[slot] === sizeClass
        ) {
          return this.#found(slot);
        }
      }
    }
    return MISS;
  }

  #found(slot: number): number {
    if (this.#policy === 'hostile' && ++this.#ticks % HOSTILE_PERIOD === 0) {
      this.#drop(slot);
      return MISS;
    }
    return slot;
  }

  /**
   * Keeps a translation of the page of 2^log2Size bytes (12, 21, 30, …) around `lo:hi`, or with
   * `fault` ≠ 0 the fact that it faults. `tag` is what PASID-selective invalidations match. An
   * entry may be a part of a block of 2^originLog2 bytes: an invalidation of any address in the
   * block hits it.
   */
  insert(
    rid: number,
    pasid: number,
    lo: number,
    hi: number,
    log2Size: number,
    outLo: number,
    outHi: number,
    permissions: number,
    cachable: number,
    domain: number,
    tag: number,
    stage: number,
    fault: number,
    originLog2 = 0,
  ): void {
    if (this.#policy === 'none') return;
    const sizeClass = classOf(log2Size);
    const pageLo = maskLo(lo, sizeClass);
    const pageHi = maskHi(hi, sizeClass);
    const slot = this.#slotFor(rid, pasid, pageLo, pageHi, sizeClass);
    if (this.#rids[slot] !== EMPTY) this.#drop(slot);
    this.#rids[slot] = rid;
    this.#pasids[slot] = pasid;
    this.#classes[slot] = sizeClass;
    this.#pageLo[slot] = pageLo;
    this.#pageHi[slot] = pageHi;
    this.outLo[slot] = outLo;
    this.outHi[slot] = outHi;
    this.permissions[slot] = permissions;
    this.cachable[slot] = cachable;
    this.#domains[slot] = domain;
    this.#tags[slot] = tag | 0;
    this.#stages[slot] = stage;
    this.faults[slot] = fault;
    this.#origins[slot] = originLog2;
    if (originLog2 > log2Of(sizeClass)) this.#fragments++;
    this.#live[sizeClass]++;
    this.#entriesOf[domain]++;
    if (stage === STAGE.FIRST) this.#firstStageOf[domain]++;
  }

  /** The slot of the same page, an empty one, or the next victim of the set. */
  #slotFor(rid: number, pasid: number, pageLo: number, pageHi: number, sizeClass: number): number {
    const set = this.#setOf(pageLo, pageHi, sizeClass);
    const base = set << WAYS_LOG2;
    let empty = MISS;
    for (let slot = base; slot < base + WAYS; slot++) {
      if (this.#rids[slot] === EMPTY) {
        empty = slot;
      } else if (
        this.#rids[slot] === rid &&
        this.#pageLo[slot] === pageLo &&
        this.#pageHi[slot] === pageHi &&
        this.#pasids[slot] === pasid &&
        this.#classes[slot] === sizeClass
      ) {
        return slot;
      }
    }
    if (empty !== MISS) return empty;
    const way = this.#next[set];
    this.#next[set] = (way + 1) & (WAYS - 1);
    return base + way;
  }

  /** Global invalidation. */
  invalidateAll(): void {
    if (this.size === 0) return;
    for (let slot = 0; slot < this.#rids.length; slot++) this.#drop(slot);
  }

  /** Domain-selective invalidation. */
  invalidateDomain(domain: number): void {
    if (this.#entriesOf[domain] === 0) return;
    for (let slot = 0; slot < this.#rids.length; slot++) {
      if (this.#domains[slot] === domain) this.#drop(slot);
    }
  }

  /** PASID-selective invalidation within a domain, whatever the stage. §6.5.2.4 */
  invalidateTag(domain: number, tag: number): void {
    if (this.#entriesOf[domain] === 0) return;
    const wanted = tag | 0;
    for (let slot = 0; slot < this.#rids.length; slot++) {
      if (this.#tags[slot] === wanted && this.#domains[slot] === domain) this.#drop(slot);
    }
  }

  /** First-stage and nested entries of a domain, whatever their tag and address. */
  invalidateFirstStage(domain: number): void {
    if (this.#firstStageOf[domain] === 0) return;
    for (let slot = 0; slot < this.#rids.length; slot++) {
      if (this.#domains[slot] === domain && this.#stages[slot] === STAGE.FIRST) this.#drop(slot);
    }
  }

  /** The same within 2^addressMask pages. */
  invalidateFirstStagePages(domain: number, lo: number, hi: number, addressMask: number): void {
    if (this.#firstStageOf[domain] === 0) return;
    this.#invalidateRange(domain, ANY_TAG, lo, hi, addressMask);
  }

  /** Second-stage entries of a domain within 2^addressMask pages; others stay. */
  invalidateSecondStagePages(domain: number, lo: number, hi: number, addressMask: number): void {
    if (this.#entriesOf[domain] === 0) return;
    this.#invalidateRange(domain, MISS, lo, hi, addressMask);
  }

  /**
   * Page-selective-within-domain invalidation of 2^addressMask pages around the address:
   * second-stage entries there, and every first-stage or nested entry of the domain (§6.5.2.3).
   */
  invalidatePages(domain: number, lo: number, hi: number, addressMask: number): void {
    if (this.#entriesOf[domain] === 0) return;
    if (this.#firstStageOf[domain] !== 0) {
      for (let slot = 0; slot < this.#rids.length; slot++) {
        if (this.#domains[slot] === domain && this.#stages[slot] === STAGE.FIRST) this.#drop(slot);
      }
    }
    this.#invalidateRange(domain, MISS, lo, hi, addressMask);
  }

  /** Page-selective-within-PASID invalidation: first-stage and nested entries only. §6.5.2.4 */
  invalidateTaggedPages(domain: number, tag: number, lo: number, hi: number, addressMask: number): void {
    if (this.#firstStageOf[domain] === 0) return;
    this.#invalidateRange(domain, tag, lo, hi, addressMask);
  }

  #invalidateRange(domain: number, tag: number, lo: number, hi: number, addressMask: number): void {
    const log2Size = LEAST_LOG2 + addressMask;
    for (let sizeClass = 0; sizeClass < CLASSES; sizeClass++) {
      if (this.#live[sizeClass] === 0) continue;
      const classLog2 = log2Of(sizeClass);
      const blocks = log2Size <= classLog2 ? 1 : 2 ** (log2Size - classLog2);
      if (blocks > PROBE_LIMIT || this.#fragments > 0) {
        this.#scanRange(domain, tag, sizeClass, lo, hi, log2Size);
      } else {
        this.#probeRange(domain, tag, sizeClass, lo, hi, log2Size, blocks);
      }
    }
  }

  #probeRange(
    domain: number,
    tag: number,
    sizeClass: number,
    lo: number,
    hi: number,
    log2Size: number,
    blocks: number,
  ): void {
    const firstLo = blockLo(lo, log2Size);
    const pageHi = maskHi(blockHi(hi, log2Size), sizeClass);
    for (let block = 0; block < blocks; block++) {
      // At most 64 blocks that are aligned to their whole: the high half never carries (or one
      // block is left).
      const step = log2Of(sizeClass);
      const pageLo = maskLo(step >= 32 ? firstLo : firstLo + block * 2 ** step, sizeClass);
      const upper =
        step >= 32 ? (pageHi + block * 2 ** (step - 32)) | 0 : carried(firstLo, block, step, pageHi);
      const base = this.#setOf(pageLo, upper, sizeClass) << WAYS_LOG2;
      for (let slot = base; slot < base + WAYS; slot++) {
        if (
          this.#rids[slot] !== EMPTY &&
          this.#classes[slot] === sizeClass &&
          this.#pageLo[slot] === pageLo &&
          this.#pageHi[slot] === upper &&
          this.#matches(slot, domain, tag)
        ) {
          this.#drop(slot);
        }
      }
    }
  }

  #scanRange(domain: number, tag: number, sizeClass: number, lo: number, hi: number, log2Size: number): void {
    const least = Math.max(log2Size, log2Of(sizeClass));
    for (let slot = 0; slot < this.#rids.length; slot++) {
      if (this.#classes[slot] !== sizeClass || !this.#matches(slot, domain, tag)) continue;
      const size = Math.max(least, this.#origins[slot]);
      if (
        blockLo(this.#pageLo[slot], size) === blockLo(lo, size) &&
        blockHi(this.#pageHi[slot], size) === blockHi(hi, size)
      ) {
        this.#drop(slot);
      }
    }
  }

  #matches(slot: number, domain: number, tag: number): boolean {
    if (this.#domains[slot] !== domain) return false;
    if (tag === MISS) return this.#stages[slot] === STAGE.SECOND;
    if (this.#stages[slot] !== STAGE.FIRST) return false;
    return tag === ANY_TAG || this.#tags[slot] === (tag | 0);
  }

  #drop(slot: number): void {
    if (this.#rids[slot] === EMPTY) return;
    this.#rids[slot] = EMPTY;
    if (this.#origins[slot] > log2Of(this.#classes[slot])) this.#fragments--;
    this.#live[this.#classes[slot]]--;
    this.#entriesOf[this.#domains[slot]]--;
    if (this.#stages[slot] === STAGE.FIRST) this.#firstStageOf[this.#domains[slot]]--;
  }

  #setOf(pageLo: number, pageHi: number, sizeClass: number): number {
    const page = (pageLo >>> LEAST_LOG2) ^ Math.imul(pageHi, 0x9e3779b1) ^ Math.imul(sizeClass, 0x27d4eb2f);
    // Pages of larger classes differ in high bits only: fold those down before masking.
    const mixed = sizeClass === 0 ? page : page ^ (page >>> 9) ^ (page >>> 18);
    return (mixed ^ (mixed >>> 14)) & this.#setMask;
  }
}

/** Low half of the start of the page of a size class. */
function maskLo(lo: number, sizeClass: number): number {
  return blockLo(lo, log2Of(sizeClass));
}

/** High half of the start of the page of a size class. */
function maskHi(hi: number, sizeClass: number): number {
  return blockHi(hi, log2Of(sizeClass));
}

/** Low half (signed) of the start of the aligned block of 2^log2Size bytes. */
function blockLo(lo: number, log2Size: number): number {
  return log2Size >= 32 ? 0 : lo & (-1 << log2Size);
}

/** High half (signed) of the start of the aligned block of 2^log2Size bytes. */
function blockHi(hi: number, log2Size: number): number {
  return log2Size <= 32 ? hi | 0 : log2Size >= 64 ? 0 : hi & (-1 << (log2Size - 32));
}

/** High half of `firstLo + block × 2^step`, where that crosses 4 GiB. */
function carried(firstLo: number, block: number, step: number, hi: number): number {
  return (hi + Math.floor(((firstLo >>> 0) + block * 2 ** step) / 2 ** 32)) | 0;
}
