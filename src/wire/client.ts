/**
 * The peer's side of the wire, for the simulated VM, tests and benchmarks. It asks and waits, and
 * serves the backend channel while it waits, as every peer must (ARCHITECTURE.md, The wire). It
 * blocks its thread.
 */
import { CodedError, ERRORS, type ErrorName, errorName } from '../base/errors.js';
import { closeFd, connectUnix, POLL, PollSet, socketPair } from '../base/native.js';
import { Channel, FILL } from './channel.js';
import { bodyCodec, CODEC, type Codec, replyCodec } from './codec.js';
import { FLAG, MESSAGE, messageName } from './frame.js';
import type { PeerMailbox } from './mailbox.js';
import type * as M from './messages.js';

/** What the daemon asks of a peer. Messages are reused: copy what is to be kept. */
export interface BackendService {
  invalidate(message: M.Invalidate): M.Status;
  /** Absent: the peer remaps no interrupts. */
  invalidateInterrupts?(message: M.InvalidateInterrupts): M.Status;
  interrupt(message: M.Interrupt): void;
  memRead(message: M.MemRead): M.MemReadReply;
  memWrite(message: M.MemWrite): M.Status;
  memCas(message: M.MemCas): M.MemCasReply;
  resume(message: M.Resume): void;
  pageResponse(message: M.PageResponse): void;
  deviceTlb(message: M.DeviceTlb): M.DeviceTlbReply;
  hostBatch(message: M.HostBatch): M.HostBatchReply;
  track(message: M.Track): M.Status;
  /** HOST_SPACE_CREATE to HOST_PASID_FREE. Absent: there are no host objects. */
  hostOperation?(type: number, message: object): M.HostReply;
  hostRespond?(message: M.HostRespond): void;
  /** Absent: the peer asks for every translation, which is always allowed. */
  peerWalk?(message: M.PeerWalk): void;
  /** Absent: the peer carries out nothing by itself, which is always allowed. */
  queue?(message: M.Queue): void;
}

type HostRequest = typeof MESSAGE.HOST_SPACE_CREATE;

const FRONT = 0;
const BACKEND = 1;
const DEFAULT_TIMEOUT_MS = 10_000;
/** Polls of the mailbox before this thread sleeps. */
const LOOKS_FOR_MAIL = 1000;

/** An ERROR frame of the daemon, as an error of the table. */
function peerError(message: M.ErrorMessage): CodedError {
  const name = errorName(message.code);
  return new CodedError(name in ERRORS ? (name as ErrorName) : 'PEER_REFUSED', message.text);
}

export class Client {
  readonly front: Channel;
  readonly backend: Channel;
  /** The daemon's end of the backend channel, to be passed with HELLO; closed by {@link hello}. */
  readonly backendPeer: number;
  /** Most milliseconds that a request may take. */
  timeoutMs = DEFAULT_TIMEOUT_MS;
  /** Set when it is in force. */
  mailbox: PeerMailbox | undefined;
  readonly #service: BackendService;
  readonly #poll = new PollSet(2);
  #nextId = 1;
  #served = 0;
  /** Frames sent on the front channel, modulo 2^32. */
  #sent = 0;
  #backendEnded = false;
  #closed = false;

  /** @param fd a connected socket, taken over */
  constructor(fd: number, service: BackendService) {
    this.front = new Channel(fd);
    const [mine, theirs] = socketPair();
    this.backend = new Channel(mine);
    this.backendPeer = theirs;
    this.#service = service;
  }

  /** Connects to a daemon's socket. Throws `SystemError`. */
  static connect(path: string, service: BackendService): Client {
    return new Client(connectUnix(path), service);
  }

  /** HELLO with both descriptors: the backend socket's other end and the shared page file. */
  hello(message: M.Hello, sharedPage: number): M.HelloReply {
    const reply = this.request(MESSAGE.HELLO, message, [this.backendPeer, sharedPage]);
    closeFd(this.backendPeer);
    return reply;
  }

  /**
   * Asks and waits for the answer. The reply is reused by the next request of its kind. Throws the
   * daemon's error when the daemon ends the connection, and `PEER_STALLED` after {@link timeoutMs}.
   */
  request<T extends keyof M.Replies>(
    type: T,
    body: M.Bodies[T],
    descriptors: readonly number[] = [],
  ): M.Replies[T] {
    const id = this.#nextId++ >>> 0;
    this.send(type, FLAG.NEED_REPLY, id, bodyCodec(type), body, descriptors);
    return this.awaitReply(type, id);
  }

