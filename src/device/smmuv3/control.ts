/**
 * Control registers: enables and their acknowledgements, GBPA, and which registers may be written
 * when. IHI 0070 §6.3.9 to §6.3.17, §6.3.23 to §6.3.30.
 */
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  GBPA,
  GERROR_IRQ_CFG0,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PAGE_1,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_PROD,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../spec/smmuv3/registers.js';
import type { IommuOutputs } from '../iommu.js';
import { ALL_BITS, type RegisterFile } from '../registers.js';
import type { CommandQueue } from './command-queue.js';
import type { SmmuInvalidator } from './invalidation.js';
import type { Stalls } from './stalls.js';

const SMMUEN = 1 << CR0.fields.SMMUEN.lsb;
const CMDQEN = 1 << CR0.fields.CMDQEN.lsb;
const EVENTQEN = 1 << CR0.fields.EVENTQEN.lsb;
const PRIQEN = 1 << CR0.fields.PRIQEN.lsb;
const QUEUES = CMDQEN | EVENTQEN | PRIQEN;
const UPDATE = 1 << GBPA.fields.Update.lsb;
const ABORT = 1 << GBPA.fields.ABORT.lsb;

/** Registers of page 1 that page 0 shows as well. §6.1 */
const ON_BOTH_PAGES: readonly number[] = [
  EVENTQ_PROD.offset,
  EVENTQ_CONS.offset,
  PRIQ_PROD.offset,
  PRIQ_CONS.offset,
];

/**
 * Bits of a register that are read-only while any of `while` of a control register is set, in it or
 * its acknowledgement.
 */
interface Guard {
  readonly control: number;
  readonly ack: number;
  readonly while: number;
  readonly bits: number;
}
const GUARDS = new Map<number, Guard[]>();

function guard(control: number, ack: number, bits: number, ...offsets: readonly number[]): void {
  for (const offset of offsets) guardBits(offset, ALL_BITS, { control, ack, while: bits });
}

function guardBits(offset: number, bits: number, by: Omit<Guard, 'bits'>): void {
  const guards = GUARDS.get(offset) ?? [];
  guards.push({ ...by, bits });
  GUARDS.set(offset, guards);
}

const words64 = (offset: number): readonly number[] => [offset, offset + 4];
const interruptWords = (offset: number): readonly number[] => [offset, offset + 4, offset + 8, offset + 12];

guard(CR0.offset, CR0ACK.offset, SMMUEN, CR2.offset, STRTAB_BASE_CFG.offset, ...words64(STRTAB_BASE.offset));
const QUEUE_ATTRIBUTES = (1 << CR1.fields.TABLE_IC.lsb) - 1;
guardBits(CR1.offset, QUEUE_ATTRIBUTES, { control: CR0.offset, ack: CR0ACK.offset, while: QUEUES });
guardBits(CR1.offset, ~QUEUE_ATTRIBUTES, { control: CR0.offset, ack: CR0ACK.offset, while: SMMUEN });
guard(CR0.offset, CR0ACK.offset, CMDQEN, CMDQ_CONS.offset, ...words64(CMDQ_BASE.offset));
guard(CR0.offset, CR0ACK.offset, EVENTQEN, EVENTQ_PROD.offset, ...words64(EVENTQ_BASE.offset));
guard(CR0.offset, CR0ACK.offset, PRIQEN, PRIQ_PROD.offset, ...words64(PRIQ_BASE.offset));
const INTERRUPTS = [
  [IRQ_CTRL.fields.GERROR_IRQEN, GERROR_IRQ_CFG0],
  [IRQ_CTRL.fields.EVENTQ_IRQEN, EVENTQ_IRQ_CFG0],
  [IRQ_CTRL.fields.PRIQ_IRQEN, PRIQ_IRQ_CFG0],
] as const;
for (const [enable, configuration] of INTERRUPTS) {
  const words = interruptWords(configuration.offset);
  guard(IRQ_CTRL.offset, IRQ_CTRLACK.offset, 1 << enable.lsb, ...words);
}

