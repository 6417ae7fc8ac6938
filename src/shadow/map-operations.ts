/** Host operations as they stand on the wire, one behind the other. */

import { PAGE_OFFSET, pageHi, pageLo } from '../base/page.js';

/**
 * Words of one operation: access bits (0 = unmap), first address lo, hi, last address lo, hi,
 * memory lo, hi.
 */
export const OPERATION_WORDS = 7;

export class Operations {
  count = 0;
  words = new Uint32Array(64 * OPERATION_WORDS);

  clear(): void {
    this.count = 0;
  }

  /** Pages [first, last] to memory from page `out` on; access 0: unmapped. */
  push(access: number, first: number, last: number, out: number): void {
    const at = this.count * OPERATION_WORDS;
    if (at === this.words.length) {
      const larger = new Uint32Array(2 * at);
      larger.set(this.words);
      this.words = larger;
    }
    const { words } = this;
    words[at] = access;
    words[at + 1] = pageLo(first);
    words[at + 2] = pageHi(first);
    words[at + 3] = pageLo(last) | PAGE_OFFSET;
    words[at + 4] = pageHi(last);
    words[at + 5] = pageLo(out);
    words[at + 6] = pageHi(out);
    this.count++;
  }
}
