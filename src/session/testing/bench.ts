/** A session without threads or sockets: frames are put in by hand, what comes out is kept. */
import type { InvalidateScope } from '../../device/iommu.js';
import type { ViommuEvent } from '../../events/viommu-events.js';
import { GuestRam, type RemoteAccess } from '../../memory/remote.js';
import { bodyCodec, CODEC, type Codec, replyCodec } from '../../wire/codec.js';
import { ALL_FEATURES, CONTROL, FLAG, Frame, MESSAGE, NOTIFY, SHARED } from '../../wire/frame.js';
import type * as M from '../../wire/messages.js';
import { BodyWriter } from '../../wire/writer.js';
import type { ModelFactory, Outlet } from '../ports.js';
import { CHANNEL, type ChannelName, Session } from '../session.js';
import { FAKE, fakeModels } from './fake-model.js';

/** A frame that the session sent, its message copied. */
export interface Sent {
  readonly channel: ChannelName;
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly message: Record<string, unknown>;
}

const NO_REMOTE: RemoteAccess = { found: 0, read: () => false, write: () => false, cas: () => false };

interface BenchOptions {
  readonly models?: ModelFactory;
  readonly access?: RemoteAccess;
  readonly fileBytes?: number;
  /** Of the shared page file; those of the model that is made up by default. */
  readonly registerBytes?: number;
}

export class Bench {
  readonly session: Session;
  /** Everything sent, both channels, in order. */
  readonly sent: Sent[] = [];
  readonly events: ViommuEvent[] = [];
  readonly log: string[] = [];
  readonly page: Uint32Array<ArrayBuffer>;
  readonly ram: GuestRam;
  readonly #bytes = new Uint8Array(65536 * 2);
  readonly #writer = new BodyWriter();
  #nextId = 100;

  constructor(options: BenchOptions = {}) {
    this.ram = new GuestRam(options.access ?? NO_REMOTE);
    const registerBytes = options.registerBytes ?? FAKE.BYTES;
    this.page = new Uint32Array((SHARED.REGISTERS + registerBytes + SHARED.RING_BYTES) / 4);
    const { buffer } = this.page;
    this.session = new Session(
      {
        front: this.#outlet(CHANNEL.FRONT),
        memory: this.ram,
        models: options.models ?? fakeModels,
        openBackend: () => this.#outlet(CHANNEL.BACKEND),
        mapSharedPage: (_fd, bytes, registerBytes, ringBytes) => ({
          control: new Uint32Array(buffer, SHARED.CONTROL, 1024),
          registers: new Uint32Array(buffer, SHARED.REGISTERS, registerBytes / 4),
          registerBytes: new Uint8Array(buffer, SHARED.REGISTERS, registerBytes),
          ring: ringBytes > 0 ? new Uint32Array(buffer, bytes - ringBytes, ringBytes / 4) : undefined,
        }),
        fileBytes: () => options.fileBytes ?? 0,
        log: (level, message) => this.log.push(`${level} ${message}`),
        event: (event) => this.events.push(event),
      },
      { session: 'bench', modelDefaults: {} },
    );
  }

  hello(changes: Partial<M.Hello> = {}): this {
    const base = { ...CODEC.Hello.create(), version: 1, features: ALL_FEATURES, vm: 'vm', model: 'fake' };
    this.input(
      MESSAGE.HELLO,
      CODEC.Hello,
      { ...base, sharedBytes: this.page.length * 4, ...changes },
      [50, 51],
    );
    return this;
  }

  /** Puts a frame in. */
  input<T extends object>(
    type: number,
    codec: Codec<T>,
    message: T,
    descriptors: number[] = [],
    channel: ChannelName = CHANNEL.FRONT,
    flags = 0,
    id = this.#nextId++,
  ): void {
    const frame = new Frame();
    this.#writer.start(this.#bytes, 16);
    codec.encode(message, this.#writer);
    Object.assign(frame, { type, flags, id, start: 16, end: this.#writer.position, descriptors });
    this.session.input(channel, frame, this.#bytes);
  }

  /** Asks; returns the reply, which must be the last thing sent on the front channel. */
  ask<T extends keyof M.Replies>(type: T, body: M.Bodies[T]): M.Replies[T] {
    const before = this.sent.length;
    this.input(type, bodyCodec(type), body);
    const replies = this.sent.slice(before).filter((sent) => sent.channel === CHANNEL.FRONT);
    if (replies.length !== 1) throw new Error(`${replies.length} replies`);
    return (replies[0] as Sent).message as unknown as M.Replies[T];
  }

  write(offset: number, lo: number): void {
    this.input(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset, size: 4, lo, hi: 0 });
  }

  /** A device that wants to hear of unmapping. */
  notified(device = 1, rid = 8): void {
    this.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device, rid, name: 'nic' });
    this.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device, flags: NOTIFY.UNMAP });
  }

  /** The model invalidates, and its call returns. */
  invalidate(scope: InvalidateScope): void {
    this.session.outputs.invalidate(scope);
    this.input(MESSAGE.MAIL, CODEC.Mail, {});
  }

  translate(lo: number, hi = 0): M.TranslateReply {
    return this.ask(MESSAGE.TRANSLATE, {
      rid: 8,
      pasid: 0,
      access: 1,
      lo,
      hi,
      kind: 0,
      mayStall: false,
      size: 0,
    });
  }

  /** Acknowledges an INVALIDATE, the oldest one by default. */
  ack(id = this.invalidations[this.#acked++]?.id ?? -1): void {
    this.input(MESSAGE.INVALIDATE, CODEC.Status, { code: 0, text: '' }, [], CHANNEL.BACKEND, FLAG.REPLY, id);
  }

  #acked = 0;

  get invalidations(): readonly Sent[] {
    return this.sent.filter((sent) => sent.type === MESSAGE.INVALIDATE);
  }

  register(offset: number): number {
    return this.page[(SHARED.REGISTERS + offset) / 4] as number;
  }

  get handled(): number {
    return this.page[CONTROL.HANDLED] as number;
  }

  #outlet(channel: ChannelName): Outlet {
    return {
      put: (type, flags, id, codec, message) => {
        // Through the wire's own bytes, so that what is kept is what a peer would read.
        this.#writer.start(this.#bytes, 70_000);
        codec.encode(message, this.#writer);
        const into = flags & FLAG.REPLY ? replyCodec(type as keyof M.Replies) : codec;
        const copy = { ...into.decode(this.#bytes, 70_000, this.#writer.position) };
        this.sent.push({ channel, type, flags, id, message: copy as Record<string, unknown> });
      },
    };
  }
}
