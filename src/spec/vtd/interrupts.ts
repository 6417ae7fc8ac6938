/**
 * Interrupt requests and the entries that remap them. VT-d Rev. 5.10, chapter 5 and §9.9.
 *
 * A message is laid out as its address in the first word and its data in the second.
 */
import { layout } from '../define.js';

/** Interrupt Remapping Table Entry for remapped interrupts. §9.9. Bits 11:8 are software's. */
export const IRTE = layout('IRTE', 16, {
  P: 0,
  FPD: 1,
  DM: 2,
  RH: 3,
  TM: 4,
  DLM: [7, 5],
  AVAIL: [11, 8],
  IM: 15,
  V: [23, 16],
  DST: [63, 32],
  SID: [79, 64],
  SQ: [81, 80],
  SVT: [83, 82],
});

/** IRTE.SVT: what is verified of a request's source-id. §9.9 */
export const SVT = { NONE: 0, SID: 1, BUS: 2, RESERVED: 3 } as const;

/** Bits of the source-id that IRTE.SQ leaves out with {@link SVT}.SID: none, 2, 2:1, 2:0. §9.9 */
export const SQ_IGNORES: readonly number[] = [0, 0b100, 0b110, 0b111];

/** IRTE.DLM. §9.9. 3 and 6 are reserved. */
export const DLM = { FIXED: 0, LOWEST_PRIORITY: 1, SMI: 2, NMI: 4, INIT: 5, EXT_INT: 7 } as const;

/** IRTE.DST with EIME clear: the APIC id stands in 15:8, the rest is reserved. §9.9 */
export const XAPIC_DESTINATION = { MASK: 0xff00, SHIFT: 8 } as const;

/**
 * A request in remappable format (Format is 1). §5.1.2.2. Address bits 1:0 are not looked at. With
 * SHV clear neither is the data; with SHV set its bits 31:16 are reserved.
 */
export const REMAPPABLE_REQUEST = layout('remappable format', 8, {
  IGN: [1, 0],
  HANDLE_HIGH: 2,
  SHV: 3,
  Format: 4,
  HANDLE_LOW: [19, 5],
  FEE: [31, 20],
  SUBHANDLE: [47, 32],
});

/**
 * A request in compatibility format (Format is 0, §5.1.2.1), which is how processors take messages
 * too: SDM vol. 3, "Message Signalled Interrupts".
 */
export const COMPATIBILITY_REQUEST = layout('compatibility format', 8, {
  DM: 2,
  RH: 3,
  Format: 4,
  DST: [19, 12],
  FEE: [31, 20],
  V: [39, 32],
  DLM: [42, 40],
  LEVEL: 46,
  TM: 47,
});

/** Bits 31:20 of the address of an interrupt request. §3.15 */
export const FEE = 0xfee;
