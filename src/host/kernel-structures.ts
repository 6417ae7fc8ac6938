/**
 * The structures of linux/iommufd.h that describe guest tables, invalidations, faults and what an
 * IOMMU can do, as bytes on their way to the host's kernel or from it. Little-endian words; 64-bit
 * fields are two.
 */
import { IDR0, IDR1 } from '../spec/smmuv3/registers.js';
import { CAP_REG, ECAP_REG } from '../spec/vtd/registers.js';
import { HostError } from './host-errors.js';
import { ALL_PAGES, type NestedTable } from './port.js';

/**
 * enum iommu_hw_info_type, iommu_hwpt_data_type; enum iommu_hwpt_invalidate_data_type counts from
 * 0.
 */
export const KERNEL_TYPE = { VTD: 1, SMMUV3: 2 } as const;
export const INVALIDATE_TYPE = { VTD: 0, SMMUV3: 1 } as const;
/** enum iommu_veventq_type; the kernel has none for a fault recording register. */
export const EVENT_TYPE = { SMMUV3: 1, VTD_FAULT: 0x80000000 } as const;

/** Words of an invalidation: iommu_hwpt_vtd_s1_invalidate, iommu_viommu_arm_smmuv3_invalidate. */
export const INVALIDATE_WORDS = { VTD: 6, SMMUV3: 4 } as const;

/** Flags of iommu_hwpt_vtd_s1. */
const VTD_S1 = { SRE: 1, EAFE: 2, WPE: 4 } as const;
const VTD_S1_WORDS = 6;
const SMMU_STE_WORDS = 4;
/**
 * Words of iommu_hw_info_vtd: flags, reserved, CAP_REG, ECAP_REG. Of iommu_hw_info_arm_smmuv3:
 * flags, reserved, IDR0 to IDR5, IIDR, AIDR.
 */
const VTD_INFO_WORDS = 6;
const SMMU_INFO_WORDS = 10;
const INFO_REGISTERS = 2;
/**
 * Flag of iommu_hw_info_vtd: the kernel refuses a nest parent mappings that may be read only
 * (772415_SPR17).
 */
const READ_ONLY_ERRATUM = 1;

export function toBytes(words: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  for (let index = 0; index < words.length; index++) view.setUint32(index * 4, words[index], true);
  return bytes;
}

/** Whole words; what is left over at the end is not read. */
export function toWords(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: bytes.length >> 2 }, (_, index) => view.getUint32(index * 4, true));
}

/** What a VT-d says of itself. */
export function vtdInfo(cap: ArrayLike<number>, ecap: ArrayLike<number>, flags = 0): Uint8Array {
  return toBytes([flags, 0, cap[0], cap[1], ecap[0], ecap[1]]);
}

/** The same of an SMMUv3: IDR0 to IDR5. */
export function smmuInfo(idr: ArrayLike<number>): Uint8Array {
  const words = new Uint32Array(SMMU_INFO_WORDS);
  words.set(Array.from(idr), INFO_REGISTERS);
  return toBytes(words);
}

/** What hardware can do, whatever its kernel makes of it. */
interface HardwareAbilities {
  readonly kind: 'smmuv3' | 'vtd2' | 'vtd3';
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly nesting: boolean;
  /** Widest PASID of the IOMMU; 0: none. */
  readonly pasidBits: number;
  readonly pageRequests: boolean;
  /** A nest parent takes mappings that may be read only. */
  readonly readOnlyParents: boolean;
}

/**
 * Reads IOMMU_GET_HW_INFO's answer. Undefined: a type or a size that this version does not know.
 */
export function hardwareAbilities(type: number, info: Uint8Array): HardwareAbilities | undefined {
  const words = toWords(info);
  if (type === KERNEL_TYPE.VTD && words.length >= VTD_INFO_WORDS) return vtdAbilities(words);
  if (type === KERNEL_TYPE.SMMUV3 && words.length >= SMMU_INFO_WORDS) return smmuAbilities(words);
  return undefined;
}

