/**
 * Devices with a TLB of their own: translation requests and translated requests. VT-d §4.2, Table
 * 30.
 */

import { ANY, NO_PASID } from '../../base/ids.js';
import { PAGE_LOG2 } from '../../base/page.js';
import { belowHi, belowLo } from '../../base/u64.js';
import { MISS } from '../../cache/entry-cache.js';
import { COMPLETION, completionOf, FAULT } from '../../spec/vtd/faults.js';
import {
  ACCESS,
  ATS,
  REQUEST,
  TRANSLATE_STATUS,
  type TranslateRequest,
  type TranslateResult,
} from '../iommu.js';
import type { VtdConfig } from './config.js';
import { type Domain, KIND } from './domain.js';
import type { FaultRecorder } from './fault-recorder.js';
import { GATE, OK, type VtdLookup } from './lookup.js';
import { addSpan, beginAnswer, clearOfInterrupts, inInterruptRange, refuse } from './spans.js';
import type { TableWalk } from './table-walk.js';
import { interruptReason, keptReason } from './translate.js';

const DATA = ACCESS.READ | ACCESS.WRITE;
/**
 * What a translation of something that passes through covers: the largest page there is (§4.2.3).
 */
const LARGEST_PAGE_LOG2 = 30;

export class DeviceTlbRequests {
  readonly #config: VtdConfig;
  readonly #lookup: VtdLookup;
  readonly #tables: TableWalk;
  readonly #faults: FaultRecorder;
  readonly #domain: Domain;

  constructor(config: VtdConfig, lookup: VtdLookup, tables: TableWalk, faults: FaultRecorder) {
    this.#config = config;
    this.#lookup = lookup;
    this.#tables = tables;
    this.#faults = faults;
    this.#domain = tables.domain;
  }

  /**
   * Answers a request whose kind is not UNTRANSLATED, and records its fault where there is one.
   * What the root complex refuses by itself leaves no record: everything while remapping is off or
   * Device-TLBs are not offered, and a PASID in a translated request (§4.2.1).
   */
  answer(request: TranslateRequest, translating: boolean, result: TranslateResult): void {
    const translated = request.kind === REQUEST.TRANSLATED;
    if (!translating || !this.#config.deviceTlb || (translated && request.pasid !== NO_PASID)) {
      refuse(result);
      return;
    }
    const reason = translated ? this.#translated(request, result) : this.#translation(request, result);
    if (reason === OK) return;
    refuse(result);
    const completion = translated ? COMPLETION.UNSUPPORTED : completionOf(reason);
    if (completion === COMPLETION.ABORT) result.status = TRANSLATE_STATUS.COMPLETER_ABORT;
    else if (completion !== COMPLETION.UNSUPPORTED) this.#nothing(request, result);
    if (completion !== COMPLETION.NOTHING) this.#faults.record(reason, request, this.#domain.suppressed);
  }

  /**
   * §4.2.5: within the host address width every address is what it is, for those that are admitted.
   */
  #translated(request: TranslateRequest, result: TranslateResult): number {
    const domain = this.#domain;
    const lo = request.lo >>> 0;
    const hi = request.hi >>> 0;
    const reason = this.#lookup.admits(request.rid, NO_PASID, GATE.DEVICE_TLB, domain);
    if (reason !== OK) return reason;
    const scalable = this.#lookup.isScalable;
    if (hi >= 2 ** (this.#config.hostAddressWidth - 32)) return scalable ? FAULT.SGN_4 : FAULT.LGN_1;
    if (inInterruptRange(lo, hi)) return scalable ? FAULT.SGN_8 : FAULT.LGN_4;
    beginAnswer(result, domain.did, ANY);
    addSpan(result, lo, hi, lo, hi, PAGE_LOG2, DATA);
    return OK;
  }

  /** §4.2.3: one translation. A request that is not for writing (NW) is given no right to. */
  #translation(request: TranslateRequest, result: TranslateResult): number {
    const domain = this.#domain;
    const wanted = ACCESS.READ | (request.access & ACCESS.WRITE);
    const admitted = this.#lookup.admits(request.rid, request.pasid, GATE.DEVICE_TLB, domain);
    if (admitted !== OK) return admitted;
    const reason = this.#lookup.resolve(request.rid, request.pasid, request.access, true, domain);
    if (reason !== OK) return reason;
    if (request.pasid === NO_PASID && inInterruptRange(request.lo >>> 0, request.hi >>> 0)) {
      return this.#interruptRange(request, result);
    }
    if (domain.kind === KIND.PASS_THROUGH) return this.#passThrough(request, wanted, result);
    const hit = this.#fromIotlb(request, wanted, result);
    return hit === MISS ? this.#walk(request, wanted, result) : hit;
  }

