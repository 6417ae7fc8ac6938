/** Blocks of pages, by page number. */

/** Number of the last page of the input space. */
export const LAST_PAGE = 2 ** 52 - 1;

const LOW_BITS = 30;
const LOW_PAGES = 2 ** LOW_BITS;
/** Powers of two: `**` is a call where its exponent is not known. */
const POWERS = Float64Array.from({ length: 64 }, (_, log2) => 2 ** log2);

/** 2^log2, for 0..63. */
export function power(log2: number): number {
  return POWERS[log2] as number;
}

/** log2 of the largest aligned block of pages that begins at a page: 0..52. */
function alignment(page: number): number {
  const high = Math.floor(page / LOW_PAGES);
  const low = (page - high * LOW_PAGES) | 0;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  return high === 0 ? 52 : LOW_BITS + 31 - Math.clz32(high & -high);
}

/** log2 of the largest aligned block that begins at `first` and does not reach beyond `last`. */
export function blockAt(first: number, last: number): number {
  if (first === last) return 0;
  let log2 = alignment(first);
  const pages = last - first + 1;
  while (power(log2) > pages) log2--;
  return log2;
}
