/**
 * Translation tables of the Arm architecture, VMSAv8-64 (DDI 0487, D8), as the SMMUv3 uses them
 * (IHI 0070 §3.4): stage 1 and stage 2 with granules of 4, 16 and 64 KiB, little-endian. What a
 * context descriptor or stream table entry says of them is the parameters; every set of parameters
 * is one record.
 *
 * The walker counts levels from the last one: Arm's level is 4 less ours. Its outcomes in Arm's
 * terms:
 * - Translation fault: NOT_PRESENT at that level; ADDRESS_SIZE (the input is beyond TxSZ), which
 *   Arm reports at level 0;
 * - Address size fault: OUTPUT_SIZE; Access flag fault: ACCESS_FLAG; Permission fault: PERMISSION;
 * - External abort on a walk: FETCH, and UPDATE when a descriptor could not be written.
 * RESERVED does not occur: what the architecture does not define is ignored (RES0) or a Translation
 * fault.
 *
 * Not in these records, since it is checked before a walk: EPD, the choice of TTB0 or TTB1 (bit 55
 * with TBI, else 63), a table base beyond the output size. Ignored as hints: Contiguous, nT, nG.
 * Not made yet: LPA2 (DS = 1).
 */

import type { Layout } from '../define.js';
import {
  addressMaskHi,
  type FormatLevel,
  formatRecord,
  levelRecord,
  type PageTableFormat,
  RIGHT,
} from './format.js';
import { leafLayout, tableLayout } from './vmsa-layouts.js';

/** log2 of the translation granule. */
export const GRANULE = { KIB_4: 12, KIB_16: 14, KIB_64: 16 } as const;
export type Granule = (typeof GRANULE)[keyof typeof GRANULE];

/** What a clear Access flag does. */
export const ACCESS_FLAG = {
  /** HA = 0, AFFD = 0: an Access flag fault. */
  FAULT: 0,
  /** HA = 0, AFFD = 1: nothing. */
  IGNORE: 1,
  /** HA = 1: the walk sets it. */
  UPDATE: 2,
} as const;
export type AccessFlagMode = (typeof ACCESS_FLAG)[keyof typeof ACCESS_FLAG];

/** What both stages have. */
interface VmsaParams {
  readonly granule: Granule;
  /** Width of the input address: 64 − TxSZ. 16..52, at most 48 unless the granule is 64 KiB. */
  readonly inputBits: number;
  /**
   * Effective output size (IPS or PS, at most OAS): 32..52. 52 counts as 48 unless `largePhysical`
   * and 64 KiB.
   */
  readonly outputBits: number;
  /**
   * The unit has 52-bit addresses (OAS = 52): with 64 KiB, bits 15:12 are address bits 51:48 and
   * blocks of 4 TiB exist.
   */
  readonly largePhysical: boolean;
  readonly accessFlag: AccessFlagMode;
  /** HD = 1 (needs HA = 1): a write makes a writable-clean leaf (DBM = 1) dirty. */
  readonly dirtyState: boolean;
}

export interface VmsaStage1Params extends VmsaParams {
  /** TTB1: bits above the input width are ones. TTB0: zeros. */
  readonly upper: boolean;
  /** TBI: bits 63:56 are not looked at. */
  readonly topByteIgnored: boolean;
  /** HPD (HAD) = 0: APTable, PXNTable and UXNTable limit what is below. */
  readonly hierarchical: boolean;
  /** WXN: what can be written can't be executed. */
  readonly writeExecuteNever: boolean;
  /** PAN: a privileged data access to what unprivileged ones can read is refused. */
  readonly privilegedAccessNever: boolean;
  /**
   * A translation regime without unprivileged accesses (EL2 without E2H): AP[1], PXN and their
   * table bits mean nothing.
   */
  readonly singlePrivilege: boolean;
}

export interface VmsaStage2Params extends VmsaParams {
  /** Arm's level of the root: 0..3, from S2SL0 ({@link stage2StartLevel}). */
  readonly startLevel: number;
  /** XNX: XN has two bits, and depends on privilege. */
  readonly executeNeverByPrivilege: boolean;
  /** S2PTW: stage-1 tables in Device memory are refused (Permission fault). */
  readonly protectedTableWalk: boolean;
}

/** log2 of the entries of a table. */
const strideOf = (granule: Granule): number => granule - 3;
/** log2 of the input span of an entry; our level numbers. */
const shiftOf = (granule: Granule, level: number): number => granule + strideOf(granule) * (level - 1);

/**
 * Arm's start level for an S2SL0 and granule; undefined where it is reserved. IHI 0070 §5.2
 * (S2SL0), DDI 0487 D8.2
 */
