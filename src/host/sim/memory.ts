/**
 * The simulated host's physical memory: pages for tables, and a window for each guest, which begins
 * with guest-physical address 0. No guest-physical address is a host-physical one, so a missing
 * translation shows.
 */
import { PAGE_BYTES } from '../../base/page.js';
import type { PhysicalAddress } from '../../base/u64.js';
import { ArrayMemory } from '../../memory/array.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { HostError } from '../host-errors.js';

/** Tables stand here: below 2 GiB, where addresses are small integers. */
const POOL_BASE = 0x4000_0000;
/** Guest windows begin here, one every so many bytes. */
const WINDOW_BYTES = 2 ** 36;
const MOST_ORDER = 10;

/**
 * What a table page is for: structures that exist as long as the machine, or tables of assignments.
 */
type PageUse = 'fixed' | 'tables';

/** Pages for tables, in naturally aligned blocks of 2^order pages. */
class HostTablePool {
  readonly end: number;
  readonly memory: ArrayMemory;
  /** Pages in use, by purpose. */
  readonly used: Record<PageUse, number> = { fixed: 0, tables: 0 };
  /** Most pages that `tables` may have; an injected shortage lowers it. */
  tableLimit = Number.POSITIVE_INFINITY;
  #fresh = POOL_BASE;
  readonly #free: number[][] = Array.from({ length: MOST_ORDER + 1 }, () => []);

  constructor(bytes: number) {
    this.memory = new ArrayMemory([{ base: POOL_BASE, bytes }]);
    this.end = POOL_BASE + bytes;
  }

