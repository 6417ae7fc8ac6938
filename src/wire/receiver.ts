/**
 * Bytes in, frames out: a state machine with one method per state, over one buffer that the socket
 * fills.
 *
 * Descriptors. The kernel hands over the descriptors of a `sendmsg` with its first bytes and ends
 * that receive behind its last. A frame with descriptors is a `sendmsg` of its own
 * (docs/protocol.md), so they belong to the frame that the last received byte is part of, and that
 * frame must have begun in the same receive.
 */
import { CodedError } from '../base/errors.js';
import { closeFd } from '../base/native.js';
import { type Frame, flagsAreRight, HEADER_BYTES, MAX_BODY_BYTES, MAX_FRAME_BYTES } from './frame.js';

const STATE = { HEADER: 0, BODY: 1 } as const;

/** Descriptors that came with the bytes [from, to) of the buffer. */
interface Passed {
  from: number;
  to: number;
  readonly descriptors: number[];
}

export class Receiver {
  #bytes: Uint8Array;
  #words: DataView;
  #state: number = STATE.HEADER;
  /** Unread bytes are [start, end). */
  #start = 0;
  #end = 0;
  #type = 0;
  #flags = 0;
  #size = 0;
  #id = 0;
  readonly #passed: Passed[] = [];

  /** @param bytes at least two frames long */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Where the next receive may write; call {@link makeRoom} first. */
  get writePosition(): number {
    return this.#end;
  }

  /**
   * Makes room behind the unread bytes and returns how much there is; 0 when a whole frame waits to
   * be taken. Moves bytes: a frame handed out before is no longer valid.
   */
  makeRoom(): number {
    if (this.#start === this.#end && this.#passed.length === 0) {
      this.#start = 0;
      this.#end = 0;
    } else if (this.#bytes.length - this.#end < MAX_FRAME_BYTES && this.#start > 0) {
      this.#compact();
    }
    return this.#bytes.length - this.#end;
  }

  /**
   * Takes note of `count` bytes written at {@link writePosition} and of the descriptors that came
   * with them.
   */
  received(count: number, descriptors: readonly number[]): void {
    const from = this.#end;
    this.#end += count;
    if (descriptors.length > 0) this.#passed.push({ from, to: this.#end, descriptors: descriptors.slice() });
  }

  /** True when the peer may close now: no frame is half here. */
  get idle(): boolean {
    return this.#start === this.#end && this.#state === STATE.HEADER;
  }

  /**
   * Fills `frame` with the next whole frame; false when more bytes are needed. Throws
   * `FRAME_TOO_LONG`, `BAD_HEADER`, `EXTRA_DESCRIPTOR`.
   */
  next(frame: Frame): boolean {
    if (this.#state === STATE.HEADER && !this.#readHeader()) return false;
    return this.#readBody(frame);
  }

  /** Closes descriptors that no frame took. */
  close(): void {
    for (const passed of this.#passed) for (const fd of passed.descriptors) closeFd(fd);
    this.#passed.length = 0;
    this.#bytes = new Uint8Array(0);
    this.#start = 0;
    this.#end = 0;
  }

  #readHeader(): boolean {
    if (this.#end - this.#start < HEADER_BYTES) return false;
    const at = this.#start;
    this.#type = this.#words.getUint32(at, true);
    this.#flags = this.#words.getUint32(at + 4, true);
    this.#size = this.#words.getUint32(at + 8, true);
    this.#id = this.#words.getUint32(at + 12, true);
    if (!flagsAreRight(this.#flags)) {
      throw new CodedError(
        'BAD_HEADER',
        `flags 0x${this.#flags.toString(16)} of a header of type ${this.#type}`,
      );
    }
    if (this.#size > MAX_BODY_BYTES) {
      throw new CodedError('FRAME_TOO_LONG', `a body of ${this.#size} bytes, at most ${MAX_BODY_BYTES}`);
    }
    this.#state = STATE.BODY;
    return true;
  }

  #readBody(frame: Frame): boolean {
    const begin = this.#start;
    const end = begin + HEADER_BYTES + this.#size;
    if (end > this.#end) return false;
    frame.type = this.#type;
    frame.flags = this.#flags;
    frame.id = this.#id;
    frame.start = begin + HEADER_BYTES;
    frame.end = end;
    this.#start = end;
    this.#state = STATE.HEADER;
    if (this.#passed.length > 0) this.#takePassed(frame, begin, end);
    return true;
  }

  #takePassed(frame: Frame, begin: number, end: number): void {
    while (this.#passed.length > 0) {
      const passed = this.#passed[0] as Passed;
      if (passed.to > end) return;
      this.#passed.shift();
      frame.descriptors.push(...passed.descriptors);
      if (passed.from > begin) {
        throw new CodedError('EXTRA_DESCRIPTOR', 'descriptors in the middle of a frame');
      }
    }
  }

  #compact(): void {
    const shift = this.#start;
    this.#bytes.copyWithin(0, shift, this.#end);
    this.#start = 0;
    this.#end -= shift;
    for (const passed of this.#passed) {
      passed.from -= shift;
      passed.to -= shift;
    }
  }
}
