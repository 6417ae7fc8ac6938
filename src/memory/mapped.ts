/**
 * Guest memory that the peer shares: files mapped into this process, read and written in place
 * (ARCHITECTURE.md, Guest memory).
 *
 * A region is one mapping, in pages of whatever size its file has (hugetlbfs), seen through windows
 * of at most 1 GiB, since Node 20 aborts on larger views. The window used last is tried first:
 * page-table walks stay inside one for a long time. Once a region is removed nothing refers to its
 * views any more; the mapping goes last.
 *
 * A file that shrinks after it was mapped would raise SIGBUS here, and no process in JavaScript
 * survives that. So a file must be sealed against shrinking (QEMU's memory-backend-memfd seals its
 * files; where the maker left sealing open, it is done here), or the daemon must be told to take
 * others. The default takes them and says so in the log: a process that may connect to the socket
 * may also kill the daemon in simpler ways.
 */
import { CodedError, type ErrorName } from '../base/errors.js';
import { FileMapping, SystemError, sealAgainstShrinking } from '../base/native.js';
import type { PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from './guest-memory.js';
import { type Region, RegionTable } from './regions.js';

const WINDOW_BYTES = 2 ** 30;
const NO_BYTES = Buffer.alloc(0);
const NO_WORDS = new Int32Array(0);
const NO_PAIRS = new Float64Array(0);
const NO_INTEGERS = new BigUint64Array(0);
/** Exponent bits of a double in its high half: all set in infinities and NaNs. */
const EXPONENT = 0x7ff00000;
/** A 64-bit entry in transit: as one double, as one integer, and as its halves. */
const PAIR = new Float64Array(1);
const INTEGER = new BigUint64Array(PAIR.buffer);
const HALVES = new Int32Array(PAIR.buffer);

/** Why a file cannot be mapped that is guest memory all the same. */
export const UNMAPPABLE: readonly ErrorName[] = ['FILE_TOO_SHORT', 'FILE_NOT_SEALED', 'MAP_FAILED'];

/** A file to be mapped as guest memory. */
export interface SharedRegion {
  readonly region: number;
  readonly gpa: number;
  readonly size: number;
  readonly offset: number;
  readonly readonly: boolean;
  /** Not taken over: the mapping keeps the file. */
  readonly fd: number;
  /** Size of the file now, in bytes. */
  readonly fileBytes: number;
}

interface Mapping extends Region {
  readonly file: FileMapping;
  /** Windows of 1 GiB, the last one shorter. */
  windows: Window[];
}

/** The same bytes as bytes, as 32-bit words and as 64-bit units. */
interface Window {
  readonly bytes: Buffer;
  readonly words: Int32Array;
  readonly pairs: Float64Array;
  readonly integers: BigUint64Array;
}

export class MappedMemory implements GuestMemory {
  lo = 0;
  hi = 0;
  readonly #table: RegionTable<Mapping>;
  readonly #requireSeal: boolean;
  /** The window used last: its first guest-physical address, its size in bytes and its words. */
  #base = 0;
  #bytes = 0;
  #view: Buffer = NO_BYTES;
  #words: Int32Array = NO_WORDS;
  #pairs: Float64Array = NO_PAIRS;
  #integers: BigUint64Array = NO_INTEGERS;
  #writable = false;

  /** @param requireSeal refuse files that may shrink */
  constructor(requireSeal = false) {
    this.#table = new RegionTable<Mapping>();
    this.#requireSeal = requireSeal;
  }

  /**
   * Maps a region; returns whether its file can no longer shrink. Throws as
   * {@link RegionTable.check}; and {@link UNMAPPABLE} for what is wrong with the file, not with the
   * region.
   */
  add(shared: SharedRegion): boolean {
    this.#table.check(shared);
    const { offset, size, gpa, fd } = shared;
    if (!Number.isSafeInteger(offset) || offset < 0 || offset % 8 !== 0) {
      throw new CodedError('MAP_FAILED', `region ${shared.region}: file offset ${offset}`);
    }
    const sealed = sealAgainstShrinking(fd);
    if (!sealed && this.#requireSeal) {
      throw new CodedError('FILE_NOT_SEALED', `region ${shared.region}: its file may shrink`);
    }
    if (offset + size > shared.fileBytes) {
      throw new CodedError(
        'FILE_TOO_SHORT',
        `region ${shared.region}: ${size} bytes at ${offset} of a file of ${shared.fileBytes}`,
      );
    }
    const file = map(shared);
    const windows: Window[] = [];
    for (let at = 0; at < size; at += WINDOW_BYTES) {
      const bytes = Math.min(WINDOW_BYTES, size - at);
      const view = file.view(at, bytes);
      windows.push({
        bytes: Buffer.from(view),
        words: new Int32Array(view),
        pairs: new Float64Array(view),
        integers: new BigUint64Array(view),
      });
    }
    this.#table.add({
      region: shared.region,
      gpa,
      size,
      readonly: shared.readonly,
      file,
      windows,
    });
    return sealed;
  }

  /** Unmaps a region; false when there is none of that number. */
  remove(region: number): boolean {
    const mapping = this.#table.remove(region);
    if (mapping === undefined) return false;
    this.#release(mapping);
    return true;
  }

  /**
   * Unmaps everything. Throws `SystemError`, at the end, when the system did not let go of
   * something.
   */
  clear(): void {
    let failure: unknown;
    for (const mapping of this.#table.removeAll()) {
      try {
        this.#release(mapping);
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** True when some region overlaps [gpa, gpa + size). */
  overlaps(gpa: number, size: number): boolean {
    return this.#table.overlaps(gpa, size);
  }

  has(region: number): boolean {
    return this.#table.has(region);
  }

  get count(): number {
    return this.#table.count;
  }

  load32(gpa: PhysicalAddress): boolean {
    const at = gpa - this.#base;
    if (!(at >= 0 && at + 4 <= this.#bytes)) return this.#select(gpa, 4) && this.load32(gpa);
    this.lo = this.#words[at >>> 2] as number;
    return true;
  }

  load64(gpa: PhysicalAddress): boolean {
    const at = gpa - this.#base;
    if (!(at >= 0 && at + 8 <= this.#bytes)) return this.#select(gpa, 8) && this.load64(gpa);
    this.#pair(at);
    return true;
  }

  loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    const at = gpa - this.#base;
    if (!(at >= 0 && at + count * 4 <= this.#bytes)) return this.#loadWordsElsewhere(gpa, out, count);
    let i = 0;
    for (; i + 1 < count; i += 2) {
      this.#pair(at + i * 4);
      out[i] = this.lo;
      out[i + 1] = this.hi;
    }
    if (i < count) out[i] = this.#words[(at >>> 2) + i] as number;
    return true;
  }

  store32(gpa: PhysicalAddress, value: number): boolean {
    const at = gpa - this.#base;
    if (!(at >= 0 && at + 4 <= this.#bytes)) return this.#select(gpa, 4) && this.store32(gpa, value);
    if (!this.#writable) return false;
    Atomics.store(this.#words, at >>> 2, value);
    return true;
  }

  store64(gpa: PhysicalAddress, lo: number, hi: number): boolean {
    const at = gpa - this.#base;
    if (!(at >= 0 && at + 8 <= this.#bytes)) return this.#select(gpa, 8) && this.store64(gpa, lo, hi);
    if (!this.#writable) return false;
    Atomics.store(this.#words, (at >>> 2) + 1, hi);
    Atomics.store(this.#words, at >>> 2, lo);
    return true;
  }

  cas32(gpa: PhysicalAddress, expected: number, value: number): boolean {
    const at = gpa - this.#base;
    if (!(at >= 0 && at + 4 <= this.#bytes)) return this.#select(gpa, 4) && this.cas32(gpa, expected, value);
    if (!this.#writable) return false;
    this.lo = Atomics.compareExchange(this.#words, at >>> 2, expected | 0, value | 0);
    return this.lo === (expected | 0);
  }

  /** The comparison is the C library's: it takes what a JavaScript loop takes for a few words. */
  sameBytes(gpa: PhysicalAddress, copy: Uint8Array, at: number, bytes: number): boolean {
    const from = gpa - this.#base;
    if (!(from >= 0 && from + bytes <= this.#bytes)) {
      return this.#select(gpa, bytes) && this.sameBytes(gpa, copy, at, bytes);
    }
    return this.#view.compare(copy, at, at + bytes, from, from + bytes) === 0;
  }

  contains(gpa: PhysicalAddress, bytes: number): boolean {
    return this.#table.find(gpa, bytes) !== undefined;
  }

  /**
   * Reads the 64 bits at byte `at` of the window, never half of one store and half of another. One
   * load of a double moves them all at once, and is not a call as each Atomics.load is on Node 20:
   * 7 ns against 43. The engine may change the bits of a NaN on the way, so what looks like one is
   * read again as an integer: also one load, but one that allocates, which only a table entry with
   * bits 62:52 all set pays for. Reading low, high, low again is no way out: a peer that stores
   * without pause never leaves the low half alone for that long.
   */
  #pair(at: number): void {
    const index = at >>> 3;
    PAIR[0] = this.#pairs[index] as number;
    if (((HALVES[1] as number) & EXPONENT) === EXPONENT) INTEGER[0] = this.#integers[index] as bigint;
    this.lo = HALVES[0] as number;
    this.hi = HALVES[1] as number;
  }

  /** Makes the window that holds [gpa, gpa + bytes) the current one; false when no window does. */
  #select(gpa: number, bytes: number): boolean {
    const mapping = this.#table.find(gpa, bytes);
    if (mapping === undefined) return false;
    const index = Math.floor((gpa - mapping.gpa) / WINDOW_BYTES);
    const { bytes: view, words, pairs, integers } = mapping.windows[index] as Window;
    const base = mapping.gpa + index * WINDOW_BYTES;
    if (gpa + bytes > base + words.length * 4) return false;
    this.#base = base;
    this.#bytes = words.length * 4;
    this.#view = view;
    this.#words = words;
    this.#pairs = pairs;
    this.#integers = integers;
    this.#writable = !mapping.readonly;
    return true;
  }

  /** The structure is in another window, or in two of one region. */
  #loadWordsElsewhere(gpa: number, out: Uint32Array, count: number): boolean {
    if (!this.contains(gpa, count * 4)) return false;
    if (this.#select(gpa, count * 4)) return this.loadWords(gpa, out, count);
    let i = 0;
    for (; i + 1 < count; i += 2) {
      if (!this.load64(gpa + i * 4)) return false;
      out[i] = this.lo;
      out[i + 1] = this.hi;
    }
    if (i < count && this.load32(gpa + i * 4)) out[i] = this.lo;
    return true;
  }

  #release(mapping: Mapping): void {
    this.#base = 0;
    this.#bytes = 0;
    this.#view = NO_BYTES;
    this.#words = NO_WORDS;
    this.#pairs = NO_PAIRS;
    this.#integers = NO_INTEGERS;
    this.#writable = false;
    mapping.windows = [];
    mapping.file.unmap();
  }
}

function map({ region, fd, offset, size, readonly }: SharedRegion): FileMapping {
  try {
    return new FileMapping(fd, offset, size, !readonly);
  } catch (error) {
    if (error instanceof SystemError)
      throw new CodedError('MAP_FAILED', `region ${region}: ${error.message}`);
    throw error;
  }
}
