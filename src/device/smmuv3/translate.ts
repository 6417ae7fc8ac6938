/** Answering transactions: IHI 0070 §3.3.2, §3.4, §3.12, §7.3. */

import { ANY } from '../../base/ids.js';
import { belowHi, belowLo } from '../../base/u64.js';
import { MISS } from '../../cache/entry-cache.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { CLASS, EVENT } from '../../spec/smmuv3/events.js';
import { Neighbours } from '../../walk/neighbours.js';
import { WALK } from '../../walk/types.js';
import type { ModelCounters } from '../counters.js';
import { ACCESS, MAX_SPANS, type TranslateRequest, type TranslateResult } from '../iommu.js';
import { KIND } from '../leaves.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse } from '../spans.js';
import type { WalkTables } from '../tables.js';
import type { SmmuConfig } from './config.js';
import { OK } from './fault.js';
import type { Stream } from './stream.js';
import type { Streams } from './streams.js';
import { NOT_GLOBAL, RIGHTS, type Walks } from './walks.js';

export class SmmuTranslator {
  readonly #config: SmmuConfig;
  readonly #streams: Streams;
  readonly #walks: Walks;
  readonly #memory: GuestMemory;
  readonly #counters: ModelCounters;
  /** All spans of an answer have its tags: none that is global comes with one that is not. */
  readonly #neighbours = new Neighbours(NOT_GLOBAL);

  constructor(
    config: SmmuConfig,
    streams: Streams,
    walks: Walks,
    memory: GuestMemory,
    counters: ModelCounters,
  ) {
    this.#config = config;
    this.#streams = streams;
    this.#walks = walks;
    this.#memory = memory;
    this.#counters = counters;
  }

  /** The SMMU is off and does not abort: addresses within OAS pass. False for others. §3.4 */
  untouched(request: TranslateRequest, result: TranslateResult): boolean {
    if (this.beyond(request.hi)) return false;
    this.identity(request, RIGHTS, result);
    return true;
  }

  /**
   * Answers a transaction while SMMUEN is set. Returns {@link OK}; otherwise the fault of the walks
   * says why there is no answer.
   */
  translate(request: TranslateRequest, result: TranslateResult): number {
    const wrong = this.#streams.resolve(request.rid, request.pasid, this.#walks.fault);
    if (wrong !== OK) return this.#refused(result);
    return this.through(this.#streams.stream, request, result);
  }

  /** The same for a stream that is known. */
  through(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const hi = request.hi | 0;
    if (stream.kind === KIND.PASS_THROUGH || stream.kind === KIND.SECOND) {
      // §3.4: a fault of the stage 1 that is not there, and so never a stall.
      if (this.beyond(hi)) return this.#refuseWith(EVENT.F_ADDR_SIZE, true, false, result);
      if (stream.kind === KIND.PASS_THROUGH) {
        this.identity(request, RIGHTS, result);
        return OK;
      }
    } else if (!stream.aim(hi)) {
      return this.#refuseWith(EVENT.F_TRANSLATION, stream.firstRecorded, stream.firstStalls, result);
    }
    const looked = this.#fromTlb(stream, request, result);
    if (looked !== MISS) return looked;
    return this.#walkTables(stream, request, result);
  }

  /** Everything within OAS is its own translation. */
  identity(request: TranslateRequest, rights: number, result: TranslateResult): void {
    beginAnswer(result, NO_DOMAIN, ANY);
    addSpan(result, request.lo, request.hi, request.lo, request.hi, this.#config.outputBits, rights);
  }

  /**
   * True for the high half of an address beyond OAS, which is also the size of intermediate
   * addresses.
   */
  beyond(hi: number): boolean {
    return hi >>> 0 >= 2 ** (this.#config.outputBits - 32);
  }

  #refused(result: TranslateResult): number {
    refuse(result);
    return this.#walks.fault.event;
  }

  /** A fault of stage 1 on the address itself. */
  #refuseWith(event: number, recorded: boolean, stalls: boolean, result: TranslateResult): number {
    const { fault } = this.#walks;
    fault.configured(recorded, stalls);
    fault.raise(event);
    return this.#refused(result);
  }

  /** Answers from the TLB: OK, an event, or MISS when the tables have to be walked. §3.17 */
  #fromTlb(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const { tlb } = this.#walks;
    const hi = stream.kind === KIND.SECOND ? request.hi | 0 : stream.canonical(request.hi);
    const slot = this.#walks.kept(stream, request.access, request.lo, hi);
    if (slot === MISS) return MISS;
    const access = wantedRights(request.access);
    if ((access & ~tlb.permissions[slot]) !== 0) {
      // With two stages the tables tell which one refuses.
      if (stream.kind === KIND.NESTED) return MISS;
      this.#counters.iotlbHits++;
      return this.#keptPermission(stream, request, result);
    }
    if ((access & ~tlb.cachable[slot]) !== 0) return MISS;
    this.#counters.iotlbHits++;
    const log2 = this.#walks.handOutKept(stream, request, slot);
    const outLo = (tlb.outLo[slot] & ~belowLo(log2)) | (request.lo & belowLo(log2));
    const outHi = (tlb.outHi[slot] & ~belowHi(log2)) | (request.hi & belowHi(log2));
    beginAnswer(result, stream.vmid, stream.asid);
    addSpan(result, request.lo, request.hi, outLo, outHi, log2, tlb.cachable[slot] & RIGHTS);
    return OK;
  }

