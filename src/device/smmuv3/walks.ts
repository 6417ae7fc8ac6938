/**
 * Walks through the tables of a stream, what their failures mean, and the TLB that keeps what they
 * found. Ordinary transactions and ATS translation requests share it. IHI 0070 §3.17, §7.3.12 to
 * §7.3.16.
 */

import { ANY } from '../../base/ids.js';
import { belowHi, belowLo } from '../../base/u64.js';
import { Iotlb, STAGE } from '../../cache/iotlb.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { CLASS, EVENT } from '../../spec/smmuv3/events.js';
import { StageTwo, walkNested } from '../../walk/nested.js';
import { WALK, WalkResult } from '../../walk/types.js';
import { walk } from '../../walk/walk.js';
import type { ModelCounters } from '../counters.js';
import { ACCESS, type TranslateRequest } from '../iommu.js';
import { KIND } from '../leaves.js';
import type { SmmuConfig } from './config.js';
import { Fault } from './fault.js';
import type { Stream } from './stream.js';
import { stage2Fault, walkEvent } from './walk-fault.js';

/** Rights to what is translated. */
export const RIGHTS = ACCESS.READ | ACCESS.WRITE | ACCESS.EXECUTE;
/** Second key of TLB entries without stage 1. */
const NO_ASID = -1;
/** Added to the ASID in the key of entries for privileged transactions: rights differ. */
const PRIVILEGED_KEY = 0x10000;
/** Tag of entries that are not of one ASID (nG = 0). */
export const GLOBAL_TAG = 0x10000;
/** nG of a leaf of stage 1. */
export const NOT_GLOBAL = 1 << 11;

export class Walks {
  readonly #memory: GuestMemory;
  readonly #counters: ModelCounters;
  readonly tlb: Iotlb;
  /** What became of the last request that was not translated. */
  readonly fault = new Fault();
  /** Of the last walk. */
  readonly walked = new WalkResult();
  readonly stage2: StageTwo;
  /**
   * Translations were handed out that an invalidation by address and ASID would miss outside: parts
   * of a larger stage-1 block, addresses whose top byte is ignored (in the command it may be
   * another one), entries of every ASID.
   */
  handedOutLoose = false;

  constructor(config: SmmuConfig, memory: GuestMemory, counters: ModelCounters) {
    this.#memory = memory;
    this.#counters = counters;
    this.tlb = new Iotlb(config.cachePolicy);
    this.stage2 = new StageTwo(memory);
  }

  /** Power-on. */
  reset(): void {
    this.tlb.invalidateAll();
    this.handedOutLoose = false;
  }

  /** Slot of the TLB for an address as the tables see it, or MISS. */
  kept(stream: Stream, access: number, lo: number, hi: number): number {
    return this.tlb.lookup(stream.vmid, keyOf(stream, access), lo, hi);
  }

  /**
   * Walks all stages of a stream, which is aimed. Returns a WALK outcome; {@link walked} has the
   * rest.
   */
  walk(stream: Stream, lo: number, hi: number, access: number): number {
    const memory = this.#memory;
    const { walked } = this;
    this.#counters.walks++;
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
  explain(stream: Stream, request: TranslateRequest, outcome: number): void {
    const { fault, walked } = this;
    const { secondRecorded, secondStalls } = stream;
    if (stream.kind === KIND.SECOND) {
      fault.ipaLo = request.lo;
      fault.ipaHi = request.hi;
      stage2Fault(fault, outcome, walked.entryAddress, request.access, secondRecorded, secondStalls);
      return;
    }
    if (outcome === WALK.STAGE2 || outcome === WALK.STAGE2_ON_FETCH) {
      fault.class = outcome === WALK.STAGE2 ? CLASS.IN : CLASS.TT;
      fault.ipaLo = walked.ipaLo;
      fault.ipaHi = walked.ipaHi;
      const entry = this.stage2.result.entryAddress;
      stage2Fault(fault, walked.stage2, entry, walked.stage2Access, secondRecorded, secondStalls);
      return;
    }
    const event = walkEvent(outcome);
    if (event === EVENT.F_WALK_EABT) {
      fault.class = CLASS.TT;
      fault.fetch(event, this.#physicalEntry(stream));
      return;
    }
    fault.configured(stream.firstRecorded, stream.firstStalls);
    fault.raise(event);
  }

  /** Physical address of the stage-1 descriptor read last. */
  #physicalEntry(stream: Stream): number {
    const { entryAddress } = this.walked;
    if (stream.kind !== KIND.NESTED) return entryAddress;
    const { outLo, outHi, log2Size } = this.stage2.result;
    return (outHi >>> 0) * 2 ** 32 + (outLo >>> 0) + (entryAddress % 2 ** log2Size);
  }

  /** Takes note of a translation that invalidations by address and ASID may miss outside. */
  handOut(stream: Stream, request: TranslateRequest): void {
    if (this.#isLoose(stream, request, this.walked)) this.handedOutLoose = true;
  }

  /**
   * The same for what the TLB holds in `slot`. Returns log2 of the span that may be handed out: the
   * whole block of which the TLB keeps a part, since an invalidation names any one address of it.
   */
  handOutKept(stream: Stream, request: TranslateRequest, slot: number): number {
    const { tlb } = this;
    if (stream.kind === KIND.SECOND) return tlb.blockLog2Of(slot);
    const tagged = stream.ignoresTopByte(request.hi);
    const global = tlb.tagOf(slot) === GLOBAL_TAG >>> 0;
    const block = tlb.blockLog2Of(slot);
    // A part of a first-stage block that the second stage scatters can't be handed out as one.
    const part = stream.kind === KIND.NESTED && block > tlb.log2SizeOf(slot);
    if (tagged || global || part) this.handedOutLoose = true;
    return part ? tlb.log2SizeOf(slot) : block;
  }

  #isLoose(stream: Stream, request: TranslateRequest, walked: WalkResult): boolean {
    if (stream.kind === KIND.SECOND) return false;
    if ((walked.entryLo & NOT_GLOBAL) === 0 || stream.ignoresTopByte(request.hi)) return true;
    return stream.kind === KIND.NESTED && firstBlockLog2(stream, walked) > walked.log2Size;
  }

  /** Keeps the translation. A block of a size that the TLB has no class for is kept in parts. */
  keep(stream: Stream, request: TranslateRequest): void {
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
