/**
 * Page tables of a VT-d: second stage (§9.8) and first stage (§9.7), three to five levels, pages of
 * 4 KiB, 2 MiB and 1 GiB.
 */
import { PAGE_BYTES } from '../base/page.js';
import type { Rights, TableFormat } from './page-table.js';

/** Bits of entries, as the specification numbers them. */
export const SECOND_STAGE = { R: 1n << 0n, W: 1n << 1n, PS: 1n << 7n, A: 1n << 8n, D: 1n << 9n } as const;
export const FIRST_STAGE = {
  P: 1n << 0n,
  RW: 1n << 1n,
  US: 1n << 2n,
  A: 1n << 5n,
  D: 1n << 6n,
  PS: 1n << 7n,
} as const;

const ADDRESS = 0x000f_ffff_ffff_f000n;
const GRANULE = 12;

function secondLeaf(output: number, { read, write }: Rights, log2: number): bigint {
  let value = BigInt(output) & ADDRESS;
  if (read) value |= SECOND_STAGE.R;
  if (write) value |= SECOND_STAGE.W;
  if (log2 > GRANULE) value |= SECOND_STAGE.PS;
  return value;
}

/** A first stage cannot say "write only". */
function firstLeaf(output: number, { write }: Rights, log2: number): bigint {
  let value = (BigInt(output) & ADDRESS) | FIRST_STAGE.P | FIRST_STAGE.US;
  if (write) value |= FIRST_STAGE.RW;
  if (log2 > GRANULE) value |= FIRST_STAGE.PS;
  return value;
}

/** `levels`: 3, 4 or 5 (first stage: 4 or 5). */
export function vtdTableFormat(stage: 'first' | 'second', levels: number): TableFormat {
  const shape = { granule: GRANULE, levels, inputBits: GRANULE + 9 * levels, rootBytes: PAGE_BYTES };
  if (stage === 'second') return { ...shape, table: SECOND_STAGE.R | SECOND_STAGE.W, leaf: secondLeaf };
  return { ...shape, table: FIRST_STAGE.P | FIRST_STAGE.RW | FIRST_STAGE.US, leaf: firstLeaf };
}
