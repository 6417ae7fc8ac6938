/**
 * From a requester to its domain: root, context, PASID-directory and PASID-table entries, with the
 * context-cache and the PASID-cache. VT-d §3.4, §6.2.2, §6.2.3, chapter 9; fault conditions §7.1.3.
 */

import { ANY, NO_PASID } from '../../base/ids.js';
import { EntryCache, MISS } from '../../cache/entry-cache.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { maskIn } from '../../spec/define.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { TTM } from '../../spec/vtd/registers.js';
import {
  CONTEXT_ENTRY,
  PASID_DIRECTORY_ENTRY,
  PASID_TABLE_ENTRIES,
  PASID_TABLE_ENTRY,
  pasidLimit,
  ROOT_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
  TT,
} from '../../spec/vtd/structures.js';
import { ACCESS } from '../iommu.js';
import type { VtdConfig } from './config.js';
import { type Domain, KIND, type VtdFormats } from './domain.js';
import { checkPasidEntry, fillFromPasidEntry } from './pasid-entry.js';
import { ReservedBits, violates } from './reserved.js';
import { NO_DOMAIN } from './spans.js';

/** Lookup succeeded. */
export const OK = 0;

/** What a context-entry has to allow of a device beyond plain requests. */
export const GATE = { DEVICE_TLB: 0, PAGE_REQUEST: 1 } as const;

/** The same bit in context-entries, directory entries and PASID-table entries. */
const FPD = maskIn(CONTEXT_ENTRY.fields.FPD);
const PRESENT = maskIn(PASID_TABLE_ENTRY.fields.P);
const CONTEXT_WORDS = SM_CONTEXT_ENTRY.wordCount;
const PASID_WORDS = PASID_TABLE_ENTRY.wordCount;

export class VtdLookup {
  readonly #config: VtdConfig;
  readonly #formats: VtdFormats;
  readonly #memory: GuestMemory;
  readonly contextCache: EntryCache;
  readonly pasidCache: EntryCache;
  /** The root table in force: latched by Set Root Table Pointer. */
  rootTable = 0;
  mode: number = TTM.LEGACY;
  readonly #reserved: ReservedBits;
  readonly #root = new Uint32Array(4);
  readonly #context = new Uint32Array(CONTEXT_WORDS);
  readonly #pasid = new Uint32Array(PASID_WORDS);

  constructor(config: VtdConfig, formats: VtdFormats, memory: GuestMemory) {
    this.#config = config;
    this.#formats = formats;
    this.#memory = memory;
    this.contextCache = new EntryCache(config.cachePolicy, 10, CONTEXT_WORDS);
    this.pasidCache = new EntryCache(config.cachePolicy, 10, PASID_WORDS);
    this.#reserved = new ReservedBits(config);
  }

  /** Power-on: no root table, empty caches. */
  reset(): void {
    this.rootTable = 0;
    this.mode = TTM.LEGACY;
    this.invalidateAll();
  }

  /** Set Root Table Pointer. The caller drops every cache (ESRTPS). */
  setRoot(table: number, mode: number): void {
    this.rootTable = table;
    this.mode = mode;
  }

  /** Drops both caches. */
  invalidateAll(): void {
    this.contextCache.invalidateAll();
    this.pasidCache.invalidateAll();
  }

