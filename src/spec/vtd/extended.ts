/**
 * Structures of extended mode, which scalable mode has replaced: VT-d Rev. 2.4 (D51397-008),
 * chapter 9. Only the simulated vt-d2 host uses them; no guest sees them.
 */
import { addr, layout } from '../define.js';

/** Extended Root Entry: devfn 0..127 use the lower, 128..255 the upper half. Rev. 2.4 §9.2 */
export const EXTENDED_ROOT_ENTRY = layout('extended root-entry', 16, {
  LP: 0,
  LCTP: addr(63, 12),
  UP: 64,
  UCTP: addr(127, 76),
});

/** Extended Context Entry: indexed by devfn modulo 128. Rev. 2.4 §9.4 */
export const EXTENDED_CONTEXT_ENTRY = layout('extended context-entry', 32, {
  P: 0,
  FPD: 1,
  T: [4, 2],
  EMT: [7, 5],
  DINVE: 8,
  PRE: 9,
  NESTE: 10,
  PASIDE: 11,
  SLPTPTR: addr(63, 12),
  AW: [66, 64],
  PGE: 67,
  NXE: 68,
  WPE: 69,
  CD: 70,
  EMTE: 71,
  DID: [87, 72],
  SMEP: 88,
  EAFE: 89,
  ERE: 90,
  SLEE: 91,
  PAT: [127, 96],
  PTS: [131, 128],
  PASIDPTR: addr(191, 140),
  PASIDSTPTR: addr(255, 204),
});

/**
 * EXTENDED_CONTEXT_ENTRY.T: requests without PASID through the second level or not at all, and
 * whether Device-TLBs are allowed. With-PASID requests depend on PASIDE and NESTE alone. Rev. 2.4
 * §9.4
 */
export const EXTENDED_T = {
  SECOND_LEVEL: 0,
  SECOND_LEVEL_DEVICE_TLB: 1,
  PASS_THROUGH: 2,
  PASS_THROUGH_PASID: 4,
  PASS_THROUGH_PASID_DEVICE_TLB: 5,
} as const;

/** PASID Entry: indexed by PASID. Rev. 2.4 §9.5 */
export const PASID_ENTRY = layout('PASID entry', 8, {
  P: 0,
  PWT: 3,
  PCD: 4,
  SRE: 11,
  FLPTPTR: addr(63, 12),
});

/** PASIDs that a table of size field `pts` has. Rev. 2.4 §9.4 */
export function pasidTableEntries(pts: number): number {
  return 2 ** (pts + 5);
}
