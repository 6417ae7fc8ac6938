/**
 * A VT-d unit in extended mode, as hardware of revision 2 was: extended context entries, one PASID
 * table for each, and caches that keep what they hold until they are told. VT-d Rev. 2.4 §3, §6.
 *
 * A context entry has one second-level pointer, which requests without PASID always go through, and
 * one NESTE bit for all PASIDs. With it the PASID table and everything below is fetched through the
 * second level too (§3.8). Faults are numbered as in later revisions.
 */

import { NO_PASID } from '../../base/ids.js';
import { PAGE_OFFSET } from '../../base/page.js';
import { belowHi, belowLo } from '../../base/u64.js';
import { EntryCache, MISS } from '../../cache/entry-cache.js';
import { Iotlb, STAGE } from '../../cache/iotlb.js';
import { TRANSLATE_STATUS, type TranslateResult } from '../../device/iommu.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { pack } from '../../spec/define.js';
import {
  EXTENDED_CONTEXT_ENTRY,
  EXTENDED_ROOT_ENTRY,
  PASID_ENTRY,
  pasidTableEntries,
} from '../../spec/vtd/extended.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { FRCD_REG } from '../../spec/vtd/registers.js';
import { StageTwo, walkNested } from '../../walk/nested.js';
import { WALK, WalkResult } from '../../walk/types.js';
import { walk } from '../../walk/walk.js';
import { vtd2Formats } from './encodings.js';

const OK = 0;
const DATA = 3;
const WRITE = 2;
const CONTEXT_WORDS = EXTENDED_CONTEXT_ENTRY.wordCount;
const MOST_FAULTS = 16;

export class Vtd2Unit {
  readonly #memory: GuestMemory;
  rootTable = 0;
  readonly contexts = new EntryCache('faithful', 8, CONTEXT_WORDS);
  readonly pasids = new EntryCache('faithful', 10, 2);
  readonly iotlb = new Iotlb('faithful');
  /** Fault records not taken yet. Records beyond the number of registers are lost. */
  readonly faults: Uint32Array[] = [];
  readonly #context = new Uint32Array(CONTEXT_WORDS);
  readonly #pair = new Uint32Array(4);
  readonly #formats = vtd2Formats();
  readonly #stage2: StageTwo;
  readonly #walked = new WalkResult();

  constructor(memory: GuestMemory) {
    this.#memory = memory;
    this.#stage2 = new StageTwo(memory);
  }

  translate(
    rid: number,
    pasid: number,
    access: number,
    lo: number,
    hi: number,
    result: TranslateResult,
  ): boolean {
    const reason = this.#look(rid, pasid, access, lo, hi, result);
    result.status = reason === OK ? TRANSLATE_STATUS.OK : TRANSLATE_STATUS.FAULT;
    if (reason === OK) return true;
    result.count = 0;
    if (access !== 0) this.#record(rid, pasid, access, lo, hi, reason);
    return false;
  }

