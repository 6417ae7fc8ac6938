/**
 * The Command queue. IHI 0070 §3.5, §7.1. What the commands do is in commands.ts.
 *
 * A state machine without time: a kick (producer write, enable, error acknowledged, acknowledgement
 * of an invalidation) takes commands until the queue is empty, an error stops it, a CMD_SYNC meets
 * invalidations that downstream caches or devices have not acknowledged, or a CMD_ATC_INV finds too
 * many of them in flight. Work per kick is bounded by the queue's size, as only software moves the
 * producer.
 */
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ANY_COMMAND, CMD, CMD_SYNC, COMMAND_BYTES, CS, commandName } from '../../spec/smmuv3/commands.js';
import { CERROR, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0 } from '../../spec/smmuv3/registers.js';
import type { ModelCounters } from '../counters.js';
import { type IommuOutputs, WIRE } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import { type Command, type CommandTarget, commandsOf } from './commands.js';
import { QUEUE_LOG2, type SmmuConfig } from './config.js';
import type { DeviceInvalidations } from './device-invalidations.js';
import { GERROR_BIT, type GlobalErrors } from './global-errors.js';
import type { Interrupts } from './interrupts.js';
import type { SmmuInvalidator } from './invalidation.js';
import type { Stalls } from './stalls.js';

const WORDS = COMMAND_BYTES / 4;
const CMDQEN = 1 << CR0.fields.CMDQEN.lsb;
const SMMUEN = 1 << CR0.fields.SMMUEN.lsb;
const ERR_SHIFT = CMDQ_CONS.fields.ERR.lsb;

export class CommandQueue implements CommandTarget {
  readonly #file: RegisterFile;
  readonly #memory: GuestMemory;
  readonly #errors: GlobalErrors;
  readonly #interrupts: Interrupts;
  readonly #counters: ModelCounters;
  /** The command that was taken last. */
  readonly #words = new Uint32Array(WORDS);
  /** By opcode; undefined: ILLEGAL in this unit. */
  readonly #commands: readonly (Command | undefined)[];
  #busy = false;
  /** Invalidations were taken since the last CMD_SYNC. */
  #invalidated = false;

  constructor(
    readonly config: SmmuConfig,
    file: RegisterFile,
    memory: GuestMemory,
    readonly invalidator: SmmuInvalidator,
    readonly devices: DeviceInvalidations,
    readonly stalls: Stalls,
    errors: GlobalErrors,
    interrupts: Interrupts,
    readonly outputs: IommuOutputs,
    counters: ModelCounters,
  ) {
    this.#file = file;
    this.#memory = memory;
    this.#errors = errors;
    this.#interrupts = interrupts;
    this.#counters = counters;
    this.#commands = commandsOf(config);
    file.onWrite(CMDQ_PROD.offset, () => this.kick());
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.#invalidated = false;
  }