  /** Sends a message that has no answer. */
  post<T extends M.Posted>(type: T, body: M.Bodies[T]): void {
    this.send(type, 0, this.#nextId++ >>> 0, bodyCodec(type), body);
  }

  /** Sends one frame as given; for tests also a wrong one. */
  send<T extends object>(
    type: number,
    flags: number,
    id: number,
    codec: Codec<T>,
    body: T,
    descriptors: readonly number[] = [],
  ): void {
    this.front.put(type, flags, id, codec, body);
    this.#sent = (this.#sent + 1) >>> 0;
    if (descriptors.length > 0) {
      while (!this.front.flushWithDescriptors(descriptors)) this.#wait(this.timeoutMs);
    }
    while (!this.front.flush()) this.#wait(this.timeoutMs);
    this.mailbox?.sentOnFront(this.#sent);
  }

  /** Waits for the reply to request `id`. */
  awaitReply<T extends keyof M.Replies>(type: T, id: number): M.Replies[T] {
    for (;;) {
      if (this.front.next()) {
        const frame = this.front.frame;
        if (frame.type === MESSAGE.ERROR) throw peerError(this.front.body(CODEC.Error));
        if (frame.type === MESSAGE.MAIL) continue;
        if (!frame.reply || frame.type !== type || frame.id !== id) {
          throw new CodedError('UNEXPECTED_REPLY', `${messageName(frame.type)} ${frame.id}`);
        }
        return this.front.body(replyCodec(type));
      }
      const filled = this.front.fill();
      if (filled === FILL.CLOSED) throw this.front.ending();
      if (filled === FILL.NOTHING) this.#wait(this.timeoutMs);
    }
  }

  /** As {@link request}, through the mailbox where that is possible. */
  requestByMail<T extends keyof M.Replies>(type: T, body: M.Bodies[T]): M.Replies[T] {
    const id = this.#nextId++ >>> 0;
    const { mailbox } = this;
    if (mailbox === undefined || !this.#mail(mailbox, type, FLAG.NEED_REPLY, id, bodyCodec(type), body)) {
      this.send(type, FLAG.NEED_REPLY, id, bodyCodec(type), body);
      return this.awaitReply(type, id);
    }
    this.#awaitMail(mailbox);
    if (!mailbox.take()) return this.awaitReply(type, id);
    const { frame, bytes } = mailbox;
    if (!frame.reply || frame.type !== type || frame.id !== id) {
      throw new CodedError('UNEXPECTED_REPLY', `${messageName(frame.type)} ${frame.id} in the mailbox`);
    }
    return replyCodec(type).decode(bytes, frame.start, frame.end);
  }

  #mail<T extends object>(
    mailbox: PeerMailbox,
    type: number,
    flags: number,
    id: number,
    codec: Codec<T>,
    body: T,
  ): boolean {
    if (!mailbox.put(this.#sent, type, flags, id, codec, body)) return false;
    if (mailbox.daemonSleeps) this.post(MESSAGE.MAIL, {});
    return true;
  }

  #awaitMail(mailbox: PeerMailbox): void {
    for (let look = 0; look < LOOKS_FOR_MAIL; look++) if (mailbox.answered) return;
    mailbox.sleep(true);
    while (!mailbox.answered) {
      if (this.front.next()) {
        const { type, id } = this.front.frame;
        if (type === MESSAGE.ERROR) throw peerError(this.front.body(CODEC.Error));
        if (type !== MESSAGE.MAIL) throw new CodedError('UNEXPECTED_REPLY', `${messageName(type)} ${id}`);
        continue;
      }
      const filled = this.front.fill();
      if (filled === FILL.CLOSED) throw this.front.ending();
      if (filled === FILL.NOTHING) this.#wait(this.timeoutMs);
    }
    mailbox.sleep(false);
  }

  /**
   * Serves the daemon's requests, and waits at most `milliseconds` for one. Returns how many it
   * served.
   */
  serve(milliseconds: number): number {
    const before = this.#served;
    this.#drainBackend();
    if (this.#served === before && milliseconds > 0) this.#wait(milliseconds, false);
    return this.#served - before;
  }

  /**
   * Waits until the daemon closes the connection. Returns the error that it sent, or how it closed.
   */
  awaitEnd(): CodedError {
    try {
      for (;;) {
        while (this.front.next()) {
          if (this.front.frame.type === MESSAGE.ERROR) return peerError(this.front.body(CODEC.Error));
        }
        this.#flushLeft();
        const filled = this.front.fill();
        if (filled === FILL.CLOSED) return this.front.ending();
        if (filled === FILL.NOTHING) this.#wait(this.timeoutMs);
      }
    } catch (error) {
      if (error instanceof CodedError) return error;
      throw error;
    }
  }

  /**
   * Sends what a caller has put and not flushed: the daemon may end the connection because of it.
   */
  #flushLeft(): void {
    if (this.front.unsent === 0) return;
    try {
      this.front.flush();
    } catch {
      // The peer is gone; what it said before is still to be read.
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.front.close();
    this.backend.close();
    this.#poll.free();
  }

  /**
   * Waits for either channel and serves the backend. With `strict`, throws `PEER_STALLED` if
   * nothing comes.
   */
  #wait(milliseconds: number, strict = true): void {
    const front = POLL.IN | (this.front.unsent > 0 ? POLL.OUT : 0);
    this.#poll.set(FRONT, this.front.fd, strict ? front : 0);
    this.#poll.set(BACKEND, this.#backendEnded ? -1 : this.backend.fd, POLL.IN);
    if (this.#poll.wait(milliseconds) === 0 && strict) {
      throw new CodedError('PEER_STALLED', `no answer in ${milliseconds} ms`);
    }
    if (this.#poll.events(BACKEND) !== 0) this.#drainBackend();
  }

  #drainBackend(): void {
    if (this.#backendEnded) return;
    for (;;) {
      while (this.backend.next()) this.#serveOne();
      const filled = this.backend.fill();
      if (filled === FILL.CLOSED) {
        // The front channel has the reason. Polling this one again would only spin.
        this.#backendEnded = true;
        return;
      }
      if (filled === FILL.NOTHING) break;
    }
    while (!this.backend.flush()) this.#waitBackend();
  }

  #waitBackend(): void {
    this.#poll.set(FRONT, -1, 0);
    this.#poll.set(BACKEND, this.backend.fd, POLL.OUT);
    if (this.#poll.wait(this.timeoutMs) === 0) throw new CodedError('PEER_STALLED', 'backend channel');
  }

  #serveOne(): void {
    const { type, id } = this.backend.frame;
    const service = this.#service;
    this.#served++;
    if (type === MESSAGE.INTERRUPT) {
      service.interrupt(this.backend.body(CODEC.Interrupt));
    } else if (type === MESSAGE.INVALIDATE) {
      this.#reply(type, id, service.invalidate(this.backend.body(CODEC.Invalidate)));
    } else if (type === MESSAGE.INVALIDATE_INTERRUPTS && service.invalidateInterrupts) {
      this.#reply(type, id, service.invalidateInterrupts(this.backend.body(CODEC.InvalidateInterrupts)));
    } else if (type === MESSAGE.MEM_READ) {
      this.#reply(type, id, service.memRead(this.backend.body(CODEC.MemRead)));
    } else if (type === MESSAGE.MEM_WRITE) {
      this.#reply(type, id, service.memWrite(this.backend.body(CODEC.MemWrite)));
    } else if (type === MESSAGE.MEM_CAS) {
      this.#reply(type, id, service.memCas(this.backend.body(CODEC.MemCas)));
    } else if (type === MESSAGE.RESUME) {
      service.resume(this.backend.body(CODEC.Resume));
    } else if (type === MESSAGE.PAGE_RESPONSE) {
      service.pageResponse(this.backend.body(CODEC.PageResponse));
    } else if (type === MESSAGE.DEVICE_TLB) {
      this.#reply(type, id, service.deviceTlb(this.backend.body(CODEC.DeviceTlb)));
    } else if (type === MESSAGE.HOST_BATCH) {
      this.#reply(type, id, service.hostBatch(this.backend.body(CODEC.HostBatch)));
    } else if (type === MESSAGE.TRACK) {
      this.#reply(type, id, service.track(this.backend.body(CODEC.Track)));
    } else if (
      type >= MESSAGE.HOST_SPACE_CREATE &&
      type <= MESSAGE.HOST_PASID_FREE &&
      service.hostOperation
    ) {
      const body = this.backend.body(bodyCodec(type as HostRequest) as Codec<object>);
      this.#reply(type as HostRequest, id, service.hostOperation(type, body));
    } else if (type === MESSAGE.HOST_RESPOND) {
      service.hostRespond?.(this.backend.body(CODEC.HostRespond));
    } else if (type === MESSAGE.PEER_WALK) {
      service.peerWalk?.(this.backend.body(CODEC.PeerWalk));
    } else if (type === MESSAGE.QUEUE) {
      service.queue?.(this.backend.body(CODEC.Queue));
    } else if (type === MESSAGE.ERROR) {
      throw peerError(this.backend.body(CODEC.Error));
    } else {
      throw new CodedError('UNKNOWN_TYPE', `${messageName(type)} on the backend channel`);
    }
  }

  /** Answers a HOST_BATCH that came inside an answer of the daemon. */
  answer<T extends keyof M.Replies>(type: T, id: number, body: M.Replies[T]): void {
    const { mailbox } = this;
    const codec = replyCodec(type);
    if (mailbox !== undefined && this.#mail(mailbox, type, FLAG.REPLY, id, codec, body)) return;
    this.send(type, FLAG.REPLY, id, codec, body);
  }

  #reply<T extends keyof M.Replies>(type: T, id: number, body: M.Replies[T]): void {
    this.backend.put(type, FLAG.REPLY, id, replyCodec(type), body);
  }
}
