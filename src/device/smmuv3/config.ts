/**
 * What one SMMUv3 is: options from the user, and the identification registers that follow from
 * them. A feature bit is set here and nowhere else, and only for what the model does.
 *
 * Not advertised, and therefore absent: Secure state and Realms, EL2 stream worlds (HYP), AArch32
 * formats, broadcast TLB maintenance (BTM), ATOS and VATOS, SEV, VMID wildcards, terminations other
 * than aborts (TERM_MODEL), attribute and permission overrides, big-endian tables, small
 * translation tables (STT), enhanced command queues.
 */
import { CodedError } from '../../base/errors.js';
import type { RetentionPolicy } from '../../cache/entry-cache.js';
import { pack, type Words } from '../../spec/define.js';
import {
  ADDRESS_BITS,
  AIDR,
  HTTU,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  STALL_MODEL,
  TTENDIAN,
  TTF,
} from '../../spec/smmuv3/registers.js';

export { SMMU_REGISTER_BYTES } from '../../spec/smmuv3/registers.js';

export interface SmmuConfig {
  readonly stage1: boolean;
  readonly stage2: boolean;
  /** log2 of the supported granules: 12, 14, 16. */
  readonly granules: readonly number[];
  /** Output address size in bits, one of 32, 36, 40, 42, 44, 48, 52. */
  readonly outputBits: number;
  /** IDR1.SSIDSIZE. */
  readonly ssidBits: number;
  readonly twoLevel: boolean;
  /** One of {@link HTTU}. */
  readonly httu: number;
  readonly rangeInvalidation: boolean;
  /** IDR0.STALL_MODEL: faults may stall. */
  readonly stall: boolean;
  /** IDR0.ATS. Off unless asked for: docs/findings.md. */
  readonly ats: boolean;
  /** Implies `ats`. */
  readonly pri: boolean;
  /**
   * Virtual command registers: the guest has its SubstreamIDs from us. Implies stage 1 and
   * `ssidBits` > 0.
   */
  readonly virtualCommands: boolean;
  readonly cachePolicy: RetentionPolicy;
}

/** IDR1.SIDSIZE: a StreamID is a PCI requester id. */
export const STREAM_ID_BITS = 16;
/** IDR1.CMDQS, EVENTQS and PRIQS: log2 of the most entries. */
export const QUEUE_LOG2 = 15;
/** IDR5.STALL_MAX: transactions that can be stalled at a time. A STAG names one in its low bits. */
export const STALL_MAX = 256;

const DEFAULTS: Readonly<Record<string, string>> = {
  stages: 'nested',
  granules: '4k,16k,64k',
  oas: '48',
  'ssid-bits': '16',
  'two-level': 'on',
  httu: 'dirty',
  'range-invalidation': 'on',
  stall: 'on',
  ats: 'off',
  pri: 'on',
  'virtual-commands': 'off',
  'cache-policy': 'faithful',
};

const GRANULE_LOG2: Readonly<Record<string, number>> = { '4k': 12, '16k': 14, '64k': 16 };
const STAGES = ['1', '2', 'nested'] as const;
const HTTU_VALUES: Readonly<Record<string, number>> = {
  off: HTTU.NONE,
  access: HTTU.ACCESS_FLAG,
  dirty: HTTU.ACCESS_AND_DIRTY,
};

/** Options of the SMMUv3 model, with their default values. */
export function smmuOptionDefaults(): Readonly<Record<string, string>> {
  return DEFAULTS;
}

/**
 * Reads the model's options. Throws a BAD_OPTION error for a name or a value that it does not know.
 */
