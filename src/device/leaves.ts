/** Leaves of an address space's tables, one after the other, whatever its stages. Reads only. */
import type { GuestMemory } from '../memory/guest-memory.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { ENUMERATE, LeafCursor } from '../walk/enumerate.js';
import { StageTwo } from '../walk/nested.js';
import { MAX_SPANS, SPAN_WORDS, type TranslateResult } from './iommu.js';
import { addSpan } from './spans.js';

/** Which stages translate a request. */
export const KIND = { PASS_THROUGH: 0, SECOND: 1, FIRST: 2, NESTED: 3 } as const;

/** Tables of one address space. Formats and roots of stages that `kind` leaves out mean nothing. */
export interface StageTables {
  /** One of {@link KIND}. */
  readonly kind: number;
  readonly firstFormat: PageTableFormat;
  readonly firstRoot: number;
  readonly secondFormat: PageTableFormat;
  readonly secondRoot: number;
}

/**
 * Entries that one enumeration may look at: a table that refers to itself costs no more than this.
 */
const ENTRY_BUDGET = 1 << 18;

export class Leaves {
  readonly #memory: GuestMemory;
  readonly cursor: LeafCursor;

  /** @param updates false: without what needs an Accessed or Dirty bit set */
  constructor(memory: GuestMemory, updates = true) {
    this.#memory = memory;
    this.cursor = new LeafCursor(new StageTwo(memory, updates), updates);
  }

  /**
   * Aims at the translations at or above an input address. The address space is not a pass-through
   * one.
   */
  start(tables: StageTables, lo: number, hi: number): void {
    const memory = this.#memory;
    const { cursor } = this;
    if (tables.kind === KIND.SECOND) {
      cursor.start(tables.secondFormat, memory, tables.secondRoot, lo, hi, -1, -1);
    } else if (tables.kind === KIND.FIRST) {
      cursor.start(tables.firstFormat, memory, tables.firstRoot, lo, hi, -1, -1);
    } else {
      cursor.startNested(
        tables.firstFormat,
        tables.firstRoot,
        tables.secondFormat,
        tables.secondRoot,
        lo,
        hi,
        -1,
        -1,
      );
    }
  }

  /**
   * Goes to the next translation that allows something; its fields are in `cursor`. False at the
   * end.
   */
  next(): boolean {
    while (this.cursor.visited < ENTRY_BUDGET) {
      const found = this.cursor.next(ENTRY_BUDGET - this.cursor.visited);
      if (found !== ENUMERATE.LEAF) return false;
      if ((this.cursor.permissions & 3) !== 0) return true;
    }
    return false;
  }

  /** True when {@link next} gave up for lack of budget rather than at the end. */
  get exhausted(): boolean {
    return this.cursor.visited >= ENTRY_BUDGET;
  }
}

/**
 * Adds translations from where `leaves` was started to an answer. True when more follow above the
 * last one.
 */
export function appendLeaves(result: TranslateResult, leaves: Leaves): boolean {
  while (leaves.next()) {
    appendLeaf(result, leaves.cursor);
    if (result.count === MAX_SPANS) return true;
  }
  // Out of budget: go on above what was found. With nothing found there is no place to go on from.
  return leaves.exhausted && result.count > 0;
}

/**
 * Adds the cursor's translation to an answer and joins it with the spans before it where they are
 * one aligned block.
 */
function appendLeaf(result: TranslateResult, cursor: LeafCursor): void {
  addSpan(
    result,
    cursor.inLo,
    cursor.inHi,
    cursor.outLo,
    cursor.outHi,
    cursor.log2Size,
    cursor.permissions & 3,
  );
  while (result.count >= 2 && joins(result.spans, (result.count - 2) * SPAN_WORDS)) {
    result.count--;
    result.spans[(result.count - 1) * SPAN_WORDS + 4]++;
  }
}

/**
 * True when the span at `base` and the next one are the two halves of an aligned block, in input
 * and output.
 */
function joins(spans: Uint32Array, base: number): boolean {
  const next = base + SPAN_WORDS;
  const log2 = spans[base + 4];
  if (spans[next + 4] !== log2 || spans[next + 5] !== spans[base + 5] || log2 >= 62) return false;
  const bitLo = log2 < 32 ? (1 << log2) >>> 0 : 0;
  const bitHi = log2 < 32 ? 0 : (1 << (log2 - 32)) >>> 0;
  for (let half = 0; half <= 2; half += 2) {
    if (((spans[base + half] & bitLo) | (spans[base + half + 1] & bitHi)) !== 0) return false;
    if (spans[next + half] !== (spans[base + half] | bitLo) >>> 0) return false;
    if (spans[next + half + 1] !== (spans[base + half + 1] | bitHi) >>> 0) return false;
  }
  return true;
}
