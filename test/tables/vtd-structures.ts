/** Structures and invalidation descriptors; sources and their letters: see `vtd-registers.ts`. */

import { bit, type Ranges, type StructureFacts } from './facts.js';

/**
 * Structures in memory. V and O field by field; L (pasid.c, iommu.c setters), Q (masks) agree where
 * they name them.
 */
export const STRUCTURES: { readonly [name: string]: StructureFacts } = {
  ROOT_ENTRY: { bytes: 16, fields: { P: bit(0), CTP: [63, 12] } },
  SM_ROOT_ENTRY: {
    bytes: 16,
    fields: { LP: bit(0), LCTP: [63, 12], UP: bit(64), UCTP: [127, 76] },
  },
  CONTEXT_ENTRY: {
    bytes: 16,
    fields: {
      P: bit(0),
      FPD: bit(1),
      TT: [3, 2],
      SSPTPTR: [63, 12],
      AW: [66, 64],
      IGN: [70, 67], // free for software; L calls it available (bits 3-6 of the high half)
      DID: [87, 72],
    },
  },
  SM_CONTEXT_ENTRY: {
    bytes: 32,
    fields: {
      P: bit(0),
      FPD: bit(1),
      DTE: bit(2),
      PASIDE: bit(3),
      PRE: bit(4),
      PDTS: [11, 9],
      PASIDDIRPTR: [63, 12],
      RID_PASID: [83, 64],
      RID_PRIV: bit(84),
    },
  },
  SM_PASID_DIR_ENTRY: { bytes: 8, fields: { P: bit(0), FPD: bit(1), SMPTBLPTR: [63, 12] } },
  /**
   * V names SLEE (5), EMT, PWT, PCD (91..95), ERE (129), NXE (133), SMEP (134), gone from rev 4 (O:
   * reserved or ignored).
   */
  SM_PASID_TABLE_ENTRY: {
    bytes: 64,
    fields: {
      P: bit(0),
      FPD: bit(1),
      AW: [4, 2],
      SLEE: bit(5),
      PGTT: [8, 6],
      SSADE: bit(9),
      SSPTPTR: [63, 12],
      DID: [79, 64],
      PWSNP: bit(87),
      PGSNP: bit(88),
      CD: bit(89),
      EMTE: bit(90),
      EMT: [93, 91],
      PWT: bit(94),
      PCD: bit(95),
      PAT: [127, 96],
      SRE: bit(128),
      ERE: bit(129),
      FSPM: [131, 130],
      WPE: bit(132),
      NXE: bit(133),
      SMEP: bit(134),
      EAFE: bit(135),
      FSPTPTR: [191, 140],
    },
  },
  /**
   * First-stage paging entry: V, L (DMA_FL_PTE_*), Q (VTD_FL_*); bits 7, 8 as the CPU's entries,
   * which it shares.
   */
  FS_ENTRY: {
    bytes: 8,
    fields: {
      P: bit(0),
      RW: bit(1),
      US: bit(2),
      PWT: bit(3),
      PCD: bit(4),
      A: bit(5),
      D: bit(6),
      PS: bit(7),
      G: bit(8),
      EA: bit(10),
      ADDR: [51, 12],
      XD: bit(63),
    },
  },
  /**
   * Second-stage paging entry: O, L (DMA_PTE_*, DMA_SL_PTE_DIRTY_BIT 9), Q, F (TM 62, withdrawn in
   * rev 3).
   */
  SS_ENTRY: {
    bytes: 8,
    fields: {
      R: bit(0),
      W: bit(1),
      X: bit(2),
      PS: bit(7),
      A: bit(8),
      D: bit(9),
      SNP: bit(11),
      ADDR: [51, 12],
      TM: bit(62),
    },
  },
  /** Interrupt remapping table entry, remapped format: V, F, L (struct irte). */
  IRTE: {
    bytes: 16,
    fields: {
      P: bit(0),
      FPD: bit(1),
      DM: bit(2),
      RH: bit(3),
      TM: bit(4),
      DLM: [7, 5],
      AVAIL: [11, 8],
      IM: bit(15),
      V: [23, 16],
      DST: [63, 32],
      SID: [79, 64],
      SQ: [81, 80],
      SVT: [83, 82],
    },
  },
  /**
   * Message in remappable format, address then data: L (msi.h, arch_msi_msg_addr_lo), Q
   * (VTD_IR_MSIAddress), V.
   */
  REMAPPABLE_REQUEST: {
    bytes: 8,
    fields: {
      INDEX_HI: bit(2),
      SHV: bit(3),
      FORMAT: bit(4),
      INDEX_LO: [19, 5],
      BASE: [31, 20],
      SUBHANDLE: [47, 32],
    },
  },
  /**
   * Message in compatibility format: L (arch_msi_msg_addr_lo, arch_msi_msg_data), Q
   * (x86-iommu.h), V.
   */
  COMPATIBILITY_REQUEST: {
    bytes: 8,
    fields: {
      DEST_MODE: bit(2),
      REDIRECT: bit(3),
      FORMAT: bit(4),
      DEST: [19, 12],
      BASE: [31, 20],
      VECTOR: [39, 32],
      DELIVERY: [42, 40],
      ASSERT: bit(46),
      LEVEL: bit(47),
    },
  },
  /**
   * Page request descriptor: L (struct page_req_dsc), Q since 10.2 (VTD_PRD_*, without private
   * data).
   */
  PAGE_REQUEST: {
    bytes: 32,
    fields: {
      TYPE: [7, 0],
      PP: bit(8), // L: pasid_present
      PRIV_DATA_PRESENT: bit(9),
      RID: [31, 16],
      PASID: [51, 32],
      EXE: bit(52),
      PM: bit(53),
      RD: bit(64),
      WR: bit(65),
      LPIG: bit(66),
      PRGI: [75, 67], // L: prg_index
      ADDR: [127, 76],
      PRIV_DATA: [255, 128],
    },
  },
};

