/**
 * Page tables of an SMMUv3: VMSAv8-64. Both stages, granules of 4, 16 and 64 KiB, blocks, and
 * concatenated root tables of a stage 2.
 */
import type { Rights, TableFormat } from './page-table.js';

/** Bits of descriptors, as DDI 0487 numbers them. */
export const ARM = {
  VALID: 1n << 0n,
  /** A table, or a page at the last level; clear: a block. */
  TYPE: 1n << 1n,
  /** Stage 1: AP[1], unprivileged accesses; AP[2], read-only. */
  AP_USER: 1n << 6n,
  AP_READ_ONLY: 1n << 7n,
  AF: 1n << 10n,
  NG: 1n << 11n,
  /** Stage 2: S2AP[0], read; S2AP[1], write; MemAttr of Normal memory. */
  S2_READ: 1n << 6n,
  S2_WRITE: 1n << 7n,
  S2_NORMAL: 0xfn << 2n,
} as const;

const ADDRESS = 0x0000_ffff_ffff_f000n;
/** A stage 2 may start with up to 16 concatenated tables. */
const MOST_CONCATENATED_LOG2 = 4;

interface ArmTableShape {
  readonly stage: 1 | 2;
  /** log2 of the granule: 12, 14 or 16. */
  readonly granule: number;
  /** 64 − TxSZ. Tables of TTB1 have addresses that are all ones above. */
  readonly inputBits: number;
  /** Leaves are for all ASIDs (nG clear). */
  readonly global?: boolean;
}

export function armTableFormat({ stage, granule, inputBits, global = false }: ArmTableShape): TableFormat {
  const common = (output: number, log2: number): bigint =>
    (BigInt(output) & ADDRESS) | ARM.VALID | ARM.AF | (log2 === granule ? ARM.TYPE : 0n);
  return {
    granule,
    inputBits,
    ...sizeOf(stage, granule, inputBits),
    table: ARM.VALID | ARM.TYPE,
    leaf: (output, rights, log2) =>
      common(output, log2) | (stage === 2 ? secondRights(rights) : firstRights(rights, global)),
  };
}

function secondRights({ read, write }: Rights): bigint {
  return ARM.S2_NORMAL | (read ? ARM.S2_READ : 0n) | (write ? ARM.S2_WRITE : 0n);
}

/** Stage 1 cannot say "write only". */
function firstRights({ write }: Rights, global: boolean): bigint {
  return ARM.AP_USER | (write ? 0n : ARM.AP_READ_ONLY) | (global ? 0n : ARM.NG);
}

/**
 * Levels, and bytes of the root. A stage 2 starts one level further down if 16 concatenated tables
 * suffice.
 */
function sizeOf(stage: 1 | 2, granule: number, inputBits: number): { levels: number; rootBytes: number } {
  const stride = granule - 3;
  const topBits = (levels: number): number => inputBits - granule - stride * (levels - 1);
  let levels = Math.ceil((inputBits - granule) / stride);
  if (stage === 2 && levels > 1 && topBits(levels) <= MOST_CONCATENATED_LOG2) levels--;
  return { levels, rootBytes: Math.max(64, 2 ** topBits(levels) * 8) };
}