export function stage2StartLevel(granule: Granule, sl0: number): number | undefined {
  if (granule === GRANULE.KIB_4) return [2, 1, 0][sl0];
  return [3, 2, 1][sl0];
}

/**
 * log2 of the number of concatenated root tables of a stage 2: 0..4, or undefined where start level
 * and input size don't go together: fewer than two entries, or more than 16 tables. DDI 0487 D8.2
 */
export function stage2Concatenation(
  granule: Granule,
  inputBits: number,
  startLevel: number,
): number | undefined {
  const entries = inputBits - shiftOf(granule, 4 - startLevel);
  if (entries < 1 || entries > strideOf(granule) + 4) return undefined;
  return Math.max(0, entries - strideOf(granule));
}

/**
 * Bytes of the root table (with those concatenated to it), which is what it is aligned to; 64 at
 * least.
 */
export function rootBytes(format: PageTableFormat): number {
  return Math.max(64, (format.root.indexMask + 1) * 8);
}

const VALID = 1 << 0;
/** Table or page rather than block. */
const TYPE = 1 << 1;
const AF = 1 << 10;
/** AP[2] (read-only) of stage 1, S2AP[1] (write) of stage 2. */
const AP_WRITE = 1 << 7;
/** AP[2:1] and S2AP of the most generous leaf. */
const OPEN_S1 = 1 << 6;
const OPEN_S2 = 3 << 6;
/** MemAttr[3:2] of stage 2: 0 is Device memory. */
const MEMATTR_3_2 = 3 << 4;
/** Address bits 51:48 of the 64 KiB granule. */
const SPLIT = 0xf << 12;
const SPLIT_SHIFT = 4;

/**
 * Index of the rights: AP[2:1] or S2AP (bits 7:6) as bits 1:0; of the leaf's high half DBM (51),
 * PXN (53) and UXN (54) as 2, 4, 5 and of the tables' PXNTable (59), UXNTable (60) and APTable
 * (62:61) as 6 to 9. Bit 3: privileged.
 */
const INDEX = {
  AP1: 1 << 0,
  AP2: 1 << 1,
  DBM: 1 << 2,
  PXN: 1 << 4,
  UXN: 1 << 5,
  PXN_TABLE: 1 << 6,
  UXN_TABLE: 1 << 7,
  AP_TABLE0: 1 << 8,
  AP_TABLE1: 1 << 9,
} as const;
const LOW_SHIFT = 6;
const LEAF_HI_SHIFT = 51 - 32 - 2;
const ABOVE_HI_SHIFT = 59 - 32 - 6;
const LEAF_HI_MASK = INDEX.DBM | INDEX.PXN | INDEX.UXN;
const ABOVE_HI_MASK = INDEX.PXN_TABLE | INDEX.UXN_TABLE | INDEX.AP_TABLE0 | INDEX.AP_TABLE1;

/**
 * Records made so far. A guest that tries all parameters must not fill memory, so it is emptied at
 * a bound.
 */
const made = new Map<number, PageTableFormat>();
const rightsMade = new Map<number, Uint8Array>();
const MOST_MADE = 512;

/** The format of a stage 1 with these parameters; the same object every time. */
export function vmsaStage1(p: VmsaStage1Params): PageTableFormat {
  const flags = pack([p.upper, p.topByteIgnored]) * 64 + stage1RightsKey(p);
  return remembered(keyOf(p, 0, flags), () => defineStage1(p));
}

/**
 * The format of a stage 2 with these parameters; the same object every time. Throws where
 * {@link stage2Concatenation} is undefined.
 */
export function vmsaStage2(p: VmsaStage2Params): PageTableFormat {
  const flags = pack([p.protectedTableWalk]) * 64 + stage2RightsKey(p);
  return remembered(keyOf(p, 4 + p.startLevel, flags), () => defineStage2(p));
}

function remembered(key: number, make: () => PageTableFormat): PageTableFormat {
  let format = made.get(key);
  if (format === undefined) {
    if (made.size >= MOST_MADE) made.clear();
    format = make();
    made.set(key, format);
  }
  return format;
}

/** `kind`: 0 for stage 1, 4 plus the start level for stage 2; `flags` below 256. */
function keyOf(p: VmsaParams, kind: number, flags: number): number {
  const widths = (p.granule * 64 + p.inputBits) * 64 + p.outputBits;
  return ((widths * 8 + kind) * 8 + p.accessFlag * 2 + (p.largePhysical ? 1 : 0)) * 256 + flags;
}

function pack(flags: readonly boolean[]): number {
  return flags.reduce((value, flag) => value * 2 + (flag ? 1 : 0), 0);
}

function stage1RightsKey(p: VmsaStage1Params): number {
  return pack([
    p.dirtyState,
    p.hierarchical,
    p.writeExecuteNever,
    p.privilegedAccessNever,
    p.singlePrivilege,
    false,
  ]);
}

