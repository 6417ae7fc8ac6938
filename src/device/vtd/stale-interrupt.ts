/** Words for an interrupt that was remapped by an entry which memory no longer has. */
import { hex64 } from '../../base/u64.js';
import { IRTE } from '../../spec/vtd/interrupts.js';
import type { ModelEvent } from '../iommu.js';
import { fieldText } from './dump-text.js';

/** The event that tells observers of it, with each field that differs: as cached, then as it is. */
export function staleInterrupt(index: number, cached: Uint32Array, memory: Uint32Array): ModelEvent {
  const was = fieldText(IRTE, cached, 0);
  const is = fieldText(IRTE, memory, 0);
  const differs = Object.keys(was)
    .filter((name) => was[name] !== is[name])
    .map((name) => `${name} ${was[name]}, now ${is[name]}`);
  return {
    kind: 'staleInterrupt',
    index,
    cached: raw(cached),
    memory: raw(memory),
    differs: differs.length === 0 ? 'reserved bits' : differs.join('; '),
  };
}

function raw(words: Uint32Array): string {
  return `${hex64(words[2], words[3])} ${hex64(words[0], words[1])}`;
}
