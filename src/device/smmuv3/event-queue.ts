/** The Event queue. IHI 0070 §3.5, §7.2, §7.3, §7.4. */
import type { GuestMemory } from '../../memory/port.js';
import { CLASS, EVENT, EVENT_BYTES, eventName } from '../../spec/smmuv3/events.js';
import {
  CR0,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  IRQ_CTRL,
} from '../../spec/smmuv3/registers.js';
import {
  ACCESS,
  type IommuOutputs,
  type ModelCounters,
  NO_PASID,
  type TranslateRequest,
  WIRE,
} from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import { QUEUE_LOG2 } from './config.js';
import { ABORTED, type Fault } from './fault.js';
import { GERROR_BIT, type GlobalErrors } from './global-errors.js';
import type { Interrupts } from './interrupts.js';

const WORDS = EVENT_BYTES / 4;
const EVENTQEN = 1 << CR0.fields.EVENTQEN.lsb;
const RECINVSID = 1 << CR2.fields.RECINVSID.lsb;
const IRQEN = 1 << IRQ_CTRL.fields.EVENTQ_IRQEN.lsb;
const OVFLG = 1 << EVENTQ_PROD.fields.OVFLG.lsb;
const SSV = 1 << 11;
/** Bits of the fourth word of a record. §7.3 */
const WORD3 = { PnU: 1 << 1, InD: 1 << 2, RnW: 1 << 3, S2: 1 << 7, CLASS: 8, TTRnW: 1 << 12 } as const;

/** Which parts a record has. §7.3 */
const PART = { INPUT: 1, ATTRIBUTES: 2, STAGE: 4, FETCH: 8, IPA: 16 } as const;
const PARTS = new Uint8Array(256);
PARTS[EVENT.F_UUT] = PART.INPUT | PART.ATTRIBUTES;
PARTS[EVENT.F_STE_FETCH] = PART.FETCH;
PARTS[EVENT.F_TRANSL_FORBIDDEN] = PART.INPUT | PART.ATTRIBUTES;
PARTS[EVENT.F_CD_FETCH] = PART.FETCH;
PARTS[EVENT.F_WALK_EABT] = PART.INPUT | PART.ATTRIBUTES | PART.STAGE | PART.FETCH;
for (const event of [EVENT.F_TRANSLATION, EVENT.F_ADDR_SIZE, EVENT.F_ACCESS, EVENT.F_PERMISSION]) {
  PARTS[event] = PART.INPUT | PART.ATTRIBUTES | PART.STAGE | PART.IPA;
}

export class EventQueue {
  private readonly words = new Uint32Array(WORDS);
  /** The record written last, for merging. */
  private readonly last = new Uint32Array(WORDS);

