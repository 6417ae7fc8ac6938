/**
 * A host that maps memory for one assigned device as a VFIO type1 container does. Mappings never
 * overlap and cannot be cut, their number is limited, and the device reaches only what is mapped.
 */

import { join } from '../base/u64.js';

/** Error numbers of Linux that a host answers with. */
export const HOST_ERROR = { NO_MEMORY: 12, EXISTS: 17, INVALID: 22, NO_SPACE: 28 } as const;

/** Words of one operation; see HOST_BATCH in docs/protocol.md. */
export const HOST_OPERATION_WORDS = 7;

interface HostMapping {
  readonly first: bigint;
  readonly last: bigint;
  /** Guest-physical address of the first byte. */
  readonly gpa: number;
  readonly access: number;
}

export class SimContainer {
  /** By first address, as text of its number in hexadecimal: 64-bit keys. */
  readonly mappings = new Map<bigint, HostMapping>();
  /** Most mappings, as `dma_entry_limit`. */
  limit = 65535;
  /** Refuses an operation: an error number, or 0 to go on. For tests. */
  refuse: (access: number, first: bigint, last: bigint) => number = () => 0;
  /**
   * An unmap of 2^40 bytes or more is never refused: it is the last resort against a mapping that
   * cannot be removed.
   */
  lastResort = false;
  maps = 0;
  unmaps = 0;
  /** Operations that a caller must not ask of a container of this kind. Tests expect none. */
  readonly misuse: string[] = [];

  /**
   * Carries operations out, in order. Returns pairs of index and error number of those that failed.
   */
  run(words: ArrayLike<number>): number[] {
    const failures: number[] = [];
    for (let at = 0, index = 0; at < words.length; at += HOST_OPERATION_WORDS, index++) {
      const first = wide(words[at + 1], words[at + 2]);
      const last = wide(words[at + 3], words[at + 4]);
      const error = this.#one(words[at], first, last, join(words[at + 5], words[at + 6]));
      if (error !== 0) failures.push(index, error);
    }
    return failures;
  }

  /** Where an access lands; undefined: the host refuses it. */
  reach(address: bigint, access: number): HostMapping | undefined {
    for (let log2 = 12n; log2 <= 64n; log2++) {
      const found = this.mappings.get((address >> log2) << log2);
      if (found === undefined || found.last < address) continue;
      return (found.access & access) === access ? found : undefined;
    }
    return undefined;
  }

  #one(access: number, first: bigint, last: bigint, gpa: number): number {
    if (last < first || (first & 0xfffn) !== 0n || (last & 0xfffn) !== 0xfffn) {
      this.misuse.push(`operation on ${text(first, last)}`);
      return HOST_ERROR.INVALID;
    }
    const large = access === 0 && last - first >= 1n << 40n;
    const refused = this.lastResort && large ? 0 : this.refuse(access, first, last);
    if (refused !== 0) return refused;
    return access === 0 ? this.#unmap(first, last) : this.#map(access, first, last, gpa);
  }

  #map(access: number, first: bigint, last: bigint, gpa: number): number {
    this.maps++;
    const size = last - first + 1n;
    if ((size & (size - 1n)) !== 0n || (first & (size - 1n)) !== 0n) {
      this.misuse.push(`mapping of ${text(first, last)}, which is no aligned block`);
      return HOST_ERROR.INVALID;
    }
    for (const known of this.#touching(first, last)) {
      this.misuse.push(`mapping of ${text(first, last)} over ${text(known.first, known.last)}`);
      return HOST_ERROR.EXISTS;
    }
    if (this.mappings.size >= this.limit) return HOST_ERROR.NO_SPACE;
    this.mappings.set(first, { first, last, gpa, access });
    return 0;
  }

  #unmap(first: bigint, last: bigint): number {
    this.unmaps++;
    for (const known of [...this.#touching(first, last)]) {
      if (known.first < first || known.last > last) {
        this.misuse.push(`unmapping of ${text(first, last)} cuts ${text(known.first, known.last)}`);
        return HOST_ERROR.INVALID;
      }
      this.mappings.delete(known.first);
    }
    return 0;
  }

  /** Mappings that touch a range. Small ranges are looked up, large ones searched. */
  *#touching(first: bigint, last: bigint): Generator<HostMapping> {
    const pages = (last - first + 1n) >> 12n;
    if (pages > BigInt(this.mappings.size)) {
      for (const known of this.mappings.values()) if (known.first <= last && known.last >= first) yield known;
      return;
    }
    const around = this.reach(first, 0);
    if (around !== undefined && around.first < first) yield around;
    for (let at = first; at <= last; at += 4096n) {
      const known = this.mappings.get(at);
      if (known !== undefined) yield known;
    }
  }
}

function wide(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

function text(first: bigint, last: bigint): string {
  return `0x${first.toString(16)}-0x${last.toString(16)}`;
}
