/**
 * What a host refuses: a mapping (its limits, addresses that it can't take) is remembered, is not
 * in force, and is asked for again when something was taken away. An unmapping that fails leaves
 * one thing to do: take everything away.
 */

import { CodedError } from '../base/errors.js';
import { PAGE_BYTES, pageOf } from '../base/page.js';
import type { ShadowEvent } from '../events/viommu-events.js';
import type { DeviceSpace } from './device-space.js';
import { OPERATION_WORDS, Operations } from './map-operations.js';
import { type Batch, type Outbox, PURPOSE, type Purpose } from './outbox.js';
import { LAST_PAGE } from './pages.js';

/** Refused blocks that are tried again at once, and that are remembered. */
const MOST_RETRIES = 64;
const MOST_FAILED = 1 << 16;

export class Refusals {
  readonly #outbox: Outbox;
  readonly #event: (event: ShadowEvent) => void;
  readonly #operations = new Operations();

  constructor(outbox: Outbox, event: (event: ShadowEvent) => void) {
    this.#outbox = outbox;
    this.#event = event;
  }

  /** A batch was done, all of it. */
  accepted(space: DeviceSpace, purpose: Purpose): void {
    if (space.failed.count > 0 || space.incomplete) {
      if (purpose === PURPOSE.UNMAP || purpose === PURPOSE.AGAIN) space.retries = MOST_RETRIES;
    } else if (space.reported) {
      space.reported = false;
      this.#event({ kind: 'hostAccepted', device: space.device, rid: space.rid });
    }
  }

  /**
   * Operations of a batch failed: pairs of index and error number. Throws `PEER_REFUSED` when there
   * is no way left.
   */
  refused(batch: Batch, failures: ArrayLike<number>): void {
    const { space, words } = batch;
    let stuck = false;
    for (let at = 0; at < failures.length; at += 2) {
      const word = failures[at] * OPERATION_WORDS;
      if (words[word] === 0) {
        stuck = true;
        continue;
      }
      const first = pageOf(words[word + 1], words[word + 2]);
      fail(space, first, (batch.sequence + failures[at]) >>> 0, failures[at + 1]);
    }
    this.#tell(batch, failures[0] * OPERATION_WORDS, failures[1], failures.length / 2);
    if (!stuck) return;
    space.counters.stuck++;
    if (batch.purpose === PURPOSE.EMPTY) {
      throw new CodedError('PEER_REFUSED', `device ${space.device}: the host keeps mappings that must go`);
    }
    this.#empty(space);
  }

  /**
   * Asks again for some of what was refused: something was taken away, so there may be room now.
   */
  retry(space: DeviceSpace): void {
    if (space.retries === 0) return;
    const { failed, held } = space;
    const operations = this.#operations;
    operations.clear();
    const most = Math.min(space.retries, failed.count);
    space.retries = 0;
    if (most === 0 && space.incomplete) {
      space.incomplete = false;
      space.mark(0, LAST_PAGE);
    }
    for (let on = failed.seek(space.retryAt) || failed.seek(0); on && operations.count < most; ) {
      const { first, last, log2, out, access } = failed;
      held.add(first, log2, out, access, (space.sequence + operations.count) >>> 0);
      operations.push(access, first, last, out);
      space.counters.pagesMapped += 2 ** log2;
      space.retryAt = last + 1;
      on = failed.remove() || failed.seek(0);
    }
    space.counters.maps += operations.count;
    this.#outbox.put(space, operations, PURPOSE.AGAIN);
  }

  #tell(batch: Batch, word: number, error: number, count: number): void {
    const { space, words } = batch;
    space.reported = true;
    const first = pageOf(words[word + 1], words[word + 2]);
    const last = pageOf(words[word + 3], words[word + 4]);
    this.#event({
      kind: 'hostRefused',
      device: space.device,
      rid: space.rid,
      unmap: words[word] === 0,
      lo: words[word + 1],
      hi: words[word + 2],
      bytes: (last - first + 1) * PAGE_BYTES,
      error,
      count,
      failed: space.failed.count,
    });
  }

  /** Takes everything away from a device whose host does not let go of a part, and begins anew. */
  #empty(space: DeviceSpace): void {
    const { listened } = space;
    const operations = this.#operations;
    this.#outbox.forget(space);
    space.held.clear();
    space.failed.clear();
    operations.clear();
    for (let index = 0; index < listened.count; index++) {
      operations.push(0, listened.first(index), listened.last(index), 0);
    }
    this.#outbox.put(space, operations, PURPOSE.EMPTY);
    space.mark(0, LAST_PAGE);
  }
}

/** The host refused the block that the operation of this number was to map: it is not in force. */
function fail(space: DeviceSpace, first: number, sequence: number, error: number): void {
  const { held, failed } = space;
  space.counters.refused++;
  // What has been taken away or replaced since has an operation of its own.
  if (!held.seek(first) || held.first !== first || held.tag !== sequence) return;
  if (failed.count >= MOST_FAILED) space.incomplete = true;
  else failed.add(first, held.log2, held.out, held.access, error);
  held.remove();
}
