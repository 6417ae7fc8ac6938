/**
 * Virtual command registers of the SMMUv3: ours, in the space that IHI 0070 §6.2 leaves
 * IMPLEMENTATION DEFINED (page 0, 0xE00 to 0xEFF). docs/pv-pasid.md specifies them; section numbers
 * here are of that document.
 */
import { type Register, register, ro, rw } from '../define.js';

/** Identification: with {@link VCID1} the bytes "viommuPV". §1 */
export const VCID0 = register('SMMU_VCID0', 0x0e00, 32, { SIGNATURE: ro(31, 0) });
/** §1 */
export const VCID1 = register('SMMU_VCID1', 0x0e04, 32, { SIGNATURE: ro(31, 0) });
/**
 * What is there. PAS: SubstreamIDs are allocated, and others are not the guest's. SSIDSIZE: their
 * width in bits. §1
 */
export const VCCAP = register('SMMU_VCCAP', 0x0e08, 32, { VER: ro(7, 0), PAS: ro(8), SSIDSIZE: ro(20, 16) });
/** A command. SubstreamID stands where commands and events of the architecture have it. §2 */
export const VCMD = register('SMMU_VCMD', 0x0e10, 32, { CMD: rw(7, 0), SubstreamID: rw(31, 12) });
/** What became of it. §3 */
export const VCRSP = register('SMMU_VCRSP', 0x0e14, 32, {
  BUSY: ro(0),
  SC: ro(7, 1),
  SubstreamID: ro(31, 12),
});

/** VCID0.SIGNATURE and VCID1.SIGNATURE. §1 */
export const VCID_SIGNATURE = [0x6d6f6976, 0x5650756d] as const;
/** VCCAP.VER. §1 */
export const VC_VERSION = 1;

/** VCMD.CMD. §2 */
export const VCMD_COMMAND = { NULL: 0, ALLOCATE: 1, FREE: 2 } as const;

/** VCRSP.SC. §3 */
export const VCRSP_STATUS = { SUCCESS: 0, UNDEFINED_COMMAND: 1, NO_SUBSTREAMID: 16, NOT_OWNED: 17 } as const;

/** Registers that are RES0 unless virtual commands are offered, in ascending order. */
export const VIRTUAL_COMMAND_REGISTERS: readonly Register<string>[] = [VCID0, VCID1, VCCAP, VCMD, VCRSP];
