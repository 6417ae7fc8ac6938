/** Answering DMA requests: VT-d §3.4 to §3.8, §3.15, §6.2.4, §6.2.7. */

import { ANY, NO_PASID } from '../../base/ids.js';
import { belowHi, belowLo } from '../../base/u64.js';
import { MISS } from '../../cache/entry-cache.js';
import { type Iotlb, STAGE } from '../../cache/iotlb.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { Neighbours } from '../../walk/neighbours.js';
import type { WalkResult } from '../../walk/types.js';
import type { ModelCounters } from '../counters.js';
import { ACCESS, MAX_SPANS, type TranslateRequest, type TranslateResult } from '../iommu.js';
import type { WalkTables } from '../tables.js';
import type { VtdConfig } from './config.js';
import { type Domain, KIND } from './domain.js';
import { OK, type VtdLookup } from './lookup.js';
import { permissionReason } from './reasons.js';
import {
  addSpan,
  beginAnswer,
  clearOfInterrupts,
  INTERRUPT_PAGES,
  inInterruptRange,
  keepClear,
  NO_DOMAIN,
  refuse,
  WHOLE_SPACE,
} from './spans.js';
import { stageOf, type TableWalk } from './table-walk.js';

const DATA = ACCESS.READ | ACCESS.WRITE;
/** Bytes of an interrupt request. */
const DOUBLEWORD = 4;

export class VtdTranslator {
  readonly #config: VtdConfig;
  readonly #lookup: VtdLookup;
  readonly #tables: TableWalk;
  readonly #memory: GuestMemory;
  readonly #counters: ModelCounters;
  readonly iotlb: Iotlb;
  /** Domain-ids for which first-stage or nested translations were handed out: 1 each. */
  readonly firstStageHandedOut = new Uint8Array(0x10000);
  /** Domain-ids whose first-stage tables the peer walks: 1 each. */
  readonly firstStageWalked = new Uint8Array(0x10000);
  /** Of the last request that faulted: an FPD bit on the way suppresses reporting. */
  suppressed = false;
  readonly #domain: Domain;
  readonly #walked: WalkResult;
  readonly #neighbours = new Neighbours();

  constructor(
    config: VtdConfig,
    lookup: VtdLookup,
    tables: TableWalk,
    memory: GuestMemory,
    counters: ModelCounters,
  ) {
    this.#config = config;
    this.#lookup = lookup;
    this.#tables = tables;
    this.#memory = memory;
    this.#counters = counters;
    this.iotlb = tables.iotlb;
    this.#domain = tables.domain;
    this.#walked = tables.walked;
  }

  /** Power-on. */
  reset(): void {
    this.iotlb.invalidateAll();
    this.droppedDownstream();
  }

  /** Caches outside are empty. */
  droppedDownstream(): void {
    this.firstStageHandedOut.fill(0);
    this.firstStageWalked.fill(0);
  }

  /**
   * Remapping is off: every address is its own translation. `clear`: an answer to a request without
   * PASID does not cover the interrupt range.
   */
  identity(request: TranslateRequest, clear: boolean, result: TranslateResult): void {
    const { lo, hi, pasid } = request;
    const kept = clear && pasid === NO_PASID;
    const size = kept
      ? clearOfInterrupts(lo >>> 0, hi >>> 0, lo >>> 0, hi >>> 0, WHOLE_SPACE, true)
      : WHOLE_SPACE;
    beginAnswer(result, NO_DOMAIN, ANY);
    addSpan(result, lo, hi, lo, hi, size, ACCESS.READ | ACCESS.WRITE | ACCESS.EXECUTE);
  }

  /** An interrupt that came as DMA while interrupts are remapped. */
  refuseInterrupt(result: TranslateResult): void {
    this.suppressed = false;
    refuse(result);
  }

  /**
   * Answers a request while remapping is on. Returns {@link OK} or the fault reason; then nothing
   * is answered.
   */
  translate(request: TranslateRequest, result: TranslateResult): number {
    this.suppressed = false;
    if (request.pasid === NO_PASID && inInterruptRange(request.lo >>> 0, request.hi >>> 0)) {
      return this.#interruptRequest(request, result);
    }
    const blocked = request.pasid !== NO_PASID && (request.access & ~DATA) !== 0;
    if (!blocked) {
      const hit = this.#fromIotlb(request, result);
      if (hit !== MISS) return hit;
    }
    const reason = this.#lookup.resolve(request.rid, request.pasid, request.access, true, this.#domain);
    this.suppressed = this.#domain.suppressed;
    if (reason !== OK) return this.#fault(result, reason);
    if (this.#domain.kind === KIND.PASS_THROUGH) return this.#passThrough(request, result);
    return this.#walkTables(request, result);
  }

  #fault(result: TranslateResult, reason: number): number {
    refuse(result);
    return reason;
  }

