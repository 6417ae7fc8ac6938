/**
 * The rules of docs/protocol.md that hold when a peer completes plain invalidations by itself, as a model of one page: its entry
 * in the guest's tables, what the peer and the daemon keep of it, the words that the two share and the frames between them.
 * Everything else is left out. A translation is the version of the entry that it was made from: 0 before the guest's change, 1 after.
 */
import type { Move } from './search.js';

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

/** Who takes part. */
export interface Scenario {
  /** What the guest's change is announced by: a plain invalidation, or one of structures whose completion is asked for by another doorbell. */
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
type BackFrame =
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
function use(version: number, late: boolean): void {
  if (late && version === 0) throw new Error('an old translation is used after the completion');
}

function post(state: State, frame: FrontFrame): void {
  if (frame.kind === 'plain' || frame.kind === 'structures' || frame.kind === 'wait') state.sent++;
  state.front.push(frame);
}

/** Steps of the guest's processor that changes the entry and waits for the completion. */
function guestMoves(state: Readonly<State>, rules: Rules, { announced }: Scenario): Move<State>[] {
  const to = (name: string, next: number, then: (state: State) => void = () => {}): Move<State>[] => [
    {
      name: `guest: ${name}`,
      take: (s) => {
        then(s);
        s.guest = next;
      },
    },
  ];
  const last = announced === 'plain' ? 'plain' : 'wait';
  const sends = (s: State): void => post(s, { kind: last });
  // A doorbell is the peer's from its first look on; what these say is undone by nobody but the daemon.
  switch (state.guest) {
    case 0:
      return to('changes the entry', announced === 'plain' ? 2 : 1, (s) => {
        s.memory = 1;
      });
    case 1:
      return to('invalidates structures', 2, (s) => post(s, { kind: 'structures' }));
    case 2: {
      const clear = state.handled === state.sent || !rules.nothingOutstanding;
      return clear ? to('rings; nothing is outstanding', 3) : to('rings; something is outstanding', 9, sends);
    }
    case 3: {
      const open = state.queue === state.known && state.known !== 0;
      return open || !rules.inForce
        ? to('the queue is in force', 4)
        : to('the queue is not in force', 9, sends);
    }
    case 4:
      return rules.copiedFirst ? to('fills the ring', 5, (s) => s.filled++) : to('leaves the ring', 5);
    case 5:
      return rules.droppedFirst ? to('drops', 6, (s) => drops(s, announced)) : to('drops later', 6);
    case 6:
      return to('completes', 7, (s) => {
        s.completed = true;
      });
    case 7:
      return rules.copiedFirst ? to('goes on', 8) : to('fills the ring', 8, (s) => s.filled++);
    case 8:
      return rules.droppedFirst ? [] : to('drops', 9, (s) => drops(s, announced));
    default:
      return [];
  }
}

/** A wait drops nothing. */
function drops(state: State, announced: Scenario['announced']): void {
  if (announced !== 'plain') return;
  state.cache = undefined;
  state.generation++;
}

function deviceMoves(state: Readonly<State>, rules: Rules): Move<State>[] {
  const { device } = state;
  if (device.left === 0) return [];
  if (device.at === 0) {
    return [
      {
        name: 'device: begins',
        take: (s) => {
          const late = s.completed;
          if (s.cache !== undefined) {
            use(s.cache, late);
            s.device.left--;
            return;
          }
          Object.assign(s.device, { at: 1, late, since: s.generation });
          s.front.push({ kind: 'translate', late });
        },
      },
    ];
  }
  if (state.answers.length === 0) return [];
  return [
    {
      name: 'device: has its answer',
      take: (s) => {
        const { version, epoch } = s.answers.shift() as { version: number; epoch: number };
        use(version, s.device.late);
        const overtaken = rules.answersHaveGenerations && s.generation !== s.device.since;
        if (!overtaken && (epoch >= s.epochSeen || !rules.epochs)) s.cache = version;
        s.device.at = 0;
        s.device.left--;
      },
    },
  ];
}

function walkerMoves(state: Readonly<State>, rules: Rules): Move<State>[] {
  const { walker } = state;
  if (walker.left === 0 || (walker.at === 0 && !state.tables)) return [];
  const to = (name: string, take: (s: State) => void): Move<State>[] => [{ name: `walker: ${name}`, take }];
  if (walker.at === 0) {
    return to('begins', (s) => {
      const late = s.completed;
      if (s.cache !== undefined) {
        use(s.cache, late);
        s.walker.left--;
      } else Object.assign(s.walker, { at: 1, late, since: s.generation, epoch: s.epochSeen });
    });
  }
  if (walker.at === 1) {
    return to('reads the entry', (s) => {
      s.walker.at = 2;
      s.walker.version = s.memory;
    });
  }
  return to('is done', (s) => {
    const { version, late, since, epoch } = s.walker;
    use(version, late);
    const overtaken = rules.walksHaveGenerations && s.generation !== since;
    if (!overtaken && (epoch === s.epochSeen || !rules.epochs)) s.cache = version;
    Object.assign(s.walker, { at: 0, left: s.walker.left - 1 });
  });
}

/** The peer's backend channel, and what else happens to it. */
function peerMoves(state: Readonly<State>, rules: Rules, scenario: Scenario): Move<State>[] {
  const moves: Move<State>[] = [];
  if (state.cache !== undefined && state.device.left + state.walker.left > 0) {
    moves.push({
      name: 'peer: has no room for it any more',
      take: (s) => {
        s.cache = undefined;
      },
    });
  }
  const [next] = state.back;
  if (next !== undefined) {
    moves.push({
      name: `peer: ${next.kind}`,
      take: (s) => {
        const frame = s.back.shift() as BackFrame;
        if (frame.kind === 'queue') {
          s.known = frame.number;
          return;
        }
        if (frame.kind === 'tables') {
          s.tables = true;
          return;
        }
        s.cache = undefined;
        if (frame.structures) s.tables = false;
        s.epochSeen = frame.epoch;
        s.acks.push(frame.epoch);
      },
    });
  }
  if (scenario.another && state.another === 0) {
    moves.push({
      name: 'another: invalidates structures',
      take: (s) => {
        s.another = 1;
        post(s, { kind: 'structures' });
      },
    });
  }
  // A machine is reset, and a connection made anew, with its processors out of the store.
  const outside = state.guest <= 2 || state.guest >= 8;
  if (scenario.reset && state.reset === 0 && outside) {
    moves.push({
      name: 'machine: is reset',
      take: (s) => {
        s.reset = 1;
        s.guest = 9;
        post(s, { kind: 'reset' });
      },
    });
  }
  if (state.reset === 1 && state.resetDone) {
    moves.push({
      name: 'machine: goes on',
      take: (s) => {
        s.reset = 2;
        s.cache = undefined;
        s.generation++;
        s.completed = true;
      },
    });
  }
  if (scenario.reconnects && !state.reconnected && outside) {
    moves.push({ name: 'machine: connects anew', take: (s) => reconnect(s, rules) });
  }
  return moves;
}

/** What the two shared is gone, and the daemon knows nothing. */
function reconnect(s: State, rules: Rules): void {
  const shared = { sent: 0, handled: 0, queue: 0, filled: 0, taken: 0 };
  const channels = { front: [], answers: [], back: [], acks: [] };
  const unit = { tlb: undefined, out: false, told: false, epoch: 0, pending: 0, waiting: false, number: 0 };
  Object.assign(s, shared, channels, unit, { reconnected: true, epochSeen: 0, known: 0, tables: false });
  s.daemon = { at: 'idle', frame: undefined, version: 0 };
  if (rules.forgets) {
    s.cache = undefined;
    s.generation++;
  }
  // Whoever waits for an answer is refused.
  if (s.device.at === 1) Object.assign(s.device, { at: 0, left: s.device.left - 1 });
  // Nothing older is translated by a unit that is switched on again.
  if (s.guest > 0) s.completed = true;
  if (s.guest === 9) s.guest = 8;
}

/** What the peer has carried out, the daemon does to its own cache. */
function takeRing(s: State, { announced }: Scenario): void {
  if (s.filled === s.taken) return;
  s.taken = s.filled;
  if (announced !== 'plain') return;
  s.tlb = undefined;
  s.out = false;
}

function publish(s: State): void {
  const open = s.pending === 0 && !s.waiting && s.reset === 0;
  if (!open) {
    s.queue = 0;
    return;
  }
  if (s.number === 0) {
    s.number = 1;
    s.back.push({ kind: 'queue', number: 1 });
  }
  s.queue = s.number;
}

/** Something that has to be acknowledged goes to the peer. */
function invalidate(s: State, structures: boolean): void {
  s.epoch++;
  s.pending++;
  s.out = false;
  if (structures) s.told = false;
  s.back.push({ kind: 'invalidate', epoch: s.epoch, structures });
}

function handleWrite(s: State, kind: 'plain' | 'structures' | 'wait'): void {
  if (kind !== 'wait') s.tlb = undefined;
  if (kind === 'structures' || (kind === 'plain' && (s.out || s.told))) invalidate(s, kind === 'structures');
  if (kind === 'structures') return;
  if (s.pending > 0) s.waiting = true;
  else s.completed = true;
}

function daemonMoves(state: Readonly<State>, rules: Rules, scenario: Scenario): Move<State>[] {
  const { daemon } = state;
  const to = (name: string, take: (s: State) => void): Move<State> => ({ name: `daemon: ${name}`, take });
  switch (daemon.at) {
    case 'walk':
      return [
        to('looks at its TLB or the tables', (s) => {
          s.daemon.version = s.tlb ?? s.memory;
          s.daemon.at = 'answer';
        }),
      ];
    case 'answer':
      return [
        to('answers', (s) => {
          s.tlb = s.daemon.version;
          s.out = true;
          publish(s);
          s.answers.push({ version: s.daemon.version, epoch: s.epoch });
          if (scenario.walks > 0 && !s.told) {
            s.told = true;
            s.back.push({ kind: 'tables' });
          }
          s.daemon.at = 'idle';
        }),
      ];
    case 'close':
      return [
        to('says whether the queue is in force', (s) => {
          publish(s);
          s.daemon.at = rules.closedFirst ? 'count' : 'idle';
        }),
      ];
    case 'count':
      return [
        to('counts the write', (s) => {
          s.handled++;
          s.daemon.at = rules.closedFirst ? 'idle' : 'close';
        }),
      ];
    default:
      return idleMoves(state, rules, scenario, to);
  }
}

function idleMoves(
  state: Readonly<State>,
  rules: Rules,
  scenario: Scenario,
  to: (name: string, take: (s: State) => void) => Move<State>,
): Move<State>[] {
  const moves: Move<State>[] = [];
  const before = (s: State): void => {
    if (rules.ringFirst) takeRing(s, scenario);
  };
  if (state.filled !== state.taken) moves.push(to('takes the ring', (s) => takeRing(s, scenario)));
  const [frame] = state.front;
  if (frame !== undefined) {
    moves.push(
      to(`handles ${frame.kind}`, (s) => {
        before(s);
        s.front.shift();
        if (frame.kind === 'translate') s.daemon.at = 'walk';
        else if (frame.kind === 'reset') {
          // A unit as at power-on translates in another way.
          s.memory = 1;
          s.tlb = undefined;
          s.waiting = false;
          invalidate(s, true);
          s.queue = 0;
          s.resetDone = true;
        } else {
          handleWrite(s, frame.kind);
          s.daemon.at = rules.closedFirst ? 'close' : 'count';
        }
      }),
    );
  }
  if (state.acks.length > 0) {
    moves.push(
      to('has an acknowledgement', (s) => {
        before(s);
        s.acks.shift();
        s.pending--;
        if (s.pending > 0) return;
        if (s.waiting) s.completed = true;
        s.waiting = false;
        publish(s);
      }),
    );
  }
  return moves;
}

export function movesOf(rules: Rules, scenario: Scenario): (state: Readonly<State>) => Move<State>[] {
  return (state) => [
    ...guestMoves(state, rules, scenario),
    ...deviceMoves(state, rules),
    ...walkerMoves(state, rules),
    ...peerMoves(state, rules, scenario),
    ...daemonMoves(state, rules, scenario),
  ];
}
