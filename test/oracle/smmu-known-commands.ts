/** Known differences of the SMMUv3: commands. See smmu-known.ts. */
import type { SmmuKnown } from './smmu-conditions.js';

/** Commands of features that neither advertises. */
const ABSENT = ['TLBI_EL2_ALL', 'TLBI_EL3_ALL', 'ATC_INV', 'PRI_RESP', 'RESUME', 'STALL_TERM'];

export const SMMU_COMMANDS: readonly SmmuKnown[] = [
  {
    id: 'reserved-in-commands',
    right: 'viommu',
    section: '4.1.1 (SSec), 4.3.3, 4.7.3 (CS)',
    says: 'SSec in a Non-secure queue, CS 0b11, a range of nothing, and CFGI_CD without stage 1 are CERROR_ILL. Stock looks at SSec in some commands, and at none of the others.',
    claims: ({ step, ours, stock, fields }) => {
      const wrong = /wrong command: (SYNC, CS 3|TLBI_NSNH_ALL, SSec|range of nothing|CFGI_CD)$/.test(
        step.text,
      );
      return wrong && ours['CMDQ_CONS.ERR'] === 1n && stock['CMDQ_CONS.ERR'] === 0n ? fields : [];
    },
    ends: true,
  },
  {
    id: 'absent-commands',
    right: 'viommu',
    section: '4.1.1, 4.1.3',
    says: 'A command of a feature that is not advertised is CERROR_ILL. Stock takes those that it knows and does nothing.',
    claims: ({ step, ours, stock, fields }) => {
      const name = step.text.split('wrong command: ')[1] ?? '';
      const both = ours['CMDQ_CONS.ERR'] === 1n && stock['CMDQ_CONS.ERR'] === 0n;
      return both && ABSENT.includes(name) ? fields : [];
    },
    ends: true,
  },
];