  /**
   * §3.15: a request without PASID to FEEx_xxxxh is no DMA, whatever the tables say. A write of one
   * aligned doubleword is an interrupt, which without interrupt remapping goes through as it is;
   * anything else is not. A peer that does not say how long a write is has seen to that.
   */
  #interruptRequest(request: TranslateRequest, result: TranslateResult): number {
    const { access, lo, size = 0 } = request;
    const other = size !== 0 && (size !== DOUBLEWORD || (lo & (DOUBLEWORD - 1)) !== 0);
    if ((access & ~ACCESS.WRITE) !== 0 || (access !== 0 && other)) return this.#fault(result, FAULT.IR_29);
    beginAnswer(result, NO_DOMAIN, ANY);
    addSpan(result, request.lo, request.hi, request.lo, request.hi, 12, ACCESS.WRITE);
    return OK;
  }

  /** Answers from the IOTLB: OK, a fault reason, or MISS when the tables have to be walked. */
  #fromIotlb(request: TranslateRequest, result: TranslateResult): number {
    const tlb = this.iotlb;
    const slot = tlb.lookup(request.rid, request.pasid, request.lo, request.hi);
    if (slot === MISS) return MISS;
    const access = dataAccess(request.access);
    const tag = tlb.tagOf(slot);
    if (tlb.faults[slot] !== 0)
      return this.#cachedFault(request, result, keptReason(tlb.faults[slot], access));
    if ((access & ~tlb.permissions[slot]) !== 0) {
      const denied = access & ~tlb.permissions[slot];
      return this.#cachedFault(request, result, permissionReason(tag !== ANY, denied, tlb.permissions[slot]));
    }
    if ((access & ~tlb.cachable[slot]) !== 0) return MISS;
    const log2 = tlb.log2SizeOf(slot);
    const outLo = tlb.outLo[slot] | (request.lo & belowLo(log2));
    const outHi = tlb.outHi[slot] | (request.hi & belowHi(log2));
    if (inInterruptRange(outLo >>> 0, outHi >>> 0))
      return this.#cachedFault(request, result, interruptReason(tag));
    this.#counters.iotlbHits++;
    const permissions = tlb.cachable[slot];
    const did = tlb.domainOf(slot);
    return this.#answer(request, result, outLo, outHi, log2, permissions, did, tag, tlb.stageOf(slot));
  }

  /** A fault that the IOTLB tells; only FPD has still to be looked up. */
  #cachedFault(request: TranslateRequest, result: TranslateResult, reason: number): number {
    this.#lookup.resolve(request.rid, request.pasid, request.access, true, this.#domain);
    this.suppressed = this.#domain.suppressed;
    this.#counters.iotlbHits++;
    return this.#fault(result, reason);
  }

  /** §3.7 and §9.3: pass-through of addresses within the reach of the entry. */
  #passThrough(request: TranslateRequest, result: TranslateResult): number {
    const domain = this.#domain;
    const { lo, hi } = request;
    if (hi >>> 0 >= 2 ** (domain.passThroughWidth - 32)) {
      return this.#fault(result, domain.scalable ? FAULT.SGN_4 : FAULT.LGN_1);
    }
    const { did, tag, passThroughWidth } = domain;
    return this.#answer(request, result, lo, hi, passThroughWidth, DATA, did, tag, STAGE.SECOND);
  }

  /** Walks the domain's tables, keeps the outcome, answers. */
  #walkTables(request: TranslateRequest, result: TranslateResult): number {
    const domain = this.#domain;
    const walked = this.#walked;
    const access = dataAccess(request.access);
    const reason = this.#tables.run(request, access);
    if (reason !== OK) return this.#fault(result, reason);
    const outLo = walked.outLo | (request.lo & belowLo(walked.log2Size));
    const outHi = walked.outHi | (request.hi & belowHi(walked.log2Size));
    if (inInterruptRange(outLo >>> 0, outHi >>> 0)) return this.#fault(result, interruptReason(domain.tag));
    beginAnswer(result, domain.did, domain.tag);
    result.count = this.#collect(request, access, result);
    keepClear(result, request.lo >>> 0, request.hi >>> 0, request.pasid === NO_PASID);
    if (stageOf(domain) === STAGE.FIRST) this.firstStageHandedOut[domain.did] = 1;
    return OK;
  }

  /**
   * See {@link PeerWalkView.describe}; remapping is on. Only where an entry that becomes present is
   * found at once, as tables have it: not with caching mode, nor with a cache policy that is after
   * something else.
   */
  describeWalk(rid: number, pasid: number, out: WalkTables): boolean {
    const domain = this.#domain;
    const config = this.#config;
    if (config.cachingMode || config.cachePolicy !== 'faithful') return false;
    if (this.#lookup.resolve(rid, pasid, 0, true, domain) !== OK) return false;
    if (domain.kind !== KIND.SECOND && domain.kind !== KIND.FIRST) return false;
    const second = domain.kind === KIND.SECOND;
    out.format = second ? domain.secondFormat : domain.firstFormat;
    out.root = second ? domain.secondRoot : domain.firstRoot;
    out.space = domain.did;
    out.sub = domain.tag;
    out.expectedMask = 0;
    out.expected = 0;
    out.holeFirst = INTERRUPT_PAGES.FIRST;
    out.holeLast = INTERRUPT_PAGES.LAST;
    out.holeInput = pasid === NO_PASID;
    if (!second) this.firstStageWalked[domain.did] = 1;
    return true;
  }

  /**
   * The walked block and valid translations beside it. A look without access reports what is
   * mapped; otherwise spans only allow what needs no further Accessed or Dirty update.
   */
  #collect(request: TranslateRequest, access: number, result: TranslateResult): number {
    const domain = this.#domain;
    const walked = this.#walked;
    const neighbours = this.#neighbours;
    const { lo, hi } = request;
    if (this.#config.cachePolicy === 'none') {
      // No cache may keep anything, so neighbours would be of no use.
      const permissions = (access === 0 ? walked.permissions : walked.cachable) & DATA;
      addSpan(result, lo, hi, walked.outLo, walked.outHi, walked.log2Size, permissions);
      return result.count;
    }
    if (domain.kind === KIND.NESTED) {
      return neighbours.collectNested(
        domain.firstFormat,
        this.#tables.stage2,
        domain.secondFormat,
        domain.secondRoot,
        lo | 0,
        hi | 0,
        access,
        walked,
        result.spans,
        MAX_SPANS,
      );
    }
    const format = domain.kind === KIND.SECOND ? domain.secondFormat : domain.firstFormat;
    return neighbours.collect(format, this.#memory, lo | 0, hi | 0, access, walked, result.spans, MAX_SPANS);
  }

  /**
   * The answer to a request that its tables allow, unless it comes out in the interrupt range
   * (LGN.4, SGN.8).
   */
  #answer(
    request: TranslateRequest,
    result: TranslateResult,
    outLo: number,
    outHi: number,
    log2: number,
    permissions: number,
    did: number,
    tag: number,
    stage: number,
  ): number {
    if (inInterruptRange(outLo >>> 0, outHi >>> 0)) {
      return this.#fault(result, interruptReason(tag));
    }
    beginAnswer(result, did, tag);
    const inputToo = request.pasid === NO_PASID;
    const size = clearOfInterrupts(
      request.lo >>> 0,
      request.hi >>> 0,
      outLo >>> 0,
      outHi >>> 0,
      log2,
      inputToo,
    );
    addSpan(result, request.lo, request.hi, outLo, outHi, size, permissions);
    if (stage === STAGE.FIRST) this.firstStageHandedOut[did] = 1;
    return OK;
  }
}

/** What of an access the tables decide: fetching for execution needs the right to read. */
function dataAccess(access: number): number {
  return (access & DATA) | ((access & ACCESS.EXECUTE) !== 0 ? ACCESS.READ : 0);
}

/** Reason of an output in the interrupt address range, by the tag that only scalable mode has. */
export function interruptReason(tag: number): number {
  return tag === ANY ? FAULT.LGN_4 : FAULT.SGN_8;
}

/**
 * A kept fault's reason for this request: in legacy mode "not present" is told as the right that is
 * missing.
 */
export function keptReason(reason: number, access: number): number {
  if (reason !== FAULT.LGN_2 && reason !== FAULT.LGN_3) return reason;
  return (access & ACCESS.WRITE) !== 0 ? FAULT.LGN_2 : FAULT.LGN_3;
}
