/** Which tables a stream goes through, for those who keep a copy of them. Reads structures afresh, caches nothing. */
import { type AddressSpaceTables, ANY, NO_TAG, THROUGH } from '../iommu.js';
import { KIND } from '../leaves.js';
import { NO_DOMAIN } from '../spans.js';
import type { SmmuConfig } from './config.js';
import { Fault, OK } from './fault.js';
import type { SmmuFormats } from './formats.js';
import type { SmmuLookup } from './lookup.js';
import { Stream } from './stream.js';

export class SmmuAddressSpaces {
  private readonly stream: Stream;
  private readonly fault = new Fault();

  constructor(
    private readonly config: SmmuConfig,
    formats: SmmuFormats,
    private readonly lookup: SmmuLookup,
  ) {
    this.stream = new Stream(formats.none);
  }

  /** See `Iommu.tables`. `aborting`: GBPA.ABORT, which counts while the SMMU is off. */
  fill(enabled: boolean, aborting: boolean, rid: number, pasid: number, out: AddressSpaceTables): void {
    const { stream } = this;
    out.count = 0;
    out.holeFirst = 1;
    out.holeLast = 0;
    out.addressed = false;
    out.silent = false;
    out.updates = true;
    out.reach = this.config.outputBits;
    out.space = NO_DOMAIN;
    out.sub = ANY;
    out.through = !enabled && aborting ? THROUGH.NOTHING : THROUGH.IDENTITY;
    if (!enabled) return;
    if (this.lookup.resolve(rid, pasid, false, stream, this.fault) !== OK) {
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
}
