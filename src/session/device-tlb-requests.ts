/**
 * ATS invalidation requests on their way to devices (DEVICE_TLB). The model is told how each ended,
 * always after the call in which it asked. A peer without the feature has no such devices: that is
 * known at once, and delivered later.
 */
import { DEVICE_TLB, type Iommu } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import type { DeviceTlb } from '../wire/messages.js';
import type { EndedRequests } from './completions.js';
import type { Outlet } from './ports.js';
import { notWaitedFor } from './unexpected-reply.js';

/** Above this the model waits before it sends more. */
const MAX_PENDING = 1024;
/** Tag of a request from before a reset: the model is not told of its end. */
const FORGOTTEN = -1;

export class DeviceTlbs implements EndedRequests {
  /** Requests that were sent to the peer. */
  sent = 0;
  /** Tags by frame id. */
  readonly #pending = new Map<number, number>();
  /** Ended without being sent, and not delivered yet: tags and results. */
  #known: { readonly tag: number; readonly result: number }[] = [];
  readonly #message: DeviceTlb = CODEC.DeviceTlb.create();
  #backend: Outlet | undefined;
  #nextId = 1;

  /** @param backend where requests go; undefined: the peer does not know them */
  open(backend: Outlet | undefined): void {
    this.#backend = backend;
  }

  /** Requests that the peer has not answered. */
  get pending(): number {
    return this.#pending.size;
  }

  /** See `IommuOutputs.invalidateDeviceTlb`. */
  request(
    tag: number,
    rid: number,
    pasid: number,
    lo: number,
    hi: number,
    log2Size: number,
    global: boolean,
  ): boolean {
    if (this.#backend === undefined) return this.end(tag, DEVICE_TLB.UNSUPPORTED);
    if (this.#full) return false;
    const message = this.#message;
    message.rid = rid;
    message.pasid = pasid + 1;
    message.lo = lo >>> 0;
    message.hi = hi >>> 0;
    message.log2Size = log2Size;
    message.global = global;
    const id = this.#nextId;
    this.#nextId = (id + 1) >>> 0;
    this.#pending.set(id, tag);
    this.sent++;
    this.#backend.put(MESSAGE.DEVICE_TLB, FLAG.NEED_REPLY, id, CODEC.DeviceTlb, message);
    return true;
  }

  /** A request whose end is known without asking a device. False as for {@link request}. */
  end(tag: number, result: number): boolean {
    if (this.#full) return false;
    this.#known.push({ tag, result });
    return true;
  }

  get #full(): boolean {
    return this.#pending.size + this.#known.length >= MAX_PENDING;
  }

  /**
   * Takes an answer. False: the request that it ends is from before a reset, and only makes room: a
   * model that was refused and waits for no other request has to hear of that. Throws
   * `UNEXPECTED_REPLY`.
   */
  answer(id: number, result: number, model: Iommu): boolean {
    const tag = this.#pending.get(id);
    if (tag === undefined) throw notWaitedFor(MESSAGE.DEVICE_TLB, id);
    this.#pending.delete(id);
    if (tag === FORGOTTEN) return false;
    model.devices?.invalidated(tag, result > DEVICE_TLB.UNSUPPORTED ? DEVICE_TLB.UNSUPPORTED : result);
    return true;
  }

  /**
   * Tells the model of what ended without being sent, also of what it asks for then. True: there
   * was something.
   */
  deliver(model: Iommu): boolean {
    if (this.#known.length === 0) return false;
    while (this.#known.length > 0) {
      const known = this.#known;
      this.#known = [];
      for (const { tag, result } of known) model.devices?.invalidated(tag, result);
    }
    return true;
  }

  /** The model was reset and waits for nothing. */
  forget(): void {
    for (const id of this.#pending.keys()) this.#pending.set(id, FORGOTTEN);
    this.#known.length = 0;
  }
}
