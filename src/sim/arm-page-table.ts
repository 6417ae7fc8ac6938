import type { GuestRam, PageAllocator } from './machine.js';
import { READ_WRITE, type Rights } from './page-table.js';

/**
 * Translation tables as an Arm guest's driver writes them: VMSAv8-64, both stages, granules of 4, 16 and 64 KiB, blocks,
 * and concatenated root tables of a stage 2. The driver edits guest memory only; invalidations are its caller's duty.
 */

/** Bits of descriptors, as DDI 0487 numbers them. */
export const ARM = {
  VALID: 1n << 0n,
  /** A table, or a page at the last level; clear: a block. */
  TYPE: 1n << 1n,
  /** Stage 1: AP[1], unprivileged accesses; AP[2], read-only. */
  AP_USER: 1n << 6n,
  AP_READ_ONLY: 1n << 7n,
  AF: 1n << 10n,
  NG: 1n << 11n,
  DBM: 1n << 51n,
  PXN: 1n << 53n,
  UXN: 1n << 54n,
  /** Stage 2: S2AP[0], read; S2AP[1], write; MemAttr of Normal memory. */
  S2_READ: 1n << 6n,
  S2_WRITE: 1n << 7n,
  S2_NORMAL: 0xfn << 2n,
} as const;

const ADDRESS = 0x0000_ffff_ffff_f000n;

export interface ArmTableOptions {
  readonly stage: 1 | 2;
  /** log2 of the granule: 12, 14 or 16. */
  readonly granule: number;
  /** 64 − TxSZ. */
  readonly inputBits: number;
  /** Stage 1: tables of TTB1, whose addresses are all ones above `inputBits`. */
  readonly upper?: boolean;
  /** Leaves are for all ASIDs (nG clear). */
  readonly global?: boolean;
  /**
   * Turns the guest-physical address of a table into what a descriptor holds: stage-1 tables below a stage 2 are fetched
   * through it. Default: the address itself.
   */
  readonly tableAddress?: (gpa: number) => bigint;
}

/** Levels and root of tables that cover `inputBits`. A stage 2 starts one level further down where 16 tables can do that. */
export function shapeOf(
  stage: 1 | 2,
  granule: number,
  inputBits: number,
): { readonly levels: number; readonly rootBytes: number } {
  const stride = granule - 3;
  let levels = Math.ceil((inputBits - granule) / stride);
  const top = inputBits - granule - stride * (levels - 1);
  if (stage === 2 && levels > 1 && top <= 4) levels--;
  const entries = 2 ** (inputBits - granule - stride * (levels - 1));
  return { levels, rootBytes: Math.max(64, entries * 8) };
}

export class ArmPageTable {
  /** Guest-physical address of the root. */
  readonly root: number;
  readonly levels: number;
  readonly rootBytes: number;
  readonly #tableAddress: (gpa: number) => bigint;
  /** Descriptor (its guest-physical address) → guest-physical address of the table below it. */
  readonly #below = new Map<number, number>();

  constructor(
    private readonly ram: GuestRam,
    private readonly pages: PageAllocator,
    readonly options: ArmTableOptions,
  ) {
    const { levels, rootBytes } = shapeOf(options.stage, options.granule, options.inputBits);
    this.levels = levels;
    this.rootBytes = rootBytes;
    this.#tableAddress = options.tableAddress ?? ((gpa) => BigInt(gpa));
    this.root = this.#table(Math.max(4096, rootBytes));
  }

  /** What TTB0, TTB1 or S2TTB hold to name this table. */
  get rootAddress(): bigint {
    return this.#tableAddress(this.root);
  }

  /** log2 of what one descriptor of `level` (1 = the last) maps. */
  shift(level: number): number {
    const { granule } = this.options;
    return granule + (granule - 3) * (level - 1);
  }

  /**
   * Maps [input, input + bytes) to [output, …) with leaves of `1 << log2` bytes: the granule, or a block of this format.
   * All three are multiples of that.
   */
  map(input: bigint, output: number, bytes: number, rights: Rights = READ_WRITE, log2?: number): void {
    const leaf = log2 ?? this.options.granule;
    const level = this.#levelOf(leaf);
    for (let done = 0; done < bytes; done += 2 ** leaf) {
      const entry = this.#entry(input + BigInt(done), level, true);
      if (entry === undefined) throw new Error('simulated guest: a block stands where a table is needed');
      this.ram.store64(entry, this.leaf(output + done, rights, leaf));
    }
  }

  /** Clears the leaves of [input, input + bytes); returns how many there were. Tables stay. */
  unmap(input: bigint, bytes: number, log2?: number): number {
    const leaf = log2 ?? this.options.granule;
    const level = this.#levelOf(leaf);
    let cleared = 0;
    for (let done = 0; done < bytes; done += 2 ** leaf) {
      const entry = this.#entry(input + BigInt(done), level, false);
      if (entry === undefined || this.ram.load64(entry) === 0n) continue;
      this.ram.store64(entry, 0n);
      cleared++;
    }
    return cleared;
  }

  /** Guest-physical address of the descriptor of `level` for `input`; undefined when no table reaches it. */
  entryAddress(input: bigint, level = 1): number | undefined {
    return this.#entry(input, level, false);
  }

  /** A leaf descriptor. Stage 1 cannot say "write only". */
  leaf(output: number, rights: Rights, log2: number): bigint {
    const { stage, granule, global } = this.options;
    let value = (BigInt(output) & ADDRESS) | ARM.VALID | ARM.AF;
    if (log2 === granule) value |= ARM.TYPE;
    if (stage === 2) {
      value |= ARM.S2_NORMAL;
      if (rights.read) value |= ARM.S2_READ;
      if (rights.write) value |= ARM.S2_WRITE;
      return value;
    }
    value |= ARM.AP_USER;
    if (!rights.write) value |= ARM.AP_READ_ONLY;
    if (!(global ?? false)) value |= ARM.NG;
    return value;
  }

  #levelOf(log2: number): number {
    for (let level = 1; level <= this.levels; level++) if (this.shift(level) === log2) return level;
    throw new Error(`simulated guest: these tables have no leaves of 2^${log2} bytes`);
  }

  #entry(input: bigint, level: number, make: boolean): number | undefined {
    const within = input & ((1n << BigInt(this.options.inputBits)) - 1n);
    const stride = BigInt(this.options.granule - 3);
    let table = this.root;
    for (let at = this.levels; ; at--) {
      const position = within >> BigInt(this.shift(at));
      const index = Number(at === this.levels ? position : position & ((1n << stride) - 1n));
      const entry = table + index * 8;
      if (at === level) return entry;
      const next = this.#below.get(entry);
      if (next !== undefined) {
        table = next;
        continue;
      }
      if (!make || this.ram.load64(entry) !== 0n) return undefined;
      table = this.#table(2 ** this.options.granule);
      this.#below.set(entry, table);
      this.ram.store64(entry, this.#tableAddress(table) | ARM.VALID | ARM.TYPE);
    }
  }

  /** Zeroed memory for a table, aligned to its size. */
  #table(bytes: number): number {
    if (bytes === 4096) return this.pages.take();
    const table = this.pages.takeAligned(Math.ceil(Math.log2(bytes)), bytes);
    for (let at = table; at < table + bytes; at += 8) this.ram.store64(at, 0n);
    return table;
  }
}
