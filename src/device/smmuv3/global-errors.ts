/** SMMU_GERROR and SMMU_GERRORN: errors toggle, software toggles back. IHI 0070 §6.3.18, §7.5. */
import { GERROR, GERROR_IRQ_CFG0, GERRORN, IRQ_CTRL } from '../../spec/smmuv3/registers.js';
import { WIRE } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { Interrupts } from './interrupts.js';

/** Bits of SMMU_GERROR that this model can set. */
export const GERROR_BIT = {
  CMDQ_ERR: 1 << GERROR.fields.CMDQ_ERR.lsb,
  EVENTQ_ABT_ERR: 1 << GERROR.fields.EVENTQ_ABT_ERR.lsb,
} as const;

const IRQEN = 1 << IRQ_CTRL.fields.GERROR_IRQEN.lsb;

export class GlobalErrors {
  constructor(
    private readonly file: RegisterFile,
    private readonly interrupts: Interrupts,
  ) {}

  /** True while software has not acknowledged the error. */
  active(bit: number): boolean {
    return ((this.file.get(GERROR.offset) ^ this.file.get(GERRORN.offset)) & bit) !== 0;
  }

  /** Makes an error active; one that is active already stays as it is (§6.3.18). */
  raise(bit: number): void {
    if (this.active(bit)) return;
    this.file.set(GERROR.offset, (this.file.get(GERROR.offset) ^ bit) >>> 0);
    if ((this.file.get(IRQ_CTRL.offset) & IRQEN) !== 0) {
      this.interrupts.raise(GERROR_IRQ_CFG0.offset, WIRE.GERROR);
    }
  }
}
