/** Answers that promise something of the host: sent when that is so. */
import { CODEC, type Codec } from '../wire/codec.js';
import { FLAG, type Frame } from '../wire/frame.js';
import type { AssignedDevices } from './assigned.js';
import type { Completions } from './completions.js';
import type { Connection } from './connection.js';
import type { InterruptRemapping } from './interrupt-requests.js';
import type { Invalidations } from './peer-invalidations.js';
import type { Shadowing } from './shadowing.js';

export class HostAnswers {
  readonly #connection: Connection;
  readonly #completions: Completions;
  readonly #assigned: AssignedDevices;
  readonly #shadowing: Shadowing;
  readonly #invalidations: Invalidations;
  readonly #interrupts: InterruptRemapping;
  constructor(
    connection: Connection,
    completions: Completions,
    assigned: AssignedDevices,
    shadowing: Shadowing,
    invalidations: Invalidations,
    interrupts: InterruptRemapping,
  ) {
    this.#connection = connection;
    this.#completions = completions;
    this.#assigned = assigned;
    this.#shadowing = shadowing;
    this.#invalidations = invalidations;
    this.#interrupts = interrupts;
  }

  /** Replies when host objects do as was asked: with this input, where nothing is in flight. */
  replyWhenDone<T extends object>({ type, id }: Frame, codec: Codec<T>, message: T): void {
    const assigned = this.#assigned;
    const connection = this.#connection;
    this.#completions.hold(() => {
      if (assigned.pending > 0) return false;
      connection.front.put(type, FLAG.REPLY, id, codec, message);
      return true;
    });
  }

  /**
   * HOST_SETTLE and TABLE_WRITE: answered when all is settled, or when the peer has something to do
   * for it.
   */
  replyWhenSettled({ type, id }: Frame): void {
    this.#completions.hold(() => this.#settled(type, id));
  }

  #settled(type: number, id: number): boolean {
    const shadowing = this.#shadowing;
    const invalidations = this.#invalidations;
    const interrupts = this.#interrupts;
    const settled = this.#completions.pending === 0;
    // What the peer answers by itself (host objects, too) is waited for. The rest needs its main
    // loop, so it has to be told.
    const batches = shadowing.shadow.underWay - this.#assigned.spaces.underWay;
    const working = batches > 0 || invalidations.pendingNamed > 0 || interrupts.underWay > 0;
    const tracking = !working && shadowing.shadow.trackPending > 0;
    if (!settled && !working && !tracking) return false;
    const sent = (shadowing.sent + invalidations.sentNamed + interrupts.sent) >>> 0;
    const message = { settled, sent, tracking };
    this.#connection.front.put(type, FLAG.REPLY, id, CODEC.HostSettleReply, message);
    return true;
  }
}
