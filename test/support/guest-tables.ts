/**
 * A guest's stage-1 tables in its own memory, written entry by entry with the bits typed here:
 * independent of what the simulated host and the walker know.
 */
import { PAGE_BYTES } from '../../src/base/page.js';
import type { ArrayMemory } from '../../src/memory/array.js';

type StageOneFormat = 'vtd' | 'arm';

/** Hands out zeroed pages of guest memory, upwards. */
export class GuestPages {
  #next: number;
  constructor(next: number) {
    this.#next = next;
  }

  take(pages = 1): number {
    const bytes = pages * PAGE_BYTES;
    const start = Math.ceil(this.#next / bytes) * bytes;
    this.#next = start + bytes;
    return start;
  }
}

const VTD = { P: 1n, RW: 2n, US: 4n } as const;
const ARM = {
  TABLE: 3n,
  PAGE: 3n,
  USER: 1n << 6n,
  READ_ONLY: 1n << 7n,
  AF: 1n << 10n,
  NG: 1n << 11n,
} as const;

/** Four levels of 4 KiB pages. */
export class GuestTables {
  readonly #memory: ArrayMemory;
  readonly #pages: GuestPages;
  readonly #format: StageOneFormat;
  readonly root: number;

  constructor(memory: ArrayMemory, pages: GuestPages, format: StageOneFormat) {
    this.#memory = memory;
    this.#pages = pages;
    this.#format = format;
    this.root = pages.take();
  }

  /** Maps one 4 KiB page. */
  map(input: bigint, output: number, write = true): void {
    this.#memory.poke(this.entry(input, true) as number, BigInt(output) | this.#leaf(write));
  }

  unmap(input: bigint): void {
    const entry = this.entry(input, false);
    if (entry !== undefined) this.#memory.poke(entry, 0n);
  }

  /** Guest-physical address of the leaf entry. */
  entry(input: bigint, make: boolean): number | undefined {
    let table = this.root;
    for (let level = 4; ; level--) {
      const index = Number((input >> BigInt(12 + 9 * (level - 1))) & 511n);
      const entry = table + index * 8;
      if (level === 1) return entry;
      const value = this.#memory.peek(entry) ?? 0n;
      if (value === 0n) {
        if (!make) return undefined;
        const below = this.#pages.take();
        const bits = this.#format === 'vtd' ? VTD.P | VTD.RW | VTD.US : ARM.TABLE;
        this.#memory.poke(entry, BigInt(below) | bits);
        table = below;
      } else {
        table = Number(value & 0xffff_ffff_f000n);
      }
    }
  }

  #leaf(write: boolean): bigint {
    if (this.#format === 'vtd') return VTD.P | VTD.US | (write ? VTD.RW : 0n);
    return ARM.PAGE | ARM.AF | ARM.NG | ARM.USER | (write ? 0n : ARM.READ_ONLY);
  }
}

/** A context descriptor in guest memory: 4 KiB granule, 48 bits, TTB0 only, faults recorded. */
export function writeCd(memory: ArrayMemory, address: number, root: number, asid: number): void {
  const lo = 16n | (1n << 30n) | (1n << 31n); // T0SZ, EPD1, V
  const hi = 5n | (1n << 9n) | (1n << 13n) | (1n << 14n) | (BigInt(asid) << 16n); // IPS, AA64, R, A, ASID
  memory.poke(address, lo | (hi << 32n));
  memory.poke(address + 8, BigInt(root));
  for (let at = 16; at < 64; at += 8) memory.poke(address + at, 0n);
}

/**
 * The guest's part of an STE: stage 1 with a linear table of 2^bits CDs; `dss`: 2 = requests
 * without SubstreamID use CD 0.
 */
export function guestSte(cds: number, bits = 0, dss = 2): Uint32Array {
  const words = new Uint32Array(4);
  words[0] = (cds >>> 0) | 1 | (5 << 1);
  words[1] = (Math.floor(cds / 2 ** 32) | (bits << 27)) >>> 0;
  words[2] = bits === 0 ? 0 : dss;
  return words;
}
