/**
 * Register-based invalidation: CCMD_REG and IOTLB_REG. VT-d §6.5.1, §11.4.6.
 *
 * ICC and IVT clear, with the granularity that was performed beside them, only after the caches
 * outside have acknowledged. Requests that are incorrect (not in legacy mode, while the queue is
 * enabled, with a reserved granularity or an unsupported mask) complete with granularity 00 and do
 * nothing.
 */
import {
  CC_GRANULARITY,
  CCMD_REG,
  GSTS_REG,
  IOTLB_GRANULARITY,
  IOTLB_REG,
  IVA_REG,
  TTM,
} from '../../spec/vtd/registers.js';
import type { IommuOutputs } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import type { VtdInvalidator } from './invalidation.js';
import type { VtdLookup } from './lookup.js';

/** In the high words. */
const ICC = 1 << (CCMD_REG.fields.ICC.lsb - 32);
const CAIG_SHIFT = CCMD_REG.fields.CAIG.lsb - 32;
const IVT = 1 << (IOTLB_REG.fields.IVT.lsb - 32);
const IAIG_SHIFT = IOTLB_REG.fields.IAIG.lsb - 32;
const GRANULARITY = 3;
/** What is reported for an incorrect request. */
const ERROR = 0;

export class RegisterInvalidation {
  readonly #config: VtdConfig;
  readonly #file: RegisterFile;
  readonly #lookup: VtdLookup;
  readonly #invalidator: VtdInvalidator;
  readonly #outputs: IommuOutputs;
  #contextPending = false;
  #contextPerformed = ERROR;
  #iotlbPending = false;
  #iotlbPerformed = ERROR;

  constructor(
    config: VtdConfig,
    file: RegisterFile,
    lookup: VtdLookup,
    invalidator: VtdInvalidator,
    outputs: IommuOutputs,
  ) {
    this.#config = config;
    this.#file = file;
    this.#lookup = lookup;
    this.#invalidator = invalidator;
    this.#outputs = outputs;
    // ICC and IVT stand in the high words.
    file.onWrite(CCMD_REG.offset + 4, (written) => this.#contextWritten(written));
    file.onWrite(IOTLB_REG.offset + 4, (written) => this.#iotlbWritten(written));
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.#contextPending = false;
    this.#iotlbPending = false;
  }

  #allowed(): boolean {
    const queued = GSTS_REG.get.QIES(this.#file.words, GSTS_REG.offset >> 2) === 1;
    return !queued && this.#lookup.mode === TTM.LEGACY;
  }

  #contextWritten(written: number): void {
    if ((written & ICC) === 0 || this.#contextPending) return;
    const base = CCMD_REG.offset >> 2;
    const { words } = this.#file;
    const granularity = CCMD_REG.get.CIRG(words, base);
    this.#contextPending = true;
    this.#contextPerformed = ERROR;
    if (this.#allowed() && granularity !== CC_GRANULARITY.RESERVED) {
      this.#contextPerformed = granularity;
      const did = CCMD_REG.get.DID(words, base);
      const sid = CCMD_REG.get.SID(words, base);
      this.#invalidator.contextCache(granularity, did, sid, CCMD_REG.get.FM(words, base), false);
    }
    this.publish();
  }

  #iotlbWritten(written: number): void {
    if ((written & IVT) === 0 || this.#iotlbPending) return;
    const { words } = this.#file;
    const base = IOTLB_REG.offset >> 2;
    const granularity = IOTLB_REG.get.IIRG(words, base);
    const addressMask = IVA_REG.get.AM(words, IVA_REG.offset >> 2);
    const paged = granularity === IOTLB_GRANULARITY.PAGE;
    this.#iotlbPending = true;
    this.#iotlbPerformed = ERROR;
    const supported =
      granularity !== IOTLB_GRANULARITY.RESERVED &&
      (!paged || addressMask <= this.#config.maximumAddressMask);
    if (this.#allowed() && supported) {
      this.#iotlbPerformed = granularity;
      const lo = this.#file.get(IVA_REG.offset);
      const hi = this.#file.get(IVA_REG.offset + 4);
      this.#invalidator.iotlb(granularity, IOTLB_REG.get.DID(words, base), lo, hi, addressMask);
    }
    this.publish();
  }

  /**
   * Reports completion once nothing is outstanding: granularity and flag share a word, so one
   * store.
   */
  publish(): void {
    if (this.#outputs.pendingAcks() > 0) return;
    if (this.#contextPending) {
      this.#contextPending = false;
      const performed = this.#contextPerformed << CAIG_SHIFT;
      this.#file.update(CCMD_REG.offset + 4, ICC | (GRANULARITY << CAIG_SHIFT), performed);
    }
    if (this.#iotlbPending) {
      this.#iotlbPending = false;
      const performed = this.#iotlbPerformed << IAIG_SHIFT;
      this.#file.update(IOTLB_REG.offset + 4, IVT | (GRANULARITY << IAIG_SHIFT), performed);
    }
  }
}
