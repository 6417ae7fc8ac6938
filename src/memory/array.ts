import { PAGE_BYTES, pageAt } from '../base/page.js';
import { join, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from './guest-memory.js';

/** One range of simulated RAM. `base` and `bytes` are multiples of 4096. */
interface ArrayRegion {
  readonly base: PhysicalAddress;
  readonly bytes: number;
  /** Stores and updates fail in a region that is not writable. Default true. */
  readonly writable?: boolean;
  /**
   * Pages are allocated when they are first stored to; until then they read as zero. For huge
   * regions.
   */
  readonly sparse?: boolean;
}

const PAGE_WORDS = PAGE_BYTES / 4;

/** One region's backing: either one array, or pages on demand. */
class Backing {
  readonly end: number;
  readonly words: Int32Array | undefined;
  readonly pages: Map<number, Int32Array> | undefined;
  constructor(
    readonly base: number,
    bytes: number,
    readonly writable: boolean,
    sparse: boolean,
  ) {
    this.end = base + bytes;
    this.words = sparse ? undefined : new Int32Array(bytes / 4);
    this.pages = sparse ? new Map() : undefined;
  }
}

/** One 64-bit word in both forms: tests read and write whole ones. */
const WORD = new BigUint64Array(1);
const WORD_HALVES = new Int32Array(WORD.buffer);

/** Reads of sparse pages without a store. Never written. */
const ZERO_PAGE = new Int32Array(PAGE_WORDS);

/**
 * Guest memory over ordinary arrays, at any guest-physical addresses: for tests, simulation and
 * measurements. Single-threaded, hence trivially tear-free; a test that wants a guest to interfere
 * subclasses {@link load64} or {@link cas32}.
 */
export class ArrayMemory implements GuestMemory {
  lo = 0;
  hi = 0;
  /** Successful loads of 64 bits, when {@link counting}. */
  loads = 0;
  counting = false;
  readonly #regions: readonly Backing[];
  #last: Backing;
  /** Array and word index that {@link locate} found. */
  #array: Int32Array = ZERO_PAGE;
  #index = 0;

  /**
   * Regions must not overlap. Throws on unaligned or overlapping regions, which are the caller's
   * mistake.
   */
  constructor(regions: readonly ArrayRegion[]) {
    const sorted = [...regions].sort((a, b) => a.base - b.base);
    this.#regions = sorted.map((region, i) => {
      if (region.base % PAGE_BYTES !== 0 || region.bytes % PAGE_BYTES !== 0 || region.bytes <= 0)
        throw new Error(`region ${region.base}+${region.bytes} is not made of whole pages`);
      if (!region.sparse && region.bytes > 2 ** 32)
        throw new Error(`region ${region.base}+${region.bytes} is too large for one array`);
      const next = sorted[i + 1];
      if (next && next.base < region.base + region.bytes) throw new Error('regions overlap');
      return new Backing(region.base, region.bytes, region.writable ?? true, region.sparse ?? false);
    });
    const first = this.#regions[0];
    if (!first) throw new Error('no region');
    this.#last = first;
  }

  load32(gpa: PhysicalAddress): boolean {
    if (!this.#locate(gpa, 4)) return false;
    this.lo = this.#array[this.#index];
    return true;
  }

  load64(gpa: PhysicalAddress): boolean {
    const region = this.#last;
    const words = region.words;
    if (words !== undefined && gpa >= region.base && gpa < region.end) {
      // A region of one array has at most 4 GiB, so that offsets fit 32 bits.
      const offset = (gpa - region.base) | 0;
      if ((offset & 7) === 0) {
        this.lo = words[offset >>> 2];
        this.hi = words[(offset >>> 2) + 1];
        if (this.counting) this.loads++;
        return true;
      }
    }
    return this.#load64Elsewhere(gpa);
  }

  #load64Elsewhere(gpa: PhysicalAddress): boolean {
    if (!this.#locate(gpa, 8)) return false;
    this.lo = this.#array[this.#index];
    this.hi = this.#array[this.#index + 1];
    if (this.counting) this.loads++;
    return true;
  }

  loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    if (!this.contains(gpa, count * 4)) return false;
    const { words, base } = this.#last;
    if (words !== undefined && (gpa & 3) === 0) {
      const from = ((gpa - base) | 0) >>> 2;
      for (let i = 0; i < count; i++) out[i] = words[from + i];
      return true;
    }
    for (let i = 0; i < count; i++) {
      this.#locate(gpa + i * 4, 4);
      out[i] = this.#array[this.#index];
    }
    return true;
  }

  store32(gpa: PhysicalAddress, value: number): boolean {
    if (!this.#locateWritable(gpa, 4)) return false;
    this.#array[this.#index] = value;
    return true;
  }

  store64(gpa: PhysicalAddress, lo: number, hi: number): boolean {
    if (!this.#locateWritable(gpa, 8)) return false;
    this.#array[this.#index + 1] = hi;
    this.#array[this.#index] = lo;
    return true;
  }

  cas32(gpa: PhysicalAddress, expected: number, value: number): boolean {
    if (!this.#locate(gpa, 4)) return false;
    const there = this.#array[this.#index];
    this.lo = there;
    if (!this.#last.writable || there !== (expected | 0)) return false;
    if (!this.#locateWritable(gpa, 4)) return false;
    this.#array[this.#index] = value;
    return true;
  }

  sameBytes(gpa: PhysicalAddress, copy: Uint8Array, at: number, bytes: number): boolean {
    if (!this.contains(gpa, bytes)) return false;
    const words = new Int32Array(copy.buffer, copy.byteOffset + at, bytes / 4);
    for (let i = 0; i < words.length; i++) {
      if (!this.#locate(gpa + i * 4, 4) || this.#array[this.#index] !== words[i]) return false;
    }
    return true;
  }

  contains(gpa: PhysicalAddress, bytes: number): boolean {
    if (gpa >= this.#last.base && gpa + bytes <= this.#last.end) return true;
    for (const region of this.#regions) {
      if (gpa >= region.base && gpa + bytes <= region.end) {
        this.#last = region;
        return true;
      }
    }
    return false;
  }

  /** Value of a 64-bit word as a BigInt; undefined outside of RAM. For tests. */
  peek(gpa: PhysicalAddress): bigint | undefined {
    const { lo, hi, loads } = this;
    const found = this.load64(gpa);
    WORD_HALVES[0] = this.lo;
    WORD_HALVES[1] = this.hi;
    this.lo = lo;
    this.hi = hi;
    this.loads = loads;
    return found ? WORD[0] : undefined;
  }

  /**
   * Stores a 64-bit word, in read-only regions too: the test's own hand, not the device's. False
   * outside of RAM.
   */
  poke(gpa: PhysicalAddress, value: bigint): boolean {
    if (!this.#locate(gpa, 8)) return false;
    this.#allocate(gpa);
    WORD[0] = value;
    this.#array[this.#index] = WORD_HALVES[0];
    this.#array[this.#index + 1] = WORD_HALVES[1];
    return true;
  }

  /**
   * Finds the array and index of an aligned word. An access not aligned to 4 (8 for 64 bits) finds
   * nothing.
   */
  #locate(gpa: PhysicalAddress, bytes: number): boolean {
    if (gpa % bytes !== 0 || !this.contains(gpa, bytes)) return false;
    const region = this.#last;
    const offset = gpa - region.base;
    if (region.words) {
      this.#array = region.words;
      this.#index = offset / 4;
    } else {
      this.#array = region.pages?.get(pageAt(offset)) ?? ZERO_PAGE;
      this.#index = (offset % PAGE_BYTES) / 4;
    }
    return true;
  }

  #locateWritable(gpa: PhysicalAddress, bytes: number): boolean {
    if (!this.#locate(gpa, bytes) || !this.#last.writable) return false;
    this.#allocate(gpa);
    return true;
  }

  #allocate(gpa: PhysicalAddress): void {
    const pages = this.#last.pages;
    if (!pages || this.#array !== ZERO_PAGE) return;
    this.#array = new Int32Array(PAGE_WORDS);
    pages.set(pageAt(gpa - this.#last.base), this.#array);
  }
}

/** Splits an exact number for calls that take halves; `join` is its inverse. For tests. */
export function halves(value: number): readonly [lo: number, hi: number] {
  const lo = value >>> 0;
  const hi = Math.floor(value / 2 ** 32) >>> 0;
  if (join(lo, hi) !== value) throw new Error(`${value} is not an exact address`);
  return [lo, hi];
}
