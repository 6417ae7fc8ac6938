/**
 * The thread of one session: waits for its two channels and for the main thread, feeds the engine,
 * and sends its output. No send blocks. A channel that is full is written again when it has room,
 * and the other one is served until then.
 */
import { fstatSync } from 'node:fs';
import { CodedError } from '../base/errors.js';
import { currentCpu, POLL, PollSet } from '../base/native.js';
import { GuestRam } from '../memory/remote.js';
import { Channel, FILL } from '../wire/channel.js';
import { CODEC, type Codec } from '../wire/codec.js';
import { FEATURE, FLAG, type Frame, MESSAGE } from '../wire/frame.js';
import { DaemonMailbox } from '../wire/mailbox.js';
import { AdaptivePoll, SPINS } from './adaptive-poll.js';
import { tellWhy } from './ending.js';
import type { LoopObserver, LoopOptions } from './loop-observer.js';
import { MappedPage } from './mapped-page.js';
import type { ModelFactory, SessionPorts, SharedPage } from './ports.js';
import { BackendMemory, type SetAside } from './remote-access.js';
import { reportOf, type SessionReport } from './report.js';
import { CHANNEL, Session } from './session.js';

const FRONT = 0;
const BACKEND = 1;
const WAKE = 2;

/** Bytes of replies that the peer has not read. Above this no more of its requests are taken. */
const FRONT_BACKLOG = 256 * 1024;
/** Longest sleep in milliseconds: a safety net for a lost wake-up. */
const WAIT_MS = 2000;
/** Polls of one turn that may find something. */
const MOST_FOUND = 32;
/** Polls for the answer to a batch that the peer is carrying out. */
const HOST_SPINS = 32;
/** Reads of the mailbox that take about as long as one read of the socket, a system call. */
const MAILBOX_READS = 256;
const NO_MAIL = {};

export class SessionLoop {
  readonly session: Session;
  /** How things stood when the connection ended; set by {@link run}. */
  lastReport: SessionReport;
  readonly #front: Channel;
  readonly #memory: GuestRam;
  readonly #access: BackendMemory;
  readonly #observer: LoopObserver;
  readonly #requireSealed: boolean;
  readonly #poll = new PollSet(3);
  readonly #adaptive = new AdaptivePoll();
  #backend: Channel | undefined;
  /** Frames of the front channel that have been handled, modulo 2^32. */
  #handled = 0;
  #mailbox: DaemonMailbox | undefined;
  /** The frame of the mailbox that is being handled, for its answer to go there. */
  #mail: Frame | undefined;
  #wokenMidway = false;
  /** Answers of devices that came while memory was waited for. */
  #deviceAnswers: SetAside[] = [];
  #page: MappedPage | undefined;

  /**
   * @param fd the front channel's socket, taken over
   * @param wakeFd fires when {@link LoopObserver.wake} is to be called
   */
  constructor(
    fd: number,
    wakeFd: number,
    models: ModelFactory,
    options: LoopOptions,
    observer: LoopObserver,
  ) {
    this.#front = new Channel(fd);
    this.#observer = observer;
    this.#requireSealed = options.requireSealed;
    this.#access = new BackendMemory(this.#front, wakeFd);
    this.#access.onWake = () => {
      this.#wokenMidway = true;
      this.#access.failure ??= observer.wake(true);
    };
    this.#memory = new GuestRam(this.#access, options.requireSealed);
    this.session = new Session(this.#ports(models), options);
    this.lastReport = reportOf(this.session);
    this.#poll.set(WAKE, wakeFd, POLL.IN);
  }

  /**
   * Serves until the connection ends; returns why. Everything that the session held is given back
   * by then.
   */
  run(): CodedError {
    let reason: CodedError;
    try {
      for (;;) this.#turn();
    } catch (error) {
      reason = this.#endingOf(this.#reasonOf(error));
    }
    if (reason.reason !== 'PEER_CLOSED' && reason.reason !== 'STOPPED') {
      const fields = { code: reason.code, reason: reason.reason, text: reason.message };
      this.#observer.log('warn', 'connection ended by an error', fields);
    }
    this.#close(reason);
    return reason;
  }

