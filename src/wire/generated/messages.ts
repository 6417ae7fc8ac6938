// Made from proto/viommu.proto by `npm run contract`, and checked against it by a test. Not to be edited.
import type { MESSAGE } from './numbers.js';

export interface Hello {
  /** highest version spoken; the header's version is 1 until answered */
  version: number;
  /** masks of Feature */
  features: number;
  /** name for people */
  vm: string;
  /** "vtd" or "smmuv3" */
  model: string;
  /** e.g. "qemu 10.0.2 viommu-bridge 0.1.0" */
  peer: string;
  /** size of the shared page file */
  sharedBytes: number;
  /** of the model: "caching-mode", "scalable-mode", "aw-bits", … */
  options: Record<string, string>;
}

export interface HelloReply {
  version: number;
  /** in force */
  features: number;
  session: string;
  /** size of the register space */
  registerBytes: number;
}

export interface MemAdd {
  /** the peer's name for it */
  region: number;
  gpaLo: number;
  gpaHi: number;
  sizeLo: number;
  sizeHi: number;
  /** into the file */
  offsetLo: number;
  offsetHi: number;
  readonly: boolean;
  /** false: no descriptor; MEM_READ and MEM_WRITE serve it */
  shared: boolean;
}

export interface MemRemove {
  region: number;
}

export interface Status {
  /** 0: done, and a text says how; otherwise an error code */
  code: number;
  text: string;
}

/** Nothing: the frame is in the mailbox. */
export type Mail = Record<never, never>;

export interface RegWrite {
  offset: number;
  size: number;
  lo: number;
  hi: number;
}

/**
 * The write has been handled. It may bring a HOST_BATCH. The peer carries that out before anything
 * else that is asked of hosts, and answers it by a HOST_BATCH reply on the front channel.
 */
export interface RegWriteReply {
  /** the HOST_BATCH's id; 0: there is none */
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
  /** waits for an INVALIDATE_INTERRUPTS: settle (HOST_SETTLE), ask again */
  unsettled: boolean;
}

export interface Translate {
  rid: number;
  /** PASID + 1; 0: a request without PASID */
  pasid: number;
  /** bit 0 read, 1 write, 2 execute, 3 privileged */
  access: number;
  lo: number;
  hi: number;
  /** 0 untranslated, 1 ATS translation request, 2 translated */
  kind: number;
  /** the device can hold this request and repeat it after RESUME */
  mayStall: boolean;
  /** bytes of the access: what an interrupt is; 0: not known */
  size: number;
}

export interface TranslateReply {
  /**
   * 0 translated. 1 refused: a fault is recorded where there is one; to a translation request:
   * Unsupported Request. 2 stalled: to be held until RESUME. 3 to a translation request: Completer
   * Abort.
   */
  status: number;
  /** of the invalidations that the answer knows; compared modulo 2^32 */
  epoch: number;
  /** with `sub`: tags for invalidation, opaque to the peer */
  space: number;
  sub: number;
  /**
   * Six words each: input lo, hi, output lo, hi, log2 size, access bits. To a translation request
   * also bit 4 Global, bit 5 untranslated access only; access bits 0 say that nothing is mapped,
   * which a device does not keep.
   */
  spans: ArrayLike<number>;
  /** good for this request alone: must not be cached */
  once: boolean;
  /** names the stalled request in RESUME */
  stall: number;
}

export interface DeviceAdded {
  /** the peer's handle */
  device: number;
  rid: number;
  name: string;
}

export interface DeviceRemoved {
  device: number;
}

export interface Notifier {
  device: number;
  /** NotifierFlag */
  flags: number;
}

export type Reset = Record<never, never>;

/** A PCI Express Page Request Message. */
export interface PageRequest {
  rid: number;
  /** as in Translate */
  pasid: number;
  /** 0 with `last` set is a Stop Marker */
  access: number;
  /** page address */
  lo: number;
  hi: number;
  /** Page Request Group Index, 9 bits */
  group: number;
  /** of its group */
  last: boolean;
}

export interface Replay {
  rid: number;
  /** as in Translate */
  pasid: number;
  /** first input address */
  lo: number;
  hi: number;
}

export interface ReplayReply {
  spans: ArrayLike<number>;
  more: boolean;
  epoch: number;
}

