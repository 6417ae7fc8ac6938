/**
 * VT-d remapping registers.
 *
 * Revision pinned for all of `src/spec/vtd`: Intel Virtualization Technology for Directed I/O,
 * Architecture Specification, Rev. 5.10, Order Number D51397-018. Section numbers ("§11.4.2") are
 * of that revision; chapter
 * 11 has the registers, §9 the structures, §6.5.2 the invalidation descriptors, §7.1.3 and §5.1.4.1
 *    the faults.
 * Bit positions agree with Linux 6.1 and QEMU 10.0 where those define them.
 *
 * Fields that this revision treats as reserved are not declared: they read as zero and ignore
 * writes.
 */
import { addr, type FieldSpec, type Register, register, ro, ros, rw, rw1cs, wo } from '../define.js';

/** Version Register. §11.4.1 */
export const VER_REG = register('VER_REG', 0x000, 32, { MIN: ro(3, 0), MAX: ro(7, 4) });

/** Capability Register. §11.4.2 */
export const CAP_REG = register('CAP_REG', 0x008, 64, {
  ND: ro(2, 0),
  RWBF: ro(4),
  PLMR: ro(5),
  PHMR: ro(6),
  CM: ro(7),
  SAGAW: ro(12, 8),
  MGAW: ro(21, 16),
  ZLR: ro(22),
  FRO: ro(33, 24),
  SSLPS: ro(37, 34),
  PSI: ro(39),
  NFR: ro(47, 40),
  MAMV: ro(53, 48),
  DWD: ro(54),
  DRD: ro(55),
  FS1GP: ro(56),
  PI: ro(59),
  FS5LP: ro(60),
  ECMDS: ro(61),
  ESIRTPS: ro(62),
  ESRTPS: ro(63),
});

/** Extended Capability Register. §11.4.3 */
export const ECAP_REG = register('ECAP_REG', 0x010, 64, {
  C: ro(0),
  QI: ro(1),
  DT: ro(2),
  IR: ro(3),
  EIM: ro(4),
  PT: ro(6),
  SC: ro(7),
  IRO: ro(17, 8),
  MHMV: ro(23, 20),
  MTS: ro(25),
  NEST: ro(26),
  PRS: ro(29),
  ERS: ro(30),
  SRS: ro(31),
  NWFS: ro(33),
  EAFS: ro(34),
  PSS: ro(39, 35),
  PASID: ro(40),
  DIT: ro(41),
  PDS: ro(42),
  SMTS: ro(43),
  VCS: ro(44),
  SSADS: ro(45),
  SSTS: ro(46),
  FSTS: ro(47),
  SMPWCS: ro(48),
  RPS: ro(49),
  TDXCS: ro(50),
  PMS: ro(51),
  ADMS: ro(52),
  RPRIVS: ro(53),
  HPTS: ro(55),
  PTRS: ro(56),
  SSIRWS: ro(57),
  SMS: ro(58),
  HPT1GPS: ro(59),
  RDTS: ro(60),
  EIMER: ro(61),
  IRREQ: ro(62),
});

/** Global Command Register. §11.4.4.1. Every field is write-only. */
export const GCMD_REG = register('GCMD_REG', 0x018, 32, {
  CFI: wo(23),
  SIRTP: wo(24),
  IRE: wo(25),
  QIE: wo(26),
  WBF: wo(27),
  SRTP: wo(30),
  TE: wo(31),
});

/** Global Status Register. §11.4.4.2 */
export const GSTS_REG = register('GSTS_REG', 0x01c, 32, {
  CFIS: ro(23),
  IRTPS: ro(24),
  IRES: ro(25),
  QIES: ro(26),
  WBFS: ro(27),
  RTPS: ro(30),
  TES: ro(31),
});

/** Root Table Address Register. §11.4.5. SSIRWE (bit 7) exists only with ECAP.SSIRWS. */
export const RTADDR_REG = register('RTADDR_REG', 0x020, 64, { TTM: rw(11, 10), RTA: addr(63, 12) });