export class Control {
  readonly #file: RegisterFile;
  readonly #invalidator: SmmuInvalidator;
  readonly #queue: CommandQueue;
  readonly #stalls: Stalls;
  readonly #outputs: IommuOutputs;
  constructor(
    file: RegisterFile,
    invalidator: SmmuInvalidator,
    queue: CommandQueue,
    stalls: Stalls,
    outputs: IommuOutputs,
  ) {
    this.#file = file;
    this.#invalidator = invalidator;
    this.#queue = queue;
    this.#stalls = stalls;
    this.#outputs = outputs;
    file.onWrite(CR0.offset, (_written, before) => this.#controlWritten(before));
    file.onWrite(GBPA.offset, () => this.#bypassWritten());
    file.onWrite(IRQ_CTRL.offset, () => this.#interruptControlWritten());
    for (const [offset, rules] of GUARDS) file.guard(offset, () => this.#guarded(rules));
    file.guard(GBPA.offset, (written) => this.#bypassGuarded(written));
    for (const offset of ON_BOTH_PAGES) file.onWrite(offset, () => this.#indexWritten(offset));
  }

  /** CR0.SMMUEN. */
  get enabled(): boolean {
    return (this.#file.get(CR0.offset) & SMMUEN) !== 0;
  }

  /** GBPA.ABORT: what becomes of transactions while SMMUEN is clear. */
  get aborting(): boolean {
    return (this.#file.get(GBPA.offset) & ABORT) !== 0;
  }

  /** Where a store to a word goes: to page 1, from where page 0 shows a register of it. */
  place(offset: number): number {
    return ON_BOTH_PAGES.includes(offset + PAGE_1) ? offset + PAGE_1 : offset;
  }

  /** Bits of a word that a store leaves as they are: those of registers in use. */
  #guarded(rules: readonly Guard[]): number {
    const file = this.#file;
    let bits = 0;
    for (const rule of rules) {
      if (((file.get(rule.control) | file.get(rule.ack)) & rule.while) !== 0) bits |= rule.bits;
    }
    return bits;
  }

  /** GBPA is written with Update, while no update is under way. */
  #bypassGuarded(written: number): number {
    return (written & UPDATE) === 0 || (this.#file.get(GBPA.offset) & UPDATE) !== 0 ? ALL_BITS : 0;
  }

  /**
   * CR0 was written. Effects are at once; the acknowledgement waits for the downstream caches.
   * §6.3.9
   */
  #controlWritten(before: number): void {
    const now = this.#file.get(CR0.offset);
    const changed = now ^ before;
    if ((changed & SMMUEN) !== 0) {
      if (!this.enabled) this.#stalls.terminateAll();
      // What passed untranslated, or was translated, is no longer so.
      this.#invalidator.dropDownstream();
      this.#outputs.event({ kind: 'enable', what: 'translation', on: this.enabled });
    }
    if ((changed & now & CMDQEN) !== 0) {
      this.#outputs.event({ kind: 'enable', what: 'command queue', on: true });
    }
    if ((changed & now & EVENTQEN) !== 0) this.#stalls.writeRecords();
    this.publish();
    this.#queue.kick();
  }

  /** GBPA was written with Update. §6.3.14 */
  #bypassWritten(): void {
    if (!this.enabled) this.#invalidator.dropDownstream();
    this.publish();
  }

  /** IRQ_CTRL was written. §6.3.16 */
  #interruptControlWritten(): void {
    this.#file.set(IRQ_CTRLACK.offset, this.#file.get(IRQ_CTRL.offset));
  }

  /** An index of an output queue was written: there may be room now. */
  #indexWritten(offset: number): void {
    this.#file.set(offset - PAGE_1, this.#file.get(offset));
    this.#stalls.writeRecords();
  }

  /** Acknowledges what was asked for, once no invalidation is in flight downstream. */
  publish(): void {
    if (this.#outputs.pendingAcks() > 0) return;
    if (this.#file.get(CR0ACK.offset) !== this.#file.get(CR0.offset)) {
      this.#file.set(CR0ACK.offset, this.#file.get(CR0.offset));
    }
    if ((this.#file.get(GBPA.offset) & UPDATE) !== 0) this.#file.update(GBPA.offset, UPDATE, 0);
  }
}
