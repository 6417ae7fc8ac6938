/** Which address space each stream has. Reads structures afresh, caches nothing. */
import { ANY, NO_PASID, NO_TAG } from '../../base/ids.js';
import type { InvalidateScope, SpacesView } from '../iommu.js';
import { KIND } from '../leaves.js';
import { NO_DOMAIN } from '../spans.js';
import { type AddressSpaceTables, THROUGH } from '../tables.js';
import type { SmmuConfig } from './config.js';
import type { Control } from './control.js';
import { Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import { Stream } from './stream.js';

export class SmmuAddressSpaces implements SpacesView {
  readonly #config: SmmuConfig;
  readonly #lookup: SmmuLookup;
  readonly #control: Control;
  /**
   * An SMMU need not be told of an entry that was invalid: there is no caching mode (IHI 0070
   * §4.4).
   */
  readonly mapsInSilence = true;
  readonly #stream: Stream;
  readonly #fault = new Fault();

  constructor(config: SmmuConfig, formats: SmmuFormats, lookup: SmmuLookup, control: Control) {
    this.#config = config;
    this.#lookup = lookup;
    this.#control = control;
    this.#stream = new Stream(formats.none);
  }

  tables(rid: number, pasid: number, out: AddressSpaceTables): void {
    const stream = this.#stream;
    const { enabled } = this.#control;
    out.count = 0;
    out.holeFirst = 1;
    out.holeLast = 0;
    out.addressed = false;
    out.silent = false;
    out.updates = true;
    out.reach = this.#config.outputBits;
    out.space = NO_DOMAIN;
    out.sub = ANY;
    // GBPA.ABORT counts while the SMMU is off.
    out.through = !enabled && this.#control.aborting ? THROUGH.NOTHING : THROUGH.IDENTITY;
    if (!enabled) return;
    if (this.#lookup.resolve(rid, pasid, false, stream, this.#fault) !== OK) {
      out.through = THROUGH.NOTHING;
      out.space = NO_TAG;
      return;
    }
    out.space = stream.vmid;
    out.sub = stream.asid;
    if (stream.kind === KIND.PASS_THROUGH) return;
    out.secondFormat = stream.secondFormat;
    out.secondRoot = stream.secondRoot;
    out.through = stream.kind === KIND.NESTED ? THROUGH.NESTED : THROUGH.TABLES;
    out.silent = true;
    if (stream.kind === KIND.SECOND) {
      out.formats[0] = stream.secondFormat;
      out.roots[0] = stream.secondRoot;
      out.count = 1;
      out.addressed = true;
      return;
    }
    // TTB0's half comes first, as its addresses do.
    for (const upper of [0, -1]) {
      if (!stream.aim(upper)) continue;
      out.formats[out.count] = stream.firstFormat;
      out.roots[out.count] = stream.firstRoot;
      out.count++;
    }
  }

  /**
   * See {@link SpacesView.concerns}. True too often: a substream other than the default one has
   * its own ASID.
   */
  concerns(scope: InvalidateScope, rid: number): boolean {
    if (scope.space === ANY || scope.rid === rid) return true;
    if (!this.#control.enabled) return scope.space === NO_DOMAIN;
    if (this.#tagged(rid, false, scope) || this.#tagged(rid, true, scope)) return true;
    return this.#lookup.usesSubstreams(rid, this.#fault);
  }

  /**
   * True when the default address space of a requester carries the scope's tags, by its tables or
   * what is cached of them.
   */
  #tagged(rid: number, cached: boolean, scope: InvalidateScope): boolean {
    const stream = this.#stream;
    if (this.#lookup.resolve(rid, NO_PASID, cached, stream, this.#fault) !== OK) return false;
    return stream.vmid === scope.space && (scope.sub === ANY || stream.asid === scope.sub);
  }
}
