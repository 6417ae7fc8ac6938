/** Which tables a requester goes through, for those who keep a copy of them. Reads structures afresh, caches nothing. */
import { type AddressSpaceTables, ANY, NO_TAG, THROUGH } from '../iommu.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import { OK, type VtdLookup } from './lookup.js';
import { INTERRUPT_PAGES, NO_DOMAIN, WHOLE_SPACE } from './spans.js';

export class VtdAddressSpaces {
  private readonly domain: Domain;

  constructor(
    formats: VtdFormats,
    private readonly lookup: VtdLookup,
  ) {
    this.domain = new Domain(formats);
  }

  /** See `Iommu.tables`. */
  fill(translating: boolean, rid: number, pasid: number, out: AddressSpaceTables): void {
    const { domain } = this;
    out.count = 0;
    // No table translates requests there (§3.15).
    out.holeFirst = INTERRUPT_PAGES.FIRST;
    out.holeLast = INTERRUPT_PAGES.LAST;
    out.addressed = false;
    out.silent = false;
    out.updates = true;
    out.through = THROUGH.IDENTITY;
    out.reach = WHOLE_SPACE;
    out.space = NO_DOMAIN;
    out.sub = ANY;
    if (!translating) return;
    if (this.lookup.resolve(rid, pasid, 0, false, domain) !== OK) {
      out.through = THROUGH.NOTHING;
      out.space = NO_TAG;
      return;
    }
    out.space = domain.did;
    out.sub = domain.tag;
    out.reach = domain.passThroughWidth;
    if (domain.kind === KIND.PASS_THROUGH) return;
    const second = domain.kind === KIND.SECOND;
    out.count = 1;
    out.formats[0] = second ? domain.secondFormat : domain.firstFormat;
    out.roots[0] = second ? domain.secondRoot : domain.firstRoot;
    out.updates = domain.snooped;
    out.through = domain.kind === KIND.NESTED ? THROUGH.NESTED : THROUGH.TABLES;
    out.secondFormat = domain.secondFormat;
    out.secondRoot = domain.secondRoot;
    // An IOTLB invalidation by address says nothing of first stages (§6.5.2.3).
    out.addressed = second;
    // Caching mode (§6.1) is about second stages: what is not present in first-stage tables is never cached, so not invalidated.
    out.silent = !second;
  }
}
