/** The Event queue. IHI 0070 §3.5, §7.2, §7.3, §7.4. */

import { NO_PASID } from '../../base/ids.js';
import { PAGE_OFFSET } from '../../base/page.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { maskIn, shiftOf } from '../../spec/define.js';
import {
  CLASS,
  EVENT,
  EVENT_BYTES,
  EVENT_LAYOUT,
  eventName,
  F_BAD_ATS_TREQ,
  F_PERMISSION,
  F_WALK_EABT,
} from '../../spec/smmuv3/events.js';
import {
  CR0,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  IRQ_CTRL,
} from '../../spec/smmuv3/registers.js';
import type { ModelCounters } from '../counters.js';
import { ACCESS, type IommuOutputs, type TranslateRequest, WIRE } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import { ABORTED, type Fault } from './fault.js';
import { GERROR_BIT, type GlobalErrors } from './global-errors.js';
import type { Interrupts } from './interrupts.js';
import { OutputQueue } from './output-queue.js';

/** Words of a record. */
export const EVENT_WORDS = EVENT_BYTES / 4;
const RECINVSID = 1 << CR2.fields.RECINVSID.lsb;
const IRQEN = 1 << IRQ_CTRL.fields.EVENTQ_IRQEN.lsb;
/** Where these fields stand in every recorded event that has them. §7.3 */
const { SSV, SubstreamID, STAG, Stall } = F_PERMISSION.fields;
const WORD0 = { EVENT: maskIn(F_PERMISSION.fields.EventNumber), SSV: maskIn(SSV) } as const;
const SUBSTREAM_SHIFT = shiftOf(SubstreamID);
const STAG_SHIFT = shiftOf(STAG);
const STALL = maskIn(Stall);
const WORD3 = {
  PnU: maskIn(F_PERMISSION.fields.PnU),
  InD: maskIn(F_PERMISSION.fields.InD),
  RnW: maskIn(F_PERMISSION.fields.RnW),
  S2: maskIn(F_PERMISSION.fields.S2),
  CLASS: shiftOf(F_PERMISSION.fields.CLASS),
  TTRnW: maskIn(F_PERMISSION.fields.TTRnW),
} as const;
/** What a translation request asked for, and that it asked for one unit. §7.3.6 */
const ASKED = {
  P: maskIn(F_BAD_ATS_TREQ.fields.P),
  X: maskIn(F_BAD_ATS_TREQ.fields.X),
  W: maskIn(F_BAD_ATS_TREQ.fields.W),
  R: maskIn(F_BAD_ATS_TREQ.fields.R),
  ONE_UNIT: 1 << shiftOf(F_BAD_ATS_TREQ.fields.Span),
} as const;
/** Bits of addresses, in two words. */
const { FetchAddr } = F_WALK_EABT.fields;
const { IPA } = F_PERMISSION.fields;
const ADDRESS = {
  ASKED_LO: maskIn(F_BAD_ATS_TREQ.fields.InputAddr),
  FETCH_LO: maskIn(FetchAddr),
  FETCH_HI: maskIn(FetchAddr, FetchAddr.msb >> 5),
  IPA_LO: maskIn(IPA),
  IPA_HI: maskIn(IPA, IPA.msb >> 5),
} as const;
/** Word of InputAddr whose place in the page may differ where records are merged. §7.3.1 */
const INPUT_WORD = F_PERMISSION.fields.InputAddr.lsb >> 5;

/** Which parts a record has, by the layout of its event. */
const PART = {
  SSV: 1,
  SSID: 2,
  INPUT: 4,
  RNW: 8,
  ATTRIBUTES: 16,
  STAGE: 32,
  FETCH: 64,
  IPA: 128,
  ASKED: 256,
} as const;
/** A field that says so, for each part. */
const PART_FIELDS: readonly (readonly [part: number, field: string])[] = [
  [PART.SSV, 'SSV'],
  [PART.SSID, 'SubstreamID'],
  [PART.INPUT, 'InputAddr'],
  [PART.RNW, 'RnW'],
  [PART.ATTRIBUTES, 'PnU'],
  [PART.STAGE, 'CLASS'],
  [PART.FETCH, 'FetchAddr'],
  [PART.IPA, 'IPA'],
  [PART.ASKED, 'P'],
];
const PARTS = new Uint16Array(256);
for (const [event, shape] of Object.entries(EVENT_LAYOUT)) {
  for (const [part, field] of PART_FIELDS) {
    if (shape !== undefined && Object.hasOwn(shape.fields, field)) PARTS[Number(event)] |= part;
  }
}

