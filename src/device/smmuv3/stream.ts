/**
 * What stream table and context descriptors say about one stream and substream: the input of a
 * translation.
 */

import { ANY } from '../../base/ids.js';
import type { PageTableFormat } from '../../spec/pagetable/format.js';
import { KIND, type StageTables } from '../leaves.js';
import { NO_DOMAIN } from '../spans.js';

export class Stream implements StageTables {
  kind: number = KIND.PASS_THROUGH;
  /** Tag of every translation; NO_DOMAIN when no table takes part. */
  vmid = NO_DOMAIN;
  /** ANY without stage 1. */
  asid = ANY;
  /** The half of the input space that {@link aim} chose. */
  firstFormat: PageTableFormat;
  firstRoot = 0;
  secondFormat: PageTableFormat;
  secondRoot = 0;
  /** TTB0 and TTB1; undefined with EPD. */
  lowFormat: PageTableFormat | undefined;
  lowRoot = 0;
  highFormat: PageTableFormat | undefined;
  highRoot = 0;
  /** TBI of each half. */
  lowTopByteIgnored = false;
  highTopByteIgnored = false;
  /** CD.R and STE.S2R: faults of the stage are recorded. */
  firstRecorded = true;
  secondRecorded = true;
  /** CD.S and STE.S2S: faults of the stage stall. */
  firstStalls = false;
  secondStalls = false;
  /** STE.MEV. */
  merge = false;

  constructor(none: PageTableFormat) {
    this.firstFormat = none;
    this.secondFormat = none;
  }

  /**
   * Chooses TTB0 or TTB1 for a stage-1 input address. False when table walks there are disabled.
   * §3.4.1, §5.4 (EPD)
   */
  aim(hi: number): boolean {
    const upper = (hi & (1 << 23)) !== 0;
    const format = upper ? this.highFormat : this.lowFormat;
    if (format === undefined) return false;
    this.firstFormat = format;
    this.firstRoot = upper ? this.highRoot : this.lowRoot;
    return true;
  }

  /**
   * High half of a stage-1 input address as the tables see it: with TBI bits 63:56 repeat bit 55.
   */
  canonical(hi: number): number {
    return this.ignoresTopByte(hi) ? (hi << 8) >> 8 : hi | 0;
  }

  /** TBI of the half of the input range that the address is in. */
  ignoresTopByte(hi: number): boolean {
    return (hi & (1 << 23)) !== 0 ? this.highTopByteIgnored : this.lowTopByteIgnored;
  }
}
