/**
 * Guest memory that stays with the peer: every access is a message and a wait (ARCHITECTURE.md,
 * Guest memory). Slow, and works with any monitor's command line. {@link GuestRam} puts it behind
 * mapped memory, in one port.
 */
import { CodedError } from '../base/errors.js';
import { highHalf, lowHalf, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from './guest-memory.js';
import { MappedMemory } from './mapped.js';
import { type Region, RegionTable } from './regions.js';

/** Asks the peer and waits. All return false when the peer refused, or is gone. */
export interface RemoteAccess {
  /** Reads `bytes` (at most 4096) into `into`, one aligned 64-bit value never torn. */
  read(gpaLo: number, gpaHi: number, bytes: number, into: Uint8Array): boolean;
  write(gpaLo: number, gpaHi: number, data: Uint8Array): boolean;
  /** True when the word was looked at; {@link found} is what was there. */
  cas(gpaLo: number, gpaHi: number, expected: number, value: number): boolean;
  readonly found: number;
}

const CHUNK_BYTES = 4096;

export class RemoteMemory implements GuestMemory {
  lo = 0;
  hi = 0;
  readonly #table = new RegionTable<Region>();
  readonly #access: RemoteAccess;
  readonly #buffer = new Uint8Array(CHUNK_BYTES);
  readonly #words = new Uint32Array(this.#buffer.buffer);
  readonly #four = this.#buffer.subarray(0, 4);
  readonly #eight = this.#buffer.subarray(0, 8);

  constructor(access: RemoteAccess) {
    this.#access = access;
  }

  /** Adds a region. Throws as {@link RegionTable.check}. */
  add(region: Region): void {
    this.#table.check(region);
    this.#table.add(region);
  }

  remove(region: number): boolean {
    return this.#table.remove(region) !== undefined;
  }

  clear(): void {
    this.#table.removeAll();
  }

  has(region: number): boolean {
    return this.#table.has(region);
  }

  overlaps(gpa: number, size: number): boolean {
    return this.#table.overlaps(gpa, size);
  }

  get count(): number {
    return this.#table.count;
  }

  load32(gpa: PhysicalAddress): boolean {
    if (!this.#read(gpa, 4)) return false;
    this.lo = this.#words[0] as number;
    return true;
  }

  load64(gpa: PhysicalAddress): boolean {
    if (!this.#read(gpa, 8)) return false;
    this.lo = this.#words[0] as number;
    this.hi = this.#words[1] as number;
    return true;
  }

  loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    if (!this.contains(gpa, count * 4)) return false;
    for (let i = 0; i < count; i += CHUNK_BYTES / 4) {
      const now = Math.min(count - i, CHUNK_BYTES / 4);
      if (!this.#read(gpa + i * 4, now * 4)) return false;
      for (let k = 0; k < now; k++) out[i + k] = this.#words[k] as number;
    }
    return true;
  }

  store32(gpa: PhysicalAddress, value: number): boolean {
    if (!this.#writable(gpa, 4)) return false;
    this.#words[0] = value;
    return this.#access.write(lowHalf(gpa), highHalf(gpa), this.#four);
  }

  store64(gpa: PhysicalAddress, lo: number, hi: number): boolean {
    if (!this.#writable(gpa, 8)) return false;
    this.#words[0] = lo;
    this.#words[1] = hi;
    return this.#access.write(lowHalf(gpa), highHalf(gpa), this.#eight);
  }

  cas32(gpa: PhysicalAddress, expected: number, value: number): boolean {
    if (!this.#writable(gpa, 4)) return false;
    if (!this.#access.cas(lowHalf(gpa), highHalf(gpa), expected, value)) return false;
    this.lo = this.#access.found | 0;
    return this.lo === (expected | 0);
  }

  sameBytes(gpa: PhysicalAddress, copy: Uint8Array, at: number, bytes: number): boolean {
    for (let done = 0; done < bytes; done += CHUNK_BYTES) {
      const now = Math.min(bytes - done, CHUNK_BYTES);
      if (!this.#read(gpa + done, now)) return false;
      const from = at + done;
      if (Buffer.compare(this.#buffer.subarray(0, now), copy.subarray(from, from + now)) !== 0) return false;
    }
    return true;
  }

  contains(gpa: PhysicalAddress, bytes: number): boolean {
    return this.#table.find(gpa, bytes) !== undefined;
  }

  #read(gpa: number, bytes: number): boolean {
    if (!this.contains(gpa, bytes)) return false;
    return this.#access.read(lowHalf(gpa), highHalf(gpa), bytes, this.#buffer);
  }

  #writable(gpa: number, bytes: number): boolean {
    const region = this.#table.find(gpa, bytes);
    return region !== undefined && !region.readonly;
  }
}

/** All of a VM's memory: mapped regions at full speed, others through messages. */
export class GuestRam implements GuestMemory {
  lo = 0;
  hi = 0;
  readonly mapped: MappedMemory;
  readonly remote: RemoteMemory;

  constructor(access: RemoteAccess, requireSeal = false) {
    this.mapped = new MappedMemory(requireSeal);
    this.remote = new RemoteMemory(access);
  }

  /** Adds a region that is served by messages. Throws as {@link RegionTable.check}. */
  addRemote(region: Region): void {
    this.#checkFree(region, this.mapped);
    this.remote.add(region);
  }

  /** Adds a region that is mapped; see {@link MappedMemory.add}. */
  addMapped(region: Parameters<MappedMemory['add']>[0]): boolean {
    this.#checkFree(region, this.remote);
    return this.mapped.add(region);
  }

  /** Removes a region, unmapping it. Throws `REGION_UNKNOWN`. */
  remove(region: number): void {
    if (this.mapped.remove(region) || this.remote.remove(region)) return;
    throw new CodedError('REGION_UNKNOWN', `region ${region}`);
  }

  clear(): void {
    this.mapped.clear();
    this.remote.clear();
  }

  load32(gpa: PhysicalAddress): boolean {
    if (this.mapped.load32(gpa)) {
      this.lo = this.mapped.lo;
      return true;
    }
    if (!this.remote.load32(gpa)) return false;
    this.lo = this.remote.lo;
    return true;
  }

  load64(gpa: PhysicalAddress): boolean {
    const from = this.mapped.load64(gpa) ? this.mapped : this.remote.load64(gpa) ? this.remote : undefined;
    if (from === undefined) return false;
    this.lo = from.lo;
    this.hi = from.hi;
    return true;
  }

  loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    return this.mapped.loadWords(gpa, out, count) || this.remote.loadWords(gpa, out, count);
  }

  store32(gpa: PhysicalAddress, value: number): boolean {
    return this.mapped.store32(gpa, value) || this.remote.store32(gpa, value);
  }

  store64(gpa: PhysicalAddress, lo: number, hi: number): boolean {
    return this.mapped.store64(gpa, lo, hi) || this.remote.store64(gpa, lo, hi);
  }

  cas32(gpa: PhysicalAddress, expected: number, value: number): boolean {
    const on = this.mapped.contains(gpa, 4) ? this.mapped : this.remote;
    const done = on.cas32(gpa, expected, value);
    this.lo = on.lo;
    return done;
  }

  sameBytes(gpa: PhysicalAddress, copy: Uint8Array, at: number, bytes: number): boolean {
    const on = this.mapped.contains(gpa, bytes) ? this.mapped : this.remote;
    return on.sameBytes(gpa, copy, at, bytes);
  }

  contains(gpa: PhysicalAddress, bytes: number): boolean {
    return this.mapped.contains(gpa, bytes) || this.remote.contains(gpa, bytes);
  }

  #checkFree(region: Pick<Region, 'region' | 'gpa' | 'size'>, other: MappedMemory | RemoteMemory): void {
    if (other.has(region.region)) throw new CodedError('REGION_EXISTS', `region ${region.region}`);
    if (other.overlaps(region.gpa, region.size)) {
      throw new CodedError(
        'REGION_OVERLAPS',
        `region ${region.region}: ${region.size} bytes at ${region.gpa}`,
      );
    }
  }
}
