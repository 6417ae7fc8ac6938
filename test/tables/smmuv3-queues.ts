/**
 * Commands, event records and PRI queue entries; sources and their letters: see
 * `smmuv3-registers.ts`. Positions of commands: L and M, which agree wherever both name a field (Q
 * and F too); opcodes: S. Of PREFETCH_ADDR no other source has NS and Stride, of CMD_PRI_RESP only
 * L anything, of CMD_STALL_TERM only S the parameters.
 */

import { bit, type Ranges } from './facts.js';

interface QueueFacts {
  /** Opcode or event number. */
  readonly number: number;
  readonly fields: Ranges;
}

const STREAM = { Opcode: [7, 0], SSec: bit(10), StreamID: [63, 32] } as const;
const SUBSTREAM = { SubstreamID: [31, 12] } as const;
const OPCODE = { Opcode: [7, 0] } as const;
const VMID = { VMID: [47, 32] } as const;
const ASID = { ASID: [63, 48] } as const;
/** Range fields. SCALE is [25:20] in S, for 128-bit tables, and [24:20] everywhere else. */
const RANGE = { NUM: [16, 12], SCALE: [24, 20], Leaf: bit(64), TTL: [73, 72], TG: [75, 74] } as const;
const ADDRESS = { Address: [127, 76] } as const;

export const COMMANDS: { readonly [name: string]: QueueFacts } = {
  CMD_PREFETCH_CONFIG: { number: 0x01, fields: { ...STREAM, ...SUBSTREAM, SSV: bit(11) } },
  CMD_PREFETCH_ADDR: {
    number: 0x02,
    fields: { ...STREAM, ...SUBSTREAM, ...ADDRESS, SSV: bit(11), Size: [68, 64] },
  },
  CMD_CFGI_STE: { number: 0x03, fields: { ...STREAM, Leaf: bit(64) } },
  CMD_CFGI_STE_RANGE: { number: 0x04, fields: { ...STREAM, Range: [68, 64] } },
  CMD_CFGI_CD: { number: 0x05, fields: { ...STREAM, ...SUBSTREAM, Leaf: bit(64) } },
  CMD_CFGI_CD_ALL: { number: 0x06, fields: { ...STREAM } },
  CMD_CFGI_VMS_PIDM: { number: 0x07, fields: { ...OPCODE, ...VMID, SSec: bit(10) } },
  CMD_TLBI_NH_ALL: { number: 0x10, fields: { ...OPCODE, ...VMID } },
  CMD_TLBI_NH_ASID: { number: 0x11, fields: { ...OPCODE, ...VMID, ...ASID } },
  CMD_TLBI_NH_VA: { number: 0x12, fields: { ...OPCODE, ...VMID, ...ASID, ...RANGE, ...ADDRESS } },
  CMD_TLBI_NH_VAA: { number: 0x13, fields: { ...OPCODE, ...VMID, ...RANGE, ...ADDRESS } },
  CMD_TLBI_EL3_ALL: { number: 0x18, fields: { ...OPCODE } },
  CMD_TLBI_EL3_VA: { number: 0x1a, fields: { ...OPCODE, ...RANGE, ...ADDRESS } },
  CMD_TLBI_EL2_ALL: { number: 0x20, fields: { ...OPCODE } },
  CMD_TLBI_EL2_ASID: { number: 0x21, fields: { ...OPCODE, ...ASID } },
  CMD_TLBI_EL2_VA: { number: 0x22, fields: { ...OPCODE, ...ASID, ...RANGE, ...ADDRESS } },
  CMD_TLBI_EL2_VAA: { number: 0x23, fields: { ...OPCODE, ...RANGE, ...ADDRESS } },
  CMD_TLBI_S12_VMALL: { number: 0x28, fields: { ...OPCODE, ...VMID } },
  /** The address is an IPA: [115:76] in L and M, the rest being RES0 up to bit 51 of an address. */
  CMD_TLBI_S2_IPA: { number: 0x2a, fields: { ...OPCODE, ...VMID, ...RANGE, Address: [115, 76] } },
  CMD_TLBI_NSNH_ALL: { number: 0x30, fields: { ...OPCODE } },
  CMD_ATC_INV: {
    number: 0x40,
    fields: {
      ...OPCODE,
      ...SUBSTREAM,
      ...ADDRESS,
      StreamID: [63, 32],
      Global: bit(9),
      SSV: bit(11),
      Size: [69, 64],
    },
  },
  CMD_PRI_RESP: {
    number: 0x41,
    fields: {
      ...OPCODE,
      ...SUBSTREAM,
      StreamID: [63, 32],
      SSV: bit(11),
      PRGIndex: [72, 64],
      Resp: [77, 76],
    },
  },
  CMD_RESUME: { number: 0x44, fields: { ...STREAM, Ac: bit(12), Ab: bit(13), STAG: [79, 64] } },
  CMD_STALL_TERM: { number: 0x45, fields: { ...STREAM } },
  CMD_SYNC: {
    number: 0x46,
    fields: {
      ...OPCODE,
      CS: [13, 12],
      MSH: [23, 22],
      MSIAttr: [27, 24],
      MSIData: [63, 32],
      MSIAddress: [115, 66],
    },
  },
};

