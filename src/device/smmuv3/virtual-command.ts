/**
 * Virtual command registers: SubstreamIDs that are allocated for the guest. docs/pv-pasid.md. One
 * command at a time: while VCRSP.BUSY is set, writes to VCMD are dropped. An end is shown when
 * nothing is in flight downstream.
 */
import { pack } from '../../spec/define.js';
import {
  VC_VERSION,
  VCCAP,
  VCID_SIGNATURE,
  VCID0,
  VCID1,
  VCMD,
  VCMD_COMMAND,
  VCRSP,
  VCRSP_STATUS,
} from '../../spec/smmuv3/virtual-commands.js';
import type { ModelCounters } from '../counters.js';
import type { IommuOutputs, PasidView } from '../iommu.js';
import { type OwnedPasids, PASID_OUTCOME, PasidCommands } from '../pasid-commands.js';
import type { PasidSpace } from '../pasid-space.js';
import { ALL_BITS, type RegisterFile } from '../registers.js';
import type { SmmuConfig } from './config.js';
import type { SmmuInvalidator } from './invalidation.js';

const BUSY = 1 << VCRSP.fields.BUSY.lsb;
const SC_SHIFT = VCRSP.fields.SC.lsb;
const SSID_SHIFT = VCRSP.fields.SubstreamID.lsb;

export class SmmuVirtualCommand implements PasidView {
  readonly #file: RegisterFile;
  readonly #outputs: IommuOutputs;
  readonly #counters: ModelCounters;
  readonly bits: number;
  readonly #commands: PasidCommands;
  /** VCRSP of a command that has ended; 0 and {@link ending} clear when there is none. */
  #response = 0;
  #ending = false;

  constructor(
    file: RegisterFile,
    owned: OwnedPasids,
    pasids: PasidSpace,
    invalidator: SmmuInvalidator,
    outputs: IommuOutputs,
    counters: ModelCounters,
  ) {
    this.#file = file;
    this.#outputs = outputs;
    this.#counters = counters;
    this.bits = owned.bits;
    const lost = (): void => invalidator.substreamLost();
    const ended = (outcome: number, ssid: number): void => this.#respond(statusOf(outcome), ssid);
    this.#commands = new PasidCommands(owned, pasids, outputs, lost, ended);
    file.guard(VCMD.offset, () => (this.#commands.busy || this.#ending ? ALL_BITS : 0));
    file.onWrite(VCMD.offset, () => this.#written());
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.#ending = false;
    this.#commands.reset();
  }

  /** VCMD was written. */
  #written(): void {
    const { words } = this.#file;
    const base = VCMD.offset >> 2;
    this.#counters.commands++;
    this.#file.set(VCRSP.offset, BUSY);
    switch (VCMD.get.CMD(words, base)) {
      case VCMD_COMMAND.NULL:
        this.#respond(VCRSP_STATUS.SUCCESS, 0);
        return;
      case VCMD_COMMAND.ALLOCATE:
        this.#commands.allocate();
        return;
      case VCMD_COMMAND.FREE:
        this.#commands.free(VCMD.get.SubstreamID(words, base));
        return;
      default:
        this.#respond(VCRSP_STATUS.UNDEFINED_COMMAND, 0);
    }
  }

  /** See {@link PasidView.answered}. */
  answered(answer: number): void {
    this.#commands.answered(answer);
  }

  /** See {@link PasidView.revoked}. */
  revoked(ssid: number): void {
    this.#commands.revoked(ssid);
  }

  /** Shows the end of a command, once nothing is in flight downstream. */
  publish(): void {
    if (!this.#ending || this.#outputs.pendingAcks() > 0) return;
    this.#ending = false;
    this.#file.set(VCRSP.offset, this.#response);
  }

  #respond(status: number, ssid: number): void {
    this.#response = (status << SC_SHIFT) | (ssid << SSID_SHIFT);
    this.#ending = true;
    this.publish();
  }
}

function statusOf(outcome: number): number {
  if (outcome === PASID_OUTCOME.DONE) return VCRSP_STATUS.SUCCESS;
  return outcome === PASID_OUTCOME.NONE_LEFT ? VCRSP_STATUS.NO_SUBSTREAMID : VCRSP_STATUS.NOT_OWNED;
}

/** What the identification registers say. */
export function identifyVirtualCommands(file: RegisterFile, config: SmmuConfig): void {
  const [low, high] = VCID_SIGNATURE;
  file.setInitial(VCID0.offset, low);
  file.setInitial(VCID1.offset, high);
  file.setInitial(VCCAP.offset, pack(VCCAP, { VER: VC_VERSION, PAS: 1, SSIDSIZE: config.ssidBits })[0]);
}