  /** S.1 and S.2 of Table 30: interrupts are sent untranslated. */
  #interruptRange(request: TranslateRequest, result: TranslateResult): number {
    const writes = (request.access & ACCESS.WRITE) !== 0;
    beginAnswer(result, this.#domain.did, this.#domain.tag);
    const rights = writes ? ACCESS.WRITE | ATS.UNTRANSLATED_ONLY : 0;
    addSpan(result, request.lo, request.hi, 0, 0, PAGE_LOG2, rights);
    return OK;
  }

  #passThrough(request: TranslateRequest, wanted: number, result: TranslateResult): number {
    if (request.hi >>> 0 >= 2 ** (this.#domain.passThroughWidth - 32)) return FAULT.SGN_4;
    return this.#give(request, request.lo, request.hi, LARGEST_PAGE_LOG2, wanted, result);
  }

  /**
   * From what the IOTLB keeps: OK, a reason, or MISS when an Accessed or Dirty bit has to be set
   * first.
   */
  #fromIotlb(request: TranslateRequest, wanted: number, result: TranslateResult): number {
    const tlb = this.#tables.iotlb;
    const slot = tlb.lookup(request.rid, request.pasid, request.lo, request.hi);
    if (slot === MISS) return MISS;
    if (tlb.faults[slot] !== 0) return keptReason(tlb.faults[slot], wanted);
    const rights = tlb.permissions[slot] & wanted;
    if ((rights & ~tlb.cachable[slot]) !== 0) return MISS;
    return this.#give(request, tlb.outLo[slot], tlb.outHi[slot], tlb.log2SizeOf(slot), rights, result);
  }

  /**
   * A look first, since lack of a right is no fault here; then a walk for the rights that there
   * are, which sets their Accessed and Dirty bits (§4.2.3.1).
   */
  #walk(request: TranslateRequest, wanted: number, result: TranslateResult): number {
    const { walked } = this.#tables;
    const look = this.#tables.run(request, 0);
    // Once more as an access: a fault may have to be kept.
    if (look !== OK) return this.#tables.run(request, wanted) || look;
    const rights = walked.permissions & wanted;
    if (rights === 0) {
      this.#nothing(request, result);
      return OK;
    }
    const reason = this.#tables.run(request, rights);
    if (reason !== OK) return reason;
    return this.#give(request, walked.outLo, walked.outHi, walked.log2Size, rights, result);
  }

  /**
   * The block that holds the address, with these rights, unless it comes out in the interrupt
   * range.
   */
  #give(
    request: TranslateRequest,
    blockLo: number,
    blockHi: number,
    log2: number,
    rights: number,
    result: TranslateResult,
  ): number {
    const { did, tag } = this.#domain;
    const lo = request.lo >>> 0;
    const hi = request.hi >>> 0;
    const outLo = ((blockLo & ~belowLo(log2)) | (lo & belowLo(log2))) >>> 0;
    const outHi = ((blockHi & ~belowHi(log2)) | (hi & belowHi(log2))) >>> 0;
    if (inInterruptRange(outLo, outHi)) return interruptReason(tag);
    const size = clearOfInterrupts(lo, hi, outLo, outHi, log2, request.pasid === NO_PASID);
    beginAnswer(result, did, tag);
    addSpan(result, lo, hi, outLo, outHi, size, rights);
    return OK;
  }

  /** Success without a permission: the device keeps nothing, and may ask for the page. */
  #nothing(request: TranslateRequest, result: TranslateResult): void {
    beginAnswer(result, this.#domain.did, this.#domain.tag);
    addSpan(result, request.lo, request.hi, 0, 0, PAGE_LOG2, 0);
  }
}
