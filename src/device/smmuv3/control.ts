/**
 * Control registers: enables and their acknowledgements, GBPA, and which registers may be written when.
 * IHI 0070 §6.3.9 to §6.3.17, §6.3.23 to §6.3.30.
 */
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_BASE,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  GBPA,
  GERROR_IRQ_CFG0,
  IRQ_CTRL,
  IRQ_CTRLACK,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../spec/smmuv3/registers.js';
import type { IommuOutputs } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { CommandQueue } from './command-queue.js';
import type { Invalidator } from './invalidation.js';

const SMMUEN = 1 << CR0.fields.SMMUEN.lsb;
const CMDQEN = 1 << CR0.fields.CMDQEN.lsb;
const EVENTQEN = 1 << CR0.fields.EVENTQEN.lsb;
const QUEUES = CMDQEN | EVENTQEN;
const UPDATE = 1 << GBPA.fields.Update.lsb;
const ABORT = 1 << GBPA.fields.ABORT.lsb;

/** Registers that are read-only while any of these bits of a control register is set, in it or its acknowledgement. */
const GUARDS = new Map<number, { readonly control: number; readonly ack: number; readonly bits: number }>();

function guard(control: number, ack: number, bits: number, ...offsets: readonly number[]): void {
  for (const offset of offsets) GUARDS.set(offset, { control, ack, bits });
}

const words64 = (offset: number): readonly number[] => [offset, offset + 4];
const interruptWords = (offset: number): readonly number[] => [offset, offset + 4, offset + 8, offset + 12];

guard(CR0.offset, CR0ACK.offset, SMMUEN, CR2.offset, STRTAB_BASE_CFG.offset, ...words64(STRTAB_BASE.offset));
guard(CR0.offset, CR0ACK.offset, SMMUEN | QUEUES, CR1.offset);
guard(CR0.offset, CR0ACK.offset, CMDQEN, CMDQ_CONS.offset, ...words64(CMDQ_BASE.offset));
guard(CR0.offset, CR0ACK.offset, EVENTQEN, EVENTQ_PROD.offset, ...words64(EVENTQ_BASE.offset));
guard(
  IRQ_CTRL.offset,
  IRQ_CTRLACK.offset,
  1 << IRQ_CTRL.fields.GERROR_IRQEN.lsb,
  ...interruptWords(GERROR_IRQ_CFG0.offset),
);
guard(
  IRQ_CTRL.offset,
  IRQ_CTRLACK.offset,
  1 << IRQ_CTRL.fields.EVENTQ_IRQEN.lsb,
  ...interruptWords(EVENTQ_IRQ_CFG0.offset),
);

export class Control {
  constructor(
    private readonly file: RegisterFile,
    private readonly invalidator: Invalidator,
    private readonly queue: CommandQueue,
    private readonly outputs: IommuOutputs,
  ) {}

  /** CR0.SMMUEN. */
  get enabled(): boolean {
    return (this.file.get(CR0.offset) & SMMUEN) !== 0;
  }

  /** GBPA.ABORT: what becomes of transactions while SMMUEN is clear. */
  get aborting(): boolean {
    return (this.file.get(GBPA.offset) & ABORT) !== 0;
  }

  /** True when a store to the word has no effect: its register is in use, or GBPA lacks Update. */
  ignores(offset: number, written: number): boolean {
    if (offset === GBPA.offset) {
      return (written & UPDATE) === 0 || (this.file.get(offset) & UPDATE) !== 0;
    }
    const rule = GUARDS.get(offset);
    if (rule === undefined) return false;
    return ((this.file.get(rule.control) | this.file.get(rule.ack)) & rule.bits) !== 0;
  }

  /** CR0 was written. Effects are at once; the acknowledgement waits for the caches outside. §6.3.9 */
  controlWritten(before: number): void {
    const now = this.file.get(CR0.offset);
    const changed = now ^ before;
    if ((changed & SMMUEN) !== 0) {
      // What passed untranslated, or was translated, is no longer so.
      this.invalidator.outside();
      this.outputs.event({ kind: 'enable', what: 'translation', on: this.enabled });
    }
    if ((changed & now & CMDQEN) !== 0) {
      this.outputs.event({ kind: 'enable', what: 'command queue', on: true });
    }
    if ((changed & ~now & CMDQEN) !== 0) this.queue.stop();
    this.publish();
    this.queue.kick();
  }

  /** GBPA was written with Update. §6.3.14 */
  bypassWritten(): void {
    if (!this.enabled) this.invalidator.outside();
    this.publish();
  }

  /** IRQ_CTRL was written. §6.3.16 */
  interruptControlWritten(): void {
    this.file.set(IRQ_CTRLACK.offset, this.file.get(IRQ_CTRL.offset));
  }

  /** Acknowledges what was asked for, once nothing outside is in flight. */
  publish(): void {
    if (this.outputs.pendingAcks() > 0) return;
    if (this.file.get(CR0ACK.offset) !== this.file.get(CR0.offset)) {
      this.file.set(CR0ACK.offset, this.file.get(CR0.offset));
    }
    if ((this.file.get(GBPA.offset) & UPDATE) !== 0) this.file.update(GBPA.offset, UPDATE, 0);
  }
}
