/**
 * Valid translations around the one that was asked for, so that the miss of a large DMA costs one
 * round trip instead of one per page: entries of the same leaf table, with contiguous ones joined
 * into larger aligned spans. Nothing here sets an Accessed or Dirty bit, so a span only promises
 * what those bits already allow.
 */

import { belowHi, belowLo, highHalf, join, lowHalf } from '../base/u64.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { type FormatLevel, type PageTableFormat, RIGHT } from '../spec/pagetable/format.js';
import { both, type StageTwo } from './nested.js';
import { WALK, WalkResult } from './types.js';
import { cachable, rightsOf, walk } from './walk.js';

/**
 * Words of one span: input low and high, output low and high, log2 of the size, {@link RIGHT} bits.
 */
const SPAN_WORDS = 6;
/** Most units looked at in each direction; a unit is the size of the block that was asked for. */
const REACH = 64;
const REACH_LOG2 = 6;
/**
 * So many unusable entries in a row end the search: a buffer is one run, and a lone page should not
 * cost 64 loads.
 */
const MOST_GAP = 4;
const ASKED = RIGHT.READ | RIGHT.WRITE | RIGHT.EXECUTE;

/**
 * Finds neighbours. One object is reused for every request; its arrays are scratch. Loads at most 2
 * × 64 entries (nested: and one stage-2 walk for each that lies in another stage-2 block).
 */
export class Neighbours {
  /**
   * Output and rights of the unit at distance k from the asked one, at index k + REACH. Rights 0:
   * not usable.
   */
  readonly #outLo = new Int32Array(2 * REACH + 1);
  readonly #outHi = new Int32Array(2 * REACH + 1);
  readonly #rights = new Uint8Array(2 * REACH + 1);
  readonly #second = new WalkResult();
  /** Last distance gathered. */
  #end = 0;
  /** Low 32 bits of the asked unit's number; log2 of a unit's size. */
  #unit = 0;
  #log2 = 0;
  #spans: Uint32Array = new Uint32Array(0);
  #count = 0;
  #inLo = 0;
  #inHi = 0;
  readonly #alike: number;

  /**
   * @param alike bits of a (first stage's) leaf's low half that a neighbour must have as the asked
   * one has them
   */
  constructor(alike = 0) {
    this.#alike = alike;
  }

