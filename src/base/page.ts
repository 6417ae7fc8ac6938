/**
 * The page that translations are cached, invalidated and requested in, whatever the granule: the
 * least unit that any table format maps and any host takes. Page numbers have at most 52 bits, so
 * they are exact JavaScript numbers.
 */

export const PAGE_LOG2 = 12;
export const PAGE_BYTES = 2 ** PAGE_LOG2;
/** Address bits within a page, in the low half of an address. */
export const PAGE_OFFSET = PAGE_BYTES - 1;

/** Pages in what the high half of an address counts. */
const PAGES_PER_HI = 2 ** 20;

/** Page number of an address. */
export function pageOf(lo: number, hi: number): number {
  return (hi >>> 0) * PAGES_PER_HI + (lo >>> PAGE_LOG2);
}

/** Page number of an address that is one number. */
export function pageAt(address: number): number {
  return Math.floor(address / PAGE_BYTES);
}

/** Low half of the address of a page's first byte. */
export function pageLo(page: number): number {
  // Not by %, which is slow for what is no small integer.
  return ((page - Math.floor(page / PAGES_PER_HI) * PAGES_PER_HI) << PAGE_LOG2) >>> 0;
}

/** High half of the same. */
export function pageHi(page: number): number {
  return Math.floor(page / PAGES_PER_HI) >>> 0;
}