  #turn(): void {
    // A wait for memory may have read requests into the buffer, where poll does not see them.
    this.#feedFront();
    let busy = this.#spin();
    // Or answers of devices: then there is work, and no time to sleep.
    if (this.#takeDeviceAnswers()) busy = true;
    if (this.#wokenMidway) {
      this.#wake();
      busy = true;
    }
    const poll = this.#poll;
    if (!this.#wait(busy ? 0 : WAIT_MS)) return;
    if (poll.events(WAKE) !== 0) this.#wake();
    if (poll.events(BACKEND) !== 0) this.#serve(this.#backend as Channel, CHANNEL.BACKEND);
    if (poll.events(FRONT) !== 0) this.#serve(this.#front, CHANNEL.FRONT);
  }

  #wake(): void {
    this.#wokenMidway = false;
    this.session.takeRun();
    const end = this.#observer.wake(false);
    if (end !== undefined) throw end;
    // The answer may have read memory, and so have waited for it.
    this.#catchUp();
    this.#flush();
  }

  /**
   * Busy-polls the front channel before a sleep, since the next request often follows at once. A
   * peer that never pauses is left after a while, so that the other channel gets its turn. Polling
   * in vain takes time from the peer, perhaps on the same CPU, so the next turns skip it. A peer
   * that carries out a batch answers before a sleep would end. Returns whether there may be more at
   * once.
   */
  #spin(): boolean {
    const front = this.#front;
    let most = this.#mostPolls();
    if (most === SPINS && this.#adaptive.skipTurn()) return false;
    let found = 0;
    for (let inVain = 0; inVain < most && found < MOST_FOUND && front.unsent === 0; ) {
      const filled = this.#pollFront(front);
      if (filled === FILL.CLOSED) throw front.ending();
      if (filled === FILL.NOTHING) {
        inVain++;
        if (!this.#onOtherCpu()) break;
      } else {
        this.#feedFront();
        inVain = 0;
        found++;
        most = this.#backendOwes ? SPINS : Math.max(most, this.#mostPolls());
      }
    }
    if (found === 0) this.#adaptive.foundNothing();
    return found === MOST_FOUND;
  }

  /**
   * False: the peer's thread and this one are on the same CPU, where polling only delays the peer.
   */
  #onOtherCpu(): boolean {
    const mailbox = this.#mailbox;
    if (mailbox === undefined) return true;
    const cpu = currentCpu();
    if (mailbox.apart(cpu)) return true;
    return this.#adaptive.leaveCpu(cpu, performance.now()) && mailbox.apart(currentCpu());
  }

  /**
   * Polls the front channel once, or the mailbox for as long. The mailbox says what the peer sent
   * on either.
   */
  #pollFront(front: Channel): number {
    const mailbox = this.#mailbox;
    if (mailbox === undefined) return front.fill();
    for (let read = 0; read < MAILBOX_READS; read++) {
      if (mailbox.due(this.#handled)) return FILL.DATA;
      if (mailbox.frontHasMore(this.#handled)) return front.fill();
    }
    return FILL.NOTHING;
  }

  #mostPolls(): number {
    const { shadowing } = this.session;
    const { polls } = this.#adaptive;
    if (shadowing.writeReply.batch !== 0) return Math.max(HOST_SPINS, polls);
    return shadowing.shadow.idle || this.#backendOwes ? SPINS : polls;
  }

  /** An answer is due on the backend channel, which polling does not see. */
  get #backendOwes(): boolean {
    const { shadowing, completions } = this.session;
    return shadowing.writeReply.batch === 0 && completions.pending > 0;
  }

  #wait(milliseconds: number): boolean {
    const mailbox = this.#mailbox;
    if (mailbox === undefined || milliseconds === 0) return this.#sleep(milliseconds);
    mailbox.sleep(true);
    // For a frame that the peer put there before it could see this.
    const ready = this.#sleep(mailbox.due(this.#handled) ? 0 : milliseconds);
    mailbox.apart(currentCpu());
    mailbox.sleep(false);
    return ready;
  }

