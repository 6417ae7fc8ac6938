/** Answering transactions: IHI 0070 §3.3.2, §3.4, §3.12, §7.3. */
import { belowHi, belowLo } from '../../base/u64.js';
import { MISS } from '../../cache/entry-cache.js';
import { Iotlb, STAGE } from '../../cache/iotlb.js';
import type { GuestMemory } from '../../memory/port.js';
import { CLASS, EVENT } from '../../spec/smmuv3/events.js';
import { Neighbours } from '../../walk/neighbours.js';
import { StageTwo, walkNested } from '../../walk/nested.js';
import { WALK, WalkResult } from '../../walk/types.js';
import { walk } from '../../walk/walk.js';
import {
  ACCESS,
  ANY,
  MAX_SPANS,
  type ModelCounters,
  type TranslateRequest,
  type TranslateResult,
} from '../iommu.js';
import { KIND } from '../leaves.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse, WHOLE_SPACE } from '../spans.js';
import type { SmmuConfig } from './config.js';
import { Fault, OK } from './fault.js';
import type { Formats } from './formats.js';
import type { Lookup } from './lookup.js';
import type { Stream } from './stream.js';
import { Streams } from './streams.js';
import { stage2Fault, walkEvent } from './walk-fault.js';

const RIGHTS = ACCESS.READ | ACCESS.WRITE | ACCESS.EXECUTE;
/** Second key of TLB entries without stage 1. */
const NO_ASID = -1;
/** Added to the ASID in the key of entries for privileged transactions: rights differ. */
const PRIVILEGED_KEY = 0x10000;
/** Tag of entries that are not of one ASID (nG = 0). */
export const GLOBAL_TAG = 0x10000;
const NOT_GLOBAL = 1 << 11;

export class Translator {
  readonly tlb: Iotlb;
  /** What became of the last request that was not translated. */
  readonly fault = new Fault();
  /**
   * Translations were handed out that an invalidation by address and ASID would miss outside: parts of a larger
   * stage-1 block, addresses with a tag in the top byte, entries of every ASID.
   */
  handedOutLoose = false;
  private readonly streams: Streams;
  private readonly walked = new WalkResult();
  private readonly stage2: StageTwo;
  private readonly neighbours = new Neighbours();

  constructor(
    private readonly config: SmmuConfig,
    formats: Formats,
    lookup: Lookup,
    private readonly memory: GuestMemory,
    private readonly counters: ModelCounters,
  ) {
    this.tlb = new Iotlb(config.cachePolicy);
    this.streams = new Streams(config, formats, lookup);
    this.stage2 = new StageTwo(memory);
  }

  /** Power-on. */
  reset(): void {
    this.tlb.invalidateAll();
    this.streams.reset();
    this.handedOutLoose = false;
  }

  /** The SMMU is off and does not abort: every address is its own translation. §6.3.14 */
  identity(result: TranslateResult): void {
    beginAnswer(result, NO_DOMAIN, ANY);
    addSpan(result, 0, 0, 0, 0, WHOLE_SPACE, RIGHTS);
  }

  /** Answers a transaction while SMMUEN is set. Returns {@link OK}; otherwise {@link fault} says why there is no answer. */
  translate(request: TranslateRequest, result: TranslateResult): number {
    const { fault } = this;
    const wrong = this.streams.resolve(request.rid, request.pasid, fault);
    if (wrong !== OK) return this.refused(result);
    const { stream } = this.streams;
    const hi = request.hi | 0;
    if (stream.kind === KIND.PASS_THROUGH) return this.bypass(request, result);
    if (stream.kind === KIND.SECOND) {
      if (this.beyond(hi)) return this.refuseWith(EVENT.F_ADDR_SIZE, stream.firstRecorded, result);
    } else if (!stream.aim(hi)) {
      return this.refuseWith(EVENT.F_TRANSLATION, stream.firstRecorded, result);
    }
    const looked = this.fromTlb(stream, request, result);
    if (looked !== MISS) return looked;
    return this.walkTables(stream, request, result);
  }

  private refused(result: TranslateResult): number {
    refuse(result);
    return this.fault.event;
  }

  /** A fault of stage 1 on the address itself. */
  private refuseWith(event: number, recorded: boolean, result: TranslateResult): number {
    this.fault.recorded = recorded;
    this.fault.raise(event);
    return this.refused(result);
  }

