/** SMMUv3 event records and page requests. IHI 0070, §7.3 and §8.1. */
import { addr, layout, layoutsOf, numbersOf } from '../define.js';

/** Bytes of an event record. §7.3 */
export const EVENT_BYTES = 32;

/** CLASS of an event: what was being translated. §7.3.12 */
export const CLASS = { CD: 0, TT: 1, IN: 2 } as const;

/** What every record has in its first 64 bits, and what most of them have there beside it. */
const STREAM = { EventNumber: [7, 0], StreamID: [63, 32] } as const;
const HEAD = { ...STREAM, SSV: 11, SubstreamID: [31, 12] } as const;
/** The incoming transaction: privileged, instruction, read. */
const TRANSACTION = { PnU: 97, InD: 98, RnW: 99 } as const;
/** Where the SMMU stood, and what it looked for. */
const INPUT = { InputAddr: [191, 128] } as const;
const STALLING = { STAG: [79, 64], Stall: 95 } as const;

/** F_UUT. §7.3.2. Reason: IMPLEMENTATION DEFINED. */
export const F_UUT = layout('F_UUT', 32, { ...HEAD, Reason: [79, 64], ...TRANSACTION, ...INPUT });

/** C_BAD_STREAMID. §7.3.3 */
export const C_BAD_STREAMID = layout('C_BAD_STREAMID', 32, { ...HEAD });

/** F_STE_FETCH. §7.3.4 */
export const F_STE_FETCH = layout('F_STE_FETCH', 32, {
  ...HEAD,
  Reason: [79, 64],
  FetchAddr: addr(243, 195),
});

/** C_BAD_STE. §7.3.5 */
export const C_BAD_STE = layout('C_BAD_STE', 32, { ...HEAD });

/** F_BAD_ATS_TREQ. §7.3.6 */
export const F_BAD_ATS_TREQ = layout('F_BAD_ATS_TREQ', 32, {
  ...HEAD,
  Span: [67, 64],
  P: 92,
  X: 93,
  W: 94,
  R: 95,
  InputAddr: [191, 140],
});

/** F_STREAM_DISABLED. §7.3.7 */
export const F_STREAM_DISABLED = layout('F_STREAM_DISABLED', 32, { ...STREAM });

/** F_TRANSL_FORBIDDEN. §7.3.8 */
export const F_TRANSL_FORBIDDEN = layout('F_TRANSL_FORBIDDEN', 32, { ...STREAM, RnW: 99, ...INPUT });

/** C_BAD_SUBSTREAMID. §7.3.9 */
export const C_BAD_SUBSTREAMID = layout('C_BAD_SUBSTREAMID', 32, { ...STREAM, SubstreamID: [31, 12] });

/** F_CD_FETCH. §7.3.10 */
export const F_CD_FETCH = layout('F_CD_FETCH', 32, {
  ...HEAD,
  Reason: [79, 64],
  FetchAddr: addr(243, 195),
});

/** C_BAD_CD. §7.3.11 */
export const C_BAD_CD = layout('C_BAD_CD', 32, { ...HEAD });

/** F_WALK_EABT. §7.3.12 */
export const F_WALK_EABT = layout('F_WALK_EABT', 32, {
  ...HEAD,
  Reason: [79, 64],
  ...TRANSACTION,
  NSIPA: 102,
  S2: 103,
  CLASS: [105, 104],
  ...INPUT,
  FetchAddr: addr(243, 195),
});

const FAULT_FIELDS = {
  ...HEAD,
  ...STALLING,
  ...TRANSACTION,
  NSIPA: 102,
  S2: 103,
  CLASS: [105, 104],
  ...INPUT,
  IPA: addr(243, 204),
} as const;

/** F_TRANSLATION. §7.3.13 */
export const F_TRANSLATION = layout('F_TRANSLATION', 32, FAULT_FIELDS);
/** F_ADDR_SIZE. §7.3.14 */
export const F_ADDR_SIZE = layout('F_ADDR_SIZE', 32, FAULT_FIELDS);
/** F_ACCESS. §7.3.15 */
export const F_ACCESS = layout('F_ACCESS', 32, FAULT_FIELDS);
/** F_PERMISSION. §7.3.16. TTRnW: for CLASS TT, whether the table was to be read. */
export const F_PERMISSION = layout('F_PERMISSION', 32, { ...FAULT_FIELDS, TTRnW: 108 });

/** F_TLB_CONFLICT. §7.3.17 */
export const F_TLB_CONFLICT = layout('F_TLB_CONFLICT', 32, {
  ...HEAD,
  Reason: [95, 64],
  ...TRANSACTION,
  NSIPA: 102,
  S2: 103,
  ...INPUT,
  IPA: addr(243, 204),
});

/** F_CFG_CONFLICT. §7.3.18 */
export const F_CFG_CONFLICT = layout('F_CFG_CONFLICT', 32, { ...HEAD, Reason: [95, 64] });

/** E_PAGE_REQUEST. §7.3.19 */
export const E_PAGE_REQUEST = layout('E_PAGE_REQUEST', 32, {
  ...HEAD,
  uX: 97,
  uW: 98,
  uR: 99,
  pX: 101,
  pW: 102,
  pR: 103,
  Span: [115, 108],
  InputAddr: [191, 140],
});

/** Every event: its number and its layout. §7.3 */
const ROWS = {
  F_UUT: [0x01, F_UUT],
  C_BAD_STREAMID: [0x02, C_BAD_STREAMID],
  F_STE_FETCH: [0x03, F_STE_FETCH],
  C_BAD_STE: [0x04, C_BAD_STE],
  F_BAD_ATS_TREQ: [0x05, F_BAD_ATS_TREQ],
  F_STREAM_DISABLED: [0x06, F_STREAM_DISABLED],
  F_TRANSL_FORBIDDEN: [0x07, F_TRANSL_FORBIDDEN],
  C_BAD_SUBSTREAMID: [0x08, C_BAD_SUBSTREAMID],
  F_CD_FETCH: [0x09, F_CD_FETCH],
  C_BAD_CD: [0x0a, C_BAD_CD],
  F_WALK_EABT: [0x0b, F_WALK_EABT],
  F_TRANSLATION: [0x10, F_TRANSLATION],
  F_ADDR_SIZE: [0x11, F_ADDR_SIZE],
  F_ACCESS: [0x12, F_ACCESS],
  F_PERMISSION: [0x13, F_PERMISSION],
  F_TLB_CONFLICT: [0x20, F_TLB_CONFLICT],
  F_CFG_CONFLICT: [0x21, F_CFG_CONFLICT],
  E_PAGE_REQUEST: [0x24, E_PAGE_REQUEST],
} as const;

/** Event numbers. */
export const EVENT = numbersOf(ROWS);

/** Layout of each event, by its number. */
export const EVENT_LAYOUT = layoutsOf(ROWS);

/** Name of an event, for people. */
export function eventName(event: number): string {
  return EVENT_LAYOUT[event]?.name ?? `event 0x${event.toString(16)}`;
}

/** PRI queue entry. §8.1 */
export const PRI_ENTRY = layout('PRI entry', 16, {
  StreamID: [31, 0],
  SubstreamID: [51, 32],
  Exec: 59,
  Priv: 58,
  Read: 60,
  Write: 61,
  Last: 62,
  SSV: 63,
  PRGIndex: [72, 64],
  PageAddr: addr(127, 76),
});