function vtdAbilities(words: Uint32Array): HardwareAbilities {
  const { get } = ECAP_REG;
  const at = INFO_REGISTERS + CAP_REG.wordCount;
  const scalable = get.SMTS(words, at) === 1;
  // Before scalable mode a first level came with PASIDs, and a second one always.
  return {
    kind: scalable ? 'vtd3' : 'vtd2',
    stage1: scalable ? get.FSTS(words, at) === 1 : get.PASID(words, at) === 1,
    stage2: scalable ? get.SSTS(words, at) === 1 : true,
    nesting: get.NEST(words, at) === 1,
    pasidBits: get.PASID(words, at) === 1 ? get.PSS(words, at) + 1 : 0,
    pageRequests: get.PRS(words, at) === 1,
    readOnlyParents: (words[0] & READ_ONLY_ERRATUM) === 0,
  };
}

function smmuAbilities(words: Uint32Array): HardwareAbilities {
  const stage1 = IDR0.get.S1P(words, INFO_REGISTERS) === 1;
  const stage2 = IDR0.get.S2P(words, INFO_REGISTERS) === 1;
  return {
    kind: 'smmuv3',
    stage1,
    stage2,
    nesting: stage1 && stage2,
    pasidBits: IDR1.get.SSIDSIZE(words, INFO_REGISTERS + 1),
    pageRequests: IDR0.get.PRI(words, INFO_REGISTERS) === 1,
    readOnlyParents: true,
  };
}

/** enum iommu_hwpt_data_type, and its structure. */
export function encodeTable(table: NestedTable): { readonly type: number; readonly data: Uint8Array } {
  if (table.format === 'smmuv3') return { type: KERNEL_TYPE.SMMUV3, data: toBytes(table.ste) };
  const flags =
    (table.supervisor ? VTD_S1.SRE : 0) |
    (table.extendedAccessed ? VTD_S1.EAFE : 0) |
    (table.writeProtect ? VTD_S1.WPE : 0);
  const { root } = table;
  const data = toBytes([
    flags,
    0,
    root % 2 ** 32,
    Math.floor(root / 2 ** 32),
    table.levels === 5 ? 57 : 48,
    0,
  ]);
  return { type: KERNEL_TYPE.VTD, data };
}

/** Throws {@link HostError} BAD_TABLE. */
export function decodeTable(type: number, data: Uint8Array): NestedTable {
  const words = toWords(data);
  if (type === KERNEL_TYPE.SMMUV3 && data.length === SMMU_STE_WORDS * 4) {
    return { format: 'smmuv3', ste: words };
  }
  if (type !== KERNEL_TYPE.VTD || data.length !== VTD_S1_WORDS * 4) {
    throw new HostError('BAD_TABLE', `type ${type}, ${data.length} bytes`);
  }
  const [flags, flagsHigh, lo, hi, width, reserved] = words as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (flags > 7 || flagsHigh !== 0 || reserved !== 0 || (width !== 48 && width !== 57)) {
    throw new HostError('BAD_TABLE', `flags ${flags}, ${width} bits`);
  }
  return {
    format: 'vtd',
    root: hi * 2 ** 32 + lo,
    levels: width === 57 ? 5 : 4,
    supervisor: (flags & VTD_S1.SRE) !== 0,
    extendedAccessed: (flags & VTD_S1.EAFE) !== 0,
    writeProtect: (flags & VTD_S1.WPE) !== 0,
  };
}

/**
 * Writes an iommu_hwpt_vtd_s1_invalidate; `pages` {@link ALL_PAGES} is everything: address 0, all
 * ones.
 */
export function putVtdInvalidation(view: DataView, at: number, lo: number, hi: number, pages: number): void {
  const all = pages === ALL_PAGES;
  view.setUint32(at, all ? 0 : lo, true);
  view.setUint32(at + 4, all ? 0 : hi, true);
  view.setUint32(at + 8, pages, true);
  view.setUint32(at + 12, all ? 0xffffffff : 0, true);
  view.setUint32(at + 16, 0, true);
  view.setUint32(at + 20, 0, true);
}
