/**
 * The rules of docs/protocol.md that hold when a peer completes plain invalidations by itself, as a
 * model of one page: its entry in the guest's tables, what the peer and the daemon keep of it, the
 * words that the two share and the frames between them. Everything else is left out. A translation
 * is the version of the entry that it was made from: 0 before the guest's change, 1 after.
 */

/** What may be taken out, to see that it is needed. */
export interface Rules {
  /** What was asked for before entries were dropped is not cached. */
  readonly answersHaveGenerations: boolean;
  /** Nor what a walk found that began before. */
  readonly walksHaveGenerations: boolean;
  /** What an INVALIDATE overtook is not cached. */
  readonly epochs: boolean;
  /** The daemon takes the ring before it handles a frame. */
  readonly ringFirst: boolean;
  /** The peer carries out nothing while a REG_WRITE is not handled. */
  readonly nothingOutstanding: boolean;
  /** Nothing while the queue is not in force. */
  readonly inForce: boolean;
  /** The daemon says whether it is in force before it counts a write as handled. */
  readonly closedFirst: boolean;
  /** Entries are dropped before the completion is to be seen. */
  readonly droppedFirst: boolean;
  /** The copies are in the ring before the completion is to be seen. */
  readonly copiedFirst: boolean;
  /** With its connection the peer loses what it has cached. */
  readonly forgets: boolean;
}

export const ALL_RULES: Rules = {
  ...{ answersHaveGenerations: true, walksHaveGenerations: true, epochs: true, ringFirst: true },
  ...{ nothingOutstanding: true, inForce: true, closedFirst: true, droppedFirst: true, copiedFirst: true },
  forgets: true,
};

/** The parties of a run. */
export interface Scenario {
  /**
   * What the guest's change is announced by: a plain invalidation, or one of structures whose
   * completion is asked for by another doorbell.
   */
  readonly announced: 'plain' | 'structures';
  /** Requests of a device that asks the daemon, one after the other. */
  readonly asks: number;
  /** Requests that the peer's own walks answer. */
  readonly walks: number;
  /** Another processor invalidates structures. */
  readonly another: boolean;
  readonly reset: boolean;
  readonly reconnects: boolean;
}

type FrontFrame =
  | { readonly kind: 'translate'; readonly late: boolean }
  | { readonly kind: 'plain' | 'structures' | 'wait' | 'reset' };
export type BackFrame =
  | { readonly kind: 'invalidate'; readonly epoch: number; readonly structures: boolean }
  | { readonly kind: 'queue'; readonly number: number }
  | { readonly kind: 'tables' };

export interface State {
  /** The entry in memory. */
  memory: number;
  /** The guest has seen that its change is complete. */
  completed: boolean;
  // What the two share.
  sent: number;
  handled: number;
  queue: number;
  filled: number;
  taken: number;
  front: FrontFrame[];
  answers: { version: number; epoch: number }[];
  back: BackFrame[];
  acks: number[];
  resetDone: boolean;
  // The peer.
  cache: number | undefined;
  generation: number;
  epochSeen: number;
  known: number;
  /** It may walk. */
  tables: boolean;
  // The daemon.
  tlb: number | undefined;
  /** Something was given out since the last whole invalidation; the peer may walk. */
  out: boolean;
  told: boolean;
  epoch: number;
  pending: number;
  waiting: boolean;
  number: number;
  daemon: {
    at: 'idle' | 'walk' | 'answer' | 'count' | 'close';
    frame: FrontFrame | undefined;
    version: number;
  };
  guest: number;
  device: { at: number; left: number; late: boolean; since: number };
  walker: { at: number; left: number; late: boolean; since: number; epoch: number; version: number };
  another: number;
  reset: number;
  reconnected: boolean;
}

export function start({ asks, walks }: Scenario): State {
  return {
    ...{ memory: 0, completed: false, sent: 0, handled: 0, queue: 1, filled: 0, taken: 0 },
    ...{ front: [], answers: [], back: [], acks: [], resetDone: false },
    // Something was translated before: both keep it.
    ...{ cache: 0, generation: 0, epochSeen: 0, known: 1, tables: walks > 0 },
    ...{ tlb: 0, out: true, told: walks > 0, epoch: 0, pending: 0, waiting: false, number: 1 },
    daemon: { at: 'idle', frame: undefined, version: 0 },
    guest: 0,
    device: { at: 0, left: asks, late: false, since: 0 },
    walker: { at: 0, left: walks, late: false, since: 0, epoch: 0, version: 0 },
    ...{ another: 0, reset: 0, reconnected: false },
  };
}

/** A request that began when the change was complete must not see what was before. */
export function use(version: number, late: boolean): void {
  if (late && version === 0) throw new Error('an old translation is used after the completion');
}

export function post(state: State, frame: FrontFrame): void {
  if (frame.kind === 'plain' || frame.kind === 'structures' || frame.kind === 'wait') state.sent++;
  state.front.push(frame);
}