  constructor(
    private readonly file: RegisterFile,
    private readonly memory: GuestMemory,
    private readonly interrupts: Interrupts,
    private readonly errors: GlobalErrors,
    private readonly outputs: IommuOutputs,
    private readonly counters: ModelCounters,
  ) {}

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.last.fill(0);
  }

  /** A transaction was terminated. Records the event, unless the configuration or a full queue keeps it out. */
  record(fault: Fault, request: TranslateRequest): void {
    this.counters.faults++;
    const { event } = fault;
    const recorded = event !== ABORTED && this.wanted(fault) && this.log(fault, request);
    this.outputs.event({
      kind: 'fault',
      rid: request.rid,
      pasid: request.pasid,
      reason: event,
      name: event === ABORTED ? 'aborted' : eventName(event),
      lo: request.lo >>> 0,
      hi: request.hi >>> 0,
      access: request.access,
      recorded,
    });
  }

  private wanted(fault: Fault): boolean {
    if (!fault.recorded) return false;
    // §7.3.3: a StreamID out of range is recorded only on request.
    return fault.event !== EVENT.C_BAD_STREAMID || (this.file.get(CR2.offset) & RECINVSID) !== 0;
  }

  private log(fault: Fault, request: TranslateRequest): boolean {
    const { file } = this;
    if ((file.get(CR0.offset) & EVENTQEN) === 0) return false;
    const log2 = Math.min(EVENTQ_BASE.get.LOG2SIZE(file.words, EVENTQ_BASE.offset >> 2), QUEUE_LOG2);
    const mask = 2 ** (log2 + 1) - 1;
    const prod = file.get(EVENTQ_PROD.offset);
    const cons = file.get(EVENTQ_CONS.offset);
    this.pack(fault, request);
    const empty = ((prod ^ cons) & mask) === 0;
    if (!empty && fault.merge && this.repeats()) return true;
    if (((prod ^ cons) & mask) === 2 ** log2) return this.overflow(prod, cons);
    const base = EVENTQ_BASE.get.ADDR(file.words, EVENTQ_BASE.offset >> 2);
    // §3.5.1: the base is aligned to the size of the queue, at least to an entry.
    const start = base - (base % (2 ** log2 * EVENT_BYTES));
    if (!this.store(start + (prod & (2 ** log2 - 1)) * EVENT_BYTES)) {
      this.counters.faultsDropped++;
      this.errors.raise(GERROR_BIT.EVENTQ_ABT_ERR);
      return false;
    }
    this.last.set(this.words);
    this.publish(((prod & OVFLG) | ((prod + 1) & mask)) >>> 0);
    if (empty && (file.get(IRQ_CTRL.offset) & IRQEN) !== 0) {
      this.interrupts.raise(EVENTQ_IRQ_CFG0.offset, WIRE.EVENTQ);
    }
    return true;
  }

  /** §7.4: the flag says once that events were lost, until software has acknowledged it. */
  private overflow(prod: number, cons: number): false {
    this.counters.faultsDropped++;
    if (((prod ^ cons) & OVFLG) === 0) this.publish((prod ^ OVFLG) >>> 0);
    return false;
  }

  /** Also where page 0 shows it. */
  private publish(prod: number): void {
    this.file.set(EVENTQ_PROD.offset & 0xffff, prod);
    this.file.set(EVENTQ_PROD.offset, prod);
  }

  /** The first word, which tells software that there is a record, is stored last. */
  private store(address: number): boolean {
    const { memory, words } = this;
    if (!memory.contains(address, EVENT_BYTES)) return false;
    for (let index = WORDS - 2; index >= 0; index -= 2) {
      if (!memory.store64(address + index * 4, words[index] | 0, words[index + 1] | 0)) return false;
    }
    return true;
  }

  /** §7.3.1: a record that differs from the last one at most in the page offset of its address. */
  private repeats(): boolean {
    for (let index = 0; index < WORDS; index++) {
      const ignored = index === 4 ? 0xfff : 0;
      if (((this.words[index] ^ this.last[index]) & ~ignored) !== 0) return false;
    }
    return true;
  }

  private pack(fault: Fault, request: TranslateRequest): void {
    const { words } = this;
    const { event } = fault;
    const parts = PARTS[event];
    words.fill(0);
    words[0] = event;
    if (request.pasid !== NO_PASID) words[0] |= SSV | (request.pasid << 12);
    words[1] = request.rid;
    if ((parts & PART.ATTRIBUTES) !== 0) words[3] = attributes(request.access);
    if ((parts & PART.STAGE) !== 0) {
      words[3] |= fault.class << WORD3.CLASS;
      if (fault.s2) words[3] |= WORD3.S2;
      if (event === EVENT.F_PERMISSION && fault.class === CLASS.TT && fault.tableRead) {
        words[3] |= WORD3.TTRnW;
      }
    }
    if ((parts & PART.INPUT) !== 0) {
      words[4] = request.lo;
      words[5] = request.hi;
    }
    if ((parts & PART.FETCH) !== 0) {
      words[6] = fault.fetchAddress & ~7;
      words[7] = Math.floor(fault.fetchAddress / 2 ** 32) & 0xfffff;
    } else if ((parts & PART.IPA) !== 0 && fault.s2) {
      words[6] = fault.ipaLo & ~0xfff;
      words[7] = fault.ipaHi & 0xfffff;
    }
  }
}

/** PnU, InD and RnW of a transaction; an atomic one counts as a write. §7.3.2 */
function attributes(access: number): number {
  return (
    ((access & ACCESS.PRIVILEGED) !== 0 ? WORD3.PnU : 0) |
    ((access & ACCESS.EXECUTE) !== 0 ? WORD3.InD : 0) |
    ((access & ACCESS.WRITE) === 0 ? WORD3.RnW : 0)
  );
}
