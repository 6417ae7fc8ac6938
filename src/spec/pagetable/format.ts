/**
 * What a page-table format is to the one generic walker (src/walk): a record of plain data. Every
 * format has the same keys in the same order, so the engine compiles the walker once, for one
 * shape.
 *
 * A {@link FormatLevel} holds what differs from level to level, the rest of the record what does
 * not. All masks are computed per instance, from the capabilities of the unit that owns the format
 * (host address width, page sizes, snoop control, …), never shared between units.
 *
 * What tells the families apart is data too:
 * - bits that must be one rather than zero (Arm: bit 1 of a page or of a table where no block is
 *   allowed; the Access flag that hardware does not manage): `flip` inverts them, and they stand
 *   among the reserved bits. What kind of error a violated bit is, is looked up when it has
 *   happened: `absentLo`, `sizeLo:sizeHi`, `accessFlagLo`;
 * - rights that every level takes away (VT-d) or that the leaf grants and tables limit (Arm's
 *   APTable, XNTable, PXNTable): the low halves are gathered by AND, less `keepLo`; the leaf's high
 *   half and the OR of those above it have masks of their own into {@link PageTableFormat.rights};
 * - addresses with split bits (Arm: 64 KiB granule, 52 bits: 15:12 hold 51:48): `splitLo` and
 *   `splitShift`;
 * - input ranges: zero above the width, canonical, or all ones (Arm's TTB1; with TBI the top byte
 *   is no part of it).
 */

import type { Layout } from '../define.js';

/**
 * Access bits of a walk and the rights it returns. The same numbers as the device interface's
 * access bits.
 */
export const RIGHT = { READ: 1, WRITE: 2, EXECUTE: 4, PRIVILEGED: 8 } as const;

/**
 * What differs from level to level. Levels are linked from the root down, so a walk follows a
 * pointer instead of indexing an array (a third faster). Masks are signed 32-bit numbers.
 */
