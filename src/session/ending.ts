/** The last words to a peer. */
import type { CodedError } from '../base/errors.js';
import { cutToBytes } from '../base/text.js';
import type { Channel } from '../wire/channel.js';
import { CODEC } from '../wire/codec.js';
import { MESSAGE } from '../wire/frame.js';

/** Text of an ERROR; the bridge has room for one more. */
const MOST_BYTES = 1023;

/** Says on each channel why the connection ends, as far as somebody listens there. */
export function tellWhy(channels: readonly (Channel | undefined)[], reason: CodedError): void {
  try {
    if (reason.reason !== 'PEER_CLOSED') {
      const text = cutToBytes(reason.message, MOST_BYTES);
      for (const channel of channels) {
        channel?.put(MESSAGE.ERROR, 0, 0, CODEC.Error, { code: reason.code, text });
      }
    }
    for (const channel of channels) channel?.flush();
  } catch {
    // A peer that is gone hears nothing.
  }
}