/**
 * Invalidation descriptors. Type = bits 11:9 above bits 3:0 (V, Q, O). V and O field by field; L
 * and Q agree. The 256-bit forms have the same low half and a reserved high half (O), except the
 * page group response.
 */
export const DESCRIPTORS: {
  readonly [name: string]: { readonly type: number; readonly fields: Ranges };
} = {
  cc_inv_dsc: {
    type: 1,
    fields: { TYPE: [3, 0], G: [5, 4], TYPE_HI: [11, 9], DID: [31, 16], SID: [47, 32], FM: [49, 48] },
  },
  iotlb_inv_dsc: {
    type: 2,
    fields: {
      TYPE: [3, 0],
      G: [5, 4],
      DW: bit(6),
      DR: bit(7),
      TYPE_HI: [11, 9],
      DID: [31, 16],
      AM: [69, 64],
      IH: bit(70),
      ADDR: [127, 76],
    },
  },
  dev_tlb_inv_dsc: {
    type: 3,
    fields: {
      TYPE: [3, 0],
      TYPE_HI: [11, 9],
      PFSID_LO: [15, 12],
      MIP: [20, 16],
      SID: [47, 32],
      PFSID_HI: [63, 52],
      S: bit(64),
      ADDR: [127, 76],
    },
  },
  iec_inv_dsc: {
    type: 4,
    fields: { TYPE: [3, 0], G: bit(4), TYPE_HI: [11, 9], IM: [31, 27], IIDX: [47, 32] },
  },
  inv_wait_dsc: {
    type: 5,
    fields: {
      TYPE: [3, 0],
      IF: bit(4),
      SW: bit(5),
      FN: bit(6),
      PD: bit(7),
      TYPE_HI: [11, 9],
      STDATA: [63, 32],
      STADDR: [127, 66],
    },
  },
  p_iotlb_inv_dsc: {
    type: 6,
    fields: {
      TYPE: [3, 0],
      G: [5, 4],
      TYPE_HI: [11, 9],
      DID: [31, 16],
      PASID: [51, 32],
      AM: [69, 64],
      IH: bit(70),
      ADDR: [127, 76],
    },
  },
  pc_inv_dsc: {
    type: 7,
    fields: { TYPE: [3, 0], G: [5, 4], TYPE_HI: [11, 9], DID: [31, 16], PASID: [51, 32] },
  },
  p_dev_tlb_inv_dsc: {
    type: 8,
    fields: {
      TYPE: [3, 0],
      MIP: [8, 4],
      TYPE_HI: [11, 9],
      PFSID_LO: [15, 12],
      SID: [31, 16],
      PASID: [51, 32],
      PFSID_HI: [63, 52],
      G: bit(64),
      S: bit(75),
      ADDR: [127, 76],
    },
  },
  /**
   * Page group response: L (QI_PGRP_*), Q since 10.2 (VTD_INV_DESC_PGRESP_*, without PDP, LPIG and
   * private data).
   */
  page_grp_resp_dsc: {
    type: 9,
    fields: {
      TYPE: [3, 0],
      PP: bit(4), // L: PASID_P
      PDP: bit(5),
      TYPE_HI: [11, 9],
      RESP_CODE: [15, 12],
      RID: [31, 16],
      PASID: [51, 32],
      IGN: bit(66), // L: LPIG, which rev 4 has software leave out
      PRGI: [75, 67],
      PRIV: [255, 128],
    },
  },
};
