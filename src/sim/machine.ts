/**
 * What a guest driver and a device can see of their machine: registers, guest RAM, and the bus.
 * Drivers and devices of the simulation use only this interface, so they also run against a model
 * that is called directly, as in the fuzzers.
 *
 * The simulation is not hot code: device addresses (up to 64 bits) are BigInt, guest-physical ones
 * (up to 52 bits) are numbers.
 */

import { PAGE_BYTES } from '../base/page.js';

/** Guest RAM by guest-physical address; little-endian. Throws a RangeError outside of RAM. */
export interface GuestRam {
  load32(gpa: number): number;
  store32(gpa: number, value: number): void;
  load64(gpa: number): bigint;
  store64(gpa: number, value: bigint): void;
  /** True when [gpa, gpa+bytes) is inside one region of RAM. */
  contains(gpa: number, bytes: number): boolean;
}

/** Where one device access lands. */
export interface Translation {
  /** Guest-physical address of the input address itself. */
  readonly gpa: number;
  /** ACCESS bits that the mapping allows. */
  readonly permissions: number;
  /** Bytes from `gpa` to the end of the block that this translation covers. */
  readonly length: number;
}

/** One message-signalled interrupt, as written to memory. */
export interface MsiWrite {
  readonly address: number;
  readonly data: number;
}

/** The answer to a request of any kind, as a device with ATS and stalls sees it. */
export interface BusAnswer {
  /** Of TRANSLATE_STATUS. */
  readonly status: number;
  /** Names the request in {@link Machine.resumes}; meaningful when it is stalled. */
  readonly stall: number;
  /** Six words, see `TranslateResult.spans`; none unless the status is OK. */
  readonly span: readonly number[];
  /** Good for this request alone. */
  readonly once: boolean;
}

/** A page request of a device. */
export interface BusPageRequest {
  readonly rid: number;
  readonly pasid: number;
  readonly access: number;
  readonly address: bigint;
  readonly group: number;
  readonly last: boolean;
}

/** The answer to a group of page requests. */
export interface BusPageResponse {
  readonly rid: number;
  readonly pasid: number;
  readonly group: number;
  readonly code: number;
}

/**
 * An ATS invalidation request. The device drops the block and answers with a result of DEVICE_TLB.
 */
export interface DeviceDrop {
  readonly pasid: number;
  readonly address: bigint;
  /** ≥ 64: every address. */
  readonly log2Size: number;
  readonly global: boolean;
}
export type DropHandler = (drop: DeviceDrop) => number;

export interface Machine {
  readonly ram: GuestRam;
  /** Interrupts raised so far, oldest first. The driver shifts out what it handles. */
  readonly interrupts: MsiWrite[];
  /** Edges on the unit's own interrupt outputs so far, by `WIRE`, oldest first. */
  readonly edges: number[];
  /** Bytes of register space. */
  readonly registerBytes: number;
  /** A CPU load from the IOMMU's registers of 4 or 8 bytes. */
  readRegister(offset: number, size: 4 | 8): bigint;
  /** A CPU store of 1, 2, 4 or 8 bytes. */
  writeRegister(offset: number, size: number, value: bigint): void;
  /**
   * A device's request on the bus: `pasid` −1 = without PASID. Undefined when the IOMMU refuses it.
   */
  translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined;
  /**
   * The same with a `kind` of REQUEST, for devices with ATS or stalls. Never answered from the
   * machine's cache.
   */
  request(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
    kind: number,
    mayStall: boolean,
  ): BusAnswer;
  /** A PCI Express Page Request Message. */
  requestPage(request: BusPageRequest): void;
  /** Devices with translations of their own, by requester id. Others have no such device. */
  readonly deviceTlbs: Map<number, DropHandler>;
  /**
   * Actions of RESUME by `stall`. One may come before the answer that names its stall. Devices take
   * theirs.
   */
  readonly resumes: Map<number, number>;
  /** Answers to page requests, oldest first. Devices take theirs. */
  readonly pageResponses: BusPageResponse[];
  /**
   * Lets the rest of the machine run while a CPU polls: serves requests of the IOMMU, and waits at
   * most `ms` milliseconds for one. Returns true when something was served.
   */
  idle(ms: number): boolean;
}

/** Hands out zeroed pages of guest RAM to the driver. */
export class PageAllocator {
  readonly #ram: GuestRam;
  #next: number;
  readonly #end: number;
  readonly #free: number[] = [];

  /** Pages come from [start, end), both 4 KiB aligned. */
  constructor(ram: GuestRam, start: number, end: number) {
    this.#ram = ram;
    this.#next = start;
    this.#end = end;
  }

  /** Address of `count` contiguous zeroed 4 KiB pages. Throws when the range is used up. */
  take(count = 1): number {
    const again = count === 1 ? this.#free.pop() : undefined;
    const gpa = again ?? this.#next;
    if (again === undefined) {
      if (gpa + count * PAGE_BYTES > this.#end) throw new RangeError('simulated guest: no pages left');
      this.#next += count * PAGE_BYTES;
    }
    for (let at = gpa; at < gpa + count * PAGE_BYTES; at += 8) this.#ram.store64(at, 0n);
    return gpa;
  }

  /** Contiguous pages aligned to `1 << log2` bytes, for superpages. Not zeroed. */
  takeAligned(log2: number, bytes: number): number {
    const size = 2 ** log2;
    const gpa = Math.ceil(this.#next / size) * size;
    if (gpa + bytes > this.#end) throw new RangeError('simulated guest: no pages left');
    this.#next = gpa + bytes;
    return gpa;
  }

  give(gpa: number): void {
    this.#free.push(gpa);
  }
}
