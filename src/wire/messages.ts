/** The messages of `proto/viommu.proto` as types, and which of them belong to which frame. */
import type { Bodies, Replies } from './generated/messages.js';
import type { MESSAGE } from './generated/numbers.js';

export type * from './generated/messages.js';

/** Frames that are not answered. A REG_WRITE may be one, or ask for an answer. */
export type Posted = Exclude<keyof Bodies, keyof Replies> | typeof MESSAGE.REG_WRITE;
