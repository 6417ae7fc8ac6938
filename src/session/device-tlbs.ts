/**
 * ATS invalidation requests on their way to devices (DEVICE_TLB). The model is told how each ended, always after
 * the input in which it asked: a peer without the feature has no such devices, which is known at once and said later.
 */
import { DEVICE_TLB } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import type { DeviceTlb } from '../wire/messages.js';
import type { Outlet } from './ports.js';

/** Above this the model waits before it sends more. */
const MAX_PENDING = 1024;
/** A request from before a reset: its answer is taken and told nobody. */
const FORGOTTEN = -1;

/** Takes an ended request: the model's tag and a result of {@link DEVICE_TLB}. */
export type DeviceTlbEnded = (tag: number, result: number) => void;

export class DeviceTlbs {
  /** Requests that were sent to the peer. */
  sent = 0;
  /** Tags by frame id. */
  readonly #pending = new Map<number, number>();
  /** Ended without being sent, and not told yet: tags and results. */
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
   * Takes an answer. False: nobody asked. `room` is called instead of `ended` for a request from before a reset: a model
   * that was refused meanwhile, and waits for no other one, hears that there is room.
   */
  answer(id: number, result: number, ended: DeviceTlbEnded, room: () => void): boolean {
    const tag = this.#pending.get(id);
    if (tag === undefined) return false;
    this.#pending.delete(id);
    if (tag === FORGOTTEN) room();
    else ended(tag, result > DEVICE_TLB.UNSUPPORTED ? DEVICE_TLB.UNSUPPORTED : result);
    return true;
  }

  /** Tells what is known without asking; what the model asks then, too. */
  settle(ended: DeviceTlbEnded): void {
    while (this.#known.length > 0) {
      const known = this.#known;
      this.#known = [];
      for (const { tag, result } of known) ended(tag, result);
    }
  }

  /** The model was reset and waits for nothing. */
  forget(): void {
    for (const id of this.#pending.keys()) this.#pending.set(id, FORGOTTEN);
    this.#known.length = 0;
  }
}
