/**
 * Bodies: encoders and decoders made once, at load, from `proto/viommu.proto`. protobufjs generates the code
 * for each type; here it writes through {@link BodyWriter} and decodes into a message that is reused, so that
 * neither direction allocates for messages of numbers.
 */
import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';
import { CodedError } from '../base/errors.js';
import { MESSAGE, MESSAGE_TABLE } from './frame.js';
import type * as M from './messages.js';
import type { BodyWriter } from './writer.js';

/** The wire contract; two directories up from both `src/wire` and `dist/wire`. */
export const PROTO_FILE = new URL('../../proto/viommu.proto', import.meta.url);

/** The contract as protobufjs sees it; for tests and tools. */
export const contract = protobuf.parse(readFileSync(PROTO_FILE, 'utf8'), new protobuf.Root()).root;

type Decode = (
  reader: protobuf.Reader,
  length: number,
  group: undefined,
  depth: number,
  into: object,
) => unknown;

const EMPTY: readonly number[] = [];
const NO_BYTES = new Uint8Array(0);

/** One message type. */
export class Codec<T extends object> {
  readonly name: string;
  readonly #type: protobuf.Type;
  readonly #decode: Decode;
  readonly #reader: protobuf.Reader;
  readonly #message: T;
  readonly #clear: (message: T) => void;

  /**
   * @param name the message's name in the contract
   * @param clear sets every field to its default; a message is cleared before it is decoded into again
   */
  constructor(name: string, clear: (message: T) => void) {
    this.name = name;
    this.#type = contract.lookupType(`viommu.${name}`).setup();
    // The generated decoder's further parameters (a message to fill among them) are not in the published type.
    this.#decode = this.#type.decode as unknown as Decode;
    this.#reader = new protobuf.Reader(new Uint8Array(0));
    this.#reader.discardUnknown = true;
    this.#clear = clear;
    this.#message = this.create();
  }

  /** A message of its own, every field at its default. */
  create(): T {
    const message = this.#type.create() as unknown as T;
    this.#clear(message);
    return message;
  }

  /** Appends the encoded message to what `writer` writes. */
  encode(message: T, writer: BodyWriter): void {
    this.#type.encode(message, writer as unknown as protobuf.Writer);
  }

  /**
   * Decodes bytes [start, end). The message is valid until the next call (byte fields: until the next frame is
   * received). Throws `BAD_BODY`.
   */
  decode(bytes: Uint8Array, start: number, end: number): T {
    const reader = this.#reader;
    const message = this.#message;
    if (reader.buf !== bytes) this.#retarget(bytes);
    reader.pos = start;
    reader.len = end;
    this.#clear(message);
    try {
      this.#decode(reader, end - start, undefined, 0, message);
    } catch (error) {
      throw new CodedError('BAD_BODY', `${this.name}: ${(error as Error).message}`);
    }
    return message;
  }

  #retarget(bytes: Uint8Array): void {
    this.#reader.buf = bytes;
    // The reader keeps a DataView of its buffer for packed fields.
    (this.#reader as unknown as { view: DataView | null }).view = null;
  }
}

