/**
 * Answers on the backend channel for which the daemon does not stand and wait, by message number.
 * One table serves two places: it says what is handled when it comes, and what is kept when it
 * comes during a wait for guest memory (remote-access.ts). The answers to MEM_READ, MEM_WRITE and
 * MEM_CAS are not in it, since those are waited for.
 */
import { CodedError } from '../base/errors.js';
import type { Iommu } from '../device/iommu.js';
import { isMessage, replyCodec } from '../wire/codec.js';
import { type Frame, MESSAGE, messageName } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import type { AssignedDevices } from './assigned.js';
import type { Completions } from './completions.js';
import type { Connection } from './connection.js';
import { expectDescriptors } from './descriptor-count.js';
import type { DeviceTlbs } from './device-tlb-requests.js';
import type { InterruptRemapping } from './interrupt-requests.js';
import type { Invalidations } from './peer-invalidations.js';
import type { Shadowing } from './shadowing.js';
import { notWaitedFor } from './unexpected-reply.js';

/** The parts that answers go to. */
interface Asked {
  readonly connection: Connection;
  readonly completions: Completions;
  readonly invalidations: Invalidations;
  readonly interrupts: InterruptRemapping;
  readonly deviceTlbs: DeviceTlbs;
  readonly shadowing: Shadowing;
  readonly assigned: AssignedDevices;
}

type Handler = (asked: Asked, frame: Frame, bytes: Uint8Array) => void;

function answer<T extends keyof M.Replies>(
  type: T,
  handle: (asked: Asked, frame: Frame, message: M.Replies[T]) => void,
): Handler {
  const codec = replyCodec(type);
  return (asked, frame, bytes) => handle(asked, frame, codec.decode(bytes, frame.start, frame.end));
}

/** What a peer cannot refuse. */
function mustBeDone(type: number, { code, text }: M.Status): void {
  if (code === 0) return;
  throw new CodedError('PEER_REFUSED', `${messageName(type)} failed in the peer: ${code} ${text}`);
}

/** By message number. */
export const BACKEND_ANSWERS: readonly (Handler | undefined)[] = (() => {
  const table: (Handler | undefined)[] = [];
  table[MESSAGE.INVALIDATE] = answer(MESSAGE.INVALIDATE, (asked, { type, id }, status) => {
    mustBeDone(type, status);
    asked.invalidations.acknowledge(id);
  });
  table[MESSAGE.INVALIDATE_INTERRUPTS] = answer(
    MESSAGE.INVALIDATE_INTERRUPTS,
    (asked, { type, id }, status) => {
      mustBeDone(type, status);
      asked.interrupts.acknowledge(id);
    },
  );
  table[MESSAGE.DEVICE_TLB] = answer(MESSAGE.DEVICE_TLB, (asked, { id }, { result }) => {
    if (!asked.deviceTlbs.answer(id, result, asked.connection.model as Iommu)) asked.completions.wakeModel();
  });
  table[MESSAGE.HOST_BATCH] = answer(MESSAGE.HOST_BATCH, (asked, { type, id }, { failures }) => {
    // A batch that went with an answer on the front channel is answered there.
    if (id === asked.shadowing.writeReply.batch) throw notWaitedFor(type, id);
    asked.shadowing.answered(id, failures);
  });
  table[MESSAGE.TRACK] = answer(MESSAGE.TRACK, (asked, { type, id }, status) => {
    mustBeDone(type, status);
    asked.shadowing.shadow.trackAnswered(id);
  });
  const host = answer(MESSAGE.HOST_SPACE_CREATE, (asked, { type, id }, reply) =>
    asked.assigned.host.answered(type, id, reply),
  );
  for (let type: number = MESSAGE.HOST_SPACE_CREATE; type <= MESSAGE.HOST_PASID_FREE; type++) {
    table[type] = host;
  }
  return table;
})();

/**
 * The handler of a frame of the backend channel. Throws `UNKNOWN_TYPE`, `OUT_OF_ORDER`,
 * `UNEXPECTED_REPLY`, `EXTRA_DESCRIPTOR`.
 */
export function answerHandler(frame: Frame): Handler {
  const { type } = frame;
  if (!isMessage(type)) throw new CodedError('UNKNOWN_TYPE', `message type ${type}`);
  if (!frame.reply) throw new CodedError('OUT_OF_ORDER', `${messageName(type)} on the backend channel`);
  const handler = BACKEND_ANSWERS[type];
  if (handler === undefined) throw notWaitedFor(type, frame.id);
  expectDescriptors(frame, 0);
  return handler;
}
