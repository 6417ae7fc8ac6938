/**
 * Under which tags a cache outside of the model may hold translations of one address space: what
 * its structures said whenever they were read. An invalidation names the tags that entries were
 * made with, and these outlive the structures: a domain-id that a PASID-table entry had, a VMID
 * that a stream table entry had. So it is never decided from what structures say now alone.
 */
import { ANY } from '../base/ids.js';
import type { InvalidateScope } from './iommu.js';

/** Tags that are told apart; a holder of more is concerned by every invalidation. */
const MOST_TAGS = 16;
const WORDS = 2;
/** Scopes of this size and more are everything of their tags. */
const WHOLE = 64;

export class Tags {
  readonly #tags = new Uint32Array(MOST_TAGS * WORDS);
  #count = 0;
  #tooMany = false;

  /** Translations may be held under these from now on. */
  add(space: number, sub: number): void {
    const tags = this.#tags;
    const end = this.#count * WORDS;
    for (let at = 0; at < end; at += WORDS) {
      if (tags[at] === space >>> 0 && tags[at + 1] === sub >>> 0) return;
    }
    if (this.#count === MOST_TAGS) {
      this.#tooMany = true;
      return;
    }
    tags[end] = space;
    tags[end + 1] = sub;
    this.#count++;
  }

  /** What is held under another's tags is held here too. */
  addAll(other: Tags): void {
    for (let at = 0; at < other.#count * WORDS; at += WORDS) this.add(other.#tags[at], other.#tags[at + 1]);
    this.#tooMany ||= other.#tooMany;
  }

  /** Whether something that is held may belong to a scope. */
  matches(scope: InvalidateScope): boolean {
    if (this.#tooMany || scope.space === ANY) return true;
    const tags = this.#tags;
    const end = this.#count * WORDS;
    for (let at = 0; at < end; at += WORDS) if (names(scope, tags[at], tags[at + 1])) return true;
    return false;
  }

  /** A scope has been invalidated: what is all of some tags leaves nothing held under them. */
  invalidated(scope: InvalidateScope): void {
    if (scope.log2Size < WHOLE || scope.pasid !== ANY) return;
    if (scope.space === ANY) {
      this.clear();
      return;
    }
    const tags = this.#tags;
    let kept = 0;
    const end = this.#count * WORDS;
    for (let at = 0; at < end; at += WORDS) {
      if (names(scope, tags[at], tags[at + 1]) && (scope.sub === ANY || tags[at + 1] === scope.sub)) continue;
      tags[kept] = tags[at];
      tags[kept + 1] = tags[at + 1];
      kept += WORDS;
    }
    this.#count = kept / WORDS;
  }

  /** Nothing is held any more. */
  clear(): void {
    this.#count = 0;
    this.#tooMany = false;
  }
}

/**
 * Whether a scope names entries with these tags. One of addresses names global entries too,
 * whatever their second tag (IHI 0070 §4.4.1: CMD_TLBI_NH_VA).
 */
export function names(scope: InvalidateScope, space: number, sub: number): boolean {
  if (scope.space === ANY) return true;
  if (scope.space >>> 0 !== space >>> 0) return false;
  return scope.sub === ANY || sub === ANY || scope.sub >>> 0 === sub >>> 0 || scope.log2Size < WHOLE;
}
