/**
 * 64-bit values without BigInt.
 *
 * Hot code keeps a 64-bit value as two unsigned 32-bit halves, `lo` and `hi`. A physical address
 * has at most 52 bits, so it also fits a JavaScript number exactly; `physical` is that form. BigInt
 * appears only where a person reads the value.
 */

declare const brand: unique symbol;

/** A physical address (guest or host) of at most 52 bits, as an exact JavaScript number. */
export type PhysicalAddress = number & { readonly [brand]?: 'physical' };

export const TWO_32 = 0x1_0000_0000;

/**
 * The number `hi * 2^32 + lo`; exact only while it stays below 2^53. Halves may be signed or
 * unsigned.
 */
export function join(lo: number, hi: number): number {
  return (hi >>> 0) * TWO_32 + (lo >>> 0);
}

/** Low half of an exact number below 2^53. */
export function lowHalf(value: number): number {
  return value >>> 0;
}

/** High half of an exact number below 2^53. */
export function highHalf(value: number): number {
  return Math.floor(value / TWO_32) >>> 0;
}

/** −1, 0 or 1 as `a` is below, equal to or above `b`, both unsigned 64-bit. */
export function compare(aLo: number, aHi: number, bLo: number, bHi: number): -1 | 0 | 1 {
  const ah = aHi >>> 0;
  const bh = bHi >>> 0;
  if (ah !== bh) return ah < bh ? -1 : 1;
  const al = aLo >>> 0;
  const bl = bLo >>> 0;
  return al === bl ? 0 : al < bl ? -1 : 1;
}

/** Bits `msb..lsb` (at most 32 of them) of the 64-bit value, unsigned. */
export function bits(lo: number, hi: number, msb: number, lsb: number): number {
  const width = msb - lsb + 1;
  const raw = lsb >= 32 ? hi >>> (lsb - 32) : lsb === 0 ? lo : (lo >>> lsb) | (hi << (32 - lsb));
  return width >= 32 ? raw >>> 0 : (raw & ((1 << width) - 1)) >>> 0;
}

/** Low half of 2^log2 − 1, for log2 of 0..64. */
export function belowLo(log2: number): number {
  return log2 >= 32 ? -1 : (1 << log2) - 1;
}

/** High half of 2^log2 − 1, for log2 of 0..64. */
export function belowHi(log2: number): number {
  return log2 <= 32 ? 0 : log2 >= 64 ? -1 : (1 << (log2 - 32)) - 1;
}

/** `0x`-prefixed hexadecimal of both halves, 16 digits; for people. */
export function hex64(lo: number, hi: number): string {
  return `0x${(hi >>> 0).toString(16).padStart(8, '0')}${(lo >>> 0).toString(16).padStart(8, '0')}`;
}

/** `0x`-prefixed hexadecimal of an exact number, no padding; for people. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
