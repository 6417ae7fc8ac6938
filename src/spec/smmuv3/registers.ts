/**
 * SMMUv3 registers of the Non-secure programming interface.
 *
 * Issue pinned for all of `src/spec/smmuv3`: Arm System Memory Management Unit Architecture
 * Specification, SMMU architecture version 3, IHI 0070 (issue F.b). Chapter 6 has the registers, 5
 * the structures, 4 the commands, 7 the events, 8 the page requests. Bit positions agree with Linux
 * 6.1, QEMU 10.0 and FreeBSD where those define them. Where those three are silent the issue alone
 * was followed.
 *
 * Fields that belong to features of later issues, or to Secure state, Realm and enhanced command
 * queues, are not declared: they read as zero and ignore writes.
 */
import { addr, type FieldSpec, type Register, register, ro, rw } from '../define.js';

/** The second of two 64 KiB pages. §6.1 */
export const PAGE_1 = 0x10000;
export const SMMU_REGISTER_BYTES = 0x20000;

/** SMMU_IDR0. §6.3.1 */
export const IDR0 = register('SMMU_IDR0', 0x0000, 32, {
  S2P: ro(0),
  S1P: ro(1),
  TTF: ro(3, 2),
  COHACC: ro(4),
  BTM: ro(5),
  HTTU: ro(7, 6),
  DORMHINT: ro(8),
  HYP: ro(9),
  ATS: ro(10),
  NS1ATS: ro(11),
  ASID16: ro(12),
  MSI: ro(13),
  SEV: ro(14),
  ATOS: ro(15),
  PRI: ro(16),
  VMW: ro(17),
  VMID16: ro(18),
  CD2L: ro(19),
  VATOS: ro(20),
  TTENDIAN: ro(22, 21),
  ATSRECERR: ro(23),
  STALL_MODEL: ro(25, 24),
  TERM_MODEL: ro(26),
  ST_LEVEL: ro(28, 27),
  RME_IMPL: ro(30),
});

/** IDR0.TTF: which translation table formats there are. */
export const TTF = { AARCH32: 1, AARCH64: 2, BOTH: 3 } as const;
/** IDR0.HTTU. */
export const HTTU = { NONE: 0, ACCESS_FLAG: 1, ACCESS_AND_DIRTY: 2 } as const;
/** IDR0.TTENDIAN. */
export const TTENDIAN = { MIXED: 0, LITTLE: 2, BIG: 3 } as const;
/** IDR0.STALL_MODEL. */
export const STALL_MODEL = { STALL_AND_TERMINATE: 0, TERMINATE: 1, STALL: 2 } as const;

/** SMMU_IDR1. §6.3.2 */
export const IDR1 = register('SMMU_IDR1', 0x0004, 32, {
  SIDSIZE: ro(5, 0),
  SSIDSIZE: ro(10, 6),
  PRIQS: ro(15, 11),
  EVENTQS: ro(20, 16),
  CMDQS: ro(25, 21),
  ATTR_PERMS_OVR: ro(26),
  ATTR_TYPES_OVR: ro(27),
  REL: ro(28),
  QUEUES_PRESET: ro(29),
  TABLES_PRESET: ro(30),
  ECMDQ: ro(31),
});

/** SMMU_IDR2. §6.3.3 */
export const IDR2 = register('SMMU_IDR2', 0x0008, 32, { BA_VATOS: ro(9, 0) });

/** SMMU_IDR3. §6.3.4 */
export const IDR3 = register('SMMU_IDR3', 0x000c, 32, {
  HAD: ro(2),
  PBHA: ro(3),
  XNX: ro(4),
  PPS: ro(5),
  MPAM: ro(7),
  FWB: ro(8),
  STT: ro(9),
  RIL: ro(10),
  BBML: ro(12, 11),
  E0PD: ro(13),
  PTWNNC: ro(14),
  DPT: ro(15),
});

/** SMMU_IDR4: IMPLEMENTATION DEFINED. §6.3.5 */
export const IDR4 = register('SMMU_IDR4', 0x0010, 32, {});

