/**
 * The driver for the host's vt-d2 unit. What it cannot do follows from the extended context-entry:
 * one SLPTPTR for the function, one NESTE for all its PASIDs, and PASID entries that hold a first
 * level and nothing else.
 */

import type { Level } from '../../assignment/request.js';
import { NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES, pageHi, pageLo, pageOf } from '../../base/page.js';
import type { TranslateResult } from '../../device/iommu.js';
import { pack, type Words } from '../../spec/define.js';
import {
  EXTENDED_CONTEXT_ENTRY,
  EXTENDED_ROOT_ENTRY,
  EXTENDED_T,
  PASID_ENTRY,
} from '../../spec/vtd/extended.js';
import { ECAP_REG, FRCD_REG } from '../../spec/vtd/registers.js';
import { AW } from '../../spec/vtd/structures.js';
import { HostError } from '../host-errors.js';
import { KERNEL_TYPE, vtdInfo } from '../kernel-structures.js';
import { ALL_PAGES, type HostInvalidations, type NestedTable, type PageRange, RIGHTS } from '../port.js';
import {
  fieldInUse,
  type HostDriver,
  noPlace,
  type RecordedFault,
  ridText,
  type VirtualIommu,
} from './driver.js';
import { VTD_FIRST, VTD_SECOND } from './encodings.js';
import {
  type Endpoint,
  type HostDomain,
  HostTags,
  moveEndpoint,
  NestedDomain,
  PagingDomain,
} from './host-domain.js';
import { HostPageTable, TABLE_PAGES } from './host-page-table.js';
import type { HostMemory } from './memory.js';
import { alignedMask, checkVtdTable, vtdRanges } from './vtd-common.js';
import { Vtd2Unit } from './vtd2-unit.js';

const PASID_BITS = 16;
/** Pages of a PASID table, and log2 of that. */
const TABLE_ORDER = PASID_BITS + 3 - 12;
const PTS = PASID_BITS - 5;
/**
 * With NESTE the PASID table is at an intermediate address. It stands above everything that guests
 * have, read-only, one place for each function.
 */
const PASID_TABLES_FROM = TABLE_PAGES / 2;
const MOST_MASK = 18;

interface Entry {
  readonly rid: number;
  readonly context: number;
  /** Domain-id while no second level gives one. */
  readonly did: number;
  /** Requests without PASID. */
  own: PagingDomain | undefined;
  readonly pasids: Map<number, HostDomain>;
  /** Host-physical address of the PASID table; 0: none. */
  table: number;
  /** The second level in which that table can be read, for nesting. */
  shownIn: PagingDomain | undefined;
}