const TYPE = { Type: [7, 0], StreamID: [63, 32] } as const;
const HEAD = { ...TYPE, SSV: bit(11), SubstreamID: [31, 12] } as const;
const INPUT = { InputAddr: [191, 128] } as const;
const ATTRIBUTES = { PnU: bit(97), InD: bit(98), RnW: bit(99) } as const;
const STAGE = { NSIPA: bit(102), S2: bit(103) } as const;
const REASON = { Reason: [79, 64] } as const;
const FETCH = { FetchAddr: [243, 195] } as const;
const IPA = { IPA: [243, 204] } as const;
const FAULT = {
  ...HEAD,
  ...ATTRIBUTES,
  ...STAGE,
  ...INPUT,
  ...IPA,
  STAG: [79, 64],
  Stall: bit(95),
  Class: [105, 104],
} as const;

/**
 * Positions: M, every field; L and Q agree on those of translation faults. GPCF (80): S. Numbers:
 * S.
 */
export const EVENTS: { readonly [name: string]: QueueFacts } = {
  F_UUT: { number: 0x01, fields: { ...HEAD, ...REASON, ...ATTRIBUTES, ...INPUT } },
  C_BAD_STREAMID: { number: 0x02, fields: { ...HEAD } },
  F_STE_FETCH: { number: 0x03, fields: { ...HEAD, ...REASON, ...FETCH, GPCF: bit(80) } },
  C_BAD_STE: { number: 0x04, fields: { ...HEAD } },
  F_BAD_ATS_TREQ: {
    number: 0x05,
    fields: {
      ...HEAD,
      Span: [67, 64],
      P: bit(92),
      X: bit(93),
      W: bit(94),
      R: bit(95),
      InputAddr: [191, 140],
    },
  },
  F_STREAM_DISABLED: { number: 0x06, fields: { ...TYPE } },
  F_TRANSL_FORBIDDEN: { number: 0x07, fields: { ...TYPE, ...INPUT, RnW: bit(99) } },
  C_BAD_SUBSTREAMID: { number: 0x08, fields: { ...TYPE, SubstreamID: [31, 12] } },
  F_CD_FETCH: { number: 0x09, fields: { ...HEAD, ...REASON, ...FETCH, GPCF: bit(80) } },
  C_BAD_CD: { number: 0x0a, fields: { ...HEAD } },
  F_WALK_EABT: {
    number: 0x0b,
    fields: {
      ...HEAD,
      ...REASON,
      ...ATTRIBUTES,
      ...STAGE,
      ...INPUT,
      ...FETCH,
      Class: [105, 104],
      GPCF: bit(80),
    },
  },
  F_TRANSLATION: { number: 0x10, fields: FAULT },
  F_ADDR_SIZE: { number: 0x11, fields: FAULT },
  F_ACCESS: { number: 0x12, fields: FAULT },
  /** TTRnW: L. */
  F_PERMISSION: { number: 0x13, fields: { ...FAULT, TTRnW: bit(108) } },
  F_TLB_CONFLICT: {
    number: 0x20,
    fields: { ...HEAD, ...ATTRIBUTES, ...STAGE, ...INPUT, ...IPA, Reason: [95, 64] },
  },
  F_CFG_CONFLICT: { number: 0x21, fields: { ...HEAD, Reason: [95, 64] } },
  E_PAGE_REQUEST: {
    number: 0x24,
    fields: {
      ...HEAD,
      uX: bit(97),
      uW: bit(98),
      uR: bit(99),
      pX: bit(101),
      pW: bit(102),
      pR: bit(103),
      Span: [115, 108],
      InputAddr: [191, 140],
    },
  },
  F_VMS_FETCH: { number: 0x25, fields: { ...HEAD, ...REASON, ...FETCH, GPCF: bit(80) } },
};

/** An entry of the PRI queue: L; names of S (§8). */
export const PRI_FIELDS: Ranges = {
  StreamID: [31, 0],
  SubstreamID: [51, 32],
  Priv: bit(58),
  X: bit(59),
  R: bit(60),
  W: bit(61),
  Last: bit(62),
  SSV: bit(63),
  PRGIndex: [72, 64],
  PageAddress: [127, 76],
};
