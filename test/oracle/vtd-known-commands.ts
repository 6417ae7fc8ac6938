/** Known differences of the VT-d units: registers and the invalidation queue. See vtd-known.ts. */
import type { VtdKnown } from './vtd-conditions.js';

export const VTD_COMMANDS: readonly VtdKnown[] = [
  {
    id: 'domain-selective-as-global',
    right: 'either',
    section: '11.4.6.1 (CAIG)',
    says: 'Stock performs a domain-selective context-cache invalidation as a global one, and says so in CAIG.',
    claims: ({ ours, stock }) => (ours['CCMD.CAIG'] === 2 && stock['CCMD.CAIG'] === 1 ? ['CCMD.CAIG'] : []),
  },
  {
    id: 'device-tlb-descriptors',
    right: 'viommu',
    section: '6.5.2.5, 6.5.2.11',
    says: 'Device-TLB invalidations are invalid types while ECAP.DT is clear. Stock takes them.',
    claims: ({ step, ours, stock }) => {
      const both = step.text.endsWith(': Device-TLB') && ours['FSTS.IQE'] === 1 && stock['FSTS.IQE'] === 0;
      return both ? ['IQH', 'FSTS.IQE'] : [];
    },
    ends: true,
  },
  {
    id: 'interrupt-entry-descriptors',
    right: 'viommu',
    section: '6.5.2.8, 6.5.2.11',
    says: 'Interrupt-entry-cache invalidations are invalid types while ECAP.IR is clear. Stock takes them.',
    claims: ({ step, ours, stock }) => {
      const entry = /: interrupt entry cache/.test(step.text);
      const both = entry && ours['FSTS.IQE'] === 1 && stock['FSTS.IQE'] === 0;
      return both ? ['IQH', 'FSTS.IQE'] : [];
    },
    ends: true,
  },
  {
    id: 'wait-for-nothing',
    right: 'viommu',
    section: '6.5.2.9',
    says: 'A wait descriptor may ask for neither status nor interrupt (a fence). Stock takes it for an error.',
    claims: ({ step, ours, stock }) => {
      const both =
        step.text.endsWith(': wait for nothing') && ours['FSTS.IQE'] === 0 && stock['FSTS.IQE'] === 1;
      return both ? ['IQH', 'FSTS.IQE'] : [];
    },
    ends: true,
  },
  {
    id: 'pasid-cache-descriptor',
    right: 'viommu',
    section: '6.5.2.2, 6.5.2.11',
    says: 'A PASID-cache invalidation with reserved bits or granularity, of 128 bits or in legacy mode is an error. Stock looks at its type alone.',
    claims: ({ step, ours, stock }) => {
      const both = /: PASID cache/.test(step.text) && ours['FSTS.IQE'] === 1 && stock['FSTS.IQE'] === 0;
      return both ? ['IQH', 'FSTS.IQE'] : [];
    },
    ends: true,
  },
  {
    id: 'upper-address-registers',
    right: 'either',
    section: '11.4.7.5, 11.4.9.8',
    says: 'Without extended interrupt mode a unit may treat FEUADDR and IEUADDR as reserved, and the upper half of IEDATA. Stock does, but keeps that half; ours has the registers, and the data of 16 bits.',
    claims: ({ ours, stock, fields }) =>
      fields.filter((name) => {
        if (name.endsWith('UADDR')) return stock[name] === 0n;
        return name === 'IEDATA' && ((stock[name] as bigint) & 0xffffn) === ours[name];
      }),
  },
];