/** Every message. */
export const CODEC = {
  Hello: new Codec<M.Hello>('Hello', (m) => {
    m.version = 0;
    m.features = 0;
    m.vm = '';
    m.model = '';
    m.peer = '';
    m.sharedBytes = 0;
    m.options = {};
  }),
  HelloReply: new Codec<M.HelloReply>('HelloReply', (m) => {
    m.version = 0;
    m.features = 0;
    m.session = '';
    m.registerBytes = 0;
  }),
  MemAdd: new Codec<M.MemAdd>('MemAdd', (m) => {
    m.region = 0;
    m.gpaLo = 0;
    m.gpaHi = 0;
    m.sizeLo = 0;
    m.sizeHi = 0;
    m.offsetLo = 0;
    m.offsetHi = 0;
    m.readonly = false;
    m.shared = false;
  }),
  MemRemove: new Codec<M.MemRemove>('MemRemove', (m) => {
    m.region = 0;
  }),
  Status: new Codec<M.Status>('Status', (m) => {
    m.code = 0;
    m.text = '';
  }),
  RegWrite: new Codec<M.RegWrite>('RegWrite', (m) => {
    m.offset = 0;
    m.size = 0;
    m.lo = 0;
    m.hi = 0;
  }),
  RegRead: new Codec<M.RegRead>('RegRead', (m) => {
    m.offset = 0;
    m.size = 0;
  }),
  RegReadReply: new Codec<M.RegReadReply>('RegReadReply', (m) => {
    m.lo = 0;
    m.hi = 0;
  }),
  Translate: new Codec<M.Translate>('Translate', (m) => {
    m.rid = 0;
    m.pasid = 0;
    m.access = 0;
    m.lo = 0;
    m.hi = 0;
    m.kind = 0;
    m.mayStall = false;
  }),
  TranslateReply: new Codec<M.TranslateReply>('TranslateReply', (m) => {
    m.status = 0;
    m.epoch = 0;
    m.space = 0;
    m.sub = 0;
    m.spans = EMPTY;
    m.once = false;
    m.stall = 0;
  }),
  DeviceAdded: new Codec<M.DeviceAdded>('DeviceAdded', (m) => {
    m.device = 0;
    m.rid = 0;
    m.name = '';
  }),
  DeviceRemoved: new Codec<M.DeviceRemoved>('DeviceRemoved', (m) => {
    m.device = 0;
  }),
  Notifier: new Codec<M.Notifier>('Notifier', (m) => {
    m.device = 0;
    m.flags = 0;
  }),
  PageRequest: new Codec<M.PageRequest>('PageRequest', (m) => {
    m.rid = 0;
    m.pasid = 0;
    m.access = 0;
    m.lo = 0;
    m.hi = 0;
    m.group = 0;
    m.last = false;
  }),
  Reset: new Codec<M.Reset>('Reset', () => {}),
  Replay: new Codec<M.Replay>('Replay', (m) => {
    m.rid = 0;
    m.pasid = 0;
    m.lo = 0;
    m.hi = 0;
  }),
  ReplayReply: new Codec<M.ReplayReply>('ReplayReply', (m) => {
    m.spans = EMPTY;
    m.more = false;
    m.epoch = 0;
  }),
  Invalidate: new Codec<M.Invalidate>('Invalidate', (m) => {
    m.epoch = 0;
    m.space = 0;
    m.sub = 0;
    m.rid = 0;
    m.pasid = 0;
    m.lo = 0;
    m.hi = 0;
    m.log2Size = 0;
    m.devices = EMPTY;
  }),
  Interrupt: new Codec<M.Interrupt>('Interrupt', (m) => {
    m.addressLo = 0;
    m.addressHi = 0;
    m.data = 0;
    m.wire = 0;
  }),
  MemRead: new Codec<M.MemRead>('MemRead', (m) => {
    m.gpaLo = 0;
    m.gpaHi = 0;
    m.size = 0;
  }),
  MemReadReply: new Codec<M.MemReadReply>('MemReadReply', (m) => {
    m.code = 0;
    m.data = NO_BYTES;
  }),
  MemWrite: new Codec<M.MemWrite>('MemWrite', (m) => {
    m.gpaLo = 0;
    m.gpaHi = 0;
    m.data = NO_BYTES;
  }),
  MemCas: new Codec<M.MemCas>('MemCas', (m) => {
    m.gpaLo = 0;
    m.gpaHi = 0;
    m.expected = 0;
    m.value = 0;
  }),
  MemCasReply: new Codec<M.MemCasReply>('MemCasReply', (m) => {
    m.code = 0;
    m.found = 0;
  }),
  Resume: new Codec<M.Resume>('Resume', (m) => {
    m.stall = 0;
    m.action = 0;
  }),
  PageResponse: new Codec<M.PageResponse>('PageResponse', (m) => {
    m.rid = 0;
    m.pasid = 0;
    m.group = 0;
    m.code = 0;
  }),
  DeviceTlb: new Codec<M.DeviceTlb>('DeviceTlb', (m) => {
    m.rid = 0;
    m.pasid = 0;
    m.lo = 0;
    m.hi = 0;
    m.log2Size = 0;
    m.global = false;
  }),
  DeviceTlbReply: new Codec<M.DeviceTlbReply>('DeviceTlbReply', (m) => {
    m.result = 0;
  }),
  HostListen: new Codec<M.HostListen>('HostListen', (m) => {
    m.device = 0;
    m.firstLo = 0;
    m.firstHi = 0;
    m.lastLo = 0;
    m.lastHi = 0;
  }),
  HostSettle: new Codec<M.HostSettle>('HostSettle', () => {}),
  HostSettleReply: new Codec<M.HostSettleReply>('HostSettleReply', (m) => {
    m.settled = false;
    m.sent = 0;
  }),
  HostBatch: new Codec<M.HostBatch>('HostBatch', (m) => {
    m.device = 0;
    m.ops = EMPTY;
  }),
  HostBatchReply: new Codec<M.HostBatchReply>('HostBatchReply', (m) => {
    m.failures = EMPTY;
  }),
  Error: new Codec<M.ErrorMessage>('Error', (m) => {
    m.code = 0;
    m.text = '';
  }),
} as const;

