/** SMMUv3 commands. IHI 0070, chapter 4. Every command has 128 bits. */
import { addr, layout, layoutsOf, namesOf, numbersOf } from '../define.js';

/** Bytes of a command. */
export const COMMAND_BYTES = 16;

/** What all commands share. §4.1.1 */
export const ANY_COMMAND = layout('command', 16, { Opcode: [7, 0], SSec: 10 });

/** CMD_PREFETCH_CONFIG. §4.2.1 */
export const CMD_PREFETCH_CONFIG = layout('CMD_PREFETCH_CONFIG', 16, {
  Opcode: [7, 0],
  SSec: 10,
  SSV: 11,
  SubstreamID: [31, 12],
  StreamID: [63, 32],
});

/** CMD_PREFETCH_ADDR. §4.2.2 */
export const CMD_PREFETCH_ADDR = layout('CMD_PREFETCH_ADDR', 16, {
  Opcode: [7, 0],
  SSec: 10,
  SSV: 11,
  SubstreamID: [31, 12],
  StreamID: [63, 32],
  Size: [68, 64],
  Stride: [73, 69],
  Address: addr(127, 76),
});

/** CMD_CFGI_STE. §4.3.1 */
export const CMD_CFGI_STE = layout('CMD_CFGI_STE', 16, {
  Opcode: [7, 0],
  SSec: 10,
  StreamID: [63, 32],
  Leaf: 64,
});

/** CMD_CFGI_STE_RANGE; Range 31 is CMD_CFGI_ALL. §4.3.2, §4.3.6 */
export const CMD_CFGI_STE_RANGE = layout('CMD_CFGI_STE_RANGE', 16, {
  Opcode: [7, 0],
  SSec: 10,
  StreamID: [63, 32],
  Range: [68, 64],
});

/** CMD_CFGI_STE_RANGE.Range that means every StreamID. */
export const RANGE_ALL = 31;

/** CMD_CFGI_CD. §4.3.3 */
export const CMD_CFGI_CD = layout('CMD_CFGI_CD', 16, {
  Opcode: [7, 0],
  SSec: 10,
  SubstreamID: [31, 12],
  StreamID: [63, 32],
  Leaf: 64,
});

/** CMD_CFGI_CD_ALL. §4.3.4 */
export const CMD_CFGI_CD_ALL = layout('CMD_CFGI_CD_ALL', 16, {
  Opcode: [7, 0],
  SSec: 10,
  StreamID: [63, 32],
});

/**
 * TLB invalidations: which of VMID, ASID and Address take part depends on the opcode. NUM, SCALE,
 * TTL and TG exist with IDR3.RIL. §4.4
 */
export const CMD_TLBI = layout('CMD_TLBI', 16, {
  Opcode: [7, 0],
  SSec: 10,
  NUM: [16, 12],
  SCALE: [24, 20],
  VMID: [47, 32],
  ASID: [63, 48],
  Leaf: 64,
  TTL: [73, 72],
  TG: [75, 74],
  Address: addr(127, 76),
});

/** log2 of the granule by CMD_TLBI.TG; 0: no range, one address. §4.4.1 */
export const TLBI_TG_GRANULE = [0, 12, 14, 16] as const;

/** CMD_ATC_INV: 2^(12 + Size) bytes. §4.5.1 */
export const CMD_ATC_INV = layout('CMD_ATC_INV', 16, {
  Opcode: [7, 0],
  Global: 9,
  SSec: 10,
  SSV: 11,
  SubstreamID: [31, 12],
  StreamID: [63, 32],
  Size: [69, 64],
  Address: addr(127, 76),
});

/** CMD_ATC_INV.Size that means every address; greater ones have no meaning. §4.5.1 */
export const ATC_INV_ALL = 52;

/** CMD_PRI_RESP.Resp. §4.5.2 */
export const PRI_RESP = { RESPONSE_FAILURE: 0, INVALID_REQUEST: 1, SUCCESS: 2, RESERVED: 3 } as const;

