/**
 * Interrupt remapping: what devices ask (REMAP_INTERRUPT), and invalidations of what the peer keeps
 * of the answers (INVALIDATE_INTERRUPTS).
 *
 * Invalidations are recorded while the model's call lasts, and sent when it has returned. Recorded
 * or not acknowledged, they count as pending, so a completion waits for them (ordering rule 2). A
 * message is suppressed if the peer can hold nothing that it would drop: answers are noted by the
 * table entry that they came from. A look is made for a copy of the answer, also of one that says
 * *blocked*; after a look nothing is suppressed until all is dropped.
 *
 * A peer that is slow to acknowledge does not make a queue grow: above `MAX_PENDING` what is
 * recorded waits, and becomes one invalidation of all when it is too much.
 */
import { CodedError } from '../base/errors.js';
import { ANY } from '../base/ids.js';
import { ALL_ENTRIES, type InterruptRequest, type InterruptResult } from '../device/interrupts.js';
import { type Iommu, TRANSLATE_STATUS } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, type Frame, MESSAGE } from '../wire/frame.js';
import type { InvalidateInterrupts, RemapInterrupt } from '../wire/messages.js';
import type { PendingWork } from './completions.js';
import type { Connection } from './connection.js';
import type { Outlet } from './ports.js';
import { RecordedInterrupts } from './recorded-interrupts.js';
import { notWaitedFor } from './unexpected-reply.js';

const MAX_PENDING = 1024;
const MAX_RID = 0xffff;

/** What a session counts of interrupts. */
export interface InterruptReport {
  /** Asked of the daemon, looks left out. */
  readonly asked: number;
  /** Of these, blocked. */
  readonly blocked: number;
  /** Asked in advance, for copies in a hypervisor. */
  readonly looks: number;
  readonly invalidationsSent: number;
  /** Invalidations that needed no message. */
  readonly invalidationsSuppressed: number;
}

export class InterruptRemapping implements PendingWork {
  /** Of the last invalidation sent; what answers carry. Counts modulo 2^32. */
  epoch = 0;
  /** Invalidations sent, modulo 2^32. */
  sent = 0;
  readonly #connection: Connection;
  readonly #changed: () => void;
  readonly #recorded = new RecordedInterrupts();
  readonly #unacknowledged = new Set<number>();
  /** Table entries whose interrupts the peer may keep or deliver. */
  readonly #handedOut = new Set<number>();
  /** The same for interrupts that come from no entry, and for `pass_all`. */
  #handedOutOfNone = false;
  #looked = false;
  readonly #counts = { asked: 0, blocked: 0, looks: 0, suppressed: 0 };
  readonly #request = { rid: 0, lo: 0, hi: 0, data: 0, look: false };
  readonly #result: InterruptResult = { status: 0, lo: 0, hi: 0, data: 0, index: ANY, passAll: false };
  readonly #answer = CODEC.RemapInterruptReply.create();
  readonly #message: InvalidateInterrupts = CODEC.InvalidateInterrupts.create();
  #backend: Outlet | undefined;

  /** @param changed is called before something changes that completions wait for */
  constructor(connection: Connection, changed: () => void) {
    this.#connection = connection;
    this.#changed = changed;
  }

  /** @param backend where invalidations go; undefined: the peer remaps no interrupts */
  open(backend: Outlet | undefined): void {
    this.#backend = backend;
  }

  /** Invalidations that are not sent, or not acknowledged. */
  get pending(): number {
    return this.#recorded.count + this.#unacknowledged.size;
  }

  /** Those that the peer has been told of: it needs its main loop to answer them. */
  get underWay(): number {
    return this.#unacknowledged.size;
  }

  get report(): InterruptReport {
    const { asked, blocked, looks, suppressed } = this.#counts;
    return { asked, blocked, looks, invalidationsSent: this.sent, invalidationsSuppressed: suppressed };
  }

