import {
  ECAP_REG,
  VCCAP_REG,
  VCMD_REG,
  VCRSP_REG,
  VIRTUAL_COMMAND,
  VIRTUAL_STATUS,
} from '../spec/vtd/registers.js';
import type { Registers } from './vtd-registers.js';

/** Position of a PASID in VCMD_REG. VT-d Table 54 */
const PASID_SHIFT = 16n;

/** PASIDs from the unit, as a kernel that knows it is a guest asks for them. VT-d §11.4.16 */
export class VirtualCommands {
  constructor(readonly registers: Registers) {}

  /** True when PASIDs can and must be had this way. */
  get offered(): boolean {
    return this.registers.field(ECAP_REG, 'VCS') === 1 && this.registers.field(VCCAP_REG, 'PAS') === 1;
  }

  /** A PASID; undefined when none is left. */
  allocate(): number | undefined {
    const { status, result } = this.command(VIRTUAL_COMMAND.ALLOCATE_PASID);
    if (status === VIRTUAL_STATUS.NO_PASID) return undefined;
    if (status !== VIRTUAL_STATUS.SUCCESS)
      throw new Error(`simulated guest: virtual command status ${status}`);
    return result;
  }

  /** False when the unit says that it is not allocated. */
  free(pasid: number): boolean {
    return this.command(VIRTUAL_COMMAND.FREE_PASID, pasid).status === VIRTUAL_STATUS.SUCCESS;
  }

  /** Any command, and what VCRSP_REG says when it is no longer in progress. */
  command(code: number, pasid = 0): { status: number; result: number } {
    const { registers } = this;
    registers.machine.writeRegister(VCMD_REG.offset, 8, (BigInt(pasid) << PASID_SHIFT) | BigInt(code));
    let words: Uint32Array = new Uint32Array(VCRSP_REG.wordCount);
    registers.waitUntil(() => {
      words = registers.read(VCRSP_REG);
      return VCRSP_REG.get.IP(words) === 0;
    }, 'VCRSP_REG.IP = 0');
    return { status: VCRSP_REG.get.SC(words), result: VCRSP_REG.get.RSLT(words) };
  }
}
