/**
 * Invalidation queue descriptors. VT-d Rev. 5.10, §6.5.2. All are declared at 256 bits. A 128-bit
 * descriptor in a queue of 256-bit entries is padded with zeros (§6.5.2.1), and the upper half of
 * such types is reserved. The 7-bit type is split: bits 3:0 and bits 11:9.
 */
import { addr, layout, layoutsOf, numbersOf } from '../define.js';

/** What all descriptors share. */
export const ANY_DESCRIPTOR = layout('descriptor', 32, { TypeLow: [3, 0], TypeHigh: [11, 9] });

/** Context-cache Invalidate Descriptor, cc_inv_dsc. §6.5.2.1 */
export const CC_INV_DSC = layout('cc_inv_dsc', 32, {
  TypeLow: [3, 0],
  G: [5, 4],
  TypeHigh: [11, 9],
  DID: [31, 16],
  SID: [47, 32],
  FM: [49, 48],
});

/** PASID-cache Invalidate Descriptor, pc_inv_dsc. §6.5.2.2. 256 bits only. */
export const PC_INV_DSC = layout('pc_inv_dsc', 32, {
  TypeLow: [3, 0],
  G: [5, 4],
  TypeHigh: [11, 9],
  DID: [31, 16],
  PASID: [51, 32],
});

/** PC_INV_DSC.G. §6.5.2.2 */
export const PC_GRANULARITY = { DOMAIN: 0, PASID: 1, RESERVED: 2, GLOBAL: 3 } as const;

/** IOTLB Invalidate Descriptor, iotlb_inv_dsc. §6.5.2.3 */
export const IOTLB_INV_DSC = layout('iotlb_inv_dsc', 32, {
  TypeLow: [3, 0],
  G: [5, 4],
  DW: 6,
  DR: 7,
  TypeHigh: [11, 9],
  DID: [31, 16],
  AM: [69, 64],
  IH: 70,
  ADDR: addr(127, 76),
});

/** PASID-based-IOTLB Invalidate Descriptor, p_iotlb_inv_dsc. §6.5.2.4. 256 bits only. */
export const P_IOTLB_INV_DSC = layout('p_iotlb_inv_dsc', 32, {
  TypeLow: [3, 0],
  G: [5, 4],
  TypeHigh: [11, 9],
  DID: [31, 16],
  PASID: [51, 32],
  AM: [69, 64],
  IH: 70,
  ADDR: addr(127, 76),
});

/** P_IOTLB_INV_DSC.G. §6.5.2.4 */
export const P_IOTLB_GRANULARITY = { PASID: 2, PAGE: 3 } as const;

/** Device-TLB Invalidate Descriptor, dev_tlb_inv_dsc. §6.5.2.5 */
export const DEV_TLB_INV_DSC = layout('dev_tlb_inv_dsc', 32, {
  TypeLow: [3, 0],
  TypeHigh: [11, 9],
  PFSID_LOW: [15, 12],
  MIP: [20, 16],
  SID: [47, 32],
  PFSID_HIGH: [63, 52],
  S: 64,
  ADDR: addr(127, 76),
});

/** PASID-based-Device-TLB Invalidate Descriptor, p_dev_tlb_inv_dsc. §6.5.2.6. 256 bits only. */
export const P_DEV_TLB_INV_DSC = layout('p_dev_tlb_inv_dsc', 32, {
  TypeLow: [3, 0],
  MIP: [8, 4],
  TypeHigh: [11, 9],
  PFSID_LOW: [15, 12],
  SID: [31, 16],
  PASID: [51, 32],
  PFSID_HIGH: [63, 52],
  GI: 64,
  S: 75,
  ADDR: addr(127, 76),
});

/** Interrupt Entry Cache Invalidate Descriptor, iec_inv_dsc. §6.5.2.8 */
export const IEC_INV_DSC = layout('iec_inv_dsc', 32, {
  TypeLow: [3, 0],
  G: 4,
  TypeHigh: [11, 9],
  IM: [31, 27],
  IIDX: [47, 32],
});

/** Invalidation Wait Descriptor, inv_wait_dsc. §6.5.2.9. PD is reserved while ECAP.PDS is clear. */
export const INV_WAIT_DSC = layout('inv_wait_dsc', 32, {
  TypeLow: [3, 0],
  IF: 4,
  SW: 5,
  FN: 6,
  PD: 7,
  TypeHigh: [11, 9],
  StatusData: [63, 32],
  StatusAddress: addr(127, 66),
});

/**
 * Page Group Response Descriptor, page_grp_resp_dsc. §7.6.1. 256 bits only. Bit 66 is ignored: it
 * was LPIG in earlier revisions.
 */
export const PAGE_GRP_RESP_DSC = layout('page_grp_resp_dsc', 32, {
  TypeLow: [3, 0],
  PP: 4,
  TypeHigh: [11, 9],
  RC: [15, 12],
  RID: [31, 16],
  PASID: [51, 32],
  IGN: 66,
  PRGI: [75, 67],
});

/** PAGE_GRP_RESP_DSC.RC. Table 32, §7.6.1. All others are reserved. */
export const RESPONSE_CODE = { SUCCESS: 0, INVALID_REQUEST: 1, RESPONSE_FAILURE: 15 } as const;

/** Every descriptor: its type and its layout. §6.5.2 */
const ROWS = {
  CONTEXT_CACHE: [0x1, CC_INV_DSC],
  IOTLB: [0x2, IOTLB_INV_DSC],
  DEVICE_TLB: [0x3, DEV_TLB_INV_DSC],
  INTERRUPT_ENTRY_CACHE: [0x4, IEC_INV_DSC],
  WAIT: [0x5, INV_WAIT_DSC],
  PASID_IOTLB: [0x6, P_IOTLB_INV_DSC],
  PASID_CACHE: [0x7, PC_INV_DSC],
  PASID_DEVICE_TLB: [0x8, P_DEV_TLB_INV_DSC],
  PAGE_GROUP_RESPONSE: [0x9, PAGE_GRP_RESP_DSC],
  HPT_CACHE: [0xa],
} as const;

/** Descriptor types. */
export const DESCRIPTOR = numbersOf(ROWS);

/** Layout of each descriptor that is declared here, by type. */
export const DESCRIPTOR_LAYOUT = layoutsOf(ROWS);

/** Name of a descriptor type, for people. */
export function descriptorName(type: number): string {
  return DESCRIPTOR_LAYOUT[type]?.name ?? `type 0x${type.toString(16)}`;
}
