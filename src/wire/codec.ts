/** The codec of every message, and which one a frame has. */
import { Codec, EMPTY, NO_BYTES } from './body.js';
import { MESSAGE, MESSAGE_TABLE } from './frame.js';
import { HOST_CODECS } from './host-codecs.js';
import type * as M from './messages.js';

export { Codec, contract, PROTO_FILE } from './body.js';

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
  Mail: new Codec<M.Mail>('Mail', () => {}),
  RegWrite: new Codec<M.RegWrite>('RegWrite', (m) => {
    m.offset = 0;
    m.size = 0;
    m.lo = 0;
    m.hi = 0;
  }),
  RegWriteReply: new Codec<M.RegWriteReply>('RegWriteReply', (m) => {
    m.batch = 0;
    m.device = 0;
    m.ops = EMPTY;
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
    m.size = 0;
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
    m.structures = false;
  }),
  Tables: new Codec<M.Tables>('Tables', (m) => {
    m.rid = 0;
    m.pasid = 0;
    m.space = 0;
    m.sub = 0;
    m.rootLo = 0;
    m.rootHi = 0;
    m.signExtended = false;
    m.upper = false;
    m.inputLo = 0;
    m.inputHi = 0;
    m.present = 0;
    m.keep = 0;
    m.tableAccessed = 0;
    m.accessed = 0;
    m.dirty = 0;
    m.clean = 0;
    m.addressLo = 0;
    m.addressHi = 0;
    m.split = 0;
    m.splitShift = 0;
    m.lowShift = 0;
    m.lowMask = 0;
    m.leafHiShift = 0;
    m.leafHiMask = 0;
    m.aboveHiShift = 0;
    m.aboveHiMask = 0;
    m.rights = NO_BYTES;
    m.levels = EMPTY;
    m.expectedMask = 0;
    m.expected = 0;
    m.holeFirst = 0;
    m.holeLast = 0;
    m.holeInput = false;
  }),
  Queue: new Codec<M.Queue>('Queue', (m) => {
    m.number = 0;
    m.tail = 0;
    m.head = 0;
    m.indexMask = 0;
    m.indexShift = 0;
    m.wraps = false;
    m.baseLo = 0;
    m.baseHi = 0;
    m.entryLog2 = 0;
    m.entriesLog2 = 0;
    m.commands = EMPTY;
  }),
  QueueRan: new Codec<M.QueueRan>('QueueRan', () => {}),
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
    m.tracking = false;
  }),
  Track: new Codec<M.Track>('Track', (m) => {
    m.pages = EMPTY;
  }),
  TableWrite: new Codec<M.TableWrite>('TableWrite', (m) => {
    m.lo = 0;
    m.hi = 0;
    m.size = 0;
  }),
  TableWriteReply: new Codec<M.TableWriteReply>('TableWriteReply', (m) => {
    m.settled = false;
    m.sent = 0;
    m.tracking = false;
  }),
  HostBatch: new Codec<M.HostBatch>('HostBatch', (m) => {
    m.device = 0;
    m.ops = EMPTY;
  }),
  HostBatchReply: new Codec<M.HostBatchReply>('HostBatchReply', (m) => {
    m.failures = EMPTY;
  }),
  ...HOST_CODECS,
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
  [MESSAGE.TABLE_WRITE, CODEC.TableWrite],
  [MESSAGE.MAIL, CODEC.Mail],
  [MESSAGE.QUEUE_RAN, CODEC.QueueRan],
  [MESSAGE.INVALIDATE, CODEC.Invalidate],
  [MESSAGE.INTERRUPT, CODEC.Interrupt],
  [MESSAGE.MEM_READ, CODEC.MemRead],
  [MESSAGE.MEM_WRITE, CODEC.MemWrite],
  [MESSAGE.MEM_CAS, CODEC.MemCas],
  [MESSAGE.RESUME, CODEC.Resume],
  [MESSAGE.PAGE_RESPONSE, CODEC.PageResponse],
  [MESSAGE.DEVICE_TLB, CODEC.DeviceTlb],
  [MESSAGE.HOST_BATCH, CODEC.HostBatch],
  [MESSAGE.QUEUE, CODEC.Queue],
  [MESSAGE.TABLES, CODEC.Tables],
  [MESSAGE.HOST_DEVICE, CODEC.HostDevice],
  [MESSAGE.HOST_SPACE_CREATE, CODEC.HostSpaceCreate],
  [MESSAGE.HOST_SPACE_DESTROY, CODEC.HostSpaceDestroy],
  [MESSAGE.HOST_MAP, CODEC.HostMap],
  [MESSAGE.HOST_ATTACH, CODEC.HostAttach],
  [MESSAGE.HOST_ATTACH_TABLES, CODEC.HostAttachTables],
  [MESSAGE.HOST_DETACH, CODEC.HostDetach],
  [MESSAGE.HOST_IDENTIFY, CODEC.HostIdentify],
  [MESSAGE.HOST_INVALIDATE, CODEC.HostInvalidate],
  [MESSAGE.HOST_PASID_ALLOC, CODEC.HostPasidAlloc],
  [MESSAGE.HOST_PASID_FREE, CODEC.HostPasidFree],
  [MESSAGE.HOST_EVENT, CODEC.HostEvent],
  [MESSAGE.HOST_PAGE_REQUEST, CODEC.HostPageRequest],
  [MESSAGE.HOST_PASID_REFUSED, CODEC.HostPasidRefused],
  [MESSAGE.HOST_RESPOND, CODEC.HostRespond],
  [MESSAGE.TRACK, CODEC.Track],
  [MESSAGE.ERROR, CODEC.Error],
]);

const REPLIES = table([
  [MESSAGE.HELLO, CODEC.HelloReply],
  [MESSAGE.MEM_ADD, CODEC.Status],
  [MESSAGE.MEM_REMOVE, CODEC.Status],
  [MESSAGE.REG_WRITE, CODEC.RegWriteReply],
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
  [MESSAGE.HOST_DEVICE, CODEC.HostDeviceReply],
  [MESSAGE.HOST_SPACE_CREATE, CODEC.HostReply],
  [MESSAGE.HOST_SPACE_DESTROY, CODEC.HostReply],
  [MESSAGE.HOST_MAP, CODEC.HostReply],
  [MESSAGE.HOST_ATTACH, CODEC.HostReply],
  [MESSAGE.HOST_ATTACH_TABLES, CODEC.HostReply],
  [MESSAGE.HOST_DETACH, CODEC.HostReply],
  [MESSAGE.HOST_IDENTIFY, CODEC.HostReply],
  [MESSAGE.HOST_INVALIDATE, CODEC.HostReply],
  [MESSAGE.HOST_PASID_ALLOC, CODEC.HostReply],
  [MESSAGE.HOST_PASID_FREE, CODEC.HostReply],
  [MESSAGE.TABLE_WRITE, CODEC.TableWriteReply],
  [MESSAGE.TRACK, CODEC.Status],
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
