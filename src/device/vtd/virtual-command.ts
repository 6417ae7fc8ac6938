/**
 * Virtual command registers: PASIDs that are allocated for the guest. VT-d §11.4.16. One command at a time: while
 * VCRSP_REG.IP says that it is in progress, writes to VCMD_REG and VCMD_EO_REG are dropped.
 */
import { VCCAP_REG, VCMD_REG, VCRSP_REG, VIRTUAL_COMMAND, VIRTUAL_STATUS } from '../../spec/vtd/registers.js';
import type { IommuOutputs, ModelCounters } from '../iommu.js';
import { PASID_ANSWER, type PasidSpace } from '../pasid-space.js';
import type { RegisterFile } from '../registers.js';

const IP = 1 << VCRSP_REG.fields.IP.lsb;
const SC_SHIFT = VCRSP_REG.fields.SC.lsb;
/** PASIDs stand in bits 35:16, as operand and as result. */
const PASID_SHIFT = VCRSP_REG.fields.RSLT.lsb;
const PASID_HIGH_BITS = 0xf;

/** VCCAP_REG's low word: everything there is. */
export const VIRTUAL_COMMANDS =
  (1 << VCCAP_REG.fields.NS.lsb) | (1 << VCCAP_REG.fields.PAS.lsb) | (1 << VCCAP_REG.fields.FPS.lsb);

export class VirtualCommand {
  /** The command that {@link PasidSpace} has yet to answer. */
  private waiting: number = VIRTUAL_COMMAND.NULL;

  constructor(
    private readonly file: RegisterFile,
    private readonly pasids: PasidSpace,
    private readonly outputs: IommuOutputs,
    private readonly counters: ModelCounters,
  ) {}

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.waiting = VIRTUAL_COMMAND.NULL;
    this.pasids.releaseAll();
  }

  /** True when a store at this offset is to be dropped. */
  drops(offset: number): boolean {
    return this.waiting !== VIRTUAL_COMMAND.NULL && offset >= VCMD_REG.offset && offset < VCRSP_REG.offset;
  }

  /** VCMD_REG was written as a whole, or its low half. */
  written(): void {
    const words = this.file.words;
    const base = VCMD_REG.offset >> 2;
    const command = VCMD_REG.get.CMD(words, base);
    this.counters.commands++;
    this.file.set(VCRSP_REG.offset + 4, 0);
    this.file.set(VCRSP_REG.offset, IP);
    switch (command) {
      case VIRTUAL_COMMAND.NULL:
        this.respond(VIRTUAL_STATUS.SUCCESS, 0);
        return;
      case VIRTUAL_COMMAND.ALLOCATE_PASID:
        this.begin(command, this.pasids.allocate());
        return;
      case VIRTUAL_COMMAND.FREE_PASID:
        this.begin(command, this.pasids.free(operand(words[base], words[base + 1])));
        return;
      default:
        this.respond(VIRTUAL_STATUS.UNDEFINED_COMMAND, 0);
    }
  }

  /** The answer to what was to be answered later. */
  answered(answer: number): void {
    const command = this.waiting;
    if (command === VIRTUAL_COMMAND.NULL) return;
    this.waiting = VIRTUAL_COMMAND.NULL;
    this.finish(command, answer);
  }

  private begin(command: number, answer: number): void {
    if (answer === PASID_ANSWER.LATER) this.waiting = command;
    else this.finish(command, answer);
  }

  private finish(command: number, answer: number): void {
    const allocated = command === VIRTUAL_COMMAND.ALLOCATE_PASID;
    if (answer >= 0) {
      this.respond(VIRTUAL_STATUS.SUCCESS, allocated ? answer : 0);
      return;
    }
    const detail = allocated ? 'no PASID is available' : 'the PASID is not allocated';
    this.outputs.event({ kind: 'queueError', name: 'virtual command failed', detail });
    this.respond(allocated ? VIRTUAL_STATUS.NO_PASID : VIRTUAL_STATUS.INVALID_PASID, 0);
  }

  /** The word with IP and the status goes last. */
  private respond(status: number, pasid: number): void {
    this.file.set(VCRSP_REG.offset + 4, (pasid >>> PASID_SHIFT) & PASID_HIGH_BITS);
    this.file.set(VCRSP_REG.offset, (status << SC_SHIFT) | (pasid << PASID_SHIFT));
  }
}

function operand(lo: number, hi: number): number {
  return (lo >>> PASID_SHIFT) | ((hi & PASID_HIGH_BITS) << (32 - PASID_SHIFT));
}
