/** Memory-resident translation structures. VT-d Rev. 5.10, chapter 9. */
import { addr, layout } from '../define.js';

/** Root Entry: one per bus, indexed by bus number. §9.1 */
export const ROOT_ENTRY = layout('root-entry', 16, { P: 0, CTP: addr(63, 12) });

/** Scalable-mode Root Entry: devfn 0..127 use the lower, 128..255 the upper half. §9.2 */
export const SM_ROOT_ENTRY = layout('scalable-mode root-entry', 16, {
  LP: 0,
  LCTP: addr(63, 12),
  UP: 64,
  UCTP: addr(127, 76),
});

/**
 * Context Entry: one per function, indexed by devfn. §9.3. Bits 70:67 are ignored, not reserved.
 */
export const CONTEXT_ENTRY = layout('context-entry', 16, {
  P: 0,
  FPD: 1,
  TT: [3, 2],
  SSPTPTR: addr(63, 12),
  AW: [66, 64],
  IGN: [70, 67],
  DID: [87, 72],
});

/** CONTEXT_ENTRY.TT. §9.3 */
export const TT = { UNTRANSLATED: 0, ALL: 1, PASS_THROUGH: 2, RESERVED: 3 } as const;

/** AW of context-entries and PASID-table entries: levels = AW + 2, bits = 30 + 9 × AW. §9.3 */
export const AW = { BITS_39: 1, BITS_48: 2, BITS_57: 3 } as const;

/** Scalable-Mode Context Entry: indexed by devfn modulo 128. §9.4 */
export const SM_CONTEXT_ENTRY = layout('scalable-mode context-entry', 32, {
  P: 0,
  FPD: 1,
  DTE: 2,
  PASIDE: 3,
  PRE: 4,
  HPTE: 5,
  EPTR: 6,
  PDTS: [11, 9],
  PASIDDIRPTR: addr(63, 12),
  RID_PASID: [83, 64],
  RID_PRIV: 84,
});

/** Scalable-Mode PASID Directory Entry: indexed by PASID bits 19:6. §9.5 */
export const PASID_DIRECTORY_ENTRY = layout('PASID-directory entry', 8, {
  P: 0,
  FPD: 1,
  SMPTBLPTR: addr(63, 12),
});

/**
 * Scalable-Mode PASID Table Entry: indexed by PASID bits 5:0. §9.6. Bits 134:133 are ignored, not
 * reserved.
 */
export const PASID_TABLE_ENTRY = layout('PASID-table entry', 64, {
  P: 0,
  FPD: 1,
  AW: [4, 2],
  PGTT: [8, 6],
  SSADE: 9,
  SSPTPTR: addr(63, 12),
  DID: [79, 64],
  PWSNP: 87,
  PGSNP: 88,
  CD: 89,
  EMTE: 90,
  PAT: [127, 96],
  SRE: 128,
  FSPM: [131, 130],
  WPE: 132,
  IGN: [134, 133],
  EAFE: 135,
  FSPTPTR: addr(191, 140),
  HPTSZ: [257, 256],
  HPTPFD: 258,
  HPTPTR: addr(319, 268),
  HPTDID: [335, 320],
});

/** PASID_TABLE_ENTRY.PGTT. §9.6 */
export const PGTT = { FIRST_STAGE: 1, SECOND_STAGE: 2, NESTED: 3, PASS_THROUGH: 4 } as const;

/** PASID_TABLE_ENTRY.FSPM. §9.6 */
export const FSPM = { FOUR_LEVEL: 0, FIVE_LEVEL: 1 } as const;

/** PASIDs below this share one PASID-table: 64 entries of 64 bytes in 4 KiB. §9.5 */
export const PASID_TABLE_ENTRIES = 64;

/**
 * Largest PASID that a directory of size field `pdts` reaches, plus one: 2^(PDTS+7) tables of 64.
 * §9.4
 */
export function pasidLimit(pdts: number): number {
  return 2 ** (pdts + 7 + 6);
}

/** Page Request Descriptor, in the page request queue. §7.4.1.1. Type is 01h. */
export const PAGE_REQ_DSC = layout('page_req_dsc', 32, {
  Type: [7, 0],
  PP: 8,
  RID: [31, 16],
  PASID: [51, 32],
  EXR: 52,
  PMR: 53,
  RDR: 64,
  WRR: 65,
  LPIG: 66,
  PRGI: [75, 67],
  ADDR: addr(127, 76),
});

/** PAGE_REQ_DSC.Type */
export const PAGE_REQUEST_TYPE = 1;
