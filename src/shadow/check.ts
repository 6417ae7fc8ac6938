/**
 * The guest's tables against the host mappings in force: for people, and for tests that trust
 * neither.
 */

import { PAGE_OFFSET, pageHi, pageLo } from '../base/page.js';
import { hex64 } from '../base/u64.js';
import { type AddressSpaceTables, noTables, THROUGH } from '../device/tables.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { type ExplainStep, explain, explainNested } from '../walk/explain.js';
import { NOWHERE, visitPieces } from './compare.js';
import type { DeviceSpace } from './device-space.js';
import type { Shadow, ShadowedModel } from './shadow.js';

/**
 * Why host and tables differ: the host refused; the guest has changed its tables and has not
 * invalidated; or it has, and the host does not follow, which is a defect of ours.
 */
export const CAUSE = {
  REFUSED: 'refused',
  NOT_INVALIDATED: 'not invalidated',
  NOT_FOLLOWED: 'not followed',
} as const;
export type Cause = (typeof CAUSE)[keyof typeof CAUSE];

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
  /** Whose doing it is, where that is known: see `audit/audit.ts`. */
  readonly cause?: Cause;
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

/**
 * Compares every shadowed device, or those of one requester id. Lists at most `most` differences.
 */
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
    compareDevice(shadow, space, model, memory, most + 1, found);
  }
  return { devices, mappings, differences: found.slice(0, most), more: found.length > most };
}

/** Adds what differs, as far as the host takes operations, until `found` has `most`. */
function compareDevice(
  shadow: Shadow,
  space: DeviceSpace,
  model: ShadowedModel,
  memory: GuestMemory,
  most: number,
  found: HostDifference[],
): void {
  const tables = noTables();
  model.spaces.tables?.(space.rid, space.pasid, tables);
  visitPieces(shadow.ram, space, tables, memory, space.listened, (first, last, ...places) => {
    const difference = differenceOf(space, tables, memory, first, last, ...places);
    if (difference !== undefined) found.push(difference);
    return found.length < most;
  });
}

/** A piece of {@link visitPieces} for people; undefined when host and tables agree. */
export function differenceOf(
  space: DeviceSpace,
  tables: AddressSpaceTables,
  memory: GuestMemory,
  first: number,
  last: number,
  wanted: number,
  wantedAccess: number,
  mapped: number,
  mappedAccess: number,
): HostDifference | undefined {
  if (wanted === mapped && wantedAccess === mappedAccess) return undefined;
  const { failed } = space;
  return {
    device: space.device,
    rid: space.rid,
    first: hex64(pageLo(first), pageHi(first)),
    last: hex64(pageLo(last) | PAGE_OFFSET, pageHi(last)),
    ...(wanted === NOWHERE ? {} : { wanted: placeOf(wanted, wantedAccess) }),
    ...(mapped === NOWHERE ? {} : { mapped: placeOf(mapped, mappedAccess) }),
    refused: mapped === NOWHERE && failed.seek(first) && failed.first <= first,
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
