/**
 * Invalidations: what each command drops from the model's caches, and what the downstream caches
 * are told. IHI 0070 §4.3, §4.4.
 *
 * Configuration invalidations drop downstream translations as well: a shadow of the stream depends
 * on its configuration. A forgotten TLBI stays visible: the model's own TLB keeps the entry.
 */

import { ANY } from '../../base/ids.js';
import type { ModelCounters } from '../counters.js';
import { DownstreamCaches } from '../downstream-caches.js';
import type { IommuOutputs } from '../iommu.js';
import { WHOLE_SPACE } from '../spans.js';
import { STREAM_ID_BITS } from './config.js';
import type { SmmuLookup } from './lookup.js';
import { GLOBAL_TAG, type Walks } from './walks.js';

/**
 * A range of StreamIDs up to this size is dropped one by one, a larger one with everything else.
 */
const MOST_STREAMS = 256;
/** Blocks of which a range is made, until everything of its owner is dropped instead. */
const MOST_BLOCKS = 64;

export class SmmuInvalidator {
  readonly #lookup: SmmuLookup;
  readonly #walks: Walks;
  readonly #counters: ModelCounters;
  readonly #caches: DownstreamCaches;

  constructor(lookup: SmmuLookup, walks: Walks, outputs: IommuOutputs, counters: ModelCounters) {
    this.#lookup = lookup;
    this.#walks = walks;
    this.#counters = counters;
    this.#caches = new DownstreamCaches(outputs);
  }

  /** Everything downstream; the model's own caches stay. */
  dropDownstream(): void {
    this.#walks.handedOutLoose = false;
    this.#caches.everything();
  }

  /** CMD_CFGI_STE: the STE, and what was found through it. §4.3.1 */
  streamTableEntry(sid: number): void {
    this.#counters.invalidations++;
    this.#dropStream(sid);
  }

  /** CMD_CFGI_STE_RANGE: 2^(range + 1) StreamIDs, aligned. §4.3.2 */
  streamTableRange(sid: number, range: number): void {
    this.#counters.invalidations++;
    const count = 2 ** (range + 1);
    if (count > MOST_STREAMS) {
      this.#lookup.invalidateAll();
      this.dropDownstream();
      return;
    }
    const first = sid - (sid % count);
    for (let index = 0; index < count && first + index < 2 ** STREAM_ID_BITS; index++) {
      this.#dropStream(first + index);
    }
  }

  /** CMD_CFGI_CD. §4.3.3 */
  contextDescriptor(sid: number, ssid: number): void {
    this.#counters.invalidations++;
    this.#lookup.invalidateContext(sid, ssid);
    this.#caches.structures(ANY, ANY, sid);
  }

  /** CMD_CFGI_CD_ALL. §4.3.4 */
  contextDescriptors(sid: number): void {
    this.#counters.invalidations++;
    this.#lookup.invalidateContexts(sid);
    this.#caches.structures(ANY, ANY, sid);
  }

  /**
   * A SubstreamID is no longer the guest's: no stream may go on using it, whatever its descriptors
   * say.
   */
  substreamLost(): void {
    this.#lookup.ownershipChanged();
    this.dropDownstream();
  }

