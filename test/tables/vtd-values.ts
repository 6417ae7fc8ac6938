/** Fault reasons and encodings; sources and their letters: see `vtd-registers.ts`. */

/**
 * Fault reasons by the labels of the specification's tables (§7.1.3, §5.1.4). V has every label;
 * L's strings and Q's names agree with it number by number, except: L stops at 0x90 and calls that
 * one (SFS.9) what V's neighbour SSS.5 is for the second stage; Q has SFS.10 = 0x91 like V. Rev 4's
 * SFS/SSS are V's SFL/SSL.
 */
export const FAULT_REASONS: { readonly [label: string]: number } = {
  'LRT.2': 0x01,
  'LCT.2': 0x02,
  'LCT.4': 0x03,
  'LGN.1': 0x04,
  'LGN.2': 0x05,
  'LGN.3': 0x06,
  'LSL.1': 0x07,
  'LRT.1': 0x08,
  'LCT.1': 0x09,
  'LRT.3': 0x0a,
  'LCT.3': 0x0b,
  'LSL.2': 0x0c,
  'LCT.5': 0x0d,
  'LGN.4': 0x0e,
  'IR.20': 0x20,
  'IR.21': 0x21,
  'IR.22': 0x22,
  'IR.23': 0x23,
  'IR.24': 0x24,
  'IR.25': 0x25,
  'IR.26': 0x26,
  'IR.27': 0x27,
  'IR.28': 0x28,
  'IR.29': 0x29,
  'RTA.1': 0x30,
  'RTA.2': 0x31,
  'RTA.3': 0x32,
  'RTA.4': 0x33,
  'SRT.1': 0x38,
  'SRT.2': 0x39,
  'SRT.3': 0x3a,
  'SCT.1': 0x40,
  'SCT.2': 0x41,
  'SCT.3': 0x42,
  'SCT.4': 0x43,
  'SCT.5': 0x44,
  'SCT.6': 0x45,
  'SCT.7': 0x46,
  'SCT.8': 0x47,
  'SCT.9': 0x48,
  'SPD.1': 0x50,
  'SPD.2': 0x51,
  'SPD.3': 0x52,
  'SPT.1': 0x58,
  'SPT.2': 0x59,
  'SPT.3': 0x5a,
  'SPT.4': 0x5b,
  'SPT.5': 0x5c,
  'SPT.6': 0x5d,
  'SFS.1': 0x70,
  'SFS.2': 0x71,
  'SFS.3': 0x72,
  'SFS.4': 0x73,
  'SFS.5': 0x74,
  'SFS.6': 0x75,
  'SFS.7': 0x76,
  'SFS.8': 0x77,
  'SSS.1': 0x78,
  'SSS.2': 0x79,
  'SSS.3': 0x7a,
  'SSS.4': 0x7b,
  'SSS.5': 0x7c,
  'SSS.6': 0x7d,
  'SGN.1': 0x80,
  'SGN.2': 0x81,
  'SGN.3': 0x82,
  'SGN.4': 0x83,
  'SGN.5': 0x84,
  'SGN.6': 0x85,
  'SGN.7': 0x86,
  'SGN.8': 0x87,
  'SGN.9': 0x88,
  'SGN.10': 0x89,
  'SFS.9': 0x90,
  'SFS.10': 0x91,
};

/** Encoded values. */
export const VALUES = {
  /** Context entry TT: L, F, Q. */
  TT: { UNTRANSLATED: 0, DEVICE_TLB: 1, PASS_THROUGH: 2 },
  /** PASID entry PGTT: L, Q, O. */
  PGTT: { FIRST_STAGE: 1, SECOND_STAGE: 2, NESTED: 3, PASS_THROUGH: 4 },
  /** RTADDR.TTM: V, O. */
  TTM: { LEGACY: 0, SCALABLE: 1, ABORT_DMA: 3 },
  /** AW of context and PASID entries: F. */
  AW: { LEVELS_3: 1, LEVELS_4: 2, LEVELS_5: 3 },
  /** PASID entry FSPM: L (FL5LP sets 1). */
  FSPM: { LEVELS_4: 0, LEVELS_5: 1 },
  /** CCMD.CIRG and cc_inv_dsc.G: L, Q, F. */
  CC_G: { GLOBAL: 1, DOMAIN: 2, DEVICE: 3 },
  /** IOTLB.IIRG and iotlb_inv_dsc.G: L, Q, F. */
  IOTLB_G: { GLOBAL: 1, DOMAIN: 2, PAGE: 3 },
  /** pc_inv_dsc.G: L, O. */
  PC_G: { DOMAIN: 0, PASID: 1, GLOBAL: 3 },
  /** p_iotlb_inv_dsc.G: L, Q, O. */
  P_IOTLB_G: { PASID: 2, PAGE: 3 },
  /** page_grp_resp_dsc.RC: L (QI_RESP_*), Q. */
  RC: { SUCCESS: 0, INVALID: 1, FAILURE: 15 },
  /** IRTE.SVT: L (SVT_*), Q (VTD_SVT_*), V. */
  SVT: { NO_VERIFY: 0, SID_SQ: 1, BUS: 2 },
  /** Bits of the source-id that count, by SQ: L (SQ_*), Q (vtd_svt_mask). */
  SQ_COUNTS: [0xffff, 0xfffb, 0xfff9, 0xfff8],
  /** IRTE.DLM: the processors' delivery modes, L (APIC_DELIVERY_MODE_*), Q (APIC_DM_*). */
  DELIVERY: { FIXED: 0, LOWEST: 1, SMI: 2, NMI: 4, INIT: 5, EXTINT: 7 },
  /** IRTE.DST without EIME: L (dest << 8), Q (0xff00, 8), F (<< 40 of the entry). */
  XAPIC: { MASK: 0xff00, SHIFT: 8 },
  /** IQERCD.IQEI: V only. */
  IQEI: {
    NOT_AVAILABLE: 0,
    INVALID_TAIL: 1,
    FETCH_ERROR: 2,
    INVALID_TYPE: 3,
    RESERVED_FIELD: 4,
    INVALID_WIDTH: 5,
    TAIL_MISALIGNED: 6,
    INVALID_TTM: 7,
  },
} as const;