/** SMMU_IDR5. §6.3.6 */
export const IDR5 = register('SMMU_IDR5', 0x0014, 32, {
  OAS: ro(2, 0),
  GRAN4K: ro(4),
  GRAN16K: ro(5),
  GRAN64K: ro(6),
  DS: ro(7),
  D128: ro(8),
  VAX: ro(11, 10),
  STALL_MAX: ro(31, 16),
});

/** Address width by IDR5.OAS, STE.S2PS and CD.IPS; 0b111 is reserved and behaves as 0b110. */
export const ADDRESS_BITS: readonly number[] = [32, 36, 40, 42, 44, 48, 52, 52];

/** SMMU_IIDR. §6.3.7 */
export const IIDR = register('SMMU_IIDR', 0x0018, 32, {
  Implementer: ro(11, 0),
  Revision: ro(15, 12),
  Variant: ro(19, 16),
  ProductID: ro(31, 20),
});

/** SMMU_AIDR. §6.3.8 */
export const AIDR = register('SMMU_AIDR', 0x001c, 32, { ArchMinorRev: ro(3, 0), ArchMajorRev: ro(7, 4) });

/**
 * SMMU_CR0. §6.3.9. PRIQEN, ATSCHK and VMW exist with IDR0.PRI, ATS and VMW only; no option brings
 * VMW.
 */
export const CR0 = register('SMMU_CR0', 0x0020, 32, {
  SMMUEN: rw(0),
  PRIQEN: rw(1),
  EVENTQEN: rw(2),
  CMDQEN: rw(3),
  ATSCHK: rw(4),
  VMW: ro(8, 6),
});

/** SMMU_CR0ACK: the same fields, once they are in effect. §6.3.10 */
export const CR0ACK = register('SMMU_CR0ACK', 0x0024, 32, {
  SMMUEN: ro(0),
  PRIQEN: ro(1),
  EVENTQEN: ro(2),
  CMDQEN: ro(3),
  ATSCHK: ro(4),
  VMW: ro(8, 6),
});

/** SMMU_CR1. §6.3.11 */
export const CR1 = register('SMMU_CR1', 0x0028, 32, {
  QUEUE_IC: rw(1, 0),
  QUEUE_OC: rw(3, 2),
  QUEUE_SH: rw(5, 4),
  TABLE_IC: rw(7, 6),
  TABLE_OC: rw(9, 8),
  TABLE_SH: rw(11, 10),
});

/** SMMU_CR2. §6.3.12. E2H exists with IDR0.HYP only, PTM with IDR0.BTM. */
export const CR2 = register('SMMU_CR2', 0x002c, 32, { E2H: ro(0), RECINVSID: rw(1), PTM: ro(2) });

/** SMMU_STATUSR. §6.3.13 */
export const STATUSR = register('SMMU_STATUSR', 0x0040, 32, { DORMANT: ro(0) });

/** SMMU_GBPA. §6.3.14. SHCFG 0b01: use incoming. */
export const GBPA = register('SMMU_GBPA', 0x0044, 32, {
  MemAttr: rw(3, 0),
  MTCFG: rw(4),
  ALLOCCFG: rw(11, 8),
  SHCFG: rw(13, 12, 1),
  PRIVCFG: rw(17, 16),
  INSTCFG: rw(19, 18),
  ABORT: rw(20),
  Update: rw(31),
});

/** SMMU_AGBPA: IMPLEMENTATION DEFINED. §6.3.15 */
export const AGBPA = register('SMMU_AGBPA', 0x0048, 32, {});

/** SMMU_IRQ_CTRL. §6.3.16. PRIQ_IRQEN exists with IDR0.PRI only. */
export const IRQ_CTRL = register('SMMU_IRQ_CTRL', 0x0050, 32, {
  GERROR_IRQEN: rw(0),
  PRIQ_IRQEN: rw(1),
  EVENTQ_IRQEN: rw(2),
});

