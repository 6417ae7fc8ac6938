/** SMMUv3 commands. IHI 0070, chapter 4. Every command has 128 bits. */
import { addr, type Layout, layout } from '../define.js';

/** Bytes of a command. */
export const COMMAND_BYTES = 16;

/** Command opcodes. §4.1.2 */
export const CMD = {
  PREFETCH_CONFIG: 0x01,
  PREFETCH_ADDR: 0x02,
  CFGI_STE: 0x03,
  CFGI_STE_RANGE: 0x04,
  CFGI_CD: 0x05,
  CFGI_CD_ALL: 0x06,
  CFGI_VMS_PIDM: 0x07,
  TLBI_NH_ALL: 0x10,
  TLBI_NH_ASID: 0x11,
  TLBI_NH_VA: 0x12,
  TLBI_NH_VAA: 0x13,
  TLBI_EL3_ALL: 0x18,
  TLBI_EL3_VA: 0x1a,
  TLBI_EL2_ALL: 0x20,
  TLBI_EL2_ASID: 0x21,
  TLBI_EL2_VA: 0x22,
  TLBI_EL2_VAA: 0x23,
  TLBI_S12_VMALL: 0x28,
  TLBI_S2_IPA: 0x2a,
  TLBI_NSNH_ALL: 0x30,
  ATC_INV: 0x40,
  PRI_RESP: 0x41,
  RESUME: 0x44,
  STALL_TERM: 0x45,
  SYNC: 0x46,
} as const;
export type CommandName = keyof typeof CMD;

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
 * TLB invalidations: which of VMID, ASID and Address take part depends on the opcode. NUM, SCALE, TTL and TG
 * exist with IDR3.RIL. §4.4
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

/** Layout of each command, by opcode. */
export const COMMAND_LAYOUT: { readonly [opcode: number]: Layout<string> | undefined } = {
  [CMD.PREFETCH_CONFIG]: CMD_PREFETCH_CONFIG,
  [CMD.PREFETCH_ADDR]: CMD_PREFETCH_ADDR,
  [CMD.CFGI_STE]: CMD_CFGI_STE,
  [CMD.CFGI_STE_RANGE]: CMD_CFGI_STE_RANGE,
  [CMD.CFGI_CD]: CMD_CFGI_CD,
  [CMD.CFGI_CD_ALL]: CMD_CFGI_CD_ALL,
  [CMD.TLBI_NH_ALL]: CMD_TLBI,
  [CMD.TLBI_NH_ASID]: CMD_TLBI,
  [CMD.TLBI_NH_VA]: CMD_TLBI,
  [CMD.TLBI_NH_VAA]: CMD_TLBI,
  [CMD.TLBI_EL2_ALL]: CMD_TLBI,
  [CMD.TLBI_EL2_ASID]: CMD_TLBI,
  [CMD.TLBI_EL2_VA]: CMD_TLBI,
  [CMD.TLBI_EL2_VAA]: CMD_TLBI,
  [CMD.TLBI_S12_VMALL]: CMD_TLBI,
  [CMD.TLBI_S2_IPA]: CMD_TLBI,
  [CMD.TLBI_NSNH_ALL]: CMD_TLBI,
  [CMD.ATC_INV]: CMD_ATC_INV,
  [CMD.PRI_RESP]: CMD_PRI_RESP,
  [CMD.RESUME]: CMD_RESUME,
  [CMD.STALL_TERM]: CMD_STALL_TERM,
  [CMD.SYNC]: CMD_SYNC,
};

const NAMES: readonly (string | undefined)[] = (() => {
  const names: string[] = [];
  for (const name of Object.keys(CMD) as CommandName[]) names[CMD[name]] = `CMD_${name}`;
  return names;
})();

/** Name of an opcode, for people. */
export function commandName(opcode: number): string {
  return NAMES[opcode] ?? `opcode 0x${opcode.toString(16)}`;
}
