/**
 * The machine's side of the model: the guest's processor, devices, and the peer between them and
 * the daemon.
 */
import { daemonMoves } from './queues-daemon.js';
import { type BackFrame, post, type Rules, type Scenario, type State, use } from './queues-state.js';
import type { Move } from './search.js';

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
  // A doorbell is the peer's from its first look on; what these say is undone only by the
  // daemon.
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
  // A request that waits for an answer is refused.
  if (s.device.at === 1) Object.assign(s.device, { at: 0, left: s.device.left - 1 });
  // Nothing older is translated by a unit that is switched on again.
  if (s.guest > 0) s.completed = true;
  if (s.guest === 9) s.guest = 8;
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
