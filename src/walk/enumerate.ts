/**
 * All translations of an address space within a range, ascending: for replay, dumps and shadowing.
 * A cursor holds its place, visits a bounded number of entries per call and allocates nothing per
 * leaf, so a table that refers to itself only ever costs what the caller chose to spend.
 */

import { belowHi, belowLo, compare, join, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { FormatLevel, PageTableFormat } from '../spec/pagetable/format.js';
import { indexIn, levelOf } from './neighbours.js';
import { both, type StageTwo } from './nested.js';
import { WALK } from './types.js';
import { cachable, flawOf, rightsOf, walk } from './walk.js';

/** What {@link LeafCursor.next} stopped at. */
export const ENUMERATE = {
  /** At a translation: the cursor's fields describe it. */
  LEAF: 0,
  /** The range is done. */
  END: 1,
  /** The budget is used up: call again, or start anew later from {@link LeafCursor.nextLo}. */
  PAUSED: 2,
} as const;

const MAX_LEVELS = 8;
/** Unused until {@link LeafCursor.start}. */
const NO_LEVELS: readonly FormatLevel[] = [];

/**
 * Enumerates leaves. Entries that are not present or malformed, and tables outside of RAM, are
 * skipped (and counted in {@link malformed}). Sets no Accessed or Dirty bit; rights are those of an
 * unprivileged request.
 *
 * A paused cursor remembers table addresses: after the guest may have changed its tables, `start`
 * again.
 */
export class LeafCursor {
  /**
   * The translation found: input (canonical) and output address of its start, log2 of its size,
   * RIGHT bits.
   */
  inLo = 0;
  inHi = 0;
  outLo = 0;
  outHi = 0;
  log2Size = 0;
  permissions = 0;
  /** Level and value of the (stage-1) leaf entry. */
  level = 0;
  entryLo = 0;
  entryHi = 0;
  /** Entries read since `start`, and how many of them were unreadable or had reserved bits set. */
  visited = 0;
  malformed = 0;

  #format: PageTableFormat | undefined;
  #memory: GuestMemory | undefined;
  readonly #second: StageTwo | undefined;
  readonly #updates: boolean;
  #format2: PageTableFormat | undefined;
  #root2: PhysicalAddress = 0;
  #levels: readonly FormatLevel[] = NO_LEVELS;
  readonly #tables = new Float64Array(MAX_LEVELS);
  readonly #gatheredLo = new Int32Array(MAX_LEVELS);
  readonly #gatheredHi = new Int32Array(MAX_LEVELS);
  #at = 0;
  /** Position and end in the input space, without sign extension. */
  #posLo = 0;
  #posHi = 0;
  #lastLo = 0;
  #lastHi = 0;
  #done = true;
  /** Nested: inside a stage-1 leaf, whose pieces are being looked up. */
  #inLeaf = false;
  /** Address in the leaf found last, and the rights that the stage-1 entries leave to it. */
  #leafLo = 0;
  #leafHi = 0;
  #rights = 0;

  /**
   * @param stage2 for {@link startNested} only. It belongs to the cursor from a start to its end.
   * @param updates false: an entry whose Accessed or Dirty bit would have to be set does not
   * count; `stage2` then sets none either, as its memory cannot be written.
   */
  constructor(stage2?: StageTwo, updates = true) {
    this.#second = stage2;
    this.#updates = updates;
  }

  /**
   * Aims at the leaves that touch `[first, last]` (unsigned 64-bit, both included). The first may
   * begin before `first`.
   */
  start(
    format: PageTableFormat,
    memory: GuestMemory,
    root: PhysicalAddress,
    firstLo: number,
    firstHi: number,
    lastLo: number,
    lastHi: number,
  ): void {
    this.#format2 = undefined;
    this.#begin(format, memory, root, firstLo, firstHi, lastLo, lastHi);
  }

  /** The same through two stages: each translation is as large as the smaller of its two blocks. */
  startNested(
    format1: PageTableFormat,
    root1: PhysicalAddress,
    format2: PageTableFormat,
    root2: PhysicalAddress,
    firstLo: number,
    firstHi: number,
    lastLo: number,
    lastHi: number,
  ): void {
    const second = this.#second;
    if (second === undefined) throw new Error('this cursor was made without a second stage');
    this.#format2 = format2;
    this.#root2 = root2;
    this.#aim(second, format2, root2);
    this.#begin(format1, second, root1, firstLo, firstHi, lastLo, lastHi);
  }

  /**
   * Where an enumeration that goes on later has to start: the first input address not yet looked
   * at.
   */
  get nextLo(): number {
    return this.#canonicalLo(this.#posLo);
  }
  get nextHi(): number {
    return this.#canonicalHi(this.#posHi);
  }

  /**
   * Goes to the next translation, visiting at most `budget` entries (nested: stage-1 entries and
   * stage-2 walks). Returns a value of {@link ENUMERATE}.
   */
  next(budget: number): number {
    const format = this.#format;
    const memory = this.#memory;
    if (this.#done || format === undefined || memory === undefined) return ENUMERATE.END;
    if (this.#format2 !== undefined && this.#second !== undefined) {
      this.#aim(this.#second, this.#format2, this.#root2);
    }
    for (let left = budget; left > 0; left--) {
      if (this.#done) return ENUMERATE.END;
      this.visited++;
      if (this.#inLeaf ? this.#piece() : this.#entry(format, memory)) return ENUMERATE.LEAF;
    }
    return this.#done ? ENUMERATE.END : ENUMERATE.PAUSED;
  }

  /**
   * Without updates a table of the first stage is read as a walk reads it, which ends where a bit
   * would have to be set.
   */
  #aim(second: StageTwo, format2: PageTableFormat, root2: PhysicalAddress): void {
    second.use(format2, root2, this.#updates);
  }

  #begin(
    format: PageTableFormat,
    memory: GuestMemory,
    root: PhysicalAddress,
    firstLo: number,
    firstHi: number,
    lastLo: number,
    lastHi: number,
  ): void {
    if (format !== this.#format) this.#levels = levelsOf(format);
    this.#format = format;
    this.#memory = memory;
    this.#at = format.levels;
    this.#tables[this.#at] = root;
    this.#gatheredLo[this.#at] = -1;
    this.#gatheredHi[this.#at] = 0;
    this.visited = 0;
    this.malformed = 0;
    this.#inLeaf = false;
    this.#done = false;
    this.#bound(format, firstLo | 0, firstHi | 0, lastLo | 0, lastHi | 0);
  }

  /** Clamps the range to what the format translates and drops the sign extension. */
  #bound(format: PageTableFormat, firstLo: number, firstHi: number, lastLo: number, lastHi: number): void {
    const maskLo = belowLo(format.inputBits);
    const maskHi = belowHi(format.inputBits);
    this.#posLo = firstLo & maskLo;
    this.#posHi = firstHi & maskHi;
    this.#lastLo = lastLo & maskLo;
    this.#lastHi = lastHi & maskHi;
    if (format.signExtended) {
      // In the hole between the halves: first moves up to the upper half, last down to the lower
      // one.
      const half = 1 << (format.inputBits - 33);
      if (inHole(format, firstHi)) {
        this.#posLo = 0;
        this.#posHi = half;
      }
      if (inHole(format, lastHi)) {
        this.#lastLo = -1;
        this.#lastHi = half - 1;
      }
    } else {
      const firstOut = ((firstLo ^ format.upper) & ~maskLo) | ((firstHi ^ format.upper) & ~maskHi);
      const lastOut = ((lastLo ^ format.upper) & ~maskLo) | ((lastHi ^ format.upper) & ~maskHi);
      if (format.upper === 0) {
        if (firstOut !== 0) this.#done = true;
        if (lastOut !== 0) {
          this.#lastLo = maskLo;
          this.#lastHi = maskHi;
        }
      } else {
        if (lastOut !== 0) this.#done = true;
        if (firstOut !== 0) {
          this.#posLo = 0;
          this.#posHi = 0;
        }
      }
    }
    if (compare(this.#posLo, this.#posHi, this.#lastLo, this.#lastHi) > 0) this.#done = true;
  }

  /** Looks at the entry at the position; true when it is a leaf to report. */
  #entry(format: PageTableFormat, memory: GuestMemory): boolean {
    const at = this.#levels[this.#at];
    const address = this.#tables[this.#at] + indexIn(at, this.#posLo, this.#posHi) * 8;
    if (!memory.load64(address)) {
      this.malformed++;
      return this.#past(at.shift);
    }
    const lo = memory.lo | 0;
    const hi = memory.hi | 0;
    if ((lo & format.presentMask) === 0) return this.#past(at.shift);
    const flaw = flawOf(format, at, lo, hi);
    if (flaw !== WALK.OK) {
      if (flaw === WALK.RESERVED || flaw === WALK.OUTPUT_SIZE) this.malformed++;
      return this.#past(at.shift);
    }
    const aboveLo = this.#gatheredLo[this.#at];
    const aboveHi = this.#gatheredHi[this.#at];
    const splitHi = (lo & format.splitLo) << format.splitShift;
    if ((lo & at.leafMask) !== at.leafValue) {
      if (!this.#updates && (~lo & format.tableAccessed) !== 0) return this.#past(at.shift);
      this.#at--;
      this.#tables[this.#at] = join(lo & format.addressLo, (hi & format.addressHi) | splitHi);
      this.#gatheredLo[this.#at] = aboveLo & (lo | format.keepLo);
      this.#gatheredHi[this.#at] = aboveHi | hi;
      return false;
    }
    this.level = at.level;
    this.entryLo = lo;
    this.entryHi = hi;
    this.#leafLo = lo & at.leafAddressLo;
    this.#leafHi = (hi & at.leafAddressHi) | splitHi;
    const rights = rightsOf(format, aboveLo & lo, hi, aboveHi, 0);
    this.#rights = this.#updates ? rights : cachable(format, aboveLo, lo, rights);
    this.permissions = this.#rights;
    if (this.#format2 !== undefined) {
      this.#inLeaf = true;
      return false;
    }
    this.#found(at.shift, this.#leafLo, this.#leafHi);
    this.#past(at.shift);
    return true;
  }

  /** Nested: puts the position, which is inside a stage-1 leaf, through stage 2. */
  #piece(): boolean {
    const format2 = this.#format2;
    const second = this.#second;
    if (format2 === undefined || second === undefined) return false;
    const at = this.#levels[this.#at];
    const first = at.shift;
    const ipaLo = this.#leafLo | (this.#posLo & belowLo(first));
    const ipaHi = this.#leafHi | (this.#posHi & belowHi(first));
    const result = second.result;
    const outcome = walk(format2, second.memory, this.#root2, ipaLo, ipaHi, 0, result);
    if (outcome !== WALK.OK) {
      if (outcome !== WALK.NOT_PRESENT && outcome !== WALK.ACCESS_FLAG) this.malformed++;
      const hole = outcome === WALK.ADDRESS_SIZE ? first : levelOf(format2, result.level).shift;
      return this.#pastPiece(Math.min(first, hole), first);
    }
    const log2 = Math.min(first, result.log2Size);
    this.permissions = both(format2, this.#rights, this.#updates ? result.permissions : result.cachable);
    const inBlockLo = ipaLo & belowLo(result.log2Size) & ~belowLo(log2);
    const inBlockHi = ipaHi & belowHi(result.log2Size) & ~belowHi(log2);
    this.#found(log2, result.outLo | inBlockLo, result.outHi | inBlockHi);
    this.#pastPiece(log2, first);
    return true;
  }

  #found(log2: number, outLo: number, outHi: number): void {
    this.inLo = this.#canonicalLo(this.#posLo & ~belowLo(log2));
    this.inHi = this.#canonicalHi(this.#posHi & ~belowHi(log2));
    this.outLo = outLo;
    this.outHi = outHi;
    this.log2Size = log2;
  }

  /** Moves behind the entry at the position. Always false: nothing to report. */
  #past(shift: number): boolean {
    this.#advance(shift);
    // Up out of every table that ends here.
    const top = this.#levels.length - 1;
    while (this.#at < top && indexIn(this.#levels[this.#at], this.#posLo, this.#posHi) === 0) this.#at++;
    return false;
  }

  /** Moves behind a piece of 2^log2 bytes of a stage-1 leaf of 2^first bytes. Always false. */
  #pastPiece(log2: number, first: number): boolean {
    if (log2 < first) {
      // The leaf's last piece is left by leaving the leaf.
      const restLo = ~this.#posLo & belowLo(first) & ~belowLo(log2);
      const restHi = ~this.#posHi & belowHi(first) & ~belowHi(log2);
      if ((restLo | restHi) !== 0) {
        this.#advance(log2);
        return false;
      }
    }
    this.#inLeaf = false;
    return this.#past(first);
  }

  /**
   * Adds 2^log2 to the position, aligned down to it first; ends the enumeration beyond the last
   * address.
   */
  #advance(log2: number): void {
    let lo = this.#posLo & ~belowLo(log2);
    let hi = this.#posHi & ~belowHi(log2);
    if (log2 < 32) {
      const sum = (lo >>> 0) + 2 ** log2;
      lo = sum | 0;
      if (sum >= 2 ** 32) hi++;
    } else {
      hi += 1 << (log2 - 32);
    }
    this.#posLo = lo;
    this.#posHi = hi;
    if (compare(lo, hi, this.#lastLo, this.#lastHi) > 0) this.#done = true;
  }

  #canonicalLo(lo: number): number {
    const format = this.#format;
    return format === undefined ? lo : lo | (format.upper & ~belowLo(format.inputBits));
  }

  #canonicalHi(hi: number): number {
    const format = this.#format;
    if (format === undefined) return hi;
    if (!format.signExtended) return hi | (format.upper & ~belowHi(format.inputBits));
    const above = 64 - format.inputBits;
    return (hi << above) >> above;
  }
}

/** Whether an address lies between the two canonical halves. */
function inHole(format: PageTableFormat, hi: number): boolean {
  const top = hi & format.inputHi;
  return top !== 0 && top !== format.inputHi;
}

/** Level records by number. */
function levelsOf(format: PageTableFormat): readonly FormatLevel[] {
  const levels: FormatLevel[] = [];
  for (let at: FormatLevel | undefined = format.root; at !== undefined; at = at.next) levels[at.level] = at;
  return levels;
}
