/** Looking at a unit without touching it: enumeration for replay, and who an invalidation concerns. */
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ACCESS, ANY, type InvalidateScope, NO_PASID, type TranslateResult } from '../iommu.js';
import { appendLeaves, Leaves } from '../leaves.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import { OK, type VtdLookup } from './lookup.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse, WHOLE_SPACE } from './spans.js';

export class VtdSurvey {
  private readonly domain: Domain;
  private readonly leaves: Leaves;
  /** Of tables in which no bit may be set (PWSNP clear): without what needs one. §9.6 */
  private readonly unsnooped: Leaves;

  constructor(
    formats: VtdFormats,
    private readonly lookup: VtdLookup,
    memory: GuestMemory,
  ) {
    this.domain = new Domain(formats);
    this.leaves = new Leaves(memory);
    this.unsnooped = new Leaves(memory, false);
  }

  /** See `Iommu.enumerate`. Contiguous leaves are joined; a pass-through domain is one span for everything. */
  enumerate(
    translating: boolean,
    rid: number,
    pasid: number,
    lo: number,
    hi: number,
    result: TranslateResult,
  ): boolean {
    if (!translating) return this.identity(NO_DOMAIN, ANY, lo, hi, result);
    const { domain } = this;
    if (this.lookup.resolve(rid, pasid, 0, false, domain) !== OK) {
      refuse(result);
      return false;
    }
    if (domain.kind === KIND.PASS_THROUGH) return this.identity(domain.did, domain.tag, lo, hi, result);
    beginAnswer(result, domain.did, domain.tag);
    const leaves = domain.snooped ? this.leaves : this.unsnooped;
    leaves.start(domain, lo, hi);
    return appendLeaves(result, leaves);
  }

  /** One span for everything, at its start only. */
  private identity(space: number, sub: number, lo: number, hi: number, result: TranslateResult): false {
    beginAnswer(result, space, sub);
    if ((lo | hi) === 0) addSpan(result, 0, 0, 0, 0, WHOLE_SPACE, ACCESS.READ | ACCESS.WRITE);
    return false;
  }

  /**
   * See `Iommu.affected`. May name too many: a PASID other than RID_PASID may carry any domain-id, so in
   * scalable mode a requester that may use PASIDs is never ruled out by the domain-id.
   */
  affected(translating: boolean, scope: InvalidateScope, rids: readonly number[], out: number[]): number {
    let count = 0;
    for (const rid of rids) {
      if (scope.rid !== ANY && scope.rid !== rid) continue;
      if (!this.concerns(translating, scope, rid)) continue;
      out[count++] = rid;
    }
    return count;
  }

  private concerns(translating: boolean, scope: InvalidateScope, rid: number): boolean {
    if (scope.space === ANY || scope.rid === rid) return true;
    if (!translating) return scope.space === NO_DOMAIN;
    const { domain } = this;
    if (this.lookup.resolve(rid, NO_PASID, 0, false, domain) === OK && domain.did === scope.space)
      return true;
    // What the caches still hold counts too: the tables may have moved on.
    if (this.lookup.resolve(rid, NO_PASID, 0, true, domain) === OK && domain.did === scope.space) return true;
    return this.lookup.usesPasids(rid);
  }
}
