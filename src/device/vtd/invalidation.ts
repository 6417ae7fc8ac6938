/**
 * Invalidations, however they were asked for: what each granularity drops from the model's caches,
 * and what the downstream caches are told. VT-d §6.5.1, §6.5.2, Tables 23 and 24.
 *
 * Context- and PASID-cache invalidations drop downstream translations as well. Hardware need not do
 * that, and software has to follow with an IOTLB invalidation; but a shadow of the requester
 * depends on its configuration. A forgotten IOTLB invalidation stays visible: the model's own IOTLB
 * keeps the entry.
 */

import { ANY } from '../../base/ids.js';
import { CC_GRANULARITY, IOTLB_GRANULARITY } from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import { DownstreamCaches } from '../downstream-caches.js';
import type { IommuOutputs } from '../iommu.js';
import type { VtdLookup } from './lookup.js';
import { WHOLE_SPACE } from './spans.js';
import type { VtdTranslator } from './translate.js';

export class VtdInvalidator {
  readonly #lookup: VtdLookup;
  readonly #translator: VtdTranslator;
  readonly #counters: ModelCounters;
  readonly #caches: DownstreamCaches;

  constructor(lookup: VtdLookup, translator: VtdTranslator, outputs: IommuOutputs, counters: ModelCounters) {
    this.#lookup = lookup;
    this.#translator = translator;
    this.#counters = counters;
    this.#caches = new DownstreamCaches(outputs);
  }

  /** Everything: the model's own caches and those downstream. */
  all(): void {
    this.#lookup.invalidateAll();
    this.#translator.iotlb.invalidateAll();
    this.dropDownstream();
  }

  /** Everything downstream; the model's own caches stay. */
  dropDownstream(): void {
    this.#translator.droppedDownstream();
    this.#caches.everything();
  }

  /**
   * Context-cache invalidation, §6.5.2.1. `functionMask` masks the low function bits of `sid`
   * (Table 21). In scalable mode entries carry no domain-id: domain-selective acts as global,
   * device-selective ignores it.
   */
  contextCache(granularity: number, did: number, sid: number, functionMask: number, scalable: boolean): void {
    this.#counters.invalidations++;
    const cache = this.#lookup.contextCache;
    if (granularity === CC_GRANULARITY.DEVICE) {
      const masked = maskedFunctions(functionMask);
      for (let bits = 0; bits < 8; bits++) {
        if ((bits & ~masked) !== 0) continue;
        const rid = (sid & ~masked) | bits;
        cache.invalidateKey(rid, 0, scalable ? -1 : did);
        this.#caches.structures(ANY, ANY, rid);
      }
    } else if (granularity === CC_GRANULARITY.DOMAIN && !scalable) {
      cache.invalidateDomain(did);
      this.#caches.structures(did, ANY, ANY);
    } else {
      cache.invalidateAll();
      this.dropDownstream();
    }
  }

  /** All PASID-cache entries. §6.5.2.2 */
  pasidCacheGlobal(): void {
    this.#counters.invalidations++;
    this.#lookup.pasidCache.invalidateAll();
    this.dropDownstream();
  }

  /** PASID-cache entries of a domain. */
  pasidCacheDomain(did: number): void {
    this.#counters.invalidations++;
    this.#lookup.pasidCache.invalidateDomain(did);
    this.#caches.structures(did, ANY, ANY);
  }

  /** PASID-cache entries of one PASID in a domain. */
  pasidCachePasid(did: number, pasid: number): void {
    this.#counters.invalidations++;
    this.#lookup.pasidCache.invalidateDomainAndB(did, pasid);
    this.#caches.structures(did, pasid, ANY);
  }

  /** IOTLB invalidation, §6.5.2.3. Pages: 2^addressMask of 4 KiB around the address. */
  iotlb(granularity: number, did: number, lo: number, hi: number, addressMask: number): void {
    this.#counters.invalidations++;
    const { iotlb, firstStageHandedOut, firstStageWalked } = this.#translator;
    if (granularity === IOTLB_GRANULARITY.GLOBAL) {
      iotlb.invalidateAll();
      this.dropDownstream();
    } else if (granularity === IOTLB_GRANULARITY.DOMAIN) {
      iotlb.invalidateDomain(did);
      this.#dropDomainDownstream(did);
    } else {
      iotlb.invalidatePages(did, lo, hi, addressMask);
      // First-stage and nested mappings of the domain go whatever their address.
      if ((firstStageHandedOut[did] | firstStageWalked[did]) !== 0) this.#dropDomainDownstream(did);
      else this.#caches.tell(did, ANY, ANY, lo, hi, 12 + addressMask);
    }
  }

  #dropDomainDownstream(did: number): void {
    this.#translator.firstStageHandedOut[did] = 0;
    this.#caches.tell(did, ANY, ANY, 0, 0, WHOLE_SPACE);
  }

  /** PASID-selective P_IOTLB invalidation, §6.5.2.4: every stage. */
  pasidIotlb(did: number, pasid: number): void {
    this.#counters.invalidations++;
    this.#translator.iotlb.invalidateTag(did, pasid);
    this.#caches.tell(did, pasid, ANY, 0, 0, WHOLE_SPACE);
  }

  /** Page-selective-within-PASID P_IOTLB invalidation, §6.5.2.4. */
  pasidIotlbPages(did: number, pasid: number, lo: number, hi: number, addressMask: number): void {
    this.#counters.invalidations++;
    this.#translator.iotlb.invalidateTaggedPages(did, pasid, lo, hi, addressMask);
    this.#caches.tell(did, pasid, ANY, lo, hi, 12 + addressMask);
  }
}

/** Function-number bits that a Function Mask hides: none, 2, 2:1, 2:0. Table 21, §11.4.6.1 */
function maskedFunctions(functionMask: number): number {
  return functionMask === 0 ? 0 : functionMask === 1 ? 0b100 : functionMask === 2 ? 0b110 : 0b111;
}