  #dropStream(sid: number): void {
    this.#lookup.invalidateStream(sid);
    this.#caches.structures(ANY, ANY, sid);
  }

  /** CMD_TLBI_NSNH_ALL: every translation. §4.4.4 */
  everything(): void {
    this.#counters.invalidations++;
    this.#walks.tlb.invalidateAll();
    this.dropDownstream();
  }

  /** CMD_TLBI_S12_VMALL: both stages of a VMID. §4.4.3 */
  vmid(vmid: number): void {
    this.#counters.invalidations++;
    this.#walks.tlb.invalidateDomain(vmid);
    this.#caches.tell(vmid, ANY, ANY, 0, 0, WHOLE_SPACE);
  }

  /** CMD_TLBI_NH_ALL: stage 1 of a VMID. §4.4.1 */
  firstStage(vmid: number): void {
    this.#counters.invalidations++;
    this.#walks.tlb.invalidateFirstStage(vmid);
    this.#caches.tell(vmid, ANY, ANY, 0, 0, WHOLE_SPACE);
  }

  /** CMD_TLBI_NH_ASID: entries of every ASID stay. §4.4.1 */
  asid(vmid: number, asid: number): void {
    this.#counters.invalidations++;
    this.#walks.tlb.invalidateTag(vmid, asid);
    this.#caches.tell(vmid, asid, ANY, 0, 0, WHOLE_SPACE);
  }

  /**
   * CMD_TLBI_NH_VA and NH_VAA (`asid` {@link ANY}): `pages` pages of 2^granule bytes from `lo:hi`.
   * §4.4.1, §4.4.1.1
   */
  addresses(vmid: number, asid: number, lo: number, hi: number, granule: number, pages: number): void {
    this.#counters.invalidations++;
    const loose = this.#walks.handedOutLoose;
    let left = pages;
    let atLo = lo;
    let atHi = hi;
    for (let blocks = 0; left > 0; blocks++) {
      if (blocks === MOST_BLOCKS) {
        this.#beyondCounting(vmid, asid);
        return;
      }
      const log2 = blockLog2(atLo, atHi, granule, left);
      this.#firstStageBlock(vmid, asid, atLo, atHi, log2);
      if (!loose) this.#caches.tell(vmid, asid, ANY, atLo, atHi, log2);
      const low = (atLo >>> 0) + 2 ** Math.min(log2, 32);
      atHi = (atHi + (log2 > 32 ? 2 ** (log2 - 32) : Math.floor(low / 2 ** 32))) | 0;
      atLo = log2 > 32 ? atLo : low | 0;
      left -= 2 ** (log2 - granule);
    }
    if (loose) this.#caches.tell(vmid, ANY, ANY, 0, 0, WHOLE_SPACE);
  }

  #beyondCounting(vmid: number, asid: number): void {
    if (asid === ANY) this.#walks.tlb.invalidateFirstStage(vmid);
    else {
      this.#walks.tlb.invalidateTag(vmid, asid);
      this.#walks.tlb.invalidateTag(vmid, GLOBAL_TAG);
    }
    // By ASID, global entries would stay downstream: nesting hardware caches them without telling
    // the daemon.
    this.#caches.tell(vmid, ANY, ANY, 0, 0, WHOLE_SPACE);
  }

  /**
   * The TLB holds addresses with bits 63:56 repeating bit 55, where TBI is set; those of the
   * command may be anything.
   */
  #firstStageBlock(vmid: number, asid: number, lo: number, hi: number, log2: number): void {
    const { tlb } = this.#walks;
    const canonical = (hi << 8) >> 8;
    for (let pass = 0; pass < (canonical === (hi | 0) ? 1 : 2); pass++) {
      const top = pass === 0 ? hi : canonical;
      if (asid === ANY) {
        tlb.invalidateFirstStagePages(vmid, lo, top, log2 - 12);
      } else {
        tlb.invalidateTaggedPages(vmid, asid, lo, top, log2 - 12);
        tlb.invalidateTaggedPages(vmid, GLOBAL_TAG, lo, top, log2 - 12);
      }
    }
  }

  /** CMD_TLBI_S2_IPA: stage 2 only; what both stages made stays. §4.4.3 */
  intermediateAddresses(vmid: number, lo: number, hi: number, granule: number, pages: number): void {
    this.#counters.invalidations++;
    const { tlb } = this.#walks;
    let left = pages;
    let at = (hi >>> 0) * 2 ** 32 + (lo >>> 0);
    for (let blocks = 0; left > 0; blocks++) {
      const atLo = at | 0;
      const atHi = Math.floor(at / 2 ** 32) | 0;
      if (blocks === MOST_BLOCKS) {
        tlb.invalidateDomain(vmid);
        this.#caches.tell(vmid, ANY, ANY, 0, 0, WHOLE_SPACE);
        return;
      }
      const log2 = blockLog2(atLo, atHi, granule, left);
      tlb.invalidateSecondStagePages(vmid, atLo, atHi, log2 - 12);
      this.#caches.tell(vmid, ANY, ANY, atLo, atHi, log2);
      at += 2 ** log2;
      left -= 2 ** (log2 - granule);
    }
  }
}

/** log2 of the largest aligned block at an address, of at most `pages` pages of 2^granule bytes. */
function blockLog2(lo: number, hi: number, granule: number, pages: number): number {
  let log2 = granule;
  while (log2 < 52 && 2 ** (log2 + 1 - granule) <= pages && bitClear(lo, hi, log2)) log2++;
  return log2;
}

function bitClear(lo: number, hi: number, bit: number): boolean {
  return bit < 32 ? (lo & (1 << bit)) === 0 : (hi & (1 << (bit - 32))) === 0;
}
