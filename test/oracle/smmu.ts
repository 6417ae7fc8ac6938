import type { OurMachine } from './ours.js';
import { readSmmu } from './reader-smmu.js';
import { Slate } from './reading.js';
import type { Outcome, Step } from './script.js';
import { generateSmmu } from './smmu-generate.js';
import { SMMU_DEATHS, SMMU_KNOWN } from './smmu-known.js';
import { REG, SMMU_ALONE, SMMU_KINDS, type SmmuKind } from './smmu-machine.js';
import { describePath, pathOf } from './smmu-path.js';
import type { Suite } from './suite.js';

/** What a run of some hundred cases reaches on every seed that was tried. */
const REQUIRED = [
  ...['translated stage 1', 'translated stage 2', 'translated nested', 'translated bypassed', 'TTB1'],
  ...[
    'CFGI_STE',
    'CFGI_STE_RANGE',
    'TLBI_NH_VA',
    'TLBI_NH_VAA',
    'TLBI_NH_ASID',
    'TLBI_NH_ALL',
    'TLBI_S12_VMALL',
  ],
  ...['TLBI_S2_IPA', 'TLBI_NSNH_ALL', 'SYNC', 'command error', 'none'],
  ...[
    'C_BAD_STREAMID',
    'C_BAD_STE',
    'C_BAD_CD',
    'F_WALK_EABT',
    'F_TRANSLATION',
    'F_ADDR_SIZE',
    'F_ACCESS',
    'F_PERMISSION',
  ],
  ...['of stage 2', 'CLASS 0', 'CLASS 1'],
  ...['translated with SubstreamID', 'C_BAD_SUBSTREAMID', 'F_STREAM_DISABLED', 'CFGI_CD', 'CFGI_CD_ALL'],
  ...['Access flag set', 'made dirty'],
];

const STAGES: Readonly<Record<number, string>> = { 4: 'bypassed', 5: 'stage 1', 6: 'stage 2', 7: 'nested' };

/**
 * Which flags the transaction has set: Access flags, and dirty state by AP[2] or S2AP[1], both in
 * bit 7.
 */
function updates({ memory }: OurMachine): string[] {
  const names = new Set<string>();
  for (const [address, before] of memory.flagged) {
    const changed = (memory.peek(address) ?? before) ^ before;
    if ((changed & 0x400n) !== 0n) names.add('Access flag set');
    if ((changed & 0x80n) !== 0n) names.add('made dirty');
  }
  return [...names];
}

function reached({ request, text }: Step, ours: Outcome, machine: OurMachine): string[] {
  if (request === undefined) {
    return [text.split(/[ ,:]/)[0], ...(ours['CMDQ_CONS.ERR'] === 1n ? ['command error'] : [])];
  }
  if (ours['translated'] === 0) {
    const stage = ours['S2'] === 1 ? ['of stage 2', `CLASS ${ours['CLASS']}`] : [];
    return [String(ours['event']), ...stage];
  }
  const config = pathOf(machine, request)?.config ?? 0;
  const upper = (config & 1) === 1 && request.address >> 63n === 1n ? ['TTB1'] : [];
  const substream = request.pasid < 0 ? [] : ['translated with SubstreamID'];
  return [`translated ${STAGES[config] ?? 'while off'}`, ...upper, ...substream, ...updates(machine)];
}

/** The SMMUv3 model beside arm-smmuv3. */
export const SMMU: Suite<SmmuKind> = {
  name: 'smmuv3',
  target: 'aarch64',
  kinds: SMMU_KINDS,
  alone: SMMU_ALONE,
  known: SMMU_KNOWN,
  deaths: SMMU_DEATHS,
  generate: generateSmmu,
  reached,
  required: REQUIRED,
  read: ({ request }, machine, kind, ledger) => {
    if (request === undefined) return undefined;
    const register = (offset: number, size: 4 | 8): bigint => machine.machine.readRegister(offset, size);
    const registers = {
      CR0: register(REG.CR0, 4),
      CR2: register(REG.CR2, 4),
      GBPA: register(REG.GBPA, 4),
      STRTAB_BASE: register(REG.STRTAB_BASE, 8),
      STRTAB_BASE_CFG: register(REG.STRTAB_BASE_CFG, 4),
    };
    const slate = new Slate((address) => machine.memory.peek(Number(address)), ledger);
    return readSmmu(kind, registers, slate, request);
  },
  describe: (step, machine) =>
    step.request === undefined ? '' : describePath(pathOf(machine, step.request)),
};
