/** The host's side of a shadow: what is mapped for one device now, and what the host refused. */

import { Tags } from '../device/tags.js';
import { BlockSet } from './blocks.js';
import type { GuestSpace } from './guest-space.js';
import { PageRanges } from './ranges.js';

/** What one device's shadow has cost so far. Plain numbers, for reports. */
export interface DeviceCounters {
  /** Operations that were handed to the host, and the blocks that they made of it. */
  maps: number;
  /** Pages of 4 KiB that these were to map. */
  pagesMapped: number;
  unmaps: number;
  blocksUnmapped: number;
  /** Mappings taken away because a part of what they covered had gone; the rest was mapped anew. */
  splits: number;
  /** Mappings that the host refused, each time it did. */
  refused: number;
  /** Unmappings that failed: everything was taken away then and mapped anew. */
  stuck: number;
}

export class DeviceSpace {
  /**
   * Blocks in force, or on their way to the host; their tags are sequence numbers of operations.
   */
  readonly held = new BlockSet();
  /** Blocks that the host refused; their tags are error numbers. */
  readonly failed = new BlockSet();
  /** More was refused than {@link failed} remembers. */
  incomplete = false;
  /** What has to be compared with the guest's tables. */
  readonly dirty = new PageRanges(1 << 16);
  /** Where the host takes operations. */
  readonly listened = new PageRanges();
  guest: GuestSpace | undefined;
  /** Under which the guest may invalidate what is in force. */
  readonly tags = new Tags();
  /** Number of the next operation, modulo 2^32. */
  sequence = 0;
  /** Refused blocks to be tried again now, and where to begin. */
  retries = 0;
  retryAt = 0;
  /** An event has said that something is refused, and none that it is over. */
  reported = false;
  readonly counters: DeviceCounters = {
    maps: 0,
    pagesMapped: 0,
    unmaps: 0,
    blocksUnmapped: 0,
    splits: 0,
    refused: 0,
    stuck: 0,
  };

  constructor(
    readonly device: number,
    public rid: number,
    readonly pasid: number,
  ) {}

  /** [first, last] has to be compared, as far as the host takes operations there. */
  mark(first: number, last: number): void {
    const { listened } = this;
    for (let index = listened.from(first); index < listened.count; index++) {
      const from = Math.max(first, listened.first(index));
      if (from > last) return;
      this.dirty.add(from, Math.min(last, listened.last(index)));
    }
  }

  markAll(ranges: PageRanges): void {
    for (let index = 0; index < ranges.count; index++) this.mark(ranges.first(index), ranges.last(index));
  }

  /** The host takes operations for [first, last] from now on, and has nothing mapped there. */
  listen(first: number, last: number): void {
    this.held.removeRange(first, last);
    this.failed.removeRange(first, last);
    this.listened.add(first, last);
    this.mark(first, last);
  }
}
