/**
 * How the simulated host's kernel writes page tables: 4 KiB granule, four levels, in each format
 * that its IOMMUs walk. Bits are those of src/spec/pagetable; every encoding is one record.
 */

import type { PageTableFormat } from '../../spec/pagetable/format.js';
import { type VtdPagingCapabilities, vtdFirstStage, vtdSecondStage } from '../../spec/pagetable/vtd.js';

export interface TableEncoding {
  readonly name: string;
  /** Bits of an entry that points to a table. */
  readonly table: number;
  /** What tells such an entry from a block: it has this value under this mask. */
  readonly tableMask: number;
  readonly tableValue: number;
  /** Low bits of a 4 KiB page, by rights. */
  readonly page: readonly number[];
  /** Low bits of a 2 MiB or 1 GiB block, by rights. */
  readonly block: readonly number[];
}

const none = 0;

const SS = { R: 1 << 0, W: 1 << 1, PS: 1 << 7 } as const;
const ssPage = [none, SS.R, SS.W, SS.R | SS.W];

/** VT-d second stage, §9.8. */
export const VTD_SECOND: TableEncoding = {
  name: 'VT-d second-stage',
  table: SS.R | SS.W,
  tableMask: SS.PS,
  tableValue: 0,
  page: ssPage,
  block: ssPage.map((bits) => bits && bits | SS.PS),
};

const FS = { P: 1 << 0, RW: 1 << 1, US: 1 << 2, PS: 1 << 7 } as const;
/** A first-stage page that can be written can be read: the format has no other way. */
const fsPage = [none, FS.P | FS.US, FS.P | FS.US | FS.RW, FS.P | FS.US | FS.RW];

/** VT-d first stage, §9.7. */
export const VTD_FIRST: TableEncoding = {
  name: 'VT-d first-stage',
  table: FS.P | FS.US | FS.RW,
  tableMask: FS.PS,
  tableValue: 0,
  page: fsPage,
  block: fsPage.map((bits) => bits && bits | FS.PS),
};

const VALID = 1 << 0;
const TYPE = 1 << 1;
const SH_INNER = 3 << 8;
const AF = 1 << 10;
const S1 = { AP_UNPRIVILEGED: 1 << 6, AP_READ_ONLY: 1 << 7, NG: 1 << 11 } as const;
const S2 = { MEMATTR_WB: 0xf << 2, READ: 1 << 6, WRITE: 1 << 7 } as const;

function vmsa(name: string, common: number, byRights: readonly number[]): TableEncoding {
  const leaf = (type: number): number[] => byRights.map((bits) => bits && bits | common | VALID | type);
  const table = { table: VALID | TYPE, tableMask: TYPE, tableValue: TYPE };
  return { name, ...table, page: leaf(TYPE), block: leaf(0) };
}

/** Arm stage 1, DDI 0487 D8.3. A page that can be written can be read. */
export const VMSA_STAGE1 = vmsa('VMSAv8-64 stage 1', AF | SH_INNER | S1.NG, [
  none,
  S1.AP_UNPRIVILEGED | S1.AP_READ_ONLY,
  S1.AP_UNPRIVILEGED,
  S1.AP_UNPRIVILEGED,
]);

/** Arm stage 2. */
export const VMSA_STAGE2 = vmsa('VMSAv8-64 stage 2', AF | SH_INNER | S2.MEMATTR_WB, [
  none,
  S2.READ,
  S2.WRITE,
  S2.READ | S2.WRITE,
]);

/** What a simulated VT-d unit of any generation can do with its tables. */
export const HOST_PAGING: VtdPagingCapabilities = {
  hostAddressWidth: 48,
  secondStage2M: true,
  secondStage1G: true,
  firstStage1G: true,
  snoopControl: true,
  transientMapping: false,
};

/**
 * The walker's formats of the tables that a vt-d2 unit walks. (The other two units are models,
 * which have their own.)
 */
export function vtd2Formats(): { readonly second: PageTableFormat; readonly first: PageTableFormat } {
  return {
    second: vtdSecondStage(HOST_PAGING, { levels: 4, inputBits: 48, accessedDirty: false }),
    first: vtdFirstStage(HOST_PAGING, { levels: 4, writeProtect: false, extendedAccessed: false }),
  };
}
