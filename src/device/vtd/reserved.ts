/**
 * Reserved bits of the translation structures, as one unit has them: what no field covers,
 * addresses beyond the host address width, and fields whose capability the unit lacks ("treated as
 * Reserved(0)", VT-d chapter 9).
 */
import type { Field, Layout } from '../../spec/define.js';
import {
  CONTEXT_ENTRY,
  PASID_DIRECTORY_ENTRY,
  PASID_TABLE_ENTRY,
  ROOT_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../../spec/vtd/structures.js';
import type { VtdConfig } from './config.js';

export class ReservedBits {
  readonly root: Uint32Array;
  readonly context: Uint32Array;
  /**
   * The same without the address check: SSPTPTR is ignored in a pass-through context-entry (§9.3).
   */
  readonly contextPassThrough: Uint32Array;
  readonly scalableRoot: Uint32Array;
  readonly scalableContext: Uint32Array;
  readonly pasidDirectory: Uint32Array;
  readonly pasidTable: Uint32Array;

  constructor(config: VtdConfig) {
    const haw = config.hostAddressWidth;
    this.root = masks(ROOT_ENTRY, haw, ['CTP'], []);
    this.context = masks(CONTEXT_ENTRY, haw, ['SSPTPTR'], []);
    this.contextPassThrough = masks(CONTEXT_ENTRY, haw, [], []);
    this.scalableRoot = masks(SM_ROOT_ENTRY, haw, ['LCTP', 'UCTP'], []);
    // HPTS, PTRS and RPRIVS are clear (config.ts).
    const absent = ['HPTE', 'EPTR', 'RID_PRIV'];
    if (!config.deviceTlb) absent.push('DTE');
    if (!config.pageRequests) absent.push('PRE');
    if (config.pasidBits === 0) absent.push('PASIDE');
    this.scalableContext = masks(SM_CONTEXT_ENTRY, haw, ['PASIDDIRPTR'], absent);
    this.pasidDirectory = masks(PASID_DIRECTORY_ENTRY, haw, ['SMPTBLPTR'], []);
    // MTS, SRS and HPTS are clear.
    const without = ['CD', 'EMTE', 'PAT', 'SRE', 'HPTSZ', 'HPTPFD', 'HPTPTR', 'HPTDID'];
    if (!config.snoopControl) without.push('PGSNP');
    if (!config.firstStage) without.push('FSPM', 'WPE', 'EAFE', 'FSPTPTR');
    this.pasidTable = masks(PASID_TABLE_ENTRY, haw, ['SSPTPTR', 'FSPTPTR'], without);
  }
}

/**
 * True when a word of `words[base…]` has a bit of `mask`, for the words `from..to` of the
 * structure.
 */
export function violates(mask: Uint32Array, words: Uint32Array, from: number, to: number): boolean {
  let bits = 0;
  for (let index = from; index < to; index++) bits |= mask[index] & words[index];
  return bits !== 0;
}

/** Bits that must be 0: reserved, of absent fields, and of addresses above `haw`. */
export function masks(
  shape: Layout<string>,
  haw: number,
  addresses: readonly string[],
  absent: readonly string[],
): Uint32Array {
  const mask = Uint32Array.from(shape.reserved);
  for (const name of absent) cover(mask, shape.fields[name]);
  for (const name of addresses) {
    const field = shape.fields[name];
    const beyond = (field.lsb & ~63) + haw;
    for (let bit = beyond; bit <= field.msb; bit++) mask[bit >> 5] |= 1 << (bit & 31);
  }
  return mask;
}

function cover(mask: Uint32Array, field: Field): void {
  for (let bit = field.lsb; bit <= field.msb; bit++) mask[bit >> 5] |= 1 << (bit & 31);
}
