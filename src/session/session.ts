/**
 * One virtual machine: what its bridge asks, in order, of one model (ARCHITECTURE.md, Ordering).
 *
 * All that ever reaches the engine enters through {@link Session.input}, and all that leaves it goes through
 * {@link SessionPorts}: no clock, no waiting, no randomness in here. What cannot finish now (a completion that
 * waits for the bridge) is state of the model, which goes on when the acknowledgement comes in.
 *
 * The rules of ARCHITECTURE.md, Ordering, and where they are kept:
 *   1 frames are handled in the order of their channel, to the end, one at a time;
 *   2 a model publishes a completion when `pendingAcks()` is 0, and `acknowledged()` tells it so (completions.ts);
 *   3 every answer carries `Invalidations.epoch`, which an INVALIDATE advances before the model goes on;
 *   4 RESET and the end of the connection drop everything;
 *   5 nothing here waits, so translations are answered whatever is pending;
 *   6 what the peer has carried out itself is taken before anything that comes in.
 */
import { CodedError, type ErrorName } from '../base/errors.js';
import {
  DEVICE_TLB,
  type Iommu,
  type IommuOutputs,
  MAX_SPANS,
  PAGE_RESPONSE,
  REQUEST,
  SPAN_WORDS,
  type TranslateResult,
} from '../device/iommu.js';
import { CODEC, type Codec, isMessage } from '../wire/codec.js';
import { CONTROL, FEATURE, FLAG, type Frame, MESSAGE, messageName } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import { AssignedDevices } from './assigned.js';
import { answerHandler } from './backend.js';
import { Completions } from './completions.js';
import { expectDescriptors } from './descriptors.js';
import { DeviceTlbs } from './device-tlbs.js';
import { DeviceTable } from './devices.js';
import { FRONT } from './front.js';
import type { Agreement } from './handshake.js';
import { Invalidations } from './invalidation.js';
import { PeerCommands } from './peer-commands.js';
import { PeerWalks } from './peer-walks.js';
import type { Outlet, SessionPorts, SessionSettings, SharedPage } from './ports.js';
import { Shadowing } from './shadowing.js';

/** The two channels of a session. */
export const CHANNEL = { FRONT: 0, BACKEND: 1 } as const;
export type ChannelName = (typeof CHANNEL)[keyof typeof CHANNEL];

const MAX_RID = 0xffff;
const MAX_PASID = 0xfffff;
/** Page Request Group Indices have 9 bits. */
const MAX_GROUP = 0x1ff;

