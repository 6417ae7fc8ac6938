/** Operations that were asked of the host and have not ended. */
import type { HostOutcome } from '../host/port.js';

/** What observers hear of nesting. Rare. */
export type NestingEvent =
  | {
      /** The host refused something; `what` says what it was for. */
      readonly kind: 'hostRefused';
      readonly what: string;
      readonly device: number;
      readonly pasid: number;
      readonly code: string;
      readonly text: string;
    }
  | {
      /** The guest has set up what hardware cannot nest. */
      readonly kind: 'notNestable';
      readonly device: number;
      readonly rid: number;
      readonly pasid: number;
      readonly reason: string;
    };

const NOTHING_THERE = new Set<HostOutcome['code']>(['NOT_ATTACHED', 'NOT_YOUR_PASID', 'NO_SUCH_DEVICE']);

export class HostOperations {
  readonly #event: (event: NestingEvent) => void;
  /** Nothing is under way any more. */
  readonly #settled: () => void;
  /** Under way. */
  pending = 0;
  /** Asked for since the start, for reports. */
  count = 0;
  refused = 0;

  constructor(event: (event: NestingEvent) => void, settled: () => void) {
    this.#event = event;
    this.#settled = settled;
  }

  /**
   * A completion to hand to the host. A failure is told to observers, and `failed` (which may ask
   * for more) is called; then, when nothing is left, `settled`.
   */
  begin(
    what: string,
    device: number,
    pasid: number,
    failed: (outcome: HostOutcome) => void = () => {},
    succeeded: (outcome: HostOutcome) => void = () => {},
  ): (outcome: HostOutcome) => void {
    this.pending++;
    this.count++;
    return (outcome) => {
      this.pending--;
      if (outcome.code === 'OK') succeeded(outcome);
      else {
        this.refused++;
        this.#event({ kind: 'hostRefused', what, device, pasid, code: outcome.code, text: outcome.text });
        failed(outcome);
      }
      if (this.pending === 0) this.#settled();
    };
  }

  /**
   * The same for what takes something away: that it is not there (any more, or because the host had
   * refused it) is what was wanted.
   */
  detaching(device: number, pasid: number, what = 'detach'): (outcome: HostOutcome) => void {
    const done = this.begin(what, device, pasid);
    return (outcome) => done(NOTHING_THERE.has(outcome.code) ? { ...outcome, code: 'OK' } : outcome);
  }
}
