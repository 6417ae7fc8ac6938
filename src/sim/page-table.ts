import { PAGE_BYTES } from '../base/page.js';
import type { GuestRam, PageAllocator } from './machine.js';

/**
 * Page tables of either architecture as a guest's driver writes them. Only guest memory is edited;
 * invalidations are the caller's duty.
 *
 * This writer shares no code with the models' walker (src/walk) or the simulated host's writer
 * (src/host/sim), because both are checked with it.
 */

export interface Rights {
  readonly read: boolean;
  readonly write: boolean;
}

export const READ_WRITE: Rights = { read: true, write: true };
export const READ_ONLY: Rights = { read: true, write: false };
export const WRITE_ONLY: Rights = { read: false, write: true };

/**
 * What a writer needs to know of a format: the tables' shape, and two kinds of entry. Entries have
 * 8 bytes.
 */
export interface TableFormat {
  /** log2 of the smallest page, which is also that of a table below the root. */
  readonly granule: number;
  readonly levels: number;
  /** Input bits that the tables translate. */
  readonly inputBits: number;
  /** Bytes of the root, which may be several tables in a row. */
  readonly rootBytes: number;
  /** Bits of an entry that points to a table, without the address. */
  readonly table: bigint;
  /** A leaf of `1 << log2` bytes at `output`. */
  leaf(output: number, rights: Rights, log2: number): bigint;
}

export class GuestPageTable {
  readonly #ram: GuestRam;
  readonly #pages: PageAllocator;
  readonly #tableAddress: (gpa: number) => bigint;
  /** Guest-physical address of the root. */
  readonly root: number;
  /** Entry (its guest-physical address) → guest-physical address of the table below it. */
  readonly #below = new Map<number, number>();

  /**
   * `tableAddress` turns the guest-physical address of a table into the address that entries hold.
   * The two differ for a first stage on top of a second: it is fetched through the second stage, so
   * its entries hold intermediate addresses.
   */
  constructor(
    ram: GuestRam,
    pages: PageAllocator,
    readonly format: TableFormat,
    tableAddress: (gpa: number) => bigint = BigInt,
  ) {
    this.#ram = ram;
    this.#pages = pages;
    this.#tableAddress = tableAddress;
    this.root = this.#newTable(Math.max(PAGE_BYTES, format.rootBytes));
  }

  /** The root's address as the unit's structures hold it. */
  get rootAddress(): bigint {
    return this.#tableAddress(this.root);
  }

  get levels(): number {
    return this.format.levels;
  }

  /** log2 of what one entry of `level` (1 = the last) maps. */
  shift(level: number): number {
    const { granule } = this.format;
    return granule + (granule - 3) * (level - 1);
  }

  /**
   * Maps [input, input + bytes) to [output, …) with leaves of `1 << log2` bytes: the granule, or a
   * larger page of the format. All three are multiples of the leaf's size.
   */
  map(input: bigint, output: number, bytes: number, rights = READ_WRITE, log2 = this.format.granule): void {
    const level = this.#levelOf(log2);
    for (let done = 0; done < bytes; done += 2 ** log2) {
      const entry = this.#entry(input + BigInt(done), level, true);
      if (entry === undefined) throw new Error('simulated guest: a page stands where a table is needed');
      this.#ram.store64(entry, this.leaf(output + done, rights, log2));
    }
  }

  /** Clears the leaves of [input, input + bytes); returns how many there were. Tables stay. */
  unmap(input: bigint, bytes: number, log2 = this.format.granule): number {
    const level = this.#levelOf(log2);
    let cleared = 0;
    for (let done = 0; done < bytes; done += 2 ** log2) {
      const entry = this.#entry(input + BigInt(done), level, false);
      if (entry === undefined || this.#ram.load64(entry) === 0n) continue;
      this.#ram.store64(entry, 0n);
      cleared++;
    }
    return cleared;
  }

  /**
   * Makes an entry point again to the table that was below it, if there was one, after a large page
   * has replaced it.
   */
  restore(entry: number): void {
    const table = this.#below.get(entry);
    if (table !== undefined) this.#ram.store64(entry, this.#pointer(table));
  }

  /**
   * Guest-physical address of the entry of `level` for `input`; undefined if a table on the way is
   * missing.
   */
  entryAddress(input: bigint, level = 1): number | undefined {
    return this.#entry(input, level, false);
  }

  /** A leaf entry, written nowhere. */
  leaf(output: number, rights: Rights, log2: number): bigint {
    return this.format.leaf(output, rights, log2);
  }

  #levelOf(log2: number): number {
    for (let level = 1; level <= this.levels; level++) if (this.shift(level) === log2) return level;
    throw new Error(`simulated guest: these tables have no pages of 2^${log2} bytes`);
  }

  /** Descends to `level`; `make` adds the tables that are missing on the way. */
  #entry(input: bigint, level: number, make: boolean): number | undefined {
    const { granule, inputBits } = this.format;
    const within = BigInt.asUintN(inputBits, input);
    let table = this.root;
    for (let at = this.levels; ; at--) {
      const position = within >> BigInt(this.shift(at));
      const index = at === this.levels ? position : BigInt.asUintN(granule - 3, position);
      const entry = table + Number(index) * 8;
      if (at === level) return entry;
      let below = this.#below.get(entry);
      if (below === undefined) {
        if (!make || this.#ram.load64(entry) !== 0n) return undefined;
        below = this.#newTable(2 ** granule);
        this.#below.set(entry, below);
        this.#ram.store64(entry, this.#pointer(below));
      }
      table = below;
    }
  }

  #pointer(table: number): bigint {
    return this.#tableAddress(table) | this.format.table;
  }

  /** Zeroed memory for a table, aligned to its size. */
  #newTable(bytes: number): number {
    if (bytes === PAGE_BYTES) return this.#pages.take();
    const table = this.#pages.takeAligned(Math.ceil(Math.log2(bytes)), bytes);
    for (let at = table; at < table + bytes; at += 8) this.#ram.store64(at, 0n);
    return table;
  }
}
