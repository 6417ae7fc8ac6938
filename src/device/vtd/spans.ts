/** Answers of a {@link TranslateResult} kept clear of the interrupt address range. */
import { SPAN_WORDS, type TranslateResult } from '../iommu.js';
import { addSpan } from '../spans.js';

export { addSpan, beginAnswer, NO_DOMAIN, refuse, WHOLE_SPACE } from '../spans.js';

/** Interrupt address range FEEx_xxxxh: 1 MiB. VT-d §3.15 */
const INTERRUPT_BASE = 0xfee00000;
const INTERRUPT_LOG2 = 20;

/** The same in pages of 4 KiB, both included. */
export const INTERRUPT_PAGES = { FIRST: 0xfee00, LAST: 0xfeeff } as const;

/** True when the address is in the interrupt address range. */
export function inInterruptRange(lo: number, hi: number): boolean {
  return hi === 0 && lo >>> INTERRUPT_LOG2 === INTERRUPT_BASE >>> INTERRUPT_LOG2;
}

/**
 * True when the aligned block of 2^log2 bytes that contains the address overlaps the interrupt
 * address range.
 */
function blockMeetsInterruptRange(lo: number, hi: number, log2: number): boolean {
  if (log2 <= INTERRUPT_LOG2) return inInterruptRange(lo, hi);
  if (log2 >= 64) return true;
  if (log2 > 32) return hi >>> (log2 - 32) === 0;
  return hi === 0 && (log2 === 32 || lo >>> log2 === INTERRUPT_BASE >>> log2);
}

/**
 * Takes the interrupt address range out of an answer: the first span shrinks around `lo:hi` (which
 * is known to be clear of it), others are dropped. `inputToo` as in {@link clearOfInterrupts}.
 */
export function keepClear(result: TranslateResult, lo: number, hi: number, inputToo: boolean): void {
  const { spans, count } = result;
  let kept = 0;
  for (let index = 0; index < count; index++) {
    const base = index * SPAN_WORDS;
    const log2 = spans[base + 4];
    const meets =
      blockMeetsInterruptRange(spans[base + 2], spans[base + 3], log2) ||
      (inputToo && blockMeetsInterruptRange(spans[base], spans[base + 1], log2));
    if (meets && index > 0) continue;
    if (meets) shrinkFirst(result, lo, hi, inputToo);
    else if (kept !== index) spans.copyWithin(kept * SPAN_WORDS, base, base + SPAN_WORDS);
    kept++;
  }
  result.count = kept;
}

function shrinkFirst(result: TranslateResult, lo: number, hi: number, inputToo: boolean): void {
  const { spans } = result;
  const log2 = spans[4];
  const outLo = (spans[2] | (log2 >= 32 ? lo : lo & ((1 << log2) - 1))) >>> 0;
  const outHi = (spans[3] | (log2 <= 32 ? 0 : hi & (2 ** (log2 - 32) - 1))) >>> 0;
  const size = clearOfInterrupts(lo, hi, outLo, outHi, log2, inputToo);
  result.count = 0;
  addSpan(result, lo, hi, outLo, outHi, size, spans[5]);
}

/**
 * Largest block of at most 2^log2 bytes around the addresses that keeps clear of the interrupt
 * address range: on the output side always, on the input side for requests without PASID (§3.15).
 */
export function clearOfInterrupts(
  inLo: number,
  inHi: number,
  outLo: number,
  outHi: number,
  log2: number,
  inputToo: boolean,
): number {
  let size = log2;
  while (
    size > INTERRUPT_LOG2 &&
    (blockMeetsInterruptRange(outLo, outHi, size) || (inputToo && blockMeetsInterruptRange(inLo, inHi, size)))
  ) {
    size--;
  }
  return size;
}
