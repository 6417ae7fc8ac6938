/**
 * Fault reasons. VT-d Rev. 5.10: DMA remapping §7.1.3 (Table 30), interrupt remapping §5.1.4.1
 * (Table 15).
 *
 * Names are the specification's condition codes with the dot as an underscore; interrupt-remapping
 * reasons have no condition code there, so they are called IR_ and their number.
 */
export const FAULT = {
  // Legacy mode.
  LRT_1: 0x08,
  LRT_2: 0x01,
  LRT_3: 0x0a,
  LCT_1: 0x09,
  LCT_2: 0x02,
  LCT_3: 0x0b,
  LCT_4: 0x03,
  LCT_5: 0x0d,
  LSS_1: 0x07,
  LSS_2: 0x0c,
  LGN_1: 0x04,
  LGN_2: 0x05,
  LGN_3: 0x06,
  LGN_4: 0x0e,
  // Interrupt remapping.
  IR_20: 0x20,
  IR_21: 0x21,
  IR_22: 0x22,
  IR_23: 0x23,
  IR_24: 0x24,
  IR_25: 0x25,
  IR_26: 0x26,
  IR_27: 0x27,
  IR_28: 0x28,
  IR_29: 0x29,
  IR_2A: 0x2a,
  IR_2B: 0x2b,
  // Root-table address register.
  RTA_1: 0x30,
  RTA_2: 0x31,
  RTA_3: 0x32,
  RTA_4: 0x33,
  RTA_5: 0x34,
  // Scalable mode: root table, context table.
  SRT_1: 0x38,
  SRT_2: 0x39,
  SRT_3: 0x3a,
  SCT_1: 0x40,
  SCT_2: 0x41,
  SCT_3: 0x42,
  SCT_4: 0x43,
  SCT_5: 0x44,
  SCT_6: 0x45,
  SCT_7: 0x46,
  SCT_8: 0x47,
  SCT_9: 0x48,
  SCT_10: 0x49,
  // Scalable mode: PASID directory, PASID table.
  SPD_1: 0x50,
  SPD_2: 0x51,
  SPD_3: 0x52,
  SPT_1: 0x58,
  SPT_2: 0x59,
  SPT_3: 0x5a,
  SPT_4: 0x5b,
  SPT_5: 0x5c,
  SPT_6: 0x5d,
  SPT_9: 0x60,
  // Scalable mode: first stage.
  SFS_1: 0x70,
  SFS_2: 0x71,
  SFS_3: 0x72,
  SFS_4: 0x73,
  SFS_5: 0x74,
  SFS_6: 0x75,
  SFS_7: 0x76,
  SFS_8: 0x77,
  SFS_9: 0x90,
  SFS_10: 0x91,
  // Scalable mode: second stage.
  SSS_1: 0x78,
  SSS_2: 0x79,
  SSS_3: 0x7a,
  SSS_4: 0x7b,
  SSS_5: 0x7c,
  SSS_6: 0x7d,
  // Scalable mode: general.
  SGN_1: 0x80,
  SGN_2: 0x81,
  SGN_4: 0x83,
  SGN_5: 0x84,
  SGN_6: 0x85,
  SGN_7: 0x86,
  SGN_8: 0x87,
  SGN_10: 0x89,
  // Host permission tables.
  HPT_1: 0xa0,
  HPT_2: 0xa1,
  HPT_3: 0xa2,
  HPT_4: 0xa3,
  HPT_5: 0xa4,
  HPT_6: 0xa5,
} as const;

export type FaultName = keyof typeof FAULT;

/** Conditions that are reported whatever FPD says ("Qualified: No" in Tables 15 and 30). */
const NOT_QUALIFIED: readonly FaultName[] = [
  'LRT_1',
  'LRT_2',
  'LRT_3',
  'LCT_1',
  'RTA_1',
  'RTA_2',
  'RTA_3',
  'RTA_4',
  'RTA_5',
  'SRT_1',
  'SRT_2',
  'SRT_3',
  'SCT_1',
  'SPD_1',
  'SPT_1',
  'IR_20',
  'IR_21',
  'IR_23',
  'IR_25',
  'IR_29',
  'IR_2A',
  'IR_2B',
];

