/**
 * The messages of `proto/viommu.proto` as types; meanings and units stand there. Which message belongs to
 * which frame is in {@link Requests} and {@link Posts}.
 */
import type { QueueDescription } from '../device/peer-queue.js';
import type { MESSAGE } from './frame.js';
import type * as H from './host-messages.js';

export type * from './host-messages.js';

export interface Hello {
  version: number;
  features: number;
  vm: string;
  model: string;
  peer: string;
  sharedBytes: number;
  options: Record<string, string>;
}
export interface HelloReply {
  version: number;
  features: number;
  session: string;
  registerBytes: number;
}
export interface MemAdd {
  region: number;
  gpaLo: number;
  gpaHi: number;
  sizeLo: number;
  sizeHi: number;
  offsetLo: number;
  offsetHi: number;
  readonly: boolean;
  shared: boolean;
}
export interface MemRemove {
  region: number;
}
export interface Status {
  code: number;
  text: string;
}
/** Nothing: what there is to say is in the mailbox. */
export type Mail = Record<string, never>;
export interface RegWrite {
  offset: number;
  size: number;
  lo: number;
  hi: number;
}
export interface RegWriteReply {
  batch: number;
  device: number;
  ops: ArrayLike<number>;
}
export interface RegRead {
  offset: number;
  size: number;
}
export interface RegReadReply {
  lo: number;
  hi: number;
}
export interface Translate {
  rid: number;
  pasid: number;
  access: number;
  lo: number;
  hi: number;
  kind: number;
  mayStall: boolean;
  /** Bytes; 0 or absent: not known. */
  size?: number;
}
export interface TranslateReply {
  status: number;
  epoch: number;
  space: number;
  sub: number;
  spans: ArrayLike<number>;
  once: boolean;
  stall: number;
}
export interface DeviceAdded {
  device: number;
  rid: number;
  name: string;
}
export interface DeviceRemoved {
  device: number;
}
export interface Notifier {
  device: number;
  flags: number;
}
export interface PageRequest {
  rid: number;
  pasid: number;
  access: number;
  lo: number;
  hi: number;
  group: number;
  last: boolean;
}
export type Reset = Record<never, never>;
export interface Replay {
  rid: number;
  pasid: number;
  lo: number;
  hi: number;
}
export interface ReplayReply {
  spans: ArrayLike<number>;
  more: boolean;
  epoch: number;
}
export interface Invalidate {
  epoch: number;
  space: number;
  sub: number;
  rid: number;
  pasid: number;
  lo: number;
  hi: number;
  log2Size: number;
  devices: ArrayLike<number>;
  structures: boolean;
}
/** See `WalkTables` of the device interface, and the format's record. */
export interface Tables {
  rid: number;
  pasid: number;
  space: number;
  sub: number;
  rootLo: number;
  rootHi: number;
  signExtended: boolean;
  upper: boolean;
  inputLo: number;
  inputHi: number;
  present: number;
  keep: number;
  tableAccessed: number;
  accessed: number;
  dirty: number;
  clean: number;
  addressLo: number;
  addressHi: number;
  split: number;
  splitShift: number;
  lowShift: number;
  lowMask: number;
  leafHiShift: number;
  leafHiMask: number;
  aboveHiShift: number;
  aboveHiMask: number;
  rights: Uint8Array;
  levels: ArrayLike<number>;
  expectedMask: number;
  expected: number;
  holeFirst: number;
  holeLast: number;
  holeInput: boolean;
}
export interface Queue extends QueueDescription {
  number: number;
}
/** Nothing: what there is to say is in the ring. */
export type QueueRan = Record<never, never>;
export interface Interrupt {
  addressLo: number;
  addressHi: number;
  data: number;
  /** Output of the unit + 1; 0 = a message. */
  wire: number;
}
export interface MemRead {
  gpaLo: number;
  gpaHi: number;
  size: number;
}
export interface MemReadReply {
  code: number;
  data: Uint8Array;
}
export interface MemWrite {
  gpaLo: number;
  gpaHi: number;
  data: Uint8Array;
}
export interface MemCas {
  gpaLo: number;
  gpaHi: number;
  expected: number;
  value: number;
}
export interface MemCasReply {
  code: number;
  found: number;
}
export interface Resume {
  stall: number;
  action: number;
}
export interface PageResponse {
  rid: number;
  pasid: number;
  group: number;
  code: number;
}
export interface DeviceTlb {
  rid: number;
  pasid: number;
  lo: number;
  hi: number;
  log2Size: number;
  global: boolean;
}
export interface DeviceTlbReply {
  result: number;
}
export interface HostListen {
  device: number;
  firstLo: number;
  firstHi: number;
  lastLo: number;
  lastHi: number;
}
export type HostSettle = Record<never, never>;
export interface HostSettleReply {
  settled: boolean;
  sent: number;
  tracking: boolean;
}
export interface Track {
  pages: ArrayLike<number>;
}
export interface TableWrite {
  lo: number;
  hi: number;
  size: number;
}
export type TableWriteReply = HostSettleReply;
export interface HostBatch {
  device: number;
  ops: ArrayLike<number>;
}
export interface HostBatchReply {
  failures: ArrayLike<number>;
}
export interface ErrorMessage {
  code: number;
  text: string;
}

