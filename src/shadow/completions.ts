/**
 * Checks every completion: before the guest hears that its invalidations are done, the pages that they named are read from
 * its tables once more and compared with what its hosts have mapped. For tests and for people in doubt; it costs a walk
 * over these pages, and nothing at all when nobody asked for it.
 */

import type { GuestMemory } from '../memory/port.js';
import { compareDevice, type HostDifference } from './check.js';
import type { Shadow, ShadowedModel } from './shadow.js';

/** Different differences that are remembered. */
const MOST_KEPT = 1000;

/** What the checks have found so far. */
export interface CompletionAnswer {
  /** Completions that were checked. */
  readonly completions: number;
  /** Each once, from the one on that was asked for. */
  readonly differences: readonly HostDifference[];
  /** There were more than are remembered. */
  readonly more: boolean;
}

export class CompletionChecks {
  #completions = 0;
  readonly #found: HostDifference[] = [];
  readonly #known = new Set<string>();
  #more = false;

  /** A completion is about to be published. */
  check(shadow: Shadow, model: ShadowedModel, memory: GuestMemory): void {
    let promised = false;
    for (const space of shadow.devices) {
      if (space.promised === undefined || space.promised.count === 0) continue;
      promised = true;
      const found: HostDifference[] = [];
      compareDevice(shadow, space, model, memory, space.promised, MOST_KEPT, found);
      space.promised.clear();
      for (const difference of found) this.#note(difference);
    }
    if (promised) this.#completions++;
  }

  /** @param from index of the first difference to be told */
  answer(from: number): CompletionAnswer {
    return { completions: this.#completions, differences: this.#found.slice(from), more: this.#more };
  }

  #note(difference: HostDifference): void {
    const { device, first, last, wanted, mapped } = difference;
    const key = `${device} ${first} ${last} ${wanted} ${mapped}`;
    if (this.#known.has(key)) return;
    if (this.#found.length === MOST_KEPT) {
      this.#more = true;
      return;
    }
    this.#known.add(key);
    this.#found.push(difference);
  }
}
