/** STEs and CD tables as the host's SMMUv3 driver writes them. IHI 0070 §5. */
import { type Layout, pack, type Words } from '../../spec/define.js';
import {
  CD,
  CD_SPLIT,
  L1CD,
  S1DSS,
  S1FMT,
  STE,
  STE_CONFIG,
  STE_CONFIG_BIT,
} from '../../spec/smmuv3/structures.js';
import { HostError } from '../host-errors.js';
import type { PagingDomain } from './host-domain.js';
import type { HostMemory } from './memory.js';

/** 48 bits of input, as S2T0SZ, T0SZ and in S2PS, IPS. */
const TSZ_48 = 16;
const SIZE_48 = 5;
/** S2SL0 of a 4-level table of 4 KiB granules. */
const START_LEVEL_0 = 2;
const WRITE_BACK = 1;
const INNER_SHAREABLE = 3;

/** Fields of an STE that a guest decides about; everything else of it is the host's. */
const GUEST_FIELDS = [
  'V',
  'Config',
  'S1Fmt',
  'S1ContextPtr',
  'S1CDMax',
  'S1DSS',
  'S1CIR',
  'S1COR',
  'S1CSH',
  'S1STALLD',
  'EATS',
] as const;
const GUEST_WORDS = 4;
const GUEST_MASK = maskOf(STE, GUEST_FIELDS);

function stage2Fields(domain: PagingDomain): Readonly<Record<string, number>> {
  return {
    S2VMID: domain.tag,
    S2T0SZ: TSZ_48,
    S2SL0: START_LEVEL_0,
    S2PS: SIZE_48,
    S2IR0: WRITE_BACK,
    S2OR0: WRITE_BACK,
    S2SH0: INNER_SHAREABLE,
    S2AA64: 1,
    S2R: 1,
    S2TTB: domain.table.root,
  };
}

/** Stage 2 alone. */
export function secondSte(domain: PagingDomain): Words {
  return pack(STE, { V: 1, Config: STE_CONFIG.S2_TRANSLATE, ...stage2Fields(domain) });
}

/**
 * Stage 1 by the host's own CD table. `own`: requests without SubstreamID use CD 0; otherwise they
 * are refused.
 */
export function stage1Ste(cds: CdTable, own: boolean): Words {
  return pack(STE, {
    V: 1,
    Config: STE_CONFIG.S1_TRANSLATE,
    S1Fmt: S1FMT.TWO_LEVEL_4K,
    S1ContextPtr: cds.base,
    S1CDMax: cds.bits,
    S1DSS: own ? S1DSS.SSID0 : S1DSS.TERMINATE,
    S1CIR: WRITE_BACK,
    S1COR: WRITE_BACK,
    S1CSH: INNER_SHAREABLE,
  });
}

/** What a guest's STE comes to on top of a host stage 2. Throws {@link HostError} BAD_TABLE. */
export function nestedSte(guest: Uint32Array, parent: PagingDomain, ssidBits: number): Words {
  for (let index = 0; index < GUEST_WORDS; index++) {
    if (((guest[index] as number) & ~(GUEST_MASK[index] as number)) !== 0) {
      throw new HostError('BAD_TABLE', `STE word ${index} has bits that are not the guest's`);
    }
  }
  const config = STE.get.Config(guest);
  if (STE.get.V(guest) === 0 || (config & STE_CONFIG_BIT.PASS) === 0) {
    return pack(STE, { V: 1, Config: STE_CONFIG.ABORT });
  }
  if ((config & STE_CONFIG_BIT.S2) !== 0) throw new HostError('BAD_TABLE', 'STE.Config: stage 2 is the host');
  if (STE.get.S1CDMax(guest) > ssidBits) throw new HostError('BAD_TABLE', 'STE.S1CDMax');
  if (STE.get.EATS(guest) !== 0) throw new HostError('BAD_TABLE', 'STE.EATS');
  const words = pack(STE, stage2Fields(parent));
  // A guest that bypasses has guest-physical addresses.
  if (config === STE_CONFIG.BYPASS) return pack(STE, { V: 1, Config: STE_CONFIG.S2_TRANSLATE }, words);
  for (let index = 0; index < GUEST_WORDS; index++)
    words[index] = (words[index] as number) | (guest[index] as number);
  return pack(STE, { Config: STE_CONFIG.NESTED }, words);
}

