/** SMMU_GERROR and SMMU_GERRORN: errors toggle, software toggles back. IHI 0070 §6.3.18, §7.5. */
import { GERROR, GERROR_IRQ_CFG0, GERRORN, IRQ_CTRL } from '../../spec/smmuv3/registers.js';
import { WIRE } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { Interrupts } from './interrupts.js';

const bitOf = (name: keyof typeof GERROR.fields): number => 1 << GERROR.fields[name].lsb;

/** Bits of SMMU_GERROR that this model can set. */
export const GERROR_BIT = {
  CMDQ_ERR: bitOf('CMDQ_ERR'),
  EVENTQ_ABT_ERR: bitOf('EVENTQ_ABT_ERR'),
  PRIQ_ABT_ERR: bitOf('PRIQ_ABT_ERR'),
  MSI_CMDQ_ABT_ERR: bitOf('MSI_CMDQ_ABT_ERR'),
  MSI_EVENTQ_ABT_ERR: bitOf('MSI_EVENTQ_ABT_ERR'),
  MSI_PRIQ_ABT_ERR: bitOf('MSI_PRIQ_ABT_ERR'),
  MSI_GERROR_ABT_ERR: bitOf('MSI_GERROR_ABT_ERR'),
} as const;

const IRQEN = 1 << IRQ_CTRL.fields.GERROR_IRQEN.lsb;

export class GlobalErrors {
  readonly #file: RegisterFile;
  readonly #interrupts: Interrupts;
  /** Software has acknowledged errors: what they stopped may go on. The model says what that is. */
  acknowledged: () => void = () => {};

  constructor(file: RegisterFile, interrupts: Interrupts) {
    this.#file = file;
    this.#interrupts = interrupts;
    file.onWrite(GERRORN.offset, () => this.acknowledged());
  }

  /** True while software has not acknowledged the error. */
  active(bit: number): boolean {
    return ((this.#file.get(GERROR.offset) ^ this.#file.get(GERRORN.offset)) & bit) !== 0;
  }

  /** Makes an error active; one that is active already stays as it is (§6.3.18). */
  raise(bit: number): void {
    if (!this.#activate(bit) || (this.#file.get(IRQ_CTRL.offset) & IRQEN) === 0) return;
    // §7.5.1: a message that aborts is no reason for another one.
    if (!this.#interrupts.raise(GERROR_IRQ_CFG0.offset, WIRE.GERROR)) {
      this.#activate(GERROR_BIT.MSI_GERROR_ABT_ERR);
    }
  }

  #activate(bit: number): boolean {
    if (this.active(bit)) return false;
    this.#file.set(GERROR.offset, (this.#file.get(GERROR.offset) ^ bit) >>> 0);
    return true;
  }
}
