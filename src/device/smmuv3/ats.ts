/**
 * ATS: translation requests of devices that keep translations themselves, and transactions whose
 * addresses such a request gave. IHI 0070 §3.9.1.2, §3.9.1.3, §3.13.7, §13.6, §13.7.
 *
 * A translation request is never a fault to software: it is answered with what may be done
 * (nothing, where nothing is mapped), with Unsupported Request where ATS is not allowed, with
 * Completer Abort where the configuration is wrong.
 */

import { ANY, NO_PASID } from '../../base/ids.js';
import { belowHi, belowLo } from '../../base/u64.js';
import { MISS } from '../../cache/entry-cache.js';
import { EVENT } from '../../spec/smmuv3/events.js';
import { CR0 } from '../../spec/smmuv3/registers.js';
import { EATS, STE, STE_CONFIG, STE_CONFIG_BIT } from '../../spec/smmuv3/structures.js';
import { WALK, WalkResult } from '../../walk/types.js';
import { walk } from '../../walk/walk.js';
import { ACCESS, REQUEST, TRANSLATE_STATUS, type TranslateRequest, type TranslateResult } from '../iommu.js';
import { KIND } from '../leaves.js';
import type { RegisterFile } from '../registers.js';
import { addSpan, beginAnswer, NO_DOMAIN, refuse } from '../spans.js';
import type { SmmuConfig } from './config.js';
import { ABORTED, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import { Stream } from './stream.js';
import type { Streams } from './streams.js';
import type { SmmuTranslator } from './translate.js';
import type { Walks } from './walks.js';

const { READ, WRITE, EXECUTE, PRIVILEGED } = ACCESS;
const SMMUEN = 1 << CR0.fields.SMMUEN.lsb;
const ATSCHK = 1 << CR0.fields.ATSCHK.lsb;

export class Ats {
  readonly #config: SmmuConfig;
  readonly #file: RegisterFile;
  readonly #lookup: SmmuLookup;
  readonly #streams: Streams;
  readonly #walks: Walks;
  readonly #translator: SmmuTranslator;
  /**
   * The request of the last call as the SMMU takes it: without a SubstreamID it is unprivileged
   * data, and a translated one has none (IDR3.PASIDTT is clear). §3.9.1.3, §13.7
   */
  readonly taken: TranslateRequest = {
    ...{ rid: 0, pasid: NO_PASID, access: 0, lo: 0, hi: 0 },
    ...{ kind: REQUEST.TRANSLATION, mayStall: false },
  };
  readonly #stream: Stream;
  readonly #first = new WalkResult();
  /** log2 of the smallest translation unit: the smallest granule. §3.9.1 */
  readonly #unit: number;

  constructor(
    config: SmmuConfig,
    formats: SmmuFormats,
    file: RegisterFile,
    lookup: SmmuLookup,
    streams: Streams,
    walks: Walks,
    translator: SmmuTranslator,
  ) {
    this.#config = config;
    this.#file = file;
    this.#lookup = lookup;
    this.#streams = streams;
    this.#walks = walks;
    this.#translator = translator;
    this.#stream = new Stream(formats.none);
    this.#unit = Math.min(...config.granules);
  }

  /**
   * Answers a translation request or a translated transaction. Returns {@link OK}, or why not, as
   * the fault of the walks.
   */
  answer(request: TranslateRequest, result: TranslateResult): number {
    const translated = request.kind === REQUEST.TRANSLATED;
    const { taken } = this;
    const substream = !translated && request.pasid !== NO_PASID;
    taken.rid = request.rid;
    taken.pasid = substream ? request.pasid : NO_PASID;
    taken.access = request.access & (substream ? READ | WRITE | EXECUTE | PRIVILEGED : READ | WRITE);
    taken.lo = request.lo;
    taken.hi = request.hi;
    taken.kind = request.kind;
    this.#walks.fault.clear();
    return translated ? this.#translatedTransaction(result) : this.#translationRequest(result);
  }

  #enabled(): boolean {
    return (this.#file.get(CR0.offset) & SMMUEN) !== 0;
  }

  #checked(): boolean {
    return (this.#file.get(CR0.offset) & ATSCHK) !== 0;
  }

  /** What of ATS the STE that was looked up last allows. §5.2 (EATS) */
  #allowed(): number {
    const ste = this.#lookup.lastStreamEntry;
    if (STE.get.Config(ste) === STE_CONFIG.BYPASS) return EATS.NONE;
    const eats = STE.get.EATS(ste);
    if (eats === EATS.SPLIT) return this.#checked() ? EATS.SPLIT : EATS.NONE;
    return eats === EATS.FULL ? EATS.FULL : EATS.NONE;
  }

  /** True when the STE that was looked up last aborts everything. */
  #aborting(): boolean {
    return (STE.get.Config(this.#lookup.lastStreamEntry) & STE_CONFIG_BIT.PASS) === 0;
  }

  #translatedTransaction(result: TranslateResult): number {
    const lookup = this.#lookup;
    const { taken } = this;
    if (!this.#config.ats) return this.#refused(ABORTED, result);
    if (!this.#enabled()) return this.#refused(EVENT.F_TRANSL_FORBIDDEN, result);
    if (!this.#checked()) return this.#passed(result);
    const { fault } = this.#walks;
    const wrong = lookup.streamEntry(taken.rid, true, fault);
    if (wrong !== OK) {
      // §3.9.1.3: recorded with REC_CFG_ATS only, which is not offered.
      fault.recorded = false;
      return this.#refused(wrong, result);
    }
    if (this.#aborting()) return this.#refused(ABORTED, result);
    const allowed = this.#allowed();
    if (allowed === EATS.NONE) return this.#refused(EVENT.F_TRANSL_FORBIDDEN, result);
    if (allowed === EATS.FULL) return this.#passed(result);
    lookup.secondOnly(this.#stream);
    return this.#translator.through(this.#stream, taken, result);
  }

  /** The address is a physical one; beyond OAS nothing is recorded. §3.9.1.1 */
  #passed(result: TranslateResult): number {
    const { taken } = this;
    if (this.#translator.beyond(taken.hi)) return this.#refused(ABORTED, result);
    this.#translator.identity(taken, READ | WRITE, result);
    return OK;
  }

  #translationRequest(result: TranslateResult): number {
    const streams = this.#streams;
    const { taken } = this;
    const { fault } = this.#walks;
    if (!this.#config.ats) return this.#refused(ABORTED, result);
    if (!this.#enabled()) return this.#refused(EVENT.F_BAD_ATS_TREQ, result);
    const wrong = this.#lookup.streamEntry(taken.rid, true, fault);
    if (wrong !== OK) return this.#failed(wrong, result);
    if (this.#aborting()) return this.#refused(ABORTED, result);
    const allowed = this.#allowed();
    if (allowed === EATS.NONE) return this.#refused(EVENT.F_BAD_ATS_TREQ, result);
    const bad = streams.resolve(taken.rid, taken.pasid, fault);
    if (bad !== OK) return this.#failed(bad, result);
    const { stream } = streams;
    if (stream.kind === KIND.PASS_THROUGH || stream.kind === KIND.SECOND) {
      if (this.#translator.beyond(taken.hi)) return this.#nothing(result);
    } else if (!stream.aim(taken.hi)) {
      return this.#nothing(result);
    }
    if (stream.kind === KIND.PASS_THROUGH) {
      // §13.6.4: S1DSS skips the only stage.
      this.#translator.identity(taken, READ | WRITE, result);
      return OK;
    }
    if (allowed === EATS.FULL && this.#fromTlb(stream, result)) return OK;
    return this.#walkTables(stream, allowed === EATS.SPLIT, result);
  }

  /**
   * True when the TLB has every right that was asked for; it is not asked about those that are
   * missing.
   */
  #fromTlb(stream: Stream, result: TranslateResult): boolean {
    const walks = this.#walks;
    const { taken } = this;
    const { tlb } = walks;
    const hi = stream.kind === KIND.SECOND ? taken.hi | 0 : stream.canonical(taken.hi);
    const slot = walks.kept(stream, taken.access, taken.lo, hi);
    if (slot === MISS) return false;
    const wanted = READ | (taken.access & (WRITE | EXECUTE));
    if ((wanted & ~tlb.cachable[slot]) !== 0) return false;
    const log2 = tlb.log2SizeOf(slot);
    const outLo = tlb.outLo[slot] | (taken.lo & belowLo(log2));
    const outHi = tlb.outHi[slot] | (taken.hi & belowHi(log2));
    this.#grant(stream, outLo, outHi, log2, tlb.cachable[slot], result);
    return true;
  }

  /**
   * Looks first, then walks for what may be granted, so that flags are set for that and nothing
   * else. §3.13.7.1, §13.7.1
   */
  #walkTables(stream: Stream, split: boolean, result: TranslateResult): number {
    const walks = this.#walks;
    const { taken } = this;
    const { walked } = walks;
    const { lo, hi } = taken;
    const privileged = taken.access & PRIVILEGED;
    const looked = walks.walk(stream, lo | 0, hi | 0, privileged);
    if (looked !== WALK.OK) {
      if (looked === WALK.STAGE2 && this.#stageOneDenies(stream, privileged)) return this.#nothing(result);
      walks.explain(stream, taken, looked);
      return this.#failed(walks.fault.event, result);
    }
    const used = this.#used(walked.permissions);
    if (used === 0) return this.#nothing(result);
    const outcome = walks.walk(stream, lo | 0, hi | 0, used | privileged);
    if (outcome !== WALK.OK) {
      walks.explain(stream, taken, outcome);
      return this.#failed(walks.fault.event, result);
    }
    if (!split) walks.keep(stream, taken);
    if (!split) this.#grant(stream, walked.outLo, walked.outHi, walked.log2Size, walked.cachable, result);
    else if (stream.kind === KIND.SECOND)
      this.#grant(stream, lo, hi, walked.log2Size, walked.cachable, result);
    else this.#grant(stream, walked.ipaLo, walked.ipaHi, walked.log2Size, walked.cachable, result);
    return OK;
  }

  /**
   * Of `rights`, those that the device will use: reading is always asked for, writing only where it
   * said so. To execute is to read as well, and what can be executed but not read can't be
   * expressed. §13.7
   */
  #used(rights: number): number {
    const { access } = this.taken;
    const read = rights & READ;
    return read | (rights & access & WRITE) | (read !== 0 ? rights & access & EXECUTE : 0);
  }

  /**
   * §3.9.1.2: what stage 1 does not allow is not translated by stage 2, and no fault of it is seen.
   */
  #stageOneDenies(stream: Stream, privileged: number): boolean {
    const first = this.#first;
    const walks = this.#walks;
    const { taken } = this;
    const memory = walks.stage2.use(stream.secondFormat, stream.secondRoot, true);
    const { firstFormat, firstRoot } = stream;
    const outcome = walk(firstFormat, memory, firstRoot, taken.lo | 0, taken.hi | 0, privileged, first);
    return outcome === WALK.OK && this.#used(first.permissions) === 0;
  }

  /**
   * A translation. Rights that were not asked for are granted where using them changes nothing in
   * the tables.
   */
  #grant(
    stream: Stream,
    outLo: number,
    outHi: number,
    log2: number,
    rights: number,
    result: TranslateResult,
  ): void {
    const { lo, hi } = this.taken;
    beginAnswer(result, stream.vmid, stream.asid);
    addSpan(result, lo, hi, outLo, outHi, log2, this.#used(rights) | (rights & WRITE));
  }

  /**
   * Nothing is mapped, or nothing allowed: a completion without rights, of the smallest unit.
   * §3.9.1.2
   */
  #nothing(result: TranslateResult): number {
    const { lo, hi } = this.taken;
    beginAnswer(result, NO_DOMAIN, ANY);
    addSpan(result, lo, hi, 0, 0, this.#unit, 0);
    return OK;
  }

  /**
   * What an event of an ordinary transaction is to a translation request; it is not recorded.
   * §3.9.1.2
   */
  #failed(event: number, result: TranslateResult): number {
    const { fault } = this.#walks;
    switch (event) {
      case EVENT.F_TRANSLATION:
      case EVENT.F_ADDR_SIZE:
      case EVENT.F_ACCESS:
      case EVENT.F_PERMISSION:
        return this.#nothing(result);
      case ABORTED:
        return this.#refused(ABORTED, result);
      default:
        refuse(result, TRANSLATE_STATUS.COMPLETER_ABORT);
        fault.recorded = false;
        fault.stalls = false;
        return event;
    }
  }

  #refused(event: number, result: TranslateResult): number {
    refuse(result);
    return this.#walks.fault.raise(event);
  }
}
