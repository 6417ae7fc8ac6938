/**
 * The interrupt entry cache. VT-d §6.2.5. It keeps entries, not verdicts: a request's source-id is
 * verified at each use. Entries that fault are kept with caching mode only (§6.1).
 */
import { EntryCache, MISS } from '../../cache/entry-cache.js';
import type { IommuOutputs } from '../iommu.js';
import type { VtdConfig } from './config.js';
import { type InterruptTable, IRTE_WORDS } from './interrupt-table.js';
import { OK } from './lookup.js';
import { staleInterrupt } from './stale-interrupt.js';

/** 256 entries: more interrupts than a guest with a few CPUs uses, fewer than a table may have. */
const LOG2_SLOTS = 8;

export class InterruptEntryCache {
  readonly #cachingMode: boolean;
  readonly #outputs: IommuOutputs;
  readonly #cache: EntryCache;
  /** The entry that {@link find} found. */
  readonly entry = new Uint32Array(IRTE_WORDS);
  readonly #fresh = new Uint32Array(IRTE_WORDS);
  /** Entries of which observers know that they are stale: 1 each. Absent: there is no check. */
  #told: Uint8Array | undefined;

  constructor(config: VtdConfig, outputs: IommuOutputs) {
    this.#cachingMode = config.cachingMode;
    this.#outputs = outputs;
    this.#cache = new EntryCache(config.cachePolicy, LOG2_SLOTS, IRTE_WORDS, true);
  }

  /** Leaves the entry in {@link entry}; returns {@link OK} or its fault. */
  find(table: InterruptTable, index: number): number {
    const cache = this.#cache;
    const slot = cache.find(index, 0);
    if (slot === MISS) return this.#fetch(table, index);
    const from = slot * IRTE_WORDS;
    for (let word = 0; word < IRTE_WORDS; word++) this.entry[word] = cache.words[from + word];
    if (this.#told !== undefined) this.#compare(table, index, this.#told);
    return cache.faultOf(slot);
  }

  #fetch(table: InterruptTable, index: number): number {
    const fault = table.read(index, this.entry);
    if (fault !== OK && !this.#cachingMode) return fault;
    this.#cache.insert(index, 0, 0, fault, this.entry);
    if (this.#told !== undefined) this.#told[index] = 0;
    return fault;
  }

  #compare(table: InterruptTable, index: number, told: Uint8Array): void {
    if (told[index] !== 0) return;
    table.read(index, this.#fresh);
    let differs = 0;
    for (let word = 0; word < IRTE_WORDS; word++) differs |= this.entry[word] ^ this.#fresh[word];
    if (differs === 0) return;
    told[index] = 1;
    this.#outputs.event(staleInterrupt(index, this.entry, this.#fresh));
  }

  /** Drops the aligned block of 2^log2Count entries that `index` is in. */
  invalidate(index: number, log2Count: number): void {
    this.#cache.invalidateBlock(index, log2Count);
  }

  invalidateAll(): void {
    this.#cache.invalidateAll();
  }

  /** Whether entries that are used are compared with memory. */
  check(on: boolean): void {
    if (!on) this.#told = undefined;
    else this.#told ??= new Uint8Array(0x10000);
  }
}
