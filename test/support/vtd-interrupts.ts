/** A VT-d unit that remaps interrupts, driven as {@link TestMachine}. */

import { ANY } from '../../src/base/ids.js';
import type { InterruptResult } from '../../src/device/interrupts.js';
import { TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { pack } from '../../src/spec/define.js';
import { DESCRIPTOR, IEC_INV_DSC } from '../../src/spec/vtd/descriptors.js';
import { IRTE } from '../../src/spec/vtd/interrupts.js';
import { GCMD_REG, GSTS_REG, IRTA_REG } from '../../src/spec/vtd/registers.js';
import { descriptor, TestMachine } from './vtd-unit.js';

/** Where {@link InterruptMachine} has its table: 16 pages. */
export const TABLE = 0x2_0000;

/** What a message became. */
interface Delivered {
  readonly ok: boolean;
  readonly lo: number;
  readonly hi: number;
  readonly data: number;
  /** -1: it comes from no entry. */
  readonly index: number;
  readonly passAll: boolean;
}

export type IrteFields = { readonly [P in keyof typeof IRTE.fields]?: number };

/** The address of a message in remappable format. */
export function handle(index: number, shv = false): number {
  return (0xfee00000 | ((index & 0x7fff) << 5) | 0x10 | (shv ? 8 : 0) | ((index >> 15) << 2)) >>> 0;
}

const bit = (name: 'SIRTP' | 'IRE' | 'CFI'): number => 2 ** GCMD_REG.fields[name].lsb;

export class InterruptMachine extends TestMachine {
  constructor(options: Readonly<Record<string, string>> = {}) {
    super({ intremap: 'on', ...options });
  }

  /** Writes IRTA_REG and latches it. The table has 2^(size+1) entries. */
  setTable(size = 7, eime = false, base = TABLE): void {
    this.write64(IRTA_REG.offset, base + (eime ? 0x800 : 0) + size);
    this.commandOnce(bit('SIRTP'));
  }

  remapInterrupts(on = true): void {
    this.command(bit('IRE'), on);
  }

  passCompatible(on = true): void {
    this.command(bit('CFI'), on);
  }

  /** A table of 256 entries in force, queue enabled. */
  started(eime = false): this {
    this.enableQueue(false);
    this.setTable(7, eime);
    this.remapInterrupts();
    return this;
  }

  /** Stores an entry; P is set and the source not verified unless it says otherwise. */
  irte(index: number, fields: IrteFields): void {
    this.store(TABLE + index * 16, pack(IRTE, { P: 1, ...fields }));
  }

  iec(index?: number, mask = 0): void {
    const fields = index === undefined ? {} : { G: 1, IIDX: index, IM: mask };
    this.submit(descriptor(IEC_INV_DSC, { TypeLow: DESCRIPTOR.INTERRUPT_ENTRY_CACHE, ...fields }));
  }

  get interruptStatus() {
    const word = GSTS_REG.offset >> 2;
    const { IRES, IRTPS, CFIS } = GSTS_REG.get;
    return {
      IRES: IRES(this.registers, word),
      IRTPS: IRTPS(this.registers, word),
      CFIS: CFIS(this.registers, word),
    };
  }

  message(rid: number, lo: number, data = 0, look = false, hi = 0): Delivered {
    const result: InterruptResult = { status: -1, lo: -1, hi: -1, data: -1, index: -2, passAll: false };
    this.model.interrupts?.remap({ rid, lo, hi, data, look }, result);
    const { status, index } = result;
    return { ...result, ok: status === TRANSLATE_STATUS.OK, index: index === ANY ? -1 : index };
  }

  /** The interrupt with this index, without SHV. */
  raise(index: number, rid = 0x18): Delivered {
    return this.message(rid, handle(index));
  }
}
