/**
 * The guest's tables, read afresh, against the host mappings in force: for people, and for tests that trust neither. Shares
 * nothing with the way in which the shadow looks at tables.
 */

import { hex64, join } from '../base/u64.js';
import { type AddressSpaceTables, noTables, THROUGH } from '../device/iommu.js';
import type { GuestMemory } from '../memory/port.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { ENUMERATE, LeafCursor } from '../walk/enumerate.js';
import { type ExplainStep, explain, explainNested } from '../walk/explain.js';
import type { DeviceSpace } from './device-space.js';
import { Chained, Identity, type LeafSource, NOTHING } from './leaves.js';
import { NestedLeaves } from './nested-leaves.js';
import { PAGE_LOG2, pageHi, pageLo, pageOf } from './pages.js';
import { PageRanges } from './ranges.js';
import { RunReader } from './runs.js';
import type { Shadow, ShadowedModel } from './shadow.js';

const PAGE_BYTES = 2 ** PAGE_LOG2;
const ENTRY_BUDGET = 1 << 24;
const NONE = Number.POSITIVE_INFINITY;

/** A range that the host has mapped otherwise than the tables say. */
export interface HostDifference {
  readonly device: number;
  readonly rid: number;
  /** Input addresses, both included. */
  readonly first: string;
  readonly last: string;
  /** Where it leads by the tables and on the host, as `0x… rw`; undefined: nowhere. */
  readonly wanted?: string;
  readonly mapped?: string;
  /** The host refused the mapping. */
  readonly refused: boolean;
  /** The entries on the way to its first page. */
  readonly entries: readonly ExplainStep[];
}

export interface DiffAnswer {
  /** Devices compared, and blocks that their hosts have mapped. */
  readonly devices: number;
  readonly mappings: number;
  readonly differences: readonly HostDifference[];
  /** There are more than are listed. */
  readonly more: boolean;
}

/** One stage of tables, entry by entry. */
class FreshLeaves implements LeafSource {
  first = 0;
  last = 0;
  out = 0;
  access = 0;
  readonly #cursor = new LeafCursor();

  constructor(
    private readonly format: PageTableFormat,
    private readonly root: number,
    private readonly memory: GuestMemory,
  ) {}

  start(first: number, last: number): void {
    const { format, memory, root } = this;
    const end = pageLo(last) | (PAGE_BYTES - 1);
    this.#cursor.start(format, memory, root, pageLo(first), pageHi(first), end, pageHi(last));
  }

  next(): boolean {
    const cursor = this.#cursor;
    if (cursor.visited >= ENTRY_BUDGET || cursor.next(ENTRY_BUDGET) !== ENUMERATE.LEAF) return false;
    this.first = pageOf(cursor.inLo, cursor.inHi);
    this.last = this.first + 2 ** (cursor.log2Size - PAGE_LOG2) - 1;
    this.out = join(cursor.outLo, cursor.outHi) / PAGE_BYTES;
    this.access = cursor.permissions;
    return true;
  }
}

/** Compares every shadowed device, or those of one requester id. Lists at most `most` differences. */
export function differences(
  shadow: Shadow,
  model: ShadowedModel,
  memory: GuestMemory,
  rid: number | undefined,
  most: number,
): DiffAnswer {
  const found: HostDifference[] = [];
  let devices = 0;
  let mappings = 0;
  for (const space of shadow.devices) {
    if (rid !== undefined && space.rid !== rid) continue;
    devices++;
    mappings += space.held.count;
    compareDevice(shadow, space, model, memory, space.listened, most + 1, found);
  }
  return { devices, mappings, differences: found.slice(0, most), more: found.length > most };
}

