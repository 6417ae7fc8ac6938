/**
 * The stock machines that have an SMMUv3, and the registers as both sides have them. IHI 0070,
 * chapter 6
 */
import { decode } from '../../src/spec/define.js';
import { EVENT_BYTES, EVENT_LAYOUT, eventName } from '../../src/spec/smmuv3/events.js';
import { type Answers, copy, dump, load, store, translate } from './operations.js';
import type { SmmuUnit } from './reader-smmu.js';
import { hex, type Outcome, type Request, type Script, show } from './script.js';
import type { MachineKind } from './suite.js';

/** Where the virt machine puts its SMMU. */
export const UNIT = 0x0905_0000;
export const RAM = 0x4000_0000;
export const RAM_BYTES = 64 << 20;
/** Structures and tables, in one block of 2 MiB. */
export const ARENA = 0x4300_0000;
export const ARENA_BYTES = 0x0020_0000;
/** IDR5.OAS of the stock model. */
export const OUTPUT_BITS = 44;

export const REG = {
  CR0: 0x20,
  CR0ACK: 0x24,
  CR1: 0x28,
  CR2: 0x2c,
  GBPA: 0x44,
  IRQ_CTRL: 0x50,
  GERROR: 0x60,
  GERRORN: 0x64,
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0,
  EVENTQ_PROD: 0x1_00a8,
  EVENTQ_CONS: 0x1_00ac,
} as const;

export interface SmmuKind extends MachineKind, SmmuUnit {}

function kind(name: string, share: number, stages: SmmuKind['stages']): SmmuKind {
  // Newer machines have nested stages whatever is asked for.
  const machine = stages === 'nested' ? 'virt' : 'virt-9.1';
  const chosen = stages === 'nested' ? [] : ['-global', `arm-smmuv3.stage=${stages}`];
  return {
    name,
    share,
    stages,
    ...{ outputBits: OUTPUT_BITS, substreamBits: 0, updates: 0 },
    args: ['-machine', `${machine},iommu=smmuv3,gic-version=3,highmem=off`, '-m', '64M', ...chosen],
    ours: {
      model: 'smmuv3',
      options: {
        stages,
        oas: String(OUTPUT_BITS),
        'ssid-bits': '0',
        httu: 'off',
        stall: 'off',
        ats: 'off',
        pri: 'off',
      },
      registers: UNIT,
      ram: [[RAM, RAM_BYTES]],
    },
  };
}

export const SMMU_KINDS: readonly SmmuKind[] = [
  kind('nested', 10, 'nested'),
  kind('stage-1', 6, '1'),
  kind('stage-2', 4, '2'),
];

/**
 * CD tables with SubstreamIDs, hardware updates of Access flags and dirty state, 48 and 52 bits of
 * addresses.
 */
export const SMMU_ALONE: readonly SmmuKind[] = [
  alone('substreams', 5, 'nested', 48, 12, 2),
  alone('substreams 52', 3, 'nested', 52, 12, 2),
  alone('substreams access', 2, '1', 44, 6, 1),
];

function alone(
  name: string,
  share: number,
  stages: SmmuKind['stages'],
  outputBits: number,
  substreamBits: number,
  updates: 1 | 2,
): SmmuKind {
  const options = {
    ...{ stages, oas: String(outputBits), 'ssid-bits': String(substreamBits) },
    ...{ httu: updates === 2 ? 'dirty' : 'access', stall: 'off', ats: 'off', pri: 'off' },
  };
  const ours = { model: 'smmuv3' as const, options, registers: UNIT, ram: [[RAM, RAM_BYTES] as const] };
  return { name, share, stages, outputBits, substreamBits, updates, ours };
}

export const reg = (offset: number): number => UNIT + offset;

export function write(script: Script, offset: number, size: 4 | 8, value: bigint, name: string): void {
  script.do(`${name} = ${hex(value)}`, [store(reg(offset), size, value)]);
}

/** log2 of the entries of the event queue. */
export const EVENTQ_LOG2 = 3;

/** One transaction of a device and the event that it makes, which is taken off the queue. */
export function request(script: Script, asked: Request, eventQueue: number): void {
  const { rid, pasid, access, address } = asked;
  script.steps.push({
    text: show(asked),
    request: asked,
    operations: [
      translate(rid, pasid, access, address),
      load(reg(REG.EVENTQ_CONS), 4),
      load(reg(REG.EVENTQ_PROD), 4),
      dump(eventQueue, EVENT_BYTES << EVENTQ_LOG2),
      copy(reg(REG.EVENTQ_PROD), reg(REG.EVENTQ_CONS), 4),
    ],
    look: (answers) => ({ ...translation(answers, asked), ...event(answers) }),
  });
}

function translation(answers: Answers, { access, address }: Request): Outcome {
  const { output, mask, permissions } = answers.translated();
  if ((permissions & access) !== access) return { translated: 0 };
  return {
    translated: 1,
    output: (output & ~mask) | (address & mask),
    log2: mask.toString(2).length,
    permissions,
  };
}

/** Fields of the newest event. */
function event(answers: Answers): Outcome {
  const [cons, prod, queue] = [answers.load(), answers.load(), answers.dump()];
  if (cons === prod) return { event: 'none' };
  const index = Number((prod - 1n) & ((1n << BigInt(EVENTQ_LOG2)) - 1n));
  const view = new DataView(queue.buffer, queue.byteOffset + index * EVENT_BYTES, EVENT_BYTES);
  const words = Uint32Array.from({ length: EVENT_BYTES / 4 }, (_, n) => view.getUint32(n * 4, true));
  const number = words[0] & 0xff;
  const shape = EVENT_LAYOUT[number];
  if (shape === undefined) return { event: eventName(number), events: Number(prod - cons) };
  const { InputAddr: _, ...fields } = decode(shape, words);
  const input = 'InputAddr' in shape.fields ? { InputAddr: view.getBigUint64(16, true) } : {};
  return { event: shape.name, ...fields, ...input };
}
