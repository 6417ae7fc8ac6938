/**
 * The mailbox: one frame in each direction in the control page, found by polling, without a system
 * call (docs/protocol.md, "The mailbox"). A frame is copied before it is read, because the other
 * side may change it at any time.
 */
import { CodedError } from '../base/errors.js';
import type { Codec } from './codec.js';
import {
  CONTROL,
  Frame,
  flagsAreRight,
  HEADER_BYTES,
  MAILBOX,
  MAX_FRAME_BYTES,
  MESSAGE,
  messageName,
  VERSION,
} from './frame.js';
import { BodyWriter } from './writer.js';

/**
 * The type of no message. It says that the answer goes on the front channel, for want of room here.
 */
const ELSEWHERE = 0;

/** A place in the control page, and a copy of what was there. */
class Place {
  /** The frame that {@link take} found, in {@link bytes}. */
  readonly frame = new Frame();
  readonly bytes: Uint8Array;
  readonly #place: Uint32Array;
  readonly #copy: Uint32Array;

  constructor(control: Uint32Array, at: number, bytes: number) {
    this.#place = new Uint32Array(control.buffer, control.byteOffset + at, bytes >>> 2);
    this.#copy = new Uint32Array(bytes >>> 2);
    this.bytes = new Uint8Array(this.#copy.buffer);
  }

  get room(): number {
    return this.bytes.length;
  }

  /** @param words a frame, and its bytes */
  fill(words: Uint32Array, bytes: number): void {
    const place = this.#place;
    for (let at = 0; at << 2 < bytes; at++) place[at] = words[at] as number;
  }

  /** Throws `BAD_HEADER`, `FRAME_TOO_LONG`. */
  take(): void {
    const words = this.#copy;
    const place = this.#place;
    for (let at = 0; at < HEADER_BYTES / 4; at++) words[at] = place[at] as number;
    const { frame } = this;
    frame.type = words[0] as number;
    frame.flags = words[1] as number;
    const size = words[2] as number;
    frame.id = words[3] as number;
    if (!flagsAreRight(frame.flags)) {
      throw new CodedError('BAD_HEADER', `flags 0x${frame.flags.toString(16)} in the mailbox`);
    }
    if (size > this.room - HEADER_BYTES) {
      throw new CodedError('FRAME_TOO_LONG', `a body of ${size} bytes in the mailbox`);
    }
    frame.start = HEADER_BYTES;
    frame.end = HEADER_BYTES + size;
    for (let at = HEADER_BYTES / 4; at << 2 < frame.end; at++) words[at] = place[at] as number;
  }
}

/** Makes frames in {@link words}. They may be too large for their place; the caller checks that. */
class Maker {
  readonly words = new Uint32Array(MAX_FRAME_BYTES / 4);
  readonly #bytes = new Uint8Array(this.words.buffer);
  readonly #writer = new BodyWriter();

  /** Returns its bytes. */
  make<T extends object>(type: number, flags: number, id: number, codec: Codec<T>, message: T): number {
    this.#writer.start(this.#bytes, HEADER_BYTES);
    codec.encode(message, this.#writer);
    const end = this.#writer.position;
    const { words } = this;
    words[0] = type;
    words[1] = flags | VERSION;
    words[2] = end - HEADER_BYTES;
    words[3] = id;
    return end;
  }
}

const NO_FRAME = new Uint32Array(HEADER_BYTES / 4);

/** The daemon's end. */
export class DaemonMailbox {
  readonly #control: Uint32Array;
  readonly #in: Place;
  readonly #out: Place;
  readonly #maker = new Maker();
  #taken = 0;
  #answered = 0;

  /** @param control the words of the control page. The mailbox is empty at first. */
  constructor(control: Uint32Array) {
    this.#control = control;
    this.#in = new Place(control, MAILBOX.PEER, MAILBOX.PEER_BYTES);
    this.#out = new Place(control, MAILBOX.DAEMON, MAILBOX.DAEMON_BYTES);
    this.#taken = Atomics.load(control, CONTROL.MAIL_SENT);
    this.#answered = Atomics.load(control, CONTROL.MAIL_ANSWERED);
    this.handled();
  }

  /** The frame that {@link take} took. */
  get frame(): Frame {
    return this.#in.frame;
  }

  /** What its `start` and `end` count in. */
  get bytes(): Uint8Array {
    return this.#in.bytes;
  }

