/**
 * Frames and numbers of the wire: the constants of `proto/viommu.proto`, for code that must not look names up.
 * A test compares every one of them with that file.
 */

/** Bytes of a frame's header: type, flags, size, id. */
export const HEADER_BYTES = 16;
/** Most bytes of a body; checked before the body is read. */
export const MAX_BODY_BYTES = 65536;
export const MAX_FRAME_BYTES = HEADER_BYTES + MAX_BODY_BYTES;
/** Most descriptors taken with one frame; more are closed and end the connection. */
export const MAX_DESCRIPTORS = 8;
/** The protocol's version, and the header's. */
export const VERSION = 1;

/** Bits of a header's flags. */
export const FLAG = { VERSION_MASK: 3, REPLY: 4, NEED_REPLY: 8, DEFINED: 0xf } as const;

/** enum MessageType. */
export const MESSAGE = {
  HELLO: 1,
  MEM_ADD: 2,
  MEM_REMOVE: 3,
  REG_WRITE: 4,
  REG_READ: 5,
  TRANSLATE: 6,
  DEVICE_ADDED: 7,
  DEVICE_REMOVED: 8,
  RESET: 9,
  REPLAY: 10,
  NOTIFIER: 11,
  PAGE_REQUEST: 12,
  TABLE_WRITE: 13,
  MAIL: 14,
  QUEUE_RAN: 15,
  HOST_LISTEN: 20,
  HOST_SETTLE: 21,
  HOST_DEVICE: 22,
  HOST_EVENT: 23,
  HOST_PAGE_REQUEST: 24,
  HOST_PASID_REFUSED: 25,
  INVALIDATE: 64,
  INTERRUPT: 65,
  MEM_READ: 66,
  MEM_WRITE: 67,
  MEM_CAS: 68,
  RESUME: 69,
  PAGE_RESPONSE: 70,
  DEVICE_TLB: 71,
  HOST_BATCH: 72,
  TRACK: 73,
  QUEUE: 74,
  TABLES: 76,
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
  HOST_RESPOND: 90,
  ERROR: 127,
} as const;
export type MessageType = (typeof MESSAGE)[keyof typeof MESSAGE];

/** One more than the highest message number: the size of tables indexed by it. */
export const MESSAGE_TABLE = 128;

/** Masks of the bit numbers in enum Feature. */
export const FEATURE = {
  SHARED_MEMORY: 1,
  REMOTE_MEMORY: 2,
  NOTIFIERS: 4,
  SPANS: 8,
  ATS: 16,
  PRI: 32,
  STALLS: 64,
  HOST_BATCH: 128,
  TRACKING: 256,
  WALKS: 1024,
  NESTING: 2048,
  WRITE_REPLY: 4096,
  MAILBOX: 8192,
  QUEUES: 16384,
} as const;

/** Every feature this version knows. */
export const ALL_FEATURES = 0x7dff;

/** Bits of Notifier.flags. */
export const NOTIFY = { UNMAP: 1, MAP: 2, DEVICE_IOTLB: 4 } as const;

/** The shared page file: control page, the model's saved state, registers. Byte offsets; with QUEUES a ring ends the file. */
export const SHARED = { CONTROL: 0, SAVED: 4096, REGISTERS: 8192, RING_BYTES: 262144 } as const;

/** Words of the control page. */
export const CONTROL = {
  MAGIC: 0,
  HANDLED: 1,
  QUEUE: 2,
  RING_TAKEN: 3,
  HITS: 4,
  MISSES: 6,
  STALE_FILLS: 8,
  DROPPED_ENTRIES: 9,
  REFUSED: 10,
  WALKS: 12,
  PEER_SLEEPS: 16,
  DAEMON_SLEEPS: 17,
  DAEMON_CPU: 18,
  SENT: 32,
  RING_FILLED: 33,
  MAIL_SENT: 256,
  MAIL_AFTER: 257,
  FRONT_SENT: 258,
  PEER_CPU: 259,
  MAIL_ANSWERED: 512,
  MAIL_HANDLED: 513,
} as const;
/**
 * The mailbox's two places for a frame, each behind the words that say what is there: who looks for those finds the frame in the
 * same cache line, and nobody else writes it. Bytes of the control page.
 */
export const MAILBOX = { PEER: 1040, PEER_BYTES: 496, DAEMON: 2056, DAEMON_BYTES: 2040 } as const;
/** The bytes "VIMV", little-endian. */
export const CONTROL_MAGIC = 0x564d4956;

/** Most bytes of one MEM_READ or MEM_WRITE. */
export const MAX_MEMORY_BYTES = 4096;

/** Whether a header's flags are some of this version. */
export function flagsAreRight(flags: number): boolean {
  return (flags & ~FLAG.DEFINED) === 0 && (flags & FLAG.VERSION_MASK) === VERSION;
}

/** Name of a message number, for logs. */
export function messageName(type: number): string {
  for (const [name, value] of Object.entries(MESSAGE)) if (value === type) return name;
  return `type ${type}`;
}

/** A frame as received; reused for every frame of a channel. Body bytes are [start, end) of the channel's buffer. */
export class Frame {
  type = 0;
  flags = 0;
  id = 0;
  start = 0;
  end = 0;
  /** Descriptors that came with it and that nobody took yet. */
  descriptors: number[] = [];

  get reply(): boolean {
    return (this.flags & FLAG.REPLY) !== 0;
  }

  get needsReply(): boolean {
    return (this.flags & FLAG.NEED_REPLY) !== 0;
  }
}