function stage2RightsKey(p: VmsaStage2Params): number {
  return pack([p.dirtyState, p.executeNeverByPrivilege, true]);
}

function rightsTable(key: number, entries: number, rightsOf: (index: number) => number): Uint8Array {
  let table = rightsMade.get(key);
  if (table === undefined) {
    table = Uint8Array.from({ length: entries }, (_, index) => rightsOf(index));
    rightsMade.set(key, table);
  }
  return table;
}

function defineStage1(p: VmsaStage1Params): PageTableFormat {
  const levels = Math.ceil((p.inputBits - p.granule) / strideOf(p.granule));
  const base = common(p, 1, levels);
  const rights = rightsTable(stage1RightsKey(p), 1024, (index) => stage1Rights(p, index));
  return formatRecord({
    ...base,
    name: `VMSAv8-64 stage 1 (${p.upper ? 'TTB1' : 'TTB0'}), ${2 ** (p.granule - 10)} KiB granule, ${p.inputBits}-bit input`,
    upper: p.upper ? -1 : 0,
    inputHi: p.topByteIgnored ? base.inputHi & 0x00ffffff : base.inputHi,
    openLo: OPEN_S1,
    clean: p.dirtyState ? AP_WRITE : 0,
    aboveHiMask: p.hierarchical ? ABOVE_HI_MASK : 0,
    rights,
  });
}

function defineStage2(p: VmsaStage2Params): PageTableFormat {
  if (stage2Concatenation(p.granule, p.inputBits, p.startLevel) === undefined)
    throw new Error(`no stage 2 of ${p.inputBits} bits from level ${p.startLevel}`);
  return formatRecord({
    ...common(p, 2, 4 - p.startLevel),
    name: `VMSAv8-64 stage 2, ${2 ** (p.granule - 10)} KiB granule, ${p.inputBits}-bit input from level ${p.startLevel}`,
    openLo: OPEN_S2,
    dirty: p.dirtyState ? AP_WRITE : 0,
    rights: rightsTable(stage2RightsKey(p), 64, (index) => stage2Rights(p, index)),
    tableMemory: p.protectedTableWalk ? MEMATTR_3_2 : 0,
  });
}

/** What the stages share; the rest is replaced by them. */
function common(p: VmsaParams, stage: 1 | 2, levels: number): PageTableFormat {
  const { granule, inputBits } = p;
  const large = p.largePhysical && granule === GRANULE.KIB_64;
  const outputBits = Math.min(p.outputBits, large ? 52 : 48);
  if (inputBits <= shiftOf(granule, levels) || levels < 1 || levels > 4 || inputBits > 52 || outputBits < 32)
    throw new Error(`no tables for ${inputBits} bits of input and ${p.outputBits} of output`);
  const sizeLo = large && outputBits < 52 ? SPLIT : 0;
  const sizeHi = addressMaskHi(48) & ~addressMaskHi(Math.min(outputBits, 48));
  const tableLayouts: (Layout<string> | undefined)[] = [undefined];
  const leafLayouts: (Layout<string> | undefined)[] = [undefined];
  let root: FormatLevel | undefined;
  for (let level = 1; level <= levels; level++) {
    root = defineLevel(p, level, level === levels, large, sizeLo, sizeHi, root);
    const shift = shiftOf(granule, level);
    tableLayouts.push(level > 1 ? tableLayout(stage, granule, large) : undefined);
    leafLayouts.push(hasLeaf(granule, level, large) ? leafLayout(stage, shift, large) : undefined);
  }
  if (root === undefined) throw new Error('no levels');
  return {
    name: '',
    levels,
    inputBits,
    signExtended: false,
    upper: 0,
    signMask: 0,
    inputLo: inputBits < 32 ? -1 << inputBits : 0,
    inputHi: inputBits <= 32 ? -1 : -1 << (inputBits - 32),
    presentMask: VALID,
    keepLo: -1,
    openLo: 0,
    tableAccessed: 0,
    accessed: p.accessFlag === ACCESS_FLAG.UPDATE ? AF : 0,
    dirty: 0,
    clean: 0,
    addressLo: -1 << granule,
    addressHi: addressMaskHi(48),
    splitLo: large ? SPLIT : 0,
    splitShift: SPLIT_SHIFT,
    absentLo: TYPE,
    sizeLo,
    sizeHi,
    accessFlagLo: p.accessFlag === ACCESS_FLAG.FAULT ? AF : 0,
    root,
    lowShift: LOW_SHIFT,
    lowMask: INDEX.AP1 | INDEX.AP2,
    leafHiShift: LEAF_HI_SHIFT,
    leafHiMask: LEAF_HI_MASK,
    aboveHiShift: ABOVE_HI_SHIFT,
    aboveHiMask: 0,
    rights: NO_RIGHTS,
    asks: RIGHT.READ | RIGHT.WRITE | RIGHT.EXECUTE | RIGHT.PRIVILEGED,
    tableMemory: 0,
    entryNames: ENTRY_NAMES,
    tableLayouts,
    leafLayouts,
  };
}