/** Adds what differs on `pages`, as far as the host takes operations there, until `found` has `most`. */
export function compareDevice(
  shadow: Shadow,
  space: DeviceSpace,
  model: ShadowedModel,
  memory: GuestMemory,
  pages: PageRanges,
  most: number,
  found: HostDifference[],
): void {
  const tables = noTables();
  model.tables?.(space.rid, space.pasid, tables);
  const runs = new RunReader(shadow.ram);
  const source = sourceOf(shadow, tables, memory);
  const hole = { first: tables.holeFirst, last: tables.holeLast };
  const { held } = space;
  const ranges = within(pages, space.listened);
  for (let index = 0; index < ranges.count; index++) {
    const end = ranges.last(index);
    let at = ranges.first(index);
    runs.start(source, hole, at, end);
    let wanted = runs.next();
    let mapped = held.seek(at) && held.first <= end;
    while ((wanted || mapped) && at <= end && found.length < most) {
      at = Math.max(at, Math.min(wanted ? runs.first : NONE, mapped ? held.first : NONE));
      const inRun = wanted && runs.first <= at;
      const inBlock = mapped && held.first <= at;
      const last = Math.min(
        end,
        wanted ? (inRun ? runs.last : runs.first - 1) : NONE,
        mapped ? (inBlock ? held.last : held.first - 1) : NONE,
      );
      const to = inRun ? placeOf(runs.out + at - runs.first, runs.access) : undefined;
      const there = inBlock ? placeOf(held.out + at - held.first, held.access) : undefined;
      if (to !== there) found.push(difference(space, at, last, to, there, tables, memory));
      at = last + 1;
      if (wanted && runs.last < at) wanted = runs.next();
      if (mapped && held.last < at) mapped = held.next() && held.first <= end;
    }
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

function sourceOf(shadow: Shadow, tables: AddressSpaceTables, memory: GuestMemory): LeafSource {
  if (tables.through === THROUGH.IDENTITY) {
    return new Identity(shadow.ram, 2 ** (Math.min(tables.reach, 64) - PAGE_LOG2));
  }
  const sources: LeafSource[] = [];
  const { secondFormat, secondRoot } = tables;
  for (let index = 0; index < tables.count; index++) {
    const [format, root] = [tables.formats[index] as PageTableFormat, tables.roots[index] as number];
    if (tables.through === THROUGH.TABLES) sources.push(new FreshLeaves(format, root, memory));
    else if (tables.through === THROUGH.NESTED && secondFormat !== undefined) {
      sources.push(new NestedLeaves(format, root, secondFormat, secondRoot, memory));
    }
  }
  return sources.length === 0 ? NOTHING : new Chained(sources);
}

function difference(
  space: DeviceSpace,
  first: number,
  last: number,
  wanted: string | undefined,
  mapped: string | undefined,
  tables: AddressSpaceTables,
  memory: GuestMemory,
): HostDifference {
  const { failed } = space;
  return {
    device: space.device,
    rid: space.rid,
    first: hex64(pageLo(first), pageHi(first)),
    last: hex64(pageLo(last) | (PAGE_BYTES - 1), pageHi(last)),
    ...(wanted === undefined ? {} : { wanted }),
    ...(mapped === undefined ? {} : { mapped }),
    refused: mapped === undefined && failed.seek(first) && failed.first <= first,
    entries: entriesOf(tables, memory, first),
  };
}

function entriesOf(tables: AddressSpaceTables, memory: GuestMemory, page: number): readonly ExplainStep[] {
  const { formats, roots, secondFormat, secondRoot } = tables;
  let steps: readonly ExplainStep[] = [];
  for (let index = 0; index < tables.count && steps.length === 0; index++) {
    const [format, root] = [formats[index] as PageTableFormat, roots[index] as number];
    const [lo, hi] = [pageLo(page) | 0, pageHi(page) | 0];
    steps =
      tables.through === THROUGH.NESTED && secondFormat !== undefined
        ? explainNested(format, root, memory, secondFormat, secondRoot, lo, hi, 0).steps
        : explain(format, memory, root, lo, hi, 0).steps;
  }
  return steps;
}

function placeOf(page: number, access: number): string {
  return `${hex64(pageLo(page), pageHi(page))} ${access & 1 ? 'r' : '-'}${access & 2 ? 'w' : '-'}`;
}