export class HostVtd2Driver implements HostDriver {
  readonly #memory: HostMemory;
  readonly capabilities = {
    kind: 'vtd2',
    stage1: true,
    stage2: true,
    nesting: true,
    pasidBits: PASID_BITS,
    pageRequests: true,
  } as const;
  readonly unit: Vtd2Unit;
  readonly #entries = new Map<number, Entry>();
  readonly #contextTables = new Map<number, { readonly table: number; users: number }>();
  /** A second level that maps nothing. */
  readonly #empty: number;
  readonly #dids = new HostTags(1, 2 ** 16);
  #domains = 0;

  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.unit = new Vtd2Unit(memory);
    this.unit.rootTable = memory.pool.take('fixed');
    this.#empty = memory.pool.take('fixed');
  }

  hardwareInfo() {
    const ecap = pack(ECAP_REG, { QI: 1, PT: 1, NEST: 1, PRS: 1, PASID: 1, PSS: PASID_BITS - 1 });
    return { type: KERNEL_TYPE.VTD, info: vtdInfo([0, 0], ecap) };
  }

  ranges(level: Level): readonly PageRange[] {
    return vtdRanges(level).map(({ first, last }) => ({
      first,
      last: Math.min(last, PASID_TABLES_FROM - 1),
    }));
  }

  addFunction(rid: number): void {
    const half = rid >> 7;
    let table = this.#contextTables.get(half);
    if (table === undefined) {
      table = { table: this.#memory.pool.take('fixed'), users: 0 };
      this.#contextTables.set(half, table);
      this.#writeRoot(half, table.table);
    }
    table.users++;
    const context = table.table + (rid & 127) * EXTENDED_CONTEXT_ENTRY.bytes;
    const did = this.#dids.take();
    this.#entries.set(rid, {
      rid,
      context,
      did,
      own: undefined,
      pasids: new Map(),
      table: 0,
      shownIn: undefined,
    });
  }

  removeFunction(rid: number): void {
    const entry = this.#entry(rid);
    this.#memory.storeWords(entry.context, new Uint32Array(EXTENDED_CONTEXT_ENTRY.wordCount));
    this.#entries.delete(rid);
    this.#dids.give(entry.did);
    const half = rid >> 7;
    const table = this.#contextTables.get(half);
    if (table === undefined || --table.users > 0) return;
    this.#writeRoot(half, 0);
    this.#memory.pool.give('fixed', table.table);
    this.#contextTables.delete(half);
  }

  usualLevel({ pasid }: Endpoint): Level {
    return pasid === NO_PASID ? 'second' : 'first';
  }

  createDomain(level: Level): PagingDomain {
    const table = new HostPageTable(this.#memory, level === 'first' ? VTD_FIRST : VTD_SECOND);
    this.#domains++;
    return new PagingDomain(level, table, level === 'first' ? -1 : this.#dids.take());
  }

  destroyDomain(domain: PagingDomain): void {
    this.flush(domain, 0, ALL_PAGES);
    domain.table.destroy();
    if (domain.level === 'second') this.#dids.give(domain.tag);
    this.#domains--;
  }

  createNested(parent: PagingDomain, table: NestedTable): NestedDomain {
    if (parent.level !== 'second') throw noPlace('guest tables go on top of a second level');
    checkVtdTable(table);
    if (table.levels !== 4) throw new HostError('BAD_TABLE', 'first-level tables have 4 levels');
    this.#domains++;
    return new NestedDomain(parent, table);
  }

  destroyNested(): void {
    this.#domains--;
  }

  attach(endpoint: Endpoint, domain: HostDomain): void {
    const entry = this.#entry(endpoint.rid);
    if (endpoint.pasid === NO_PASID) this.#attachFunction(entry, endpoint, domain);
    else this.#attachPasid(entry, endpoint, domain);
  }

  #attachFunction(entry: Entry, endpoint: Endpoint, domain: HostDomain): void {
    if (domain.kind === 'nested') {
      throw noPlace('requests without PASID go through SLPTPTR alone: no first level to nest');
    }
    if (domain.level === 'first') throw noPlace('requests without PASID go through SLPTPTR alone');
    const nested = this.#nestedParent(entry);
    if (nested !== undefined && nested !== domain) {
      throw fieldInUse('SLPTPTR', `the PASIDs of ${ridText(entry.rid)} are nested on another second level`);
    }
    const before = entry.own;
    entry.own = domain;
    this.#writeContext(entry);
    moveEndpoint(endpoint, before, domain);
  }

  #attachPasid(entry: Entry, endpoint: Endpoint, domain: HostDomain): void {
    const { pasid, rid } = endpoint;
    if (pasid < 0 || pasid >= 2 ** PASID_BITS) throw new HostError('NOT_YOUR_PASID', `PASID ${pasid}`);
    if (domain.kind === 'paging' && domain.level === 'second') {
      throw noPlace('a PASID entry holds a first level only: SLPTPTR is one for the whole function');
    }
    this.#checkNesting(entry, pasid, domain);
    if (domain.kind === 'nested' && entry.own !== undefined && entry.own !== domain.parent) {
      throw fieldInUse('SLPTPTR', `requests of ${ridText(rid)} without PASID have another second level`);
    }
    const before = entry.pasids.get(pasid);
    this.#provideTable(entry, domain);
    entry.pasids.set(pasid, domain);
    this.#writePasid(entry, pasid, rootOf(domain));
    this.#writeContext(entry);
    moveEndpoint(endpoint, before, domain);
  }

  /** A PASID table where the unit will look for it; without memory for it nothing has changed. */
  #provideTable(entry: Entry, domain: HostDomain): void {
    const fresh = entry.table === 0;
    if (fresh) entry.table = this.#memory.pool.take('tables', TABLE_ORDER);
    try {
      if (domain.kind === 'nested') this.#showTable(entry, domain.parent);
      else this.#hideTable(entry);
    } catch (error) {
      if (fresh) this.#giveTable(entry);
      throw error;
    }
  }

  /** NESTE is one bit, and with it SLPTPTR is below every PASID. */
  #checkNesting(entry: Entry, pasid: number, domain: HostDomain): void {
    for (const [other, there] of entry.pasids) {
      if (other === pasid) continue;
      if (there.kind !== domain.kind) {
        throw fieldInUse(
          'NESTE',
          `PASID ${other} of ${ridText(entry.rid)} ${there.kind === 'nested' ? 'is' : 'is not'} nested`,
        );
      }
      if (there.kind === 'nested' && domain.kind === 'nested' && there.parent !== domain.parent) {
        throw fieldInUse(
          'SLPTPTR',
          `PASID ${other} of ${ridText(entry.rid)} is nested on another second level`,
        );
      }
    }
  }

  detach(endpoint: Endpoint): boolean {
    const entry = this.#entries.get(endpoint.rid);
    if (entry === undefined) return false;
    const { pasid } = endpoint;
    const before = pasid === NO_PASID ? entry.own : entry.pasids.get(pasid);
    if (before === undefined) return false;
    if (pasid === NO_PASID) entry.own = undefined;
    else {
      this.#writePasid(entry, pasid, undefined);
      entry.pasids.delete(pasid);
    }
    this.#writeContext(entry);
    if (entry.pasids.size === 0 && entry.table !== 0) {
      this.#hideTable(entry);
      this.#giveTable(entry);
    }
    moveEndpoint(endpoint, before, undefined);
    return true;
  }

  attached({ rid, pasid }: Endpoint): HostDomain | undefined {
    const entry = this.#entries.get(rid);
    return pasid === NO_PASID ? entry?.own : entry?.pasids.get(pasid);
  }

  flush(domain: PagingDomain, page: number, pages: number): void {
    const { iotlb } = this.unit;
    const mask = alignedMask(page, pages, MOST_MASK);
    if (domain.level === 'second') {
      if (mask === undefined) iotlb.invalidateDomain(domain.tag);
      else iotlb.invalidatePages(domain.tag, pageLo(page), pageHi(page), mask);
      return;
    }
    for (const { rid, pasid } of domain.endpoints) this.#invalidatePasid(this.#entry(rid), pasid, page, mask);
  }

  clean(): void {
    this.unit.pasids.invalidateAll();
    this.unit.iotlb.invalidateAll();
  }

  invalidate(guest: VirtualIommu, invalidations: HostInvalidations, index: number): void {
    const { words } = invalidations;
    const at = index * 5;
    const endpoint = { rid: words[at] as number, pasid: (words[at + 1] as number) - 1 };
    const domain = this.attached(endpoint);
    if (domain?.kind !== 'nested' || domain.parent !== guest.parent) {
      throw new HostError(
        'BAD_INVALIDATION',
        `PASID ${endpoint.pasid} of ${ridText(endpoint.rid)} is not nested`,
      );
    }
    const page = pageOf(words[at + 2] as number, words[at + 3] as number);
    const pages = words[at + 4] as number;
    const mask = pages === ALL_PAGES ? undefined : alignedMask(page, pages, MOST_MASK);
    this.#invalidatePasid(this.#entry(endpoint.rid), endpoint.pasid, page, mask);
  }

  sync(): void {}

  translate(endpoint: Endpoint, access: number, lo: number, hi: number, result: TranslateResult): boolean {
    return this.unit.translate(endpoint.rid, endpoint.pasid, access, lo, hi, result);
  }

  takeFaults(): RecordedFault[] {
    return this.unit.faults.splice(0).map((record) => ({
      rid: FRCD_REG.get.SID(record),
      pasid: FRCD_REG.get.PP(record) === 1 ? FRCD_REG.get.PV(record) : NO_PASID,
      format: 'vtd',
      record,
    }));
  }

  leftovers(): Readonly<Record<string, number>> {
    const entries = [...this.#entries.values()];
    return {
      domains: this.#domains,
      domainIds: this.#dids.live - entries.length,
      pasidTables: entries.filter(({ table }) => table !== 0).length,
      contexts: entries.filter(({ own }) => own !== undefined).length,
      pasidEntries: entries.reduce((sum, { pasids }) => sum + pasids.size, 0),
    };
  }

  /** Where the context-entry of a function stands. */
  contextAddress(rid: number): number {
    return this.#entry(rid).context;
  }

  #entry(rid: number): Entry {
    const entry = this.#entries.get(rid);
    if (entry === undefined) throw new HostError('NO_SUCH_DEVICE', ridText(rid));
    return entry;
  }

  #writeRoot(half: number, table: number): void {
    const words = table === 0 ? [0, 0] : pack(EXTENDED_ROOT_ENTRY, { LP: 1, LCTP: table }).slice(0, 2);
    this.#memory.storeWords(this.unit.rootTable + half * 8, words);
  }

  /** The second level below nested PASIDs. */
  #nestedParent(entry: Entry): PagingDomain | undefined {
    for (const domain of entry.pasids.values()) if (domain.kind === 'nested') return domain.parent;
    return undefined;
  }

  #didOf(entry: Entry): number {
    return (entry.own ?? this.#nestedParent(entry))?.tag ?? entry.did;
  }

  #tablePage({ rid }: Entry): number {
    return PASID_TABLES_FROM + rid * 2 ** TABLE_ORDER;
  }

  #giveTable(entry: Entry): void {
    this.#memory.pool.give('tables', entry.table, TABLE_ORDER);
    entry.table = 0;
  }

  #showTable(entry: Entry, parent: PagingDomain): void {
    if (entry.shownIn === parent) return;
    this.#hideTable(entry);
    parent.table.map(this.#tablePage(entry), entry.table / PAGE_BYTES, 2 ** TABLE_ORDER, RIGHTS.READ);
    entry.shownIn = parent;
  }

  #hideTable(entry: Entry): void {
    const { shownIn } = entry;
    if (shownIn === undefined) return;
    entry.shownIn = undefined;
    shownIn.table.unmap(this.#tablePage(entry), 2 ** TABLE_ORDER);
    this.flush(shownIn, this.#tablePage(entry), 2 ** TABLE_ORDER);
    shownIn.table.reclaim();
  }

  #writePasid(entry: Entry, pasid: number, root: number | undefined): void {
    const words = root === undefined ? [0, 0] : pack(PASID_ENTRY, { P: 1, FLPTPTR: root });
    this.#memory.storeWords(entry.table + pasid * PASID_ENTRY.bytes, words);
    this.unit.pasids.invalidateKey(entry.rid, pasid, -1);
    this.#invalidatePasid(entry, pasid, 0, undefined);
  }

  /** Everything that was cached under the old entry goes. */
  #writeContext(entry: Entry): void {
    this.unit.iotlb.invalidateDomain(this.#cachedDid(entry));
    this.#memory.storeWords(entry.context, this.#contextOf(entry));
    this.unit.contexts.invalidateKey(entry.rid, 0, -1);
    this.unit.iotlb.invalidateDomain(this.#didOf(entry));
  }

  /** The domain-id that the entry in memory has. */
  #cachedDid(entry: Entry): number {
    const words = new Uint32Array(EXTENDED_CONTEXT_ENTRY.wordCount);
    this.#memory.loadWords(entry.context, words, words.length);
    return EXTENDED_CONTEXT_ENTRY.get.DID(words);
  }

  #contextOf(entry: Entry): Words {
    const { own, pasids, table } = entry;
    const parent = this.#nestedParent(entry);
    if (own === undefined && pasids.size === 0) return new Uint32Array(EXTENDED_CONTEXT_ENTRY.wordCount);
    return pack(EXTENDED_CONTEXT_ENTRY, {
      P: 1,
      T: EXTENDED_T.SECOND_LEVEL,
      NESTE: parent === undefined ? 0 : 1,
      PASIDE: pasids.size > 0 ? 1 : 0,
      SLPTPTR: (own ?? parent)?.table.root ?? this.#empty,
      AW: AW.BITS_48,
      DID: this.#didOf(entry),
      PTS,
      PASIDPTR: parent === undefined ? table : this.#tablePage(entry) * PAGE_BYTES,
    });
  }

  #invalidatePasid(entry: Entry, pasid: number, page: number, mask: number | undefined): void {
    const { iotlb } = this.unit;
    const did = this.#didOf(entry);
    if (mask === undefined) iotlb.invalidateTag(did, pasid);
    else iotlb.invalidateTaggedPages(did, pasid, pageLo(page), pageHi(page), mask);
  }
}

function rootOf(domain: HostDomain): number {
  if (domain.kind === 'paging') return domain.table.root;
  return domain.stage1.format === 'vtd' ? domain.stage1.root : 0;
}
