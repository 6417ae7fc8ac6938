import { expect, it } from 'vitest';
import { hardwareAbilities, KERNEL_TYPE, smmuInfo, vtdInfo } from './kernel-structures.js';

it('knows the VT-d whose nest parents take no mapping that may be read only, by its flag', () => {
  const parents = (flags: number) =>
    hardwareAbilities(KERNEL_TYPE.VTD, vtdInfo([0, 0], [0, 0], flags))?.readOnlyParents;
  expect([parents(0), parents(1), parents(2)]).toEqual([true, false, true]);
  const smmu = hardwareAbilities(KERNEL_TYPE.SMMUV3, smmuInfo([0, 0, 0, 0, 0, 0]));
  expect(smmu?.readOnlyParents).toBe(true);
});
