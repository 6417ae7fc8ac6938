/**
 * The interrupt remapping table in force: latched by Set Interrupt Remap Table Pointer, entries
 * read and checked. VT-d §5.1.3, §9.9, §11.4.10.
 */
import type { GuestMemory } from '../../memory/guest-memory.js';
import { FAULT } from '../../spec/vtd/faults.js';
import { DLM, IRTE, SVT, XAPIC_DESTINATION } from '../../spec/vtd/interrupts.js';
import type { VtdConfig } from './config.js';
import { OK } from './lookup.js';
import { masks, violates } from './reserved.js';

/** Words of an entry. */
export const IRTE_WORDS = IRTE.wordCount;

/** Of IRTE.DLM's encodings those that §9.9 defines, as a bit per value. */
const DELIVERY_MODES = Object.values(DLM).reduce<number>((bits, mode) => bits | (1 << mode), 0);

/** The word of DST. */
const DESTINATION = IRTE.fields.DST.lsb >> 5;

export class InterruptTable {
  readonly #memory: GuestMemory;
  /** No memory is beyond. */
  readonly #memoryEnd: number;
  /** Reserved bits, by whether destinations have 32 bits. PI is clear, so IM is reserved. */
  readonly #reserved: Uint32Array;
  readonly #reservedXapic: Uint32Array;
  base = 0;
  /** Number of entries, at most 2^16. */
  entries = 0;
  /** IRTA_REG.EIME: destinations have 32 bits. */
  extended = false;

  constructor(config: VtdConfig, memory: GuestMemory) {
    this.#memory = memory;
    this.#memoryEnd = 2 ** config.hostAddressWidth;
    this.#reserved = masks(IRTE, 0, [], ['IM']);
    this.#reservedXapic = this.#reserved.slice();
    this.#reservedXapic[DESTINATION] |= ~XAPIC_DESTINATION.MASK;
  }

  /** Set Interrupt Remap Table Pointer, or power-on with no entries. §11.4.4.1 */
  set(base: number, entries: number, extended: boolean): void {
    this.base = base;
    this.entries = entries;
    this.extended = extended;
  }

  /** Reads an entry below {@link entries} into `words`. {@link OK}, or why it can't be used. */
  read(index: number, words: Uint32Array): number {
    const address = this.base + index * IRTE.bytes;
    if (address >= this.#memoryEnd || !this.#memory.loadWords(address, words, IRTE_WORDS)) {
      words.fill(0);
      return FAULT.IR_23;
    }
    if (IRTE.get.P(words) === 0) return FAULT.IR_22;
    const reserved = this.extended ? this.#reserved : this.#reservedXapic;
    if (violates(reserved, words, 0, IRTE_WORDS)) return FAULT.IR_24;
    if (IRTE.get.SVT(words) === SVT.RESERVED) return FAULT.IR_24;
    return ((DELIVERY_MODES >>> IRTE.get.DLM(words)) & 1) === 0 ? FAULT.IR_24 : OK;
  }
}
