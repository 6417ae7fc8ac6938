/** Reading a scalable-mode PASID-table entry. VT-d §9.6. */
import { FSPM, PASID_TABLE_ENTRY, PGTT } from '../../spec/vtd/structures.js';
import type { VtdConfig } from './config.js';
import { type Domain, KIND, type VtdFormats } from './domain.js';

const get = PASID_TABLE_ENTRY.get;

/**
 * False when a present entry is programmed with something unsupported: condition SPT.4 of §7.1.3.
 */
export function checkPasidEntry(words: Uint32Array, config: VtdConfig): boolean {
  const type = get.PGTT(words);
  const first = type === PGTT.FIRST_STAGE || type === PGTT.NESTED;
  const second = type === PGTT.SECOND_STAGE || type === PGTT.NESTED;
  if (type === PGTT.PASS_THROUGH) return config.passThrough;
  if (!first && !second) return false;
  const width = get.AW(words);
  if (second && (config.supportedWidths & (1 << width)) === 0) return false;
  if (first && (!config.firstStage || get.FSPM(words) > FSPM.FIVE_LEVEL)) return false;
  // SPT.4.4: a nested FSPTPTR is a guest address and must be within the second stage's reach.
  if (first && second && get.FSPTPTR(words) >= 2 ** Math.min(30 + 9 * width, config.addressWidth))
    return false;
  return true;
}

/**
 * Fills a domain from an entry that {@link checkPasidEntry} accepted; `domain.tag` is the caller's.
 */
export function fillFromPasidEntry(
  words: Uint32Array,
  config: VtdConfig,
  formats: VtdFormats,
  domain: Domain,
): void {
  domain.scalable = true;
  domain.did = get.DID(words);
  domain.snooped = get.PWSNP(words) === 1;
  domain.passThroughWidth = config.hostAddressWidth;
  const type = get.PGTT(words);
  if (type === PGTT.PASS_THROUGH) {
    domain.kind = KIND.PASS_THROUGH;
    return;
  }
  if (type !== PGTT.FIRST_STAGE) {
    domain.secondRoot = get.SSPTPTR(words);
    domain.secondFormat = formats.second(get.AW(words), get.SSADE(words) === 1);
  }
  if (type !== PGTT.SECOND_STAGE) {
    domain.firstRoot = get.FSPTPTR(words);
    domain.firstFormat = formats.first(get.FSPM(words), get.EAFE(words) === 1);
  }
  domain.kind =
    type === PGTT.FIRST_STAGE ? KIND.FIRST : type === PGTT.SECOND_STAGE ? KIND.SECOND : KIND.NESTED;
}
