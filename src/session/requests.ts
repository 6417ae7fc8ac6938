/**
 * TRANSLATE, REPLAY and PAGE_REQUEST: what devices ask of the model. Every answer carries its epoch
 * (ordering rule 3).
 */
import { CodedError } from '../base/errors.js';
import {
  emptyResult,
  type Iommu,
  type IommuOutputs,
  MAX_SPANS,
  PAGE_RESPONSE,
  REQUEST,
  SPAN_WORDS,
  type TranslateResult,
} from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { FEATURE, type Frame } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import type { Connection } from './connection.js';
import type { PeerCommands } from './peer-commands.js';
import type { Invalidations } from './peer-invalidations.js';
import type { PeerWalks } from './peer-walks.js';

const MAX_RID = 0xffff;
const MAX_PASID = 0xfffff;
/** Page Request Group Indices have 9 bits. */
const MAX_GROUP = 0x1ff;

export class Requests {
  readonly #connection: Connection;
  readonly #invalidations: Invalidations;
  readonly #walks: PeerWalks;
  readonly #peerCommands: PeerCommands;
  readonly #outputs: Pick<IommuOutputs, 'pageResponse'>;
  readonly #request = { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, kind: 0, mayStall: false, size: 0 };
  readonly #pageRequest = { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, group: 0, last: false };
  readonly #result: TranslateResult = emptyResult();
  /** `#views[n]` is the first n spans of the result, made once. */
  readonly #views: readonly Uint32Array[];
  readonly #answer = CODEC.TranslateReply.create();
  readonly #replayed = CODEC.ReplayReply.create();

  constructor(
    connection: Connection,
    invalidations: Invalidations,
    walks: PeerWalks,
    peerCommands: PeerCommands,
    outputs: Pick<IommuOutputs, 'pageResponse'>,
  ) {
    this.#connection = connection;
    this.#invalidations = invalidations;
    this.#walks = walks;
    this.#peerCommands = peerCommands;
    this.#outputs = outputs;
    this.#views = Array.from({ length: MAX_SPANS + 1 }, (_, n) =>
      this.#result.spans.subarray(0, n * SPAN_WORDS),
    );
  }

  translate(frame: Frame, message: M.Translate): void {
    const { rid, pasid, kind } = message;
    const { features } = this.#connection;
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
    const model = this.#connection.model as Iommu;
    model.translate(request, result);
    // An address that is translated already is of another input space than the requester's own: no
    // cache keeps the answer.
    const once = !model.answersMayBeKept || kind === REQUEST.TRANSLATED;
    // Kept or not: a device may be using it, and an invalidation has to wait until it is done.
    if (result.count > 0) this.#invalidations.handOut(rid, result.space >>> 0, result.sub >>> 0);
    const answer = this.#answer;
    answer.status = result.status;
    answer.epoch = this.#invalidations.epoch;
    answer.space = result.space >>> 0;
    answer.sub = result.sub >>> 0;
    const spans = features & FEATURE.SPANS ? result.count : Math.min(result.count, 1);
    answer.spans = this.#views[spans] as Uint32Array;
    answer.stall = result.stall >>> 0;
    answer.once = once;
    this.#peerCommands.handedOut(model);
    this.#connection.reply(frame, CODEC.TranslateReply, answer);
    if (result.count > 0 && kind === REQUEST.UNTRANSLATED) {
      const tables = this.#walks.answered(rid, pasid - 1, message.hi, model);
      if (tables !== undefined) this.#invalidations.handOut(rid, tables.space >>> 0, tables.sub >>> 0);
    }
  }

  replay(frame: Frame, message: M.Replay): void {
    checkRequester(message.rid, message.pasid);
    const result = this.#result;
    const { survey } = this.#connection.model as Iommu;
    const more = survey.enumerate(message.rid, message.pasid - 1, message.lo, message.hi, result);
    if (result.count > 0) this.#invalidations.handOut(message.rid, result.space >>> 0, result.sub >>> 0);
    this.#replayed.spans = this.#views[result.count] as Uint32Array;
    this.#replayed.more = more;
    this.#replayed.epoch = this.#invalidations.epoch;
    this.#connection.reply(frame, CODEC.ReplayReply, this.#replayed);
  }

  pageRequest(message: M.PageRequest): void {
    const { rid, pasid, group } = message;
    checkRequester(rid, pasid);
    if (group > MAX_GROUP) throw new CodedError('BAD_ARGUMENT', `page request group ${group}`);
    const { devices } = this.#connection.model as Iommu;
    if (devices?.pageRequest === undefined) {
      if (message.last) this.#outputs.pageResponse(rid, pasid - 1, group, PAGE_RESPONSE.INVALID);
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
    devices.pageRequest(request);
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
