import type { LocalMachine } from '../support/local-machine.js';
import { must } from './fuzzer.js';

/** Keeps count of stalled requests: each ends exactly once, none that is not stalled ends. */
export class StallLedger {
  readonly #machine: LocalMachine;
  readonly held = new Set<number>();

  constructor(machine: LocalMachine) {
    this.#machine = machine;
  }

  stalled(stall: number): void {
    must(!this.held.has(stall), () => `stall ${stall} is given twice`);
    this.held.add(stall);
    must(this.held.size <= 256, () => `${this.held.size} requests are stalled`);
  }

  /** Takes the RESUMEs of the model. */
  settle(): void {
    for (const { stall } of this.#machine.outputs.resumed.splice(0)) {
      must(this.held.delete(stall), () => `stall ${stall} ends, but is not stalled`);
    }
  }

  /** After a reset no request is stalled, and no RESUME was sent for them. */
  reset(): void {
    this.settle();
    this.held.clear();
  }

  /** After the SMMU was disabled no request is stalled. */
  empty(): void {
    this.settle();
    must(this.held.size === 0, () => `${this.held.size} stalls are left behind`);
  }
}