export class EventQueue {
  readonly #file: RegisterFile;
  readonly #interrupts: Interrupts;
  readonly #errors: GlobalErrors;
  readonly #outputs: IommuOutputs;
  readonly #counters: ModelCounters;
  readonly #words = new Uint32Array(EVENT_WORDS);
  /** The record written last, for merging. */
  readonly #last = new Uint32Array(EVENT_WORDS);
  readonly #queue: OutputQueue;

  constructor(
    file: RegisterFile,
    memory: GuestMemory,
    interrupts: Interrupts,
    errors: GlobalErrors,
    outputs: IommuOutputs,
    counters: ModelCounters,
  ) {
    this.#file = file;
    this.#interrupts = interrupts;
    this.#errors = errors;
    this.#outputs = outputs;
    this.#counters = counters;
    const place = {
      base: EVENTQ_BASE.offset,
      prod: EVENTQ_PROD.offset,
      cons: EVENTQ_CONS.offset,
      enable: 1 << CR0.fields.EVENTQEN.lsb,
      abort: GERROR_BIT.EVENTQ_ABT_ERR,
      words: EVENT_WORDS,
    };
    this.#queue = new OutputQueue(place, file, memory, errors);
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.#last.fill(0);
  }

  /** §7.2.1: enabled, not full, and without an abort that software has not acknowledged. */
  get writable(): boolean {
    return this.#queue.enabled && !this.#queue.aborted && !this.#queue.full;
  }

  /**
   * A transaction was terminated. Records the event, unless the configuration or a queue that is
   * not writable keeps it out.
   */
  record(fault: Fault, request: TranslateRequest): void {
    const wanted = fault.event !== ABORTED && this.#wanted(fault);
    this.#tell(fault, request, wanted && this.#log(fault, request));
  }

  /** A transaction was stalled, and its record, from {@link stallRecord}, was written or waits. */
  stalled(fault: Fault, request: TranslateRequest, recorded: boolean): void {
    this.#tell(fault, request, recorded);
  }

