/**
 * A copy of one tree of the guest's page tables, as they were when last looked at. Looking again
 * costs one comparison of memory for each table page and nothing for its entries, as long as they
 * are what they were: equal bytes are the proof that nothing changed, and there is no other way to
 * skip a page that the guest may write at any time.
 *
 * Entries are kept raw; what they mean is read from them by {@link MirrorCursor}. Where a format
 * keeps Accessed and Dirty state it is set as soon as an entry is seen, before any host maps what
 * it says: a device behind a host mapping may use the page at any moment after that, and no walk of
 * the tables sets the bits for it. Where none may be set, a host maps what needs none.
 */

import { PAGE_LOG2, pageAt } from '../base/page.js';
import { join, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { type FormatLevel, type PageTableFormat, RIGHT } from '../spec/pagetable/format.js';
import { WALK } from '../walk/types.js';
import { flawOf, rightsOf } from '../walk/walk.js';
import { LAST_PAGE, power } from './pages.js';
import type { PageRanges } from './ranges.js';
import { TableHomes } from './table-homes.js';
import { type MirrorBudget, TablePool } from './table-pool.js';
import type { TableWatcher } from './tracking.js';

/** So many entries are looked at one by one rather than compared as a block. */
const FEW = 8;
/** What comparing a page counts as, in entries looked at. */
const COMPARISON = 32;
/** The guest changes an entry again and again while its Accessed state is set. */
const MOST_UPDATES = 4;
/** Where a look stops that has done enough: pages of 1 GiB, or after so many entries more. */
const STOP_ALIGNMENT = 2 ** 18;
const STOP_LATE = 1 << 20;
const ROOT = 0;
const ENTRY_BYTES = 8;
const NO_KIDS: Int32Array = new Int32Array(0);

export class TableMirror {
  readonly #memory: GuestMemory;
  /** Entries looked at since the mirror was made; a compared page counts as several. */
  work = 0;
  /** Table pages compared and table pages held. */
  comparisons = 0;
  tables = 0;
  /** Table pages that found no room; what is below them counts as not mapped. */
  missing = 0;
  /**
   * After a look that stopped early: the last page that it was to look at, which may be more than
   * it was asked for.
   */
  rest = 0;

  readonly levels: readonly FormatLevel[];
  /** Of each table held, by number; 0 is the root. */
  readonly levelOf: number[] = [];
  readonly words: Int32Array[] = [];
  readonly base: number[] = [];
  readonly kids: Int32Array[] = [];
  readonly aboveLo: number[] = [];
  readonly aboveHi: number[] = [];
  readonly #address: number[] = [];
  /** Of each table held: the position that it begins at. */
  readonly #begin: number[] = [];
  readonly #bytes: Uint8Array[] = [];
  readonly #slots: number[] = [];
  readonly #free: number[] = [];
  readonly #pool: TablePool;
  /** Pages of the input space, and where it begins. */
  readonly span: number;
  readonly start: number;
  #changed: PageRanges | undefined;
  #limit = 0;
  #stopped = -1;
  /** The last position that was to be looked at when a look stopped. */
  #rest = 0;
  /** {@link #grow} has made a copy. */
  #grown = false;
  /** Tables that found no room once are tried again. */
  #again = false;
  /** Entries as they were read last. */
  readonly #scratch: Uint32Array;
  /** What {@link #use} left. */
  #lo = 0;
  #hi = 0;
  /** Where each table lies, when stores to tables are told of. */
  readonly #homes: TableHomes | undefined;
  /** Whether Accessed or Dirty state is set. */
  readonly #keepsState: boolean;
  /**
   * What of an entry that leads to a table has to be set already, and what of it makes no
   * difference.
   */
  readonly #needed: number;
  readonly #ignored: number;

  constructor(
    readonly format: PageTableFormat,
    readonly root: PhysicalAddress,
    memory: GuestMemory,
    budget: MirrorBudget,
    watcher?: TableWatcher,
    readonly updates = true,
  ) {
    this.#memory = memory;
    const levels: FormatLevel[] = [];
    for (let at: FormatLevel | undefined = format.root; at !== undefined; at = at.next) levels[at.level] = at;
    this.levels = levels;
    this.span = 2 ** (format.inputBits - PAGE_LOG2);
    this.start = format.upper === 0 ? 0 : LAST_PAGE + 1 - this.span;
    this.#pool = new TablePool((levels[1].indexMask + 1) * 8, budget);
    const entries = format.root.indexMask + 1;
    this.#scratch = new Uint32Array(2 * Math.max(entries, levels[1].indexMask + 1));
    const state = format.accessed | format.dirty | format.tableAccessed | format.clean;
    this.#keepsState = updates && state !== 0;
    this.#needed = updates ? 0 : format.tableAccessed;
    this.#ignored = updates ? format.tableAccessed : 0;
    this.#homes = watcher === undefined ? undefined : new TableHomes(watcher);
    const buffer = new ArrayBuffer(entries * 8);
    this.#enter(ROOT, root, 0, format.levels, new Int32Array(buffer), 0, new Uint8Array(buffer), -1, 0);
  }

  /** Canonical page number of a position in the input space. */
  pageAt(position: number): number {
    if (this.format.signExtended && position >= this.span / 2) return LAST_PAGE + 1 - this.span + position;
    return this.start + position;
  }

  /**
   * Looks at the tables for [first, last] and adds what differs from the last time to `changed`.
   * Stops early when about `limit` entries were looked at: returns the page to go on from then, up
   * to {@link rest} at least; otherwise −1.
   */
  refresh(first: number, last: number, changed: PageRanges, limit: number): number {
    this.#changed = changed;
    this.#limit = this.work + limit;
    this.#again = this.missing > 0;
    this.missing = 0;
    const half = this.format.signExtended ? this.span / 2 : this.span;
    // Of a canonical input space the lower half comes first, as its pages do.
    for (let from = 0; from < this.span; from += half) {
      const low = Math.max(first, this.pageAt(from));
      const high = Math.min(last, this.pageAt(from) + half - 1);
      if (low > high) continue;
      const offset = this.pageAt(from) - from;
      this.#stopped = -1;
      this.#rest = 0;
      this.#look(ROOT, 0, low - offset, high - offset);
      if (this.#stopped < 0) continue;
      this.rest = this.#rest + offset;
      return this.#stopped + offset;
    }
    return -1;
  }

  /** Gives all copies back. */
  dispose(): void {
    this.#homes?.clear();
    this.#pool.clear();
  }

  /**
   * The guest has stored to [first, last], guest-physical addresses: adds the pages that this may
   * have changed to `stale`.
   */
  stored(first: number, last: number, stale: PageRanges): void {
    const homes = this.#homes;
    if (homes === undefined) return;
    for (let page = pageAt(first); page <= pageAt(last); page++) {
      for (const node of homes.at(page)) this.#storedTo(node, first, last, stale);
    }
  }

  #storedTo(node: number, first: number, last: number, stale: PageRanges): void {
    const level = this.levels[this.levelOf[node]];
    const step = power(level.shift - PAGE_LOG2);
    const address = this.#address[node];
    const from = Math.max(0, Math.floor((first - address) / ENTRY_BYTES));
    const to = Math.min(level.indexMask, Math.floor((last - address) / ENTRY_BYTES));
    if (from > to) return;
    const begin = this.#begin[node];
    stale.add(this.pageAt(begin + from * step), this.pageAt(begin + (to + 1) * step - 1));
  }

  /** Table `node` begins at position `at`; only what lies in [first, last] is of interest. */
  #look(node: number, at: number, first: number, last: number): void {
    const level = this.levels[this.levelOf[node]];
    const step = power(level.shift - PAGE_LOG2);
    const from = Math.max(0, Math.floor((first - at) / step));
    const to = Math.min(level.indexMask, Math.floor((last - at) / step));
    const few = to - from < FEW;
    const same = !few && this.#same(node, from, to);
    this.work += same ? COMPARISON : to - from + 1;
    if (level.next === undefined) {
      if (!same) this.#compare(node, level, from, to, at);
      return;
    }
    const kids = this.kids[node];
    for (let index = from; index <= to; index++) {
      this.#grown = false;
      if (!same) this.#compare(node, level, index, index, at);
      if (kids[index] === 0 && this.#again) this.#growAgain(node, level, index, at + index * step);
      const kid = kids[index];
      if (kid === 0) continue;
      const begin = at + index * step;
      // A new copy is empty: all of the table is looked at, whatever part of it is of interest.
      const whole = this.#grown;
      const low = whole ? begin : Math.max(begin, first);
      const high = whole ? begin + step - 1 : last;
      if (this.#enough(begin)) this.#stopped = low;
      else this.#look(kid, begin, low, high);
      if (this.#stopped >= 0) {
        this.#rest = Math.max(this.#rest, high);
        return;
      }
    }
  }

  /**
   * Stops are put where large blocks end, as long as that is not far: what is mapped in one go is
   * mapped as one.
   */
  #enough(position: number): boolean {
    const over = this.work - this.#limit;
    return over >= 0 && (position % STOP_ALIGNMENT === 0 || over >= STOP_LATE);
  }

  /**
   * Takes in those of the entries [from, to] that are not what they were. A table outside of RAM
   * has none.
   */
  #compare(node: number, level: FormatLevel, from: number, to: number, at: number): void {
    const scratch = this.#scratch;
    const count = 2 * (to - from + 1);
    if (!this.#memory.loadWords(this.#address[node] + from * 8, scratch, count)) scratch.fill(0, 0, count);
    const words = this.words[node];
    const base = this.base[node] + 2 * from;
    for (let read = 0; read < count; read += 2) {
      const lo = scratch[read] | 0;
      const hi = scratch[read + 1] | 0;
      if (words[base + read] !== lo || words[base + read + 1] !== hi) {
        this.#entry(node, level, from + read / 2, at, lo, hi);
      }
    }
  }

  #same(node: number, from: number, to: number): boolean {
    this.comparisons++;
    const memory = this.#memory;
    const at = this.base[node] * 4 + from * 8;
    const bytes = (to - from + 1) * 8;
    if (memory.sameBytes !== undefined) {
      return memory.sameBytes(this.#address[node] + from * 8, this.#bytes[node], at, bytes);
    }
    const words = this.words[node];
    for (let index = from; index <= to; index++) {
      if (!memory.load64(this.#address[node] + index * 8)) return false;
      const word = this.base[node] + 2 * index;
      if (memory.lo >>> 0 !== words[word] >>> 0 || memory.hi >>> 0 !== words[word + 1] >>> 0) return false;
    }
    return true;
  }

  /** Takes an entry in that was read as `lo:hi`. */
  #entry(node: number, level: FormatLevel, index: number, at: number, readLo: number, readHi: number): void {
    const { format } = this;
    const word = this.base[node] + 2 * index;
    const words = this.words[node];
    const oldLo = words[word];
    const oldHi = words[word + 1];
    let lo = readLo;
    let hi = readHi;
    if (this.#keepsState && (lo & format.presentMask) !== 0) {
      if (!this.#use(node, level, index, lo, hi)) {
        // Neither mapped nor remembered: the next look finds it changed again.
        lo = 0;
        hi = 0;
      } else {
        lo = this.#lo;
        hi = this.#hi;
      }
      if (lo === oldLo && hi === oldHi) return;
    }
    words[word] = lo;
    words[word + 1] = hi;
    const step = power(level.shift - PAGE_LOG2);
    const begin = at + index * step;
    if (level.next !== undefined) {
      const kept = this.kids[node][index] !== 0;
      if (kept && ((oldLo ^ lo) & ~this.#ignored) === 0 && oldHi === hi) return;
      if (kept) this.#drop(node, index);
      if (this.#isTable(level, lo, hi)) this.#grow(node, level.next, index, begin, lo, hi);
    }
    const page = this.pageAt(begin);
    this.#changed?.add(page, page + step - 1);
  }

  /**
   * Sets the Accessed and Dirty state of an entry that a device may use from now on, as a walk
   * would. The entry is in `#lo` and `#hi` afterwards; false when it can't be written.
   */
  #use(node: number, level: FormatLevel, index: number, readLo: number, readHi: number): boolean {
    const memory = this.#memory;
    const address = this.#address[node] + index * 8;
    this.#lo = readLo;
    this.#hi = readHi;
    for (let tries = 0; tries < MOST_UPDATES; tries++) {
      const wanted = this.#used(level, this.#lo, this.#hi, this.aboveLo[node], this.aboveHi[node]);
      if (wanted === this.#lo) return true;
      if (!memory.cas32(address, this.#lo, wanted) && (memory.lo | 0) === this.#lo) return false;
      if (!memory.load64(address)) return false;
      this.#lo = memory.lo | 0;
      this.#hi = memory.hi | 0;
    }
    return false;
  }

  /** Low half of an entry that a device may use from now on. */
  #used(level: FormatLevel, lo: number, hi: number, aboveLo: number, aboveHi: number): number {
    const { format } = this;
    if ((lo & format.presentMask) === 0 || flawOf(format, level, lo, hi) !== WALK.OK) return lo;
    if ((lo & level.leafMask) !== level.leafValue) return lo | format.tableAccessed;
    const rights = rightsOf(format, aboveLo & lo, hi, aboveHi, 0);
    if ((rights & (RIGHT.READ | RIGHT.WRITE)) === 0) return lo;
    const accessed = lo | format.accessed;
    return (rights & RIGHT.WRITE) === 0 ? accessed : (accessed | format.dirty) & ~format.clean;
  }

  /**
   * Makes an empty copy of the table below an entry: what is in it is found when it is looked at.
   */
  #grow(node: number, level: FormatLevel, index: number, begin: number, lo: number, hi: number): void {
    const { format } = this;
    const slot = this.#pool.take();
    if (slot < 0) {
      this.missing++;
      return;
    }
    const splitHi = (lo & format.splitLo) << format.splitShift;
    const address = join(lo & format.addressLo, (hi & format.addressHi) | splitHi);
    const kid = this.#free.pop() ?? this.levelOf.length;
    this.#grown = true;
    this.#slots[kid] = slot;
    this.#enter(
      kid,
      address,
      begin,
      level.level,
      this.#pool.wordsOf(slot),
      this.#pool.offsetOf(slot),
      this.#pool.bytesOf(slot),
      this.aboveLo[node] & (lo | format.keepLo),
      this.aboveHi[node] | hi,
    );
    this.kids[node][index] = kid;
  }

  /** The same for an entry that was seen when there was no room. */
  #growAgain(node: number, level: FormatLevel, index: number, begin: number): void {
    const word = this.base[node] + 2 * index;
    const lo = this.words[node][word];
    const hi = this.words[node][word + 1];
    if (level.next !== undefined && this.#isTable(level, lo, hi)) {
      this.#grow(node, level.next, index, begin, lo, hi);
    }
  }

  #enter(
    node: number,
    address: number,
    begin: number,
    level: number,
    words: Int32Array,
    base: number,
    bytes: Uint8Array,
    aboveLo: number,
    aboveHi: number,
  ): void {
    this.levelOf[node] = level;
    this.words[node] = words;
    this.base[node] = base;
    this.#bytes[node] = bytes;
    this.#address[node] = address;
    this.#begin[node] = begin;
    this.aboveLo[node] = aboveLo;
    this.aboveHi[node] = aboveHi;
    this.kids[node] = level === 1 ? NO_KIDS : new Int32Array(this.levels[level].indexMask + 1);
    this.#homes?.add(node, address, (this.levels[level].indexMask + 1) * ENTRY_BYTES);
    this.tables++;
  }

  /** Drops the copy of the table below an entry and all below that. */
  #drop(node: number, index: number): void {
    const kid = this.kids[node][index];
    this.kids[node][index] = 0;
    const kids = this.kids[kid];
    for (let at = 0; at < kids.length; at++) if (kids[at] !== 0) this.#drop(kid, at);
    this.kids[kid] = NO_KIDS;
    this.#homes?.remove(kid);
    this.#pool.give(this.#slots[kid]);
    this.#free.push(kid);
    this.tables--;
  }

  /** Whether an entry points to a table that a walk goes on to. */
  #isTable(level: FormatLevel, lo: number, hi: number): boolean {
    if ((lo & this.format.presentMask) === 0 || (lo & level.leafMask) === level.leafValue) return false;
    if ((lo & this.#needed) !== this.#needed) return false;
    return (((lo ^ level.flip) & level.tableReservedLo) | (hi & level.tableReservedHi)) === 0;
  }
}
