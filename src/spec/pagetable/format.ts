/**
 * What a page-table format is to the one generic walker (src/walk): a record of plain data. Every format has
 * the same keys in the same order, so the engine compiles the walker once, for one shape.
 *
 * A {@link FormatLevel} holds what differs from level to level, the rest of the record what does not. All masks
 * are computed per instance, from the capabilities of the unit that owns the format (host address width,
 * page sizes, snoop control, …), never shared between units.
 *
 * How Armv8 VMSA (stages 1 and 2) is meant to fit, so that its issue adds data rather than a second walker:
 * - granules of 4, 16 and 64 KiB, and concatenated root tables: `shift` and `indexMask` per level
 *   already carry them (a concatenated root only has a wider `indexMask`);
 * - block against table descriptors: bit 1, hence `leafMask` = 2 and `leafValue` = 0 above the last level and 2
 *   in it; where a block is not allowed, `leafMask` = 0 and `leafValue` = 1 (never a leaf) with bit 1 clear
 *   treated as reserved through an inverted mask, a key to add to every format;
 * - TTB0/TTB1: two records, chosen by the caller from the address; the lower one is not sign-extended, and
 *   `inputShift` grows a low-half twin when T0SZ leaves fewer than 32 bits;
 * - addresses with split bits (64 KiB granule, 52 bits: 15:12 hold 51:48): two more keys, a shift and a mask;
 * - hierarchical permissions (APTable, XNTable, PXNTable): rights are gathered by AND from the low half and by
 *   OR from the high half, then looked up in `rights`; Arm's table bits are OR-gathered from the high half
 *   of tables, AP/XN come from the leaf alone: a mask per level says which bits take part;
 * - an output beyond IPS/PS is OUTPUT_SIZE rather than RESERVED: `sizeHi` exists for that;
 * - the Access flag that faults when hardware does not manage it: one more present-like mask for leaves;
 *   dirty state as DBM + AP[2]: `dirty` becomes a pair (bits to set, bits to clear).
 */

import type { Layout } from '../define.js';

/** Access bits of a walk and the rights it returns. The same numbers as the device interface's access bits. */
export const RIGHT = { READ: 1, WRITE: 2, EXECUTE: 4, PRIVILEGED: 8 } as const;

/**
 * What differs from level to level. Levels are linked from the root down, so a walk follows a pointer instead of
 * indexing an array (a third faster). Masks are signed 32-bit numbers.
 */
export interface FormatLevel {
  /** 1 is the last level. */
  readonly level: number;
  /** log2 of the input span of one entry. */
  readonly shift: number;
  /** Mask of the index, after shifting down. */
  readonly indexMask: number;
  /** An entry is a leaf when `(lo & leafMask) === leafValue`. Mask 0 with value 0: always; with 1: never. */
  readonly leafMask: number;
  readonly leafValue: number;
  /** Bits that must be zero in a present entry that points to a table. */
  readonly tableReservedLo: number;
  readonly tableReservedHi: number;
  /** Bits that must be zero in a present leaf. */
  readonly leafReservedLo: number;
  readonly leafReservedHi: number;
  /** Address bits of a leaf. */
  readonly leafAddressLo: number;
  readonly leafAddressHi: number;
  /** The next lower level; undefined below level 1, where every entry is a leaf. */
  readonly next: FormatLevel | undefined;
}

/** Index of {@link PageTableFormat.rights}: gathered low bits 2:0, then these. */
export const RIGHTS_INDEX = { GATHERED: 7, DENIED: 8, PRIVILEGED: 16, SIZE: 32 } as const;

/** One page-table format, as one unit has it. */
export interface PageTableFormat {
  /** e.g. `VT-d second-stage 4-level`. */
  readonly name: string;
  /** Level of the root table; level 1 holds the smallest pages. */
  readonly levels: number;
  /** Width of the input address. */
  readonly inputBits: number;
  /** Bits above the input width repeat its top bit (canonical); otherwise they are zero. */
  readonly signExtended: boolean;
  /** `hi >> inputShift` is 0 for a valid input address, or −1 when `signExtended`. */
  readonly inputShift: number;
  /** An entry is present when any of these bits of its low half is set. */
  readonly presentMask: number;
  /** Bits of the high half that deny a right when set in any entry (execute-disable). */
  readonly denyHi: number;
  /** Bits of the low half that the walk sets in every entry it uses; 0 when the format does not keep them. */
  readonly accessed: number;
  /** Bits that the walk sets in a leaf used for a write; 0 when the format does not keep them. */
  readonly dirty: number;
  /** Address of the next table. */
  readonly addressLo: number;
  readonly addressHi: number;
  /** Reserved high bits whose violation is an output-size error rather than a reserved-bit one. */
  readonly sizeHi: number;
  /** The root level. */
  readonly root: FormatLevel;
  /**
   * {@link RIGHT} bits by {@link RIGHTS_INDEX}. PRIVILEGED in a value: these rights hold for privileged requests only.
   */
  readonly rights: Uint8Array;
  /** What the specification calls an entry of each level, from level 1 at index 1; for people. */
  readonly entryNames: readonly string[];
  /** Declared bits of an entry that points to a table, by level; for people and for the masks above. */
  readonly tableLayouts: readonly (Layout<string> | undefined)[];
  /** The same of leaves; undefined where the level has none. */
  readonly leafLayouts: readonly (Layout<string> | undefined)[];
}