  #keptPermission(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const { fault } = this.#walks;
    fault.class = CLASS.IN;
    fault.s2 = stream.kind === KIND.SECOND;
    if (fault.s2) fault.configured(stream.secondRecorded, stream.secondStalls);
    else fault.configured(stream.firstRecorded, stream.firstStalls);
    fault.ipaLo = request.lo;
    fault.ipaHi = request.hi;
    fault.raise(EVENT.F_PERMISSION);
    return this.#refused(result);
  }

  #walkTables(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const walks = this.#walks;
    const access = wantedRights(request.access) | (request.access & ACCESS.PRIVILEGED);
    const outcome = walks.walk(stream, request.lo | 0, request.hi | 0, access);
    if (outcome !== WALK.OK) {
      walks.explain(stream, request, outcome);
      return this.#refused(result);
    }
    if (request.access !== 0) walks.keep(stream, request);
    beginAnswer(result, stream.vmid, stream.asid);
    result.count = this.#collect(stream, request, access, result);
    for (let index = 0; index < result.count; index++) result.spans[index * 6 + 5] &= RIGHTS;
    walks.handOut(stream, request);
    return OK;
  }

  /**
   * See {@link PeerWalkView.describe}; SMMUEN is set. `hi`: which of TTB0 and TTB1. The peer does
   * not take leaves for every ASID, as they have another tag, and neither are addresses with a tag
   * in their top byte.
   */
  describeWalk(rid: number, pasid: number, hi: number, out: WalkTables): boolean {
    const config = this.#config;
    if (config.cachePolicy !== 'faithful') return false;
    if (this.#streams.resolve(rid, pasid, this.#walks.fault) !== OK) return false;
    const { stream } = this.#streams;
    const second = stream.kind === KIND.SECOND;
    if (!second && (stream.kind !== KIND.FIRST || !stream.aim(hi) || stream.ignoresTopByte(hi))) return false;
    if (second && stream.secondFormat.inputBits > config.outputBits) return false;
    out.format = second ? stream.secondFormat : stream.firstFormat;
    out.root = second ? stream.secondRoot : stream.firstRoot;
    out.space = stream.vmid;
    out.sub = stream.asid;
    out.expectedMask = second ? 0 : NOT_GLOBAL;
    out.expected = out.expectedMask;
    out.holeFirst = 1;
    out.holeLast = 0;
    out.holeInput = false;
    return true;
  }

  #collect(stream: Stream, request: TranslateRequest, access: number, result: TranslateResult): number {
    const neighbours = this.#neighbours;
    const { walked } = this.#walks;
    const { lo, hi } = request;
    const tagged = stream.kind !== KIND.SECOND && stream.canonical(hi) !== (hi | 0);
    if (this.#config.cachePolicy === 'none' || tagged) {
      const permissions = request.access === 0 ? walked.permissions : walked.cachable;
      addSpan(result, lo, hi, walked.outLo, walked.outHi, walked.log2Size, permissions);
      return result.count;
    }
    if (stream.kind === KIND.NESTED) {
      return neighbours.collectNested(
        stream.firstFormat,
        this.#walks.stage2,
        stream.secondFormat,
        stream.secondRoot,
        lo | 0,
        hi | 0,
        access,
        walked,
        result.spans,
        MAX_SPANS,
      );
    }
    const format = stream.kind === KIND.SECOND ? stream.secondFormat : stream.firstFormat;
    return neighbours.collect(format, this.#memory, lo | 0, hi | 0, access, walked, result.spans, MAX_SPANS);
  }
}

/**
 * What a transaction needs: one that fetches instructions needs the right to execute instead of
 * that to read. What writes is never an instruction (§13.7).
 */
function wantedRights(access: number): number {
  const { READ, WRITE, EXECUTE } = ACCESS;
  return (access & (WRITE | EXECUTE)) === EXECUTE ? EXECUTE : access & (READ | WRITE);
}