  /** Returns whether a channel, or the main thread, has something. */
  #sleep(milliseconds: number): boolean {
    const poll = this.#poll;
    const front = this.#front;
    const reads = front.unsent > FRONT_BACKLOG ? 0 : POLL.IN;
    poll.set(FRONT, front.fd, reads | (front.unsent > 0 ? POLL.OUT : 0));
    const backend = this.#backend;
    if (backend !== undefined) poll.set(BACKEND, backend.fd, POLL.IN | (backend.unsent > 0 ? POLL.OUT : 0));
    if (this.session.shadowing.shadow.idle || milliseconds === 0) return poll.wait(milliseconds) > 0;
    const before = performance.now();
    const ready = poll.wait(milliseconds) > 0;
    this.#adaptive.slept(performance.now() - before);
    return ready;
  }

  /** Receives once from a channel that is ready, handles what came, and sends the output. */
  #serve(channel: Channel, name: typeof CHANNEL.FRONT | typeof CHANNEL.BACKEND): void {
    const backlog = channel.unsent;
    if (backlog > 0) channel.flush();
    if (name === CHANNEL.FRONT && backlog > FRONT_BACKLOG) return;
    const filled = channel.fill();
    if (filled === FILL.CLOSED) {
      if (name === CHANNEL.BACKEND) this.#readFront();
      throw channel.ending();
    }
    if (name === CHANNEL.FRONT) {
      this.#feedFront();
      return;
    }
    if (this.session.deviceTlbs.pending > 0) this.#readFront();
    this.#feedBackend(channel);
  }

  /**
   * Reads what the peer sent on the front channel before it sent what has just come on the backend
   * channel. It is handled first: a device's page requests come before its answer to an
   * invalidation request (docs/protocol.md, rule 7).
   */
  #readFront(): void {
    const front = this.#front;
    for (let i = 0; i < MOST_FOUND && front.unsent <= FRONT_BACKLOG; i++) {
      const filled = front.fill();
      if (filled === FILL.CLOSED) throw front.ending();
      if (filled === FILL.NOTHING) return;
      this.#feedFront();
    }
  }

  /** Returns whether there were any. */
  #takeDeviceAnswers(): boolean {
    if (this.#deviceAnswers.length === 0) return false;
    while (this.#deviceAnswers.length > 0) {
      const answers = this.#deviceAnswers;
      this.#deviceAnswers = [];
      this.#readFront();
      for (const { frame, bytes } of answers) {
        this.session.input(CHANNEL.BACKEND, frame, bytes);
        if (this.#waited) this.#catchUp();
      }
      this.#flush();
    }
    return true;
  }

  /**
   * Handles every whole frame of the front channel and of the mailbox, in the order in which they
   * were sent. Then it sends the output, backend channel first.
   */
  #feedFront(): void {
    const front = this.#front;
    let mails = 0;
    for (;;) {
      const mailbox = this.#mailbox;
      if (mailbox?.due(this.#handled) === true) {
        // A peer that never pauses here is left after a while, too.
        if (++mails > MOST_FOUND) break;
        mailbox.take();
        this.#mail = mailbox.frame;
        this.session.input(CHANNEL.FRONT, mailbox.frame, mailbox.bytes);
        this.#mail = undefined;
        mailbox.handled();
        this.#wakePeer(mailbox);
      } else if (front.next()) {
        this.#handled = (this.#handled + 1) >>> 0;
        this.session.input(CHANNEL.FRONT, front.frame, front.bytes);
        front.dropDescriptors();
        if (this.#handled === 1) this.#openMailbox();
      } else break;
      if (this.#waited) this.#catchUp();
    }
    this.#flush();
  }

  #feedBackend(channel: Channel): void {
    while (channel.next()) {
      this.session.input(CHANNEL.BACKEND, channel.frame, channel.bytes);
      channel.dropDescriptors();
      if (this.#waited) this.#catchUp();
    }
    this.#flush();
  }

  /** HELLO has been answered. */
  #openMailbox(): void {
    const features = this.session.agreement?.features ?? 0;
    const both = FEATURE.WRITE_REPLY | FEATURE.MAILBOX;
    if (this.#page !== undefined && (features & both) === both) {
      this.#mailbox = new DaemonMailbox(this.#page.control);
      this.#adaptive.mailbox = true;
    }
  }

  /** Sends a frame on the front channel, or in the mailbox if it answers a frame from there. */
  #put<T extends object>(type: number, flags: number, id: number, codec: Codec<T>, message: T): void {
    const front = this.#front;
    const mailbox = this.#mailbox as DaemonMailbox;
    const mail = this.#mail;
    if (mail === undefined || mail.type !== type || mail.id !== id || (flags & FLAG.REPLY) === 0) {
      front.put(type, flags, id, codec, message);
      return;
    }
    const here = mailbox.answer(type, flags, id, codec, message);
    this.#wakePeer(mailbox);
    if (!here) front.put(type, flags, id, codec, message);
  }

  #wakePeer(mailbox: DaemonMailbox): void {
    if (mailbox.peerSleeps) this.#front.put(MESSAGE.MAIL, 0, 0, CODEC.Mail, NO_MAIL);
  }

  #flush(): void {
    this.#backend?.flush();
    this.#front.flush();
  }

  /**
   * The last input waited for memory, and frames came during the wait. To be checked after every
   * input.
   */
  get #waited(): boolean {
    return this.#access.setAside.length > 0 || this.#access.failure !== undefined;
  }

  /** Handles the frames that came on the backend channel during a wait for memory. */
  #catchUp(): void {
    const { setAside } = this.#access;
    for (;;) {
      if (this.#access.failure !== undefined) throw this.#access.failure;
      const next = setAside.shift();
      if (next === undefined) return;
      if (next.frame.type === MESSAGE.DEVICE_TLB) this.#deviceAnswers.push(next);
      else this.session.input(CHANNEL.BACKEND, next.frame, next.bytes);
    }
  }

  #reasonOf(error: unknown): CodedError {
    if (error instanceof CodedError) return error;
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#observer.log('error', 'internal error; this session ends', { stack });
    return new CodedError('INTERNAL', error instanceof Error ? error.message : String(error));
  }

  /**
   * A peer that goes away closes both channels in any order, and writes to it fail. Whichever of
   * these was noticed first, the front channel knows whether it happened within a frame.
   */
  #endingOf(reason: CodedError): CodedError {
    if (reason.reason !== 'PEER_CLOSED') return reason;
    const front = this.#front;
    try {
      for (let i = 0; i < MOST_FOUND && front.fill() === FILL.DATA; i++) while (front.next());
    } catch (error) {
      return this.#reasonOf(error);
    }
    return front.ending();
  }

  /** Tells the peer why, as far as it still reads, and releases everything. */
  #close(reason: CodedError): void {
    // On both: a peer with no open request reads the backend channel only.
    tellWhy([this.#front, this.#backend], reason);
    this.#giveBack(() => this.session.takeRun());
    this.lastReport = reportOf(this.session);
    // If one of these fails, the others still release what they hold.
    this.#giveBack(() => this.session.end());
    this.#giveBack(() => this.#page?.unmap());
    this.#mailbox = undefined;
    this.#page = undefined;
    for (const held of [this.#access, this.#poll]) this.#giveBack(() => held.free());
    for (const channel of [this.#backend, this.#front]) this.#giveBack(() => channel?.close());
  }

  #giveBack(release: () => void): void {
    try {
      release();
    } catch (error) {
      this.#reasonOf(error);
    }
  }

  #ports(models: ModelFactory): SessionPorts {
    const observer = this.#observer;
    return {
      front: {
        put: (type, flags, id, codec, message) => this.#put(type, flags, id, codec, message),
      },
      memory: this.#memory,
      models,
      openBackend: (fd) => this.#openBackend(fd),
      mapSharedPage: (fd, bytes, registerBytes, ringBytes) =>
        this.#mapSharedPage(fd, bytes, registerBytes, ringBytes),
      fileBytes: (fd) => fstatSync(fd).size,
      log: (level, message, fields) => observer.log(level, message, fields),
      event: (event) => observer.event(event),
    };
  }

  #openBackend(fd: number): Channel {
    const channel = new Channel(fd);
    this.#backend = channel;
    this.#access.open(channel);
    return channel;
  }

  #mapSharedPage(fd: number, bytes: number, registerBytes: number, ringBytes: number): SharedPage {
    this.#page = new MappedPage(fd, bytes, registerBytes, ringBytes, this.#requireSealed);
    return this.#page;
  }
}
