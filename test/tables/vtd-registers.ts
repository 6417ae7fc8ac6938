/**
 * A second, independent transcription of Intel VT-d's registers, structures, descriptors and fault
 * reasons, against which `src/spec/vtd` is compared. It was made without looking at that table,
 * from the public headers of other projects (facts only: names, positions, values):
 *
 *   L   Linux 6.1 and 6.1x: drivers/iommu/intel/{iommu.h,pasid.h,pasid.c,iommu.c,svm.c,dmar.c},
 *       include/linux/dmar.h
 *   Q   QEMU 10.0: hw/i386/intel_iommu_internal.h
 *   V   VirtualBox 7: include/VBox/iommu-intel.h (every field of every register, rev 3.x names)
 *   F   FreeBSD: sys/x86/iommu/intel_reg.h
 *   O   OpenVMM: vm/devices/iommu/intel_vtd/src/spec/{registers,scalable,invalidation,pte}.rs
 *       (rev 4.1)
 *   R   a public Rust driver's decoding of ECAP_REG (rev 5). Other parts of it are wrong, so it is
 *       used only for the bits of ECAP_REG that no other source names
 *
 * Each group names where it was read; two sources agree on every number unless a remark says
 * otherwise. A range is [msb, lsb], bits counted from bit 0 of the whole register or structure.
 */

import { bit, type RegisterFacts } from './facts.js';

/**
 * Registers at fixed offsets: L, Q, V, F agree on the offsets; fields from V, checked against L
 * (macros), Q, O. Differences found: V (rev 3.x) and F have AFO, APF in FSTS and FLS/EAFL/SFL in
 * GCMD/GSTS, which L and O still name; rev 4 reserves advanced fault logging when CAP.AFL = 0. V
 * places VCRSP at 0xE20, L at 0xE10 since 5.15: L is right (rev 3.3 and later). FEDATA.EIMD is in
 * O, reserved in V since the 2021 edition.
 */
