/** The interrupt remapping table for people: its present entries. */
import { hex, hex64 } from '../../base/u64.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { IRTE } from '../../spec/vtd/interrupts.js';
import type { DumpNode, DumpOptions } from '../iommu.js';
import { fieldText } from './dump-text.js';
import { sourceAllowed } from './interrupt-remapping.js';
import type { InterruptTable } from './interrupt-table.js';

/** A table has 65,536 entries at most; a person has seen enough after so many. */
const MOST_ENTRIES = 256;

/** The table in force, read afresh; with `rid` only the entries that this requester may use. */
export function interruptTable(table: InterruptTable, memory: GuestMemory, options: DumpOptions): DumpNode {
  const { base, entries, extended } = table;
  const label = `interrupt remapping table at ${hex(base)}, ${entries} entries, ${extended ? 'x2APIC' : 'xAPIC'}`;
  const children: DumpNode[] = [];
  const words = new Uint32Array(IRTE.wordCount);
  let present = 0;
  for (let index = 0; index < entries; index++) {
    if (!memory.loadWords(base + index * IRTE.bytes, words, words.length)) {
      return { label, children, note: `entry ${index} is not in memory` };
    }
    if (IRTE.get.P(words) === 0) continue;
    if (options.rid !== undefined && !sourceAllowed(words, options.rid)) continue;
    if (++present > MOST_ENTRIES) continue;
    const raw = `${hex64(words[2], words[3])} ${hex64(words[0], words[1])}`;
    children.push({ label: `IRTE ${index}`, raw, fields: fieldText(IRTE, words, 0) });
  }
  if (present <= MOST_ENTRIES) return { label, children };
  return { label, children, note: `${present - MOST_ENTRIES} more entries` };
}
