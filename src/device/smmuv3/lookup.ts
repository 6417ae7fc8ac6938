/**
 * From a StreamID and SubstreamID to their configuration: stream table, context descriptors and the
 * configuration cache. IHI 0070 §3.3, §3.21.1, §5.1 to §5.4; events §7.3.
 */

import { ANY, NO_PASID } from '../../base/ids.js';
import { EntryCache, MISS } from '../../cache/entry-cache.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { rootBytes } from '../../spec/pagetable/vmsa.js';
import { CLASS, EVENT } from '../../spec/smmuv3/events.js';
import { STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT } from '../../spec/smmuv3/registers.js';
import {
  CD,
  CD_SPLIT,
  L1CD,
  L1STD,
  MAX_SPAN,
  S1DSS,
  S1FMT,
  STE,
  STE_CONFIG,
  STE_CONFIG_BIT,
} from '../../spec/smmuv3/structures.js';
import { StageTwo } from '../../walk/nested.js';
import { KIND } from '../leaves.js';
import type { OwnedPasids } from '../pasid-commands.js';
import type { RegisterFile } from '../registers.js';
import { NO_DOMAIN } from '../spans.js';
import { type SmmuConfig, STREAM_ID_BITS } from './config.js';
import { ABORTED, type Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import { cdLegal, steLegal } from './rules.js';
import type { Stream } from './stream.js';
import { stage2Fault } from './walk-fault.js';

const STE_WORDS = STE.wordCount;
const CD_WORDS = CD.wordCount;

export class SmmuLookup {
  readonly #config: SmmuConfig;
  readonly #formats: SmmuFormats;
  readonly #file: RegisterFile;
  readonly #memory: GuestMemory;
  /** SubstreamIDs that the guest has; undefined: all are its own. */
  readonly #owned: OwnedPasids | undefined;
  readonly steCache: EntryCache;
  /** Keyed by StreamID and SubstreamID, tagged with the StreamID. */
  readonly cdCache: EntryCache;
  /** Changes with every invalidation of the configuration. */
  generation = 0;
  readonly #ste = new Uint32Array(STE_WORDS);
  readonly #cd = new Uint32Array(CD_WORDS);
  readonly #pair = new Uint32Array(2);
  readonly #stage2: StageTwo;

  constructor(
    config: SmmuConfig,
    formats: SmmuFormats,
    file: RegisterFile,
    memory: GuestMemory,
    owned?: OwnedPasids,
  ) {
    this.#config = config;
    this.#formats = formats;
    this.#file = file;
    this.#memory = memory;
    this.#owned = owned;
    this.steCache = new EntryCache(config.cachePolicy, 10, STE_WORDS);
    this.cdCache = new EntryCache(config.cachePolicy, 10, CD_WORDS);
    this.#stage2 = new StageTwo(memory);
  }

  /** Drops both caches. */
  invalidateAll(): void {
    this.generation++;
    this.steCache.invalidateAll();
    this.cdCache.invalidateAll();
  }

  /**
   * What was resolved with a SubstreamID may be another's now. Descriptors are the guest's own, and
   * stay.
   */
  ownershipChanged(): void {
    this.generation++;
  }

  /** Drops a stream's STE and every CD that was found through it. §4.3.1 */
  invalidateStream(sid: number): void {
    this.generation++;
    this.steCache.invalidateKey(sid, 0, -1);
    this.cdCache.invalidateDomain(sid);
  }

  /** Drops one CD of a stream. §4.3.3 */
  invalidateContext(sid: number, ssid: number): void {
    this.generation++;
    this.cdCache.invalidateKey(sid, ssid, -1);
  }

  /** Drops every CD of a stream. §4.3.4 */
  invalidateContexts(sid: number): void {
    this.generation++;
    this.cdCache.invalidateDomain(sid);
  }

  /**
   * Finds the configuration of a stream. Returns {@link OK}, {@link ABORTED} or an event that
   * `fault` describes. `cached` false reads everything afresh, and sets no Access flag of stage 2
   * on the way.
   */
  resolve(sid: number, ssid: number, cached: boolean, stream: Stream, fault: Fault): number {
    const wrong = this.streamEntry(sid, cached, fault);
    if (wrong !== OK) return wrong;
    const ste = this.#ste;
    stream.merge = fault.merge;
    const stages = STE.get.Config(ste);
    if ((stages & STE_CONFIG_BIT.PASS) === 0) return fault.raise(ABORTED);
    const second = (stages & STE_CONFIG_BIT.S2) !== 0;
    stream.vmid = stages === STE_CONFIG.BYPASS ? NO_DOMAIN : this.#config.stage2 ? STE.get.S2VMID(ste) : 0;
    stream.asid = ANY;
    stream.kind = second ? KIND.SECOND : KIND.PASS_THROUGH;
    if (second) this.#fillSecond(stream);
    if ((stages & STE_CONFIG_BIT.S1) === 0) {
      // §7.3.9: nothing knows what to do with a SubstreamID.
      return ssid === NO_PASID ? OK : fault.raise(EVENT.C_BAD_SUBSTREAMID);
    }
    const size = this.#config.ssidBits === 0 ? 0 : STE.get.S1CDMax(ste);
    const behaviour = size === 0 ? S1DSS.SSID0 : STE.get.S1DSS(ste);
    if (ssid !== NO_PASID) {
      if (size === 0 || ssid >= 2 ** size) return fault.raise(EVENT.C_BAD_SUBSTREAMID);
      // §7.3.7: that context descriptor belongs to transactions without a SubstreamID.
      if (ssid === 0 && behaviour === S1DSS.SSID0) return fault.raise(EVENT.F_STREAM_DISABLED);
      // docs/pv-pasid.md §4
      if (this.#owned !== undefined && !this.#owned.has(ssid)) return fault.raise(EVENT.C_BAD_SUBSTREAMID);
    } else if (behaviour === S1DSS.BYPASS) {
      if (!second) stream.vmid = NO_DOMAIN;
      return OK;
    } else if (behaviour !== S1DSS.SSID0) {
      return fault.raise(EVENT.F_STREAM_DISABLED);
    }
    const index = ssid === NO_PASID ? 0 : ssid;
    const bad = this.#contextDescriptor(sid, index, size, cached, second ? stream : undefined, fault);
    if (bad !== OK) return bad;
    this.#fillFirst(stream);
    stream.kind = second ? KIND.NESTED : KIND.FIRST;
    return OK;
  }

  /**
   * Finds a stream's usable STE, which is then {@link lastStreamEntry}. Returns {@link OK} or an
   * event.
   */
  streamEntry(sid: number, cached: boolean, fault: Fault): number {
    fault.clear();
    const wrong = this.#streamTableEntry(sid, cached, fault);
    if (wrong === OK) fault.merge = STE.get.MEV(this.#ste) === 1;
    return wrong;
  }

  /**
   * Makes `stream` what {@link lastStreamEntry}, which has a stage 2, says of intermediate
   * addresses.
   */
  secondOnly(stream: Stream): void {
    stream.kind = KIND.SECOND;
    stream.vmid = STE.get.S2VMID(this.#ste);
    stream.asid = ANY;
    stream.merge = STE.get.MEV(this.#ste) === 1;
    this.#fillSecond(stream);
  }

  /**
   * For people: reads a stream's STE afresh into {@link lastStreamEntry}. False when there is none,
   * or V is clear.
   */
  peekStream(sid: number, fault: Fault): boolean {
    return this.#fetchSte(sid, fault) === OK && STE.get.V(this.#ste) === 1;
  }

  /** Words of the STE that was looked at last. */
  get lastStreamEntry(): Uint32Array {
    return this.#ste;
  }

  /** Words of the context descriptor that was looked at last. */
  get lastContext(): Uint32Array {
    return this.#cd;
  }

  /** True when a stream's tables, read afresh, can give its substreams different address spaces. */
  usesSubstreams(sid: number, fault: Fault): boolean {
    if (this.#streamTableEntry(sid, false, fault) !== OK) return false;
    return (STE.get.Config(this.#ste) & STE_CONFIG_BIT.S1) !== 0 && STE.get.S1CDMax(this.#ste) > 0;
  }

  #fillSecond(stream: Stream): void {
    const ste = this.#ste;
    const format = this.#formats.stage2(ste) ?? this.#formats.none;
    const root = STE.get.S2TTB(ste);
    stream.secondFormat = format;
    // §5.2: address bits below the size of the root table are taken as zero.
    stream.secondRoot = root - (root % rootBytes(format));
    stream.secondRecorded = STE.get.S2R(ste) === 1;
    stream.secondStalls = STE.get.S2S(ste) === 1;
  }

  #fillFirst(stream: Stream): void {
    const cd = this.#cd;
    stream.asid = CD.get.ASID(cd);
    stream.firstRecorded = CD.get.R(cd) === 1;
    stream.firstStalls = CD.get.S(cd) === 1;
    stream.lowFormat = CD.get.EPD0(cd) === 1 ? undefined : this.#formats.stage1(cd, false);
    stream.highFormat = CD.get.EPD1(cd) === 1 ? undefined : this.#formats.stage1(cd, true);
    stream.lowRoot = aligned(CD.get.TTB0(cd), stream.lowFormat ? rootBytes(stream.lowFormat) : 64);
    stream.highRoot = aligned(CD.get.TTB1(cd), stream.highFormat ? rootBytes(stream.highFormat) : 64);
    stream.lowTopByteIgnored = CD.get.TBI0(cd) === 1;
    stream.highTopByteIgnored = CD.get.TBI1(cd) === 1;
  }

  /** Leaves a usable STE in `this.ste`, or returns the event. */
  #streamTableEntry(sid: number, cached: boolean, fault: Fault): number {
    if (cached) {
      const slot = this.steCache.find(sid, 0);
      if (slot !== MISS) {
        copy(this.steCache.words, slot * STE_WORDS, this.#ste, STE_WORDS);
        return OK;
      }
    }
    const wrong = this.#fetchSte(sid, fault);
    if (wrong !== OK) return wrong;
    if (STE.get.V(this.#ste) === 0 || !steLegal(this.#ste, this.#config, this.#formats)) {
      return fault.raise(EVENT.C_BAD_STE);
    }
    if (cached) this.steCache.insert(sid, 0, 0, 0, this.#ste);
    return OK;
  }

  /** §3.3.1, §3.3.2 */
  #fetchSte(sid: number, fault: Fault): number {
    const { words } = this.#file;
    const word = STRTAB_BASE_CFG.offset >> 2;
    const log2Size = Math.min(STRTAB_BASE_CFG.get.LOG2SIZE(words, word), STREAM_ID_BITS);
    const base = STRTAB_BASE.get.ADDR(words, STRTAB_BASE.offset >> 2);
    if (sid >= 2 ** log2Size) return fault.raise(EVENT.C_BAD_STREAMID);
    if (STRTAB_BASE_CFG.get.FMT(words, word) !== STRTAB_FMT.TWO_LEVEL || !this.#config.twoLevel) {
      return this.#loadSte(aligned(base, 2 ** log2Size * STE.bytes) + sid * STE.bytes, fault);
    }
    const split = splitOf(STRTAB_BASE_CFG.get.SPLIT(words, word));
    const tableBytes = Math.max(64, 2 ** Math.max(0, log2Size - split) * L1STD.bytes);
    const address = aligned(base, tableBytes) + (sid >>> split) * L1STD.bytes;
    if (!this.#memory.loadWords(address, this.#pair, 2)) return fault.fetch(EVENT.F_STE_FETCH, address);
    const span = L1STD.get.Span(this.#pair);
    const index = sid & (2 ** split - 1);
    // §7.3.3: one that is larger than the split leaves room for is no better than a reserved one.
    if (span === 0 || span > MAX_SPAN || span > split + 1 || index >= 2 ** (span - 1))
      return fault.raise(EVENT.C_BAD_STREAMID);
    const table = aligned(L1STD.get.L2Ptr(this.#pair), 2 ** (span - 1) * STE.bytes);
    return this.#loadSte(table + index * STE.bytes, fault);
  }

  #loadSte(address: number, fault: Fault): number {
    if (this.#memory.loadWords(address, this.#ste, STE_WORDS)) return OK;
    return fault.fetch(EVENT.F_STE_FETCH, address);
  }

  /**
   * Leaves a usable CD in `this.cd`, or returns the event. `nested`: its address is an intermediate
   * one.
   */
  #contextDescriptor(
    sid: number,
    ssid: number,
    size: number,
    cached: boolean,
    nested: Stream | undefined,
    fault: Fault,
  ): number {
    if (cached) {
      const slot = this.cdCache.find(sid, ssid);
      if (slot !== MISS) {
        copy(this.cdCache.words, slot * CD_WORDS, this.#cd, CD_WORDS);
        return OK;
      }
    }
    if (nested) this.#stage2.use(nested.secondFormat, nested.secondRoot, !cached);
    const wrong = this.#fetchCd(ssid, size, nested, fault);
    if (wrong !== OK) return wrong;
    if (CD.get.V(this.#cd) === 0 || !cdLegal(this.#cd, this.#ste, this.#config, this.#formats)) {
      return fault.raise(EVENT.C_BAD_CD);
    }
    if (cached) this.cdCache.insert(sid, ssid, sid, 0, this.#cd);
    return OK;
  }

  /** §3.3.3 */
  #fetchCd(ssid: number, size: number, nested: Stream | undefined, fault: Fault): number {
    const base = STE.get.S1ContextPtr(this.#ste);
    const format = STE.get.S1Fmt(this.#ste);
    if (size === 0) return this.#loadCd(base, nested, fault);
    if (format !== S1FMT.TWO_LEVEL_4K && format !== S1FMT.TWO_LEVEL_64K) {
      return this.#loadCd(aligned(base, 2 ** size * CD.bytes) + ssid * CD.bytes, nested, fault);
    }
    const split = format === S1FMT.TWO_LEVEL_4K ? CD_SPLIT.FOUR_KIB : CD_SPLIT.SIXTY_FOUR_KIB;
    const tableBytes = Math.max(64, 2 ** Math.max(0, size - split) * L1CD.bytes);
    const address = aligned(base, tableBytes) + (ssid >>> split) * L1CD.bytes;
    const failed = this.#load(address, this.#pair, 2, nested, fault);
    if (failed !== OK) return failed;
    if (L1CD.get.V(this.#pair) === 0) return fault.raise(EVENT.C_BAD_SUBSTREAMID);
    const table = aligned(L1CD.get.L2Ptr(this.#pair), 2 ** split * CD.bytes);
    // §3.4.3: an intermediate address out of range is stage 2's matter.
    if (nested === undefined && table >= 2 ** this.#config.outputBits) {
      return fault.raise(EVENT.C_BAD_SUBSTREAMID);
    }
    return this.#loadCd(table + (ssid & (2 ** split - 1)) * CD.bytes, nested, fault);
  }

  #loadCd(address: number, nested: Stream | undefined, fault: Fault): number {
    return this.#load(address, this.#cd, CD_WORDS, nested, fault);
  }

  #load(
    address: number,
    words: Uint32Array,
    count: number,
    nested: Stream | undefined,
    fault: Fault,
  ): number {
    if (nested === undefined) {
      return this.#memory.loadWords(address, words, count) ? OK : fault.fetch(EVENT.F_CD_FETCH, address);
    }
    const stage2 = this.#stage2;
    if (stage2.loadWords(address, words, count)) return OK;
    if (stage2.failed === OK) return fault.fetch(EVENT.F_CD_FETCH, physicalOf(stage2, address));
    const { result } = stage2;
    fault.class = CLASS.CD;
    fault.ipaLo = stage2.failedAddress | 0;
    fault.ipaHi = Math.floor(stage2.failedAddress / 2 ** 32) | 0;
    return stage2Fault(
      fault,
      stage2.failed,
      result.entryAddress,
      stage2.failedAccess,
      nested.secondRecorded,
      nested.secondStalls,
    );
  }
}

/** Where stage 2 put the address that it translated last. */
function physicalOf(stage2: StageTwo, ipa: number): number {
  const { outLo, outHi, log2Size } = stage2.result;
  return (outHi >>> 0) * 2 ** 32 + (outLo >>> 0) + (ipa % 2 ** log2Size);
}

/**
 * Bits of a StreamID that index the second level; other values are reserved and behave as 6.
 * §6.3.24
 */
function splitOf(split: number): number {
  return split === 8 || split === 10 ? split : 6;
}

/** An address with the bits below a power of two cleared. */
function aligned(address: number, bytes: number): number {
  return address - (address % bytes);
}

function copy(from: Uint32Array, base: number, to: Uint32Array, count: number): void {
  for (let index = 0; index < count; index++) to[index] = from[base + index];
}
