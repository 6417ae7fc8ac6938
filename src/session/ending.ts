/** The last words to a peer. */
import type { CodedError } from '../base/errors.js';
import { cutToBytes } from '../base/text.js';
import type { Channel } from '../wire/channel.js';
import { CODEC } from '../wire/codec.js';
import { MESSAGE } from '../wire/frame.js';

/** Text of an ERROR; the bridge has room for one more. */
const MOST_BYTES = 1023;

export type LastChannel = Pick<Channel, 'put' | 'flush'>;

/** Says on each channel why the connection ends, as far as the peer still reads it. */
export function tellWhy(channels: readonly (LastChannel | undefined)[], reason: CodedError): void {
  const silent = reason.reason === 'PEER_CLOSED';
  const message = { code: reason.code, text: cutToBytes(reason.message, MOST_BYTES) };
  for (const channel of channels) {
    try {
      if (!silent) channel?.put(MESSAGE.ERROR, 0, 0, CODEC.Error, message);
      channel?.flush();
    } catch {
      // This channel is closed. The peer may still read the other one.
    }
  }
}
