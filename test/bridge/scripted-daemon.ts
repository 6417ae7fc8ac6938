import { readSync, writeSync } from 'node:fs';
import { CodedError } from '../../src/base/errors.js';
import { closeFd, FileMapping } from '../../src/base/native.js';
import { Channel, FILL } from '../../src/wire/channel.js';
import { bodyCodec, CODEC, type Codec, replyCodec } from '../../src/wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE, messageName } from '../../src/wire/frame.js';
import { type Listener, listen } from '../../src/wire/listener.js';
import { DaemonMailbox } from '../../src/wire/mailbox.js';
import type {
  Bodies,
  DeviceAdded,
  Hello,
  HelloReply,
  HostListen,
  MemAdd,
  Notifier,
  PageRequest,
  Posted,
  RegWrite,
  RegWriteReply,
  RemapInterrupt,
  RemapInterruptReply,
  Replies,
  TranslateReply,
} from '../../src/wire/messages.js';

export type ReplyToInterrupt = (answer: Partial<RemapInterruptReply>) => void;

/** How the daemon misbehaves; everything else is answered as it should be. */
export interface Script {
  readonly hello?: (channel: Channel, id: number) => void;
  /** Features that are not in force. */
  readonly without?: number;
  readonly translate?: (channel: Channel, id: number) => void;
  /** Without it every interrupt passes as it is. The answer may be given later. */
  readonly remap?: (message: RemapInterrupt, reply: ReplyToInterrupt) => void;
  /** Asked for a register that the shared page does not answer; without it there is a 0. */
  readonly readRegister?: (daemon: ScriptedDaemon) => void;
  /** What comes with the answer to a register write that asks for one. */
  readonly write?: (message: RegWrite) => RegWriteReply;
  /**
   * There is a mailbox, and the daemon sleeps. What came there is in `mailbox.frame`; `later`: a
   * test says when it is handled.
   */
  readonly mail?: (mailbox: DaemonMailbox, front: Channel) => 'later' | undefined;
  /** Words of spans from an address on, and whether more follow. */
  readonly replay?: (from: number) => { readonly spans: readonly number[]; readonly more: boolean };
}

const CONTROL_BYTES = 4096;

/** The whole address space onto itself: what a unit with translation off answers. */
const IDENTITY: TranslateReply = {
  status: 0,
  epoch: 0,
  space: 0,
  sub: 0xffffffff,
  spans: Uint32Array.of(0, 0, 0, 0, 64, 3),
  once: false,
  stall: 0,
};

/** Everything is sent on the channels. */
const FRONT_FEATURES = ALL_FEATURES & ~FEATURE.MAILBOX;

const GOOD_HELLO: HelloReply = {
  version: 1,
  features: FRONT_FEATURES,
  session: 'scripted',
  registerBytes: 4096,
};

export function answerHello(channel: Channel, id: number, given: Partial<HelloReply>): void {
  channel.put(MESSAGE.HELLO, FLAG.REPLY, id, CODEC.HelloReply, { ...GOOD_HELLO, ...given });
}

/** A frame as raw bytes, its header as given. */
export function raw(
  type: number,
  flags: number,
  size: number,
  id: number,
  body: readonly number[],
): Uint8Array {
  const bytes = new Uint8Array(16 + body.length);
  const words = new DataView(bytes.buffer);
  [type, flags, size, id].forEach((word, i) => {
    words.setUint32(i * 4, word, true);
  });
  bytes.set(body, 16);
  return bytes;
}

/**
 * A daemon for one QEMU that answers by a script, on the main thread: it looks at its sockets every
 * 2 ms.
 */
export class ScriptedDaemon {
  /** Names of the messages on the front channel, in order. */
  readonly received: string[] = [];
  readonly regions = new Map<number, MemAdd & { readonly descriptor: boolean }>();
  readonly devices: DeviceAdded[] = [];
  readonly listens: HostListen[] = [];
  readonly notifiers: Notifier[] = [];
  readonly pageRequests: PageRequest[] = [];
  /** Register writes, and whether they ask for an answer. */
  readonly writes: (RegWrite & { readonly asks: boolean })[] = [];
  /** Answers to batches that came with answers. */
  readonly done: { readonly id: number; readonly failures: number[] }[] = [];
  hello: Hello | undefined;
  backend: Channel | undefined;
  readonly #script: Script;
  #front: Channel | undefined;
  #listener: Listener | undefined;
  #page = -1;
  #pageFile: FileMapping | undefined;
  #mailbox: DaemonMailbox | undefined;
  #handled = 0;
  readonly #timer: NodeJS.Timeout;

