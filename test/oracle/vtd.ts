import type { OurMachine } from './ours.js';
import { readVtd } from './reader-vtd.js';
import { Slate } from './reading.js';
import type { Outcome, Request, Step } from './script.js';
import type { Suite } from './suite.js';
import { generateVtd } from './vtd-generate.js';
import { VTD_DEATHS, VTD_KNOWN } from './vtd-known.js';
import { REG, VTD_ALONE, VTD_KINDS, type VtdKind } from './vtd-machine.js';
import { describePath, pathOf } from './vtd-path.js';

/** What a run of some hundred cases reaches on every seed that was tried. */
const REQUIRED = [
  ...['translated 4 KiB', 'translated 2 MiB', 'translated 1 GiB', 'translated with PASID', 'memory'],
  ...['context', 'IOTLB', 'PASID', 'wait', 'queue error'],
  ...[
    'LRT.2',
    'LRT.3',
    'LCT.1',
    'LCT.2',
    'LCT.3',
    'LCT.4',
    'LSS.1',
    'LSS.2',
    'LGN.1',
    'LGN.2',
    'LGN.3',
    'LGN.4',
  ],
  ...['SRT.2', 'SCT.2', 'SCT.3', 'SCT.6', 'SPD.2', 'SPT.2', 'SPT.3', 'SSS.2'],
  ...['translated nested', 'translated first stage', 'translated second stage', 'flags set'],
  ...['first stage of 5 levels', 'second stage of 5 levels', 'SFS.6', 'SFS.8'],
  ...['SFS.2', 'SGN.1', 'SGN.2', 'SGN.4', 'SGN.5', 'SGN.6', 'SGN.7', 'SGN.8'],
];

const SIZES: Readonly<Record<number, string>> = { 12: '4 KiB', 21: '2 MiB', 30: '1 GiB' };

const PGTT: Readonly<Record<number, string>> = { 1: 'first stage', 2: 'second stage', 3: 'nested' };

/** Stages and levels of the PASID-table entry that translated, and flags that were set. */
function shape(request: Request, machine: OurMachine): string[] {
  const { scalable, pasid } = pathOf(machine.memory, machine.machine.readRegister(REG.RTADDR, 8), request);
  const flags = machine.memory.flagged.size > 0 ? ['flags set'] : [];
  const [low, , third] = pasid.map((word) => word ?? 0n);
  if (!scalable || low === undefined) return flags;
  const stage = PGTT[Number((low >> 6n) & 7n)];
  if (stage === undefined) return flags;
  const first = stage !== 'second stage' && ((third >> 2n) & 3n) === 1n ? ['first stage of 5 levels'] : [];
  const second = stage !== 'first stage' && ((low >> 2n) & 7n) === 3n ? ['second stage of 5 levels'] : [];
  return [...flags, `translated ${stage}`, ...first, ...second];
}

function reached({ request, text }: Step, ours: Outcome, machine: OurMachine): string[] {
  if (request === undefined) {
    const error = ours['FSTS.IQE'] === 1 ? ['queue error'] : [];
    return [text.split(/[ ,:]/)[0], ...error];
  }
  if (ours['translated'] === 0)
    return [ours['fault'] === 'none' ? 'fault not recorded' : String(ours['fault'])];
  const size = SIZES[Number(ours['log2'])] ?? 'another size';
  const tagged = request.pasid < 0 ? [] : ['translated with PASID'];
  return [`translated ${size}`, ...tagged, ...shape(request, machine)];
}

/** The VT-d model beside intel-iommu. */
export const VTD: Suite<VtdKind> = {
  name: 'vtd',
  target: 'x86_64',
  kinds: VTD_KINDS,
  alone: VTD_ALONE,
  known: VTD_KNOWN,
  deaths: VTD_DEATHS,
  generate: generateVtd,
  reached,
  required: REQUIRED,
  // One side has a record for the next request to meet, the other has none.
  parts: ({ step, ours, stock }) =>
    step.keeps === true && (ours['fault'] === 'none') !== (stock['fault'] === 'none'),
  read: ({ request }, machine, kind, ledger) => {
    if (request === undefined) return undefined;
    const register = (offset: number, size: 4 | 8): bigint => machine.machine.readRegister(offset, size);
    const registers = {
      GSTS: register(REG.GSTS, 4),
      RTADDR: register(REG.RTADDR, 8),
      FRCD: register(REG.FRCD + 8, 8),
    };
    const slate = new Slate((address) => machine.memory.peek(Number(address)), ledger);
    return readVtd({ ...kind, scalable: kind.scalable !== undefined }, registers, slate, request);
  },
  describe: (step, machine) => {
    if (step.request === undefined) return '';
    return describePath(pathOf(machine.memory, machine.machine.readRegister(REG.RTADDR, 8), step.request));
  },
};
