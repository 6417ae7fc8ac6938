/**
 * What one VT-d unit is: options from the user, and the capability registers that follow from them.
 * A capability bit is set here and nowhere else, and only for what the model does.
 *
 * Not advertised, and therefore absent: posted interrupts (PI), supervisor and execute requests
 * (SRS, ERS, RPRIVS), PASIDs in translated requests (PTRS), host permission tables (HPTS), memory
 * types (MTS), enhanced commands, protected memory regions (docs/vtd.md says why), write-buffer
 * flushing (RWBF: guest memory is coherent) and zero-length reads (they never reach the model as
 * such).
 */
import { CodedError } from '../../base/errors.js';
import { pack } from '../../spec/define.js';
import type { VtdPagingCapabilities } from '../../spec/pagetable/vtd.js';
import { CAP_REG, ECAP_REG, FRCD_OFFSET, IOTLB_OFFSET, VER_REG } from '../../spec/vtd/registers.js';

/** How long the model's caches keep their entries. ARCHITECTURE.md, Models */
const CACHE_POLICY = { FAITHFUL: 'faithful', NONE: 'none', HOSTILE: 'hostile' } as const;
type CachePolicy = (typeof CACHE_POLICY)[keyof typeof CACHE_POLICY];

export interface VtdConfig {
  readonly cachingMode: boolean;
  readonly scalableMode: boolean;
  /** Widest second-stage input address: MGAW. */
  readonly addressWidth: 39 | 48 | 57;
  /** HAW: bits from here up are reserved in every address that a structure holds. */
  readonly hostAddressWidth: number;
  readonly cachePolicy: CachePolicy;
  readonly snoopControl: boolean;
  readonly passThrough: boolean;
  /**
   * First-stage and nested translation exist: scalable mode, 4-level second stages, and not
   * switched off.
   */
  readonly firstStage: boolean;
  /** Number of fault recording registers. */
  readonly faultRecords: number;
  /** CAP.MAMV: largest address mask of a page-selective IOTLB invalidation. */
  readonly maximumAddressMask: number;
  /** AW encodings (AGAW) that SAGAW reports, as a bit per value. */
  readonly supportedWidths: number;
  /** Devices may translate ahead: translation and translated requests, Device-TLB invalidations. */
  readonly deviceTlb: boolean;
  /** Devices may ask for pages: the page request queue. */
  readonly pageRequests: boolean;
  /** Width of PASIDs, 0 to 20; 0: none, and always so in legacy mode. */
  readonly pasidBits: number;
  /** Virtual command registers: the guest has its PASIDs from us. */
  readonly virtualCommands: boolean;
  /** Interrupts are remapped. */
  readonly interruptRemapping: boolean;
  /** Their destinations may have 32 bits. */
  readonly extendedInterrupts: boolean;
  readonly paging: VtdPagingCapabilities;
}

/** Bytes of register space: one page (§11.1); IOTLB and fault recording registers are inside it. */
export const VTD_REGISTER_BYTES = 4096;

/**
 * The last version with a register-based invalidation interface (§6.5.1); from 2 on it always
 * drains (§6.5.2.3).
 */
const VERSION = { MAX: 5, MIN: 0 } as const;

/** 1 GiB pages are the largest leaf: 2^18 pages of 4 KiB. */
const MAXIMUM_ADDRESS_MASK = 18;

/** ECAP.MHMV: largest index mask of an interrupt entry cache invalidation. §11.4.3 */
export const MAXIMUM_HANDLE_MASK = 15;

const DEFAULTS: Readonly<Record<string, string>> = {
  'caching-mode': 'off',
  'scalable-mode': 'on',
  'first-stage': 'on',
  'aw-bits': '48',
  'cache-policy': 'faithful',
  'snoop-control': 'on',
  'pass-through': 'on',
  'fault-records': '8',
  'device-tlb': 'off',
  'page-requests': 'off',
  'virtual-commands': 'off',
  'pasid-bits': '20',
  intremap: 'off',
  eim: 'off',
};

/** Options of the VT-d model, with their default values. */
export function vtdOptionDefaults(): Readonly<Record<string, string>> {
  return DEFAULTS;
}

/**
 * Reads the model's options. Throws a BAD_OPTION error for a name or a value that it does not know.
 */