  /** No stage translates: addresses within OAS pass. §3.4 */
  private bypass(request: TranslateRequest, result: TranslateResult): number {
    if (this.beyond(request.hi | 0)) return this.refuseWith(EVENT.F_ADDR_SIZE, true, result);
    beginAnswer(result, NO_DOMAIN, ANY);
    addSpan(result, request.lo, request.hi, request.lo, request.hi, this.config.outputBits, RIGHTS);
    return OK;
  }

  /** True for the high half of an address beyond OAS. */
  private beyond(hi: number): boolean {
    return hi >>> 0 >= 2 ** (this.config.outputBits - 32);
  }

  /** Answers from the TLB: OK, an event, or MISS when the tables have to be walked. §3.17 */
  private fromTlb(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const { tlb } = this;
    const hi = stream.kind === KIND.SECOND ? request.hi | 0 : stream.canonical(request.hi);
    const slot = tlb.lookup(stream.vmid, keyOf(stream, request.access), request.lo, hi);
    if (slot === MISS) return MISS;
    const access = wantedRights(request.access);
    if ((access & ~tlb.permissions[slot]) !== 0) {
      // With two stages the tables tell which one refuses.
      if (stream.kind === KIND.NESTED) return MISS;
      this.counters.iotlbHits++;
      return this.keptPermission(stream, request, result);
    }
    if ((access & ~tlb.cachable[slot]) !== 0) return MISS;
    this.counters.iotlbHits++;
    const log2 = tlb.log2SizeOf(slot);
    const outLo = tlb.outLo[slot] | (request.lo & belowLo(log2));
    const outHi = tlb.outHi[slot] | (request.hi & belowHi(log2));
    beginAnswer(result, stream.vmid, stream.asid);
    addSpan(result, request.lo, request.hi, outLo, outHi, log2, tlb.cachable[slot] & RIGHTS);
    return OK;
  }

  private keptPermission(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const { fault } = this;
    fault.class = CLASS.IN;
    fault.s2 = stream.kind === KIND.SECOND;
    fault.recorded = fault.s2 ? stream.secondRecorded : stream.firstRecorded;
    fault.ipaLo = request.lo;
    fault.ipaHi = request.hi;
    fault.raise(EVENT.F_PERMISSION);
    return this.refused(result);
  }

  private walkTables(stream: Stream, request: TranslateRequest, result: TranslateResult): number {
    const { walked } = this;
    this.counters.walks++;
    const access = wantedAccess(request.access);
    const outcome = this.walkOnce(stream, request.lo | 0, request.hi | 0, access);
    if (outcome !== WALK.OK) {
      this.explain(stream, request, outcome);
      return this.refused(result);
    }
    if (request.access !== 0) this.keep(stream, request);
    beginAnswer(result, stream.vmid, stream.asid);
    result.count = this.collect(stream, request, access, result);
    for (let index = 0; index < result.count; index++) result.spans[index * 6 + 5] &= RIGHTS;
    if (this.isLoose(stream, request, walked)) this.handedOutLoose = true;
    return OK;
  }

  private walkOnce(stream: Stream, lo: number, hi: number, access: number): number {
    const { memory, walked } = this;
    if (stream.kind === KIND.SECOND) {
      return walk(stream.secondFormat, memory, stream.secondRoot, lo, hi, access, walked);
    }
    if (stream.kind === KIND.FIRST) {
      return walk(stream.firstFormat, memory, stream.firstRoot, lo, hi, access, walked);
    }
    return walkNested(
      stream.firstFormat,
      stream.firstRoot,
      this.stage2,
      stream.secondFormat,
      stream.secondRoot,
      lo,
      hi,
      access,
      walked,
    );
  }

  /** Which event a walk that failed is. */
  private explain(stream: Stream, request: TranslateRequest, outcome: number): void {
    const { fault, walked } = this;
    if (stream.kind === KIND.SECOND) {
      fault.ipaLo = request.lo;
      fault.ipaHi = request.hi;
      stage2Fault(fault, outcome, walked.entryAddress, request.access, stream.secondRecorded);
      return;
    }
    if (outcome === WALK.STAGE2 || outcome === WALK.STAGE2_ON_FETCH) {
      fault.class = outcome === WALK.STAGE2 ? CLASS.IN : CLASS.TT;
      fault.ipaLo = walked.ipaLo;
      fault.ipaHi = walked.ipaHi;
      const entry = this.stage2.result.entryAddress;
      stage2Fault(fault, walked.stage2, entry, walked.stage2Access, stream.secondRecorded);
      return;
    }
    const event = walkEvent(outcome);
    if (event === EVENT.F_WALK_EABT) {
      fault.class = CLASS.TT;
      fault.fetch(event, this.physicalEntry(stream));
      return;
    }
    fault.recorded = stream.firstRecorded;
    fault.raise(event);
  }

