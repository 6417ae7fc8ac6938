/**
 * Virtual command registers: PASIDs that are allocated for the guest. VT-d §11.4.16. One command at
 * a time: while VCRSP_REG.IP says that it is in progress, writes to VCMD_REG and VCMD_EO_REG are
 * dropped.
 */
import { VCCAP_REG, VCMD_REG, VCRSP_REG, VIRTUAL_COMMAND, VIRTUAL_STATUS } from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import type { IommuOutputs, PasidView } from '../iommu.js';
import { OwnedPasids, PASID_OUTCOME, PasidCommands } from '../pasid-commands.js';
import type { PasidSpace } from '../pasid-space.js';
import { ALL_BITS, type RegisterFile } from '../registers.js';

const IP = 1 << VCRSP_REG.fields.IP.lsb;
const SC_SHIFT = VCRSP_REG.fields.SC.lsb;
/** PASIDs stand in bits 35:16, as operand and as result. */
const PASID_SHIFT = VCRSP_REG.fields.RSLT.lsb;
const PASID_HIGH_BITS = 0xf;

/** VCCAP_REG's low word: everything there is. */
export const VIRTUAL_COMMANDS =
  (1 << VCCAP_REG.fields.NS.lsb) | (1 << VCCAP_REG.fields.PAS.lsb) | (1 << VCCAP_REG.fields.FPS.lsb);

export class VtdVirtualCommand implements PasidView {
  readonly #file: RegisterFile;
  readonly #counters: ModelCounters;
  readonly #commands: PasidCommands;

  constructor(
    file: RegisterFile,
    readonly bits: number,
    pasids: PasidSpace,
    outputs: IommuOutputs,
    counters: ModelCounters,
  ) {
    this.#file = file;
    this.#counters = counters;
    const owned = new OwnedPasids(bits);
    const ended = (outcome: number, pasid: number): void => this.#respond(statusOf(outcome), pasid);
    // What a PASID-table entry says goes on holding: the entry is what guests take away before they
    // free.
    this.#commands = new PasidCommands(owned, pasids, outputs, () => {}, ended);
    const guard = (): number => (this.#commands.busy ? ALL_BITS : 0);
    for (let offset = VCMD_REG.offset; offset < VCRSP_REG.offset; offset += 4) file.guard(offset, guard);
    // The operand reaches into the high word.
    file.onWholeWrite(VCMD_REG.offset, () => this.#written());
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.#commands.reset();
  }

  /** VCMD_REG was written as a whole, or its low half. */
  #written(): void {
    const words = this.#file.words;
    const base = VCMD_REG.offset >> 2;
    this.#counters.commands++;
    this.#file.set(VCRSP_REG.offset + 4, 0);
    this.#file.set(VCRSP_REG.offset, IP);
    switch (VCMD_REG.get.CMD(words, base)) {
      case VIRTUAL_COMMAND.NULL:
        this.#respond(VIRTUAL_STATUS.SUCCESS, 0);
        return;
      case VIRTUAL_COMMAND.ALLOCATE_PASID:
        this.#commands.allocate();
        return;
      case VIRTUAL_COMMAND.FREE_PASID:
        this.#commands.free(operand(words[base], words[base + 1]));
        return;
      default:
        this.#respond(VIRTUAL_STATUS.UNDEFINED_COMMAND, 0);
    }
  }

  /** See {@link PasidView.answered}. */
  answered(answer: number): void {
    this.#commands.answered(answer);
  }

  /** See {@link PasidView.revoked}. */
  revoked(pasid: number): void {
    this.#commands.revoked(pasid);
  }

  /** The word with IP and the status goes last. */
  #respond(status: number, pasid: number): void {
    this.#file.set(VCRSP_REG.offset + 4, (pasid >>> PASID_SHIFT) & PASID_HIGH_BITS);
    this.#file.set(VCRSP_REG.offset, (status << SC_SHIFT) | (pasid << PASID_SHIFT));
  }
}

function statusOf(outcome: number): number {
  if (outcome === PASID_OUTCOME.DONE) return VIRTUAL_STATUS.SUCCESS;
  return outcome === PASID_OUTCOME.NONE_LEFT ? VIRTUAL_STATUS.NO_PASID : VIRTUAL_STATUS.INVALID_PASID;
}

function operand(lo: number, hi: number): number {
  return (lo >>> PASID_SHIFT) | ((hi & PASID_HIGH_BITS) << (32 - PASID_SHIFT));
}