  #look(rid: number, pasid: number, access: number, lo: number, hi: number, result: TranslateResult): number {
    const slot = this.iotlb.lookup(rid, pasid, lo | 0, hi | 0);
    if (slot !== MISS) {
      const { iotlb } = this;
      if ((access & DATA & ~(iotlb.permissions[slot] as number)) === 0) {
        answer(
          result,
          lo,
          hi,
          iotlb.outLo[slot]!,
          iotlb.outHi[slot]!,
          iotlb.log2SizeOf(slot),
          iotlb.permissions[slot]!,
        );
        return OK;
      }
    }
    const wrong = this.#contextEntry(rid);
    if (wrong !== OK) return wrong;
    const outcome = this.#walkTables(rid, pasid, access, lo | 0, hi | 0);
    if (outcome !== OK) return outcome;
    const walked = this.#walked;
    const context = this.#context;
    if (access !== 0) {
      const did = EXTENDED_CONTEXT_ENTRY.get.DID(context);
      const stage = pasid === NO_PASID ? STAGE.SECOND : STAGE.FIRST;
      const rights = walked.permissions & DATA;
      this.iotlb.insert(
        ...([rid, pasid, lo | 0, hi | 0, walked.log2Size, walked.outLo, walked.outHi] as const),
        ...([rights, rights, did, pasid, stage, 0] as const),
      );
    }
    answer(result, lo, hi, walked.outLo, walked.outHi, walked.log2Size, walked.permissions & DATA);
    return OK;
  }

  /** Leaves the context-entry in `this.context`. */
  #contextEntry(rid: number): number {
    const context = this.#context;
    const pair = this.#pair;
    const memory = this.#memory;
    const slot = this.contexts.find(rid, 0);
    if (slot !== MISS) {
      context.set(this.contexts.words.subarray(slot * CONTEXT_WORDS, (slot + 1) * CONTEXT_WORDS));
      return OK;
    }
    if (!memory.loadWords(this.rootTable + (rid >> 8) * 16, pair, 4)) return FAULT.SRT_1;
    const upper = (rid & 0xff) >= 128;
    const { get } = EXTENDED_ROOT_ENTRY;
    if ((upper ? get.UP(pair) : get.LP(pair)) === 0) return FAULT.SRT_2;
    const table = upper ? get.UCTP(pair) : get.LCTP(pair);
    const address = table + (rid & 127) * EXTENDED_CONTEXT_ENTRY.bytes;
    if (!memory.loadWords(address, context, CONTEXT_WORDS)) return FAULT.SCT_1;
    if (EXTENDED_CONTEXT_ENTRY.get.P(context) === 0) return FAULT.SCT_2;
    this.contexts.insert(rid, 0, EXTENDED_CONTEXT_ENTRY.get.DID(context), OK, context);
    return OK;
  }

  #walkTables(rid: number, pasid: number, access: number, lo: number, hi: number): number {
    const context = this.#context;
    const formats = this.#formats;
    const memory = this.#memory;
    const walked = this.#walked;
    const { get } = EXTENDED_CONTEXT_ENTRY;
    const second = get.SLPTPTR(context);
    if (pasid === NO_PASID) {
      const outcome = walk(formats.second, memory, second, lo, hi, access & DATA, walked);
      return outcome === WALK.OK ? OK : reasonOf(outcome, true, access);
    }
    if (get.PASIDE(context) === 0) return FAULT.SCT_6;
    if (pasid >= pasidTableEntries(get.PTS(context))) return FAULT.SCT_7;
    const nested = get.NESTE(context) === 1;
    const wrong = this.#pasidEntry(rid, pasid, nested, second);
    if (wrong !== OK) return wrong;
    const first = PASID_ENTRY.get.FLPTPTR(this.#pair);
    const outcome = nested
      ? walkNested(formats.first, first, this.#stage2, formats.second, second, lo, hi, access & DATA, walked)
      : walk(formats.first, memory, first, lo, hi, access & DATA, walked);
    if (outcome === WALK.OK) return OK;
    const stage2 = outcome === WALK.STAGE2 || outcome === WALK.STAGE2_ON_FETCH;
    return reasonOf(stage2 ? walked.stage2 : outcome, stage2, access);
  }

  /** Leaves the PASID entry in `this.pair`. */
  #pasidEntry(rid: number, pasid: number, nested: boolean, second: number): number {
    const pair = this.#pair;
    const { pasids } = this;
    const slot = pasids.find(rid, pasid);
    if (slot !== MISS) {
      pair.set(pasids.words.subarray(slot * 2, slot * 2 + 2));
      return OK;
    }
    const address = EXTENDED_CONTEXT_ENTRY.get.PASIDPTR(this.#context) + pasid * PASID_ENTRY.bytes;
    const memory = nested ? this.#stage2.use(this.#formats.second, second, false) : this.#memory;
    if (!memory.loadWords(address, pair, 2)) return FAULT.SPT_1;
    if (PASID_ENTRY.get.P(pair) === 0) return FAULT.SPT_2;
    pasids.insert(rid, pasid, EXTENDED_CONTEXT_ENTRY.get.DID(this.#context), OK, pair);
    return OK;
  }

  #record(rid: number, pasid: number, access: number, lo: number, hi: number, reason: number): void {
    if (this.faults.length >= MOST_FAULTS) return;
    const words = pack(FRCD_REG, {
      SID: rid,
      FR: reason,
      PP: pasid === NO_PASID ? 0 : 1,
      PV: Math.max(0, pasid),
      T1: (access & WRITE) === 0 ? 1 : 0,
      F: 1,
    }) as Uint32Array;
    words[0] = lo & ~PAGE_OFFSET;
    words[1] = hi;
    this.faults.push(words);
  }
}

function answer(
  result: TranslateResult,
  lo: number,
  hi: number,
  outLo: number,
  outHi: number,
  log2: number,
  permissions: number,
): void {
  result.count = 1;
  result.spans[0] = lo & ~belowLo(log2);
  result.spans[1] = hi & ~belowHi(log2);
  result.spans[2] = outLo;
  result.spans[3] = outHi;
  result.spans[4] = log2;
  result.spans[5] = permissions;
}

function reasonOf(outcome: number, second: boolean, access: number): number {
  switch (outcome) {
    case WALK.ADDRESS_SIZE:
      return second ? FAULT.SGN_5 : FAULT.SGN_1;
    case WALK.NOT_PRESENT:
      return second ? FAULT.SSS_2 : FAULT.SFS_2;
    case WALK.PERMISSION:
      return (access & WRITE) !== 0 ? FAULT.SGN_6 : FAULT.SGN_7;
    case WALK.FETCH:
      return second ? FAULT.SSS_1 : FAULT.SFS_1;
    default:
      return second ? FAULT.SSS_3 : FAULT.SFS_3;
  }
}
