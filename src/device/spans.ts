/** Writing answers: spans of a {@link TranslateResult}. */
import { ANY } from '../base/ids.js';
import { SPAN_WORDS, TRANSLATE_STATUS, type TranslateResult } from './iommu.js';

/** log2Size of a span that covers the whole input space. */
export const WHOLE_SPACE = 64;

/**
 * `space` of answers that no table made (translation off, bypass, interrupts): only invalidations
 * of everything hit it.
 */
export const NO_DOMAIN = 0x10000;

/** Start of an answer; spans are added to it. */
export function beginAnswer(result: TranslateResult, space: number, sub: number): void {
  result.status = TRANSLATE_STATUS.OK;
  result.count = 0;
  result.space = space;
  result.sub = sub;
  result.stall = 0;
}

/** An answer that translates nothing. */
export function refuse(result: TranslateResult, status: number = TRANSLATE_STATUS.FAULT): void {
  result.status = status;
  result.count = 0;
  result.space = NO_DOMAIN;
  result.sub = ANY;
  result.stall = 0;
}

/**
 * Adds the aligned block of 2^log2 bytes around input and output addresses; both may point inside
 * it.
 */
export function addSpan(
  result: TranslateResult,
  inLo: number,
  inHi: number,
  outLo: number,
  outHi: number,
  log2: number,
  permissions: number,
): void {
  const maskLo = log2 >= 32 ? 0 : -1 << log2;
  const maskHi = log2 <= 32 ? -1 : log2 >= 64 ? 0 : -1 << (log2 - 32);
  const base = result.count * SPAN_WORDS;
  const spans = result.spans;
  spans[base] = inLo & maskLo;
  spans[base + 1] = inHi & maskHi;
  spans[base + 2] = outLo & maskLo;
  spans[base + 3] = outHi & maskHi;
  spans[base + 4] = log2;
  spans[base + 5] = permissions;
  result.count++;
}
