/**
 * A second, independent transcription of the SMMUv3's registers, structures, commands and events,
 * against which `src/spec/smmuv3` is compared. It was made without looking at that table, from
 * these (facts only: names, positions, values):
 *
 *   S   the field lists of Arm's specification, IHI 0070 (an issue with SMMUv3.4 and RME):
 *       registers §6.3, structures §5.1 to §5.4, opcodes §4.1.1, event numbers §7.3. Its figures
 *       of commands and events could not be read
 *   L   Linux 6.1x: drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h
 *   F   FreeBSD: sys/arm64/iommu/smmu_reg.h
 *   Q   QEMU: hw/arm/smmuv3-internal.h
 *   M   a public UEFI driver for the SMMUv3 by Microsoft: bit-field structures of commands and
 *       events
 *   O   OpenVMM: vm/devices/iommu/smmu/src/spec/{registers,events,ste}.rs
 *
 * Registers: S, every field; L, F and Q agree with it on every field that they name. O does not, in
 * CR2 (E2H and RECINVSID exchanged), GBPA (by accumulated width), CR0.VSIDEN and the number of
 * F_TLB_CONFLICT; it is wrong. Address fields reach bit 55 in S (SMMUv3.4, 56-bit addresses) and
 * bit 51 elsewhere.
 */

import { bit, type RegisterFacts } from './facts.js';

/**
 * Offsets from the start of page 0; page 1 is at 0x10000. Queue pointers of page 1: L's and F's
 * offsets, S §6.2.
 */
