/** Which address space each requester has. Reads structures afresh, caches nothing. */
import { ANY, NO_PASID, NO_TAG } from '../../base/ids.js';
import type { InvalidateScope, SpacesView } from '../iommu.js';
import { type AddressSpaceTables, THROUGH } from '../tables.js';
import { Domain, KIND, type VtdFormats } from './domain.js';
import type { GlobalCommand } from './global-command.js';
import { OK, type VtdLookup } from './lookup.js';
import { INTERRUPT_PAGES, NO_DOMAIN, WHOLE_SPACE } from './spans.js';

export class VtdAddressSpaces implements SpacesView {
  readonly #lookup: VtdLookup;
  readonly #commands: GlobalCommand;
  readonly #domain: Domain;

  constructor(formats: VtdFormats, lookup: VtdLookup, commands: GlobalCommand) {
    this.#lookup = lookup;
    this.#commands = commands;
    this.#domain = new Domain(formats);
  }

  tables(rid: number, pasid: number, out: AddressSpaceTables): void {
    const domain = this.#domain;
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
    if (!this.#commands.translating) return;
    if (this.#lookup.resolve(rid, pasid, 0, false, domain) !== OK) {
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
    // Caching mode (§6.1) is about second stages: what is not present in first-stage tables is
    // never cached, so not invalidated.
    out.silent = !second;
  }

  /**
   * See {@link SpacesView.concerns}. True too often: a PASID other than RID_PASID may carry any
   * domain-id, so in scalable mode a requester that may use PASIDs is never ruled out by the
   * domain-id.
   */
  concerns(scope: InvalidateScope, rid: number): boolean {
    if (scope.space === ANY || scope.rid === rid) return true;
    if (!this.#commands.translating) return scope.space === NO_DOMAIN;
    const domain = this.#domain;
    if (this.#lookup.resolve(rid, NO_PASID, 0, false, domain) === OK && domain.did === scope.space)
      return true;
    // What the caches still hold counts too: the tables may have moved on.
    if (this.#lookup.resolve(rid, NO_PASID, 0, true, domain) === OK && domain.did === scope.space)
      return true;
    return this.#lookup.usesPasids(rid);
  }
}
