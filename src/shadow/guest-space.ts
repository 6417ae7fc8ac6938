/**
 * The guest's side of a shadow: one set of tables, with the copies of them, for however many
 * devices go through it. What one look at the tables finds changed is changed for all of them.
 */

import { PAGE_LOG2 } from '../base/page.js';
import { type AddressSpaceTables, THROUGH } from '../device/tables.js';
import type { PageRange } from '../host/port.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { Chained, Identity, type LeafSource, NOTHING } from './leaf-source.js';
import { TableMirror } from './mirror.js';
import { MirrorLeaves } from './mirror-leaves.js';
import { NestedLeaves } from './nested-leaves.js';
import { LAST_PAGE } from './pages.js';
import type { RamMap } from './ram-map.js';
import { PageRanges } from './ranges.js';
import type { MirrorBudget } from './table-pool.js';
import type { TableWatcher } from './tracking.js';

export class GuestSpace {
  /** What has to be looked at. */
  readonly stale = new PageRanges();
  /** How many devices go through it. */
  users = 0;
  /** An event has said that there are more tables than are copied. */
  reported = false;
  readonly leaves: LeafSource;
  readonly hole: PageRange;
  readonly mirrors: readonly TableMirror[];
  readonly through: number;
  readonly #reach: number;
  readonly #formats: readonly PageTableFormat[];
  readonly #roots: readonly number[];
  readonly #secondFormat: PageTableFormat | undefined;
  readonly #secondRoot: number;
  readonly addressed: boolean;
  readonly #updates: boolean;

  /**
   * @param watcher is told of every table page; undefined: the guest says itself when it has
   * changed them
   */
  constructor(
    tables: AddressSpaceTables,
    memory: GuestMemory,
    ram: RamMap,
    budget: MirrorBudget,
    watcher?: TableWatcher,
  ) {
    this.through = tables.through;
    this.#reach = tables.reach;
    this.#formats = tables.formats.slice(0, tables.count);
    this.#roots = tables.roots.slice(0, tables.count);
    this.#secondFormat = tables.secondFormat;
    this.#secondRoot = tables.secondRoot;
    this.addressed = tables.addressed;
    this.#updates = tables.updates;
    this.hole = { first: tables.holeFirst, last: tables.holeLast };
    const shadowed = this.through === THROUGH.TABLES;
    this.mirrors = shadowed
      ? this.#formats.map(
          (format, index) =>
            new TableMirror(format, this.#roots[index], memory, budget, watcher, this.#updates),
        )
      : [];
    this.leaves = this.#source(memory, ram);
    // New copies are empty: everything has to be looked at once.
    if (shadowed) this.stale.add(0, LAST_PAGE);
  }

  #source(memory: GuestMemory, ram: RamMap): LeafSource {
    if (this.through === THROUGH.IDENTITY) {
      return new Identity(ram, 2 ** (Math.min(this.#reach, 64) - PAGE_LOG2));
    }
    const sources =
      this.through === THROUGH.NESTED
        ? this.#formats.map((format, index) => this.#nested(format, this.#roots[index], memory))
        : this.mirrors.map((mirror) => new MirrorLeaves(mirror));
    return sources.length === 0 ? NOTHING : sources.length === 1 ? sources[0] : new Chained(sources);
  }

  #nested(format: PageTableFormat, root: number, memory: GuestMemory): LeafSource {
    if (this.#secondFormat === undefined) return NOTHING;
    return new NestedLeaves(format, root, this.#secondFormat, this.#secondRoot, memory, this.#updates);
  }

  /** Whether these are the tables that it was made for. */
  matches(tables: AddressSpaceTables): boolean {
    if (this.through !== tables.through || this.#formats.length !== tables.count) return false;
    if (this.#updates !== tables.updates) return false;
    if (this.through === THROUGH.IDENTITY && this.#reach !== tables.reach) return false;
    if (this.hole.first !== tables.holeFirst || this.hole.last !== tables.holeLast) return false;
    for (let index = 0; index < tables.count; index++) {
      if (this.#formats[index] !== tables.formats[index] || this.#roots[index] !== tables.roots[index])
        return false;
    }
    if (this.addressed !== tables.addressed || this.through !== THROUGH.NESTED) {
      return this.addressed === tables.addressed;
    }
    return this.#secondFormat === tables.secondFormat && this.#secondRoot === tables.secondRoot;
  }

  /**
   * The guest may have changed what is in these pages. Addresses above a tree's own bits are none
   * of its business.
   */
  markStale(first: number, last: number): void {
    const pages = last - first + 1;
    if (this.through !== THROUGH.TABLES) {
      if (this.through === THROUGH.NESTED) this.stale.add(first, last);
      return;
    }
    for (const mirror of this.mirrors) {
      const from = first % mirror.span;
      if (from + pages > mirror.span) this.markAllStale();
      else this.stale.add(mirror.pageAt(from), mirror.pageAt(from) + pages - 1);
    }
  }

  /** The guest has stored to [first, last], guest-physical addresses, where tables are. */
  stored(first: number, last: number): void {
    for (const mirror of this.mirrors) mirror.stored(first, last, this.stale);
  }

  markAllStale(): void {
    if (this.through === THROUGH.TABLES || this.through === THROUGH.NESTED) {
      this.stale.clear();
      this.stale.add(0, LAST_PAGE);
    }
  }

  /**
   * Looks at what is stale and adds what may have changed to `changed`. Looks at no more than about
   * `limit` entries: what remains then stays stale. Returns how many it looked at.
   */
  refresh(changed: PageRanges, limit: number): number {
    const { stale } = this;
    const before = this.#work();
    while (stale.count > 0) {
      const first = stale.first(0);
      const last = stale.last(0);
      let stopped = -1;
      if (this.through === THROUGH.NESTED) changed.add(first, last);
      let rest = last;
      for (const mirror of this.mirrors) {
        stopped = mirror.refresh(first, last, changed, limit - (this.#work() - before));
        if (stopped < 0) continue;
        rest = Math.max(last, mirror.rest);
        break;
      }
      stale.advance(last + 1);
      if (stopped < 0) continue;
      stale.add(stopped, rest);
      break;
    }
    return this.#work() - before;
  }

  /** Tables that found no room: what is below them counts as not mapped. */
  get missing(): number {
    let missing = 0;
    for (const mirror of this.mirrors) missing += mirror.missing;
    return missing;
  }

  dispose(): void {
    for (const mirror of this.mirrors) mirror.dispose();
    this.stale.clear();
  }

  #work(): number {
    let work = 0;
    for (const mirror of this.mirrors) work += mirror.work;
    return work;
  }
}
