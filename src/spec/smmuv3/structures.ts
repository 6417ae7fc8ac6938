/** SMMUv3 structures in memory: stream table and context descriptors. IHI 0070, chapter 5. */
import { addr, layout } from '../define.js';

/** Level 1 Stream Table Descriptor. §5.1 */
export const L1STD = layout('L1STD', 8, { Span: [4, 0], L2Ptr: addr(51, 6) });

/** Largest L1STD.Span; greater ones are reserved. Span means 2^(Span-1) STEs, 0 means none. §5.1 */
export const MAX_SPAN = 11;

/**
 * Stream Table Entry. §5.2. Fields of features that no option brings are declared, so that people
 * can read them.
 */
export const STE = layout('STE', 64, {
  V: 0,
  Config: [3, 1],
  S1Fmt: [5, 4],
  S1ContextPtr: addr(51, 6),
  S1CDMax: [63, 59],
  S1DSS: [65, 64],
  S1CIR: [67, 66],
  S1COR: [69, 68],
  S1CSH: [71, 70],
  S2HWU59: 72,
  S2HWU60: 73,
  S2HWU61: 74,
  S2HWU62: 75,
  DRE: 76,
  CONT: [80, 77],
  DCP: 81,
  PPAR: 82,
  MEV: 83,
  S2FWB: 89,
  S1MPAM: 90,
  S1STALLD: 91,
  EATS: [93, 92],
  STRW: [95, 94],
  MemAttr: [99, 96],
  MTCFG: 100,
  ALLOCCFG: [104, 101],
  SHCFG: [109, 108],
  NSCFG: [111, 110],
  PRIVCFG: [113, 112],
  INSTCFG: [115, 114],
  S2VMID: [143, 128],
  S2T0SZ: [165, 160],
  S2SL0: [167, 166],
  S2IR0: [169, 168],
  S2OR0: [171, 170],
  S2SH0: [173, 172],
  S2TG: [175, 174],
  S2PS: [178, 176],
  S2AA64: 179,
  S2ENDI: 180,
  S2AFFD: 181,
  S2PTW: 182,
  S2HD: 183,
  S2HA: 184,
  S2S: 185,
  S2R: 186,
  S2TTB: addr(243, 196),
});

/** STE.Config. 0b0xx: abort without an event. §5.2 */
export const STE_CONFIG = { ABORT: 0, BYPASS: 4, S1_TRANSLATE: 5, S2_TRANSLATE: 6, NESTED: 7 } as const;

/** Bits of STE.Config that enable stages; the third says that the stream is not aborted. */
export const STE_CONFIG_BIT = { S1: 1, S2: 2, PASS: 4 } as const;

/** STE.S1Fmt. 0b11 is reserved and behaves as linear. §5.2 */
export const S1FMT = { LINEAR: 0, TWO_LEVEL_4K: 1, TWO_LEVEL_64K: 2, RESERVED: 3 } as const;

/**
 * STE.S1DSS: what becomes of a transaction without a SubstreamID. 0b11 is reserved and behaves as
 * terminate. §5.2
 */
export const S1DSS = { TERMINATE: 0, BYPASS: 1, SSID0: 2, RESERVED: 3 } as const;

/** STE.STRW while stage 1 is enabled. §5.2 */
export const STRW = { NS_EL1: 0, RESERVED: 1, EL2: 2, RESERVED_3: 3 } as const;

/** STE.EATS: what ATS a device may use. DPT is reserved and behaves as NONE. §5.2 */
export const EATS = { NONE: 0, FULL: 1, SPLIT: 2, DPT: 3 } as const;

/** Level 1 Context Descriptor. §5.3 */
export const L1CD = layout('L1CD', 8, { V: 0, L2Ptr: addr(51, 12) });

/** log2 of the number of context descriptors in a second-level table, by {@link S1FMT}. §3.3.3 */
export const CD_SPLIT = { FOUR_KIB: 6, SIXTY_FOUR_KIB: 10 } as const;

/** Context Descriptor. §5.4 */
export const CD = layout('CD', 64, {
  T0SZ: [5, 0],
  TG0: [7, 6],
  IR0: [9, 8],
  OR0: [11, 10],
  SH0: [13, 12],
  EPD0: 14,
  ENDI: 15,
  T1SZ: [21, 16],
  TG1: [23, 22],
  IR1: [25, 24],
  OR1: [27, 26],
  SH1: [29, 28],
  EPD1: 30,
  V: 31,
  IPS: [34, 32],
  AFFD: 35,
  WXN: 36,
  UWXN: 37,
  TBI0: 38,
  TBI1: 39,
  PAN: 40,
  AA64: 41,
  HD: 42,
  HA: 43,
  S: 44,
  R: 45,
  A: 46,
  ASET: 47,
  ASID: [63, 48],
  NSCFG0: 64,
  HAD0: 65,
  TTB0: addr(115, 68),
  NSCFG1: 128,
  HAD1: 129,
  TTB1: addr(179, 132),
  MAIR0: [223, 192],
  MAIR1: [255, 224],
  AMAIR0: [287, 256],
  AMAIR1: [319, 288],
});

/** log2 of the granule by CD.TG0 and STE.S2TG; 0: reserved. §5.4, §5.2 */
export const TG0_GRANULE = [12, 16, 14, 0] as const;
/** log2 of the granule by CD.TG1; 0: reserved. §5.4 */
export const TG1_GRANULE = [0, 14, 12, 16] as const;