export const REGISTERS: { readonly [name: string]: RegisterFacts } = {
  IDR0: {
    offset: 0x0,
    width: 32,
    fields: {
      S2P: bit(0),
      S1P: bit(1),
      TTF: [3, 2],
      COHACC: bit(4),
      BTM: bit(5),
      HTTU: [7, 6],
      DORMHINT: bit(8),
      Hyp: bit(9),
      ATS: bit(10),
      NS1ATS: bit(11),
      ASID16: bit(12),
      MSI: bit(13),
      SEV: bit(14),
      ATOS: bit(15),
      PRI: bit(16),
      VMW: bit(17),
      VMID16: bit(18),
      CD2L: bit(19),
      VATOS: bit(20),
      TTENDIAN: [22, 21],
      ATSRECERR: bit(23),
      STALL_MODEL: [25, 24],
      TERM_MODEL: bit(26),
      ST_LEVEL: [28, 27],
      RME_IMPL: bit(30),
    },
  }, // §6.3.1
  IDR1: {
    offset: 0x4,
    width: 32,
    fields: {
      SIDSIZE: [5, 0],
      SSIDSIZE: [10, 6],
      PRIQS: [15, 11],
      EVENTQS: [20, 16],
      CMDQS: [25, 21],
      ATTR_PERMS_OVR: bit(26),
      ATTR_TYPES_OVR: bit(27),
      REL: bit(28),
      QUEUES_PRESET: bit(29),
      TABLES_PRESET: bit(30),
      ECMDQ: bit(31),
    },
  }, // §6.3.2
  IDR2: { offset: 0x8, width: 32, fields: { BA_VATOS: [9, 0] } }, // §6.3.3
  IDR3: {
    offset: 0xc,
    width: 32,
    fields: {
      HAD: bit(2),
      PBHA: bit(3),
      XNX: bit(4),
      PPS: bit(5),
      MPAM: bit(7),
      FWB: bit(8),
      STT: bit(9),
      RIL: bit(10),
      BBML: [12, 11],
      E0PD: bit(13),
      PTWNNC: bit(14),
      DPT: bit(15),
      PASIDTT: bit(16),
      EPAN: bit(17),
      S1PI: bit(18),
      S2PI: bit(19),
      S2PO: bit(20),
      THE: bit(21),
      MTEPERM: bit(22),
      AIE: bit(23),
    },
  }, // §6.3.4
  IDR4: { offset: 0x10, width: 32, fields: { IMPLEMENTATION_DEFINED: [31, 0] } }, // §6.3.5
  IDR5: {
    offset: 0x14,
    width: 32,
    fields: {
      OAS: [2, 0],
      GRAN4K: bit(4),
      GRAN16K: bit(5),
      GRAN64K: bit(6),
      DS: bit(7),
      D128: bit(8),
      VAX: [11, 10],
      STALL_MAX: [31, 16],
    },
  }, // §6.3.6
  IIDR: {
    offset: 0x18,
    width: 32,
    fields: { Implementer: [11, 0], Revision: [15, 12], Variant: [19, 16], ProductID: [31, 20] },
  }, // §6.3.7
  AIDR: { offset: 0x1c, width: 32, fields: { ArchMinorRev: [3, 0], ArchMajorRev: [7, 4] } }, // §6.3.8
  CR0: {
    offset: 0x20,
    width: 32,
    fields: {
      SMMUEN: bit(0),
      PRIQEN: bit(1),
      EVENTQEN: bit(2),
      CMDQEN: bit(3),
      ATSCHK: bit(4),
      VMW: [8, 6],
      DPT_WALK_EN: bit(10),
    },
  }, // §6.3.9
  CR0ACK: {
    offset: 0x24,
    width: 32,
    fields: {
      SMMUEN: bit(0),
      PRIQEN: bit(1),
      EVENTQEN: bit(2),
      CMDQEN: bit(3),
      ATSCHK: bit(4),
      VMW: [8, 6],
      DPT_WALK_EN: bit(10),
    },
  }, // §6.3.10
  CR1: {
    offset: 0x28,
    width: 32,
    fields: {
      QUEUE_IC: [1, 0],
      QUEUE_OC: [3, 2],
      QUEUE_SH: [5, 4],
      TABLE_IC: [7, 6],
      TABLE_OC: [9, 8],
      TABLE_SH: [11, 10],
    },
  }, // §6.3.11
  CR2: {
    offset: 0x2c,
    width: 32,
    fields: { E2H: bit(0), RECINVSID: bit(1), PTM: bit(2), REC_CFG_ATS: bit(3) },
  }, // §6.3.12
  STATUSR: { offset: 0x40, width: 32, fields: { DORMANT: bit(0) } }, // §6.3.13
  GBPA: {
    offset: 0x44,
    width: 32,
    fields: {
      MemAttr: [3, 0],
      MTCFG: bit(4),
      ALLOCCFG: [11, 8],
      SHCFG: [13, 12],
      PRIVCFG: [17, 16],
      INSTCFG: [19, 18],
      ABORT: bit(20),
      Update: bit(31),
    },
  }, // §6.3.14
  AGBPA: { offset: 0x48, width: 32, fields: { IMPLEMENTATION_DEFINED: [31, 0] } }, // §6.3.15
  IRQ_CTRL: {
    offset: 0x50,
    width: 32,
    fields: { GERROR_IRQEN: bit(0), PRIQ_IRQEN: bit(1), EVENTQ_IRQEN: bit(2) },
  }, // §6.3.16
  IRQ_CTRLACK: {
    offset: 0x54,
    width: 32,
    fields: { GERROR_IRQEN: bit(0), PRIQ_IRQEN: bit(1), EVENTQ_IRQEN: bit(2) },
  }, // §6.3.18
  GERROR: {
    offset: 0x60,
    width: 32,
    fields: {
      CMDQ_ERR: bit(0),
      EVENTQ_ABT_ERR: bit(2),
      PRIQ_ABT_ERR: bit(3),
      MSI_CMDQ_ABT_ERR: bit(4),
      MSI_EVENTQ_ABT_ERR: bit(5),
      MSI_PRIQ_ABT_ERR: bit(6),
      MSI_GERROR_ABT_ERR: bit(7),
      SFM_ERR: bit(8),
      CMDQP_ERR: bit(9),
      DPT_ERR: bit(10),
    },
  }, // §6.3.19
  GERRORN: {
    offset: 0x64,
    width: 32,
    fields: {
      CMDQ_ERR: bit(0),
      EVENTQ_ABT_ERR: bit(2),
      PRIQ_ABT_ERR: bit(3),
      MSI_CMDQ_ABT_ERR: bit(4),
      MSI_EVENTQ_ABT_ERR: bit(5),
      MSI_PRIQ_ABT_ERR: bit(6),
      MSI_GERROR_ABT_ERR: bit(7),
      SFM_ERR: bit(8),
      DPT_ERR: bit(10),
    },
  }, // §6.3.20
  GERROR_IRQ_CFG0: { offset: 0x68, width: 64, fields: { ADDR: [55, 2] } }, // §6.3.21
  GERROR_IRQ_CFG1: { offset: 0x70, width: 32, fields: { DATA: [31, 0] } }, // §6.3.22
  GERROR_IRQ_CFG2: { offset: 0x74, width: 32, fields: { MemAttr: [3, 0], SH: [5, 4] } }, // §6.3.23
  STRTAB_BASE: { offset: 0x80, width: 64, fields: { ADDR: [55, 6], RA: bit(62) } }, // §6.3.24
  STRTAB_BASE_CFG: { offset: 0x88, width: 32, fields: { LOG2SIZE: [5, 0], SPLIT: [10, 6], FMT: [17, 16] } }, // §6.3.25
  CMDQ_BASE: { offset: 0x90, width: 64, fields: { LOG2SIZE: [4, 0], ADDR: [55, 5], RA: bit(62) } }, // §6.3.26
  CMDQ_PROD: { offset: 0x98, width: 32, fields: { WR: [19, 0] } }, // §6.3.27
  CMDQ_CONS: { offset: 0x9c, width: 32, fields: { RD: [19, 0], ERR: [30, 24] } }, // §6.3.28
  EVENTQ_BASE: { offset: 0xa0, width: 64, fields: { LOG2SIZE: [4, 0], ADDR: [55, 5], WA: bit(62) } }, // §6.3.29
  EVENTQ_PROD: { offset: 0x100a8, width: 32, fields: { WR: [19, 0], OVFLG: bit(31) } }, // §6.3.95
  EVENTQ_CONS: { offset: 0x100ac, width: 32, fields: { RD: [19, 0], OVACKFLG: bit(31) } }, // §6.3.96
  EVENTQ_IRQ_CFG0: { offset: 0xb0, width: 64, fields: { ADDR: [55, 2] } }, // §6.3.30
  EVENTQ_IRQ_CFG1: { offset: 0xb8, width: 32, fields: { DATA: [31, 0] } }, // §6.3.31
  EVENTQ_IRQ_CFG2: { offset: 0xbc, width: 32, fields: { MemAttr: [3, 0], SH: [5, 4] } }, // §6.3.32
  PRIQ_BASE: { offset: 0xc0, width: 64, fields: { LOG2SIZE: [4, 0], ADDR: [55, 5], WA: bit(62) } }, // §6.3.33
  PRIQ_PROD: { offset: 0x100c8, width: 32, fields: { WR: [19, 0], OVFLG: bit(31) } }, // §6.3.97
  PRIQ_CONS: { offset: 0x100cc, width: 32, fields: { RD: [19, 0], OVACKFLG: bit(31) } }, // §6.3.98
  PRIQ_IRQ_CFG0: { offset: 0xd0, width: 64, fields: { ADDR: [55, 2] } }, // §6.3.34
  PRIQ_IRQ_CFG1: { offset: 0xd8, width: 32, fields: { DATA: [31, 0] } }, // §6.3.35
  PRIQ_IRQ_CFG2: { offset: 0xdc, width: 32, fields: { MemAttr: [3, 0], SH: [5, 4], LO: bit(31) } }, // §6.3.36
  GATOS_CTRL: { offset: 0x100, width: 32, fields: { RUN: bit(0) } }, // §6.3.37
  GATOS_SID: {
    offset: 0x108,
    width: 64,
    fields: { STREAMID: [31, 0], SUBSTREAMID: [51, 32], SSID_VALID: bit(52) },
  }, // §6.3.38
  GATOS_ADDR: {
    offset: 0x110,
    width: 64,
    fields: { HTTUI: bit(6), InD: bit(7), RnW: bit(8), PnU: bit(9), TYPE: [11, 10], ADDR: [63, 12] },
  }, // §6.3.39
  GATOS_PAR: {
    offset: 0x118,
    width: 64,
    fields: { FAULT: bit(0), REASON: [2, 1], ADDR: [55, 12], SH: [9, 8], Size: bit(11), ATTR: [63, 56] },
  }, // §6.3.40
  VATOS_SEL: { offset: 0x180, width: 32, fields: { VMID: [15, 0] } }, // §6.3.44
};

/** Virtual command registers, which are ours: the tables of docs/pv-pasid.md §1 to §3. */
export const VIRTUAL_COMMANDS: { readonly [name: string]: RegisterFacts } = {
  VCID0: { offset: 0xe00, width: 32, fields: { SIGNATURE: [31, 0] } },
  VCID1: { offset: 0xe04, width: 32, fields: { SIGNATURE: [31, 0] } },
  VCCAP: { offset: 0xe08, width: 32, fields: { VER: [7, 0], PAS: bit(8), SSIDSIZE: [20, 16] } },
  VCMD: { offset: 0xe10, width: 32, fields: { CMD: [7, 0], SubstreamID: [31, 12] } },
  VCRSP: { offset: 0xe14, width: 32, fields: { BUSY: bit(0), SC: [7, 1], SubstreamID: [31, 12] } },
};
