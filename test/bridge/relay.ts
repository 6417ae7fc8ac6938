import { CodedError } from '../../src/base/errors.js';
import { closeFd, connectUnix, socketPair } from '../../src/base/native.js';
import { Channel, FILL } from '../../src/wire/channel.js';
import { CODEC } from '../../src/wire/codec.js';
import { FEATURE, HEADER_BYTES, MESSAGE } from '../../src/wire/frame.js';
import { type Listener, listen } from '../../src/wire/listener.js';

export type Operation = 'map' | 'unmap';

/** A frame on its way, as far as a test decides by it. */
export interface Passing {
  readonly type: number;
  /** From the daemon; otherwise from QEMU. */
  readonly fromDaemon: boolean;
  readonly reply: boolean;
  /**
   * Of a HOST_BATCH, and of a batch that comes with the answer to a REG_WRITE: what its first
   * operation is.
   */
  readonly operation: Operation | undefined;
  /** The same of the HOST_BATCH that this is the answer to. */
  readonly answers: Operation | undefined;
}

/** Where a frame came from and goes to, before it is passed on. */
export interface Way {
  readonly from: Channel;
  readonly to: Channel;
  readonly fromDaemon: boolean;
}

/**
 * Stands between one QEMU and its daemon and passes every frame on, with its descriptors, until one
 * comes at which the test wants to look at them or to end one of them: nothing passes any more from
 * there on, that frame included. There is no mailbox, which would be passed by.
 */
export class Relay {
  /** Resolves when a frame was held back. */
  readonly cut: Promise<void>;
  /** Which frame to hold back; to be set before it can come. */
  holds: (frame: Passing) => boolean = () => false;
  /**
   * Takes a frame for itself: true, and it goes no further. It may put frames of its own on either
   * channel.
   */
  takes: (way: Way, descriptors: readonly number[]) => boolean = () => false;
  /** What is called when a frame has been passed on. */
  passed: (type: number, way: Way) => void = () => undefined;
  readonly #daemonSocket: string;
  readonly #ways: Way[] = [];
  readonly #timer: NodeJS.Timeout;
  /** HOST_BATCHes that came by, by their id. */
  readonly #operations = new Map<number, Operation>();
  #listener: Listener | undefined;
  #resolve: () => void = () => undefined;
  #stopped = false;

  private constructor(daemonSocket: string) {
    this.#daemonSocket = daemonSocket;
    this.cut = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#timer = setInterval(() => this.#pass(), 1);
  }

  /** @param path where QEMU is to connect */
  static async start(path: string, daemonSocket: string): Promise<Relay> {
    const relay = new Relay(daemonSocket);
    relay.#listener = await listen(path, (fd) => relay.#accept(fd));
    return relay;
  }

  /** Closes all connections, as the end of a process does. */
  hangUp(): void {
    this.#stopped = true;
    for (const { from } of this.#ways.splice(0)) from.close();
  }

  async dispose(): Promise<void> {
    clearInterval(this.#timer);
    this.hangUp();
    await this.#listener?.close();
  }

  #accept(fd: number): void {
    this.#join(new Channel(fd), new Channel(connectUnix(this.#daemonSocket)));
  }

  #join(qemu: Channel, daemon: Channel): void {
    this.#ways.push(
      { from: qemu, to: daemon, fromDaemon: false },
      { from: daemon, to: qemu, fromDaemon: true },
    );
  }

  /** One side that is gone is gone for the other. */
  #pass(): void {
    try {
      this.#turn();
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      this.hangUp();
    }
  }

  #turn(): void {
    for (const way of [...this.#ways]) {
      if (this.#stopped) return;
      const state = way.from.fill();
      while (!this.#stopped && way.from.next()) this.#take(way);
      if (state === FILL.CLOSED && !this.#stopped) this.hangUp();
    }
  }

  #take(way: Way): void {
    const { frame } = way.from;
    const { type, reply } = frame;
    const { batch, operation } = batchOf(way.from);
    if (operation !== undefined) this.#operations.set(batch, operation);
    const answers = type === MESSAGE.HOST_BATCH && reply ? this.#operations.get(frame.id) : undefined;
    if (this.holds({ type, reply, fromDaemon: way.fromDaemon, operation, answers })) {
      this.#stopped = true;
      this.#resolve();
      return;
    }
    const descriptors = frame.descriptors.splice(0);
    if (this.takes(way, descriptors)) {
      while (!way.from.flush() || !way.to.flush());
      return;
    }
    if (type === MESSAGE.HELLO && !way.fromDaemon) this.#ownBackend(descriptors);
    if (type === MESSAGE.HELLO && !way.fromDaemon) {
      const hello = way.from.body(CODEC.Hello);
      const features = hello.features & ~FEATURE.MAILBOX;
      way.to.put(type, frame.flags, frame.id, CODEC.Hello, { ...hello, features });
    } else way.to.putRaw(way.from.bytes.slice(frame.start - HEADER_BYTES, frame.end));
    // A frame with descriptors goes by itself: nothing else waits, as long as both sides read.
    if (descriptors.length > 0) while (!way.to.flushWithDescriptors(descriptors));
    while (!way.to.flush());
    for (const fd of descriptors) closeFd(fd);
    this.passed(type, way);
    while (!way.to.flush());
  }

  /**
   * The backend channel's end that QEMU sends for the daemon stays here; the daemon gets one of
   * ours.
   */
  #ownBackend(descriptors: number[]): void {
    const [mine, daemons] = socketPair();
    this.#join(new Channel(descriptors[0] as number), new Channel(mine));
    descriptors[0] = daemons;
  }
}

/** The batch that a frame of the daemon holds, by its id. */
function batchOf(channel: Channel): { readonly batch: number; readonly operation: Operation | undefined } {
  const { type, reply, id } = channel.frame;
  if (type === MESSAGE.HOST_BATCH && !reply) {
    return { batch: id, operation: firstOf(channel.body(CODEC.HostBatch).ops) };
  }
  if (type === MESSAGE.REG_WRITE && reply) {
    const { batch, ops } = channel.body(CODEC.RegWriteReply);
    return { batch, operation: firstOf(ops) };
  }
  return { batch: 0, operation: undefined };
}

function firstOf(ops: ArrayLike<number>): Operation | undefined {
  if (ops.length === 0) return undefined;
  return ops[0] === 0 ? 'unmap' : 'map';
}
