/**
 * Invalidations of the guest on their way to the host. What they are for may change before they are
 * sent.
 */
import { pageOf } from '../base/page.js';
import { ALL_PAGES, type HostInvalidations } from '../host/port.js';
import { type Binding, takes } from './binding.js';

/** Words of a range: address low and high, pages. Of a command: all four. */
const RANGE_WORDS = 3;
const COMMAND_WORDS = 4;
/** 2 MiB: what a leaf table maps. */
const BLOCK_PAGES = 512;

export class ForwardQueue {
  count = 0;
  #words = new Uint32Array(512);
  #used = 0;
  /** Of ranges: whose. Of commands: nothing. */
  readonly #targets: (Binding | undefined)[] = [];

  clear(): void {
    this.count = 0;
    this.#used = 0;
    this.#targets.length = 0;
  }

  /**
   * VT-d: pages of the tables that a binding is to. Those behind the last ones asked for become one
   * with them.
   */
  range(binding: Binding, lo: number, hi: number, pages: number): void {
    if (this.count > 0 && this.#targets[this.count - 1] === binding && this.#extends(lo, hi, pages)) {
      this.#words[this.#used - 1] += pages;
      return;
    }
    const at = this.#room(RANGE_WORDS);
    this.#words[at] = lo;
    this.#words[at + 1] = hi;
    this.#words[at + 2] = pages;
    this.#targets[this.count++] = binding;
  }

  /** VT-d: everything of one. */
  whole(binding: Binding): void {
    this.range(binding, 0, 0, ALL_PAGES);
  }

  /** SMMUv3. */
  command(word0: number, word1: number, word2: number, word3: number): void {
    const at = this.#room(COMMAND_WORDS);
    this.#words[at] = word0;
    this.#words[at + 1] = word1;
    this.#words[at + 2] = word2;
    this.#words[at + 3] = word3;
    this.#targets[this.count++] = undefined;
  }

  /** Adds to `out` what the host can be asked for now. */
  drain(out: HostInvalidations): void {
    const words = this.#words;
    const targets = this.#targets;
    let at = 0;
    for (let index = 0; index < this.count; index++) {
      const target = targets[index];
      if (target === undefined) {
        out.command(words[at], words[at + 1], words[at + 2], words[at + 3]);
        at += COMMAND_WORDS;
        continue;
      }
      if (takes(target)) {
        out.range(target.device, target.pasid, words[at], words[at + 1], words[at + 2]);
      }
      at += RANGE_WORDS;
    }
    this.clear();
  }

  /**
   * The pages follow the last ones, and both are in one aligned block: hardware drops such blocks,
   * so nothing more goes.
   */
  #extends(lo: number, hi: number, pages: number): boolean {
    const words = this.#words;
    const used = this.#used;
    const first = pageOf(words[used - 3], words[used - 2]);
    const next = first + words[used - 1];
    if (next !== pageOf(lo, hi)) return false;
    return Math.floor(first / BLOCK_PAGES) === Math.floor((next + pages - 1) / BLOCK_PAGES);
  }

  #room(entry: number): number {
    const at = this.#used;
    this.#used += entry;
    if (this.#used > this.#words.length) {
      const larger = new Uint32Array(this.#words.length * 2);
      larger.set(this.#words);
      this.#words = larger;
    }
    return at;
  }
}