  /**
   * Finds the domain of a request. Returns {@link OK} or the fault reason; `domain.suppressed` is
   * valid in both cases. `cached` false reads every table afresh and leaves the caches alone.
   */
  resolve(rid: number, pasid: number, access: number, cached: boolean, domain: Domain): number {
    domain.suppressed = false;
    if (this.mode === TTM.ABORT_DMA) return FAULT.RTA_4;
    if (this.mode === TTM.LEGACY) {
      if (pasid !== NO_PASID) return FAULT.RTA_2;
      return this.#legacy(rid, cached, domain);
    }
    if (this.mode !== TTM.SCALABLE || !this.#config.scalableMode) return FAULT.RTA_1;
    return this.#scalable(rid, pasid, access, cached, domain);
  }

  get isScalable(): boolean {
    return this.mode === TTM.SCALABLE;
  }

  /**
   * Whether the context-entry of a requester lets it have a Device-TLB, or ask for pages
   * ({@link GATE}). Returns OK or the fault reason; `domain.suppressed` is valid in both cases, and
   * with OK `domain.did`, the tag of what needs no further table: NO_DOMAIN in scalable mode.
   */
  admits(rid: number, pasid: number, gate: number, domain: Domain): number {
    domain.suppressed = false;
    const page = gate === GATE.PAGE_REQUEST;
    if (this.mode === TTM.ABORT_DMA) return FAULT.RTA_4;
    if (this.mode === TTM.LEGACY) {
      if (page) return FAULT.RTA_3;
      if (pasid !== NO_PASID) return FAULT.RTA_2;
    } else if (this.mode !== TTM.SCALABLE || !this.#config.scalableMode) return FAULT.RTA_1;
    const scalable = this.mode === TTM.SCALABLE;
    const words = this.#context;
    const fault = this.#contextEntry(rid, true, scalable);
    domain.suppressed = (words[0] & FPD) !== 0;
    if (fault !== OK) return fault;
    domain.did = scalable ? NO_DOMAIN : CONTEXT_ENTRY.get.DID(words);
    if (!scalable) return CONTEXT_ENTRY.get.TT(words) === TT.ALL ? OK : FAULT.LCT_5;
    if (page) return SM_CONTEXT_ENTRY.get.PRE(words) === 1 ? OK : FAULT.SCT_8;
    return SM_CONTEXT_ENTRY.get.DTE(words) === 1 ? OK : FAULT.SCT_5;
  }

  /** True when a requester's tables, read afresh, let it send requests-with-PASID. */
  usesPasids(rid: number): boolean {
    if (this.mode !== TTM.SCALABLE || !this.#config.scalableMode) return false;
    return this.#contextEntry(rid, false, true) === OK && SM_CONTEXT_ENTRY.get.PASIDE(this.#context) === 1;
  }

  /**
   * The next PASID ≥ `from` with a present entry, read afresh; −1 when there is none. When `budget`
   * entries were looked at first: −2 − p, where p is the PASID to go on at.
   */
  nextPasid(rid: number, from: number, budget: number): number {
    if (!this.usesPasids(rid)) return -1;
    const memory = this.#memory;
    const directory = this.#root;
    const limit = pasidLimit(SM_CONTEXT_ENTRY.get.PDTS(this.#context));
    const base = SM_CONTEXT_ENTRY.get.PASIDDIRPTR(this.#context);
    let left = budget;
    for (let pasid = from; pasid < limit; left--) {
      if (left <= 0) return -2 - pasid;
      const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
      const present =
        memory.loadWords(base + index * PASID_DIRECTORY_ENTRY.bytes, directory, 2) &&
        PASID_DIRECTORY_ENTRY.get.P(directory) === 1;
      const next = (index + 1) * PASID_TABLE_ENTRIES;
      if (!present) {
        pasid = next;
        continue;
      }
      const table = PASID_DIRECTORY_ENTRY.get.SMPTBLPTR(directory);
      for (; pasid < next; pasid++) {
        const entry = table + (pasid % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
        if (memory.load32(entry) && (memory.lo & PRESENT) !== 0) return pasid;
        left--;
      }
    }
    return -1;
  }

  #legacy(rid: number, cached: boolean, domain: Domain): number {
    const words = this.#context;
    const fault = this.#contextEntry(rid, cached, false);
    domain.suppressed = (words[0] & FPD) !== 0;
    if (fault !== OK) return fault;
    const type = CONTEXT_ENTRY.get.TT(words);
    const width = CONTEXT_ENTRY.get.AW(words);
    domain.scalable = false;
    domain.snooped = true;
    domain.did = CONTEXT_ENTRY.get.DID(words);
    domain.tag = ANY;
    domain.passThroughWidth = Math.min(30 + 9 * width, this.#config.hostAddressWidth);
    domain.kind = type === TT.PASS_THROUGH ? KIND.PASS_THROUGH : KIND.SECOND;
    domain.secondRoot = CONTEXT_ENTRY.get.SSPTPTR(words);
    domain.secondFormat = this.#formats.second(width, false);
    return OK;
  }

  #scalable(rid: number, pasid: number, access: number, cached: boolean, domain: Domain): number {
    const words = this.#context;
    const fault = this.#contextEntry(rid, cached, true);
    domain.suppressed = (words[0] & FPD) !== 0;
    if (fault !== OK) return fault;
    const ridPasid = SM_CONTEXT_ENTRY.get.RID_PASID(words);
    let effective = ridPasid;
    if (pasid !== NO_PASID) {
      if (SM_CONTEXT_ENTRY.get.PASIDE(words) === 0) return FAULT.SCT_6;
      if (pasid >>> this.#config.pasidBits !== 0) return FAULT.SGN_10;
      if (pasid >= pasidLimit(SM_CONTEXT_ENTRY.get.PDTS(words))) return FAULT.SCT_7;
      if (pasid === ridPasid) return FAULT.SCT_9;
      effective = pasid;
    }
    const entryFault = this.#pasidEntry(rid, effective, cached);
    if ((this.#pasid[0] & FPD) !== 0) domain.suppressed = true;
    if (entryFault !== OK) return entryFault;
    if (pasid !== NO_PASID) {
      // ERS and SRS are clear; requests without PASID have neither attribute (§9.4: RPRIVS is
      // clear).
      if ((access & ACCESS.EXECUTE) !== 0) return FAULT.SPT_5;
      if ((access & ACCESS.PRIVILEGED) !== 0) return FAULT.SPT_6;
    }
    domain.tag = effective;
    fillFromPasidEntry(this.#pasid, this.#config, this.#formats, domain);
    return OK;
  }

  /** Leaves the context-entry in `this.context` and returns its fault. */
  #contextEntry(rid: number, cached: boolean, scalable: boolean): number {
    if (cached) {
      const slot = this.contextCache.find(rid, 0);
      if (slot !== MISS) {
        const from = slot * CONTEXT_WORDS;
        for (let index = 0; index < CONTEXT_WORDS; index++) {
          this.#context[index] = this.contextCache.words[from + index];
        }
        return this.contextCache.faultOf(slot);
      }
    }
    this.#context.fill(0);
    const fault = scalable ? this.#readScalableContext(rid) : this.#readLegacyContext(rid);
    if (cached && (fault === OK || this.#config.cachingMode)) {
      // Faulting entries carry the reserved domain-id 0 (§6.2.2); scalable ones are not tagged at
      // all.
      const did = fault === OK && !scalable ? CONTEXT_ENTRY.get.DID(this.#context) : 0;
      this.contextCache.insert(rid, 0, did, fault, this.#context);
    }
    return fault;
  }

  #readLegacyContext(rid: number): number {
    const root = this.#root;
    if (!this.#memory.loadWords(this.rootTable + (rid >>> 8) * ROOT_ENTRY.bytes, root, 4)) return FAULT.LRT_1;
    if (ROOT_ENTRY.get.P(root) === 0) return FAULT.LRT_2;
    if (violates(this.#reserved.root, root, 0, 4)) return FAULT.LRT_3;
    const words = this.#context;
    const address = ROOT_ENTRY.get.CTP(root) + (rid & 0xff) * CONTEXT_ENTRY.bytes;
    if (!this.#memory.loadWords(address, words, 4)) return FAULT.LCT_1;
    if (CONTEXT_ENTRY.get.P(words) === 0) return FAULT.LCT_2;
    const type = CONTEXT_ENTRY.get.TT(words);
    const mask = type === TT.PASS_THROUGH ? this.#reserved.contextPassThrough : this.#reserved.context;
    if (violates(mask, words, 0, 4)) return FAULT.LCT_3;
    if ((this.#config.supportedWidths & (1 << CONTEXT_ENTRY.get.AW(words))) === 0) return FAULT.LCT_4;
    return this.#typeSupported(type) ? OK : FAULT.LCT_4;
  }

  #typeSupported(type: number): boolean {
    if (type === TT.ALL) return this.#config.deviceTlb;
    return type === TT.UNTRANSLATED || (type === TT.PASS_THROUGH && this.#config.passThrough);
  }

  #readScalableContext(rid: number): number {
    const root = this.#root;
    const devfn = rid & 0xff;
    const upper = devfn >= 128 ? 2 : 0;
    if (!this.#memory.loadWords(this.rootTable + (rid >>> 8) * SM_ROOT_ENTRY.bytes, root, 4)) {
      return FAULT.SRT_1;
    }
    const present = upper === 0 ? SM_ROOT_ENTRY.get.LP(root) : SM_ROOT_ENTRY.get.UP(root);
    if (present === 0) return FAULT.SRT_2;
    if (violates(this.#reserved.scalableRoot, root, upper, upper + 2)) return FAULT.SRT_3;
    const table = upper === 0 ? SM_ROOT_ENTRY.get.LCTP(root) : SM_ROOT_ENTRY.get.UCTP(root);
    const words = this.#context;
    const address = table + (devfn & 127) * SM_CONTEXT_ENTRY.bytes;
    if (!this.#memory.loadWords(address, words, CONTEXT_WORDS)) return FAULT.SCT_1;
    if (SM_CONTEXT_ENTRY.get.P(words) === 0) return FAULT.SCT_2;
    if (violates(this.#reserved.scalableContext, words, 0, CONTEXT_WORDS)) return FAULT.SCT_3;
    // SCT.4.1: who asks for pages has a Device-TLB.
    if (SM_CONTEXT_ENTRY.get.PRE(words) === 1 && SM_CONTEXT_ENTRY.get.DTE(words) === 0) return FAULT.SCT_4;
    const limit = pasidLimit(SM_CONTEXT_ENTRY.get.PDTS(words));
    return SM_CONTEXT_ENTRY.get.RID_PASID(words) >= limit ? FAULT.SCT_4 : OK;
  }

  /**
   * Leaves the PASID-table entry in `this.pasid`, its FPD joined with the directory's; returns its
   * fault.
   */
  #pasidEntry(rid: number, pasid: number, cached: boolean): number {
    if (cached) {
      const slot = this.pasidCache.find(rid, pasid);
      if (slot !== MISS) {
        const from = slot * PASID_WORDS;
        for (let index = 0; index < PASID_WORDS; index++) {
          this.#pasid[index] = this.pasidCache.words[from + index];
        }
        return this.pasidCache.faultOf(slot);
      }
    }
    this.#pasid.fill(0);
    const fault = this.#readPasidEntry(pasid);
    if (cached && (fault === OK || this.#config.cachingMode)) {
      const did = fault === OK ? PASID_TABLE_ENTRY.get.DID(this.#pasid) : 0;
      this.pasidCache.insert(rid, pasid, did, fault, this.#pasid);
    }
    return fault;
  }

  #readPasidEntry(pasid: number): number {
    const directory = this.#root;
    const words = this.#pasid;
    const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
    const address = SM_CONTEXT_ENTRY.get.PASIDDIRPTR(this.#context) + index * PASID_DIRECTORY_ENTRY.bytes;
    if (!this.#memory.loadWords(address, directory, 2)) return FAULT.SPD_1;
    const suppress = directory[0] & FPD;
    words[0] |= suppress;
    if (PASID_DIRECTORY_ENTRY.get.P(directory) === 0) return FAULT.SPD_2;
    if (violates(this.#reserved.pasidDirectory, directory, 0, 2)) return FAULT.SPD_3;
    const table = PASID_DIRECTORY_ENTRY.get.SMPTBLPTR(directory);
    const entry = table + (pasid % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
    if (!this.#memory.loadWords(entry, words, PASID_WORDS)) return FAULT.SPT_1;
    words[0] |= suppress;
    if (PASID_TABLE_ENTRY.get.P(words) === 0) return FAULT.SPT_2;
    if (violates(this.#reserved.pasidTable, words, 0, PASID_WORDS)) return FAULT.SPT_3;
    return checkPasidEntry(words, this.#config) ? OK : FAULT.SPT_4;
  }
}