export class Session {
  readonly ports: SessionPorts;
  readonly settings: SessionSettings;
  readonly devices = new DeviceTable();
  readonly walks = new PeerWalks();
  readonly peerCommands = new PeerCommands();
  readonly invalidations = new Invalidations(this.devices, this.walks);
  readonly deviceTlbs = new DeviceTlbs();
  readonly shadowing: Shadowing;
  readonly assigned: AssignedDevices;
  readonly completions: Completions;
  /** Frames handled, by channel. */
  readonly frames = new Uint32Array(2);
  agreement: Agreement | undefined;
  model: Iommu | undefined;
  page: SharedPage | undefined;
  /** Regions whose file might shrink; said in the log once. */
  unsealedRegions = 0;
  regions = 0;
  /** Of these, those that are reached by messages. */
  readonly remoteRegions = new Set<number>();
  /** Why files could not be mapped; each is said in the log once. */
  readonly unmappable = new Set<ErrorName>();
  /** REG_WRITEs that were handled, and what of that stands in the control page. Modulo 2^32. */
  #handled = 0;
  #published = 0;
  readonly #request = { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, kind: 0, mayStall: false, size: 0 };
  readonly #pageRequest = { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, group: 0, last: false };
  readonly #result: TranslateResult = {
    status: 0,
    count: 0,
    spans: new Uint32Array(MAX_SPANS * SPAN_WORDS),
    space: 0,
    sub: 0,
    stall: 0,
  };
  /** `#views[n]` is the first n spans of the result, made once. */
  readonly #views: readonly Uint32Array[];
  readonly #answer = CODEC.TranslateReply.create();
  readonly #replayed = CODEC.ReplayReply.create();
  readonly #value = CODEC.RegReadReply.create();
  constructor(ports: SessionPorts, settings: SessionSettings) {
    this.ports = ports;
    this.settings = settings;
    this.shadowing = new Shadowing(ports, this.devices);
    const model = (): Iommu | undefined => this.model;
    this.completions = new Completions(this.deviceTlbs, () => this.shadowing.completing());
    this.assigned = new AssignedDevices(ports, settings, this.devices, this.shadowing.shadow, model, () =>
      this.completions.mark(),
    );
    this.shadowing.assigned = this.assigned;
    for (const work of [this.invalidations, this.assigned, this.shadowing]) this.completions.register(work);
    this.#views = Array.from({ length: MAX_SPANS + 1 }, (_, n) =>
      this.#result.spans.subarray(0, n * SPAN_WORDS),
    );
  }

  /**
   * The one way in: a frame of a channel, its body in `bytes`. Throws a {@link CodedError} of severity
   * `connection` when the peer broke the protocol; the session is then over.
   */
  input(channel: ChannelName, frame: Frame, bytes: Uint8Array): void {
    this.frames[channel]++;
    this.takeRun();
    if (channel === CHANNEL.FRONT) this.#fromFront(frame, bytes);
    else {
      this.completions.mark();
      answerHandler(frame)(this, frame, bytes);
    }
    if (this.completions.marked) this.#settle();
  }

  /** Does what is due after a change. Nothing of it is seen outside before all of it is done. */
  #settle(): void {
    const { model, completions } = this;
    if (model === undefined) return;
    completions.settle(model);
    // Before an answer: that of a write may be seen at once.
    this.#publishQueue();
    this.#publishHandled();
    completions.answer();
  }

  /** Takes what the peer has carried out by itself. Throws `BAD_ARGUMENT`. */
  takeRun(): void {
    if (this.model !== undefined && this.peerCommands.take(this.model)) this.completions.mark();
  }

  /** Checks of completions are wanted by one more, or one less: while any are, each of them is made here. */
  watchCompletions(on: boolean): void {
    this.shadowing.watch(on);
    this.#publishQueue();
  }

  /** Opens the peer's queue where only the peer's cache keeps translations and no completion would wait; closes it otherwise. */
  #publishQueue(): void {
    const { model } = this;
    if (model === undefined) return;
    const unshared =
      this.devices.notifiedRids.length === 0 && this.assigned.idle && this.shadowing.shadow.idle;
    const alone = unshared && !this.shadowing.watched && this.completions.pending === 0;
    this.peerCommands.publish(model, alone);
  }

  /** Ends the session: the guest's memory is given up. Channels and descriptors are the caller's. */
  end(): void {
    this.model = undefined;
    this.page = undefined;
    try {
      this.shadowing.shadow.end();
    } finally {
      this.ports.memory.clear();
    }
  }

  reply<T extends object>(frame: Frame, codec: Codec<T>, message: T): void {
    this.ports.front.put(frame.type, FLAG.REPLY, frame.id, codec, message);
  }

  /** Takes what HELLO made; the outputs that the model was made with lead here. */
  begin(agreement: Agreement, model: Iommu, page: SharedPage): void {
    this.agreement = agreement;
    this.model = model;
    this.page = page;
  }

  /** What the model may do to the world. */
  readonly outputs: IommuOutputs = {
    invalidate: (scope) => {
      if (this.model === undefined) return;
      if (this.peerCommands.following) {
        if (this.peerCommands.exactly) this.invalidations.carriedOut(scope);
        return;
      }
      this.completions.record(scope);
    },
    pendingAcks: () => this.completions.pendingForModel(),
    interrupt: (addressLo, addressHi, data) => this.#interrupt(addressLo, addressHi, data, 0),
    wire: (line) => this.#interrupt(0, 0, 0, line + 1),
    resume: (stall, action) => {
      const message = { stall: stall >>> 0, action };
      this.#tell(FEATURE.STALLS)?.put(MESSAGE.RESUME, 0, 0, CODEC.Resume, message);
    },
    pageResponse: (rid, pasid, group, code) => {
      if (this.assigned.pageResponse(rid, pasid, group, code)) return;
      const message = { rid, pasid: pasid + 1, group, code };
      this.#tell(FEATURE.PRI)?.put(MESSAGE.PAGE_RESPONSE, 0, 0, CODEC.PageResponse, message);
    },
    invalidateDeviceTlb: (tag, rid, pasid, lo, hi, log2Size, global) => {
      this.completions.mark();
      // A host invalidates the device as it invalidates its IOMMU; the completion waits for that anyway.
      if (this.assigned.serves(rid)) return this.deviceTlbs.end(tag, DEVICE_TLB.DONE);
      return this.deviceTlbs.request(tag, rid, pasid, lo, hi, log2Size, global);
    },
    event: (event) => this.ports.event(event),
  };

  regWrite(frame: Frame, message: M.RegWrite): void {
    const { offset, size } = message;
    const model = this.model as Iommu;
    // Other sizes cannot come from a bridge; what the guest may do wrong within these is the model's matter.
    if ((size === 1 || size === 2 || size === 4 || size === 8) && offset + size <= model.registerBytes) {
      const { registers } = this.page as SharedPage;
      this.shadowing.asking(model, registers, offset, size, message.lo, message.hi);
      model.writeRegister(offset, size, message.lo, message.hi);
    }
    this.#handled = (this.#handled + 1) >>> 0;
    const { features } = this.agreement as Agreement;
    if (!frame.needsReply || (features & FEATURE.WRITE_REPLY) === 0) return;
    this.shadowing.writeReply.begin(frame.id);
    this.completions.hold(this.#answerWrite);
  }

  readonly #answerWrite = (): boolean => {
    this.shadowing.writeReply.send(this.ports.front);
    return true;
  };

  /** Last: who sees this count sees everything that the writes have done. */
  #publishHandled(): void {
    if (this.#handled === this.#published) return;
    this.#published = this.#handled;
    Atomics.store((this.page as SharedPage).control, CONTROL.HANDLED, this.#handled);
  }

  regRead(frame: Frame, message: M.RegRead): void {
    const bytes = (this.page as SharedPage).registerBytes;
    const value = this.#value;
    value.lo = littleEndian(bytes, message.offset, Math.min(message.size, 4));
    value.hi = littleEndian(bytes, message.offset + 4, Math.min(message.size, 8) - 4);
    this.reply(frame, CODEC.RegReadReply, value);
  }

  translate(frame: Frame, message: M.Translate): void {
    const { rid, pasid, kind } = message;
    const { features } = this.agreement as Agreement;
    checkRequester(rid, pasid);
    checkKind(kind, message.mayStall, features);
    const request = this.#request;
    request.rid = rid;
    request.pasid = pasid - 1;
    request.access = message.access & 0xf;
    request.lo = message.lo;
    request.hi = message.hi;
    request.kind = kind;
    request.mayStall = message.mayStall;
    request.size = message.size ?? 0;
    const result = this.#result;
    const model = this.model as Iommu;
    model.translate(request, result);
    // An address that is translated already is of another input space than the requester's own: nobody keeps that answer.
    const once = !model.answersMayBeKept || kind === REQUEST.TRANSLATED;
    // Kept or not: a device may be using it, and an invalidation has to wait until it is done.
    if (result.count > 0) this.invalidations.handOut(rid, result.space >>> 0, result.sub >>> 0);
    const answer = this.#answer;
    answer.status = result.status;
    answer.epoch = this.invalidations.epoch;
    answer.space = result.space >>> 0;
    answer.sub = result.sub >>> 0;
    const spans = features & FEATURE.SPANS ? result.count : Math.min(result.count, 1);
    answer.spans = this.#views[spans] as Uint32Array;
    answer.stall = result.stall >>> 0;
    answer.once = once;
    this.reply(frame, CODEC.TranslateReply, answer);
    if (result.count > 0 && kind === REQUEST.UNTRANSLATED) {
      const told = this.walks.answered(rid, pasid - 1, message.hi, model);
      if (told !== undefined) this.invalidations.handOut(rid, told.space >>> 0, told.sub >>> 0);
    }
    this.peerCommands.handedOut(model);
  }

  replay(frame: Frame, message: M.Replay): void {
    checkRequester(message.rid, message.pasid);
    const result = this.#result;
    const model = this.model as Iommu;
    const more = model.survey.enumerate(message.rid, message.pasid - 1, message.lo, message.hi, result);
    if (result.count > 0) this.invalidations.handOut(message.rid, result.space >>> 0, result.sub >>> 0);
    this.#replayed.spans = this.#views[result.count] as Uint32Array;
    this.#replayed.more = more;
    this.#replayed.epoch = this.invalidations.epoch;
    this.reply(frame, CODEC.ReplayReply, this.#replayed);
  }

  pageRequest(message: M.PageRequest): void {
    const { rid, pasid, group } = message;
    checkRequester(rid, pasid);
    if (group > MAX_GROUP) throw new CodedError('BAD_ARGUMENT', `page request group ${group}`);
    const model = this.model as Iommu;
    if (model.devices?.pageRequest === undefined) {
      if (message.last) this.outputs.pageResponse(rid, pasid - 1, group, PAGE_RESPONSE.INVALID);
      return;
    }
    const request = this.#pageRequest;
    request.rid = rid;
    request.pasid = pasid - 1;
    request.access = message.access & 0xf;
    request.lo = message.lo;
    request.hi = message.hi;
    request.group = group;
    request.last = message.last;
    model.devices.pageRequest(request);
  }

  reset(): void {
    (this.model as Iommu).reset();
    this.deviceTlbs.forget();
    this.invalidations.invalidateAll();
    this.shadowing.shadow.touchAll(this.model as Iommu);
    this.assigned.reset();
    this.ports.event({ kind: 'reset' });
  }

  /** A reply that promises something of the host: sent when that is so, at once where there is nothing to wait for. */
  replyWhenHostIsDone<T extends object>(frame: Frame, codec: Codec<T>, message: T): void {
    const { type, id } = frame;
    const { assigned } = this;
    const send = (): void => this.ports.front.put(type, FLAG.REPLY, id, codec, message);
    if (assigned.idle) {
      send();
      return;
    }
    this.completions.hold(() => {
      if (assigned.pending > 0) return false;
      send();
      return true;
    });
  }

  /** Handler of HOST_SETTLE and TABLE_WRITE: answered when there is something to say. */
  settle({ type, id }: Frame): void {
    this.completions.hold(() => this.#answerSettle(type, id));
  }

  #answerSettle(type: number, id: number): boolean {
    const { shadowing, invalidations } = this;
    const settled = this.completions.pending === 0;
    // What the peer answers by itself (host objects, too) is waited for; what its main loop has to do, it has to be told.
    const batches = shadowing.shadow.underWay - this.assigned.spaces.underWay;
    const working = batches > 0 || invalidations.pendingNamed > 0;
    const tracking = !working && shadowing.shadow.trackPending > 0;
    if (!settled && !working && !tracking) return false;
    const message = { settled, sent: (shadowing.sent + invalidations.sentNamed) >>> 0, tracking };
    this.ports.front.put(type, FLAG.REPLY, id, CODEC.HostSettleReply, message);
    return true;
  }

  /** The backend channel, if the feature is in force. */
  #tell(feature: number): Outlet | undefined {
    const { agreement } = this;
    return agreement !== undefined && (agreement.features & feature) !== 0 ? agreement.backend : undefined;
  }

  #interrupt(addressLo: number, addressHi: number, data: number, wire: number): void {
    const backend = this.agreement?.backend;
    if (backend === undefined) return;
    const message = { addressLo: addressLo >>> 0, addressHi: addressHi >>> 0, data: data >>> 0, wire };
    backend.put(MESSAGE.INTERRUPT, 0, 0, CODEC.Interrupt, message);
  }

  #fromFront(frame: Frame, bytes: Uint8Array): void {
    const { type } = frame;
    if (!isMessage(type)) throw new CodedError('UNKNOWN_TYPE', `message type ${type}`);
    if (frame.reply) {
      // Only what went with an answer is answered here.
      if (type === MESSAGE.HOST_BATCH && this.shadowing.writeReply.batch === frame.id && frame.id !== 0) {
        this.completions.mark();
        this.#hostAnswered(frame, bytes);
        return;
      }
      throw new CodedError('UNEXPECTED_REPLY', `a reply to ${messageName(type)} on the front channel`);
    }
    const entry = FRONT[type];
    if (entry === undefined)
      throw new CodedError('OUT_OF_ORDER', `${messageName(type)} on the front channel`);
    const agreement = this.agreement;
    if ((agreement === undefined) !== (type === MESSAGE.HELLO)) {
      const when = agreement === undefined ? 'before HELLO' : 'a second time';
      throw new CodedError('OUT_OF_ORDER', `${messageName(type)} ${when}`);
    }
    if (entry.feature !== 0 && ((agreement as Agreement).features & entry.feature) === 0) {
      throw new CodedError('NOT_NEGOTIATED', `${messageName(type)} needs a feature that is not in force`);
    }
    if (!entry.descriptors) expectDescriptors(frame, 0);
    if (entry.changes) this.completions.mark();
    entry.handle(this, frame, bytes);
  }

  #hostAnswered(frame: Frame, bytes: Uint8Array): void {
    expectDescriptors(frame, 0);
    const { failures } = CODEC.HostBatchReply.decode(bytes, frame.start, frame.end);
    this.shadowing.answered(frame.id, failures);
  }
}

function checkRequester(rid: number, pasid: number): void {
  if (rid > MAX_RID || pasid > MAX_PASID + 1) {
    throw new CodedError('BAD_ARGUMENT', `requester id ${rid}, PASID field ${pasid}`);
  }
}

function checkKind(kind: number, mayStall: boolean, features: number): void {
  if (kind > REQUEST.TRANSLATED) throw new CodedError('BAD_ARGUMENT', `request kind ${kind}`);
  if (kind !== REQUEST.UNTRANSLATED && (features & FEATURE.ATS) === 0) {
    throw new CodedError('NOT_NEGOTIATED', `request kind ${kind} needs a feature that is not in force`);
  }
  if (mayStall && (features & FEATURE.STALLS) === 0) {
    throw new CodedError('NOT_NEGOTIATED', 'a request that may stall needs a feature that is not in force');
  }
}

/** Up to four bytes at `offset`; those outside read as 0. */
function littleEndian(bytes: Uint8Array, offset: number, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i++) value |= (bytes[offset + i] ?? 0) << (8 * i);
  return value >>> 0;
}
