/** A device that was assigned to a guest, and the DMA that it does. */

import type { DeviceKind } from '../../assignment/request.js';
import { NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES } from '../../base/page.js';
import { belowHi, belowLo, join } from '../../base/u64.js';
import { ACCESS } from '../../device/iommu.js';
import type { HostDevice } from '../port.js';
import type { Endpoint } from './host-domain.js';
import { newResult } from './unit.js';

/** How a transfer ended. */
interface HostDmaResult {
  /** Bytes moved. */
  readonly done: number;
  /** Address that was refused, low and high half; undefined when all went well. */
  readonly failedAt: readonly [lo: number, hi: number] | undefined;
}

/** What a device is connected to. */
export interface DeviceBus {
  /** Translates one request; what was refused has been reported. */
  translate(
    device: SimDevice,
    endpoint: Endpoint,
    access: number,
    lo: number,
    hi: number,
    result: ReturnType<typeof newResult>,
  ): boolean;
  /** The device itself refuses a PASID that is not one of its own. */
  refusePasid(device: SimDevice, pasid: number, access: number, lo: number, hi: number): void;
  /** 32 bits of host memory; false where there is none. */
  load(device: SimDevice, hostAddress: number): number | undefined;
  store(device: SimDevice, hostAddress: number, value: number): boolean;
  pageRequest(device: SimDevice, endpoint: Endpoint, request: SimPageRequest): void;
}

export interface SimPageRequest {
  readonly pasid: number;
  readonly access: number;
  readonly lo: number;
  readonly hi: number;
  readonly group: number;
  readonly last: boolean;
}

export class SimDevice {
  readonly #bus: DeviceBus;
  /** Answers to its page requests, in the order in which they came. */
  readonly responses: { readonly pasid: number; readonly group: number; readonly code: number }[] = [];
  /** PASIDs that were allocated for this device, beside its own. */
  readonly allocated = new Set<number>();
  /** Unplugged: does nothing any more. */
  gone = false;
  readonly #result = newResult();

  /**
   * `own`: what its requests without PASID carry: nothing (a VF), or the PASID that it is (an
   * mdev).
   */
  constructor(
    bus: DeviceBus,
    readonly number: HostDevice,
    readonly kind: DeviceKind,
    readonly rid: number,
    readonly own: number,
  ) {
    this.#bus = bus;
  }

  /** Every PASID of an mdev. */
  allPasids(): number[] {
    return [this.own, ...this.allocated];
  }

  /**
   * Where requests with a PASID, or without one (−1), come from; undefined: not one of its PASIDs.
   */
  endpoint(pasid: number): Endpoint | undefined {
    if (pasid === NO_PASID) return { rid: this.rid, pasid: this.own };
    if (this.kind === 'vf' || this.allocated.has(pasid)) return { rid: this.rid, pasid };
    return undefined;
  }

  /** Device to memory: 32-bit words at a 4-byte aligned address. */
  write(lo: number, hi: number, data: Uint32Array, pasid: number = NO_PASID): HostDmaResult {
    return this.#move(lo, hi, data, pasid, ACCESS.WRITE);
  }

  /** Memory to device: fills `data`. */
  read(lo: number, hi: number, data: Uint32Array, pasid: number = NO_PASID): HostDmaResult {
    return this.#move(lo, hi, data, pasid, ACCESS.READ);
  }

  /** Asks for a page; the answer comes into {@link responses}. */
  requestPage(request: SimPageRequest): void {
    const endpoint = this.endpoint(request.pasid);
    if (this.gone || endpoint === undefined) this.responses.push({ ...request, code: 1 });
    else this.#bus.pageRequest(this, endpoint, request);
  }

  #move(lo: number, hi: number, data: Uint32Array, pasid: number, access: number): HostDmaResult {
    const bytes = data.length * 4;
    const endpoint = this.endpoint(pasid);
    if (this.gone) return { done: 0, failedAt: [lo, hi] };
    if (endpoint === undefined) {
      this.#bus.refusePasid(this, pasid, access, lo, hi);
      return { done: 0, failedAt: [lo, hi] };
    }
    let done = 0;
    while (done < bytes) {
      // One request never crosses a page, so that every page is looked up as on a bus.
      const atLo = (lo + done) >>> 0;
      const atHi = (hi + Math.floor(((lo >>> 0) + done) / 2 ** 32)) >>> 0;
      const length = Math.min(bytes - done, PAGE_BYTES - (atLo % PAGE_BYTES));
      const result = this.#result;
      if (!this.#bus.translate(this, endpoint, access, atLo, atHi, result))
        return { done, failedAt: [atLo, atHi] };
      const log2 = result.spans[4];
      const out = join(result.spans[2], result.spans[3]) + join(atLo & belowLo(log2), atHi & belowHi(log2));
      for (let i = 0; i < length; i += 4) {
        if (!this.#word(out + i, data, (done + i) / 4, access))
          return { done: done + i, failedAt: [atLo + i, atHi] };
      }
      done += length;
    }
    return { done, failedAt: undefined };
  }

  #word(address: number, data: Uint32Array, index: number, access: number): boolean {
    if (access === ACCESS.WRITE) return this.#bus.store(this, address, data[index]);
    const value = this.#bus.load(this, address);
    if (value !== undefined) data[index] = value;
    return value !== undefined;
  }
}