/** What each condition is, in a few words, for logs and traces. */
const TEXT: { readonly [P in FaultName]: string } = {
  LRT_1: 'root-entry could not be read',
  LRT_2: 'root-entry not present',
  LRT_3: 'reserved bits in root-entry',
  LCT_1: 'context-entry could not be read',
  LCT_2: 'context-entry not present',
  LCT_3: 'reserved bits in context-entry',
  LCT_4: 'context-entry programmed with an unsupported value',
  LCT_5: 'TT blocks translation and translated requests',
  LSS_1: 'second-stage entry could not be read',
  LSS_2: 'reserved bits in second-stage entry',
  LGN_1: 'input address above the address width',
  LGN_2: 'no write permission',
  LGN_3: 'no read permission',
  LGN_4: 'output address in the interrupt range',
  IR_20: 'reserved bits in remappable interrupt request',
  IR_21: 'interrupt index beyond the table',
  IR_22: 'IRTE not present',
  IR_23: 'IRTE could not be read',
  IR_24: 'reserved bits in IRTE',
  IR_25: 'compatibility format interrupt blocked',
  IR_26: 'source-id verification failed',
  IR_27: 'posted interrupt descriptor could not be accessed',
  IR_28: 'reserved bits in posted interrupt descriptor',
  IR_29: 'request to the interrupt range is not an interrupt',
  IR_2A: 'extended interrupt mode is required',
  IR_2B: 'interrupt remapping is required',
  RTA_1: 'TTM programmed with an unsupported value',
  RTA_2: 'request-with-PASID in legacy mode',
  RTA_3: 'page request in legacy mode',
  RTA_4: 'abort-dma mode',
  RTA_5: 'execute requested',
  SRT_1: 'scalable-mode root-entry could not be read',
  SRT_2: 'scalable-mode root-entry not present',
  SRT_3: 'reserved bits in scalable-mode root-entry',
  SCT_1: 'scalable-mode context-entry could not be read',
  SCT_2: 'scalable-mode context-entry not present',
  SCT_3: 'reserved bits in scalable-mode context-entry',
  SCT_4: 'scalable-mode context-entry programmed with an invalid value',
  SCT_5: 'DTE is clear',
  SCT_6: 'PASIDE is clear',
  SCT_7: 'PASID beyond PDTS',
  SCT_8: 'PRE is clear',
  SCT_9: 'PASID equals RID_PASID',
  SCT_10: 'EPTR is clear',
  SPD_1: 'PASID-directory entry could not be read',
  SPD_2: 'PASID-directory entry not present',
  SPD_3: 'reserved bits in PASID-directory entry',
  SPT_1: 'PASID-table entry could not be read',
  SPT_2: 'PASID-table entry not present',
  SPT_3: 'reserved bits in PASID-table entry',
  SPT_4: 'PASID-table entry programmed with an invalid value',
  SPT_5: 'execute requests are not supported',
  SPT_6: 'SRE is clear',
  SPT_9: 'address beyond the HPT',
  SFS_1: 'first-stage entry could not be read',
  SFS_2: 'first-stage entry not present',
  SFS_3: 'reserved bits in first-stage entry',
  SFS_4: 'first-stage root table could not be read',
  SFS_5: 'address in first-stage entry above the guest address width',
  SFS_6: 'second stage does not let the first-stage root table be read',
  SFS_7: 'second stage does not let a first-stage entry be read',
  SFS_8: 'second stage does not let a first-stage entry be updated',
  SFS_9: 'first-stage A/D update without page-walk snooping',
  SFS_10: 'first-stage A/D update failed',
  SSS_1: 'second-stage entry could not be read',
  SSS_2: 'second-stage entry not present',
  SSS_3: 'reserved bits in second-stage entry',
  SSS_4: 'second-stage root table could not be read',
  SSS_5: 'second-stage A/D update without page-walk snooping',
  SSS_6: 'second-stage A/D update failed',
  SGN_1: 'input address not canonical',
  SGN_2: 'user request to a supervisor page',
  SGN_4: 'address above the host address width',
  SGN_5: 'input address above the address width',
  SGN_6: 'no write permission',
  SGN_7: 'no read permission',
  SGN_8: 'output address in the interrupt range',
  SGN_10: 'PASID beyond PSS',
  HPT_1: 'HPT entry could not be read',
  HPT_2: 'reserved bits in HPT entry',
  HPT_3: 'HPT root could not be read',
  HPT_4: 'no HPT permission for zero-length read',
  HPT_5: 'no write permission in the HPT',
  HPT_6: 'no read permission in the HPT',
};

