/**
 * Tables of context descriptors of the SMMUv3 cases: linear ones, and two levels of either size.
 * IHI 0070 §3.3.3, §5.3
 */
import type { Rng } from '../fuzz/rng.js';
import type { Script } from './script.js';

const CD_BYTES = 64;

/** One table, whose descriptors are at addresses that stage 2 moves by `offset`. */
export class ContextTable {
  readonly #script: Script;
  readonly #offset: bigint;
  /** S1ContextPtr, S1CDMax, S1Fmt. */
  readonly fields: Readonly<Record<string, number>>;
  readonly #base: number;
  /** log2 of the descriptors of a table of the second level; 0: linear. */
  readonly #split: 0 | 6 | 10;

  constructor(script: Script, rng: Rng, size: number, offset: bigint) {
    this.#script = script;
    this.#offset = offset;
    const format = rng.pick([0, 0, 1, 1, 2, 3]);
    this.#split = format === 1 ? 6 : format === 2 ? 10 : 0;
    const entries = this.#split === 0 ? 2 ** size : 2 ** Math.max(0, size - this.#split);
    const bytes = Math.max(64, entries * (this.#split === 0 ? CD_BYTES : 8));
    this.#base = script.allocate(bytes, bytes);
    this.fields = { S1ContextPtr: this.#base + Number(offset), S1CDMax: size, S1Fmt: format };
  }

  /** Where the descriptor of a SubstreamID is, in a table that is made if need be. */
  slot(ssid: number, found: (address: number, what: string) => void): number {
    const script = this.#script;
    if (this.#split === 0) return this.#base + ssid * CD_BYTES;
    const slot = this.#base + (ssid >> this.#split) * 8;
    if (script.word(slot) === 0n) {
      const bytes = CD_BYTES << this.#split;
      script.store(slot, (BigInt(script.allocate(bytes, bytes)) + this.#offset) | 1n, 'L1CD');
      found(slot, 'L1CD');
    }
    const table = Number((script.word(slot) & 0xf_ffff_ffff_f000n) - this.#offset);
    return table + (ssid % 2 ** this.#split) * CD_BYTES;
  }
}
