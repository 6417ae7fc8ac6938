/**
 * Commands that the peer carries out itself, in the store that rings their doorbell (QUEUE,
 * docs/protocol.md). It leaves copies in a shared ring. The session takes them before it handles
 * anything else, so the model knows what the peer has completed before it answers what was asked
 * later (ordering rule 6).
 */
import { CodedError } from '../base/errors.js';
import type { Iommu } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { CONTROL, MESSAGE } from '../wire/frame.js';
import type { Queue } from '../wire/messages.js';
import type { Outlet, SharedPage } from './ports.js';

/** Words of a slot of the ring. */
const SLOT_WORDS = 4;
/** Of the head of a run. */
const HEAD = { COUNT: 0, NUMBER: 1, INDEX: 2 } as const;

export class PeerCommands {
  /** Commands that were taken from the ring. */
  taken = 0;
  /** The model's own state follows what the peer has done: its scopes are not announced. */
  following = false;
  /**
   * While `following`: the peer has dropped all that the model names. Otherwise the peer may have
   * begun before it could see that something was handed out of which the model drops more than the
   * commands say.
   */
  exactly = false;
  /** The newest QUEUE; number 0: none was told. */
  readonly #message: Queue = CODEC.Queue.create();
  #run = new Uint32Array(256);
  #backend: Outlet | undefined;
  #page: SharedPage | undefined;
  /** Of the model's queue that it describes. */
  #version = -1;
  /** What stands in the control page. */
  #inForce = 0;
  #ringTaken = 0;

  /** @param backend where QUEUE goes; undefined: the peer carries out nothing */
  open(backend: Outlet | undefined, page: SharedPage): void {
    this.#backend = backend;
    this.#page = page;
    Atomics.store(page.control, CONTROL.QUEUE, 0);
    // The file may have served an earlier connection, as its magic may say.
    this.#ringTaken = Atomics.load(page.control, CONTROL.RING_FILLED);
    Atomics.store(page.control, CONTROL.RING_TAKEN, this.#ringTaken);
  }

  /**
   * Says whether the peer may: to be called before it can see that a store of its own was handled,
   * or an answer.
   */
  publish(model: Iommu, alone: boolean): void {
    const page = this.#page;
    if (page === undefined || this.#backend === undefined) return;
    const { peerQueue } = model;
    let inForce = 0;
    if (alone && peerQueue?.ready === true) {
      if (peerQueue.version !== this.#version) this.#tell(model);
      inForce = this.#message.number;
    }
    this.#putInForce(page, inForce);
  }

  /**
   * A translation was handed out. Closes the queue if its commands may miss that: to be called
   * before the answer goes.
   */
  handedOut(model: Iommu): void {
    if (this.#inForce !== 0 && model.peerQueue?.loose === true) this.#putInForce(this.#page as SharedPage, 0);
  }

  #putInForce(page: SharedPage, number: number): void {
    if (number === this.#inForce) return;
    this.#inForce = number;
    Atomics.store(page.control, CONTROL.QUEUE, number);
  }

  #tell(model: Iommu): void {
    const { peerQueue } = model;
    if (peerQueue === undefined) return;
    this.#version = peerQueue.version;
    const message = this.#message;
    peerQueue.describe(message);
    message.number = (message.number % 0xffff_ffff) + 1;
    this.#backend?.put(MESSAGE.QUEUE, 0, 0, CODEC.Queue, message);
  }

  /**
   * Takes what is in the ring. True: there was something. Throws `BAD_ARGUMENT` for commands that
   * the peer may not carry out.
   */
  take(model: Iommu): boolean {
    const page = this.#page;
    const ring = page?.ring;
    if (page === undefined || ring === undefined) return false;
    const filled = Atomics.load(page.control, CONTROL.RING_FILLED);
    if (filled === this.#ringTaken) return false;
    const slots = ring.length / SLOT_WORDS;
    const left = (filled - this.#ringTaken) >>> 0;
    if (left > slots) throw new CodedError('BAD_ARGUMENT', `${left} slots filled in a ring of ${slots}`);
    this.following = true;
    this.exactly = model.peerQueue?.ready === true;
    for (let done = 0; done < left; ) done += this.#takeOne(model, ring, left - done);
    this.following = false;
    Atomics.store(page.control, CONTROL.RING_TAKEN, this.#ringTaken);
    return true;
  }

  /** One run: a head, and the commands. Returns how many slots it took. */
  #takeOne(model: Iommu, ring: Uint32Array, left: number): number {
    const slotMask = ring.length / SLOT_WORDS - 1;
    const at = (this.#ringTaken & slotMask) * SLOT_WORDS;
    const count = ring[at + HEAD.COUNT] as number;
    const number = ring[at + HEAD.NUMBER] as number;
    const index = ring[at + HEAD.INDEX] as number;
    const queue = this.#message;
    const slots = count * 2 ** (queue.entryLog2 - 4);
    if (number === 0 || number !== queue.number || count === 0 || slots >= left) {
      throw new CodedError('BAD_ARGUMENT', `${count} commands of queue ${number} in the ring`);
    }
    // A copy: the peer may write there, and a run may go on at the ring's beginning.
    const words = this.#room(slots * SLOT_WORDS);
    for (let slot = 0; slot < slots; slot++) {
      const from = ((this.#ringTaken + 1 + slot) & slotMask) * SLOT_WORDS;
      for (let word = 0; word < SLOT_WORDS; word++)
        words[slot * SLOT_WORDS + word] = ring[from + word] as number;
    }
    if (model.peerQueue?.ran(words, 0, count, index) !== true) {
      throw new CodedError('BAD_ARGUMENT', 'the peer has carried out commands that it may not');
    }
    this.taken += count;
    this.#ringTaken = (this.#ringTaken + 1 + slots) >>> 0;
    return 1 + slots;
  }

  #room(words: number): Uint32Array {
    if (words > this.#run.length) this.#run = new Uint32Array(2 ** Math.ceil(Math.log2(words)));
    return this.#run;
  }
}
