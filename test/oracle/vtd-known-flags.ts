/** Known differences of the VT-d units: accessed and Dirty flags. See vtd-known.ts. */
import { ALL, FLAG_CAUSES, firstStage, flagWords, path, refusal, type VtdKnown } from './vtd-conditions.js';

export const VTD_FLAGS: readonly VtdKnown[] = [
  {
    id: 'first-stage-dirty',
    right: 'viommu',
    section: '3.6.2',
    says: 'A write sets the Dirty bit. Ours answers a read of a clean page with the right to read, so that a write is seen; stock with both, and a later write leaves the page clean.',
    claims: (d) => {
      const way = path(d);
      const writable = firstStage(way) && way?.entries.every(({ value }) => ((value ?? 0n) & 2n) !== 0n);
      const read = writable && d.step.request?.access === 1 && d.ours['permissions'] === 1;
      return read && d.stock['permissions'] === 3 ? ['permissions'] : [];
    },
  },
  {
    id: 'flags-one-set',
    right: 'viommu',
    section: '3.6.2',
    says: 'A write sets Accessed and Dirty. Where one of them is set already, stock leaves the other one clear.',
    claims: (d) =>
      flagWords(d, (mine, theirs) => (mine & 0x60n) === 0x60n && [0x20n, 0x40n].includes(theirs & 0x60n)),
  },
  {
    id: 'flags-of-refused-walks',
    right: 'either',
    section: '3.6.2',
    says: 'Entries above the one that refuses a request: ours has used them and set Accessed; stock stops at the first that lacks the right.',
    claims: (d) => flagWords(d, (mine, theirs) => (mine ^ theirs) === 0x20n && (mine & 0x20n) !== 0n),
  },
  {
    id: 'page-walk-snoop',
    right: 'either',
    section: '9.6 (PWSNP), 11.4.3 (SMPWCS)',
    says: 'Ours has coherency control of page walks: where PWSNP is clear, an Accessed or Dirty bit that needs setting is a fault. Stock does not have it.',
    claims: (d) => {
      const clear = ((path(d)?.pasid[1] ?? 0n) & 0x80_0000n) === 0n;
      return clear && ['SFS.9', 'SSS.5'].includes(refusal(d)) ? ALL : [];
    },
  },
  {
    id: 'extended-accessed',
    right: 'either',
    section: '9.6 (EAFE), 11.4.3 (EAFS)',
    says: 'Ours has the extended Accessed flag and sets EA where the PASID-table entry asks for it; stock does not have it.',
    claims: (d) => flagWords(d, (mine, theirs) => (mine & 0x400n) !== 0n && (theirs & 0x400n) === 0n, 0x460n),
  },
  {
    id: 'second-stage-flags',
    right: 'either',
    section: '9.6 (SSADE), 11.4.3 (SSADS)',
    says: 'Ours has second-stage Accessed and Dirty flags and keeps them where the PASID-table entry asks for it; stock does not have them.',
    claims: (d) => {
      const asked = ((path(d)?.pasid[0] ?? 0n) & 0x200n) !== 0n && path(d)?.scalable;
      if (asked && d.ours['permissions'] === 1 && d.stock['permissions'] === 3) return ['permissions'];
      return flagWords(d, (mine, theirs) => (theirs & 0x300n & ~mine) === 0n, 0x300n, 'second');
    },
  },
  {
    id: 'flags-that-follow',
    right: 'either',
    section: '3.6.2',
    says: 'Accessed and Dirty bits in memory at the end of a case in which one side translated what the other did not.',
    claims: (d) => {
      // Two faults that FPD suppresses look the same, whatever they are.
      const hidden = d.machine.machine.outputs.events.some(
        (event) => event.kind === 'fault' && !event.recorded,
      );
      return hidden || FLAG_CAUSES.some((id) => d.earlier.has(id)) ? flagWords(d, () => true) : [];
    },
  },
];