/** How a translation request ends that meets a condition. Table 30, columns "Translation Req". */
export const COMPLETION = {
  /**
   * Unsupported Request: the device is to use no translations. What is not listed below ends so.
   */
  UNSUPPORTED: 0,
  /** Completer Abort: something is wrong with the tables. */
  ABORT: 1,
  /**
   * Success with R = W = 0: nothing to report, the device finds out that it has no permission.
   * §7.1.2
   */
  NOTHING: 2,
  /** The same, and reported all the same. */
  NOTHING_REPORTED: 3,
} as const;

const ENDS_IN_ABORT: readonly FaultName[] = [
  'LRT_1',
  'LRT_3',
  'LCT_1',
  'LCT_3',
  'LCT_4',
  'LSS_1',
  'LSS_2',
  'LGN_4',
  'RTA_1',
  'SRT_1',
  'SRT_3',
  'SCT_1',
  'SCT_3',
  'SCT_4',
  'SPD_1',
  'SPD_3',
  'SPT_1',
  'SPT_3',
  'SPT_4',
  'SSS_1',
  'SSS_3',
  'SSS_4',
  'SSS_5',
  'SSS_6',
  'SGN_8',
];

/**
 * Lack of one right only (LGN.2, LGN.3, SGN.6, SGN.7) is "effective permission": that right is not
 * given.
 */
const ENDS_IN_NOTHING: readonly FaultName[] = [
  'LGN_1',
  'LGN_2',
  'LGN_3',
  'SPD_2',
  'SPT_2',
  'SPT_5',
  'SPT_6',
  'SFS_1',
  'SFS_2',
  'SFS_3',
  'SFS_4',
  'SFS_5',
  'SFS_6',
  'SFS_7',
  'SFS_8',
  'SFS_9',
  'SSS_2',
  'SGN_1',
  'SGN_2',
  'SGN_4',
  'SGN_5',
  'SGN_6',
  'SGN_7',
];

const completionByReason = new Uint8Array(256);
for (const name of ENDS_IN_ABORT) completionByReason[FAULT[name]] = COMPLETION.ABORT;
for (const name of ENDS_IN_NOTHING) completionByReason[FAULT[name]] = COMPLETION.NOTHING;
completionByReason[FAULT.SFS_10] = COMPLETION.NOTHING_REPORTED;

const qualifiedByReason = new Uint8Array(256).fill(1);
for (const name of NOT_QUALIFIED) qualifiedByReason[FAULT[name]] = 0;

const nameByReason: (FaultName | undefined)[] = new Array(256);
for (const name of Object.keys(FAULT) as FaultName[]) nameByReason[FAULT[name]] = name;

/** True when FPD in one of the structures on the way suppresses reporting. §7.1.1 */
export function isQualified(reason: number): boolean {
  return qualifiedByReason[reason] === 1;
}

/** {@link COMPLETION} of a translation request that meets the condition of this reason. */
export function completionOf(reason: number): number {
  return completionByReason[reason];
}

/**
 * The specification's condition code and what it means, e.g. `LCT.2: context-entry not present`.
 */
export function faultName(reason: number): string {
  const name = nameByReason[reason];
  return name === undefined ? `reason 0x${reason.toString(16)}` : `${name.replace('_', '.')}: ${TEXT[name]}`;
}
