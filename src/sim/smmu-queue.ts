import { PAGE_BYTES } from '../base/page.js';
import { type Layout, pack } from '../spec/define.js';
import { CMD, CMD_SYNC, COMMAND_BYTES, CS } from '../spec/smmuv3/commands.js';
import { CERROR, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, GERROR, GERRORN } from '../spec/smmuv3/registers.js';
import type { DeviceRegisters } from './driver-registers.js';
import type { PageAllocator } from './machine.js';

/** Names of CMDQ_CONS.ERR. */
export type CommandErrorName = 'CERROR_NONE' | 'CERROR_ILL' | 'CERROR_ABT' | 'CERROR_ATC_INV_SYNC';
const ERROR_NAMES: Readonly<Record<number, CommandErrorName>> = {
  [CERROR.NONE]: 'CERROR_NONE',
  [CERROR.ILL]: 'CERROR_ILL',
  [CERROR.ABT]: 'CERROR_ABT',
  [CERROR.ATC_INV_SYNC]: 'CERROR_ATC_INV_SYNC',
};

/** The queue stopped at a command, and waits for its error to be acknowledged. IHI 0070 §7.1 */
export class CommandQueueError extends Error {
  constructor(
    readonly code: CommandErrorName,
    /** Index of the command that the consumer stands at. */
    readonly index: number,
  ) {
    super(`simulated guest: command queue stopped with ${code} at ${index}`);
    this.name = 'CommandQueueError';
  }
}

const CMDQ_ERR = 1 << GERROR.fields.CMDQ_ERR.lsb;

/** The guest's side of the Command queue. IHI 0070 §3.5, chapter 4 */
export class SmmuCommandQueue {
  /** Guest-physical address of the ring. */
  readonly base: number;
  /** Guest-physical address of the word that CMD_SYNC writes to when it signals by message. */
  readonly status: number;
  readonly entries: number;
  /** Producer index with its wrap bit. */
  prod = 0;
  /** Commands submitted, CMD_SYNC not counted. */
  submitted = 0;
  #sequence = 0;
  /** The consumer as last read. */
  #cons = 0;

  /**
   * `log2`: of the entries, at least 1. `messages`: CMD_SYNC is awaited by its message to memory,
   * not by polling CONS.
   */
  constructor(
    readonly registers: DeviceRegisters,
    pages: PageAllocator,
    readonly log2: number,
    readonly messages: boolean,
  ) {
    this.entries = 2 ** log2;
    const bytes = Math.max(PAGE_BYTES, this.entries * COMMAND_BYTES);
    this.base = pages.takeAligned(Math.log2(bytes), bytes);
    this.status = pages.take();
  }

  /** Programs base and indexes; CR0.CMDQEN is the driver's. */
  program(): void {
    this.prod = 0;
    this.#cons = 0;
    this.registers.write(CMDQ_BASE, { LOG2SIZE: this.log2, ADDR: this.base, RA: 1 });
    this.registers.write(CMDQ_PROD, { WR: 0 });
    this.registers.write(CMDQ_CONS, { RD: 0 });
  }

  /** Writes a command behind the producer, without telling the unit. */
  submit(words: ArrayLike<number>): void {
    this.#waitForRoom();
    this.#store(this.prod, words);
    this.prod = (this.prod + 1) % (2 * this.entries);
    this.submitted++;
  }

  /** Tells the unit how far the queue is filled. */
  kick(): void {
    this.registers.write(CMDQ_PROD, { WR: this.prod });
  }

  /** Adds a CMD_SYNC. Returns what {@link await} waits for. */
  submitSync(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    const message = { CS: CS.SIG_IRQ, MSIAddress: this.status, MSIData: this.#sequence };
    this.submit(command(CMD_SYNC, { Opcode: CMD.SYNC, ...(this.messages ? message : {}) }));
    this.submitted--;
    return this.messages ? this.#sequence : this.prod;
  }

  /** Waits until everything submitted so far is complete. Throws {@link CommandQueueError}. */
  sync(): void {
    const mark = this.submitSync();
    this.kick();
    this.await(mark);
  }

  /** Waits for a CMD_SYNC. Throws {@link CommandQueueError} when the queue stopped. */
  await(mark: number): void {
    let polls = 0;
    this.registers.waitUntil(() => {
      const done = this.messages ? this.registers.machine.ram.load32(this.status) >>> 0 : this.consumed();
      if (done === mark) return true;
      if (++polls % 64 === 0) this.#throwIfStopped();
      return false;
    }, `CMD_SYNC ${mark}`);
  }

  /** Consumer index with its wrap bit. */
  consumed(): number {
    this.#cons = this.registers.field(CMDQ_CONS, 'RD') % (2 * this.entries);
    return this.#cons;
  }

  /** The error that the queue stopped on, if any. */
  error(): CommandQueueError | undefined {
    const { registers } = this;
    const active = registers.read(GERROR)[0] ^ registers.read(GERRORN)[0];
    if ((active & CMDQ_ERR) === 0) return undefined;
    const words = registers.read(CMDQ_CONS);
    const code = ERROR_NAMES[CMDQ_CONS.get.ERR(words)] ?? 'CERROR_NONE';
    return new CommandQueueError(code, CMDQ_CONS.get.RD(words) % this.entries);
  }

  /**
   * Replaces the command at the consumer by a harmless one, or leaves it as it is, and lets the
   * queue go on.
   */
  recover(replace = true): void {
    const { registers } = this;
    if (replace) this.#store(this.consumed(), command(CMD_SYNC, { Opcode: CMD.SYNC }));
    const now = registers.read(GERRORN)[0];
    registers.writeWords(GERRORN, [(now & ~CMDQ_ERR) | (registers.read(GERROR)[0] & CMDQ_ERR)]);
  }

  #throwIfStopped(): void {
    const error = this.error();
    if (error !== undefined) throw error;
  }

  #store(index: number, words: ArrayLike<number>): void {
    const { ram } = this.registers.machine;
    const at = this.base + (index % this.entries) * COMMAND_BYTES;
    for (let i = 0; i < COMMAND_BYTES / 4; i++) ram.store32(at + i * 4, words[i] ?? 0);
  }

  #full(): boolean {
    return this.prod !== this.#cons && this.prod % this.entries === this.#cons % this.entries;
  }

  #waitForRoom(): void {
    if (!this.#full()) return;
    this.kick();
    this.registers.waitUntil(() => {
      this.#throwIfStopped();
      this.consumed();
      return !this.#full();
    }, 'room in the command queue');
  }
}

/** Words of a command. */
export function command<K extends string>(
  shape: Layout<K>,
  values: { readonly [P in K]?: number },
): Uint32Array {
  return pack(shape, values) as Uint32Array;
}