  /** Takes commands as long as that is possible. */
  kick(): void {
    if (this.#busy) return;
    this.#busy = true;
    // Indexes that software put further apart than the queue is long make no more work than that.
    for (let left = 2 ** (QUEUE_LOG2 + 1); left > 0 && this.#step(); left--) {
      // Each step moves the consumer index.
    }
    this.#busy = false;
  }

  /** Enabled, and no error stops it. A method: a private getter costs a call into the runtime. */
  #isRunning(): boolean {
    return (this.#file.get(CR0.offset) & CMDQEN) !== 0 && !this.#errors.active(GERROR_BIT.CMDQ_ERR);
  }

  /** Running, with no command left and none in flight. */
  get atRest(): boolean {
    const file = this.#file;
    const { devices } = this;
    if (!this.#isRunning() || devices.pending > 0 || devices.timedOut) return false;
    const mask = indexMask(file);
    return ((file.get(CMDQ_CONS.offset) ^ file.get(CMDQ_PROD.offset)) & mask) === 0;
  }

  /** See {@link CommandTarget.atsWorks}. */
  get atsWorks(): boolean {
    return (this.#file.get(CR0.offset) & SMMUEN) !== 0;
  }

  /**
   * A plain command that the peer has carried out, from word `at` of `words`. False: it is none.
   */
  ran(words: Uint32Array, at: number): boolean {
    for (let word = 0; word < WORDS; word++) this.#words[word] = words[at + word];
    const command = this.#legal();
    if (command?.peer === undefined) return false;
    if (command.invalidates) this.#invalidated = true;
    command.peer.ran(this, this.#words);
    this.#counters.commands++;
    return true;
  }

  /** Handles one command. False when nothing more can be done now. */
  #step(): boolean {
    if (!this.#isRunning()) return false;
    const file = this.#file;
    const mask = indexMask(file);
    const cons = file.get(CMDQ_CONS.offset) & mask;
    if (cons === (file.get(CMDQ_PROD.offset) & mask)) return false;
    const index = cons & (mask >> 1);
    if (!this.#memory.loadWords(queueBase(file) + index * COMMAND_BYTES, this.#words, WORDS)) {
      return this.#fail(CERROR.ABT, 'fetch');
    }
    const command = this.#legal();
    if (command === undefined) {
      return this.#fail(CERROR.ILL, commandName(ANY_COMMAND.get.Opcode(this.#words)));
    }
    if (command.invalidates) this.#invalidated = true;
    // One that waits, or that failed and has stopped the queue, is fetched again.
    if (!command.run(this, this.#words)) return false;
    this.#counters.commands++;
    const next = ((cons + 1) & mask) >>> 0;
    file.set(CMDQ_CONS.offset, next | (file.get(CMDQ_CONS.offset) & (0x7f << ERR_SHIFT)));
    return true;
  }

  /**
   * The row of the command in `words`; undefined where it is ILLEGAL: not of this unit, Secure, or
   * reserved. §4.1.3, §7.1
   */
  #legal(): Command | undefined {
    const words = this.#words;
    const command = this.#commands[ANY_COMMAND.get.Opcode(words)];
    if (command === undefined || ANY_COMMAND.get.SSec(words) === 1) return undefined;
    return command.legal(words, this.config) ? command : undefined;
  }

  /**
   * §7.1: the consumer index stays at the command, and the queue stops until the error is
   * acknowledged.
   */
  #fail(error: number, detail: string): false {
    this.#file.update(CMDQ_CONS.offset, 0x7f << ERR_SHIFT, error << ERR_SHIFT);
    this.outputs.event({ kind: 'queueError', name: errorName(error), detail });
    this.#errors.raise(GERROR_BIT.CMDQ_ERR);
    return false;
  }

  /**
   * See {@link CommandTarget.synchronize}. SEV is not advertised: it completes like NONE. §4.7.3
   */
  synchronize(words: Uint32Array): boolean {
    if (this.outputs.pendingAcks() > 0 || this.devices.pending > 0) return false;
    if (this.devices.takeTimeout()) {
      // Carried out, with this outcome; the one that software starts again counts by itself.
      this.#counters.commands++;
      return this.#fail(CERROR.ATC_INV_SYNC, commandName(CMD.SYNC));
    }
    this.#synchronized();
    if (CMD_SYNC.get.CS(words) !== CS.SIG_IRQ) return true;
    const sent = this.#interrupts.message(words[2], words[3], CMD_SYNC.get.MSIData(words), WIRE.CMD_SYNC);
    if (!sent) this.#errors.raise(GERROR_BIT.MSI_CMDQ_ABT_ERR);
    return true;
  }

  /** See {@link CommandTarget.synchronizedByPeer}. */
  synchronizedByPeer(words: Uint32Array): void {
    this.#synchronized();
    if (CMD_SYNC.get.CS(words) === CS.SIG_IRQ) this.#counters.interrupts++;
  }

  #synchronized(): void {
    if (this.#invalidated) this.stalls.invalidated();
    this.#invalidated = false;
  }
}

/** Bits of the queue's indexes, the wrap bit among them. §3.5.1 */
export function indexMask(file: RegisterFile): number {
  const log2 = Math.min(CMDQ_BASE.get.LOG2SIZE(file.words, CMDQ_BASE.offset >> 2), QUEUE_LOG2);
  return 2 ** (log2 + 1) - 1;
}

/** Address of the first entry: aligned to the size of the queue, at least to 32 bytes. §3.5.1 */
export function queueBase(file: RegisterFile): number {
  const address = CMDQ_BASE.get.ADDR(file.words, CMDQ_BASE.offset >> 2);
  return address - (address % Math.max(32, ((indexMask(file) + 1) / 2) * COMMAND_BYTES));
}

/** Names of {@link CERROR} values. */
function errorName(error: number): string {
  if (error === CERROR.ATC_INV_SYNC) return 'CERROR_ATC_INV_SYNC';
  return error === CERROR.ILL ? 'CERROR_ILL' : 'CERROR_ABT';
}
