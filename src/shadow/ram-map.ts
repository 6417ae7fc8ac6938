/**
 * Where the guest has RAM that devices may reach: whole pages of writable regions, by rising
 * address.
 */

import { PAGE_BYTES, pageAt } from '../base/page.js';

interface RamRegion {
  readonly region: number;
  /** Pages, both included. */
  readonly first: number;
  readonly last: number;
}

export class RamMap {
  #regions: RamRegion[] = [];

  /**
   * Adds a region of bytes; parts of pages at its ends are left out. A read-only region is none of
   * ours.
   */
  add(region: number, gpa: number, bytes: number, readonly: boolean): void {
    const first = Math.ceil(gpa / PAGE_BYTES);
    const last = pageAt(gpa + bytes) - 1;
    if (readonly || last < first) return;
    this.#regions.push({ region, first, last });
    this.#regions.sort((a, b) => a.first - b.first);
  }

  remove(region: number): void {
    this.#regions = this.#regions.filter((known) => known.region !== region);
  }

  clear(): void {
    this.#regions = [];
  }

  /** Index of a region; −1 when it is none of ours. */
  indexOf(region: number): number {
    return this.#regions.findIndex((known) => known.region === region);
  }

  get count(): number {
    return this.#regions.length;
  }

  first(index: number): number {
    return this.#regions[index].first;
  }

  last(index: number): number {
    return this.#regions[index].last;
  }

  /** Index of the first region that ends at or above a page; {@link count} when there is none. */
  from(page: number): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#regions[middle].last < page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
