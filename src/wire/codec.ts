/** Which codec a frame has. */
import type { Codec } from './body.js';
import { MESSAGE_TABLE } from './frame.js';
import { BODY, REPLY } from './generated/codecs.js';
import type * as M from './messages.js';

export { Codec } from './body.js';
export { CODEC } from './generated/codecs.js';

type AnyCodec = Codec<object>;

function table(codecs: Readonly<Record<number, unknown>>): readonly (AnyCodec | undefined)[] {
  return Array.from({ length: MESSAGE_TABLE }, (_, type) => codecs[type] as AnyCodec | undefined);
}

const BODIES = table(BODY);
const REPLIES = table(REPLY);

/** The codec of a request's or post's body. */
export function bodyCodec<T extends keyof M.Bodies>(type: T): Codec<M.Bodies[T]> {
  return BODIES[type] as unknown as Codec<M.Bodies[T]>;
}

/** The codec of a reply's body. */
export function replyCodec<T extends keyof M.Replies>(type: T): Codec<M.Replies[T]> {
  return REPLIES[type] as unknown as Codec<M.Replies[T]>;
}

/** True when `type` is a message of this version. */
export function isMessage(type: number): boolean {
  return type < MESSAGE_TABLE && BODIES[type] !== undefined;
}
