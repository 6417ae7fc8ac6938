import type { Answers } from './operations.js';
import type { OurMachine } from './ours.js';
import { disagreements, Ledger } from './reading.js';
import type { Outcome, Step } from './script.js';
import type { MachineKind, Suite } from './suite.js';

/** How many requests the third reading was compared with. */
export interface Readings {
  read: number;
  /** The unit itself had written to something that it may have cached. */
  undecided: number;
}

interface Served {
  readonly answers: Answers;
  /** What our side shows; undefined where nothing is looked at. */
  readonly ours: Outcome | undefined;
  /** Where that is not what the third reading says. */
  readonly wrong: readonly string[];
  /** The tables cannot tell any more what is right: the case is over. */
  readonly undecided: boolean;
}

/**
 * Our side of one case: does its steps, and holds every request against the third reading of the
 * tables as they were.
 */
export class OurSide<K extends MachineKind> {
  readonly #suite: Suite<K>;
  readonly #kind: K;
  readonly #machine: OurMachine;
  readonly #readings: Readings;
  readonly #ledger = new Ledger();

  constructor(suite: Suite<K>, kind: K, machine: OurMachine, readings: Readings) {
    this.#suite = suite;
    this.#kind = kind;
    this.#machine = machine;
    this.#readings = readings;
  }

  serve(step: Step): Served {
    const machine = this.#machine;
    const readings = this.#readings;
    const ledger = this.#ledger;
    const reading = this.#suite.read(step, machine, this.#kind, ledger);
    const answers = machine.run(step.operations);
    const decided = !ledger.muddled;
    const { flagged, stored } = machine.memory;
    for (const address of flagged.keys()) ledger.flagged(address);
    for (const address of stored) ledger.stored(address);
    const ours = step.look?.(answers);
    if (reading === undefined || ours === undefined) return { answers, ours, wrong: [], undecided: false };
    if (!decided) {
      readings.undecided++;
      return { answers, ours, wrong: [], undecided: true };
    }
    readings.read++;
    const now = (address: number): bigint | undefined => machine.memory.peek(address);
    const wrong = disagreements(ours, reading, { before: flagged, now });
    return { answers, ours, wrong, undecided: false };
  }
}