/** SMMU_IRQ_CTRLACK. §6.3.17 */
export const IRQ_CTRLACK = register('SMMU_IRQ_CTRLACK', 0x0054, 32, {
  GERROR_IRQEN: ro(0),
  PRIQ_IRQEN: ro(1),
  EVENTQ_IRQEN: ro(2),
});

const GERROR_BITS = {
  CMDQ_ERR: 0,
  EVENTQ_ABT_ERR: 2,
  PRIQ_ABT_ERR: 3,
  MSI_CMDQ_ABT_ERR: 4,
  MSI_EVENTQ_ABT_ERR: 5,
  MSI_PRIQ_ABT_ERR: 6,
  MSI_GERROR_ABT_ERR: 7,
  SFM_ERR: 8,
} as const;
type GerrorName = keyof typeof GERROR_BITS;

function gerrorFields(field: (bit: number) => FieldSpec): { readonly [P in GerrorName]: FieldSpec } {
  const fields = {} as { [P in GerrorName]: FieldSpec };
  for (const name of Object.keys(GERROR_BITS) as GerrorName[]) fields[name] = field(GERROR_BITS[name]);
  return fields;
}

/** SMMU_GERROR: an error is active while its bit differs from the one in SMMU_GERRORN. §6.3.18 */
export const GERROR = register('SMMU_GERROR', 0x0060, 32, gerrorFields(ro));

/** SMMU_GERRORN. §6.3.19 */
export const GERRORN = register('SMMU_GERRORN', 0x0064, 32, gerrorFields(rw));

/** Address, payload and attributes of an MSI: three registers in 16 bytes. §6.3.20 to §6.3.22 */
function interruptConfiguration(
  name: string,
  offset: number,
): readonly [Register<'ADDR'>, Register<'DATA'>, Register<'MEMATTR' | 'SH'>] {
  return [
    register(`${name}_IRQ_CFG0`, offset, 64, { ADDR: addr(51, 2) }),
    register(`${name}_IRQ_CFG1`, offset + 8, 32, { DATA: rw(31, 0) }),
    register(`${name}_IRQ_CFG2`, offset + 12, 32, { MEMATTR: rw(3, 0), SH: rw(5, 4) }),
  ];
}

/** §6.3.20 to §6.3.22 */
export const [GERROR_IRQ_CFG0, GERROR_IRQ_CFG1, GERROR_IRQ_CFG2] = interruptConfiguration(
  'SMMU_GERROR',
  0x0068,
);

/** SMMU_STRTAB_BASE. §6.3.23 */
export const STRTAB_BASE = register('SMMU_STRTAB_BASE', 0x0080, 64, { ADDR: addr(51, 6), RA: rw(62) });

/** SMMU_STRTAB_BASE_CFG. §6.3.24 */
export const STRTAB_BASE_CFG = register('SMMU_STRTAB_BASE_CFG', 0x0088, 32, {
  LOG2SIZE: rw(5, 0),
  SPLIT: rw(10, 6),
  FMT: rw(17, 16),
});

/** STRTAB_BASE_CFG.FMT; other values are reserved and behave as linear. */
export const STRTAB_FMT = { LINEAR: 0, TWO_LEVEL: 1 } as const;

/** SMMU_CMDQ_BASE. §6.3.25 */
export const CMDQ_BASE = register('SMMU_CMDQ_BASE', 0x0090, 64, {
  LOG2SIZE: rw(4, 0),
  ADDR: addr(51, 5),
  RA: rw(62),
});

/** SMMU_CMDQ_PROD. §6.3.26. The index with its wrap bit has LOG2SIZE + 1 bits, at most 20. */
export const CMDQ_PROD = register('SMMU_CMDQ_PROD', 0x0098, 32, { WR: rw(19, 0) });

/** SMMU_CMDQ_CONS. §6.3.27 */
export const CMDQ_CONS = register('SMMU_CMDQ_CONS', 0x009c, 32, { RD: rw(19, 0), ERR: rw(30, 24) });

