/**
 * Paging entries of Intel VT-d (Architecture Specification rev 4.1): first-stage §9.7, second-stage
 * §9.8, and the formats made from them. Bits that the specification ignores are declared (`IGN…`),
 * so that what no field covers is exactly what it reserves. Bits 51:HAW and what capabilities take
 * away are added per instance.
 */

import { addr, type Layout, layout } from '../define.js';
import { defineFormat, type PageTableFormat, RIGHT } from './format.js';

/**
 * Second-stage entry that points to a table. Bit 7 (PS) is 0 in it where the level has pages. §9.8
 */
export const SS_TABLE = layout('SS table entry', 8, {
  R: 0,
  W: 1,
  X: 2,
  IGN_6_3: [6, 3],
  PS: 7,
  A: 8,
  IGN_10_9: [10, 9],
  ADDR: addr(51, 12),
  IGN_61_52: [61, 52],
  IGN_63: 63,
});

const ssLeaf = {
  R: 0,
  W: 1,
  X: 2,
  EMT: [5, 3],
  IPAT: 6,
  PS: 7,
  A: 8,
  D: 9,
  IGN_10: 10,
  SNP: 11,
  IGN_61_52: [61, 52],
  TM: 62,
  IGN_63: 63,
} as const;

/**
 * Second-stage page of 4 KiB (SS-PTE; its bit 7 is ignored), 2 MiB (SS-PDE) and 1 GiB (SS-PDPTE).
 * §9.8
 */
export const SS_PAGE_4K = layout('SS-PTE', 8, { ...ssLeaf, ADDR: addr(51, 12) });
export const SS_PAGE_2M = layout('SS-PDE (2 MiB)', 8, { ...ssLeaf, ADDR: addr(51, 21) });
export const SS_PAGE_1G = layout('SS-PDPTE (1 GiB)', 8, { ...ssLeaf, ADDR: addr(51, 30) });

/** First-stage entry that points to a table. §9.7 */
export const FS_TABLE = layout('FS table entry', 8, {
  P: 0,
  'R/W': 1,
  'U/S': 2,
  PWT: 3,
  PCD: 4,
  A: 5,
  IGN_6: 6,
  PS: 7,
  IGN_9_8: [9, 8],
  EA: 10,
  IGN_11: 11,
  ADDR: addr(51, 12),
  IGN_62_52: [62, 52],
  XD: 63,
});

const fsLeaf = {
  P: 0,
  'R/W': 1,
  'U/S': 2,
  PWT: 3,
  PCD: 4,
  A: 5,
  D: 6,
  G: 8,
  IGN_9: 9,
  EA: 10,
  IGN_11: 11,
  IGN_62_52: [62, 52],
  XD: 63,
} as const;

/** First-stage page of 4 KiB (bit 7 is PAT), 2 MiB and 1 GiB (PAT in bit 12). §9.7 */
export const FS_PAGE_4K = layout('FS-PTE', 8, { ...fsLeaf, PAT: 7, ADDR: addr(51, 12) });
export const FS_PAGE_2M = layout('FS-PDE (2 MiB)', 8, { ...fsLeaf, PS: 7, PAT: 12, ADDR: addr(51, 21) });
export const FS_PAGE_1G = layout('FS-PDPTE (1 GiB)', 8, { ...fsLeaf, PS: 7, PAT: 12, ADDR: addr(51, 30) });

/** What of a unit's capabilities decides which bits of its paging entries are reserved. */
export interface VtdPagingCapabilities {
  /** Host address width: bits 51:HAW of an address are reserved. 33..52. */
  readonly hostAddressWidth: number;
  /** Second-stage large pages: CAP.SSLPS bits 0 and 1. */
  readonly secondStage2M: boolean;
  readonly secondStage1G: boolean;
  /** First-stage 1 GiB pages: CAP.FS1GP. (2 MiB pages are always there.) */
  readonly firstStage1G: boolean;
  /** ECAP.SC: SNP in second-stage leaves is a field rather than reserved. */
  readonly snoopControl: boolean;
  /** ECAP.DT: TM in second-stage leaves is a field rather than reserved. */
  readonly transientMapping: boolean;
}

/** What of a PASID-table entry changes how first-stage entries are used. §9.6 */
interface FirstStageOptions {
  /** 4 or 5: FSPM. */
  readonly levels: 4 | 5;
  /** WPE: a privileged request needs R/W to write. */
  readonly writeProtect: boolean;
  /** EAFE: sets EA beside A. */
  readonly extendedAccessed: boolean;
}