function maskOf(shape: Layout<string>, names: readonly string[]): Uint32Array {
  const mask = new Uint32Array(shape.wordCount);
  for (const name of names) {
    const field = shape.fields[name];
    if (field === undefined) throw new Error(`no field ${name}`);
    for (let bit = field.lsb; bit <= field.msb; bit++) {
      mask[bit >> 5] = ((mask[bit >> 5] as number) | (1 << (bit & 31))) >>> 0;
    }
  }
  return mask;
}

/** log2 of the descriptors in one page of a second-level table. */
const LEAF_LOG2 = CD_SPLIT.FOUR_KIB;

/** A two-level CD table in host memory. */
export class CdTable {
  readonly #memory: HostMemory;
  readonly base: number;
  readonly #order: number;
  /** Second-level tables by index, and how many of their CDs are in use. */
  readonly #leaves = new Map<number, { readonly table: number; users: number }>();

  /** `bits`: SubstreamIDs of so many bits. */
  constructor(
    memory: HostMemory,
    readonly bits: number,
  ) {
    this.#memory = memory;
    this.#order = Math.max(0, bits - LEAF_LOG2 + 3 - 12);
    this.base = memory.pool.take('tables', this.#order);
  }

  /** Writes the CD of a SubstreamID: host tables of stage 1. */
  set(ssid: number, domain: PagingDomain): void {
    const index = ssid >>> LEAF_LOG2;
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      leaf = { table: this.#memory.pool.take('tables'), users: 0 };
      this.#leaves.set(index, leaf);
      this.#memory.storeWords(this.base + index * L1CD.bytes, pack(L1CD, { V: 1, L2Ptr: leaf.table }));
    }
    const address = leaf.table + (ssid % 2 ** LEAF_LOG2) * CD.bytes;
    this.#memory.load32(address);
    if (this.#memory.lo === 0) leaf.users++;
    this.#memory.storeWords(address, cdOf(domain));
  }

  /**
   * Makes the CD of a SubstreamID invalid. Its table stays until {@link destroy} or until it is
   * empty.
   */
  clear(ssid: number): void {
    const index = ssid >>> LEAF_LOG2;
    const leaf = this.#leaves.get(index);
    if (leaf === undefined) return;
    const address = leaf.table + (ssid % 2 ** LEAF_LOG2) * CD.bytes;
    this.#memory.load32(address);
    if (this.#memory.lo === 0) return;
    this.#memory.storeWords(address, new Uint32Array(CD.wordCount));
    if (--leaf.users > 0) return;
    this.#memory.storeWords(this.base + index * L1CD.bytes, [0, 0]);
    this.#memory.pool.give('tables', leaf.table);
    this.#leaves.delete(index);
  }

  destroy(): void {
    for (const { table } of this.#leaves.values()) this.#memory.pool.give('tables', table);
    this.#leaves.clear();
    this.#memory.pool.give('tables', this.base, this.#order);
  }
}

function cdOf(domain: PagingDomain): Words {
  return pack(CD, {
    V: 1,
    T0SZ: TSZ_48,
    IR0: WRITE_BACK,
    OR0: WRITE_BACK,
    SH0: INNER_SHAREABLE,
    EPD1: 1,
    IPS: SIZE_48,
    AA64: 1,
    R: 1,
    A: 1,
    ASET: 1,
    ASID: domain.tag,
    TTB0: domain.table.root,
    MAIR0: 0xff,
  });
}
