/**
 * The vocabulary of page-table walks. A walk fills a caller-owned {@link WalkResult} and returns a
 * small integer; it allocates nothing and throws nothing.
 */

/** Outcomes of a walk. The model maps them to its own fault reasons. */
export const WALK = {
  /** Translated. */
  OK: 0,
  /**
   * The input address is beyond what the format (or the domain's width) covers, or not canonical.
   */
  ADDRESS_SIZE: 1,
  /** An entry is not present. `level` and `entryAddress` tell which. */
  NOT_PRESENT: 2,
  /** Reserved bits are set in a present entry, or a page size there is not supported. */
  RESERVED: 3,
  /** The table is not in guest RAM (fetch fault). */
  FETCH: 4,
  /**
   * Every entry is present but the rights on the way do not allow the access. `permissions` tells
   * what they allow.
   */
  PERMISSION: 5,
  /** Output address is beyond the width that the format allows. */
  OUTPUT_SIZE: 6,
  /** An Accessed/Dirty update could not be made (not writable RAM). */
  UPDATE: 7,
  /**
   * Nested only: stage 2 refused the fetch of a stage-1 entry; `stage2` holds the outcome there.
   */
  STAGE2_ON_FETCH: 8,
  /** Nested only: stage 2 refused the output of stage 1. */
  STAGE2: 9,
  /** The Access flag of a leaf is clear and hardware does not manage it (Arm). */
  ACCESS_FLAG: 10,
} as const;
export type WalkOutcome = (typeof WALK)[keyof typeof WALK];

/**
 * Where a walk ended and what it found. Plain numbers; one object is reused for many walks.
 *
 * Halves of 64-bit values are signed 32-bit numbers (`>>> 0` makes one unsigned; the helpers of
 * base/u64 take either), because a field that always holds a small integer costs nothing to write.
 */
export class WalkResult {
  outcome: number = WALK.OK;
  /** Output address of the input's page start, low and high half; aligned to `log2Size`. */
  outLo = 0;
  outHi = 0;
  /** log2 of the block that the leaf maps (nested: the smaller of both stages). */
  log2Size = 0;
  /**
   * RIGHT bits that all levels (and stages) allow together, for the privilege of the access.
   * PRIVILEGED is among them when they hold for privileged requests only.
   */
  permissions = 0;
  /**
   * After PERMISSION: RIGHT bits that the access asked for and did not get; PRIVILEGED among them
   * means that the reason is a privileged-only page (VT-d: U/S = 0) and a privileged request could
   * have gone on.
   */
  denied = 0;
  /**
   * Permissions that may be cached without another walk: `permissions` less WRITE while Dirty is
   * still clear, and none while an Accessed bit on the way is clear (which only a walk with access
   * 0 leaves behind).
   */
  cachable = 0;
  /** Level of the leaf or of the entry that ended the walk: 1 = the last (4 KiB) level, up to 5. */
  level = 0;
  /**
   * Address of the last entry read (nested: an intermediate address, as the guest's tables hold
   * it).
   */
  entryAddress = 0;
  entryLo = 0;
  entryHi = 0;
  /**
   * What the entries above the leaf gathered: AND of their low halves (less `keepLo`), OR of their
   * high halves.
   */
  aboveLo = -1;
  aboveHi = 0;
  /**
   * Nested: outcome of the stage-2 walk that failed, the access it was for, and the intermediate
   * address given to it.
   */
  stage2: number = WALK.OK;
  stage2Access = 0;
  stage2Level = 0;
  ipaLo = 0;
  ipaHi = 0;
}
