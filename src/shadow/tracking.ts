/**
 * Which pages of guest memory hold tables that are copied, so that the guest's stores to them can
 * be trapped: where the guest need not say that it has mapped something, there is no other way to
 * know.
 *
 * The monitor is told with TRACK. Until it has answered, a store may still go unseen; so the pages'
 * tables are looked at again then, and nothing counts as complete before.
 */

import { CodedError } from '../base/errors.js';
import { pageAt, pageHi, pageLo, pageOf } from '../base/page.js';

/** Words of one page of a TRACK: address lo (bit 0: begin), hi. */
const PAGE_WORDS = 2;
const BEGIN = 1;
/** Pages of one TRACK: they fit a frame of the wire. */
const MOST_TRACKED_AT_ONCE = 2048;

/** One TRACK. */
export interface TrackRequest {
  readonly id: number;
  readonly words: Uint32Array;
}

/** Told of every table that is copied, and of every one that is not any more. */
export interface TableWatcher {
  linked(address: number, bytes: number): void;
  unlinked(address: number, bytes: number): void;
}

export class TrackedPages implements TableWatcher {
  /** Tables on each page. */
  readonly #tables = new Map<number, number>();
  /** What the monitor has been told to track. */
  readonly #told = new Set<number>();
  /** Those of them of which it has to be told again, unless they are tables no more. */
  readonly #again = new Set<number>();
  /** Pages of which it may have to be told something, in the order in which that came up. */
  readonly #news = new Set<number>();
  readonly #underWay = new Map<number, Uint32Array>();
  #nextId = 1;

  /** TRACKs that are not sent or not answered: more than 0 while a store may go unseen. */
  get pending(): number {
    return this.#underWay.size + (this.#news.size > 0 ? 1 : 0);
  }

  /** Pages that are tracked, as far as the monitor has been told. */
  get count(): number {
    return this.#told.size;
  }

  linked(address: number, bytes: number): void {
    const last = pageAt(address + bytes - 1);
    for (let page = pageAt(address); page <= last; page++) {
      const tables = this.#tables.get(page) ?? 0;
      this.#tables.set(page, tables + 1);
      if (tables === 0) this.#note(page);
    }
  }

  unlinked(address: number, bytes: number): void {
    const last = pageAt(address + bytes - 1);
    for (let page = pageAt(address); page <= last; page++) {
      const tables = this.#tables.get(page) ?? 0;
      if (tables > 1) this.#tables.set(page, tables - 1);
      else {
        this.#tables.delete(page);
        this.#note(page);
      }
    }
  }

  /** Memory has come at these pages: what the monitor was told of them had no effect until now. */
  renew(first: number, last: number): void {
    for (const page of this.#told) {
      if (page < first || page > last) continue;
      this.#again.add(page);
      this.#note(page);
    }
  }

  /** The next TRACK to be sent, if there is one. */
  take(): TrackRequest | undefined {
    if (this.#news.size === 0) return undefined;
    const words = new Uint32Array(PAGE_WORDS * Math.min(this.#news.size, MOST_TRACKED_AT_ONCE));
    let at = 0;
    for (const page of this.#news) {
      if (at === words.length) break;
      const begin = this.#tables.has(page);
      words[at++] = pageLo(page) | (begin ? BEGIN : 0);
      words[at++] = pageHi(page);
      if (begin) this.#told.add(page);
      else this.#told.delete(page);
      this.#again.delete(page);
      this.#news.delete(page);
    }
    const id = this.#nextId;
    this.#nextId = (id + 1) >>> 0 || 1;
    this.#underWay.set(id, words);
    return { id, words };
  }

  /**
   * The monitor has answered: calls `begun` for the pages of which every store is told now. Throws
   * `UNEXPECTED_REPLY`.
   */
  answered(id: number, begun: (page: number) => void): void {
    const words = this.#underWay.get(id);
    if (words === undefined) throw new CodedError('UNEXPECTED_REPLY', `TRACK ${id} is not waited for`);
    this.#underWay.delete(id);
    for (let at = 0; at < words.length; at += PAGE_WORDS) {
      if ((words[at] & BEGIN) !== 0) begun(pageOf(words[at], words[at + 1]));
    }
  }

  /**
   * There is something to tell exactly while what is wanted differs from what was told, or that had
   * no effect.
   */
  #note(page: number): void {
    const same = this.#tables.has(page) === this.#told.has(page);
    if (same && !this.#again.has(page)) this.#news.delete(page);
    else this.#news.add(page);
  }
}