  get empty(): boolean {
    return Atomics.load(this.#control, CONTROL.MAIL_SENT) === this.#taken;
  }

  /** Whether there is a frame whose turn it is after `handled` frames of the front channel. */
  due(handled: number): boolean {
    return !this.empty && (((this.#control[CONTROL.MAIL_AFTER] as number) - handled) | 0) <= 0;
  }

  /** Whether the peer has sent more than `handled` frames on the front channel. */
  frontHasMore(handled: number): boolean {
    return (this.#control[CONTROL.FRONT_SENT] as number) !== handled;
  }

  /**
   * Takes the frame. Throws `BAD_HEADER`, `FRAME_TOO_LONG`, or `OUT_OF_ORDER` for a type that is
   * not allowed here.
   */
  take(): void {
    const taken = (this.#taken + 1) >>> 0;
    const sent = Atomics.load(this.#control, CONTROL.MAIL_SENT);
    if (sent !== taken) throw new CodedError('OUT_OF_ORDER', `frame ${sent} in the mailbox, not ${taken}`);
    this.#in.take();
    this.#taken = taken;
    const { type, reply } = this.frame;
    if (type !== MESSAGE.REG_WRITE && !(type === MESSAGE.HOST_BATCH && reply)) {
      throw new CodedError('OUT_OF_ORDER', `${messageName(type)} in the mailbox`);
    }
  }

  /**
   * Publishes that the last frame has been handled: all that it completed is in guest memory. Makes
   * room for the next.
   */
  handled(): void {
    if (this.#control[CONTROL.MAIL_HANDLED] === this.#taken) return;
    Atomics.store(this.#control, CONTROL.MAIL_HANDLED, this.#taken);
  }

  /**
   * Puts an answer there. False if it does not fit: then the place says that it goes on the front
   * channel. Either way the frame that it answers is published as handled.
   */
  answer<T extends object>(type: number, flags: number, id: number, codec: Codec<T>, message: T): boolean {
    const bytes = this.#maker.make(type, flags, id, codec, message);
    const fits = bytes <= this.#out.room;
    if (fits) this.#out.fill(this.#maker.words, bytes);
    else this.#out.fill(NO_FRAME, HEADER_BYTES);
    this.#answered = (this.#answered + 1) >>> 0;
    // Published by the atomic store below.
    this.#control[CONTROL.MAIL_HANDLED] = this.#taken;
    Atomics.store(this.#control, CONTROL.MAIL_ANSWERED, this.#answered);
    return fits;
  }

  /** Whether the peer has stopped polling and waits for MAIL. */
  get peerSleeps(): boolean {
    return Atomics.load(this.#control, CONTROL.PEER_SLEEPS) !== 0;
  }

  /**
   * Says whether the peer must send MAIL for a frame. The caller polls once more afterwards, for a
   * frame that came before.
   */
  sleep(asleep: boolean): void {
    Atomics.store(this.#control, CONTROL.DAEMON_SLEEPS, asleep ? 1 : 0);
  }

  /**
   * Publishes the CPU of this thread. False: the peer put its last frame on the same CPU, so
   * polling would only keep the other side from running.
   */
  apart(cpu: number): boolean {
    const control = this.#control;
    const here = cpu + 1;
    if (control[CONTROL.DAEMON_CPU] !== here) control[CONTROL.DAEMON_CPU] = here;
    return here === 0 || control[CONTROL.PEER_CPU] !== here;
  }
}

/** The peer's end. */
export class PeerMailbox {
  readonly #control: Uint32Array;
  readonly #in: Place;
  readonly #out: Place;
  readonly #maker = new Maker();
  #sent = 0;
  #answers = 0;

  constructor(control: Uint32Array) {
    this.#control = control;
    this.#in = new Place(control, MAILBOX.DAEMON, MAILBOX.DAEMON_BYTES);
    this.#out = new Place(control, MAILBOX.PEER, MAILBOX.PEER_BYTES);
  }

  /** The frame that {@link take} took. */
  get frame(): Frame {
    return this.#in.frame;
  }

  get bytes(): Uint8Array {
    return this.#in.bytes;
  }

  /**
   * Puts a frame there; false when there is no room for it now.
   * @param after frames sent on the front channel before it
   */
  put<T extends object>(
    after: number,
    type: number,
    flags: number,
    id: number,
    codec: Codec<T>,
    message: T,
  ): boolean {
    const control = this.#control;
    if (Atomics.load(control, CONTROL.MAIL_HANDLED) !== this.#sent) return false;
    const bytes = this.#maker.make(type, flags, id, codec, message);
    if (bytes > this.#out.room) return false;
    control[CONTROL.MAIL_AFTER] = after;
    this.#out.fill(this.#maker.words, bytes);
    this.#sent = (this.#sent + 1) >>> 0;
    Atomics.store(control, CONTROL.MAIL_SENT, this.#sent);
    return true;
  }

  /**
   * Publishes how many frames were sent on the front channel, for a daemon that polls the control
   * page.
   */
  sentOnFront(frames: number): void {
    Atomics.store(this.#control, CONTROL.FRONT_SENT, frames);
  }

  /** Whether the daemon waits for MAIL. Read it after {@link put}. */
  get daemonSleeps(): boolean {
    return Atomics.load(this.#control, CONTROL.DAEMON_SLEEPS) !== 0;
  }

  get answered(): boolean {
    return Atomics.load(this.#control, CONTROL.MAIL_ANSWERED) !== this.#answers;
  }

  /**
   * Takes the answer; false when it comes on the front channel. Throws `BAD_HEADER`,
   * `FRAME_TOO_LONG`.
   */
  take(): boolean {
    this.#answers = (this.#answers + 1) >>> 0;
    const elsewhere = this.#control[MAILBOX.DAEMON / 4] === ELSEWHERE;
    if (!elsewhere) this.#in.take();
    return !elsewhere;
  }

  /** As {@link DaemonMailbox.sleep}, of an answer. */
  sleep(asleep: boolean): void {
    Atomics.store(this.#control, CONTROL.PEER_SLEEPS, asleep ? 1 : 0);
  }
}