/**
 * With HOST_BATCH, a device that wants MAP events is not named in Invalidate.devices: the daemon
 * keeps what its host has mapped equal to the guest's tables, within the ranges in which the peer
 * listens. This begins one, in which nothing is mapped. NOTIFIER without MAP events ends all of the
 * device's.
 */
export interface HostListen {
  device: number;
  /** input addresses, both included */
  firstLo: number;
  firstHi: number;
  lastLo: number;
  lastHi: number;
}

export type HostSettle = Record<never, never>;

export interface HostSettleReply {
  /** the host's mappings are what the guest's tables say */
  settled: boolean;
  /**
   * If not settled: HOST_BATCHes, TRACKs, INVALIDATE_INTERRUPTS, and INVALIDATEs that name devices,
   * sent since HELLO, modulo 2^32. The host's mappings are not right before the asker has carried
   * out so many.
   */
  sent: number;
  /** only answers to TRACK are missing */
  tracking: boolean;
}

export interface Invalidate {
  epoch: number;
  /** 0xffffffff in space, sub, rid or pasid matches every one */
  space: number;
  sub: number;
  rid: number;
  /** as in Translate */
  pasid: number;
  /** aligned block */
  lo: number;
  hi: number;
  /** 64 and above: all addresses */
  log2Size: number;
  /** handles of devices whose notifiers are called before the reply */
  devices: ArrayLike<number>;
  /** every PEER_WALK so far is void */
  structures: boolean;
}

/**
 * How to walk the tables of one stage, as data: docs/protocol.md, "Peer walks", has a meaning for
 * every field. Masks without _hi are for the low half of an entry.
 */
export interface PeerWalk {
  rid: number;
  /** as in Translate */
  pasid: number;
  /** tags of what the walk finds, as in TranslateReply */
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
  /**
   * Eleven words a level, the root's first: shift, index mask, leaf mask, leaf value, flip,
   * reserved bits of a table lo, hi, of a leaf lo, hi, address bits of a leaf lo, hi.
   */
  levels: ArrayLike<number>;
  expectedMask: number;
  expected: number;
  /** pages of 4 KiB, both included; first > last: none */
  holeFirst: number;
  holeLast: number;
  holeInput: boolean;
}

/**
 * A queue of commands in guest memory, as data: docs/protocol.md, "Queues", has a meaning for every
 * field. In force while its number stands in the control page.
 */
export interface Queue {
  /** never 0 */
  number: number;
  /** register whose store is the doorbell */
  tail: number;
  /** register that says how far commands have been taken */
  head: number;
  /** bits of both that are the index */
  indexMask: number;
  indexShift: number;
  /** the index has one bit more than entries need */
  wraps: boolean;
  /** guest-physical address of the first entry */
  baseLo: number;
  baseHi: number;
  /** bytes of an entry: 4 or 5 */
  entryLog2: number;
  entriesLog2: number;
  /** 32 words each, at most 32 commands */
  commands: ArrayLike<number>;
}

/**
 * Nothing: the commands are in the ring. It has slots of 16 bytes: a head of four words (entries,
 * number of the QUEUE, the index after them, 0), then the entries.
 */
export type QueueRan = Record<never, never>;

export interface Interrupt {
  addressLo: number;
  addressHi: number;
  data: number;
  /** output of the unit + 1, for an edge on it; 0: the message above */
  wire: number;
}

/** A write of four bytes to the interrupt range, without PASID. */
export interface RemapInterrupt {
  /** source-id: of the device, or of the IOxAPIC */
  rid: number;
  addressLo: number;
  addressHi: number;
  data: number;
  /** what would become of it: records no fault */
  look: boolean;
}

export interface RemapInterruptReply {
  /** 0: the message below is delivered; 1: blocked */
  status: number;
  /** of the INVALIDATE_INTERRUPTS that the answer knows, modulo 2^32 */
  epoch: number;
  /** The message for the processors. Bits 31:8 of the high half are those of a 32-bit destination. */
  addressLo: number;
  addressHi: number;
  data: number;
  /** table entry that it comes from + 1; 0: of none */
  index: number;
  /** good for this message alone: must not be kept */
  once: boolean;
  /** all messages of all sources pass as they are, until all is dropped */
  passAll: boolean;
}