export interface FormatLevel {
  /** 1 is the last level. */
  readonly level: number;
  /** log2 of the input span of one entry. */
  readonly shift: number;
  /** Mask of the index, after shifting down. */
  readonly indexMask: number;
  /**
   * An entry is a leaf when `(lo & leafMask) === leafValue`. Mask 0 with value 0: always; with 1:
   * never.
   */
  readonly leafMask: number;
  readonly leafValue: number;
  /**
   * Bits of the low half that are inverted before the masks below look at them: those must be one.
   */
  readonly flip: number;
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

/** One page-table format, as one unit has it. */
export interface PageTableFormat {
  /** e.g. `VT-d second-stage 4-level`. */
  readonly name: string;
  /** Level of the root table; level 1 holds the smallest pages. */
  readonly levels: number;
  /** Width of the input address. */
  readonly inputBits: number;
  /** Bits above the input width repeat its top bit (canonical). */
  readonly signExtended: boolean;
  /** Bits above the input width: −1 all ones, 0 all zeros (or canonical). */
  readonly upper: number;
  /** −1 when `signExtended`, otherwise 0. */
  readonly signMask: number;
  /** Bits of an input address that must be zero, ones or its sign. */
  readonly inputLo: number;
  readonly inputHi: number;
  /** An entry is present when any of these bits of its low half is set. */
  readonly presentMask: number;
  /** Bits of the low half that do not take part in gathering rights from tables. */
  readonly keepLo: number;
  /** Low half of a leaf that allows everything that its tables do; for people. */
  readonly openLo: number;
  /**
   * Bits of the low half that the walk sets in every table entry it uses; 0 when the format does
   * not keep them.
   */
  readonly tableAccessed: number;
  /** The same of a leaf. */
  readonly accessed: number;
  /** Bits that the walk sets in a leaf used for a write; 0 when the format does not keep them. */
  readonly dirty: number;
  /** Bits that it clears in such a leaf. */
  readonly clean: number;
  /** Address of the next table. */
  readonly addressLo: number;
  readonly addressHi: number;
  /**
   * These bits of the low half, shifted left by `splitShift`, belong to the high half of an
   * address.
   */
  readonly splitLo: number;
  readonly splitShift: number;
  /** Reserved bits whose violation means that the entry is not present. */
  readonly absentLo: number;
  /** Reserved bits whose violation is an output-size error rather than a reserved-bit one. */
  readonly sizeLo: number;
  readonly sizeHi: number;
  /** Reserved bits whose violation is an Access flag fault. */
  readonly accessFlagLo: number;
  /** The root level. */
  readonly root: FormatLevel;
  /**
   * Right shift and mask of what the low halves, the leaf's high half and the high halves above it
   * index `rights` with.
   */
  readonly lowShift: number;
  readonly lowMask: number;
  readonly leafHiShift: number;
  readonly leafHiMask: number;
  readonly aboveHiShift: number;
  readonly aboveHiMask: number;
  /**
   * {@link RIGHT} bits by the three masked values and RIGHT.PRIVILEGED of the access (bit 3 of the
   * index). PRIVILEGED in a value: these rights hold for privileged requests only.
   */
  readonly rights: Uint8Array;
  /** As a second stage: RIGHT bits of an access that it looks at. */
  readonly asks: number;
  /**
   * As a second stage: a table of the first stage whose leaf has none of these bits is refused
   * (Arm: S2PTW); 0: none.
   */
  readonly tableMemory: number;
  /** What the specification calls an entry of each level, from level 1 at index 1; for people. */
  readonly entryNames: readonly string[];
  /**
   * Declared bits of an entry that points to a table, by level; for people and for the masks above.
   */
  readonly tableLayouts: readonly (Layout<string> | undefined)[];
  /** The same of leaves; undefined where the level has none. */
  readonly leafLayouts: readonly (Layout<string> | undefined)[];
}

/**
 * What {@link defineFormat} makes a format from. Levels count from 1; index 0 of the arrays is
 * unused.
 */
interface FormatSpec {
  readonly name: string;
  readonly levels: number;
  readonly inputBits: number;
  readonly signExtended: boolean;
  readonly presentMask: number;
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
  /** Rights for gathered low bits 2:0 and a privileged request. */
  readonly rightsOf: (gathered: number, privileged: boolean) => number;
}

/**
 * Computes a VT-d format's masks from its declared layouts. Runs once per unit, never in a walk.
 * Every format goes through {@link formatRecord} and {@link levelRecord}, which fix the order of
 * the keys.
 */
export function defineFormat(spec: FormatSpec): PageTableFormat {
  let root = defineLevel(spec, 1, undefined);
  for (let level = 2; level <= spec.levels; level++) root = defineLevel(spec, level, root);
  const { signExtended } = spec;
  return formatRecord({
    name: spec.name,
    levels: spec.levels,
    inputBits: spec.inputBits,
    signExtended,
    upper: 0,
    signMask: signExtended ? -1 : 0,
    inputLo: 0,
    inputHi: -1 << (spec.inputBits - (signExtended ? 33 : 32)),
    presentMask: spec.presentMask,
    keepLo: 0,
    openLo: -1,
    tableAccessed: spec.accessed,
    accessed: spec.accessed,
    dirty: spec.dirty,
    clean: 0,
    addressLo: -1 << 12,
    addressHi: addressMaskHi(spec.outputBits),
    splitLo: 0,
    splitShift: 0,
    absentLo: 0,
    sizeLo: 0,
    sizeHi: 0,
    accessFlagLo: 0,
    root,
    lowShift: 0,
    lowMask: GATHERED,
    leafHiShift: 0,
    leafHiMask: 0,
    aboveHiShift: 0,
    aboveHiMask: 0,
    rights: rightsTable(spec),
    asks: RIGHT.READ | RIGHT.WRITE,
    tableMemory: 0,
    entryNames: spec.entryNames,
    tableLayouts: spec.tableLayouts,
    leafLayouts: spec.leafLayouts,
  });
}

/** The same record with its keys in the one order that all formats have. */
export function formatRecord(f: PageTableFormat): PageTableFormat {
  return {
    name: f.name,
    levels: f.levels,
    inputBits: f.inputBits,
    signExtended: f.signExtended,
    upper: f.upper,
    signMask: f.signMask,
    inputLo: f.inputLo,
    inputHi: f.inputHi,
    presentMask: f.presentMask,
    keepLo: f.keepLo,
    openLo: f.openLo,
    tableAccessed: f.tableAccessed,
    accessed: f.accessed,
    dirty: f.dirty,
    clean: f.clean,
    addressLo: f.addressLo,
    addressHi: f.addressHi,
    splitLo: f.splitLo,
    splitShift: f.splitShift,
    absentLo: f.absentLo,
    sizeLo: f.sizeLo,
    sizeHi: f.sizeHi,
    accessFlagLo: f.accessFlagLo,
    root: f.root,
    lowShift: f.lowShift,
    lowMask: f.lowMask,
    leafHiShift: f.leafHiShift,
    leafHiMask: f.leafHiMask,
    aboveHiShift: f.aboveHiShift,
    aboveHiMask: f.aboveHiMask,
    rights: f.rights,
    asks: f.asks,
    tableMemory: f.tableMemory,
    entryNames: f.entryNames,
    tableLayouts: f.tableLayouts,
    leafLayouts: f.leafLayouts,
  };
}

/** The same for a level. */
export function levelRecord(f: FormatLevel): FormatLevel {
  return {
    level: f.level,
    shift: f.shift,
    indexMask: f.indexMask,
    leafMask: f.leafMask,
    leafValue: f.leafValue,
    flip: f.flip,
    tableReservedLo: f.tableReservedLo,
    tableReservedHi: f.tableReservedHi,
    leafReservedLo: f.leafReservedLo,
    leafReservedHi: f.leafReservedHi,
    leafAddressLo: f.leafAddressLo,
    leafAddressHi: f.leafAddressHi,
    next: f.next,
  };
}

function defineLevel(spec: FormatSpec, level: number, next: FormatLevel | undefined): FormatLevel {
  const table = spec.tableLayouts[level];
  const leaf = spec.leafLayouts[level];
  const beyondHi = addressMaskHi(52) & ~addressMaskHi(spec.outputBits);
  const shift = 12 + 9 * (level - 1);
  return levelRecord({
    level,
    shift,
    indexMask: 511,
    leafMask: table && leaf ? spec.leafBit : 0,
    leafValue: !leaf ? 1 : table ? spec.leafBit : 0,
    flip: 0,
    // Where the level has no leaves, the leaf bit of a table entry is reserved.
    tableReservedLo: table ? table.reserved[0] | (leaf ? 0 : spec.leafBit) : 0,
    tableReservedHi: table ? table.reserved[1] | beyondHi : 0,
    leafReservedLo: leaf ? leaf.reserved[0] | spec.leafExtraLo : 0,
    leafReservedHi: leaf ? leaf.reserved[1] | spec.leafExtraHi | beyondHi : 0,
    leafAddressLo: leaf ? -1 << shift : 0,
    leafAddressHi: leaf ? addressMaskHi(spec.outputBits) : 0,
    next,
  });
}

/** Mask of the high half of addresses that have `width` bits, 32..52. */
export function addressMaskHi(width: number): number {
  return 2 ** (width - 32) - 1;
}

/** Low bits that VT-d's rights depend on. */
const GATHERED = 7;

function rightsTable(spec: FormatSpec): Uint8Array {
  const table = new Uint8Array(16);
  for (let index = 0; index < table.length; index++)
    table[index] = spec.rightsOf(index & GATHERED, (index & RIGHT.PRIVILEGED) !== 0);
  return table;
}
