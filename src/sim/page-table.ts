import type { GuestRam, PageAllocator } from './machine.js';

/**
 * Page tables as a guest driver writes them: VT-d second-stage (§9.8) and first-stage (§9.7) entries, three to
 * five levels, 4 KiB, 2 MiB and 1 GiB pages. The driver edits guest memory only; invalidations are its
 * caller's duty.
 */

export type Stage = 'first' | 'second';

export interface Rights {
  readonly read: boolean;
  readonly write: boolean;
}

export const READ_WRITE: Rights = { read: true, write: true };
export const READ_ONLY: Rights = { read: true, write: false };
export const WRITE_ONLY: Rights = { read: false, write: true };

/** Bits of entries, as the specification numbers them. */
export const SECOND_STAGE = { R: 1n << 0n, W: 1n << 1n, PS: 1n << 7n, A: 1n << 8n, D: 1n << 9n } as const;
export const FIRST_STAGE = {
  P: 1n << 0n,
  RW: 1n << 1n,
  US: 1n << 2n,
  A: 1n << 5n,
  D: 1n << 6n,
  PS: 1n << 7n,
} as const;

const ADDRESS = 0x000f_ffff_ffff_f000n;

/** log2 of what one entry of `level` maps: 12, 21, 30, 39, 48. */
export function levelShift(level: number): number {
  return 12 + 9 * (level - 1);
}

export interface PageTableOptions {
  readonly stage: Stage;
  /** 3, 4 or 5 (first stage: 4 or 5). */
  readonly levels: number;
  /**
   * Turns the guest-physical address of a table into what an entry holds: a nested first stage is fetched
   * through the second stage, so its entries hold intermediate addresses. Default: the address itself.
   */
  readonly tableAddress?: (gpa: number) => bigint;
}

export class PageTable {
  /** Guest-physical address of the top table. */
  readonly root: number;
  readonly stage: Stage;
  readonly levels: number;
  readonly #tableAddress: (gpa: number) => bigint;
  /** Entry (its guest-physical address) → guest-physical address of the table below it. */
  readonly #below = new Map<number, number>();

  constructor(
    private readonly ram: GuestRam,
    private readonly pages: PageAllocator,
    options: PageTableOptions,
  ) {
    this.stage = options.stage;
    this.levels = options.levels;
    this.#tableAddress = options.tableAddress ?? ((gpa) => BigInt(gpa));
    this.root = pages.take();
  }

  /** What context and PASID entries hold to name this table. */
  get rootAddress(): bigint {
    return this.#tableAddress(this.root);
  }

  /**
   * Maps [input, input + bytes) to [output, …) with pages of `1 << log2` bytes (12, 21 or 30). All three are
   * multiples of the page size.
   */
  map(input: bigint, output: number, bytes: number, rights: Rights = READ_WRITE, log2 = 12): void {
    const size = 2 ** log2;
    for (let done = 0; done < bytes; done += size) {
      const entry = this.#entry(input + BigInt(done), (log2 - 12) / 9 + 1, true);
      if (entry === undefined) throw new Error('simulated guest: a page stands where a table is needed');
      this.ram.store64(entry, this.leaf(output + done, rights, log2));
    }
  }

  /** Clears the leaves of [input, input + bytes); returns how many there were. Tables stay. */
  unmap(input: bigint, bytes: number, log2 = 12): number {
    let cleared = 0;
    for (let done = 0; done < bytes; done += 2 ** log2) {
      const entry = this.#entry(input + BigInt(done), (log2 - 12) / 9 + 1, false);
      if (entry === undefined || this.ram.load64(entry) === 0n) continue;
      this.ram.store64(entry, 0n);
      cleared++;
    }
    return cleared;
  }

  /** Points an entry again to the table that was below it, if there was one: a large page may have stood there since. */
  restore(entry: number): void {
    const table = this.#below.get(entry);
    if (table !== undefined) this.ram.store64(entry, this.#pointer(table));
  }

  /** Guest-physical address of the entry of `level` for `input`; undefined when no table reaches it. */
  entryAddress(input: bigint, level = 1): number | undefined {
    return this.#entry(input, level, false);
  }

  /** A leaf entry. */
  leaf(output: number, rights: Rights, log2: number): bigint {
    let value = BigInt(output) & ADDRESS;
    if (this.stage === 'second') {
      if (rights.read) value |= SECOND_STAGE.R;
      if (rights.write) value |= SECOND_STAGE.W;
      if (log2 > 12) value |= SECOND_STAGE.PS;
      return value;
    }
    value |= FIRST_STAGE.P | FIRST_STAGE.US;
    if (rights.write) value |= FIRST_STAGE.RW;
    if (log2 > 12) value |= FIRST_STAGE.PS;
    return value;
  }

  #entry(input: bigint, level: number, make: boolean): number | undefined {
    let table = this.root;
    for (let at = this.levels; ; at--) {
      const index = Number((input >> BigInt(levelShift(at))) & 0x1ffn);
      const entry = table + index * 8;
      if (at === level) return entry;
      const next = this.#below.get(entry);
      if (next !== undefined) {
        table = next;
        continue;
      }
      if (!make || this.ram.load64(entry) !== 0n) return undefined;
      table = this.#addTable(entry);
    }
  }

  #addTable(entry: number): number {
    const table = this.pages.take();
    this.#below.set(entry, table);
    this.ram.store64(entry, this.#pointer(table));
    return table;
  }

  /** The entry that points to a table. */
  #pointer(table: number): bigint {
    const rights =
      this.stage === 'second'
        ? SECOND_STAGE.R | SECOND_STAGE.W
        : FIRST_STAGE.P | FIRST_STAGE.RW | FIRST_STAGE.US;
    return this.#tableAddress(table) | rights;
  }
}