  /** Physical address of the stage-1 descriptor read last. */
  private physicalEntry(stream: Stream): number {
    const { entryAddress } = this.walked;
    if (stream.kind !== KIND.NESTED) return entryAddress;
    const { outLo, outHi, log2Size } = this.stage2.result;
    return (outHi >>> 0) * 2 ** 32 + (outLo >>> 0) + (entryAddress % 2 ** log2Size);
  }

  private collect(
    stream: Stream,
    request: TranslateRequest,
    access: number,
    result: TranslateResult,
  ): number {
    const { walked, neighbours } = this;
    const { lo, hi } = request;
    const tagged = stream.kind !== KIND.SECOND && stream.canonical(hi) !== (hi | 0);
    if (this.config.cachePolicy === 'none' || tagged) {
      const permissions = request.access === 0 ? walked.permissions : walked.cachable;
      addSpan(result, lo, hi, walked.outLo, walked.outHi, walked.log2Size, permissions);
      return result.count;
    }
    if (stream.kind === KIND.NESTED) {
      return neighbours.collectNested(
        stream.firstFormat,
        this.stage2,
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
    return neighbours.collect(format, this.memory, lo | 0, hi | 0, access, walked, result.spans, MAX_SPANS);
  }

  private isLoose(stream: Stream, request: TranslateRequest, walked: WalkResult): boolean {
    if (stream.kind === KIND.SECOND) return false;
    if ((walked.entryLo & NOT_GLOBAL) === 0 || stream.canonical(request.hi) !== (request.hi | 0)) return true;
    return stream.kind === KIND.NESTED && firstBlockLog2(stream, walked) > walked.log2Size;
  }

  /** Keeps the translation. A block of a size that the TLB has no class for is kept in parts. */
  private keep(stream: Stream, request: TranslateRequest): void {
    const { walked } = this;
    const first = stream.kind !== KIND.SECOND;
    const log2 = walked.log2Size;
    const kept = 12 + 9 * Math.min(4, Math.floor((log2 - 12) / 9));
    const tag = first ? ((walked.entryLo & NOT_GLOBAL) === 0 ? GLOBAL_TAG : stream.asid) : ANY;
    this.tlb.insert(
      stream.vmid,
      keyOf(stream, request.access),
      request.lo,
      first ? stream.canonical(request.hi) : request.hi,
      kept,
      walked.outLo | (request.lo & belowLo(log2) & ~belowLo(kept)),
      walked.outHi | (request.hi & belowHi(log2) & ~belowHi(kept)),
      walked.permissions & RIGHTS,
      walked.cachable & RIGHTS,
      stream.vmid,
      tag,
      first ? STAGE.FIRST : STAGE.SECOND,
      0,
      stream.kind === KIND.NESTED ? firstBlockLog2(stream, walked) : log2,
    );
  }
}

/** Size of the stage-1 block of a nested translation. */
function firstBlockLog2(stream: Stream, walked: WalkResult): number {
  let at = stream.firstFormat.root;
  while (at.level > walked.level && at.next !== undefined) at = at.next;
  return at.shift;
}

/** Second key of TLB entries. */
function keyOf(stream: Stream, access: number): number {
  if (stream.kind === KIND.SECOND) return (access & ACCESS.PRIVILEGED) === 0 ? NO_ASID : NO_ASID - 1;
  return (access & ACCESS.PRIVILEGED) === 0 ? stream.asid : stream.asid + PRIVILEGED_KEY;
}

/** What a transaction needs: one that fetches instructions needs the right to execute instead of that to read. */
function wantedRights(access: number): number {
  if ((access & ACCESS.EXECUTE) === 0) return access & RIGHTS;
  return access & (ACCESS.EXECUTE | ACCESS.WRITE);
}

function wantedAccess(access: number): number {
  return wantedRights(access) | (access & ACCESS.PRIVILEGED);
}
