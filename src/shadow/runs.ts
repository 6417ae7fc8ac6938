/**
 * What a host is to map: translations joined into runs as long as input, memory and rights go on
 * without a break, cut to what is RAM (a host can map nothing else) and kept clear of the addresses
 * that no table translates.
 */

import type { PageRange } from '../host/port.js';
import type { LeafSource } from './leaf-source.js';
import { LAST_PAGE } from './pages.js';
import type { RamMap } from './ram-map.js';

const DATA = 3;
/** Translations that one run is made of at most, so that a caller gets to look up now and then. */
const MOST_JOINED = 1 << 20;

/** No input pages that are never translated, as an interrupt range is: `first` is above `last`. */
export const NO_HOLE: PageRange = { first: 1, last: 0 };

export class RunReader {
  readonly #ram: RamMap;
  /** The run found: input pages, both included; first page of memory; ACCESS bits. */
  first = 0;
  last = 0;
  out = 0;
  access = 0;
  /** Translations looked at since {@link start}. */
  looked = 0;
  #source: LeafSource | undefined;
  #hole: PageRange = NO_HOLE;
  #end = 0;
  /** What is left of the translation at hand, input pages; nothing when `#at` is above `#to`. */
  #at = 1;
  #to = 0;
  /** Memory page of `#at`, and its rights. */
  #out = 0;
  #access = 0;
  /** A piece of it that was cut off and is not given out yet. */
  #held = false;
  #pieceFirst = 0;
  #pieceLast = 0;
  #pieceOut = 0;
  #pieceAccess = 0;
  /**
   * The region that the last piece lies in. A piece that begins one goes with no other: regions are
   * different memory.
   */
  #regionFirst = 1;
  #regionLast = 0;
  #begin = 0;

  constructor(ram: RamMap) {
    this.#ram = ram;
  }

  /** Aims at what is mapped within [first, last]. */
  start(source: LeafSource, hole: PageRange, first: number, last: number): void {
    this.#source = source;
    this.#hole = hole;
    this.#end = Math.min(last, LAST_PAGE);
    this.#at = 1;
    this.#to = 0;
    this.#held = false;
    this.#regionFirst = 1;
    this.#regionLast = 0;
    this.looked = 0;
    this.#begin = first;
    source.start(first, last);
  }

  /** Goes to the next run; false at the end. */
  next(): boolean {
    if (!this.#held && !this.#piece()) return false;
    this.#held = false;
    this.first = this.#pieceFirst;
    this.last = this.#pieceLast;
    this.out = this.#pieceOut;
    this.access = this.#pieceAccess;
    const most = this.looked + MOST_JOINED;
    while (this.looked < most && this.#piece()) {
      const joins =
        this.#pieceFirst === this.last + 1 &&
        this.#pieceOut === this.out + (this.#pieceFirst - this.first) &&
        this.#pieceAccess === this.access &&
        this.#pieceOut !== this.#regionFirst;
      if (!joins) {
        this.#held = true;
        return true;
      }
      this.last = this.#pieceLast;
    }
    return true;
  }

  /** Cuts the next piece of RAM off the translations; false at the end. */
  #piece(): boolean {
    for (;;) {
      if (this.#at > this.#to && !this.#leaf()) return false;
      const hole = this.#hole;
      let last = this.#to;
      if (this.#at <= hole.last && last >= hole.first) {
        if (this.#at >= hole.first) {
          this.#skip(hole.last + 1);
          continue;
        }
        last = hole.first - 1;
      }
      if (this.#out < this.#regionFirst || this.#out > this.#regionLast) {
        const region = this.#ram.from(this.#out);
        if (region === this.#ram.count) {
          this.#skip(this.#to + 1);
          continue;
        }
        this.#regionFirst = this.#ram.first(region);
        this.#regionLast = this.#ram.last(region);
        if (this.#out < this.#regionFirst) {
          this.#skip(this.#at + (this.#regionFirst - this.#out));
          continue;
        }
      }
      last = Math.min(last, this.#at + (this.#regionLast - this.#out));
      this.#pieceFirst = this.#at;
      this.#pieceLast = last;
      this.#pieceOut = this.#out;
      this.#pieceAccess = this.#access;
      this.#skip(last + 1);
      return true;
    }
  }

  /** Goes on at an input page of the translation at hand, or behind it. */
  #skip(to: number): void {
    this.#out += to - this.#at;
    this.#at = to;
  }

  /** Takes the next translation that allows something, cut to the range; false at the end. */
  #leaf(): boolean {
    const source = this.#source;
    if (source === undefined) return false;
    while (source.next()) {
      this.looked++;
      if (source.first > this.#end) return false;
      this.#access = source.access & DATA;
      if (this.#access === 0) continue;
      this.#at = Math.max(source.first, this.#begin);
      this.#to = Math.min(source.last, this.#end);
      this.#out = source.out + (this.#at - source.first);
      if (this.#at <= this.#to) return true;
    }
    return false;
  }
}
