/**
 * Frames: the numbers of `proto/viommu.proto` that they are made of, and what a received one looks
 * like.
 */
import { CONTROL, FEATURE, FLAG, MESSAGE, NOTIFY, SHARED, WIRE } from './generated/numbers.js';

export { CONTROL, FEATURE, FLAG, MESSAGE, NOTIFY, SHARED };

/** Bytes of a frame's header: type, flags, size, id. */
export const HEADER_BYTES = WIRE.HEADER_BYTES;
/** Most bytes of a body; checked before the body is read. */
export const MAX_BODY_BYTES = WIRE.MAX_BODY;
export const MAX_FRAME_BYTES = HEADER_BYTES + MAX_BODY_BYTES;
/** Most descriptors taken with one frame; more are closed and end the connection. */
export const MAX_DESCRIPTORS = 8;
/** The protocol's version, and the header's. */
export const VERSION = WIRE.VERSION;

/** One more than the highest message number: the size of tables indexed by it. */
export const MESSAGE_TABLE = 128;

/** Every feature this version knows. */
export const ALL_FEATURES = Object.values(FEATURE).reduce<number>((all, mask) => all | mask, 0);

/** The first word of the control page. */
export const CONTROL_MAGIC = SHARED.MAGIC;
/**
 * The mailbox's two places for a frame, in bytes of the control page. Each stands behind the words
 * that say what is in it: a poll of those finds the frame in the same cache line, which only one
 * side writes.
 */
export const MAILBOX = {
  PEER: CONTROL.MAIL_FRAME * 4,
  PEER_BYTES: (CONTROL.MAIL_FRAME_END - CONTROL.MAIL_FRAME) * 4,
  DAEMON: CONTROL.MAIL_ANSWER * 4,
  DAEMON_BYTES: (CONTROL.MAIL_ANSWER_END - CONTROL.MAIL_ANSWER) * 4,
} as const;

/** Whether a header's flags are some of this version. */
export function flagsAreRight(flags: number): boolean {
  return (flags & ~FLAG.DEFINED) === 0 && (flags & FLAG.VERSION_MASK) === VERSION;
}

/** Name of a message number, for logs. */
export function messageName(type: number): string {
  for (const [name, value] of Object.entries(MESSAGE)) if (value === type) return name;
  return `type ${type}`;
}

/**
 * A frame as received; reused for every frame of a channel. Body bytes are [start, end) of the
 * channel's buffer.
 */
export class Frame {
  type = 0;
  flags = 0;
  id = 0;
  start = 0;
  end = 0;
  /** Descriptors that came with it and that no message has taken yet. */
  descriptors: number[] = [];

  get reply(): boolean {
    return (this.flags & FLAG.REPLY) !== 0;
  }

  get needsReply(): boolean {
    return (this.flags & FLAG.NEED_REPLY) !== 0;
  }
}