/** Requests by message number: what is asked, what is answered. A `...Reply` without fields of its own is Status. */
export interface Requests {
  [MESSAGE.HELLO]: [Hello, HelloReply];
  [MESSAGE.MEM_ADD]: [MemAdd, Status];
  [MESSAGE.MEM_REMOVE]: [MemRemove, Status];
  [MESSAGE.REG_WRITE]: [RegWrite, RegWriteReply];
  [MESSAGE.REG_READ]: [RegRead, RegReadReply];
  [MESSAGE.TRANSLATE]: [Translate, TranslateReply];
  [MESSAGE.RESET]: [Reset, Status];
  [MESSAGE.REPLAY]: [Replay, ReplayReply];
  [MESSAGE.INVALIDATE]: [Invalidate, Status];
  [MESSAGE.MEM_READ]: [MemRead, MemReadReply];
  [MESSAGE.MEM_WRITE]: [MemWrite, Status];
  [MESSAGE.MEM_CAS]: [MemCas, MemCasReply];
  [MESSAGE.DEVICE_TLB]: [DeviceTlb, DeviceTlbReply];
  [MESSAGE.HOST_SETTLE]: [HostSettle, HostSettleReply];
  [MESSAGE.TABLE_WRITE]: [TableWrite, TableWriteReply];
  [MESSAGE.HOST_BATCH]: [HostBatch, HostBatchReply];
  [MESSAGE.HOST_DEVICE]: [H.HostDevice, H.HostDeviceReply];
  [MESSAGE.HOST_SPACE_CREATE]: [H.HostSpaceCreate, H.HostReply];
  [MESSAGE.HOST_SPACE_DESTROY]: [H.HostSpaceDestroy, H.HostReply];
  [MESSAGE.HOST_MAP]: [H.HostMap, H.HostReply];
  [MESSAGE.HOST_ATTACH]: [H.HostAttach, H.HostReply];
  [MESSAGE.HOST_ATTACH_TABLES]: [H.HostAttachTables, H.HostReply];
  [MESSAGE.HOST_DETACH]: [H.HostDetach, H.HostReply];
  [MESSAGE.HOST_IDENTIFY]: [H.HostIdentify, H.HostReply];
  [MESSAGE.HOST_INVALIDATE]: [H.HostInvalidate, H.HostReply];
  [MESSAGE.HOST_PASID_ALLOC]: [H.HostPasidAlloc, H.HostReply];
  [MESSAGE.HOST_PASID_FREE]: [H.HostPasidFree, H.HostReply];
  [MESSAGE.TRACK]: [Track, Status];
}

/** Frames that nobody answers. */
export interface Posts {
  [MESSAGE.MAIL]: Mail;
  [MESSAGE.QUEUE_RAN]: QueueRan;
  [MESSAGE.REG_WRITE]: RegWrite;
  [MESSAGE.DEVICE_ADDED]: DeviceAdded;
  [MESSAGE.DEVICE_REMOVED]: DeviceRemoved;
  [MESSAGE.NOTIFIER]: Notifier;
  [MESSAGE.PAGE_REQUEST]: PageRequest;
  [MESSAGE.HOST_LISTEN]: HostListen;
  [MESSAGE.HOST_EVENT]: H.HostEvent;
  [MESSAGE.HOST_PAGE_REQUEST]: H.HostPageRequest;
  [MESSAGE.HOST_PASID_REFUSED]: H.HostPasidRefused;
  [MESSAGE.HOST_RESPOND]: H.HostRespond;
  [MESSAGE.QUEUE]: Queue;
  [MESSAGE.INTERRUPT]: Interrupt;
  [MESSAGE.RESUME]: Resume;
  [MESSAGE.PAGE_RESPONSE]: PageResponse;
  [MESSAGE.ERROR]: ErrorMessage;
}