export const REGISTERS: { readonly [name: string]: RegisterFacts } = {
  VER_REG: { offset: 0x00, width: 32, fields: { MIN: [3, 0], MAX: [7, 4] } },
  CAP_REG: {
    offset: 0x08,
    width: 64,
    fields: {
      ND: [2, 0],
      AFL: bit(3),
      RWBF: bit(4),
      PLMR: bit(5),
      PHMR: bit(6),
      CM: bit(7),
      SAGAW: [12, 8],
      MGAW: [21, 16],
      ZLR: bit(22),
      FRO: [33, 24],
      SSLPS: [37, 34],
      PSI: bit(39),
      NFR: [47, 40],
      MAMV: [53, 48],
      DWD: bit(54),
      DRD: bit(55),
      FS1GP: bit(56),
      PI: bit(59),
      FS5LP: bit(60),
      ECMDS: bit(61), // L only (6.2 and later); reserved in V (rev 3.x).
      ESIRTPS: bit(62),
      ESRTPS: bit(63),
    },
  },
  ECAP_REG: {
    offset: 0x10,
    width: 64,
    fields: {
      C: bit(0),
      QI: bit(1),
      DT: bit(2),
      IR: bit(3),
      EIM: bit(4),
      PT: bit(6),
      SC: bit(7),
      IRO: [17, 8],
      MHMV: [23, 20],
      MTS: bit(25),
      NEST: bit(26),
      PRS: bit(29),
      ERS: bit(30),
      SRS: bit(31),
      NWFS: bit(33),
      EAFS: bit(34),
      PSS: [39, 35],
      PASID: bit(40), // F has 28: the position of the withdrawn extended mode; L calls that one broken.
      DIT: bit(41),
      PDS: bit(42),
      SMTS: bit(43),
      VCS: bit(44),
      SSADS: bit(45),
      SSTS: bit(46),
      FSTS: bit(47),
      SMPWCS: bit(48),
      RPS: bit(49),
      TDXCS: bit(50), // R
      PMS: bit(51), // L, O
      ADMS: bit(52), // V, O
      RPRIVS: bit(53), // V, O
      HPTS: bit(55), // R; the next four but SMS likewise
      PTRS: bit(56),
      SSIRWS: bit(57),
      SMS: bit(58), // O, R
      HPT1GPS: bit(59), // R; to the end
      RDTS: bit(60),
      EIMER: bit(61),
      IRREQ: bit(62),
    },
  },
  GCMD_REG: {
    offset: 0x18,
    width: 32,
    fields: {
      CFI: bit(23),
      SIRTP: bit(24),
      IRE: bit(25),
      QIE: bit(26),
      WBF: bit(27),
      EAFL: bit(28),
      SFL: bit(29),
      SRTP: bit(30),
      TE: bit(31),
    },
  },
  GSTS_REG: {
    offset: 0x1c,
    width: 32,
    fields: {
      CFIS: bit(23),
      IRTPS: bit(24),
      IRES: bit(25),
      QIES: bit(26),
      WBFS: bit(27),
      AFLS: bit(28),
      FLS: bit(29),
      RTPS: bit(30),
      TES: bit(31),
    },
  },
  RTADDR_REG: { offset: 0x20, width: 64, fields: { TTM: [11, 10], RTA: [63, 12] } },
  CCMD_REG: {
    offset: 0x28,
    width: 64,
    fields: {
      DID: [15, 0],
      SID: [31, 16],
      FM: [33, 32],
      CAIG: [60, 59],
      CIRG: [62, 61],
      ICC: bit(63),
    },
  },
  FSTS_REG: {
    offset: 0x34,
    width: 32,
    fields: {
      PFO: bit(0),
      PPF: bit(1),
      AFO: bit(2),
      APF: bit(3),
      IQE: bit(4),
      ICE: bit(5),
      ITE: bit(6),
      PRO: bit(7), // L; withdrawn with the extended mode (V: must be zero)
      FRI: [15, 8],
    },
  },
  FECTL_REG: { offset: 0x38, width: 32, fields: { IP: bit(30), IM: bit(31) } },
  FEDATA_REG: { offset: 0x3c, width: 32, fields: { IMD: [15, 0], EIMD: [31, 16] } },
  FEADDR_REG: { offset: 0x40, width: 32, fields: { MA: [31, 2] } },
  FEUADDR_REG: { offset: 0x44, width: 32, fields: { MUA: [31, 0] } },
  AFLOG_REG: { offset: 0x58, width: 64, fields: { FLS: [11, 9], FLA: [63, 12] } },
  PMEN_REG: { offset: 0x64, width: 32, fields: { PRS: bit(0), EPM: bit(31) } },
  PLMBASE_REG: { offset: 0x68, width: 32, fields: {} },
  PLMLIMIT_REG: { offset: 0x6c, width: 32, fields: {} },
  PHMBASE_REG: { offset: 0x70, width: 64, fields: {} },
  PHMLIMIT_REG: { offset: 0x78, width: 64, fields: {} },
  IQH_REG: { offset: 0x80, width: 64, fields: { QH: [18, 4] } },
  IQT_REG: { offset: 0x88, width: 64, fields: { QT: [18, 4] } },
  // O has DW at 3; L (1 << 11 in scalable mode), Q (mask 0x800) and V have 11: 11 is right.
  IQA_REG: { offset: 0x90, width: 64, fields: { QS: [2, 0], DW: bit(11), IQA: [63, 12] } },
  ICS_REG: { offset: 0x9c, width: 32, fields: { IWC: bit(0) } },
  IECTL_REG: { offset: 0xa0, width: 32, fields: { IP: bit(30), IM: bit(31) } },
  IEDATA_REG: { offset: 0xa4, width: 32, fields: { IMD: [15, 0], EIMD: [31, 16] } },
  IEADDR_REG: { offset: 0xa8, width: 32, fields: { MA: [31, 2] } },
  IEUADDR_REG: { offset: 0xac, width: 32, fields: { MUA: [31, 0] } },
  IQERCD_REG: {
    offset: 0xb0,
    width: 64,
    fields: { IQEI: [3, 0], ITESID: [47, 32], ICESID: [63, 48] },
  },
  IRTA_REG: { offset: 0xb8, width: 64, fields: { S: [3, 0], EIME: bit(11), IRTA: [63, 12] } },
  PQH_REG: { offset: 0xc0, width: 64, fields: { PQH: [18, 5] } },
  PQT_REG: { offset: 0xc8, width: 64, fields: { PQT: [18, 5] } },
  PQA_REG: { offset: 0xd0, width: 64, fields: { PQS: [2, 0], PQA: [63, 12] } },
  PRS_REG: { offset: 0xdc, width: 32, fields: { PPR: bit(0), PRO: bit(1) } },
  PECTL_REG: { offset: 0xe0, width: 32, fields: { IP: bit(30), IM: bit(31) } },
  PEDATA_REG: { offset: 0xe4, width: 32, fields: { IMD: [15, 0], EIMD: [31, 16] } },
  PEADDR_REG: { offset: 0xe8, width: 32, fields: { MA: [31, 2] } },
  PEUADDR_REG: { offset: 0xec, width: 32, fields: { MUA: [31, 0] } },
  // L since 5.15 (and its stable branches): operand << 16, ((response & 0xff) >> 1), response >>
  // 16. Before, and in V: 8, 0x3 and 8. L takes bit 0 of VCCAP for "PASIDs can be allocated".
  VCMD_REG: { offset: 0xe00, width: 64, fields: { CMD: [7, 0], OA: [63, 16] } },
  VCRSP_REG: { offset: 0xe10, width: 64, fields: { IP: bit(0), SC: [7, 1], RSLT: [63, 16] } },
  VCCAP_REG: { offset: 0xe30, width: 64, fields: { NS: bit(0) } },
};

/** Registers whose offset the hardware chooses (CAP.FRO, ECAP.IRO): fields only. V, L, Q, F, O. */
export const RELOCATABLE: { readonly [name: string]: Omit<RegisterFacts, 'offset'> } = {
  /** At ECAP.IRO × 16. */
  IVA_REG: { width: 64, fields: { AM: [5, 0], IH: bit(6), ADDR: [63, 12] } },
  /** At ECAP.IRO × 16 + 8. F, L, O have DR above DW: 49, 48. */
  IOTLB_REG: {
    width: 64,
    fields: { DID: [47, 32], DW: bit(48), DR: bit(49), IAIG: [58, 57], IIRG: [61, 60], IVT: bit(63) },
  },
  /** At CAP.FRO × 16, 16 bytes each. O leaves out PASID and type bit 2, which V and L have. */
  FRCD_REG: {
    width: 128,
    fields: {
      FI: [63, 12],
      SID: [79, 64],
      T2: bit(92),
      PRIV: bit(93),
      EXE: bit(94),
      PP: bit(95),
      FR: [103, 96],
      PV: [123, 104],
      AT: [125, 124],
      T1: bit(126),
      F: bit(127),
    },
  },
};
