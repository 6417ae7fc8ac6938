/** Looking at an SMMU without touching it: enumeration for replay. */

import { ANY } from '../../base/ids.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ACCESS, type SurveyView, type TranslateResult } from '../iommu.js';
import { appendLeaves, KIND, Leaves } from '../leaves.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse } from '../spans.js';
import type { SmmuConfig } from './config.js';
import type { Control } from './control.js';
import { Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import { Stream } from './stream.js';

/** Bit 55 of an address, in its high half: TTB1. */
const UPPER = 1 << 23;

export class SmmuSurvey implements SurveyView {
  readonly #config: SmmuConfig;
  readonly #lookup: SmmuLookup;
  readonly #control: Control;
  readonly #stream: Stream;
  readonly #fault = new Fault();
  readonly #leaves: Leaves;

  constructor(
    config: SmmuConfig,
    formats: SmmuFormats,
    lookup: SmmuLookup,
    control: Control,
    memory: GuestMemory,
  ) {
    this.#config = config;
    this.#lookup = lookup;
    this.#control = control;
    this.#stream = new Stream(formats.none);
    this.#leaves = new Leaves(memory);
  }

  /**
   * See {@link SurveyView.enumerate}. Contiguous leaves are joined; a bypassed stream is one span
   * for everything.
   */
  enumerate(rid: number, pasid: number, lo: number, hi: number, result: TranslateResult): boolean {
    const stream = this.#stream;
    const control = this.#control;
    if (!control.enabled) {
      if (!control.aborting) return this.#identity(lo, hi, result);
      refuse(result);
      return false;
    }
    if (this.#lookup.resolve(rid, pasid, false, stream, this.#fault) !== OK) {
      refuse(result);
      return false;
    }
    if (stream.kind === KIND.PASS_THROUGH) return this.#identity(lo, hi, result);
    beginAnswer(result, stream.vmid, stream.asid);
    if (stream.kind === KIND.SECOND) return this.#collect(lo, hi, result);
    // TTB0's half, then TTB1's.
    if ((hi & UPPER) === 0) {
      if (stream.aim(0) && this.#collect(lo, hi, result)) return true;
      return stream.aim(-1) && this.#collect(0, UPPER | (-1 << 24), result);
    }
    return stream.aim(-1) && this.#collect(lo, hi, result);
  }

  /** Adds leaves at or above the address. True when more follow. */
  #collect(lo: number, hi: number, result: TranslateResult): boolean {
    const leaves = this.#leaves;
    leaves.start(this.#stream, lo, hi);
    return appendLeaves(result, leaves);
  }

  /** One span for everything within OAS, at its start only. */
  #identity(lo: number, hi: number, result: TranslateResult): false {
    beginAnswer(result, NO_DOMAIN, ANY);
    if ((lo | hi) === 0) addSpan(result, 0, 0, 0, 0, this.#config.outputBits, ACCESS.READ | ACCESS.WRITE);
    return false;
  }
}