const NO_RIGHTS = new Uint8Array(1);
const ENTRY_NAMES = [
  '',
  'level 3 descriptor',
  'level 2 descriptor',
  'level 1 descriptor',
  'level 0 descriptor',
];

/**
 * Pages, and blocks of 2 MiB, 32 MiB, 512 MiB; with 4 KiB 1 GiB; with 64 KiB and 52 bits 4 TiB. DDI
 * 0487 D8.3
 */
function hasLeaf(granule: Granule, level: number, large: boolean): boolean {
  return level <= 2 || (level === 3 && (granule === GRANULE.KIB_4 || large));
}

function defineLevel(
  p: VmsaParams,
  level: number,
  isRoot: boolean,
  large: boolean,
  sizeLo: number,
  sizeHi: number,
  next: FormatLevel | undefined,
): FormatLevel {
  const shift = shiftOf(p.granule, level);
  const leaf = hasLeaf(p.granule, level, large);
  const both = leaf && level > 1;
  // Only where a level has blocks and tables does bit 1 tell; elsewhere it has to be set.
  const type = both ? 0 : TYPE;
  const af = p.accessFlag === ACCESS_FLAG.FAULT ? AF : 0;
  return levelRecord({
    level,
    shift,
    indexMask: 2 ** (isRoot ? p.inputBits - shift : strideOf(p.granule)) - 1,
    leafMask: both ? TYPE : 0,
    leafValue: leaf ? 0 : 1,
    flip: type | af,
    tableReservedLo: type | sizeLo,
    tableReservedHi: sizeHi,
    leafReservedLo: type | sizeLo | af,
    leafReservedHi: sizeHi,
    leafAddressLo: shift < 32 ? -1 << shift : 0,
    leafAddressHi: shift < 32 ? addressMaskHi(48) : addressMaskHi(48) & (-1 << (shift - 32)),
    next,
  });
}

/** DDI 0487 D8.4: direct permissions, the limits that tables set, then WXN and PAN. */
function stage1Rights(p: VmsaStage1Params, index: number): number {
  const has = (mask: number): boolean => (index & mask) !== 0;
  const writable = (!has(INDEX.AP2) || (p.dirtyState && has(INDEX.DBM))) && !has(INDEX.AP_TABLE1);
  const uxn = has(INDEX.UXN | INDEX.UXN_TABLE);
  const all = (write: boolean, executeNever: boolean): number =>
    RIGHT.READ |
    (write ? RIGHT.WRITE : 0) |
    (executeNever || (write && p.writeExecuteNever) ? 0 : RIGHT.EXECUTE);
  if (p.singlePrivilege) return all(writable, uxn);
  const shared = has(INDEX.AP1) && !has(INDEX.AP_TABLE0);
  // Without data access an unprivileged request may still be allowed to execute.
  const user = shared ? all(writable, uxn) : uxn ? 0 : RIGHT.EXECUTE;
  if (!has(RIGHT.PRIVILEGED)) return user;
  // What unprivileged software can write, privileged software never executes.
  const mine = all(writable, has(INDEX.PXN | INDEX.PXN_TABLE) || (shared && writable));
  const rights = p.privilegedAccessNever && shared ? mine & RIGHT.EXECUTE : mine;
  return rights === user || rights === 0 ? rights : rights | RIGHT.PRIVILEGED;
}

/** S2AP and XN[1:0]; execution does not depend on the right to read. DDI 0487 D8.4 */
function stage2Rights(p: VmsaStage2Params, index: number): number {
  const has = (mask: number): boolean => (index & mask) !== 0;
  const write = has(INDEX.AP2) || (p.dirtyState && has(INDEX.DBM));
  const data = (has(INDEX.AP1) ? RIGHT.READ : 0) | (write ? RIGHT.WRITE : 0);
  // XN[0] makes XN[1] mean one privilege only: 01 privileged, 11 unprivileged software does not
  // execute.
  const never = (privileged: boolean): boolean =>
    p.executeNeverByPrivilege && has(INDEX.PXN) ? privileged !== has(INDEX.UXN) : has(INDEX.UXN);
  const rightsAt = (privileged: boolean): number => data | (never(privileged) ? 0 : RIGHT.EXECUTE);
  const privileged = has(RIGHT.PRIVILEGED);
  const rights = rightsAt(privileged);
  return privileged && rights !== 0 && rights !== rightsAt(false) ? rights | RIGHT.PRIVILEGED : rights;
}
