/** The translations that a mirror's copies hold. Reads no guest memory. */

import { PAGE_LOG2, pageOf } from '../base/page.js';
import type { FormatLevel } from '../spec/pagetable/format.js';
import { WALK } from '../walk/types.js';
import { cachable, flawOf, rightsOf } from '../walk/walk.js';
import type { LeafSource } from './leaf-source.js';
import type { TableMirror } from './mirror.js';
import { power } from './pages.js';

const MAX_LEVELS = 8;

export class MirrorLeaves implements LeafSource {
  readonly #mirror: TableMirror;
  first = 0;
  last = 0;
  out = 0;
  access = 0;
  /** By level: the table there, and the position that it begins at. */
  readonly #nodes = new Int32Array(MAX_LEVELS);
  readonly #begins = new Float64Array(MAX_LEVELS);
  #level = 0;
  #position = 0;
  /**
   * In the table of the last level: the next entry to be looked at, and the one behind the last of
   * interest.
   */
  #index = 0;
  #bound = 0;
  #end = -1;
  /** Canonical page number less position, in the half that is being read. */
  #offset = 0;
  /** What remains after this half: pages. */
  #restFirst = 1;
  #restLast = 0;

  constructor(mirror: TableMirror) {
    this.#mirror = mirror;
  }

  start(first: number, last: number): void {
    const mirror = this.#mirror;
    const upper = mirror.format.signExtended ? mirror.pageAt(mirror.span / 2) : Number.POSITIVE_INFINITY;
    this.#index = this.#bound;
    this.#restFirst = Math.max(first, upper);
    this.#restLast = last;
    if (first < upper) {
      const end = mirror.pageAt(mirror.format.signExtended ? mirror.span / 2 - 1 : mirror.span - 1);
      this.#enter(Math.max(first, mirror.pageAt(0)), Math.min(last, end), mirror.pageAt(0));
    } else {
      this.#end = -1;
      this.#position = 0;
    }
  }

  next(): boolean {
    while (!this.#step()) {
      if (this.#restFirst > this.#restLast) return false;
      const mirror = this.#mirror;
      const half = mirror.span / 2;
      const offset = mirror.pageAt(half) - half;
      const { format } = mirror;
      const [first, last] = [this.#restFirst, this.#restLast];
      this.#restFirst = 1;
      this.#restLast = 0;
      if (format.signExtended) this.#enter(first, last, offset);
    }
    return true;
  }

  #enter(first: number, last: number, offset: number): void {
    const mirror = this.#mirror;
    this.#offset = offset;
    this.#position = first - offset;
    this.#end = last - offset;
    this.#level = mirror.format.levels;
    this.#nodes[this.#level] = 0;
    this.#begins[this.#level] = 0;
  }

  /** To the next leaf in the table of the last level; false when there is none. */
  #inLast(): boolean {
    const mirror = this.#mirror;
    const node = this.#nodes[1];
    const begin = this.#begins[1];
    const level = mirror.levels[1];
    const words = mirror.words[node];
    const base = mirror.base[node];
    const { presentMask } = mirror.format;
    const bound = this.#bound;
    for (let index = this.#index; index < bound; index++) {
      const at = base + 2 * index;
      if ((words[at] & presentMask) === 0) continue;
      const step = power(level.shift - PAGE_LOG2);
      if (!this.#leaf(level, node, words[at], words[at + 1], begin + index * step)) continue;
      const more = this.#alike(level, words, at, bound - index);
      this.last = this.first + more * step - 1;
      this.#index = index + more;
      return true;
    }
    this.#index = bound;
    return false;
  }

  /** To the next leaf of this half. */
  #step(): boolean {
    const mirror = this.#mirror;
    if (this.#index < this.#bound && this.#inLast()) return true;
    while (this.#position <= this.#end) {
      const level = mirror.levels[this.#level];
      const node = this.#nodes[this.#level];
      const begin = this.#begins[this.#level];
      const step = power(level.shift - PAGE_LOG2);
      let index = Math.floor((this.#position - begin) / step);
      if (index > level.indexMask) {
        this.#level++;
        continue;
      }
      if (level.next === undefined) {
        // Behind the table's last entry stands another table.
        this.#bound = Math.min(level.indexMask + 1, Math.ceil((this.#end - begin + 1) / step));
        this.#index = index;
        this.#position = begin + this.#bound * step;
        if (this.#inLast()) return true;
        continue;
      }
      const words = mirror.words[node];
      const base = mirror.base[node];
      const { presentMask } = mirror.format;
      // The long way through empty entries is the common one.
      while (index <= level.indexMask && (words[base + 2 * index] & presentMask) === 0) index++;
      this.#position = Math.max(this.#position, begin + index * step);
      if (index > level.indexMask) continue;
      const kid = mirror.kids[node][index];
      if (kid !== 0) {
        this.#level--;
        this.#nodes[this.#level] = kid;
        this.#begins[this.#level] = begin + index * step;
        continue;
      }
      if (this.#position > this.#end) return false;
      const at = base + 2 * index;
      const found = this.#leaf(level, node, words[at], words[at + 1], begin + index * step);
      const end = Math.min(level.indexMask + 1, Math.ceil((this.#end - begin + 1) / step));
      const more = found ? this.#alike(level, words, at, end - index) : 1;
      this.last = this.first + more * step - 1;
      this.#position = begin + (index + more) * step;
      if (found) return true;
    }
    return false;
  }

  /** Reads an entry; false when it maps nothing. */
  #leaf(level: FormatLevel, node: number, lo: number, hi: number, position: number): boolean {
    const { format, aboveLo, aboveHi, updates } = this.#mirror;
    if ((lo & level.leafMask) !== level.leafValue) return false;
    if ((((lo ^ level.flip) & level.leafReservedLo) | (hi & level.leafReservedHi)) !== 0) {
      if (flawOf(format, level, lo, hi) !== WALK.OK) return false;
    }
    const rights = rightsOf(format, aboveLo[node] & lo, hi, aboveHi[node], 0);
    // What needs no bit set is what could be kept as it stands.
    this.access = updates ? rights : cachable(format, aboveLo[node], lo, rights);
    const outHi = (hi & level.leafAddressHi) | ((lo & format.splitLo) << format.splitShift);
    this.out = pageOf(lo & level.leafAddressLo, outHi);
    this.first = position + this.#offset;
    return true;
  }

  /**
   * How many leaves from `at` on, of `most` at the most, differ in nothing but that each goes on
   * where the last one ends: the tight loop that makes large ranges of small pages cheap.
   */
  #alike(level: FormatLevel, words: Int32Array, at: number, most: number): number {
    if (level.shift > 30) return 1;
    const size = 1 << level.shift;
    const hi = words[at + 1];
    const end = at + 2 * most;
    let lo = words[at];
    let next = at + 2;
    while (next < end) {
      const expected = (lo + size) | 0;
      // The sum may not run over into the high half.
      if (expected >>> 0 < lo >>> 0 || words[next] !== expected || words[next + 1] !== hi) break;
      lo = expected;
      next += 2;
    }
    return (next - at) / 2;
  }
}