  /**
   * After `walk(format, memory, …, lo, hi, access, result)` returned OK: fills `spans` with the
   * span that covers `lo:hi` first, then those that follow it in its leaf table, at most `maxSpans`
   * (≥ 1); returns their number. Every span allows `access`. With access 0 there is one span, the
   * walked block, with the rights as mapped: an answer for people and replay, not for caches.
   */
  collect(
    format: PageTableFormat,
    memory: GuestMemory,
    lo: number,
    hi: number,
    access: number,
    result: WalkResult,
    spans: Uint32Array,
    maxSpans: number,
  ): number {
    if (!this.#start(lo, hi, access, result, spans)) return this.#single(result);
    const at = levelOf(format, result.level);
    const index = indexIn(at, lo, hi);
    this.#end = Math.min(REACH, at.indexMask - index);
    for (let k = 1, gap = 0; k <= this.#end; k++) {
      this.#gather(format, memory, at, result, result.entryAddress + k * 8, k, access);
      gap = this.#rights[k + REACH] === 0 ? gap + 1 : 0;
      if (gap === MOST_GAP) this.#end = k;
    }
    // Backwards only as far as the largest block around the asked unit could begin.
    const limit = Math.min(index, this.#unit & (this.#largest() - 1));
    let first = 0;
    while (-first < limit) {
      this.#gather(format, memory, at, result, result.entryAddress + (first - 1) * 8, first - 1, access);
      if (!this.#contiguous(first - 1)) break;
      first--;
    }
    return this.#emit(first, maxSpans);
  }

  /**
   * The same after `walkNested(format1, …, stage2, format2, root2, lo, hi, access, result)`
   * returned OK. Units are the smaller of the two stages' blocks; only forward.
   */
  collectNested(
    format1: PageTableFormat,
    stage2: StageTwo,
    format2: PageTableFormat,
    root2: number,
    lo: number,
    hi: number,
    access: number,
    result: WalkResult,
    spans: Uint32Array,
    maxSpans: number,
  ): number {
    if (!this.#start(lo, hi, access, result, spans)) return this.#single(result);
    stage2.use(format2, root2, true);
    const at = levelOf(format1, result.level);
    const perEntry = at.shift - this.#log2;
    const index = indexIn(at, lo, hi);
    const within = this.#unit & ((1 << perEntry) - 1);
    this.#end = Math.min(REACH, (at.indexMask - index + 1) * 2 ** perEntry - 1 - within);
    let entryOffset = 0;
    // Stage-1 block that the loop stands in, and the rights its entry leaves.
    let baseLo = result.entryLo & at.leafAddressLo;
    let baseHi = leafHi(format1, at, result.entryLo, result.entryHi);
    let rights = this.#entryRights(format1, at, result, result.entryLo, result.entryHi, access);
    this.#second.log2Size = 0;
    for (let k = 1; k <= this.#end; k++) {
      const unit = within + k;
      const offset = unit >> perEntry;
      if (offset !== entryOffset) {
        entryOffset = offset;
        if (!stage2.load64(result.entryAddress + offset * 8)) {
          this.#end = k - 1;
          break;
        }
        baseLo = stage2.lo & at.leafAddressLo;
        baseHi = leafHi(format1, at, stage2.lo, stage2.hi);
        rights = this.#entryRights(format1, at, result, stage2.lo, stage2.hi, access);
      }
      this.#rights[k + REACH] = 0;
      if (rights === 0) continue;
      const ipa = join(baseLo, baseHi) + (unit & ((1 << perEntry) - 1)) * 2 ** this.#log2;
      this.#throughSecond(format2, stage2.memory, root2, ipa, rights, k, access);
    }
    return this.#emit(0, maxSpans);
  }

  /** Takes the asked unit in. False when there is nothing more to look for. */
  #start(lo: number, hi: number, access: number, result: WalkResult, spans: Uint32Array): boolean {
    const log2 = result.log2Size;
    this.#log2 = log2;
    this.#unit = log2 < 32 ? (lo >>> log2) | (log2 > 0 ? hi << (32 - log2) : 0) : hi >>> (log2 - 32);
    this.#inLo = lo & ~belowLo(log2);
    this.#inHi = hi & ~belowHi(log2);
    this.#spans = spans;
    this.#count = 0;
    this.#outLo[REACH] = result.outLo;
    this.#outHi[REACH] = result.outHi;
    this.#rights[REACH] = result.cachable;
    return (access & ASKED) !== 0;
  }

  /** Just the walked block. */
  #single(result: WalkResult): number {
    this.#rights[REACH] = result.permissions;
    this.#put(0, 0);
    return this.#count;
  }

  /** Reads the entry at distance k into the scratch arrays. */
  #gather(
    format: PageTableFormat,
    memory: GuestMemory,
    at: FormatLevel,
    result: WalkResult,
    address: number,
    k: number,
    access: number,
  ): void {
    const slot = k + REACH;
    this.#rights[slot] = 0;
    if (!memory.load64(address)) return;
    const lo = memory.lo;
    const hi = memory.hi;
    this.#rights[slot] = this.#entryRights(format, at, result, lo, hi, access);
    this.#outLo[slot] = lo & at.leafAddressLo;
    this.#outHi[slot] = leafHi(format, at, lo, hi);
  }

  /**
   * Rights that a leaf entry beside the asked one can be cached with; 0 when it is not one that
   * allows `access`.
   */
  #entryRights(
    format: PageTableFormat,
    at: FormatLevel,
    result: WalkResult,
    lo: number,
    hi: number,
    access: number,
  ): number {
    if ((lo & format.presentMask) === 0 || (lo & at.leafMask) !== at.leafValue) return 0;
    if (((lo ^ result.entryLo) & this.#alike) !== 0) return 0;
    if ((((lo ^ at.flip) & at.leafReservedLo) | (hi & at.leafReservedHi)) !== 0) return 0;
    const rights = rightsOf(format, result.aboveLo & lo, hi, result.aboveHi, access);
    const kept = cachable(format, result.aboveLo, lo, rights);
    return (access & ASKED & ~kept) === 0 ? kept : 0;
  }

  /** Nested: puts an intermediate address through stage 2 and keeps it as distance k. */
  #throughSecond(
    format2: PageTableFormat,
    memory: GuestMemory,
    root2: number,
    ipa: number,
    rights: number,
    k: number,
    access: number,
  ): void {
    const log2 = this.#log2;
    const ipaLo = lowHalf(ipa) | 0;
    const ipaHi = highHalf(ipa) | 0;
    const second = this.#second;
    const size = second.log2Size;
    const known =
      size !== 0 &&
      ((ipaLo ^ second.ipaLo) & ~belowLo(size)) === 0 &&
      ((ipaHi ^ second.ipaHi) & ~belowHi(size)) === 0;
    if (!known) {
      second.log2Size = 0;
      if (walk(format2, memory, root2, ipaLo, ipaHi, access & RIGHT.PRIVILEGED, second) !== WALK.OK) {
        second.log2Size = 0;
        return;
      }
      second.ipaLo = ipaLo;
      second.ipaHi = ipaHi;
    }
    // A smaller stage-2 block here would need smaller units.
    if (second.log2Size < log2) return;
    const kept = both(format2, rights, second.cachable);
    if ((access & ASKED & ~kept) !== 0) return;
    const slot = k + REACH;
    this.#rights[slot] = kept;
    this.#outLo[slot] = second.outLo | (ipaLo & belowLo(second.log2Size) & ~belowLo(log2));
    this.#outHi[slot] = second.outHi | (ipaHi & belowHi(second.log2Size) & ~belowHi(log2));
  }

  /**
   * Units of the largest block that the asked one can be in: 2^n where n low bits of input and
   * output agree.
   */
  #largest(): number {
    const differ = this.#outUnit(0) ^ this.#unit;
    const lowest = differ & -differ;
    return lowest === 0 || lowest > REACH || lowest < 0 ? REACH : lowest;
  }

