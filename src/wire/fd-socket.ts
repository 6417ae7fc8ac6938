/**
 * A stream socket that belongs to this thread: receives and sends without waiting, descriptors
 * included. The structures of recvmsg(2) and sendmsg(2) are laid out once, in memory whose address
 * is known.
 *
 * LP64 layouts (recvmsg(2), cmsg(3)):
 *   struct msghdr   0 name · 8 namelen · 16 iov · 24 iovlen · 32 control · 40 controllen · 48 flags
 *   struct iovec    0 base · 8 len
 *   struct cmsghdr  0 len · 8 level · 12 type · 16 data, the next one 8-byte aligned
 */
import { CodedError } from '../base/errors.js';
import {
  closeFd,
  ERRNO,
  errno,
  MSG,
  NativeBuffer,
  recvmsg,
  SystemError,
  sendmsg,
  sendNow,
} from '../base/native.js';
import { highHalf, lowHalf } from '../base/u64.js';
import { MAX_DESCRIPTORS } from './frame.js';

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
/** Words of the structures in {@link FdSocket}'s own memory. */
const HEADER = 0;
const IOVEC = 16;
const CONTROL = 32;
const CMSG_HEADER_BYTES = 16;
/**
 * Room for the most descriptors that the kernel passes at once (SCM_MAX_FD), so that none can get
 * lost.
 */
const CONTROL_BYTES = CMSG_HEADER_BYTES + 4 * 256;
const RECEIVE_FLAGS = MSG.DONTWAIT | MSG.CMSG_CLOEXEC;

/** What {@link FdSocket.receive} found besides bytes. */
export const RECEIVED = { NOTHING: -1, CLOSED: 0 } as const;

export class FdSocket {
  readonly fd: number;
  /** Descriptors that came with the last {@link receive}. */
  readonly descriptors: number[] = [];
  readonly #memory = new NativeBuffer(4096);
  #open = true;

  constructor(fd: number) {
    this.fd = fd;
    const words = this.#memory.words;
    setAddress(words, HEADER + 4, this.#memory.address + IOVEC * 4);
    words[HEADER + 6] = 1;
  }

  /**
   * Receives at most `bytes` to `address` without waiting. Returns how many came,
   * {@link RECEIVED}.CLOSED when the peer will send no more, or {@link RECEIVED}.NOTHING. Throws
   * `EXTRA_DESCRIPTOR`, `SOCKET_FAILED`.
   */
  receive(address: number, bytes: number): number {
    const words = this.#memory.words;
    setAddress(words, IOVEC, address);
    words[IOVEC + 2] = bytes;
    setAddress(words, HEADER + 8, this.#memory.address + CONTROL * 4);
    words[HEADER + 10] = CONTROL_BYTES;
    // Setting the length of an array is a slow call even when nothing changes.
    if (this.descriptors.length > 0) this.descriptors.length = 0;
    for (;;) {
      const count = recvmsg(this.fd, this.#memory.address, RECEIVE_FLAGS);
      if (count >= 0) {
        if (words[HEADER + 10] !== 0) this.#takeDescriptors(words);
        return count;
      }
      const error = errno();
      if (error === ERRNO.EAGAIN) return RECEIVED.NOTHING;
      if (error === ERRNO.ECONNRESET) return RECEIVED.CLOSED;
      if (error !== ERRNO.EINTR) throw failed('recvmsg', error);
    }
  }

  /**
   * Sends without waiting; returns how many bytes went (0: none now). Throws `PEER_CLOSED`,
   * `SOCKET_FAILED`.
   */
  send(address: number, bytes: number): number {
    for (;;) {
      const count = sendNow(this.fd, address, bytes);
      if (count >= 0) return count;
      const error = errno();
      if (error === ERRNO.EAGAIN) return 0;
      if (error !== ERRNO.EINTR) throw failed('send', error);
    }
  }

  /**
   * As {@link send}, the descriptors with the first byte; when 0 comes back they have not gone
   * either.
   */
  sendWithDescriptors(address: number, bytes: number, descriptors: readonly number[]): number {
    const words = this.#memory.words;
    setAddress(words, IOVEC, address);
    words[IOVEC + 2] = bytes;
    setAddress(words, HEADER + 8, this.#memory.address + CONTROL * 4);
    words[HEADER + 10] = CMSG_HEADER_BYTES + ((descriptors.length * 4 + 7) & ~7);
    words[CONTROL] = CMSG_HEADER_BYTES + descriptors.length * 4;
    words[CONTROL + 1] = 0;
    words[CONTROL + 2] = SOL_SOCKET;
    words[CONTROL + 3] = SCM_RIGHTS;
    for (let i = 0; i < descriptors.length; i++) words[CONTROL + 4 + i] = descriptors[i] as number;
    for (;;) {
      const count = sendmsg(this.fd, this.#memory.address, MSG.DONTWAIT | MSG.NOSIGNAL);
      if (count >= 0) return count;
      const error = errno();
      if (error === ERRNO.EAGAIN) return 0;
      if (error !== ERRNO.EINTR) throw failed('sendmsg', error);
    }
  }

  /** Closes the socket and gives its memory back; a second call does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.fd);
    this.#memory.free();
  }

  #takeDescriptors(words: Uint32Array): void {
    const end = words[HEADER + 10] as number;
    for (let at = 0; at + CMSG_HEADER_BYTES <= end; ) {
      const word = CONTROL + at / 4;
      const length = words[word] as number;
      if (length < CMSG_HEADER_BYTES) break;
      if (words[word + 2] === SOL_SOCKET && words[word + 3] === SCM_RIGHTS) {
        const count = (length - CMSG_HEADER_BYTES) >>> 2;
        for (let i = 0; i < count; i++) this.descriptors.push(words[word + 4 + i] as number);
      }
      at += (length + 7) & ~7;
    }
    if (this.descriptors.length <= MAX_DESCRIPTORS && ((words[HEADER + 12] as number) & MSG.CTRUNC) === 0)
      return;
    const count = this.descriptors.length;
    for (const fd of this.descriptors) closeFd(fd);
    this.descriptors.length = 0;
    throw new CodedError(
      'EXTRA_DESCRIPTOR',
      `${count} descriptors with one frame, at most ${MAX_DESCRIPTORS}`,
    );
  }
}

function setAddress(words: Uint32Array, index: number, address: number): void {
  words[index] = lowHalf(address);
  words[index + 1] = highHalf(address);
}

function failed(call: string, error: number): CodedError {
  const gone = error === ERRNO.EPIPE || error === ERRNO.ECONNRESET;
  return new CodedError(gone ? 'PEER_CLOSED' : 'SOCKET_FAILED', new SystemError(call, error).message);
}
