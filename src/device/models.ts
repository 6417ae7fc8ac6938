/** The IOMMU models by name. */
import { CodedError } from '../base/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { Iommu, IommuOutputs } from './iommu.js';
import type { PasidSpace } from './pasid-space.js';
import { parseSmmuConfig, SMMU_REGISTER_BYTES } from './smmuv3/config.js';
import { SmmuModel } from './smmuv3/model.js';
import { parseVtdConfig, VTD_REGISTER_BYTES } from './vtd/config.js';
import { VtdModel } from './vtd/model.js';

/** What a model is connected to. */
export interface ModelPorts {
  readonly memory: GuestMemory;
  /** The words that the guest reads as registers; {@link modelRegisterBytes} of them. */
  readonly registers: Uint32Array;
  readonly outputs: IommuOutputs;
  /** Where virtual commands get PASIDs; the model has a space of its own without it. */
  readonly pasids?: PasidSpace;
}

/** Bytes of register space of a model. Throws UNKNOWN_MODEL. */
export function modelRegisterBytes(name: string): number {
  if (name === 'vtd') return VTD_REGISTER_BYTES;
  if (name === 'smmuv3') return SMMU_REGISTER_BYTES;
  throw new CodedError('UNKNOWN_MODEL', `no IOMMU model "${name}"; there are: vtd, smmuv3`);
}

/** Makes a model as at power-on. Throws UNKNOWN_MODEL or BAD_OPTION. */
export function createModel(
  name: string,
  options: Readonly<Record<string, string>>,
  ports: ModelPorts,
): Iommu {
  const bytes = modelRegisterBytes(name);
  if (ports.registers.length * 4 !== bytes) {
    throw new Error(`the ${name} model needs ${bytes} bytes of registers, not ${ports.registers.length * 4}`);
  }
  const { memory, registers, outputs, pasids } = ports;
  if (name === 'smmuv3') return new SmmuModel(parseSmmuConfig(options), memory, registers, outputs, pasids);
  return new VtdModel(parseVtdConfig(options), memory, registers, outputs, pasids);
}