  /** Handler of REMAP_INTERRUPT. Throws `BAD_ARGUMENT`. */
  remap(frame: Frame, message: RemapInterrupt): void {
    const { rid, addressLo, addressHi, data, look } = message;
    if (rid > MAX_RID || (addressLo & 3) !== 0) {
      throw new CodedError('BAD_ARGUMENT', `interrupt of requester id ${rid} to 0x${addressLo.toString(16)}`);
    }
    const model = this.#connection.model as Iommu;
    const request = this.#request;
    request.rid = rid;
    request.lo = addressLo;
    request.hi = addressHi;
    request.data = data;
    request.look = look;
    const result = this.#result;
    if (model.interrupts === undefined) passThrough(request, result);
    else model.interrupts.remap(request, result);
    const once = !model.answersMayBeKept;
    this.#count(look, result.status);
    this.#handOut(look, result);
    const answer = this.#answer;
    answer.status = result.status;
    answer.epoch = this.epoch;
    answer.addressLo = result.lo >>> 0;
    answer.addressHi = result.hi >>> 0;
    answer.data = result.data >>> 0;
    answer.index = result.index === ANY ? 0 : result.index + 1;
    answer.once = once;
    answer.passAll = result.passAll && !once;
    this.#connection.reply(frame, CODEC.RemapInterruptReply, answer);
  }

  /** The model has invalidated a block of entries; see `IommuOutputs.invalidateInterrupts`. */
  record(index: number, log2Count: number): void {
    if (this.#backend === undefined) return;
    this.#changed();
    this.#recorded.add(index, log2Count);
  }

  /** Every interrupt: what a reset does. */
  invalidateAll(): void {
    this.record(0, ALL_ENTRIES);
  }

  /** Translations are no interrupts. */
  invalidated(): void {}

  /** Sends what is recorded, as far as there is room. */
  advance(): void {
    const recorded = this.#recorded;
    while (this.#unacknowledged.size < MAX_PENDING && recorded.take()) {
      if (this.#mayHold(recorded.index, recorded.log2Count)) this.#send(recorded.index, recorded.log2Count);
      else this.#counts.suppressed++;
    }
  }

  /** Takes an acknowledgement. Throws `UNEXPECTED_REPLY`. */
  acknowledge(id: number): void {
    if (!this.#unacknowledged.delete(id)) throw notWaitedFor(MESSAGE.INVALIDATE_INTERRUPTS, id);
  }

  #count(look: boolean, status: number): void {
    if (look) this.#counts.looks++;
    else {
      this.#counts.asked++;
      if (status !== TRANSLATE_STATUS.OK) this.#counts.blocked++;
    }
  }

  /** Kept or not: it may be on its way to a processor, which an invalidation waits for. */
  #handOut(look: boolean, { status, index }: InterruptResult): void {
    if (look) this.#looked = true;
    if (status !== TRANSLATE_STATUS.OK) return;
    if (index === ANY) this.#handedOutOfNone = true;
    else this.#handedOut.add(index);
  }

  #mayHold(index: number, log2Count: number): boolean {
    const handedOut = this.#handedOut;
    if (this.#looked) return true;
    if (log2Count >= ALL_ENTRIES) return this.#handedOutOfNone || handedOut.size > 0;
    if (2 ** log2Count < handedOut.size) {
      for (let at = index; at < index + 2 ** log2Count; at++) if (handedOut.has(at)) return true;
      return false;
    }
    for (const at of handedOut) if (at >>> log2Count === index >>> log2Count) return true;
    return false;
  }

  #send(index: number, log2Count: number): void {
    this.epoch = (this.epoch + 1) >>> 0;
    this.sent = (this.sent + 1) >>> 0;
    const message = this.#message;
    message.epoch = this.epoch;
    message.index = index;
    message.log2Count = log2Count;
    this.#unacknowledged.add(this.epoch);
    const codec = CODEC.InvalidateInterrupts;
    this.#backend?.put(MESSAGE.INVALIDATE_INTERRUPTS, FLAG.NEED_REPLY, this.epoch, codec, message);
    this.#forget(index, log2Count);
  }

  #forget(index: number, log2Count: number): void {
    if (log2Count < ALL_ENTRIES) {
      for (const at of this.#handedOut) {
        if (at >>> log2Count === index >>> log2Count) this.#handedOut.delete(at);
      }
      return;
    }
    this.#handedOut.clear();
    this.#handedOutOfNone = false;
    this.#looked = false;
  }
}

/** What a model without interrupt remapping does. */
function passThrough({ lo, hi, data }: InterruptRequest, result: InterruptResult): void {
  result.status = TRANSLATE_STATUS.OK;
  result.lo = lo;
  result.hi = hi;
  result.data = data;
  result.index = ANY;
  result.passAll = true;
}