/** CMDQ_CONS.ERR. §6.3.27, §7.1 */
export const CERROR = { NONE: 0, ILL: 1, ABT: 2, ATC_INV_SYNC: 3 } as const;

/** SMMU_EVENTQ_BASE. §6.3.28 */
export const EVENTQ_BASE = register('SMMU_EVENTQ_BASE', 0x00a0, 64, {
  LOG2SIZE: rw(4, 0),
  ADDR: addr(51, 5),
  WA: rw(62),
});

/** SMMU_EVENTQ_PROD, on page 1. §6.3.29 */
export const EVENTQ_PROD = register('SMMU_EVENTQ_PROD', PAGE_1 + 0x00a8, 32, {
  WR: rw(19, 0),
  OVFLG: rw(31),
});

/** SMMU_EVENTQ_CONS, on page 1. §6.3.30 */
export const EVENTQ_CONS = register('SMMU_EVENTQ_CONS', PAGE_1 + 0x00ac, 32, {
  RD: rw(19, 0),
  OVACKFLG: rw(31),
});

/** §6.3.31 to §6.3.33 */
export const [EVENTQ_IRQ_CFG0, EVENTQ_IRQ_CFG1, EVENTQ_IRQ_CFG2] = interruptConfiguration(
  'SMMU_EVENTQ',
  0x00b0,
);

/** SMMU_PRIQ_BASE. §6.3.34. All PRIQ registers exist with IDR0.PRI only. */
export const PRIQ_BASE = register('SMMU_PRIQ_BASE', 0x00c0, 64, {
  LOG2SIZE: rw(4, 0),
  ADDR: addr(51, 5),
  WA: rw(62),
});

/** SMMU_PRIQ_PROD, on page 1. §6.3.35 */
export const PRIQ_PROD = register('SMMU_PRIQ_PROD', PAGE_1 + 0x00c8, 32, { WR: rw(19, 0), OVFLG: rw(31) });

/** SMMU_PRIQ_CONS, on page 1. §6.3.36 */
export const PRIQ_CONS = register('SMMU_PRIQ_CONS', PAGE_1 + 0x00cc, 32, { RD: rw(19, 0), OVACKFLG: rw(31) });

/** §6.3.37, §6.3.38 */
export const [PRIQ_IRQ_CFG0, PRIQ_IRQ_CFG1] = interruptConfiguration('SMMU_PRIQ', 0x00d0);

/**
 * SMMU_PRIQ_IRQ_CFG2. LO: an interrupt for the last request of a group rather than for a queue that
 * was empty. §6.3.39
 */
export const PRIQ_IRQ_CFG2 = register('SMMU_PRIQ_IRQ_CFG2', 0x00dc, 32, {
  MEMATTR: rw(3, 0),
  SH: rw(5, 4),
  LO: rw(31),
});

/** Every register of the model, in ascending order. */
export const SMMU_REGISTERS: readonly Register<string>[] = [
  IDR0,
  IDR1,
  IDR2,
  IDR3,
  IDR4,
  IDR5,
  IIDR,
  AIDR,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  STATUSR,
  GBPA,
  AGBPA,
  IRQ_CTRL,
  IRQ_CTRLACK,
  GERROR,
  GERRORN,
  GERROR_IRQ_CFG0,
  GERROR_IRQ_CFG1,
  GERROR_IRQ_CFG2,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  CMDQ_BASE,
  CMDQ_PROD,
  CMDQ_CONS,
  EVENTQ_BASE,
  EVENTQ_IRQ_CFG0,
  EVENTQ_IRQ_CFG1,
  EVENTQ_IRQ_CFG2,
  PRIQ_BASE,
  PRIQ_IRQ_CFG0,
  PRIQ_IRQ_CFG1,
  PRIQ_IRQ_CFG2,
  EVENTQ_PROD,
  EVENTQ_CONS,
  PRIQ_PROD,
  PRIQ_CONS,
];
