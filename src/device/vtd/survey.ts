/** Looking at a unit without touching it: enumeration for replay, who an invalidation concerns, the dump. */
import type { GuestMemory } from '../../memory/port.js';
import {
  ACCESS,
  ANY,
  type DumpNode,
  type DumpOptions,
  type InvalidateScope,
  NO_PASID,
  type TranslateResult,
} from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import { Domain, type Formats, KIND } from './domain.js';
import { type Lookup, OK } from './lookup.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse, WHOLE_SPACE } from './spans.js';

export class Survey {
  private readonly domain: Domain;

  constructor(
    _config: VtdConfig,
    formats: Formats,
    _file: RegisterFile,
    private readonly lookup: Lookup,
    _memory: GuestMemory,
  ) {
    this.domain = new Domain(formats);
  }

  /** See `Iommu.enumerate`. */
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
    return false;
  }

  /** One span for everything, at its start only. */
  private identity(space: number, sub: number, lo: number, hi: number, result: TranslateResult): false {
    beginAnswer(result, space, sub);
    if ((lo | hi) === 0) addSpan(result, 0, 0, 0, 0, WHOLE_SPACE, ACCESS.READ | ACCESS.WRITE);
    return false;
  }

  /**
   * See `Iommu.affected`. May name too many: a PASID other than RID_PASID may carry any domain-id, so in
   * scalable mode only a requester without any context is ruled out by the domain-id.
   */
  affected(translating: boolean, scope: InvalidateScope, rids: readonly number[], out: number[]): number {
    let count = 0;
    for (const rid of rids) {
      if (scope.rid !== ANY && scope.rid !== rid) continue;
      if (!this.concerns(translating, scope, rid)) continue;
      out.push(rid);
      count++;
    }
    return count;
  }

  private concerns(translating: boolean, scope: InvalidateScope, rid: number): boolean {
    if (scope.space === ANY) return true;
    if (!translating) return false;
    const { domain } = this;
    if (this.lookup.resolve(rid, NO_PASID, 0, false, domain) === OK && domain.did === scope.space)
      return true;
    return this.lookup.usesPasids(rid);
  }

  /** See `Iommu.dump`. */
  dump(_options: DumpOptions): DumpNode[] {
    return [];
  }
}
