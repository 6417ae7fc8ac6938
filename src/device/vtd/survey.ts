/** Looking at a unit without touching it: enumeration for replay. */

import { ANY } from '../../base/ids.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ACCESS, type SurveyView, type TranslateResult } from '../iommu.js';
import { appendLeaves, Leaves } from '../leaves.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import type { GlobalCommand } from './global-command.js';
import { OK, type VtdLookup } from './lookup.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse, WHOLE_SPACE } from './spans.js';

export class VtdSurvey implements SurveyView {
  readonly #lookup: VtdLookup;
  readonly #commands: GlobalCommand;
  readonly #domain: Domain;
  readonly #leaves: Leaves;
  /** Of tables in which no bit may be set (PWSNP clear): without what needs one. §9.6 */
  readonly #unsnooped: Leaves;

  constructor(formats: VtdFormats, lookup: VtdLookup, commands: GlobalCommand, memory: GuestMemory) {
    this.#lookup = lookup;
    this.#commands = commands;
    this.#domain = new Domain(formats);
    this.#leaves = new Leaves(memory);
    this.#unsnooped = new Leaves(memory, false);
  }

  /**
   * See {@link SurveyView.enumerate}. Contiguous leaves are joined; a pass-through domain is one
   * span for everything.
   */
  enumerate(rid: number, pasid: number, lo: number, hi: number, result: TranslateResult): boolean {
    if (!this.#commands.translating) return this.#identity(NO_DOMAIN, ANY, lo, hi, result);
    const domain = this.#domain;
    if (this.#lookup.resolve(rid, pasid, 0, false, domain) !== OK) {
      refuse(result);
      return false;
    }
    if (domain.kind === KIND.PASS_THROUGH) return this.#identity(domain.did, domain.tag, lo, hi, result);
    beginAnswer(result, domain.did, domain.tag);
    const leaves = domain.snooped ? this.#leaves : this.#unsnooped;
    leaves.start(domain, lo, hi);
    return appendLeaves(result, leaves);
  }

  /** One span for everything, at its start only. */
  #identity(space: number, sub: number, lo: number, hi: number, result: TranslateResult): false {
    beginAnswer(result, space, sub);
    if ((lo | hi) === 0) addSpan(result, 0, 0, 0, 0, WHOLE_SPACE, ACCESS.READ | ACCESS.WRITE);
    return false;
  }
}
