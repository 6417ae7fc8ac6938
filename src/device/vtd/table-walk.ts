/**
 * Walking the tables of a domain, and keeping the outcome in the IOTLB. VT-d §3.6 to §3.8, §6.2.4.
 * One object is shared by all who translate: what it found is in {@link TableWalk.walked} until the
 * next walk.
 */
import { Iotlb, STAGE } from '../../cache/iotlb.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ReadOnlyMemory } from '../../memory/read-only.js';
import { StageTwo, walkNested } from '../../walk/nested.js';
import { WALK, WalkResult } from '../../walk/types.js';
import { walk } from '../../walk/walk.js';
import type { ModelCounters } from '../counters.js';
import { ACCESS } from '../iommu.js';
import type { VtdConfig } from './config.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import { OK } from './lookup.js';
import { walkReason } from './reasons.js';

/** Whose address is translated: what of a request the IOTLB is tagged with. */
interface Asked {
  readonly rid: number;
  readonly pasid: number;
  readonly lo: number;
  readonly hi: number;
}

const DATA = ACCESS.READ | ACCESS.WRITE;

export class TableWalk {
  readonly #config: VtdConfig;
  readonly #memory: GuestMemory;
  readonly #counters: ModelCounters;
  readonly iotlb: Iotlb;
  /** Whose tables are walked; a caller fills it. */
  readonly domain: Domain;
  readonly walked = new WalkResult();
  readonly #snooping: StageTwo;
  /**
   * Tables of which no Accessed or Dirty bit may be set: their walks are not snooped (PWSNP clear).
   * §9.6
   */
  readonly #unsnooped: GuestMemory;
  readonly #unsnooping: StageTwo;

  constructor(config: VtdConfig, formats: VtdFormats, memory: GuestMemory, counters: ModelCounters) {
    this.#config = config;
    this.#memory = memory;
    this.#counters = counters;
    this.iotlb = new Iotlb(config.cachePolicy);
    this.domain = new Domain(formats);
    this.#snooping = new StageTwo(memory);
    this.#unsnooped = new ReadOnlyMemory(memory);
    this.#unsnooping = new StageTwo(memory, false);
  }

  /** The second stage of {@link domain}. */
  get stage2(): StageTwo {
    return this.domain.snooped ? this.#snooping : this.#unsnooping;
  }

  /**
   * Walks for an access (READ, WRITE; 0 = a look) and keeps the outcome, unless it was a look.
   * Returns OK or the fault reason.
   */
  run(asked: Asked, access: number): number {
    const { domain, walked } = this;
    this.#counters.walks++;
    if (this.#once(asked, access) !== WALK.OK) {
      const reason = walkReason(domain, walked, access, this.stage2.result.permissions);
      if (access !== 0) this.#keepFault(asked, reason);
      return reason;
    }
    if (access !== 0) this.#keep(asked);
    return OK;
  }

  #once(asked: Asked, access: number): number {
    const { domain, walked } = this;
    const { lo, hi } = asked;
    const memory = domain.snooped ? this.#memory : this.#unsnooped;
    if (domain.kind === KIND.SECOND) {
      return walk(domain.secondFormat, memory, domain.secondRoot, lo | 0, hi | 0, access, walked);
    }
    if (domain.kind === KIND.FIRST) {
      return walk(domain.firstFormat, memory, domain.firstRoot, lo | 0, hi | 0, access, walked);
    }
    return walkNested(
      domain.firstFormat,
      domain.firstRoot,
      this.stage2,
      domain.secondFormat,
      domain.secondRoot,
      lo | 0,
      hi | 0,
      access,
      walked,
    );
  }

  #keep(asked: Asked): void {
    const { domain, walked } = this;
    this.iotlb.insert(
      asked.rid,
      asked.pasid,
      asked.lo,
      asked.hi,
      walked.log2Size,
      walked.outLo,
      walked.outHi,
      walked.permissions & DATA,
      walked.cachable & DATA,
      domain.did,
      domain.tag,
      stageOf(domain),
      0,
    );
  }

  /**
   * Caching mode may keep translations that fault, so that a driver must announce new mappings too
   * (§6.2.4.1). First stages never (the same section); a lack of one right only, or a flag that
   * could not be set, is not kept either: the mapping is there.
   */
  #keepFault(asked: Asked, reason: number): void {
    const { domain, walked } = this;
    if (!this.#config.cachingMode || domain.kind !== KIND.SECOND) return;
    if (walked.outcome === WALK.PERMISSION || walked.outcome === WALK.UPDATE) return;
    this.iotlb.insert(
      asked.rid,
      asked.pasid,
      asked.lo,
      asked.hi,
      12,
      0,
      0,
      0,
      0,
      domain.did,
      domain.tag,
      STAGE.SECOND,
      reason,
    );
  }
}

/** Which IOTLB invalidations a domain's translations answer to. */
export function stageOf(domain: Domain): number {
  return domain.kind === KIND.FIRST || domain.kind === KIND.NESTED ? STAGE.FIRST : STAGE.SECOND;
}