type AnyCodec = Codec<object>;

function table(
  entries: readonly (readonly [type: number, codec: unknown])[],
): readonly (AnyCodec | undefined)[] {
  const codecs = new Array<AnyCodec | undefined>(MESSAGE_TABLE).fill(undefined);
  for (const [type, codec] of entries) codecs[type] = codec as AnyCodec;
  return codecs;
}

const BODIES = table([
  [MESSAGE.HELLO, CODEC.Hello],
  [MESSAGE.MEM_ADD, CODEC.MemAdd],
  [MESSAGE.MEM_REMOVE, CODEC.MemRemove],
  [MESSAGE.REG_WRITE, CODEC.RegWrite],
  [MESSAGE.REG_READ, CODEC.RegRead],
  [MESSAGE.TRANSLATE, CODEC.Translate],
  [MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded],
  [MESSAGE.DEVICE_REMOVED, CODEC.DeviceRemoved],
  [MESSAGE.RESET, CODEC.Reset],
  [MESSAGE.REPLAY, CODEC.Replay],
  [MESSAGE.NOTIFIER, CODEC.Notifier],
  [MESSAGE.PAGE_REQUEST, CODEC.PageRequest],
  [MESSAGE.HOST_LISTEN, CODEC.HostListen],
  [MESSAGE.HOST_SETTLE, CODEC.HostSettle],
  [MESSAGE.INVALIDATE, CODEC.Invalidate],
  [MESSAGE.INTERRUPT, CODEC.Interrupt],
  [MESSAGE.MEM_READ, CODEC.MemRead],
  [MESSAGE.MEM_WRITE, CODEC.MemWrite],
  [MESSAGE.MEM_CAS, CODEC.MemCas],
  [MESSAGE.RESUME, CODEC.Resume],
  [MESSAGE.PAGE_RESPONSE, CODEC.PageResponse],
  [MESSAGE.DEVICE_TLB, CODEC.DeviceTlb],
  [MESSAGE.HOST_BATCH, CODEC.HostBatch],
  [MESSAGE.ERROR, CODEC.Error],
]);

const REPLIES = table([
  [MESSAGE.HELLO, CODEC.HelloReply],
  [MESSAGE.MEM_ADD, CODEC.Status],
  [MESSAGE.MEM_REMOVE, CODEC.Status],
  [MESSAGE.REG_READ, CODEC.RegReadReply],
  [MESSAGE.TRANSLATE, CODEC.TranslateReply],
  [MESSAGE.RESET, CODEC.Status],
  [MESSAGE.REPLAY, CODEC.ReplayReply],
  [MESSAGE.INVALIDATE, CODEC.Status],
  [MESSAGE.MEM_READ, CODEC.MemReadReply],
  [MESSAGE.MEM_WRITE, CODEC.Status],
  [MESSAGE.MEM_CAS, CODEC.MemCasReply],
  [MESSAGE.DEVICE_TLB, CODEC.DeviceTlbReply],
  [MESSAGE.HOST_SETTLE, CODEC.HostSettleReply],
  [MESSAGE.HOST_BATCH, CODEC.HostBatchReply],
]);

/** The codec of a request's or post's body. */
export function bodyCodec<T extends keyof M.Requests>(type: T): Codec<M.Requests[T][0]>;
export function bodyCodec<T extends keyof M.Posts>(type: T): Codec<M.Posts[T]>;
export function bodyCodec(type: number): unknown {
  return BODIES[type];
}

/** The codec of a reply's body. */
export function replyCodec<T extends keyof M.Requests>(type: T): Codec<M.Requests[T][1]> {
  return REPLIES[type] as unknown as Codec<M.Requests[T][1]>;
}

/** True when `type` is a message of this version. */
export function isMessage(type: number): boolean {
  return type < MESSAGE_TABLE && BODIES[type] !== undefined;
}