export function parseVtdConfig(options: Readonly<Record<string, string>>): VtdConfig {
  for (const name of Object.keys(options)) {
    if (!(name in DEFAULTS)) {
      throw new CodedError(
        'BAD_OPTION',
        `unknown option "${name}" of the VT-d model; known are ${Object.keys(DEFAULTS).join(', ')}`,
      );
    }
  }
  const addressWidth = oneOf(options, 'aw-bits', ['39', '48', '57']);
  const width = addressWidth === '39' ? 39 : addressWidth === '48' ? 48 : 57;
  const scalableMode = onOff(options, 'scalable-mode');
  const faultRecords = Number(value(options, 'fault-records'));
  if (!Number.isInteger(faultRecords) || faultRecords < 1 || faultRecords > 64) {
    throw new CodedError(
      'BAD_OPTION',
      `option fault-records must be 1 to 64, not "${options['fault-records']}"`,
    );
  }
  const snoopControl = onOff(options, 'snoop-control');
  const hostAddressWidth = Math.min(width, 52);
  const cachingMode = onOff(options, 'caching-mode');
  const deviceTlb = onOff(options, 'device-tlb');
  const pageRequests = onOff(options, 'page-requests');
  if (pageRequests && !(deviceTlb && scalableMode))
    needs('page-requests', 'device-tlb=on and scalable-mode=on');
  const pasids = Number(value(options, 'pasid-bits'));
  if (!Number.isInteger(pasids) || pasids < 0 || pasids > 20) {
    throw new CodedError('BAD_OPTION', `option pasid-bits must be 0 to 20, not "${options['pasid-bits']}"`);
  }
  const pasidBits = scalableMode ? pasids : 0;
  const virtualCommands = onOff(options, 'virtual-commands');
  if (virtualCommands && !(pasidBits > 0 && cachingMode))
    needs('virtual-commands', 'scalable-mode=on, pasid-bits above 0 and caching-mode=on');
  const interruptRemapping = onOff(options, 'intremap');
  const extendedInterrupts = onOff(options, 'eim');
  if (extendedInterrupts && !interruptRemapping) needs('eim', 'intremap=on');
  return {
    cachingMode,
    scalableMode,
    addressWidth: width,
    hostAddressWidth,
    cachePolicy: oneOf(options, 'cache-policy', ['faithful', 'none', 'hostile']),
    snoopControl,
    passThrough: onOff(options, 'pass-through'),
    firstStage: scalableMode && width >= 48 && onOff(options, 'first-stage'),
    faultRecords,
    maximumAddressMask: MAXIMUM_ADDRESS_MASK,
    supportedWidths: width === 39 ? 0b0010 : width === 48 ? 0b0110 : 0b1110,
    deviceTlb,
    pageRequests,
    pasidBits,
    virtualCommands,
    interruptRemapping,
    extendedInterrupts,
    paging: {
      hostAddressWidth,
      secondStage2M: true,
      secondStage1G: true,
      firstStage1G: true,
      snoopControl,
      transientMapping: false,
    },
  };
}

function needs(option: string, what: string): never {
  throw new CodedError('BAD_OPTION', `option ${option}=on needs ${what}`);
}

function value(options: Readonly<Record<string, string>>, name: string): string {
  return options[name] ?? DEFAULTS[name];
}

function oneOf<T extends string>(
  options: Readonly<Record<string, string>>,
  name: string,
  choices: readonly T[],
): T {
  const given = value(options, name);
  const found = choices.find((choice) => choice === given);
  if (found === undefined) {
    throw new CodedError('BAD_OPTION', `option ${name} must be one of ${choices.join(', ')}, not "${given}"`);
  }
  return found;
}

function onOff(options: Readonly<Record<string, string>>, name: string): boolean {
  const given = value(options, name);
  if (given === 'on' || given === 'true' || given === '1') return true;
  if (given === 'off' || given === 'false' || given === '0') return false;
  throw new CodedError('BAD_OPTION', `option ${name} must be on or off, not "${given}"`);
}

/** VER_REG's value. §11.4.1 */
export function versionWords(): Uint32Array {
  return pack(VER_REG, VERSION) as Uint32Array;
}

/** CAP_REG's two words. §11.4.2 */
export function capabilityWords(config: VtdConfig): Uint32Array {
  return pack(CAP_REG, {
    ND: 6,
    CM: config.cachingMode ? 1 : 0,
    SAGAW: config.supportedWidths,
    MGAW: config.addressWidth - 1,
    FRO: FRCD_OFFSET / 16,
    SSLPS: 0b0011,
    PSI: 1,
    NFR: config.faultRecords - 1,
    MAMV: config.maximumAddressMask,
    DWD: 1,
    DRD: 1,
    FS1GP: config.firstStage ? 1 : 0,
    FS5LP: config.firstStage ? 1 : 0,
    ESIRTPS: config.interruptRemapping ? 1 : 0,
    ESRTPS: 1,
  }) as Uint32Array;
}

/** ECAP_REG's two words. §11.4.3 */
export function extendedCapabilityWords(config: VtdConfig): Uint32Array {
  const scalable = config.scalableMode ? 1 : 0;
  const firstStage = config.firstStage ? 1 : 0;
  const deviceTlb = config.deviceTlb ? 1 : 0;
  const pageRequests = config.pageRequests ? 1 : 0;
  return pack(ECAP_REG, {
    C: 1,
    QI: 1,
    DT: deviceTlb,
    IR: config.interruptRemapping ? 1 : 0,
    EIM: config.extendedInterrupts ? 1 : 0,
    PT: config.passThrough ? 1 : 0,
    SC: config.snoopControl ? 1 : 0,
    IRO: IOTLB_OFFSET / 16,
    MHMV: config.interruptRemapping ? MAXIMUM_HANDLE_MASK : 0,
    NEST: firstStage,
    PRS: pageRequests,
    NWFS: deviceTlb,
    EAFS: firstStage,
    PSS: Math.max(0, config.pasidBits - 1),
    PASID: config.pasidBits > 0 ? 1 : 0,
    DIT: deviceTlb,
    PDS: pageRequests,
    SMTS: scalable,
    VCS: config.virtualCommands ? 1 : 0,
    SSADS: scalable,
    SSTS: scalable,
    FSTS: firstStage,
    SMPWCS: scalable,
    RPS: scalable,
    ADMS: 1,
  }) as Uint32Array;
}
