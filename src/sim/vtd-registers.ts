import { GCMD_REG, GSTS_REG } from '../spec/vtd/registers.js';
import { DeviceRegisters } from './driver-registers.js';

/**
 * Commands of GCMD_REG that stand on their own in GSTS_REG; the rest are one-shot. VT-d §11.4.4.1
 */
const LEVELS = GCMD_REG_MASK('TE') | GCMD_REG_MASK('QIE') | GCMD_REG_MASK('IRE') | GCMD_REG_MASK('CFI');

function GCMD_REG_MASK(name: keyof typeof GCMD_REG.fields): number {
  return 2 ** GCMD_REG.fields[name].lsb;
}

/** Registers of a VT-d unit. */
export class Registers extends DeviceRegisters {
  /**
   * Gives one global command and waits for its status bit, as §11.4.4.1 asks: the others are
   * written back as GSTS_REG has them, without the one-shot ones.
   */
  command(name: keyof typeof GCMD_REG.fields, status: keyof typeof GSTS_REG.fields, on = true): void {
    const bit = GCMD_REG_MASK(name);
    const now = Number(this.machine.readRegister(GSTS_REG.offset, 4)) & LEVELS;
    const value = on ? now | bit : now & ~bit;
    this.machine.writeRegister(GCMD_REG.offset, 4, BigInt(value >>> 0));
    this.waitUntil(() => (this.field(GSTS_REG, status) === 1) === on, `GSTS_REG.${status} = ${on ? 1 : 0}`);
  }
}