/** RTADDR_REG.TTM. §11.4.5 */
export const TTM = { LEGACY: 0, SCALABLE: 1, RESERVED: 2, ABORT_DMA: 3 } as const;

/** Context Command Register. §11.4.6.1 */
export const CCMD_REG = register('CCMD_REG', 0x028, 64, {
  DID: rw(15, 0),
  SID: wo(31, 16),
  FM: wo(33, 32),
  CAIG: ro(60, 59),
  CIRG: rw(62, 61),
  ICC: rw(63),
});

/** Granularities of CCMD_REG.CIRG and of the context-cache invalidate descriptor. §11.4.6.1 */
export const CC_GRANULARITY = { RESERVED: 0, GLOBAL: 1, DOMAIN: 2, DEVICE: 3 } as const;

/**
 * Fault Status Register. §11.4.7.1. ITE and ICE never set without Device-TLB support, where they
 * are RsvdZ.
 */
export const FSTS_REG = register('FSTS_REG', 0x034, 32, {
  PFO: rw1cs(0),
  PPF: ros(1),
  IQE: rw1cs(4),
  ICE: rw1cs(5),
  ITE: rw1cs(6),
  FRI: ros(15, 8),
});

/** Interrupt mask and pending bits; the same in all three event control registers. */
const EVENT_CONTROL: { readonly IP: FieldSpec; readonly IM: FieldSpec } = { IP: ro(30), IM: rw(31, 31, 1) };

/** Fault Event Control Register. §11.4.7.2 */
export const FECTL_REG = register('FECTL_REG', 0x038, 32, EVENT_CONTROL);
/** Fault Event Data Register. §11.4.7.3 */
export const FEDATA_REG = register('FEDATA_REG', 0x03c, 32, { IMD: rw(15, 0) });
/** Fault Event Address Register. §11.4.7.4 */
export const FEADDR_REG = register('FEADDR_REG', 0x040, 32, { MA: addr(31, 2) });
/** Fault Event Upper Address Register. §11.4.7.5 */
export const FEUADDR_REG = register('FEUADDR_REG', 0x044, 32, { MUA: rw(31, 0) });

/** Protected Memory Enable Register. §11.4.8.1. Read-only zero: CAP.PLMR and CAP.PHMR are clear. */
export const PMEN_REG = register('PMEN_REG', 0x064, 32, { PRS: ro(0), EPM: ro(31) });

/** Invalidation Queue Head Register. §11.4.9.1. QH is a byte offset with its bits in place. */
export const IQH_REG = register('IQH_REG', 0x080, 64, { QH: addr(18, 4, 'RO') });
/** Invalidation Queue Tail Register. §11.4.9.2. QT is a byte offset with its bits in place. */
export const IQT_REG = register('IQT_REG', 0x088, 64, { QT: addr(18, 4) });
/** Invalidation Queue Address Register. §11.4.9.3 */
export const IQA_REG = register('IQA_REG', 0x090, 64, { QS: rw(2, 0), DW: rw(11), IQA: addr(63, 12) });
/** Invalidation Completion Status Register. §11.4.9.4 */
export const ICS_REG = register('ICS_REG', 0x09c, 32, { IWC: rw1cs(0) });
/** Invalidation Event Control Register. §11.4.9.5 */
export const IECTL_REG = register('IECTL_REG', 0x0a0, 32, EVENT_CONTROL);
/** Invalidation Event Data Register. §11.4.9.6 */
export const IEDATA_REG = register('IEDATA_REG', 0x0a4, 32, { IMD: rw(15, 0) });
/** Invalidation Event Address Register. §11.4.9.7 */
export const IEADDR_REG = register('IEADDR_REG', 0x0a8, 32, { MA: addr(31, 2) });
/** Invalidation Event Upper Address Register. §11.4.9.8 */
export const IEUADDR_REG = register('IEUADDR_REG', 0x0ac, 32, { MUA: rw(31, 0) });
/** Invalidation Queue Error Record Register. §11.4.9.9 */
export const IQERCD_REG = register('IQERCD_REG', 0x0b0, 64, {
  IQEI: ros(3, 0),
  ITESID: ros(47, 32),
  ICESID: ros(63, 48),
});

