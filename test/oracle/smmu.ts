import type { Outcome, Step } from './script.js';
import { generateSmmu } from './smmu-generate.js';
import { SMMU_DEATHS, SMMU_KNOWN } from './smmu-known.js';
import { SMMU_KINDS, type SmmuKind } from './smmu-machine.js';
import { describePath, pathOf } from './smmu-path.js';
import type { Suite } from './suite.js';

function reached({ request, text }: Step, ours: Outcome): string[] {
  if (request === undefined) return [text.split(/[ ,:]/)[0]];
  return [ours['translated'] === 1 ? `translated ${ours['log2']}` : String(ours['event'])];
}

/** The SMMUv3 model beside arm-smmuv3. */
export const SMMU: Suite<SmmuKind> = {
  name: 'smmuv3',
  target: 'aarch64',
  kinds: SMMU_KINDS,
  known: SMMU_KNOWN,
  deaths: SMMU_DEATHS,
  generate: generateSmmu,
  reached,
  required: [],
  describe: ({ step, machine }) =>
    step.request === undefined ? '' : describePath(pathOf(machine, step.request)),
};
