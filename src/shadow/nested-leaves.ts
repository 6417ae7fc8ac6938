/**
 * The translations of two stages, read afresh each time: a table of the first stage lies where the
 * second says, so what is where depends on both, and a copy of one proves nothing.
 */

import { PAGE_LOG2, PAGE_OFFSET, pageHi, pageLo, pageOf } from '../base/page.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { ENUMERATE, LeafCursor } from '../walk/enumerate.js';
import { StageTwo } from '../walk/nested.js';
import type { LeafSource } from './leaf-source.js';

/** Entries that one reading may look at: tables that refer to themselves cost no more than this. */
const ENTRY_BUDGET = 1 << 21;

export class NestedLeaves implements LeafSource {
  readonly #firstFormat: PageTableFormat;
  readonly #firstRoot: number;
  readonly #secondFormat: PageTableFormat;
  readonly #secondRoot: number;
  first = 0;
  last = 0;
  out = 0;
  access = 0;
  /** Readings that were given up for lack of budget: what lay behind counts as not mapped. */
  exhausted = 0;
  readonly #cursor: LeafCursor;

  constructor(
    firstFormat: PageTableFormat,
    firstRoot: number,
    secondFormat: PageTableFormat,
    secondRoot: number,
    memory: GuestMemory,
    updates: boolean,
  ) {
    this.#firstFormat = firstFormat;
    this.#firstRoot = firstRoot;
    this.#secondFormat = secondFormat;
    this.#secondRoot = secondRoot;
    this.#cursor = new LeafCursor(new StageTwo(memory, updates), updates);
  }

  start(first: number, last: number): void {
    this.#cursor.startNested(
      this.#firstFormat,
      this.#firstRoot,
      this.#secondFormat,
      this.#secondRoot,
      pageLo(first),
      pageHi(first),
      pageLo(last) | PAGE_OFFSET,
      pageHi(last),
    );
  }

  next(): boolean {
    const cursor = this.#cursor;
    const left = ENTRY_BUDGET - cursor.visited;
    const found = left > 0 ? cursor.next(left) : ENUMERATE.PAUSED;
    if (found === ENUMERATE.PAUSED) this.exhausted++;
    if (found !== ENUMERATE.LEAF) return false;
    this.first = pageOf(cursor.inLo, cursor.inHi);
    this.last = this.first + 2 ** (cursor.log2Size - PAGE_LOG2) - 1;
    this.out = pageOf(cursor.outLo, cursor.outHi);
    this.access = cursor.permissions;
    return true;
  }
}