/** IQERCD_REG.IQEI. §11.4.9.9 */
export const IQEI = {
  NONE: 0,
  INVALID_TAIL: 1,
  FETCH: 2,
  INVALID_TYPE: 3,
  RESERVED_FIELD: 4,
  INVALID_WIDTH: 5,
  TAIL_ALIGNMENT: 6,
  INVALID_TTM: 7,
} as const;

/**
 * Interrupt Remapping Table Address Register. §11.4.10. RsvdZ while ECAP.IR is clear, EIME while
 * ECAP.EIM is. The table has 2^(S+1) entries.
 */
export const IRTA_REG = register('IRTA_REG', 0x0b8, 64, { S: rw(3, 0), EIME: rw(11), IRTA: addr(63, 12) });

/**
 * Page Request Queue Head Register. §11.4.11.1. This and the rest of §11.4.11: RsvdZ while ECAP.PRS
 * is clear.
 */
export const PQH_REG = register('PQH_REG', 0x0c0, 64, { PQH: addr(18, 5) });
/** Page Request Queue Tail Register. §11.4.11.2 */
export const PQT_REG = register('PQT_REG', 0x0c8, 64, { PQT: addr(18, 5) });
/** Page Request Queue Address Register. §11.4.11.3 */
export const PQA_REG = register('PQA_REG', 0x0d0, 64, { PQS: rw(2, 0), PQA: addr(63, 12) });
/** Page Request Status Register. §11.4.11.4 */
export const PRS_REG = register('PRS_REG', 0x0dc, 32, { PPR: rw1cs(0), PRO: rw1cs(1) });
/** Page Request Event Control Register. §11.4.11.5 */
export const PECTL_REG = register('PECTL_REG', 0x0e0, 32, EVENT_CONTROL);
/** Page Request Event Data Register. §11.4.11.6 */
export const PEDATA_REG = register('PEDATA_REG', 0x0e4, 32, { IMD: rw(15, 0) });
/** Page Request Event Address Register. §11.4.11.7 */
export const PEADDR_REG = register('PEADDR_REG', 0x0e8, 32, { MA: addr(31, 2) });
/** Page Request Event Upper Address Register. §11.4.11.8 */
export const PEUADDR_REG = register('PEUADDR_REG', 0x0ec, 32, { MUA: rw(31, 0) });

/**
 * Virtual Command Register. §11.4.16.1. This and the rest of §11.4.16: RsvdZ while ECAP.VCS is
 * clear.
 */
export const VCMD_REG = register('VCMD_REG', 0xe00, 64, { CMD: rw(7, 0), OA: rw(63, 16) });
/** Virtual Command Extended Operand Register. §11.4.16.2 */
export const VCMD_EO_REG = register('VCMD_EO_REG', 0xe08, 64, { OB: rw(63, 0) });
/** Virtual Command Response Register. §11.4.16.3 */
export const VCRSP_REG = register('VCRSP_REG', 0xe10, 64, { IP: ro(0), SC: ro(7, 1), RSLT: ro(63, 16) });
/**
 * Virtual Command Capability Register. §11.4.16.4. Bit 0 was PAS before Rev. 5; Linux 5.8 to 6.3
 * reads it so.
 */
export const VCCAP_REG = register('VCCAP_REG', 0xe30, 64, { NS: ro(0), PAS: ro(1), FPS: ro(2) });

/** VCMD_REG.CMD. Table 54, §11.4.16.1 */
export const VIRTUAL_COMMAND = { NULL: 0, ALLOCATE_PASID: 1, FREE_PASID: 2 } as const;

