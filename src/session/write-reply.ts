/**
 * The answer to a REG_WRITE. The host batch that the write leads to can go with it: the thread that
 * wrote carries the batch out at once, and answers on the front channel.
 */
import type { Batch } from '../shadow/outbox.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import type { Outlet } from './ports.js';

const NO_OPERATIONS = new Uint32Array(0);

export class WriteReply {
  readonly #message = CODEC.RegWriteReply.create();
  #owed = false;
  #id = 0;
  #batch = 0;

  /** The REG_WRITE that is being handled asks for an answer, which {@link send} sends. */
  begin(id: number): void {
    this.#owed = true;
    this.#id = id;
    this.#message.batch = 0;
    this.#message.device = 0;
    this.#message.ops = NO_OPERATIONS;
  }

  /** An answer is owed, and no batch goes with it yet. */
  get takesBatch(): boolean {
    return this.#owed && this.#message.batch === 0;
  }

  /** Id of the batch that went, or goes, with an answer and is being carried out; 0: none. */
  get batch(): number {
    return this.#batch;
  }

  /** Sends a batch with the answer. */
  carry({ id, space, words }: Batch): void {
    this.#message.batch = id;
    this.#message.device = space.device;
    this.#message.ops = words;
    this.#batch = id;
  }

  /** A batch has been carried out. */
  carriedOut(id: number): void {
    if (id === this.#batch) this.#batch = 0;
  }

  /** Sends the answer, if one is owed. */
  send(front: Outlet): void {
    if (!this.#owed) return;
    this.#owed = false;
    front.put(MESSAGE.REG_WRITE, FLAG.REPLY, this.#id, CODEC.RegWriteReply, this.#message);
  }
}
