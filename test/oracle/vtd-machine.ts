/** The stock machines that have an intel-iommu, and the registers as both sides have them. */
import { FAULT } from '../../src/spec/vtd/faults.js';
import { type Answers, load, store, translate } from './operations.js';
import { hex, type Outcome, type Request, type Script, show } from './script.js';
import type { MachineKind } from './suite.js';

/** Where the q35 machine puts its remapping unit. */
export const UNIT = 0xfed9_0000;
export const RAM_BYTES = 64 << 20;
/** Tables. One flipped bit of an address here leads into RAM above 1 MiB or to where nothing is. */
export const ARENA = 0x0300_0000;
export const ARENA_BYTES = 0x0010_0000;

/** The step that compares what is left in memory. */
export const MEMORY = 'memory at the end';

export const REG = {
  CAP: 0x08,
  ECAP: 0x10,
  GCMD: 0x18,
  GSTS: 0x1c,
  RTADDR: 0x20,
  CCMD: 0x28,
  FSTS: 0x34,
  FECTL: 0x38,
  IQH: 0x80,
  IQT: 0x88,
  IQA: 0x90,
  ICS: 0x9c,
  IECTL: 0xa0,
  IVA: 0xf0,
  IOTLB: 0xf8,
  FRCD: 0x220,
} as const;

export interface VtdKind extends MachineKind {
  readonly addressWidth: 39 | 48 | 57;
  /**
   * What the stock machine translates in scalable mode; undefined = it has none; all: none has it.
   */
  readonly scalable: 'second' | 'first' | 'all' | undefined;
  readonly cachingMode: boolean;
  readonly snoopControl: boolean;
}

function kind(
  name: string,
  share: number,
  addressWidth: 39 | 48 | 57,
  options: Partial<Pick<VtdKind, 'scalable' | 'cachingMode' | 'snoopControl'>>,
): VtdKind {
  const { scalable, cachingMode = false, snoopControl = false } = options;
  const onOff = (on: boolean): string => (on ? 'on' : 'off');
  const modes = [
    ...(scalable !== undefined ? ['x-scalable-mode=on', 'x-pasid-mode=on'] : []),
    ...(scalable === 'first' ? ['x-flts=on'] : []),
  ];
  const device = [
    'intel-iommu,intremap=off',
    `aw-bits=${addressWidth}`,
    `caching-mode=${onOff(cachingMode)}`,
    `snoop-control=${onOff(snoopControl)}`,
    ...modes,
  ];
  return {
    name,
    share,
    addressWidth,
    scalable,
    cachingMode,
    snoopControl,
    ...(scalable === 'all' ? {} : { args: ['-machine', 'q35', '-m', '64M', '-device', device.join(',')] }),
    ours: {
      model: 'vtd',
      options: {
        'aw-bits': String(addressWidth),
        'caching-mode': onOff(cachingMode),
        'scalable-mode': onOff(scalable !== undefined),
        'snoop-control': onOff(snoopControl),
        // The stock model has one.
        'fault-records': '1',
      },
      registers: UNIT,
      // Without the hole below 1 MiB, where the two differ and no table ever is.
      ram: [
        [0, 0xa0000],
        [0x10_0000, RAM_BYTES - 0x10_0000],
      ],
    },
  };
}

export const VTD_KINDS: readonly VtdKind[] = [
  kind('legacy-48', 6, 48, { snoopControl: true }),
  kind('legacy-39', 4, 39, { cachingMode: true }),
  kind('second-48', 4, 48, { scalable: 'second', snoopControl: true }),
  kind('second-39', 2, 39, { scalable: 'second' }),
  kind('first-48', 4, 48, { scalable: 'first', snoopControl: true }),
];

/** Nested translation, tables of 5 levels, flags of the second stage, extended Accessed flags. */
export const VTD_ALONE: readonly VtdKind[] = [
  kind('all-48', 4, 48, { scalable: 'all', snoopControl: true }),
  kind('all-57', 4, 57, { scalable: 'all' }),
  kind('all-57 caching', 2, 57, { scalable: 'all', cachingMode: true, snoopControl: true }),
];

export const reg = (offset: number): number => UNIT + offset;

export function write(script: Script, offset: number, size: 4 | 8, value: bigint, name: string): void {
  script.do(`${name} = ${hex(value)}`, [store(reg(offset), size, value)]);
}

const REASONS = new Map<number, string>(
  Object.entries(FAULT).map(([name, reason]) => [reason, name.replace('_', '.')]),
);

/** A fault reason's condition code, or `none`. */
function reasonName(reason: number): string {
  return reason === 0 ? 'none' : (REASONS.get(reason) ?? `reason ${hex(reason)}`);
}

/** FSTS.PFO, PPF, IQE, ICE, ITE, FRI. */
const STATUS = 0xff73n;
const PENDING = 1n << 30n;

/**
 * One request of a device and the fault that it makes. `keep`: the record is left for the next
 * request to meet.
 */
export function request(script: Script, asked: Request, keep = false): void {
  const { rid, pasid, access, address } = asked;
  const clear = [store(reg(REG.FRCD + 12), 4, 1n << 31n), store(reg(REG.FSTS), 4, 1n)];
  script.steps.push({
    text: `${show(asked)}${keep ? ', its fault left in place' : ''}`,
    request: asked,
    ...(keep ? { keeps: true } : {}),
    operations: [
      load(reg(REG.FRCD + 8), 8),
      translate(rid, pasid, access, address),
      load(reg(REG.FRCD), 8),
      load(reg(REG.FRCD + 8), 8),
      load(reg(REG.FSTS), 4),
      load(reg(REG.FECTL), 4),
      ...(keep ? [] : clear),
    ],
    look: (answers) => {
      const before = answers.load();
      return { ...translation(answers, asked), ...fault(answers, before), ...status(answers) };
    },
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

/**
 * The fault that a request made. `before`: what the record held. One that another request has left
 * there was compared with that request; of this one it says only that nothing was written over it.
 */
function fault(answers: Answers, before: bigint): Outcome {
  const [lo, hi] = [answers.load(), answers.load()];
  if (before >> 63n === 1n) {
    return { fault: 'pending', SID: Number(before & 0xffffn), overwritten: hi === before ? 0 : 1 };
  }
  if (hi >> 63n === 0n) return { fault: 'none' };
  const bit = (at: bigint): number => Number((hi >> at) & 1n);
  const pasid = bit(31n) === 1;
  return {
    fault: reasonName(Number((hi >> 32n) & 0xffn)),
    SID: Number(hi & 0xffffn),
    FI: lo,
    T1: bit(62n),
    T2: bit(28n),
    PP: bit(31n),
    // Undefined without PP (§11.4.7.6).
    ...(pasid ? { PV: Number((hi >> 40n) & 0xf_ffffn), EXE: bit(30n), PRIV: bit(29n) } : {}),
  };
}

function status(answers: Answers): Outcome {
  return { FSTS: answers.load() & STATUS, 'FECTL.IP': (answers.load() & PENDING) === 0n ? 0 : 1 };
}