/** What {@link defineFormat} makes a format from. Levels count from 1; index 0 of the arrays is unused. */
export interface FormatSpec {
  readonly name: string;
  readonly levels: number;
  readonly inputBits: number;
  readonly signExtended: boolean;
  readonly presentMask: number;
  readonly denyHi: number;
  readonly accessed: number;
  readonly dirty: number;
  /** Width of the addresses that entries hold: bits from here to 51 are reserved. */
  readonly outputBits: number;
  readonly entryNames: readonly string[];
  readonly tableLayouts: readonly (Layout<string> | undefined)[];
  readonly leafLayouts: readonly (Layout<string> | undefined)[];
  /** Bit of the low half that makes an entry of levels above 1 a leaf. */
  readonly leafBit: number;
  /** Declared bits that this instance treats as reserved in leaves, low and high half. */
  readonly leafExtraLo: number;
  readonly leafExtraHi: number;
  /** Rights for gathered low bits 2:0, a denial in the high half, and a privileged request. */
  readonly rightsOf: (gathered: number, denied: boolean, privileged: boolean) => number;
}

/** Computes a format's masks from its declared layouts. Runs once per unit, never in a walk. */
export function defineFormat(spec: FormatSpec): PageTableFormat {
  let root = defineLevel(spec, 1, undefined);
  for (let level = 2; level <= spec.levels; level++) root = defineLevel(spec, level, root);
  return {
    name: spec.name,
    levels: spec.levels,
    inputBits: spec.inputBits,
    signExtended: spec.signExtended,
    inputShift: spec.inputBits - (spec.signExtended ? 33 : 32),
    presentMask: spec.presentMask,
    denyHi: spec.denyHi,
    accessed: spec.accessed,
    dirty: spec.dirty,
    addressLo: -1 << 12,
    addressHi: addressMaskHi(spec.outputBits),
    sizeHi: 0,
    root,
    rights: rightsTable(spec),
    entryNames: spec.entryNames,
    tableLayouts: spec.tableLayouts,
    leafLayouts: spec.leafLayouts,
  };
}

function defineLevel(spec: FormatSpec, level: number, next: FormatLevel | undefined): FormatLevel {
  const table = spec.tableLayouts[level];
  const leaf = spec.leafLayouts[level];
  const beyondHi = addressMaskHi(52) & ~addressMaskHi(spec.outputBits);
  const shift = 12 + 9 * (level - 1);
  return {
    level,
    shift,
    indexMask: 511,
    leafMask: table && leaf ? spec.leafBit : 0,
    leafValue: !leaf ? 1 : table ? spec.leafBit : 0,
    // Where the level has no leaves, the leaf bit of a table entry is reserved.
    tableReservedLo: table ? table.reserved[0] | (leaf ? 0 : spec.leafBit) : 0,
    tableReservedHi: table ? table.reserved[1] | beyondHi : 0,
    leafReservedLo: leaf ? leaf.reserved[0] | spec.leafExtraLo : 0,
    leafReservedHi: leaf ? leaf.reserved[1] | spec.leafExtraHi | beyondHi : 0,
    leafAddressLo: leaf ? -1 << shift : 0,
    leafAddressHi: leaf ? addressMaskHi(spec.outputBits) : 0,
    next,
  };
}

/** Mask of the high half of addresses that have `width` bits, 33..52. */
function addressMaskHi(width: number): number {
  return 2 ** (width - 32) - 1;
}

function rightsTable(spec: FormatSpec): Uint8Array {
  const table = new Uint8Array(RIGHTS_INDEX.SIZE);
  for (let index = 0; index < table.length; index++) {
    const gathered = index & RIGHTS_INDEX.GATHERED;
    const denied = (index & RIGHTS_INDEX.DENIED) !== 0;
    table[index] = spec.rightsOf(gathered, denied, (index & RIGHTS_INDEX.PRIVILEGED) !== 0);
  }
  return table;
}
