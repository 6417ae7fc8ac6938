/**
 * A set of host mappings: disjoint aligned power-of-two blocks by rising input address. A block is
 * what one mapping of a host is, and no host cuts one. Kept in chunks of typed arrays, so that a
 * million of them are no load on the heap.
 */

import { power } from './pages.js';

const CHUNK_LOG2 = 9;
const CHUNK = 1 << CHUNK_LOG2;
const LOG2_MASK = 63;
const ACCESS_SHIFT = 6;

class Chunk {
  /** First input page of each block. */
  readonly first = new Float64Array(CHUNK);
  /** First page of memory. */
  readonly out = new Float64Array(CHUNK);
  /** log2 of the number of pages, and the access bits above it. */
  readonly info = new Uint8Array(CHUNK);
  readonly tag = new Uint32Array(CHUNK);
  used = 0;
}

export class BlockSet {
  /** Blocks held, and pages in them. */
  count = 0;
  pages = 0;
  readonly #chunks: Chunk[] = [];
  /** The cursor. */
  #chunk = 0;
  #slot = 0;

  /** Puts the cursor on the first block that ends at or above a page; false when there is none. */
  seek(page: number): boolean {
    this.#locate(page);
    if (this.#slot > 0) {
      this.#slot--;
      if (this.last < page) this.#slot++;
    }
    return this.#settle();
  }

  /** Moves the cursor to the next block; false behind the last one. */
  next(): boolean {
    this.#slot++;
    return this.#settle();
  }

  /** Of the block under the cursor: pages, both included. */
  get first(): number {
    return this.#chunks[this.#chunk].first[this.#slot];
  }

  get last(): number {
    return this.first + power(this.log2) - 1;
  }

  get log2(): number {
    return this.#chunks[this.#chunk].info[this.#slot] & LOG2_MASK;
  }

  get out(): number {
    return this.#chunks[this.#chunk].out[this.#slot];
  }

  get access(): number {
    return this.#chunks[this.#chunk].info[this.#slot] >>> ACCESS_SHIFT;
  }

  /** What {@link add} was told. */
  get tag(): number {
    return this.#chunks[this.#chunk].tag[this.#slot];
  }

  /** Adds a block of 2^log2 pages. It overlaps no other: that is the caller's care. */
  add(first: number, log2: number, out: number, access: number, tag: number): void {
    if (!this.#follows(first)) this.#locate(first);
    const chunk = this.#room();
    const at = this.#slot;
    const { used } = chunk;
    if (at < used) {
      chunk.first.copyWithin(at + 1, at, used);
      chunk.out.copyWithin(at + 1, at, used);
      chunk.info.copyWithin(at + 1, at, used);
      chunk.tag.copyWithin(at + 1, at, used);
    }
    chunk.first[at] = first;
    chunk.out[at] = out;
    chunk.info[at] = log2 | (access << ACCESS_SHIFT);
    chunk.tag[at] = tag;
    chunk.used++;
    this.count++;
    this.pages += power(log2);
  }

  /**
   * Removes the block under the cursor, which then stands on the next one; false when that was the
   * last.
   */
  remove(): boolean {
    const chunk = this.#chunks[this.#chunk];
    const at = this.#slot;
    this.count--;
    this.pages -= power(this.log2);
    if (at + 1 < chunk.used) {
      chunk.first.copyWithin(at, at + 1, chunk.used);
      chunk.out.copyWithin(at, at + 1, chunk.used);
      chunk.info.copyWithin(at, at + 1, chunk.used);
      chunk.tag.copyWithin(at, at + 1, chunk.used);
    }
    if (--chunk.used === 0) {
      this.#chunks.splice(this.#chunk, 1);
      this.#slot = 0;
    }
    return this.#settle();
  }

  /** Removes every block that touches [first, last]; returns how many. */
  removeRange(first: number, last: number): number {
    const before = this.count;
    if (first <= 0 && this.count > 0 && this.#end() <= last) this.clear();
    for (let more = this.seek(first); more && this.first <= last; more = this.remove()) {
      // Each step removes one.
    }
    return before - this.count;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.count = 0;
    this.pages = 0;
    this.#chunk = 0;
    this.#slot = 0;
  }

  /** Last page of the last block. */
  #end(): number {
    this.#chunk = this.#chunks.length - 1;
    this.#slot = this.#chunks[this.#chunk].used - 1;
    return this.last;
  }

  /** Puts the cursor where a block that begins at `page` stands or would stand. */
  #locate(page: number): void {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#chunks[middle].first[0] <= page) low = middle + 1;
      else high = middle;
    }
    this.#chunk = Math.max(0, low - 1);
    this.#slot = 0;
    const chunk = this.#chunks[this.#chunk];
    if (chunk === undefined) return;
    low = 0;
    high = chunk.used;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (chunk.first[middle] < page) low = middle + 1;
      else high = middle;
    }
    this.#slot = low;
  }

  /**
   * Steps behind the block under the cursor if that is where `page` belongs: blocks are added by
   * rising address.
   */
  #follows(page: number): boolean {
    const chunk = this.#chunks[this.#chunk];
    const behind = this.#slot + 1;
    if (chunk === undefined || behind > chunk.used || chunk.first[this.#slot] >= page) return false;
    if (behind < chunk.used) {
      if (chunk.first[behind] <= page) return false;
    } else if (this.#chunk + 1 < this.#chunks.length && this.#chunks[this.#chunk + 1].first[0] <= page) {
      return false;
    }
    this.#slot = behind;
    return true;
  }

  /** Steps over the end of a chunk. */
  #settle(): boolean {
    const chunk = this.#chunks[this.#chunk];
    if (chunk !== undefined && this.#slot < chunk.used) return true;
    if (this.#chunk + 1 >= this.#chunks.length) return false;
    this.#chunk++;
    this.#slot = 0;
    return true;
  }

  /**
   * The chunk under the cursor with room for one more; a full one is parted, unless the new block
   * is the last of all.
   */
  #room(): Chunk {
    const chunk = this.#chunks[this.#chunk];
    if (chunk === undefined) {
      const fresh = new Chunk();
      this.#chunks.push(fresh);
      return fresh;
    }
    if (chunk.used < CHUNK) return chunk;
    const fresh = new Chunk();
    this.#chunks.splice(this.#chunk + 1, 0, fresh);
    if (this.#slot === CHUNK && this.#chunk + 2 === this.#chunks.length) {
      this.#chunk++;
      this.#slot = 0;
      return fresh;
    }
    const half = CHUNK >>> 1;
    fresh.first.set(chunk.first.subarray(half));
    fresh.out.set(chunk.out.subarray(half));
    fresh.info.set(chunk.info.subarray(half));
    fresh.tag.set(chunk.tag.subarray(half));
    fresh.used = CHUNK - half;
    chunk.used = half;
    if (this.#slot <= half) return chunk;
    this.#chunk++;
    this.#slot -= half;
    return fresh;
  }
}
