/**
 * Ranges that do not overlap, in order: what is mapped in one address space. Kept in chunks, so
 * that a million of them cost no more to change in the middle than a few hundred.
 */

/** A mapping: pages of 4 KiB. */
export interface MappedRange {
  readonly page: number;
  readonly pages: number;
  readonly guestPage: number;
  readonly rights: number;
}

const CHUNK = 512;

export class RangeMap {
  size = 0;
  /** None of them empty. */
  readonly #chunks: MappedRange[][] = [];

  /** True when any page of the range is in the map. */
  overlaps(page: number, pages: number): boolean {
    const before = this.#lastBefore(page + pages);
    return before !== undefined && before.page + before.pages > page;
  }

  /** The range that a page is in. */
  at(page: number): MappedRange | undefined {
    const found = this.#lastBefore(page + 1);
    return found !== undefined && found.page + found.pages > page ? found : undefined;
  }

  /** Adds a range that overlaps none. */
  add(range: MappedRange): void {
    this.size++;
    const index = this.#chunkOf(range.page);
    const chunk = this.#chunks[index];
    if (chunk === undefined) {
      this.#chunks.push([range]);
      return;
    }
    chunk.splice(placeIn(chunk, range.page), 0, range);
    if (chunk.length > CHUNK) this.#chunks.splice(index + 1, 0, chunk.splice(CHUNK / 2));
  }

  /** Removes and returns those that begin within a range, at most `most` of them. */
  take(page: number, pages: number, most = Number.POSITIVE_INFINITY): MappedRange[] {
    const taken: MappedRange[] = [];
    let index = this.#chunkOf(page);
    while (index < this.#chunks.length && taken.length < most) {
      const chunk = this.#chunks[index] as MappedRange[];
      const from = placeIn(chunk, page);
      const to = Math.min(placeIn(chunk, page + pages), from + most - taken.length);
      if (from === chunk.length) {
        index++;
        continue;
      }
      if (to === from) break;
      for (const range of chunk.splice(from, to - from)) taken.push(range);
      if (chunk.length === 0) this.#chunks.splice(index, 1);
      else if (from < chunk.length) break;
      else index++;
    }
    this.size -= taken.length;
    return taken;
  }

  *[Symbol.iterator](): Iterator<MappedRange> {
    for (const chunk of this.#chunks) yield* chunk;
  }

  #lastBefore(page: number): MappedRange | undefined {
    let index = this.#chunkOf(page);
    const chunk = this.#chunks[index];
    const place = chunk === undefined ? 0 : placeIn(chunk, page);
    if (place > 0) return chunk?.[place - 1];
    index--;
    return this.#chunks[index]?.at(-1);
  }

  /** The last chunk that begins at or before a page, or the first one. */
  #chunkOf(page: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const first = (this.#chunks[middle] as MappedRange[])[0] as MappedRange;
      if (first.page <= page) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

/** Index of the first range of a chunk that begins at or above a page. */
function placeIn(chunk: readonly MappedRange[], page: number): number {
  let low = 0;
  let high = chunk.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((chunk[middle] as MappedRange).page < page) low = middle + 1;
    else high = middle;
  }
  return low;
}