/** What of a PASID-table or context entry changes how second-stage entries are used. */
interface SecondStageOptions {
  /** 3, 4 or 5: AW. */
  readonly levels: 3 | 4 | 5;
  /** Widest input address that the unit takes (MGAW); the walk covers the smaller of both. */
  readonly inputBits?: number;
  /** SSADE: sets A and D. */
  readonly accessedDirty: boolean;
}

const FS_NAMES = ['', 'FS-PTE', 'FS-PDE', 'FS-PDPTE', 'FS-PML4E', 'FS-PML5E'];
const SS_NAMES = ['', 'SS-PTE', 'SS-PDE', 'SS-PDPTE', 'SS-PML4E', 'SS-PML5E'];

const FS_BIT = { P: 1 << 0, RW: 1 << 1, US: 1 << 2, A: 1 << 5, D: 1 << 6, EA: 1 << 10 } as const;
const SS_BIT = { R: 1 << 0, W: 1 << 1, A: 1 << 8, D: 1 << 9, SNP: 1 << 11 } as const;
const PS = 1 << 7;
/** TM, bit 62, in the high half. */
const TM_HI = 1 << 30;

/**
 * First-stage tables, 4- or 5-level: canonical 48- or 57-bit input (§3.6). XD is ignored, as
 * nothing here advertises execute requests (ECAP.ERS). A and, on a write, D are always kept
 * (§3.6.2).
 */
export function vtdFirstStage(caps: VtdPagingCapabilities, options: FirstStageOptions): PageTableFormat {
  const { levels, writeProtect, extendedAccessed } = options;
  return defineFormat({
    name: `VT-d first-stage ${levels}-level`,
    levels,
    inputBits: 12 + 9 * levels,
    signExtended: true,
    presentMask: FS_BIT.P,
    accessed: FS_BIT.A | (extendedAccessed ? FS_BIT.EA : 0),
    dirty: FS_BIT.D,
    outputBits: caps.hostAddressWidth,
    entryNames: FS_NAMES,
    tableLayouts: tables(FS_TABLE),
    leafLayouts: [undefined, FS_PAGE_4K, FS_PAGE_2M, caps.firstStage1G ? FS_PAGE_1G : undefined],
    leafBit: PS,
    leafExtraLo: 0,
    leafExtraHi: 0,
    rightsOf: (gathered, privileged) => firstStageRights(gathered, privileged, writeProtect),
  });
}

/**
 * Second-stage tables, 3- to 5-level: input of 39, 48 or 57 bits, zero above (§3.7). X is ignored.
 */
export function vtdSecondStage(caps: VtdPagingCapabilities, options: SecondStageOptions): PageTableFormat {
  const { levels, accessedDirty } = options;
  const width = 12 + 9 * levels;
  return defineFormat({
    name: `VT-d second-stage ${levels}-level`,
    levels,
    inputBits: Math.min(width, options.inputBits ?? width),
    signExtended: false,
    presentMask: SS_BIT.R | SS_BIT.W,
    accessed: accessedDirty ? SS_BIT.A : 0,
    dirty: accessedDirty ? SS_BIT.D : 0,
    outputBits: caps.hostAddressWidth,
    entryNames: SS_NAMES,
    tableLayouts: tables(SS_TABLE),
    leafLayouts: [
      undefined,
      SS_PAGE_4K,
      caps.secondStage2M ? SS_PAGE_2M : undefined,
      caps.secondStage1G ? SS_PAGE_1G : undefined,
    ],
    leafBit: PS,
    leafExtraLo: caps.snoopControl ? 0 : SS_BIT.SNP,
    leafExtraHi: caps.transientMapping ? 0 : TM_HI,
    rightsOf: (gathered) => (gathered & SS_BIT.R ? RIGHT.READ : 0) | (gathered & SS_BIT.W ? RIGHT.WRITE : 0),
  });
}

/** Tables at levels 2..5; level 1 has none. */
function tables(table: Layout<string>): readonly (Layout<string> | undefined)[] {
  return [undefined, undefined, table, table, table, table];
}

/** §3.6.1: a user request needs U/S in every entry; a privileged write needs R/W only under WPE. */
function firstStageRights(gathered: number, privileged: boolean, writeProtect: boolean): number {
  if ((gathered & FS_BIT.P) === 0) return 0;
  const writable = (gathered & FS_BIT.RW) !== 0;
  const user = (gathered & FS_BIT.US) === 0 ? 0 : RIGHT.READ | (writable ? RIGHT.WRITE : 0);
  if (!privileged) return user;
  const mine = RIGHT.READ | (writable || !writeProtect ? RIGHT.WRITE : 0);
  return mine === user ? mine : mine | RIGHT.PRIVILEGED;
}
