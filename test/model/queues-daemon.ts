/** The daemon's side of the model: what it keeps, and how it handles what comes. */
import type { Rules, Scenario, State } from './queues-state.js';
import type { Move } from './search.js';

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

export function daemonMoves(state: Readonly<State>, rules: Rules, scenario: Scenario): Move<State>[] {
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