export function parseSmmuConfig(options: Readonly<Record<string, string>>): SmmuConfig {
  for (const name of Object.keys(options)) {
    if (!(name in DEFAULTS)) {
      const known = Object.keys(DEFAULTS).join(', ');
      throw new CodedError('BAD_OPTION', `unknown option "${name}" of the SMMUv3 model; known are ${known}`);
    }
  }
  const given = { ...DEFAULTS, ...options };
  const stages = oneOf(given, 'stages', STAGES);
  const granules = parseGranules(given['granules']);
  const outputBits = Number(oneOf(given, 'oas', ['32', '36', '40', '42', '44', '48', '52']));
  if (outputBits === 52 && !granules.includes(16)) {
    throw new CodedError('BAD_OPTION', 'option oas=52 needs the 64k granule: no other one reaches 52 bits');
  }
  const ssidBits = Number(given['ssid-bits']);
  if (!Number.isInteger(ssidBits) || ssidBits < 0 || ssidBits > 20) {
    throw new CodedError('BAD_OPTION', `option ssid-bits must be 0 to 20, not "${given['ssid-bits']}"`);
  }
  const ats = onOff(given, 'ats');
  const virtualCommands = onOff(given, 'virtual-commands');
  if (virtualCommands && (stages === '2' || ssidBits === 0)) {
    throw new CodedError('BAD_OPTION', 'option virtual-commands=on needs stage 1 and ssid-bits of 1 or more');
  }
  return {
    stage1: stages !== '2',
    stage2: stages !== '1',
    granules,
    outputBits,
    ssidBits,
    twoLevel: onOff(given, 'two-level'),
    httu: HTTU_VALUES[oneOf(given, 'httu', ['off', 'access', 'dirty'])],
    rangeInvalidation: onOff(given, 'range-invalidation'),
    stall: onOff(given, 'stall'),
    ats,
    pri: onOff(given, 'pri') && ats,
    virtualCommands,
    cachePolicy: oneOf(given, 'cache-policy', ['faithful', 'none', 'hostile']),
  };
}

function parseGranules(text: string): readonly number[] {
  const granules = text.split(',').map((name) => GRANULE_LOG2[name] ?? 0);
  if (granules.includes(0) || new Set(granules).size !== granules.length) {
    throw new CodedError('BAD_OPTION', `option granules must list some of 4k, 16k, 64k, not "${text}"`);
  }
  return granules;
}

function oneOf<T extends string>(
  options: Readonly<Record<string, string>>,
  name: string,
  choices: readonly T[],
): T {
  const found = choices.find((choice) => choice === options[name]);
  if (found !== undefined) return found;
  throw new CodedError(
    'BAD_OPTION',
    `option ${name} must be one of ${choices.join(', ')}, not "${options[name]}"`,
  );
}

function onOff(options: Readonly<Record<string, string>>, name: string): boolean {
  const given = options[name];
  if (given === 'on' || given === 'true' || given === '1') return true;
  if (given === 'off' || given === 'false' || given === '0') return false;
  throw new CodedError('BAD_OPTION', `option ${name} must be on or off, not "${given}"`);
}

const bit = (on: boolean): number => (on ? 1 : 0);

/** SMMU_IDR0. §6.3.1 */
export function idr0(config: SmmuConfig): Words {
  return pack(IDR0, {
    S2P: bit(config.stage2),
    S1P: bit(config.stage1),
    TTF: TTF.AARCH64,
    COHACC: 1,
    HTTU: config.httu,
    ATS: bit(config.ats),
    ASID16: 1,
    MSI: 1,
    PRI: bit(config.pri),
    VMID16: bit(config.stage2),
    CD2L: bit(config.twoLevel && config.ssidBits > 0),
    TTENDIAN: TTENDIAN.LITTLE,
    STALL_MODEL: config.stall ? STALL_MODEL.STALL_AND_TERMINATE : STALL_MODEL.TERMINATE,
    TERM_MODEL: 1,
    ST_LEVEL: bit(config.twoLevel),
  });
}

/** SMMU_IDR1. §6.3.2 */
export function idr1(config: SmmuConfig): Words {
  return pack(IDR1, {
    SIDSIZE: STREAM_ID_BITS,
    SSIDSIZE: config.stage1 ? config.ssidBits : 0,
    PRIQS: config.pri ? QUEUE_LOG2 : 0,
    EVENTQS: QUEUE_LOG2,
    CMDQS: QUEUE_LOG2,
  });
}

/** SMMU_IDR3. §6.3.4 */
export function idr3(config: SmmuConfig): Words {
  return pack(IDR3, { HAD: bit(config.stage1), XNX: bit(config.stage2), RIL: bit(config.rangeInvalidation) });
}

/** SMMU_IDR5. §6.3.6 */
export function idr5(config: SmmuConfig): Words {
  return pack(IDR5, {
    OAS: ADDRESS_BITS.indexOf(config.outputBits),
    GRAN4K: bit(config.granules.includes(12)),
    GRAN16K: bit(config.granules.includes(14)),
    GRAN64K: bit(config.granules.includes(16)),
    VAX: bit(config.outputBits === 52),
    STALL_MAX: config.stall ? STALL_MAX : 0,
  });
}

/**
 * SMMU_AIDR: SMMUv3.1, which may have features of SMMUv3.2 (§2.9), here RIL. 3.2 would need HYP,
 * FWB and BBML. §6.3.8
 */
export function aidr(): Words {
  return pack(AIDR, { ArchMajorRev: 0, ArchMinorRev: 1 });
}
