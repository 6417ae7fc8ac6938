import { ANY } from '../base/ids.js';
import { join } from '../base/u64.js';
import { SPAN_WORDS } from '../device/iommu.js';
import type { Translation } from './machine.js';

/**
 * The scope of an invalidation as the wire's `Invalidate` has it; {@link ANY} matches everything.
 */
export interface Scope {
  readonly space: number;
  readonly sub: number;
  readonly rid: number;
  /** As on the wire: PASID + 1, 0 = request without. */
  readonly pasid: number;
  readonly base: bigint;
  /** ≥ 64 = every address. */
  readonly log2Size: number;
}

/** What a command of the peer queue drops: translations of these tags within [first, end). */
export interface Dropped {
  readonly space: number;
  readonly sub: number;
  readonly first: bigint;
  readonly end: bigint;
}

interface Entry {
  readonly space: number;
  readonly sub: number;
  readonly rid: number;
  readonly pasid: number;
  readonly input: bigint;
  readonly output: number;
  readonly log2Size: number;
  readonly permissions: number;
}

interface IotlbCounters {
  hits: number;
  misses: number;
  staleFills: number;
  invalidated: number;
}

/**
 * The simulated bridge's translation cache. It obeys the epoch rule of the wire (docs/protocol.md):
 * an answer that is older than the last invalidation of its space serves the access in hand and is
 * not kept.
 */
export class SimIotlb {
  readonly counters: IotlbCounters = { hits: 0, misses: 0, staleFills: 0, invalidated: 0 };
  readonly #entries = new Map<string, Entry>();
  /** How many entries there are of each size, so that a look-up tries only sizes that exist. */
  readonly #sizes = new Map<number, number>();
  readonly #epochs = new Map<number, number>();
  #globalEpoch = 0;
  /**
   * Counts drops without an epoch (peer queue). An answer or walk that began before one may be
   * stale.
   */
  generation = 0;
  readonly #generations = new Map<number, number>();

  get size(): number {
    return this.#entries.size;
  }

  lookup(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    for (const log2 of this.#sizes.keys()) {
      const entry = this.#entries.get(key(rid, pasid, log2, address));
      if (entry !== undefined && (entry.permissions & access) === access) {
        this.counters.hits++;
        return resolve(entry, address);
      }
    }
    this.counters.misses++;
    return undefined;
  }

  /**
   * Keeps the spans of an answer, unless an invalidation of its space is newer. Returns false when
   * the answer is stale. `since`: the generation when it was asked for, or when the walk began.
   */
  fill(
    rid: number,
    pasid: number,
    space: number,
    sub: number,
    epoch: number,
    spans: readonly number[],
    since = this.generation,
  ): boolean {
    const last = this.#epochs.get(space) ?? this.#globalEpoch;
    const dropped = this.#generations.get(space) ?? 0;
    if (older(epoch, last) || older(epoch, this.#globalEpoch) || since < dropped) {
      this.counters.staleFills++;
      return false;
    }
    for (let at = 0; at + SPAN_WORDS <= spans.length; at += SPAN_WORDS) {
      const entry = spanEntry(rid, pasid, space, sub, spans, at);
      const name = key(rid, pasid, entry.log2Size, entry.input);
      if (!this.#entries.has(name)) this.#count(entry.log2Size, 1);
      this.#entries.set(name, entry);
    }
    return true;
  }

  /** Drops what the scope matches and remembers the epoch for its space. */
  invalidate(scope: Scope, epoch: number): void {
    if (scope.space === ANY) this.#globalEpoch = epoch;
    else this.#epochs.set(scope.space, epoch);
    for (const [name, entry] of this.#entries) {
      if (!matches(scope, entry)) continue;
      this.#entries.delete(name);
      this.#count(entry.log2Size, -1);
      this.counters.invalidated++;
    }
  }

  /** Drops what a command of the peer queue names. Such a drop has no epoch. */
  drop({ space, sub, first, end }: Dropped): void {
    this.#generations.set(space, ++this.generation);
    for (const [name, entry] of this.#entries) {
      if (entry.space !== space || (sub !== ANY && entry.sub !== sub)) continue;
      if (entry.input >= end || entry.input + (1n << BigInt(entry.log2Size)) <= first) continue;
      this.#entries.delete(name);
      this.#count(entry.log2Size, -1);
      this.counters.invalidated++;
    }
  }

  /** Drops every entry. Epochs go on counting: they are the session's. */
  clear(): void {
    this.#entries.clear();
    this.#sizes.clear();
  }

  #count(log2: number, step: number): void {
    const now = (this.#sizes.get(log2) ?? 0) + step;
    if (now === 0) this.#sizes.delete(log2);
    else this.#sizes.set(log2, now);
  }
}

/** Where `address` lands by the span of `spans` that starts at word `at`. */
export function throughSpan(spans: readonly number[], at: number, address: bigint): Translation {
  return resolve(spanEntry(0, 0, 0, 0, spans, at), address);
}

function spanEntry(
  rid: number,
  pasid: number,
  space: number,
  sub: number,
  spans: readonly number[],
  at: number,
): Entry {
  return {
    rid,
    pasid,
    space,
    sub,
    input: (BigInt(spans[at + 1]) << 32n) | BigInt(spans[at]),
    output: join(spans[at + 2], spans[at + 3]),
    log2Size: spans[at + 4],
    permissions: spans[at + 5],
  };
}

function resolve(entry: Entry, address: bigint): Translation {
  const mask = (1n << BigInt(entry.log2Size)) - 1n;
  const offset = address & mask;
  return {
    gpa: Number(BigInt(entry.output) + offset),
    permissions: entry.permissions,
    length: Number(mask - offset) + 1,
  };
}

function key(rid: number, pasid: number, log2: number, address: bigint): string {
  return `${rid}.${pasid}.${log2}.${(address >> BigInt(log2)).toString(16)}`;
}

/** `a` comes before `b`, both modulo 2^32. */
function older(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

function matches(scope: Scope, entry: Entry): boolean {
  if (scope.space !== ANY && scope.space !== entry.space) return false;
  if (scope.sub !== ANY && scope.sub !== entry.sub) return false;
  if (scope.rid !== ANY && scope.rid !== entry.rid) return false;
  if (scope.pasid !== ANY && scope.pasid !== entry.pasid + 1) return false;
  if (scope.log2Size >= 64) return true;
  const shift = BigInt(Math.max(scope.log2Size, entry.log2Size));
  return scope.base >> shift === entry.input >> shift;
}