  /** Fills `record` for a transaction that is stalled. */
  stallRecord(fault: Fault, request: TranslateRequest, stag: number, record: Uint32Array): void {
    this.#pack(fault, request);
    record.set(this.#words);
    record[2] = (stag << STAG_SHIFT) | STALL;
  }

  /**
   * Writes the record of a stalled transaction while the queue is {@link writable}. False: the
   * write aborted. §7.2.1
   */
  write(record: Uint32Array): boolean {
    const { empty } = this.#queue;
    if (!this.#queue.append(record)) return false;
    this.#last.set(record);
    if (empty && (this.#file.get(IRQ_CTRL.offset) & IRQEN) !== 0) {
      const sent = this.#interrupts.raise(EVENTQ_IRQ_CFG0.offset, WIRE.EVENTQ);
      if (!sent) this.#errors.raise(GERROR_BIT.MSI_EVENTQ_ABT_ERR);
    }
    return true;
  }

  #tell(fault: Fault, request: TranslateRequest, recorded: boolean): void {
    const { event } = fault;
    this.#counters.faults++;
    this.#outputs.event({
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

  #wanted(fault: Fault): boolean {
    if (!fault.recorded) return false;
    // §7.3.3: a StreamID out of range is recorded only on request.
    return fault.event !== EVENT.C_BAD_STREAMID || (this.#file.get(CR2.offset) & RECINVSID) !== 0;
  }

  /** §7.2.1: what can't be recorded now is lost; only a full queue says so. */
  #log(fault: Fault, request: TranslateRequest): boolean {
    if (!this.#queue.enabled) return false;
    this.#pack(fault, request);
    return this.#append(fault.merge);
  }

  /**
   * Hardware that nests recorded an event for this guest: the record, with the guest's numbers in
   * it.
   */
  forward(record: Uint32Array): void {
    const words = this.#words;
    words.set(record);
    const recorded = this.#queue.enabled && this.#append(false);
    this.#counters.faults++;
    const read = (words[3] & WORD3.RnW) !== 0;
    this.#outputs.event({
      kind: 'fault',
      rid: words[1],
      pasid: (words[0] & WORD0.SSV) === 0 ? NO_PASID : words[0] >>> SUBSTREAM_SHIFT,
      reason: words[0] & WORD0.EVENT,
      name: eventName(words[0] & WORD0.EVENT),
      lo: words[4],
      hi: words[5],
      access: read ? ACCESS.READ : ACCESS.WRITE,
      recorded,
    });
  }

  /** Puts `words` on the queue, unless it is a repetition that may be merged. */
  #append(merge: boolean): boolean {
    const queue = this.#queue;
    if (queue.aborted) return this.#lost();
    if (!queue.empty && merge && this.#repeats()) return true;
    if (queue.full) {
      queue.overflow();
      return this.#lost();
    }
    return this.write(this.#words) || this.#lost();
  }

  #lost(): false {
    this.#counters.faultsDropped++;
    return false;
  }

  /** §7.3.1: a record that differs from the last one at most in the page offset of its address. */
  #repeats(): boolean {
    for (let index = 0; index < EVENT_WORDS; index++) {
      const ignored = index === INPUT_WORD ? PAGE_OFFSET : 0;
      if (((this.#words[index] ^ this.#last[index]) & ~ignored) !== 0) return false;
    }
    return true;
  }

  #pack(fault: Fault, request: TranslateRequest): void {
    const words = this.#words;
    const { event } = fault;
    const parts = PARTS[event];
    words.fill(0);
    words[0] = event;
    if (request.pasid !== NO_PASID) {
      if ((parts & PART.SSV) !== 0) words[0] |= WORD0.SSV;
      if ((parts & PART.SSID) !== 0) words[0] |= request.pasid << SUBSTREAM_SHIFT;
    }
    words[1] = request.rid;
    if ((parts & PART.ASKED) !== 0) words[2] = asked(request);
    if ((parts & PART.RNW) !== 0) words[3] = attributes(request.access, (parts & PART.ATTRIBUTES) !== 0);
    if ((parts & PART.STAGE) !== 0) {
      words[3] |= fault.class << WORD3.CLASS;
      if (fault.s2) words[3] |= WORD3.S2;
      if (event === EVENT.F_PERMISSION && fault.class === CLASS.TT && fault.tableRead) {
        words[3] |= WORD3.TTRnW;
      }
    }
    if ((parts & PART.INPUT) !== 0) {
      words[4] = (parts & PART.ASKED) === 0 ? request.lo : request.lo & ADDRESS.ASKED_LO;
      words[5] = request.hi;
    }
    if ((parts & PART.FETCH) !== 0) {
      words[6] = fault.fetchAddress & ADDRESS.FETCH_LO;
      words[7] = Math.floor(fault.fetchAddress / 2 ** 32) & ADDRESS.FETCH_HI;
    } else if ((parts & PART.IPA) !== 0 && fault.s2) {
      words[6] = fault.ipaLo & ADDRESS.IPA_LO;
      words[7] = fault.ipaHi & ADDRESS.IPA_HI;
    }
  }
}

/**
 * RnW of a transaction, and PnU and InD; an atomic one counts as a write, and what writes is never
 * an instruction. §7.3
 */
function attributes(access: number, all: boolean): number {
  const read = (access & ACCESS.WRITE) === 0;
  if (!all) return read ? WORD3.RnW : 0;
  return (
    ((access & ACCESS.PRIVILEGED) !== 0 ? WORD3.PnU : 0) |
    ((access & ACCESS.EXECUTE) !== 0 && read ? WORD3.InD : 0) |
    (read ? WORD3.RnW : 0)
  );
}

/**
 * A translation request always asks to read; one without SubstreamID asks for no more than to
 * write. §13.7. Span: one unit.
 */
function asked(request: TranslateRequest): number {
  const { access, pasid } = request;
  let bits = ASKED.R | ASKED.ONE_UNIT;
  if ((access & ACCESS.WRITE) !== 0) bits |= ASKED.W;
  if (pasid !== NO_PASID && (access & ACCESS.EXECUTE) !== 0) bits |= ASKED.X;
  if (pasid !== NO_PASID && (access & ACCESS.PRIVILEGED) !== 0) bits |= ASKED.P;
  return bits;
}
