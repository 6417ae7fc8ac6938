/**
 * Guest memory through the backend channel. The engine is in the middle of a walk, so this sends a
 * request and waits for its answer. Other answers that arrive are set aside as frames. The front
 * channel is read into its buffer, so that the peer can go on sending.
 */
import { CodedError } from '../base/errors.js';
import { POLL, PollSet } from '../base/native.js';
import type { RemoteAccess } from '../memory/remote.js';
import { type Channel, FILL } from '../wire/channel.js';
import { CODEC } from '../wire/codec.js';
import { FLAG, Frame, MESSAGE } from '../wire/frame.js';
import { answerHandler } from './backend.js';
import { notWaitedFor } from './unexpected-reply.js';

const FRONT = 0;
const BACKEND = 1;
const WAKE = 2;

/** What it needs of a channel. */
export type MemoryChannel = Pick<
  Channel,
  | 'fd'
  | 'frame'
  | 'bytes'
  | 'unsent'
  | 'owed'
  | 'full'
  | 'put'
  | 'flush'
  | 'fill'
  | 'next'
  | 'body'
  | 'ending'
>;

/** A frame that came while something else was waited for. */
export interface SetAside {
  readonly frame: Frame;
  readonly bytes: Uint8Array;
}

export class BackendMemory implements RemoteAccess {
  found = 0;
  /** Why the connection must end, once it must; every access fails from then on. */
  failure: CodedError | undefined;
  /** Frames of the backend channel that came before an answer, in order. */
  readonly setAside: SetAside[] = [];
  /** Called when the wake descriptor fires during a wait; may set {@link failure}. */
  onWake: (() => void) | undefined;
  readonly #front: MemoryChannel;
  readonly #wakeFd: number;
  readonly #poll = new PollSet(3);
  #backend: MemoryChannel | undefined;
  #nextId = 1;

  constructor(front: MemoryChannel, wakeFd: number) {
    this.#front = front;
    this.#wakeFd = wakeFd;
  }

  open(backend: MemoryChannel): void {
    this.#backend = backend;
  }

  read(gpaLo: number, gpaHi: number, bytes: number, into: Uint8Array): boolean {
    return this.#ask(MESSAGE.MEM_READ, (channel, id) => {
      channel.put(MESSAGE.MEM_READ, FLAG.NEED_REPLY, id, CODEC.MemRead, { gpaLo, gpaHi, size: bytes });
      return (): boolean => {
        const reply = channel.body(CODEC.MemReadReply);
        if (reply.code !== 0) return false;
        if (reply.data.length !== bytes) {
          throw new CodedError(
            'BAD_ARGUMENT',
            `MEM_READ of ${bytes} bytes answered with ${reply.data.length}`,
          );
        }
        into.set(reply.data);
        return true;
      };
    });
  }

  write(gpaLo: number, gpaHi: number, data: Uint8Array): boolean {
    return this.#ask(MESSAGE.MEM_WRITE, (channel, id) => {
      channel.put(MESSAGE.MEM_WRITE, FLAG.NEED_REPLY, id, CODEC.MemWrite, { gpaLo, gpaHi, data });
      return (): boolean => channel.body(CODEC.Status).code === 0;
    });
  }

  cas(gpaLo: number, gpaHi: number, expected: number, value: number): boolean {
    return this.#ask(MESSAGE.MEM_CAS, (channel, id) => {
      const message = { gpaLo, gpaHi, expected: expected >>> 0, value: value >>> 0 };
      channel.put(MESSAGE.MEM_CAS, FLAG.NEED_REPLY, id, CODEC.MemCas, message);
      return (): boolean => {
        const reply = channel.body(CODEC.MemCasReply);
        this.found = reply.found;
        return reply.code === 0;
      };
    });
  }

  free(): void {
    this.#poll.free();
  }

  #ask(type: number, start: (channel: MemoryChannel, id: number) => () => boolean): boolean {
    const channel = this.#backend;
    if (channel === undefined || this.failure !== undefined) return false;
    try {
      const id = this.#nextId;
      this.#nextId = (id + 1) >>> 0;
      const finish = start(channel, id);
      this.#await(channel, type, id);
      return finish();
    } catch (error) {
      // The model sees memory that is not there; the loop ends the connection when the model is
      // done.
      this.failure = error instanceof CodedError ? error : new CodedError('INTERNAL', String(error));
      return false;
    }
  }

  /** Returns when the channel's frame is the answer. */
  #await(channel: MemoryChannel, type: number, id: number): void {
    for (;;) {
      channel.flush();
      while (channel.next()) {
        const { frame } = channel;
        if (frame.reply && frame.type === type && frame.id === id && frame.descriptors.length === 0) return;
        this.#keep(channel);
      }
      const filled = channel.fill();
      if (filled === FILL.CLOSED) throw channel.ending();
      if (filled === FILL.NOTHING) this.#wait(channel);
    }
  }

  #keep(channel: MemoryChannel): void {
    const { frame, bytes } = channel;
    answerHandler(frame);
    // More answers than requests. So what is kept here is bounded, however long the peer does not
    // answer.
    if (channel.owed < 0) throw notWaitedFor(frame.type, frame.id);
    const kept = new Frame();
    kept.type = frame.type;
    kept.flags = frame.flags;
    kept.id = frame.id;
    kept.end = frame.end - frame.start;
    this.setAside.push({ frame: kept, bytes: bytes.slice(frame.start, frame.end) });
  }

  #wait(channel: MemoryChannel): void {
    const poll = this.#poll;
    poll.set(BACKEND, channel.fd, POLL.IN | (channel.unsent > 0 ? POLL.OUT : 0));
    poll.set(FRONT, this.#front.full ? -1 : this.#front.fd, POLL.IN);
    poll.set(WAKE, this.#wakeFd, POLL.IN);
    poll.wait(-1);
    // The main thread wants an answer, or the session's end, which must not depend on this peer.
    if (poll.events(WAKE) !== 0) this.onWake?.();
    if (this.failure !== undefined) throw this.failure;
    if (poll.events(FRONT) !== 0 && this.#front.fill() === FILL.CLOSED) {
      throw new CodedError('PEER_CLOSED', 'the peer closed the connection while it was asked for memory');
    }
  }
}
