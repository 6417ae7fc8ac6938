/**
 * GCMD_REG and GSTS_REG: every command is taken when it is written, and its status bit shows it
 * only after the downstream caches have acknowledged what it invalidated (rule 2 of
 * ARCHITECTURE.md, Ordering). VT-d §11.4.4, §6.6.
 *
 * TE, QIE, IRE and CFI are levels: each write carries their wanted state. SRTP and SIRTP are
 * one-shot: writing 0 does nothing. WBF belongs to a capability that is not there (RWBF) and is
 * ignored; so are those of interrupt remapping without it (interrupt-remapping.ts).
 */
import { GCMD_REG, GSTS_REG, RTADDR_REG } from '../../spec/vtd/registers.js';
import type { IommuOutputs } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import type { FaultRecorder } from './fault-recorder.js';
import type { VtdInterruptRemapping } from './interrupt-remapping.js';
import type { VtdInvalidator } from './invalidation.js';
import type { InvalidationQueue } from './invalidation-queue.js';
import type { VtdLookup } from './lookup.js';

const SRTP = 1 << GCMD_REG.fields.SRTP.lsb;
const QIE = 1 << GCMD_REG.fields.QIE.lsb;
const TE = 1 << GCMD_REG.fields.TE.lsb;
const RTPS = 1 << GSTS_REG.fields.RTPS.lsb;
const QIES = 1 << GSTS_REG.fields.QIES.lsb;
const TES = 1 << GSTS_REG.fields.TES.lsb;

export class GlobalCommand {
  readonly #config: VtdConfig;
  readonly #file: RegisterFile;
  readonly #lookup: VtdLookup;
  readonly #invalidator: VtdInvalidator;
  readonly #queue: InvalidationQueue;
  readonly #faults: FaultRecorder;
  readonly #interrupts: VtdInterruptRemapping | undefined;
  readonly #outputs: IommuOutputs;
  /** Remapping is on. Changes with the command; TES follows when it is safe to say so. */
  translating = false;
  #queueEnabled = false;
  #rootSet = false;
  /** GSTS lags behind the fields above: acknowledgements are missing. */
  #pending = false;

  constructor(
    config: VtdConfig,
    file: RegisterFile,
    lookup: VtdLookup,
    invalidator: VtdInvalidator,
    queue: InvalidationQueue,
    faults: FaultRecorder,
    interrupts: VtdInterruptRemapping | undefined,
    outputs: IommuOutputs,
  ) {
    this.#config = config;
    this.#file = file;
    this.#lookup = lookup;
    this.#invalidator = invalidator;
    this.#queue = queue;
    this.#faults = faults;
    this.#interrupts = interrupts;
    this.#outputs = outputs;
    file.onWrite(GCMD_REG.offset, (command) => this.#written(command));
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.translating = false;
    this.#queueEnabled = false;
    this.#rootSet = false;
    this.#pending = false;
  }

  #written(command: number): void {
    if ((command & SRTP) !== 0) this.#setRootTable();
    this.#enableQueue((command & QIE) !== 0);
    this.#enableTranslation((command & TE) !== 0);
    // An answer given while interrupts passed may let one through.
    if (this.#interrupts?.command(command)) {
      this.#invalidator.dropDownstream();
      this.#restartRecords();
    }
    this.#pending = true;
    this.publish();
    // After the status: what the queue completes comes behind it.
    this.#queue.kick();
  }

  /** Shows the state in GSTS_REG once nothing is outstanding. */
  publish(): void {
    if (!this.#pending || this.#outputs.pendingAcks() > 0) return;
    this.#pending = false;
    const status =
      (this.#rootSet ? RTPS : 0) | (this.#queueEnabled ? QIES : 0) | (this.translating ? TES : 0);
    this.#file.set(GSTS_REG.offset, (status | (this.#interrupts?.status ?? 0)) >>> 0);
  }

  /** Latches RTADDR_REG. RTPS reads 0 until the operation is complete (§11.4.4.2). */
  #setRootTable(): void {
    const base = RTADDR_REG.offset >> 2;
    this.#file.update(GSTS_REG.offset, RTPS, 0);
    this.#rootSet = true;
    const { words } = this.#file;
    this.#lookup.setRoot(RTADDR_REG.get.RTA(words, base), RTADDR_REG.get.TTM(words, base));
    // ESRTPS: nothing that was cached of the former table is left (§6.6).
    this.#invalidator.all();
    this.#outputs.event({ kind: 'enable', what: 'root table', on: true });
  }

  #enableQueue(on: boolean): void {
    if (on === this.#queueEnabled) return;
    this.#queueEnabled = on;
    this.#queue.enable(on);
    this.#outputs.event({ kind: 'enable', what: 'queued invalidation', on });
  }

  /** §7.2.1: when both remappings are off. */
  #restartRecords(): void {
    if (!this.translating && this.#interrupts?.on !== true) this.#faults.remappingDisabled();
  }

  #enableTranslation(on: boolean): void {
    if (on === this.translating) return;
    this.translating = on;
    this.#restartRecords();
    // §11.4.4.1: with scalable mode, disabling invalidates every remapping cache.
    if (!on && this.#config.scalableMode) this.#invalidator.all();
    else this.#invalidator.dropDownstream();
    this.#outputs.event({ kind: 'enable', what: 'translation', on });
  }
}