  /** Low bits of the number of the output unit at distance k. */
  #outUnit(k: number): number {
    const log2 = this.#log2;
    const slot = k + REACH;
    return log2 < 32
      ? (this.#outLo[slot] >>> log2) | (this.#outHi[slot] << (32 - log2))
      : this.#outHi[slot] >>> (log2 - 32);
  }

  /**
   * Whether the unit at distance k and the next one are one contiguous range with the same rights.
   */
  #contiguous(k: number): boolean {
    const slot = k + REACH;
    const log2 = this.#log2;
    if (this.#rights[slot] === 0 || this.#rights[slot] !== this.#rights[slot + 1]) return false;
    const lo = this.#outLo[slot];
    const hi = this.#outHi[slot];
    const nextLo = log2 < 32 ? (lo + (1 << log2)) | 0 : lo;
    const carry = log2 < 32 && nextLo >>> 0 < lo >>> 0 ? 1 : 0;
    const nextHi = (hi + (log2 < 32 ? carry : 1 << (log2 - 32))) | 0;
    return nextLo === this.#outLo[slot + 1] && nextHi === this.#outHi[slot + 1];
  }

  /** Joins what was gathered into spans. `first` ≤ 0 is where the run of the asked unit begins. */
  #emit(first: number, maxSpans: number): number {
    let last = 0;
    while (last < this.#end && this.#contiguous(last)) last++;
    let log2 = 0;
    let begin = 0;
    for (let grown = 1; grown <= REACH_LOG2; grown++) {
      const start = -(this.#unit & ((1 << grown) - 1));
      if (start < first || start + (1 << grown) - 1 > last || !this.#aligned(0, grown)) break;
      log2 = grown;
      begin = start;
    }
    this.#put(begin, log2);
    let k = begin + (1 << log2);
    while (k <= this.#end && this.#count < maxSpans) {
      if (this.#rights[k + REACH] === 0) {
        k++;
        continue;
      }
      if (k > last) for (last = k; last < this.#end && this.#contiguous(last); last++);
      let size = 0;
      while (
        size < REACH_LOG2 &&
        ((this.#unit + k) & ((2 << size) - 1)) === 0 &&
        k + (2 << size) - 1 <= last &&
        this.#aligned(k, size + 1)
      )
        size++;
      this.#put(k, size);
      k += 1 << size;
    }
    return this.#count;
  }

  /** Whether input and output agree in their position within a block of 2^log2 units. */
  #aligned(k: number, log2: number): boolean {
    return ((this.#outUnit(k) ^ (this.#unit + k)) & ((1 << log2) - 1)) === 0;
  }

  /** Appends the span of 2^log2 units at distance k. */
  #put(k: number, log2: number): void {
    const spans = this.#spans;
    const at = this.#count++ * SPAN_WORDS;
    const unit = this.#log2;
    const slot = k + REACH;
    // The distance in bytes, as halves; it may be negative.
    const distance = unit < 31 ? k * (1 << unit) : k * 2 ** unit;
    const start = (this.#inLo >>> 0) + distance;
    const carry = Math.floor(start / 2 ** 32);
    spans[at] = start - carry * 2 ** 32;
    spans[at + 1] = (this.#inHi + carry) | 0;
    spans[at + 2] = this.#outLo[slot];
    spans[at + 3] = this.#outHi[slot];
    spans[at + 4] = unit + log2;
    spans[at + 5] = this.#rights[slot];
  }
}

/** High half of the address in a leaf. */
function leafHi(format: PageTableFormat, at: FormatLevel, lo: number, hi: number): number {
  return (hi & at.leafAddressHi) | ((lo & format.splitLo) << format.splitShift);
}

/** The record of a level by number. */
export function levelOf(format: PageTableFormat, level: number): FormatLevel {
  let at: FormatLevel = format.root;
  while (at.level > level && at.next !== undefined) at = at.next;
  return at;
}

/** Index of an input address in the tables of a level. */
export function indexIn(at: FormatLevel, lo: number, hi: number): number {
  const shift = at.shift;
  return (shift < 32 ? (lo >>> shift) | (hi << (32 - shift)) : hi >>> shift) & at.indexMask;
}
