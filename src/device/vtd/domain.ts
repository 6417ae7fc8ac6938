/** What the tables say about one requester (and PASID): the input of a translation. */

import { ANY } from '../../base/ids.js';
import type { PageTableFormat } from '../../spec/pagetable/format.js';
import { vtdFirstStage, vtdSecondStage } from '../../spec/pagetable/vtd.js';
import { KIND } from '../leaves.js';
import type { VtdConfig } from './config.js';

export { KIND } from '../leaves.js';

/** Filled by a lookup; one object is reused. */
export class Domain {
  kind: number = KIND.PASS_THROUGH;
  /** Domain-ID: tag of every cached translation. */
  did = 0;
  /** PASID that the translation is tagged with; ANY in legacy mode. */
  tag: number = ANY;
  /** FPD of any structure on the way: qualified faults are not reported. */
  suppressed = false;
  /** False in legacy mode: faults have legacy reasons. */
  scalable = false;
  /** PWSNP: page walks snoop, so Accessed and Dirty bits may be updated. */
  snooped = true;
  secondRoot = 0;
  secondFormat: PageTableFormat;
  firstRoot = 0;
  firstFormat: PageTableFormat;
  /** Width of the input of a pass-through request (AW in legacy mode, HAW otherwise). */
  passThroughWidth = 64;

  constructor(formats: VtdFormats) {
    this.secondFormat = formats.second(1, false);
    this.firstFormat = formats.first(0, false);
  }
}

/** Every page-table format of one unit, made once. */
export class VtdFormats {
  readonly #seconds: readonly PageTableFormat[];
  readonly #firsts: readonly PageTableFormat[];

  constructor(config: VtdConfig) {
    const { paging, addressWidth } = config;
    const second = (levels: 3 | 4 | 5, accessedDirty: boolean): PageTableFormat =>
      vtdSecondStage(paging, { levels, inputBits: addressWidth, accessedDirty });
    this.#seconds = [
      second(3, false),
      second(3, true),
      second(4, false),
      second(4, true),
      second(5, false),
      second(5, true),
    ];
    const first = (levels: 4 | 5, extendedAccessed: boolean): PageTableFormat =>
      vtdFirstStage(paging, { levels, writeProtect: false, extendedAccessed });
    this.#firsts = [first(4, false), first(4, true), first(5, false), first(5, true)];
  }

  /** Second-stage tables for an AW encoding of 1..3. */
  second(addressWidth: number, accessedDirty: boolean): PageTableFormat {
    return this.#seconds[(addressWidth - 1) * 2 + (accessedDirty ? 1 : 0)];
  }

  /**
   * First-stage tables for an FSPM of 0..1. WPE only concerns privileged requests, which ECAP.SRS =
   * 0 blocks.
   */
  first(pagingMode: number, extendedAccessed: boolean): PageTableFormat {
    return this.#firsts[pagingMode * 2 + (extendedAccessed ? 1 : 0)];
  }
}
