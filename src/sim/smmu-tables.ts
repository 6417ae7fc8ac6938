import { PAGE_BYTES } from '../base/page.js';
import { CD, CD_SPLIT, L1CD, L1STD, S1FMT, STE } from '../spec/smmuv3/structures.js';
import type { GuestRam, PageAllocator } from './machine.js';
import { loadStructure, storeStructure, type Values } from './structure.js';

/** log2 of the STEs of a second-level table: STRTAB_BASE_CFG.SPLIT. */
const SPLIT = 8;

/** The stream table. IHI 0070 §3.3.1, §3.3.2 */
export class StreamTable {
  readonly #ram: GuestRam;
  readonly #pages: PageAllocator;
  readonly base: number;

  /** 2^log2 StreamIDs; `twoLevel` makes second-level tables when they are needed. */
  constructor(
    ram: GuestRam,
    pages: PageAllocator,
    readonly log2: number,
    readonly twoLevel: boolean,
  ) {
    this.#ram = ram;
    this.#pages = pages;
    this.base = table(ram, pages, 2 ** log2 * STE.bytes, twoLevel ? 2 ** Math.max(0, log2 - SPLIT) * 8 : 0);
  }

  get split(): number {
    return SPLIT;
  }

  /** Guest-physical address of a stream's entry. */
  entry(sid: number): number {
    if (!this.twoLevel) return this.base + sid * STE.bytes;
    const at = this.base + (sid >> SPLIT) * L1STD.bytes;
    let second = L1STD.get.L2Ptr(loadStructure(this.#ram, at, L1STD));
    if (second === 0) {
      second = table(this.#ram, this.#pages, 2 ** SPLIT * STE.bytes);
      storeStructure(this.#ram, at, L1STD, { Span: SPLIT + 1, L2Ptr: second });
    }
    return second + (sid & (2 ** SPLIT - 1)) * STE.bytes;
  }

  set(sid: number, values: Values<typeof STE>): void {
    storeStructure(this.#ram, this.entry(sid), STE, values);
  }
}

/** Context descriptors of one stream. IHI 0070 §3.3.3 */
export class ContextTable {
  readonly #ram: GuestRam;
  readonly #pages: PageAllocator;
  readonly base: number;
  /** Second-level tables by the address of their first-level entry. */
  readonly #tables = new Map<number, number>();

  /**
   * 2^log2 SubstreamIDs, 0: one descriptor; `format` of S1FMT; `tableAddress` as of page tables.
   */
  constructor(
    ram: GuestRam,
    pages: PageAllocator,
    readonly log2: number,
    readonly format: number,
    readonly tableAddress: (gpa: number) => bigint,
  ) {
    this.#ram = ram;
    this.#pages = pages;
    const second = this.#split === 0 ? 0 : 2 ** Math.max(0, log2 - this.#split) * L1CD.bytes;
    this.base = table(ram, pages, 2 ** log2 * CD.bytes, second);
  }

  get #split(): number {
    if (this.format === S1FMT.TWO_LEVEL_4K) return CD_SPLIT.FOUR_KIB;
    return this.format === S1FMT.TWO_LEVEL_64K ? CD_SPLIT.SIXTY_FOUR_KIB : 0;
  }

  /** Guest-physical address of a substream's descriptor. */
  entry(ssid: number): number {
    const split = this.#split;
    if (split === 0) return this.base + ssid * CD.bytes;
    const at = this.base + (ssid >> split) * L1CD.bytes;
    const known = this.#tables.get(at);
    if (known !== undefined) return known + (ssid & (2 ** split - 1)) * CD.bytes;
    const second = table(this.#ram, this.#pages, 2 ** split * CD.bytes);
    this.#tables.set(at, second);
    storeStructure(this.#ram, at, L1CD, { V: 1, L2Ptr: Number(this.tableAddress(second)) });
    return second + (ssid & (2 ** split - 1)) * CD.bytes;
  }

  set(ssid: number, values: Values<typeof CD>): void {
    storeStructure(this.#ram, this.entry(ssid), CD, values);
  }
}

/** Zeroed memory for a table, aligned to its size; `otherwise` bytes if that is not 0. */
function table(ram: GuestRam, pages: PageAllocator, bytes: number, otherwise = 0): number {
  const size = 2 ** Math.ceil(Math.log2(Math.max(PAGE_BYTES, otherwise === 0 ? bytes : otherwise)));
  if (size === PAGE_BYTES) return pages.take();
  const base = pages.takeAligned(Math.log2(size), size);
  for (let at = base; at < base + size; at += 8) ram.store64(at, 0n);
  return base;
}
