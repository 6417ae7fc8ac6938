/** Words for the dump: names of values, kinds of translation. */
import type { Layout } from '../../spec/define.js';
import { fieldText as namedFieldText } from '../dump-text.js';
import { type Domain, KIND } from './domain.js';

export { leavesNode } from '../dump-text.js';

/** Names of values, by field, as the specification prints them. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  TTM: ['legacy', 'scalable', 'reserved', 'abort-dma'],
  TT: ['untranslated only', 'all requests', 'pass-through', 'reserved'],
  PGTT: ['reserved', 'first-stage', 'second-stage', 'nested', 'pass-through'],
  AW: ['reserved', '39-bit', '48-bit', '57-bit'],
  FSPM: ['4-level', '5-level'],
  DM: ['physical', 'logical'],
  TM: ['edge', 'level'],
  DLM: ['fixed', 'lowest priority', 'SMI', 'reserved', 'NMI', 'INIT', 'reserved', 'ExtINT'],
  SVT: ['none', 'source-id', 'bus', 'reserved'],
};

/** Every field of a VT-d structure or register. */
export function fieldText(
  shape: Layout<string>,
  words: Uint32Array,
  base: number,
): Record<string, string | number> {
  return namedFieldText(shape, words, base, VALUES);
}

/** e.g. `second-stage 4-level at 0x1000, DID 5`. */
export function kindText(domain: Domain): string {
  const first = `first-stage ${domain.firstFormat.levels}-level at 0x${domain.firstRoot.toString(16)}`;
  const second = `second-stage ${domain.secondFormat.levels}-level at 0x${domain.secondRoot.toString(16)}`;
  const text =
    domain.kind === KIND.FIRST ? first : domain.kind === KIND.SECOND ? second : `${first} on ${second}`;
  return `${text}, DID ${domain.did}`;
}
