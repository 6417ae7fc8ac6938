/**
 * Where stock intel-iommu (QEMU 10) and this model differ, and who is right by the VT-d
 * specification, Rev. 5.10. docs/oracle.md has the same table for people. Each entry is as narrow
 * as the difference can be told.
 */
import type { KnownDeath } from './suite.js';
import type { VtdKnown } from './vtd-conditions.js';
import { VTD_COMMANDS } from './vtd-known-commands.js';
import { VTD_FLAGS } from './vtd-known-flags.js';
import { VTD_REQUESTS } from './vtd-known-requests.js';
import { VTD_SCALABLE } from './vtd-known-scalable.js';

export const VTD_KNOWN: readonly VtdKnown[] = [
  ...VTD_REQUESTS,
  ...VTD_SCALABLE,
  ...VTD_FLAGS,
  ...VTD_COMMANDS,
];

/** What ends a stock QEMU. */
export const VTD_DEATHS: readonly KnownDeath[] = [
  {
    id: 'wait-for-both',
    right: 'viommu',
    section: '6.5.2.9',
    says: 'A wait descriptor with SW and IF ends stock QEMU by an assertion.',
    text: /vtd_process_wait_desc/,
  },
  {
    id: 'quadword-access',
    right: 'viommu',
    section: '11.2',
    says: 'A quadword written to a register of 32 bits at an 8-byte boundary ends stock QEMU by an assertion.',
    text: /vtd_mem_write/,
  },
];