/** CMD_PRI_RESP. §4.5.2 */
export const CMD_PRI_RESP = layout('CMD_PRI_RESP', 16, {
  Opcode: [7, 0],
  SSec: 10,
  SSV: 11,
  SubstreamID: [31, 12],
  StreamID: [63, 32],
  PRGIndex: [72, 64],
  Resp: [77, 76],
});

/** CMD_RESUME. §4.7.1 */
export const CMD_RESUME = layout('CMD_RESUME', 16, {
  Opcode: [7, 0],
  SSec: 10,
  Ac: 12,
  Ab: 13,
  StreamID: [63, 32],
  STAG: [79, 64],
});

/** CMD_STALL_TERM. §4.7.2 */
export const CMD_STALL_TERM = layout('CMD_STALL_TERM', 16, { Opcode: [7, 0], SSec: 10, StreamID: [63, 32] });

/** CMD_SYNC. §4.7.3 */
export const CMD_SYNC = layout('CMD_SYNC', 16, {
  Opcode: [7, 0],
  SSec: 10,
  CS: [13, 12],
  MSH: [23, 22],
  MSIAttr: [27, 24],
  MSIData: [63, 32],
  MSIAddress: addr(115, 66),
});

/** CMD_SYNC.CS: how completion is signalled. §4.7.3 */
export const CS = { SIG_NONE: 0, SIG_IRQ: 1, SIG_SEV: 2, RESERVED: 3 } as const;

/**
 * Every command: its opcode and its layout. Those without a layout no option of the models brings.
 * §4.1.2
 */
const ROWS = {
  PREFETCH_CONFIG: [0x01, CMD_PREFETCH_CONFIG],
  PREFETCH_ADDR: [0x02, CMD_PREFETCH_ADDR],
  CFGI_STE: [0x03, CMD_CFGI_STE],
  CFGI_STE_RANGE: [0x04, CMD_CFGI_STE_RANGE],
  CFGI_CD: [0x05, CMD_CFGI_CD],
  CFGI_CD_ALL: [0x06, CMD_CFGI_CD_ALL],
  CFGI_VMS_PIDM: [0x07],
  TLBI_NH_ALL: [0x10, CMD_TLBI],
  TLBI_NH_ASID: [0x11, CMD_TLBI],
  TLBI_NH_VA: [0x12, CMD_TLBI],
  TLBI_NH_VAA: [0x13, CMD_TLBI],
  TLBI_EL3_ALL: [0x18],
  TLBI_EL3_VA: [0x1a],
  TLBI_EL2_ALL: [0x20, CMD_TLBI],
  TLBI_EL2_ASID: [0x21, CMD_TLBI],
  TLBI_EL2_VA: [0x22, CMD_TLBI],
  TLBI_EL2_VAA: [0x23, CMD_TLBI],
  TLBI_S12_VMALL: [0x28, CMD_TLBI],
  TLBI_S2_IPA: [0x2a, CMD_TLBI],
  TLBI_NSNH_ALL: [0x30, CMD_TLBI],
  ATC_INV: [0x40, CMD_ATC_INV],
  PRI_RESP: [0x41, CMD_PRI_RESP],
  RESUME: [0x44, CMD_RESUME],
  STALL_TERM: [0x45, CMD_STALL_TERM],
  SYNC: [0x46, CMD_SYNC],
} as const;

/** Command opcodes. */
export const CMD = numbersOf(ROWS);

/** Layout of each command, by opcode. */
export const COMMAND_LAYOUT = layoutsOf(ROWS);

const NAMES = namesOf(ROWS);

/** Name of an opcode, for people. */
export function commandName(opcode: number): string {
  const name = NAMES[opcode];
  return name === undefined ? `opcode 0x${opcode.toString(16)}` : `CMD_${name}`;
}
