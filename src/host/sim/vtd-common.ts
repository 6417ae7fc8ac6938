/** What both generations of host VT-d units share. */

import type { Level } from '../../assignment/request.js';
import { PAGE_BYTES } from '../../base/page.js';
import { HostError } from '../host-errors.js';
import type { NestedTable, PageRange } from '../port.js';
import { TABLE_PAGES } from './host-page-table.js';

/** 0xFEE00000 to 0xFEEFFFFF are interrupts. §3.15 */
const INTERRUPTS = { first: 0xfee00, last: 0xfeeff } as const;

/** Input addresses of host tables: 48 bits, of the first level the lower canonical half. */
export function vtdRanges(level: Level): readonly PageRange[] {
  const end = level === 'first' ? TABLE_PAGES / 2 : TABLE_PAGES;
  return [
    { first: 0, last: INTERRUPTS.first - 1 },
    { first: INTERRUPTS.last + 1, last: end - 1 },
  ];
}

/**
 * The address mask of the smallest aligned block of 2^mask pages that covers a range; undefined
 * when that is more than `most`, so that everything has to go.
 */
export function alignedMask(page: number, pages: number, most: number): number | undefined {
  const last = page + pages - 1;
  for (let mask = 0; mask <= most; mask++) {
    if (Math.floor(page / 2 ** mask) === Math.floor(last / 2 ** mask)) return mask;
  }
  return undefined;
}

/**
 * Guest first-stage tables that a unit without supervisor and write-protect support takes. Throws
 * {@link HostError} BAD_TABLE.
 */
export function checkVtdTable(table: NestedTable): asserts table is NestedTable & { format: 'vtd' } {
  if (table.format !== 'vtd') throw new HostError('BAD_TABLE', 'a VT-d unit walks the tables of a VT-d unit');
  const { root } = table;
  if (root % PAGE_BYTES !== 0 || root < 0 || root >= 2 ** 48) throw new HostError('BAD_TABLE', 'FSPTPTR');
  if (table.supervisor) throw new HostError('BAD_TABLE', 'SRE: no supervisor requests');
}
