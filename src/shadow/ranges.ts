/** Ranges of pages that wait for something: ascending, disjoint, neighbours joined. */

const FIRST_ROOM = 16;

/**
 * Adding at the end is cheap however many there are. In the middle of a long list it is not, so
 * there everything between the first and the last range is taken in. Looking at too much is
 * harmless: it finds no change.
 */
export class PageRanges {
  readonly #most: number;
  #bounds = new Float64Array(2 * FIRST_ROOM);
  #count = 0;

  /** @param most a list of this length is joined to one range rather than edited in the middle */
  constructor(most = 1024) {
    this.#most = most;
  }

  get count(): number {
    return this.#count;
  }

  first(index: number): number {
    return this.#bounds[2 * index];
  }

  last(index: number): number {
    return this.#bounds[2 * index + 1];
  }

  clear(): void {
    this.#count = 0;
  }

  /** Takes [first, last] in. */
  add(first: number, last: number): void {
    const bounds = this.#bounds;
    const count = this.#count;
    if (count === 0 || first > bounds[2 * count - 1] + 1) {
      this.#append(first, last);
      return;
    }
    if (first >= bounds[2 * count - 2]) {
      if (last > bounds[2 * count - 1]) bounds[2 * count - 1] = last;
      return;
    }
    if (count >= this.#most) this.#join(first, last);
    else this.#insert(first, last);
  }

  /** Takes every range of another list in. */
  addAll(other: PageRanges): void {
    for (let index = 0; index < other.count; index++) this.add(other.first(index), other.last(index));
  }

  /** Takes [first, last] out. */
  remove(first: number, last: number): void {
    for (let index = this.#from(first); index < this.#count && this.first(index) <= last; ) {
      const from = this.first(index);
      const to = this.last(index);
      this.#cut(index, index + 1);
      if (from < first) this.add(from, first - 1);
      if (to > last) this.add(last + 1, to);
      index = this.#from(first);
    }
  }

  /** Drops the first range, or what of it is below `next`. */
  advance(next: number): void {
    if (next > this.#bounds[1]) this.#cut(0, 1);
    else this.#bounds[0] = next;
  }

  contains(page: number): boolean {
    const index = this.#from(page);
    return index < this.#count && this.first(index) <= page;
  }

  /** Index of the first range that ends at or above a page. */
  from(page: number): number {
    return this.#from(page);
  }

  #from(page: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#bounds[2 * middle + 1] < page) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #append(first: number, last: number): void {
    if (2 * this.#count === this.#bounds.length) {
      const larger = new Float64Array(4 * this.#count);
      larger.set(this.#bounds);
      this.#bounds = larger;
    }
    this.#bounds[2 * this.#count] = first;
    this.#bounds[2 * this.#count + 1] = last;
    this.#count++;
  }

  #insert(first: number, last: number): void {
    // The ranges [from, to) touch the new one, or its neighbours.
    const from = this.#from(first - 1);
    let to = from;
    let lowest = first;
    let highest = last;
    while (to < this.#count && this.first(to) <= last + 1) {
      lowest = Math.min(lowest, this.first(to));
      highest = Math.max(highest, this.last(to));
      to++;
    }
    if (to === from) {
      this.#append(0, 0);
      this.#bounds.copyWithin(2 * from + 2, 2 * from, 2 * (this.#count - 1));
    } else {
      this.#cut(from + 1, to);
    }
    this.#bounds[2 * from] = lowest;
    this.#bounds[2 * from + 1] = highest;
  }

  #join(first: number, last: number): void {
    this.#bounds[0] = Math.min(first, this.#bounds[0]);
    this.#bounds[1] = Math.max(last, this.#bounds[2 * this.#count - 1]);
    this.#count = 1;
  }

  #cut(from: number, to: number): void {
    if (to < this.#count) this.#bounds.copyWithin(2 * from, 2 * to, 2 * this.#count);
    this.#count -= to - from;
  }
}