  /** A zeroed block. Throws {@link HostError} NO_TABLE_MEMORY. */
  take(use: PageUse, order = 0): PhysicalAddress {
    const pages = 2 ** order;
    if (use === 'tables' && this.used.tables + pages > this.tableLimit) throw shortage(pages);
    let block = this.#free[order]?.pop();
    if (block === undefined) {
      const start = Math.ceil(this.#fresh / (pages * PAGE_BYTES)) * pages * PAGE_BYTES;
      if (start + pages * PAGE_BYTES > this.end) throw shortage(pages);
      for (let page = this.#fresh; page < start; page += PAGE_BYTES) this.#free[0]?.push(page);
      this.#fresh = start + pages * PAGE_BYTES;
      block = start;
    }
    this.used[use] += pages;
    return block;
  }

  /** Gives a block back; it is zeroed now, so that nothing of it can be used by mistake. */
  give(use: PageUse, block: PhysicalAddress, order = 0): void {
    const pages = 2 ** order;
    for (let at = block; at < block + pages * PAGE_BYTES; at += 8) this.memory.store64(at, 0, 0);
    this.used[use] -= pages;
    this.#free[order]?.push(block);
  }
}

function shortage(pages: number): HostError {
  return new HostError('NO_TABLE_MEMORY', `${pages} pages`);
}

/** One guest's memory in the host, with a count of pins for each of its pages. */
export class GuestWindow {
  /** Pages pinned, each counted once however often. */
  pinnedPages = 0;
  readonly #pins: Uint16Array;

  constructor(
    readonly base: PhysicalAddress,
    readonly pages: number,
    readonly memory: GuestMemory,
  ) {
    this.#pins = new Uint16Array(pages);
  }

  get end(): number {
    return this.base + this.pages * PAGE_BYTES;
  }

  /** Throws {@link HostError} NOT_MEMORY unless every page of the range is memory. */
  check(page: number, pages: number): void {
    const inside = page >= 0 && page + pages <= this.pages;
    if (!inside || !this.memory.contains(page * PAGE_BYTES, pages * PAGE_BYTES)) {
      throw new HostError('NOT_MEMORY', `${pages} pages at guest page 0x${page.toString(16)}`);
    }
  }

  pin(page: number, pages: number): void {
    for (let at = page; at < page + pages; at++) if (this.#pins[at]++ === 0) this.pinnedPages++;
  }

  unpin(page: number, pages: number): void {
    for (let at = page; at < page + pages; at++) {
      if (this.#pins[at] === 0) throw new Error(`guest page ${at} is not pinned`);
      if (--this.#pins[at] === 0) this.pinnedPages--;
    }
  }

  isPinned(page: number): boolean {
    return (this.#pins[page] ?? 0) > 0;
  }
}

export class HostMemory implements GuestMemory {
  lo = 0;
  hi = 0;
  readonly pool: HostTablePool;
  readonly windows: GuestWindow[] = [];
  readonly #tables: ArrayMemory;
  readonly #tablesEnd: number;

  constructor(poolBytes: number) {
    this.pool = new HostTablePool(poolBytes);
    this.#tables = this.pool.memory;
    this.#tablesEnd = this.pool.end;
  }

  /** Gives a guest's memory, `bytes` of guest-physical addresses from 0, a window. */
  addGuest(memory: GuestMemory, bytes: number): GuestWindow {
    const base = WINDOW_BYTES * (this.windows.length + 1);
    if (bytes > WINDOW_BYTES) throw new Error(`a guest of ${bytes} bytes`);
    const window = new GuestWindow(base, Math.ceil(bytes / PAGE_BYTES), memory);
    this.windows.push(window);
    return window;
  }

  /** The window that an address is in; undefined for tables and for nothing. */
  windowAt(address: PhysicalAddress): GuestWindow | undefined {
    const window = this.windows[Math.floor(address / WINDOW_BYTES) - 1];
    return window !== undefined && address < window.end ? window : undefined;
  }

  load32(address: PhysicalAddress): boolean {
    if (address < this.#tablesEnd) {
      if (!this.#tables.load32(address)) return false;
      this.lo = this.#tables.lo;
      return true;
    }
    const window = this.windowAt(address);
    if (window === undefined || !window.memory.load32(address - window.base)) return false;
    this.lo = window.memory.lo;
    return true;
  }

  load64(address: PhysicalAddress): boolean {
    if (address < this.#tablesEnd) {
      if (!this.#tables.load64(address)) return false;
      this.lo = this.#tables.lo;
      this.hi = this.#tables.hi;
      return true;
    }
    const window = this.windowAt(address);
    if (window === undefined || !window.memory.load64(address - window.base)) return false;
    this.lo = window.memory.lo;
    this.hi = window.memory.hi;
    return true;
  }

  loadWords(address: PhysicalAddress, out: Uint32Array, count: number): boolean {
    if (address < this.#tablesEnd) return this.#tables.loadWords(address, out, count);
    const window = this.windowAt(address);
    return window?.memory.loadWords(address - window.base, out, count) ?? false;
  }

  store32(address: PhysicalAddress, value: number): boolean {
    if (address < this.#tablesEnd) return this.#tables.store32(address, value);
    const window = this.windowAt(address);
    return window?.memory.store32(address - window.base, value) ?? false;
  }

  store64(address: PhysicalAddress, lo: number, hi: number): boolean {
    if (address < this.#tablesEnd) return this.#tables.store64(address, lo, hi);
    const window = this.windowAt(address);
    return window?.memory.store64(address - window.base, lo, hi) ?? false;
  }

  cas32(address: PhysicalAddress, expected: number, value: number): boolean {
    const window = address < this.#tablesEnd ? undefined : this.windowAt(address);
    const memory = window?.memory ?? this.#tables;
    // `lo` tells why an exchange failed. Without memory it says that the word cannot be written.
    memory.lo = expected;
    const done = memory.cas32(window === undefined ? address : address - window.base, expected, value);
    this.lo = memory.lo;
    return done;
  }

  contains(address: PhysicalAddress, bytes: number): boolean {
    if (address < this.#tablesEnd) return this.#tables.contains(address, bytes);
    const window = this.windowAt(address);
    return window?.memory.contains(address - window.base, bytes) ?? false;
  }

  /**
   * Stores a whole structure. Its first word, with the bit that makes it valid, goes last. 8-byte
   * aligned, an even count.
   */
  storeWords(address: PhysicalAddress, words: ArrayLike<number>): void {
    for (let at = words.length - 2; at >= 0; at -= 2) {
      this.store64(address + at * 4, (words[at] as number) | 0, (words[at + 1] as number) | 0);
    }
  }
}