  private constructor(script: Script) {
    this.#script = script;
    this.#timer = setInterval(() => this.#poll(), 2);
  }

  static async start(path: string, script: Script): Promise<ScriptedDaemon> {
    const daemon = new ScriptedDaemon(script);
    daemon.#listener = await listen(path, (fd) => {
      daemon.#front = new Channel(fd);
    });
    return daemon;
  }

  get connected(): boolean {
    return this.#front !== undefined;
  }

  /** A word of the control page. */
  controlWord(word: number): number {
    const bytes = Buffer.alloc(4);
    readSync(this.#page, bytes, 0, 4, word * 4);
    return bytes.readUInt32LE();
  }

  setControlWord(word: number, value: number): void {
    writeSync(this.#page, Uint32Array.of(value), 0, 4, word * 4);
  }

  /** Closes both channels: a daemon that dies. */
  hangUp(): void {
    this.closeFront();
    this.backend?.close();
    this.backend = undefined;
  }

  closeFront(): void {
    this.#front?.close();
    this.#front = undefined;
  }

  async dispose(): Promise<void> {
    clearInterval(this.#timer);
    this.hangUp();
    this.#mailbox = undefined;
    this.#pageFile?.unmap();
    this.#pageFile = undefined;
    if (this.#page >= 0) closeFd(this.#page);
    this.#page = -1;
    await this.#listener?.close();
  }

  /** Asks on the backend channel and waits for the answer's body. */
  async ask<T extends keyof Replies & number>(type: T, message: Bodies[T], id = 1): Promise<Replies[T]> {
    this.send(type, message, id);
    return this.answer(type, id);
  }

  /** Sends on the backend channel; {@link answer} takes what the bridge says to it. */
  send<T extends keyof Replies & number>(type: T, message: Bodies[T], id = 1): void {
    this.#put(type, FLAG.NEED_REPLY, id, bodyCodec(type) as unknown as Codec<object>, message);
  }

  /** Sends a message that has no answer. */
  post<T extends Posted & number>(type: T, message: Bodies[T]): void {
    this.#put(type, 0, 0, bodyCodec(type) as unknown as Codec<object>, message);
  }

  /** Waits for the next frame of the backend channel, which has to be this answer. */
  async answer<T extends keyof Replies & number>(type: T, id = 1): Promise<Replies[T]> {
    const channel = this.backend;
    if (channel === undefined) throw new Error('no backend channel');
    for (let waited = 0; waited < 20_000; waited += 5) {
      const state = channel.fill();
      if (channel.next()) {
        const { frame } = channel;
        if (frame.type !== type || frame.id !== id) {
          throw new Error(`an answer to ${messageName(frame.type)} ${frame.id} instead`);
        }
        return { ...channel.body(replyCodec(type) as unknown as Codec<object>) } as Replies[T];
      }
      if (state === FILL.CLOSED) throw new Error('the bridge closed the backend channel');
      await new Promise((wake) => setTimeout(wake, 5));
    }
    throw new Error(`${messageName(type)} was not answered`);
  }

  /** What came in the mailbox last is handled now. */
  handled(): void {
    const mailbox = this.#mailbox;
    if (mailbox === undefined) return;
    mailbox.handled();
    if (!mailbox.peerSleeps) return;
    this.#front?.put(MESSAGE.MAIL, 0, 0, CODEC.Mail, {});
    this.#front?.flush();
  }

  #put(type: number, flags: number, id: number, codec: Codec<object>, message: object): void {
    if (this.backend === undefined) throw new Error('no backend channel');
    this.backend.put(type, flags, id, codec, message);
    this.backend.flush();
  }

  #poll(): void {
    const channel = this.#front;
    if (channel === undefined) return;
    try {
      const state = channel.fill();
      while (channel.next()) {
        this.#handled++;
        this.#serve(channel);
      }
      const mailbox = this.#mailbox;
      if (mailbox?.due(this.#handled)) {
        mailbox.take();
        if (this.#script.mail?.(mailbox, channel) !== 'later') this.handled();
      }
      channel.flush();
      if (state === FILL.CLOSED) this.hangUp();
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      this.hangUp();
    }
  }

  #serve(channel: Channel): void {
    const { type, id, flags } = channel.frame;
    this.received.push(messageName(type));
    switch (type) {
      case MESSAGE.HELLO:
        this.#takeHello(channel, id);
        break;
      case MESSAGE.MEM_ADD: {
        const region = { ...channel.body(CODEC.MemAdd), descriptor: channel.frame.descriptors.length === 1 };
        for (const fd of channel.frame.descriptors.splice(0)) closeFd(fd);
        this.regions.set(region.region, region);
        this.#done(channel, type, id);
        break;
      }
      case MESSAGE.MEM_REMOVE:
        this.regions.delete(channel.body(CODEC.MemRemove).region);
        this.#done(channel, type, id);
        break;
      case MESSAGE.TRANSLATE:
        if (this.#script.translate) this.#script.translate(channel, id);
        else channel.put(type, FLAG.REPLY, id, CODEC.TranslateReply, IDENTITY);
        break;
      case MESSAGE.REMAP_INTERRUPT: {
        const message = { ...channel.body(CODEC.RemapInterrupt) };
        const pass = CODEC.RemapInterruptReply.create();
        const reply: ReplyToInterrupt = (answer) => {
          channel.put(type, FLAG.REPLY, id, CODEC.RemapInterruptReply, { ...pass, ...answer });
          channel.flush();
        };
        if (this.#script.remap) this.#script.remap(message, reply);
        else reply({ ...message, passAll: true });
        break;
      }
      case MESSAGE.REPLAY: {
        const { lo, hi } = channel.body(CODEC.Replay);
        const { spans, more } = this.#script.replay?.(hi * 2 ** 32 + lo) ?? { spans: [], more: false };
        channel.put(type, FLAG.REPLY, id, CODEC.ReplayReply, {
          spans: Uint32Array.from(spans),
          more,
          epoch: 0,
        });
        break;
      }
      case MESSAGE.NOTIFIER:
        this.notifiers.push({ ...channel.body(CODEC.Notifier) });
        break;
      case MESSAGE.HOST_LISTEN:
        this.listens.push({ ...channel.body(CODEC.HostListen) });
        break;
      case MESSAGE.HOST_SETTLE:
        channel.put(type, FLAG.REPLY, id, CODEC.HostSettleReply, { settled: true, sent: 0, tracking: false });
        break;
      case MESSAGE.PAGE_REQUEST:
        this.pageRequests.push({ ...channel.body(CODEC.PageRequest) });
        break;
      case MESSAGE.DEVICE_ADDED:
        this.devices.push({ ...channel.body(CODEC.DeviceAdded) });
        break;
      case MESSAGE.REG_WRITE: {
        const message = { ...channel.body(CODEC.RegWrite) };
        const asks = (flags & FLAG.NEED_REPLY) !== 0;
        this.writes.push({ ...message, asks });
        const reply = this.#script.write?.(message) ?? { batch: 0, device: 0, ops: [] };
        if (asks) channel.put(type, FLAG.REPLY, id, CODEC.RegWriteReply, reply);
        break;
      }
      case MESSAGE.HOST_BATCH:
        this.done.push({ id, failures: Array.from(channel.body(CODEC.HostBatchReply).failures) });
        break;
      case MESSAGE.REG_READ:
        if (this.#script.readRegister) this.#script.readRegister(this);
        else channel.put(type, FLAG.REPLY, id, CODEC.RegReadReply, CODEC.RegReadReply.create());
        break;
      default:
        if ((flags & FLAG.NEED_REPLY) !== 0) this.#done(channel, type, id);
    }
  }

  get #features(): number {
    return (this.#script.mail ? ALL_FEATURES : FRONT_FEATURES) & ~(this.#script.without ?? 0);
  }

  #openMailbox(): void {
    this.#pageFile = new FileMapping(this.#page, 0, CONTROL_BYTES, true);
    this.#mailbox = new DaemonMailbox(new Uint32Array(this.#pageFile.view(0, CONTROL_BYTES)));
    this.#mailbox.sleep(true);
  }

  #done(channel: Channel, type: number, id: number): void {
    channel.put(type, FLAG.REPLY, id, CODEC.Status, { code: 0, text: '' });
  }

  #takeHello(channel: Channel, id: number): void {
    this.hello = { ...channel.body(CODEC.Hello) };
    const [backend, page] = channel.frame.descriptors.splice(0);
    this.backend = new Channel(backend as number);
    this.#page = page as number;
    if (this.#script.hello) this.#script.hello(channel, id);
    else answerHello(channel, id, { features: this.#features });
    if (this.#script.mail) this.#openMailbox();
  }
}
