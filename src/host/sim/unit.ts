/**
 * A model of ours as the host's hardware: the same emulated IOMMU that guests see, over host
 * memory, programmed through its registers as a kernel would do it.
 */
import {
  emptyRequest,
  emptyResult,
  type IommuOutputs,
  type PageRequest,
  TRANSLATE_STATUS,
  type TranslateResult,
} from '../../device/iommu.js';
import { createModel, modelRegisterBytes } from '../../device/models.js';
import type { Endpoint } from './host-domain.js';
import type { HostMemory } from './memory.js';

/** A result to be filled by translations. */
export function newResult(): TranslateResult {
  return emptyResult();
}

export class HostUnit {
  readonly registers: Uint32Array;
  /** Answers to page requests, as the hardware sends them to devices. */
  readonly pageResponses: { rid: number; pasid: number; group: number; code: number }[] = [];
  readonly #model;
  readonly #request = emptyRequest();

  constructor(name: 'vtd' | 'smmuv3', options: Readonly<Record<string, string>>, memory: HostMemory) {
    this.registers = new Uint32Array(modelRegisterBytes(name) / 4);
    this.#model = createModel(name, options, { memory, registers: this.registers, outputs: this.#outputs() });
  }

  read32(offset: number): number {
    return this.registers[offset >> 2] as number;
  }

  write32(offset: number, value: number): void {
    this.#model.writeRegister(offset, 4, value >>> 0, 0);
  }

  write64(offset: number, value: number): void {
    this.#model.writeRegister(offset, 8, value % 2 ** 32, Math.floor(value / 2 ** 32));
  }

  translate(endpoint: Endpoint, access: number, lo: number, hi: number, result: TranslateResult): boolean {
    const request = this.#request;
    request.rid = endpoint.rid;
    request.pasid = endpoint.pasid;
    request.access = access;
    request.lo = lo;
    request.hi = hi;
    this.#model.translate(request, result);
    return result.status === TRANSLATE_STATUS.OK && result.count > 0;
  }

  /** A device's page request. False: this hardware has none. */
  pageRequest(request: PageRequest): boolean {
    this.#model.devices?.pageRequest?.(request);
    return this.#model.devices?.pageRequest !== undefined;
  }

  /**
   * The simulated devices have no caches, hold no requests, and the kernel looks at queues by
   * itself.
   */
  #outputs(): IommuOutputs {
    return {
      invalidate: () => {},
      pendingAcks: () => 0,
      interrupt: () => {},
      wire: () => {},
      resume: () => {},
      pageResponse: (rid, pasid, group, code) => void this.pageResponses.push({ rid, pasid, group, code }),
      invalidateDeviceTlb: () => true,
      event: () => {},
    };
  }
}