/**
 * Answered when nothing older than `epoch` is kept or under way for these entries, and copies that
 * others have made (routes of a hypervisor) are renewed.
 */
export interface InvalidateInterrupts {
  epoch: number;
  /** the aligned block of 2^log2_count entries that this one is in */
  index: number;
  /** 16 and above: all, also what comes from no entry, and pass_all */
  log2Count: number;
}

export interface MemRead {
  gpaLo: number;
  gpaHi: number;
  /** at most 4096 */
  size: number;
}

export interface MemReadReply {
  code: number;
  data: Uint8Array;
}

export interface MemWrite {
  gpaLo: number;
  gpaHi: number;
  /** at most 4096 */
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

export interface HostBatch {
  device: number;
  /**
   * Operations in order, seven words each: access bits (1 read, 2 write; 0 = unmap), first input
   * address lo, hi, last lo, hi, guest-physical address of the first byte lo, hi. What is mapped is
   * an aligned power-of-two block of RAM of one region; what is unmapped takes whole mappings. None
   * at all: only an answer is wanted.
   */
  ops: ArrayLike<number>;
}

export interface HostBatchReply {
  /** pairs: index of an operation, errno of Linux */
  failures: ArrayLike<number>;
}

/**
 * Answered when every store that begins after the answer is announced. Pages that cannot be stored
 * to need none of that.
 */
export interface Track {
  /**
   * Two words a page, address lo and hi. Bit 0 of lo: 1, its stores are announced from now on; 0,
   * no longer.
   */
  pages: ArrayLike<number>;
}

/**
 * The guest has stored to a tracked page; what stands there now is in memory. The store ends when
 * the answer is there and, if that does not say `settled`, what it asks for is done, as with
 * HOST_SETTLE.
 */
export interface TableWrite {
  /** guest-physical address */
  lo: number;
  hi: number;
  /** bytes */
  size: number;
}

/** As HostSettleReply. */
export interface TableWriteReply {
  settled: boolean;
  sent: number;
  tracking: boolean;
}

/**
 * Again with the same handle: its guest is told other numbers, nothing else may have changed.
 * DEVICE_REMOVED ends it; the peer has detached everything of the device by then.
 */
export interface HostDevice {
  /** of DEVICE_ADDED */
  device: number;
  /** 0 a whole PCI function, 1 one PASID of a function (mdev) */
  kind: number;
  /** 0 iommufd, 1 VFIO type1v2, 2 VFIO nesting type1 */
  container: number;
  /**
   * Bits: 0 nest parents, 1 vIOMMU, 2 page requests, 3 events, 4 PASIDs one by one, 5 PASIDs
   * allocated.
   */
  abilities: number;
  /** enum iommu_hw_info_type */
  infoType: number;
  /** of IOMMU_GET_HW_INFO, at most 64 */
  info: Uint8Array;
  /** of the device and its IOMMU; 0: none */
  pasidBits: number;
  /**
   * Input addresses that it may be given, at most 64 ranges of four words: first lo, hi, last lo,
   * hi.
   */
  ranges: ArrayLike<number>;
  /** most in one space; 0: no limit */
  mappings: number;
  /** a shadowed device takes HOST_BATCH, not spaces */
  batches: boolean;
}

export interface HostDeviceReply {
  /** as in Status; NOT_ASSIGNABLE: no request of it goes through */
  code: number;
  /** the rule that forbids it, and what would work */
  text: string;
  /** 0 none, 1 guest memory as it is, 2 shadow, 3 nest */
  choice: number;
}

export interface HostSpaceCreate {
  /** the daemon's number */
  space: number;
  /** the space is for devices behind the same IOMMU as this one */
  device: number;
  /** guest tables will be on top of it */
  parent: boolean;
}

export interface HostSpaceDestroy {
  space: number;
}

/**
 * `ops` as in HOST_BATCH, unmaps before maps; blocks are whole pages of 4 KiB in RAM of one region,
 * of any size. Ends at the first that fails: those before it hold. What was unmapped is in no cache
 * and not pinned.
 */
export interface HostMap {
  space: number;
  ops: ArrayLike<number>;
}

/** Replaces what the requests of the device, with this PASID or without, went through. */
export interface HostAttach {
  device: number;
  /** as in Translate */
  pasid: number;
  space: number;
}

export interface HostAttachTables {
  device: number;
  pasid: number;
  /** a space made as one */
  parent: number;
  /** enum iommu_hwpt_data_type */
  type: number;
  /** at most 64 */
  data: Uint8Array;
}

export interface HostDetach {
  device: number;
  pasid: number;
}

export interface HostIdentify {
  device: number;
  /** the guest's number of the device (vDEVICE) */
  idLo: number;
  idHi: number;
}

export interface HostInvalidate {
  /** the parent */
  space: number;
  /** enum iommu_hwpt_invalidate_data_type */
  type: number;
  /** bytes of an entry */
  size: number;
  /** Three words each: device, pasid as in Translate, entries. None at all: the space's vIOMMU. */
  targets: ArrayLike<number>;
  /** of the targets, in their order */
  entries: Uint8Array;
}

export interface HostPasidAlloc {
  device: number;
}

export interface HostPasidFree {
  device: number;
  /** the PASID itself; what is attached there is detached */
  pasid: number;
}

export interface HostReply {
  /** a HostResult */
  code: number;
  /** for people */
  text: string;
  /** operations, or invalidations, that were carried out */
  done: number;
  /** the PASID */
  value: number;
}

export interface HostRespond {
  device: number;
  pasid: number;
  group: number;
  /** as in PageResponse */
  code: number;
}

export interface HostEvent {
  /** whose event queue it came from; 0 when `device` says it */
  space: number;
  /** handle + 1; 0: the record says it */
  device: number;
  pasid: number;
  /** enum iommu_veventq_type; 0x80000000: a VT-d fault record, 16 bytes */
  type: number;
  /** at most 64; none with `lost` */
  record: Uint8Array;
  /** others were lost before the next one */
  lost: boolean;
}

/** As PageRequest. */
export interface HostPageRequest {
  device: number;
  pasid: number;
  access: number;
  lo: number;
  hi: number;
  group: number;
  last: boolean;
}

export interface HostPasidRefused {
  device: number;
  pasid: number;
  access: number;
  lo: number;
  hi: number;
}

export interface Resume {
  /** from TranslateReply */
  stall: number;
  /** 0 repeat the request, 1 it fails, 2 it ends as if done: reads give 0, writes go nowhere. */
  action: number;
}

export interface PageResponse {
  rid: number;
  /** as in Translate */
  pasid: number;
  group: number;
  /** PCI Express: 0 success, 1 invalid request, 15 response failure */
  code: number;
}

/**
 * An ATS Invalidation Request: the device drops its translations of the block and answers when no
 * request that used them is in flight any more.
 */
export interface DeviceTlb {
  rid: number;
  /** as in Translate */
  pasid: number;
  /** aligned block */
  lo: number;
  hi: number;
  /** 64 and above: all addresses */
  log2Size: number;
  /** of every PASID */
  global: boolean;
}

export interface DeviceTlbReply {
  /** 0 done, 1 the device did not answer in time, 2 no such device */
  result: number;
}

export interface ErrorMessage {
  code: number;
  text: string;
}

/** Bodies by message number. */
export interface Bodies {
  [MESSAGE.HELLO]: Hello;
  [MESSAGE.MEM_ADD]: MemAdd;
  [MESSAGE.MEM_REMOVE]: MemRemove;
  [MESSAGE.REG_WRITE]: RegWrite;
  [MESSAGE.REG_READ]: RegRead;
  [MESSAGE.TRANSLATE]: Translate;
  [MESSAGE.DEVICE_ADDED]: DeviceAdded;
  [MESSAGE.DEVICE_REMOVED]: DeviceRemoved;
  [MESSAGE.RESET]: Reset;
  [MESSAGE.REPLAY]: Replay;
  [MESSAGE.NOTIFIER]: Notifier;
  [MESSAGE.PAGE_REQUEST]: PageRequest;
  [MESSAGE.TABLE_WRITE]: TableWrite;
  [MESSAGE.MAIL]: Mail;
  [MESSAGE.QUEUE_RAN]: QueueRan;
  [MESSAGE.REMAP_INTERRUPT]: RemapInterrupt;
  [MESSAGE.HOST_LISTEN]: HostListen;
  [MESSAGE.HOST_SETTLE]: HostSettle;
  [MESSAGE.HOST_DEVICE]: HostDevice;
  [MESSAGE.HOST_EVENT]: HostEvent;
  [MESSAGE.HOST_PAGE_REQUEST]: HostPageRequest;
  [MESSAGE.HOST_PASID_REFUSED]: HostPasidRefused;
  [MESSAGE.INVALIDATE]: Invalidate;
  [MESSAGE.INTERRUPT]: Interrupt;
  [MESSAGE.MEM_READ]: MemRead;
  [MESSAGE.MEM_WRITE]: MemWrite;
  [MESSAGE.MEM_CAS]: MemCas;
  [MESSAGE.RESUME]: Resume;
  [MESSAGE.PAGE_RESPONSE]: PageResponse;
  [MESSAGE.DEVICE_TLB]: DeviceTlb;
  [MESSAGE.HOST_BATCH]: HostBatch;
  [MESSAGE.TRACK]: Track;
  [MESSAGE.QUEUE]: Queue;
  [MESSAGE.INVALIDATE_INTERRUPTS]: InvalidateInterrupts;
  [MESSAGE.PEER_WALK]: PeerWalk;
  [MESSAGE.HOST_SPACE_CREATE]: HostSpaceCreate;
  [MESSAGE.HOST_SPACE_DESTROY]: HostSpaceDestroy;
  [MESSAGE.HOST_MAP]: HostMap;
  [MESSAGE.HOST_ATTACH]: HostAttach;
  [MESSAGE.HOST_ATTACH_TABLES]: HostAttachTables;
  [MESSAGE.HOST_DETACH]: HostDetach;
  [MESSAGE.HOST_IDENTIFY]: HostIdentify;
  [MESSAGE.HOST_INVALIDATE]: HostInvalidate;
  [MESSAGE.HOST_PASID_ALLOC]: HostPasidAlloc;
  [MESSAGE.HOST_PASID_FREE]: HostPasidFree;
  [MESSAGE.HOST_RESPOND]: HostRespond;
  [MESSAGE.ERROR]: ErrorMessage;
}

/** Bodies of replies by message number: of what is answered. */
export interface Replies {
  [MESSAGE.HELLO]: HelloReply;
  [MESSAGE.MEM_ADD]: Status;
  [MESSAGE.MEM_REMOVE]: Status;
  [MESSAGE.REG_WRITE]: RegWriteReply;
  [MESSAGE.REG_READ]: RegReadReply;
  [MESSAGE.TRANSLATE]: TranslateReply;
  [MESSAGE.RESET]: Status;
  [MESSAGE.REPLAY]: ReplayReply;
  [MESSAGE.HOST_SETTLE]: HostSettleReply;
  [MESSAGE.TABLE_WRITE]: TableWriteReply;
  [MESSAGE.HOST_DEVICE]: HostDeviceReply;
  [MESSAGE.REMAP_INTERRUPT]: RemapInterruptReply;
  [MESSAGE.INVALIDATE]: Status;
  [MESSAGE.INVALIDATE_INTERRUPTS]: Status;
  [MESSAGE.MEM_READ]: MemReadReply;
  [MESSAGE.MEM_WRITE]: Status;
  [MESSAGE.MEM_CAS]: MemCasReply;
  [MESSAGE.DEVICE_TLB]: DeviceTlbReply;
  [MESSAGE.HOST_BATCH]: HostBatchReply;
  [MESSAGE.TRACK]: Status;
  [MESSAGE.HOST_SPACE_CREATE]: HostReply;
  [MESSAGE.HOST_SPACE_DESTROY]: HostReply;
  [MESSAGE.HOST_MAP]: HostReply;
  [MESSAGE.HOST_ATTACH]: HostReply;
  [MESSAGE.HOST_ATTACH_TABLES]: HostReply;
  [MESSAGE.HOST_DETACH]: HostReply;
  [MESSAGE.HOST_IDENTIFY]: HostReply;
  [MESSAGE.HOST_INVALIDATE]: HostReply;
  [MESSAGE.HOST_PASID_ALLOC]: HostReply;
  [MESSAGE.HOST_PASID_FREE]: HostReply;
}
