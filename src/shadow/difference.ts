/**
 * Compares what the guest's tables say with what is in force on the host, and writes the smallest
 * list that makes them equal.
 */

import type { BlockSet } from './blocks.js';
import type { DeviceSpace } from './device-space.js';
import { NOTHING } from './leaf-source.js';
import { Operations } from './map-operations.js';
import { blockAt, power } from './pages.js';
import type { RamMap } from './ram-map.js';
import { NO_HOLE, RunReader } from './runs.js';

/** Operations after which a comparison stops for now. */
const MOST_OPERATIONS = 1 << 13;
/** Translations after which it does. */
const MOST_LOOKED = 1 << 21;
/** Blocks of one device. A guest that scatters more is not shadowed beyond that. */
const MOST_BLOCKS = 1 << 21;

export class Difference {
  readonly unmaps = new Operations();
  readonly maps = new Operations();
  /** Of the last comparison: blocks taken away in part only, and mappings beyond the limit. */
  splits = 0;
  beyond = 0;
  readonly #runs: RunReader;
  #at = 0;
  /** The range that the newest unmap covers so far. */
  #goneFirst = 1;
  #goneLast = 0;
  /** Blocks to be added once the comparison is through: page, log2, memory, access. */
  #fresh = new Float64Array(64);
  #freshCount = 0;

  constructor(ram: RamMap) {
    this.#runs = new RunReader(ram);
  }

  /**
   * Compares [first, last], and the blocks that reach out of it as a whole. The operations stand in
   * {@link unmaps}, which come first, and {@link maps}; the device's set is as it will be. What was
   * too much for one time is dirty again.
   */
  compare(space: DeviceSpace, first: number, last: number): void {
    this.#begin();
    const from = Math.min(first, beginOf(space.held, first), beginOf(space.failed, first));
    const to = Math.max(last, endOf(space.held, last), endOf(space.failed, last));
    const stopped = this.#walk(space, from, to);
    const reached = stopped < 0 ? to : stopped - 1;
    space.failed.removeRange(from, reached);
    if (reached < to) space.mark(reached + 1, to);
    this.#flushUnmap();
    this.#settle(space);
  }

  /** Takes away every block that leads to memory pages [first, last], without asking the tables. */
  revoke(space: DeviceSpace, first: number, last: number): void {
    this.#begin();
    const { held } = space;
    for (let more = held.seek(0); more; ) {
      if (held.out > last || held.out + power(held.log2) - 1 < first) {
        more = held.next();
        continue;
      }
      space.mark(held.first, held.last);
      space.counters.blocksUnmapped++;
      this.#unmap(held.first, held.last);
      more = held.remove();
    }
    this.#flushUnmap();
    this.#settle(space);
  }

  #begin(): void {
    this.unmaps.clear();
    this.maps.clear();
    this.splits = 0;
    this.beyond = 0;
    this.#freshCount = 0;
    this.#goneFirst = 1;
    this.#goneLast = 0;
  }

  /** Returns the page to go on from, or −1 when all is compared. */
  #walk(space: DeviceSpace, from: number, to: number): number {
    const { held, guest } = space;
    const runs = this.#runs;
    runs.start(guest?.leaves ?? NOTHING, guest?.hole ?? NO_HOLE, from, to);
    let more = this.#next();
    for (let on = held.seek(from); on && held.first <= to; ) {
      while (more && runs.last < held.first) {
        this.#map(runs.last);
        more = this.#next();
      }
      if (this.#enough()) {
        // What of the run stands before this block has been looked at, too.
        if (more) this.#map(held.first - 1);
        return held.first;
      }
      const same = more && runs.access === held.access && runs.out - runs.first === held.out - held.first;
      if (same && runs.first <= held.first && held.last <= runs.last) {
        this.#map(held.first - 1);
        this.#at = held.last + 1;
        on = held.next();
      } else {
        if (same && runs.first <= held.last) this.splits++;
        space.counters.blocksUnmapped++;
        this.#unmap(held.first, held.last);
        on = held.remove();
      }
    }
    while (more) {
      this.#map(runs.last);
      if (this.#enough()) return runs.last + 1;
      more = this.#next();
    }
    return -1;
  }

  #next(): boolean {
    if (!this.#runs.next()) return false;
    this.#at = this.#runs.first;
    return true;
  }

  #enough(): boolean {
    return this.maps.count + this.unmaps.count >= MOST_OPERATIONS || this.#runs.looked >= MOST_LOOKED;
  }

  /** Maps what of the run is not covered yet, up to a page. */
  #map(to: number): void {
    const { first, last, out, access } = this.#runs;
    const end = Math.min(to, last);
    while (this.#at <= end) {
      const log2 = blockAt(this.#at, end);
      const memory = out + (this.#at - first);
      const behind = this.#at + power(log2);
      this.maps.push(access, this.#at, behind - 1, memory);
      this.#remember(this.#at, log2, memory, access);
      this.#at = behind;
    }
  }

  #remember(first: number, log2: number, out: number, access: number): void {
    const at = this.#freshCount * 4;
    if (at === this.#fresh.length) {
      const larger = new Float64Array(2 * at);
      larger.set(this.#fresh);
      this.#fresh = larger;
    }
    this.#fresh[at] = first;
    this.#fresh[at + 1] = log2;
    this.#fresh[at + 2] = out;
    this.#fresh[at + 3] = access;
    this.#freshCount++;
  }

  /** Neighbours that go together are one operation: unmapping takes whatever lies in its range. */
  #unmap(first: number, last: number): void {
    if (first === this.#goneLast + 1 && this.#goneFirst <= this.#goneLast) {
      this.#goneLast = last;
      return;
    }
    this.#flushUnmap();
    this.#goneFirst = first;
    this.#goneLast = last;
  }

  #flushUnmap(): void {
    if (this.#goneFirst > this.#goneLast) return;
    this.unmaps.push(0, this.#goneFirst, this.#goneLast, 0);
    this.#goneFirst = 1;
    this.#goneLast = 0;
  }

  /** Enters the new blocks; operations are numbered in the order in which they are sent. */
  #settle(space: DeviceSpace): void {
    const { held, counters } = space;
    const room = MOST_BLOCKS - held.count;
    if (this.#freshCount > room) {
      this.beyond = this.#freshCount - room;
      this.#freshCount = room;
      this.maps.count = room;
      space.incomplete = true;
    }
    let tag = space.sequence + this.unmaps.count;
    for (let at = 0; at < this.#freshCount * 4; at += 4, tag++) {
      const fresh = this.#fresh;
      held.add(fresh[at], fresh[at + 1], fresh[at + 2], fresh[at + 3], tag >>> 0);
      counters.pagesMapped += power(fresh[at + 1]);
    }
    counters.maps += this.maps.count;
    counters.unmaps += this.unmaps.count;
    counters.splits += this.splits;
  }
}

/** Where the block that covers a page begins; the page itself when none does. */
function beginOf(blocks: BlockSet, page: number): number {
  return blocks.seek(page) ? Math.min(page, blocks.first) : page;
}

/** Where it ends. */
function endOf(blocks: BlockSet, page: number): number {
  return blocks.seek(page) && blocks.first <= page ? blocks.last : page;
}
