/**
 * Tables of a device, read afresh, beside the host mappings in force, piece by piece. Shares
 * nothing with the way in which the shadow looks at tables.
 */

import { PAGE_LOG2, PAGE_OFFSET, pageHi, pageLo, pageOf } from '../base/page.js';
import { type AddressSpaceTables, THROUGH } from '../device/tables.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { ENUMERATE, LeafCursor } from '../walk/enumerate.js';
import type { DeviceSpace } from './device-space.js';
import { Chained, Identity, type LeafSource, NOTHING } from './leaf-source.js';
import { NestedLeaves } from './nested-leaves.js';
import type { RamMap } from './ram-map.js';
import { PageRanges } from './ranges.js';
import { RunReader } from './runs.js';

const ENTRY_BUDGET = 1 << 24;
const NONE = Number.POSITIVE_INFINITY;

/** Pages that lead nowhere. */
export const NOWHERE = -1;

/**
 * Pages [first, last] of 4 KiB: where the first one leads by the tables and on the host, in pages
 * ({@link NOWHERE}), with ACCESS bits. Returns whether to go on.
 */
export type PieceVisitor = (
  first: number,
  last: number,
  wanted: number,
  wantedAccess: number,
  mapped: number,
  mappedAccess: number,
) => boolean;

/**
 * Visits what tables or host lead anywhere on `pages`, as far as the host takes operations there,
 * by rising address. A piece is the same throughout.
 */
export function visitPieces(
  ram: RamMap,
  space: DeviceSpace,
  tables: AddressSpaceTables,
  memory: GuestMemory,
  pages: PageRanges,
  visit: PieceVisitor,
): void {
  const runs = new RunReader(ram);
  const source = sourceOf(ram, tables, memory);
  const hole = { first: tables.holeFirst, last: tables.holeLast };
  const { held } = space;
  const ranges = within(pages, space.listened);
  for (let index = 0; index < ranges.count; index++) {
    const end = ranges.last(index);
    let at = ranges.first(index);
    runs.start(source, hole, at, end);
    let wanted = runs.next();
    let mapped = held.seek(at) && held.first <= end;
    while ((wanted || mapped) && at <= end) {
      at = Math.max(at, Math.min(wanted ? runs.first : NONE, mapped ? held.first : NONE));
      const inRun = wanted && runs.first <= at;
      const inBlock = mapped && held.first <= at;
      const last = Math.min(
        end,
        wanted ? (inRun ? runs.last : runs.first - 1) : NONE,
        mapped ? (inBlock ? held.last : held.first - 1) : NONE,
      );
      const to = inRun ? runs.out + at - runs.first : NOWHERE;
      const there = inBlock ? held.out + at - held.first : NOWHERE;
      if (!visit(at, last, to, inRun ? runs.access : 0, there, inBlock ? held.access : 0)) return;
      at = last + 1;
      if (wanted && runs.last < at) wanted = runs.next();
      if (mapped && held.last < at) mapped = held.next() && held.first <= end;
    }
  }
}

/** One stage of tables, entry by entry. */
class FreshLeaves implements LeafSource {
  readonly #format: PageTableFormat;
  readonly #root: number;
  readonly #memory: GuestMemory;
  first = 0;
  last = 0;
  out = 0;
  access = 0;
  readonly #cursor: LeafCursor;

  constructor(format: PageTableFormat, root: number, memory: GuestMemory, updates: boolean) {
    this.#format = format;
    this.#root = root;
    this.#memory = memory;
    this.#cursor = new LeafCursor(undefined, updates);
  }

  start(first: number, last: number): void {
    const format = this.#format;
    const memory = this.#memory;
    const root = this.#root;
    const end = pageLo(last) | PAGE_OFFSET;
    this.#cursor.start(format, memory, root, pageLo(first), pageHi(first), end, pageHi(last));
  }

  next(): boolean {
    const cursor = this.#cursor;
    if (cursor.visited >= ENTRY_BUDGET || cursor.next(ENTRY_BUDGET) !== ENUMERATE.LEAF) return false;
    this.first = pageOf(cursor.inLo, cursor.inHi);
    this.last = this.first + 2 ** (cursor.log2Size - PAGE_LOG2) - 1;
    this.out = pageOf(cursor.outLo, cursor.outHi);
    this.access = cursor.permissions;
    return true;
  }
}

/** What is in both lists. */
function within(pages: PageRanges, other: PageRanges): PageRanges {
  if (pages === other) return pages;
  const both = new PageRanges(1 << 16);
  for (let index = 0; index < pages.count; index++) {
    const last = pages.last(index);
    for (let at = other.from(pages.first(index)); at < other.count && other.first(at) <= last; at++) {
      both.add(Math.max(pages.first(index), other.first(at)), Math.min(last, other.last(at)));
    }
  }
  return both;
}

function sourceOf(ram: RamMap, tables: AddressSpaceTables, memory: GuestMemory): LeafSource {
  if (tables.through === THROUGH.IDENTITY) {
    return new Identity(ram, 2 ** (Math.min(tables.reach, 64) - PAGE_LOG2));
  }
  const sources: LeafSource[] = [];
  const { secondFormat, secondRoot, updates } = tables;
  for (let index = 0; index < tables.count; index++) {
    const [format, root] = [tables.formats[index] as PageTableFormat, tables.roots[index] as number];
    if (tables.through === THROUGH.TABLES) sources.push(new FreshLeaves(format, root, memory, updates));
    else if (tables.through === THROUGH.NESTED && secondFormat !== undefined) {
      sources.push(new NestedLeaves(format, root, secondFormat, secondRoot, memory, updates));
    }
  }
  return sources.length === 0 ? NOTHING : new Chained(sources);
}
