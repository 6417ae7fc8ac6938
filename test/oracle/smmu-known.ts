/**
 * Where stock arm-smmuv3 (QEMU 10) and this model differ, and who is right by IHI 0070.
 * docs/oracle.md has the same table for people. Each entry is as narrow as the difference can be
 * told.
 */
import type { SmmuKnown } from './smmu-conditions.js';
import { SMMU_COMMANDS } from './smmu-known-commands.js';
import { SMMU_STRUCTURES } from './smmu-known-structures.js';
import { SMMU_WALKS } from './smmu-known-walks.js';
import type { KnownDeath } from './suite.js';

export const SMMU_KNOWN: readonly SmmuKnown[] = [...SMMU_WALKS, ...SMMU_STRUCTURES, ...SMMU_COMMANDS];

/** What ends a stock QEMU. */
export const SMMU_DEATHS: readonly KnownDeath[] = [
  {
    id: 'stage-2-aarch32',
    right: 'viommu',
    section: '5.2 (S2AA64)',
    says: 'S2AA64 = 0 is C_BAD_STE where IDR0.TTF has no AArch32. It ends stock QEMU by an assertion.',
    text: /decode_ste_s2_cfg/,
  },
  {
    id: 'reserved-size',
    right: 'viommu',
    section: '5.4 (IPS), 5.2 (S2PS)',
    says: 'The reserved output size 0b111, and 0b110, count as the largest. They end stock QEMU by an assertion.',
    text: /oas2bits/,
  },
];