/**
 * VCRSP_REG.SC. §11.4.16.3; from 16 on by command: no PASID available, invalid PASID (Table 55).
 */
export const VIRTUAL_STATUS = { SUCCESS: 0, UNDEFINED_COMMAND: 1, NO_PASID: 16, INVALID_PASID: 16 } as const;

/**
 * Where this implementation puts the IOTLB registers; reported through ECAP.IRO in units of 16
 * bytes.
 */
export const IOTLB_OFFSET = 0x0f0;
/**
 * Where this implementation puts the fault recording registers; reported through CAP.FRO in units
 * of 16 bytes.
 */
export const FRCD_OFFSET = 0x220;

/** Invalidate Address Register. §11.4.6.4 */
export const IVA_REG = register('IVA_REG', IOTLB_OFFSET, 64, {
  AM: wo(5, 0),
  IH: wo(6),
  ADDR: addr(63, 12, 'WO'),
});

/** IOTLB Invalidate Register. §11.4.6.3 */
export const IOTLB_REG = register('IOTLB_REG', IOTLB_OFFSET + 8, 64, {
  DID: rw(47, 32),
  DW: rw(48),
  DR: rw(49),
  IAIG: ro(58, 57),
  IIRG: rw(61, 60),
  IVT: rw(63),
});

/** Granularities of IOTLB_REG.IIRG and of the IOTLB invalidate descriptor. §11.4.6.3 */
export const IOTLB_GRANULARITY = { RESERVED: 0, GLOBAL: 1, DOMAIN: 2, PAGE: 3 } as const;

/** Bytes of one fault recording register. */
export const FRCD_BYTES = 16;

/**
 * Fault Recording Register `index`. §11.4.7.6. The F bit stands in the last word, which is stored
 * last.
 */
export function faultRecordingRegister(index: number) {
  return register(`FRCD_REG[${index}]`, FRCD_OFFSET + index * FRCD_BYTES, 128, {
    FI: addr(63, 12, 'ROS'),
    SID: ros(79, 64),
    T2: ros(92),
    PRIV: ros(93),
    EXE: ros(94),
    PP: ros(95),
    FR: ros(103, 96),
    PV: ros(123, 104),
    AT: ros(125, 124),
    T1: ros(126),
    F: rw1cs(127),
  });
}

/** The layout of every fault recording register. */
export const FRCD_REG = faultRecordingRegister(0);

/** Registers that are live whatever the capabilities say, without the fault recording registers. */
export const BASE_REGISTERS: readonly Register<string>[] = [
  VER_REG,
  CAP_REG,
  ECAP_REG,
  GCMD_REG,
  GSTS_REG,
  RTADDR_REG,
  CCMD_REG,
  FSTS_REG,
  FECTL_REG,
  FEDATA_REG,
  FEADDR_REG,
  FEUADDR_REG,
  PMEN_REG,
  IQH_REG,
  IQT_REG,
  IQA_REG,
  ICS_REG,
  IECTL_REG,
  IEDATA_REG,
  IEADDR_REG,
  IEUADDR_REG,
  IQERCD_REG,
  IVA_REG,
  IOTLB_REG,
];

/** Registers that are RsvdZ unless ECAP.PRS is set. */
export const PAGE_REQUEST_REGISTERS: readonly Register<string>[] = [
  PQH_REG,
  PQT_REG,
  PQA_REG,
  PRS_REG,
  PECTL_REG,
  PEDATA_REG,
  PEADDR_REG,
  PEUADDR_REG,
];

/** Registers that are RsvdZ unless ECAP.IR is set. */
export const INTERRUPT_REGISTERS: readonly Register<string>[] = [IRTA_REG];

/** Registers that are RsvdZ unless ECAP.VCS is set. */
export const VIRTUAL_COMMAND_REGISTERS: readonly Register<string>[] = [
  VCMD_REG,
  VCMD_EO_REG,
  VCRSP_REG,
  VCCAP_REG,
];
