/**
 * The vocabulary of page-table walks. A walk fills a caller-owned {@link WalkResult} and returns a small
 * integer; it allocates nothing and throws nothing.
 */

/** Outcomes of a walk. The model maps them to its own fault reasons. */
export const WALK = {
  /** Translated. */
  OK: 0,
  /** The input address is beyond what the format (or the domain's width) covers, or not canonical. */
  ADDRESS_SIZE: 1,
  /** An entry is not present. `level` and `entryAddress` tell which. */
  NOT_PRESENT: 2,
  /** Reserved bits are set in a present entry, or a page size there is not supported. */
  RESERVED: 3,
  /** The table is not in guest RAM (fetch fault). */
  FETCH: 4,
  /** Every entry is present but the rights on the way do not allow the access. `permissions` tells what they allow. */
  PERMISSION: 5,
  /** Output address is beyond the width that the format allows. */
  OUTPUT_SIZE: 6,
  /** An Accessed/Dirty update could not be made (not writable RAM). */
  UPDATE: 7,
  /** Nested only: stage 2 refused the fetch of a stage-1 entry; `stage2` holds the outcome there. */
  STAGE2_ON_FETCH: 8,
  /** Nested only: stage 2 refused the output of stage 1. */
  STAGE2: 9,
} as const;
export type WalkOutcome = (typeof WALK)[keyof typeof WALK];

/** Where a walk ended and what it found. Plain numbers; one object is reused for many walks. */
export class WalkResult {
  outcome: number = WALK.OK;
  /** Output address of the input's page start, low and high half; aligned to `log2Size`. */
  outLo = 0;
  outHi = 0;
  /** log2 of the block that the leaf maps (nested: the smaller of both stages). */
  log2Size = 0;
  /** ACCESS bits that all levels (and stages) allow together. */
  permissions = 0;
  /** Permissions that may be cached without another walk: `permissions` less WRITE while Dirty is still clear. */
  cachable = 0;
  /** Level of the leaf or of the entry that ended the walk: 1 = the last (4 KiB) level, up to 5. */
  level = 0;
  /** Guest-physical address and value of the last entry read. */
  entryAddress = 0;
  entryLo = 0;
  entryHi = 0;
  /** Nested: outcome of the stage-2 walk that failed, and the intermediate address given to it. */
  stage2: number = WALK.OK;
  ipaLo = 0;
  ipaHi = 0;
}
