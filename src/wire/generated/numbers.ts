// Made from proto/viommu.proto by `npm run contract`, and checked against it by a test. Not to be edited.

/** Numbers of frames. */
export const WIRE = {
  /** the protocol's version, and the header's */
  VERSION: 1,
  /** type, flags, size, id */
  HEADER_BYTES: 16,
  /** bytes of a body; checked before the body is read */
  MAX_BODY: 65536,
  /** bytes of one MEM_READ or MEM_WRITE */
  MAX_MEMORY: 4096,
  /** of `spans` */
  SPAN_WORDS: 6,
  /** of `ops` */
  OPERATION_WORDS: 7,
} as const;

/** Bits of a header's flags. All others are zero. */
export const FLAG = {
  VERSION_MASK: 3,
  REPLY: 4,
  NEED_REPLY: 8,
  DEFINED: 15,
} as const;

export const MESSAGE = {
  /** the first frame, once. Descriptors: backend socket, shared file */
  HELLO: 1,
  /** a descriptor, the region's file, when `shared` */
  MEM_ADD: 2,
  /** the daemon has unmapped the region when it answers */
  MEM_REMOVE: 3,
  /** posted; with WRITE_REPLY answered where it asks for that */
  REG_WRITE: 4,
  /** sees every REG_WRITE that was sent before it */
  REG_READ: 5,
  TRANSLATE: 6,
  /** again with the same handle: its requester id has changed */
  DEVICE_ADDED: 7,
  DEVICE_REMOVED: 8,
  /** the model is as at power-on when the daemon answers */
  RESET: 9,
  REPLAY: 10,
  NOTIFIER: 11,
  /** PAGE_RESPONSE answers */
  PAGE_REQUEST: 12,
  /** a store to a tracked page */
  TABLE_WRITE: 13,
  /** either way: there is something in the mailbox */
  MAIL: 14,
  /** the ring of commands that the peer has carried out fills up */
  QUEUE_RAN: 15,
  /** an interrupt message of a device */
  REMAP_INTERRUPT: 16,
  HOST_LISTEN: 20,
  HOST_SETTLE: 21,
  /** an assigned device with host objects: how it is used */
  HOST_DEVICE: 22,
  /** the host's IOMMU recorded a fault */
  HOST_EVENT: 23,
  /** a device on guest tables asks for a page; HOST_RESPOND answers */
  HOST_PAGE_REQUEST: 24,
  /** a device used a PASID that it does not have */
  HOST_PASID_REFUSED: 25,
  INVALIDATE: 64,
  INTERRUPT: 65,
  /** guest memory that is not shared */
  MEM_READ: 66,
  MEM_WRITE: 67,
  MEM_CAS: 68,
  /** what becomes of a request that was stalled */
  RESUME: 69,
  /** answers the page requests of a group */
  PAGE_RESPONSE: 70,
  /** an ATS invalidation request: a device drops translations */
  DEVICE_TLB: 71,
  /** host mappings of an assigned device */
  HOST_BATCH: 72,
  /** which pages' stores are announced by TABLE_WRITE */
  TRACK: 73,
  /** which commands of the guest's queue the peer may carry out itself */
  QUEUE: 74,
  /** remapped interrupts that the peer keeps */
  INVALIDATE_INTERRUPTS: 75,
  /** how to walk a requester's tables */
  PEER_WALK: 76,
  HOST_SPACE_CREATE: 80,
  HOST_SPACE_DESTROY: 81,
  HOST_MAP: 82,
  HOST_ATTACH: 83,
  HOST_ATTACH_TABLES: 84,
  HOST_DETACH: 85,
  HOST_IDENTIFY: 86,
  HOST_INVALIDATE: 87,
  HOST_PASID_ALLOC: 88,
  HOST_PASID_FREE: 89,
  /** answers the page requests of a group */
  HOST_RESPOND: 90,
  /** why the connection is about to be closed */
  ERROR: 127,
} as const;

/**
 * Bit numbers in Hello.features. A side ignores bits that it does not know; what both name is in
 * force.
 */
