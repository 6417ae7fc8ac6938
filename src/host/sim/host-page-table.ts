/**
 * Page tables of the simulated host's kernel: real entries in real pages, largest possible blocks.
 */
import { PAGE_BYTES, PAGE_OFFSET } from '../../base/page.js';
import type { PhysicalAddress } from '../../base/u64.js';
import { highHalf, join } from '../../base/u64.js';
import type { TableEncoding } from './encodings.js';
import type { HostMemory } from './memory.js';

const ENTRIES = 512;
const LEVELS = 4;
/** Pages that an entry of a level maps, from level 1 at index 1. */
const SPAN = [0, 1, ENTRIES, ENTRIES ** 2, ENTRIES ** 3] as const;
const LARGEST_LEAF = 3;
const ADDRESS_LO = ~PAGE_OFFSET;
const ADDRESS_HI = 0xffff;

/** Input addresses: 48 bits, in pages. */
export const TABLE_PAGES = ENTRIES ** LEVELS;

export class HostPageTable {
  readonly #memory: HostMemory;
  readonly root: PhysicalAddress;
  /** Entries in use of each table, by its address. */
  readonly #used = new Map<PhysicalAddress, number>();
  /**
   * Tables that nothing points to any more, but that a walk under way might still read: until
   * {@link reclaim}.
   */
  #unlinked: PhysicalAddress[] = [];

  constructor(
    memory: HostMemory,
    readonly encoding: TableEncoding,
  ) {
    this.#memory = memory;
    this.root = this.#newTable();
  }

  /** Table pages. */
  get pages(): number {
    return this.#used.size + this.#unlinked.length;
  }

  /**
   * Maps pages that are not mapped to host memory at `hostPage`. Throws {@link HostError}
   * NO_TABLE_MEMORY, and then has mapped none of them.
   */
  map(page: number, hostPage: number, pages: number, rights: number): void {
    let done = 0;
    try {
      while (done < pages) {
        const level = leafLevel(page + done, hostPage + done, pages - done);
        this.#setLeaf(page + done, hostPage + done, level, rights);
        done += SPAN[level] as number;
      }
    } catch (error) {
      this.unmap(page, done);
      throw error;
    }
  }

  /** Clears leaves. Blocks lie wholly within the range: a mapping is unmapped as a whole. */
  unmap(page: number, pages: number): void {
    for (let at = page; at < page + pages; ) at += this.#clear(this.root, LEVELS, at, page + pages);
  }

  /** Gives back the tables that unmapping emptied; caches have been invalidated. */
  reclaim(): void {
    for (const table of this.#unlinked) this.#memory.pool.give('tables', table);
    this.#unlinked = [];
  }

  /** Gives back everything. */
  destroy(): void {
    this.reclaim();
    for (const table of this.#used.keys()) this.#memory.pool.give('tables', table);
    this.#used.clear();
  }

  #newTable(): PhysicalAddress {
    const table = this.#memory.pool.take('tables');
    this.#used.set(table, 0);
    return table;
  }

  #setLeaf(page: number, hostPage: number, leaf: number, rights: number): void {
    let table = this.root;
    for (let level = LEVELS; level > leaf; level--) {
      const entry = entryOf(table, level, page);
      this.#memory.load64(entry);
      if (this.#memory.lo === 0) {
        // The new table is linked when there is memory for it, so a failure leaves nothing half
        // done.
        const below = this.#newTable();
        this.#memory.store64(entry, (below % 2 ** 32) | this.encoding.table, highHalf(below));
        this.#count(table, 1);
        table = below;
      } else {
        table = addressIn(this.#memory.lo, this.#memory.hi);
      }
    }
    const bits = (leaf === 1 ? this.encoding.page : this.encoding.block)[rights] as number;
    const address = hostPage * PAGE_BYTES;
    this.#memory.store64(entryOf(table, leaf, page), (address % 2 ** 32) | bits, highHalf(address));
    this.#count(table, 1);
  }

  /**
   * Clears what one entry of `table` maps of [page, end). Returns how many pages it is worth to go
   * on.
   */
  #clear(table: PhysicalAddress, level: number, page: number, end: number): number {
    const span = SPAN[level] as number;
    const entry = entryOf(table, level, page);
    this.#memory.load64(entry);
    const { lo, hi } = this.#memory;
    if (lo === 0) return span - (page % span);
    if (level > 1 && (lo & this.encoding.tableMask) === this.encoding.tableValue) {
      const below = addressIn(lo, hi);
      const next = this.#clear(below, level - 1, page, end);
      if (this.#used.get(below) === 0) {
        this.#memory.store64(entry, 0, 0);
        this.#used.delete(below);
        this.#unlinked.push(below);
        this.#count(table, -1);
      }
      return next;
    }
    if (page % span !== 0 || page + span > end) throw new Error(`page ${page} is in a block that is cut`);
    this.#memory.store64(entry, 0, 0);
    this.#count(table, -1);
    return span;
  }

  #count(table: PhysicalAddress, change: number): void {
    this.#used.set(table, (this.#used.get(table) as number) + change);
  }
}

function leafLevel(page: number, hostPage: number, pages: number): number {
  for (let level = LARGEST_LEAF; level > 1; level--) {
    const span = SPAN[level] as number;
    if (page % span === 0 && hostPage % span === 0 && pages >= span) return level;
  }
  return 1;
}

function entryOf(table: PhysicalAddress, level: number, page: number): PhysicalAddress {
  return table + (Math.floor(page / (SPAN[level] as number)) % ENTRIES) * 8;
}

function addressIn(lo: number, hi: number): PhysicalAddress {
  return join(lo & ADDRESS_LO, hi & ADDRESS_HI);
}
