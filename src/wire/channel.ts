/**
 * One end of a connection: frames in, frames out. No call waits. What cannot be sent now stays in a
 * buffer until {@link Channel.flush}.
 */
import { CodedError } from '../base/errors.js';
import { closeFd, NativeBuffer } from '../base/native.js';
import type { Codec } from './codec.js';
import { FdSocket, RECEIVED } from './fd-socket.js';
import { FLAG, Frame, HEADER_BYTES, MAX_BODY_BYTES, MAX_FRAME_BYTES, VERSION } from './frame.js';
import { Receiver } from './receiver.js';
import { BodyWriter } from './writer.js';

/** Whole frames fit, and a batch of small ones behind the largest. */
const RECEIVE_BYTES = 3 * 65536;
const FIRST_SEND_BYTES = 2 * 65536 + 4096;
/** A peer that leaves this many bytes unread is taken for stalled. */
const SEND_LIMIT = 8 * 1024 * 1024;

/** What {@link Channel.fill} found. */
export const FILL = { DATA: 1, NOTHING: 0, CLOSED: -1, FULL: 2 } as const;

export class Channel {
  /** The frame that {@link next} found; valid until the next {@link fill}. */
  readonly frame = new Frame();
  readonly #socket: FdSocket;
  readonly #in = new NativeBuffer(RECEIVE_BYTES);
  readonly #receiver = new Receiver(this.#in.bytes);
  readonly #writer = new BodyWriter();
  #out = new NativeBuffer(FIRST_SEND_BYTES);
  #outView = view(this.#out);
  /** Unsent bytes are [start, end). */
  #outStart = 0;
  #outEnd = 0;
  /** Questions sent, less answers received. */
  #owed = 0;
  #closed = false;

  /** Takes over the descriptor. */
  constructor(fd: number) {
    this.#socket = new FdSocket(fd);
  }

  get fd(): number {
    return this.#socket.fd;
  }

  /** The bytes that {@link frame}'s `start` and `end` count in. */
  get bytes(): Uint8Array {
    return this.#in.bytes;
  }

  /** Answers in flight; below 0 when more came than were asked for. */
  get owed(): number {
    return this.#owed;
  }

  /** Bytes that wait for the socket to take them. */
  get unsent(): number {
    return this.#outEnd - this.#outStart;
  }

  /** True when frames must be taken before more can be received. */
  get full(): boolean {
    return this.#receiver.makeRoom() === 0;
  }

  /**
   * Receives once, without waiting: {@link FILL}.DATA, NOTHING, CLOSED, or FULL when frames must be
   * taken first. Throws `FRAME_TRUNCATED` when the peer closed in the middle of a frame, and as
   * `FdSocket.receive`.
   */
  fill(): number {
    const room = this.#receiver.makeRoom();
    if (room === 0) return FILL.FULL;
    const count = this.#socket.receive(this.#in.address + this.#receiver.writePosition, room);
    if (count > 0) {
      this.#receiver.received(count, this.#socket.descriptors);
      return FILL.DATA;
    }
    return count === RECEIVED.NOTHING ? FILL.NOTHING : FILL.CLOSED;
  }

  /**
   * Takes the next whole frame into {@link frame}; false when there is none. Throws as
   * `Receiver.next`.
   */
  next(): boolean {
    if (!this.#receiver.next(this.frame)) return false;
    if (this.frame.reply) this.#owed--;
    return true;
  }

  /** How the connection ended. Valid after {@link FILL}.CLOSED and the last {@link next}. */
  ending(): CodedError {
    return this.#receiver.idle
      ? new CodedError('PEER_CLOSED', 'the peer closed the connection')
      : new CodedError('FRAME_TRUNCATED', 'the peer closed the connection in the middle of a frame');
  }

  /** Decodes the body of {@link frame}. Throws `BAD_BODY`. */
  body<T extends object>(codec: Codec<T>): T {
    return codec.decode(this.#in.bytes, this.frame.start, this.frame.end);
  }

  /** Appends a frame to what is to be sent. Throws `PEER_STALLED`. */
  put<T extends object>(type: number, flags: number, id: number, codec: Codec<T>, message: T): void {
    const at = this.#reserve();
    const body = at + HEADER_BYTES;
    this.#writer.start(this.#out.bytes, body);
    codec.encode(message, this.#writer);
    const size = this.#writer.position - body;
    if (size > MAX_BODY_BYTES) throw new CodedError('INTERNAL', `a ${codec.name} of ${size} bytes`);
    this.#outView.setUint32(at, type, true);
    this.#outView.setUint32(at + 4, flags | VERSION, true);
    this.#outView.setUint32(at + 8, size, true);
    this.#outView.setUint32(at + 12, id, true);
    this.#outEnd = this.#writer.position;
    if ((flags & FLAG.NEED_REPLY) !== 0) this.#owed++;
  }

  /**
   * Sends what the socket takes now; true when nothing is left. Throws `PEER_CLOSED`,
   * `SOCKET_FAILED`.
   */
  flush(): boolean {
    while (this.#outStart < this.#outEnd) {
      const sent = this.#socket.send(this.#out.address + this.#outStart, this.#outEnd - this.#outStart);
      if (sent === 0) return false;
      this.#outStart += sent;
    }
    this.#outStart = 0;
    this.#outEnd = 0;
    return true;
  }

  /**
   * As {@link flush} for one frame whose first byte carries descriptors, when that frame is all
   * there is to send; false when none of it has gone yet.
   */
  flushWithDescriptors(descriptors: readonly number[]): boolean {
    const sent = this.#socket.sendWithDescriptors(
      this.#out.address + this.#outStart,
      this.#outEnd - this.#outStart,
      descriptors,
    );
    this.#outStart += sent;
    return sent > 0;
  }

  /** Appends bytes as they are: for tests that send what no codec would. */
  putRaw(bytes: Uint8Array): void {
    const at = this.#reserve();
    this.#out.bytes.set(bytes, at);
    this.#outEnd = at + bytes.length;
  }

  /**
   * Closes the socket, and every descriptor that came and was not taken. A second call does
   * nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.dropDescriptors();
    this.#receiver.close();
    this.#socket.close();
    this.#in.free();
    this.#out.free();
    this.#outStart = 0;
    this.#outEnd = 0;
  }

  /** Closes the descriptors of {@link frame} that were not taken. */
  dropDescriptors(): void {
    const descriptors = this.frame.descriptors;
    if (descriptors.length === 0) return;
    for (const fd of descriptors) closeFd(fd);
    descriptors.length = 0;
  }

  /** Room for one frame of the largest size; returns where it begins. */
  #reserve(): number {
    if (this.#out.size - this.#outEnd >= MAX_FRAME_BYTES) return this.#outEnd;
    const unsent = this.#outEnd - this.#outStart;
    if (unsent > SEND_LIMIT)
      throw new CodedError('PEER_STALLED', `${unsent} bytes wait for the peer to read`);
    if (this.#out.size - unsent >= MAX_FRAME_BYTES) {
      this.#out.bytes.copyWithin(0, this.#outStart, this.#outEnd);
    } else {
      const larger = new NativeBuffer(this.#out.size * 2);
      larger.bytes.set(this.#out.bytes.subarray(this.#outStart, this.#outEnd));
      this.#out.free();
      this.#out = larger;
      this.#outView = view(larger);
    }
    this.#outStart = 0;
    this.#outEnd = unsent;
    return unsent;
  }
}

function view(buffer: NativeBuffer): DataView {
  return new DataView(buffer.bytes.buffer, buffer.bytes.byteOffset, buffer.bytes.byteLength);
}