export const FEATURE = {
  /** MEM_ADD carries files, which the daemon maps */
  SHARED_MEMORY: 1,
  /** MEM_READ, MEM_WRITE and MEM_CAS are served */
  REMOTE_MEMORY: 2,
  /** NOTIFIER, REPLAY, and Invalidate.devices */
  NOTIFIERS: 4,
  /** a TranslateReply may carry more than one span */
  SPANS: 8,
  /** Translate.kind, DEVICE_TLB */
  ATS: 16,
  /** PAGE_REQUEST, PAGE_RESPONSE */
  PRI: 32,
  /** Translate.may_stall, RESUME */
  STALLS: 64,
  /** HOST_LISTEN, HOST_SETTLE, HOST_BATCH: shadowed host mappings */
  HOST_BATCH: 128,
  /** TRACK, TABLE_WRITE: stores to live page tables are announced */
  TRACKING: 256,
  /** REMAP_INTERRUPT, INVALIDATE_INTERRUPTS */
  INTERRUPT_REMAPPING: 512,
  /** PEER_WALK, Invalidate.structures: the peer may walk tables itself */
  PEER_WALKS: 1024,
  /** HOST_DEVICE and what follows from it: host objects of devices */
  NESTING: 2048,
  /** a REG_WRITE may ask for an answer, which may bring a HOST_BATCH */
  WRITE_REPLY: 4096,
  /** MAIL: such writes and answers go through the control page */
  MAILBOX: 8192,
  /** QUEUE, QUEUE_RAN: plain invalidations complete in their doorbell */
  QUEUES: 16384,
} as const;

/** Bits of Notifier.flags. */
export const NOTIFY = {
  UNMAP: 1,
  MAP: 2,
  /** unmap events of the device's own translations */
  DEVICE_IOTLB: 4,
} as const;

/** Parts of the shared page file, as byte offsets, and how large they are. */
export const SHARED = {
  /** the control page */
  CONTROL: 0,
  /** the model's own saved state */
  SAVED: 4096,
  /** the register space, `register_bytes` of HELLO's reply */
  REGISTERS: 8192,
  /** with QUEUES the file ends with the ring */
  RING_BYTES: 262144,
  RING_SLOT_BYTES: 16,
  /** the first word of the control page: the bytes "VIMV" */
  MAGIC: 1447905622,
} as const;

/** Words of the control page, 32 bits each, little-endian. Each has one writer, named first. */
export const CONTROL = {
  /** daemon: 0x564d4956, the bytes `VIMV` */
  MAGIC: 0,
  /** daemon: REG_WRITEs handled */
  HANDLED: 1,
  /** daemon: number of the QUEUE in force; 0: none */
  QUEUE: 2,
  /** daemon: slots of the ring taken */
  RING_TAKEN: 3,
  /** peer: translations answered by the peer's own IOTLB */
  HITS_LO: 4,
  /** peer: their high half */
  HITS_HI: 5,
  /** peer: translations asked for */
  MISSES_LO: 6,
  /** peer: their high half */
  MISSES_HI: 7,
  /** peer: answers that came too late to be cached */
  STALE_FILLS: 8,
  /** peer: IOTLB entries dropped by invalidations */
  INVALIDATED: 9,
  /** peer: DMA refused because the daemon was gone */
  REFUSED: 10,
  /** peer: translations found by the peer's own walks */
  PEER_WALKS_LO: 12,
  /** peer: their high half */
  PEER_WALKS_HI: 13,
  /** peer: 1 while it sleeps until MAIL comes */
  PEER_SLEEPS: 16,
  /** daemon: 1 while it sleeps until MAIL comes */
  DAEMON_SLEEPS: 17,
  /** daemon: its CPU's number + 1 */
  DAEMON_CPU: 18,
  /** peer: interrupts remapped from what the peer keeps */
  INTERRUPT_HITS_LO: 20,
  /** peer: their high half */
  INTERRUPT_HITS_HI: 21,
  /** peer: interrupts asked for */
  INTERRUPTS_ASKED: 22,
  /** peer: interrupts that were not delivered */
  INTERRUPTS_BLOCKED: 23,
  /** peer: REG_WRITEs sent */
  SENT: 32,
  /** peer: slots of the ring filled */
  RING_FILLED: 33,
  /** peer: frames put into the mailbox */
  MAIL_SENT: 256,
  /** peer: frames on the front channel before the last of these */
  MAIL_AFTER: 257,
  /** peer: frames sent on the front channel */
  FRONT_SENT: 258,
  /** peer: its CPU's number + 1, when it put the last frame */
  PEER_CPU: 259,
  /** peer: its frame begins */
  MAIL_FRAME: 260,
  /** none: the word behind the peer's frame */
  MAIL_FRAME_END: 384,
  /** daemon: answers put into the mailbox */
  MAIL_ANSWERED: 512,
  /** daemon: frames of the mailbox handled */
  MAIL_HANDLED: 513,
  /** daemon: its frame begins */
  MAIL_ANSWER: 514,
  /** none: the word behind the daemon's frame */
  MAIL_ANSWER_END: 1024,
} as const;
