/** Looking at an SMMU without touching it: enumeration for replay, and who an invalidation concerns. */
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ACCESS, ANY, type InvalidateScope, NO_PASID, type TranslateResult } from '../iommu.js';
import { appendLeaves, KIND, Leaves } from '../leaves.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse } from '../spans.js';
import type { SmmuConfig } from './config.js';
import { Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import { Stream } from './stream.js';

/** Bit 55 of an address, in its high half: TTB1. */
const UPPER = 1 << 23;

export class SmmuSurvey {
  private readonly stream: Stream;
  private readonly fault = new Fault();
  private readonly leaves: Leaves;

  constructor(
    private readonly config: SmmuConfig,
    formats: SmmuFormats,
    private readonly lookup: SmmuLookup,
    memory: GuestMemory,
  ) {
    this.stream = new Stream(formats.none);
    this.leaves = new Leaves(memory);
  }

  /** See `Iommu.enumerate`. Contiguous leaves are joined; a bypassed stream is one span for everything. */
  enumerate(
    enabled: boolean,
    rid: number,
    pasid: number,
    lo: number,
    hi: number,
    result: TranslateResult,
  ): boolean {
    const { stream } = this;
    if (!enabled) return this.identity(lo, hi, result);
    if (this.lookup.resolve(rid, pasid, false, stream, this.fault) !== OK) {
      refuse(result);
      return false;
    }
    if (stream.kind === KIND.PASS_THROUGH) return this.identity(lo, hi, result);
    beginAnswer(result, stream.vmid, stream.asid);
    if (stream.kind === KIND.SECOND) return this.collect(lo, hi, result);
    // TTB0's half, then TTB1's.
    if ((hi & UPPER) === 0) {
      if (stream.aim(0) && this.collect(lo, hi, result)) return true;
      return stream.aim(-1) && this.collect(0, UPPER | (-1 << 24), result);
    }
    return stream.aim(-1) && this.collect(lo, hi, result);
  }

  /** Adds leaves at or above the address. True when more follow. */
  private collect(lo: number, hi: number, result: TranslateResult): boolean {
    const { leaves } = this;
    leaves.start(this.stream, lo, hi);
    return appendLeaves(result, leaves);
  }

  /** One span for everything within OAS, at its start only. */
  private identity(lo: number, hi: number, result: TranslateResult): false {
    beginAnswer(result, NO_DOMAIN, ANY);
    if ((lo | hi) === 0) addSpan(result, 0, 0, 0, 0, this.config.outputBits, ACCESS.READ | ACCESS.WRITE);
    return false;
  }

  /** See `Iommu.affected`. May name too many: a substream other than the default one has its own ASID. */
  affected(enabled: boolean, scope: InvalidateScope, rids: readonly number[], out: number[]): number {
    let count = 0;
    for (const rid of rids) {
      if (scope.rid !== ANY && scope.rid !== rid) continue;
      if (!this.concerns(enabled, scope, rid)) continue;
      out[count++] = rid;
    }
    return count;
  }

  private concerns(enabled: boolean, scope: InvalidateScope, rid: number): boolean {
    if (scope.space === ANY || scope.rid === rid) return true;
    if (!enabled) return scope.space === NO_DOMAIN;
    if (this.tagged(rid, false, scope) || this.tagged(rid, true, scope)) return true;
    return this.lookup.usesSubstreams(rid, this.fault);
  }

  /** True when the default address space of a requester carries the scope's tags, by its tables or what is cached of them. */
  private tagged(rid: number, cached: boolean, scope: InvalidateScope): boolean {
    const { stream } = this;
    if (this.lookup.resolve(rid, NO_PASID, cached, stream, this.fault) !== OK) return false;
    return stream.vmid === scope.space && (scope.sub === ANY || stream.asid === scope.sub);
  }
}
