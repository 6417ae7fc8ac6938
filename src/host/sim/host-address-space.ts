/**
 * Mappings of guest memory for devices, in the tables of one or more domains: what a container and
 * an IOAS are.
 */
import { pageAt } from '../../base/page.js';
import { HostError } from '../host-errors.js';
import type { MapChanges, PageRange } from '../port.js';
import type { HostDriver } from './driver.js';
import type { Failures } from './failures.js';
import type { PagingDomain } from './host-domain.js';
import type { GuestWindow } from './memory.js';
import { type MappedRange, RangeMap } from './range-map.js';

/** Ranges that one flush names; when there are more, everything is flushed at once. */
const MOST_FLUSHES = 32;

interface SpaceLimits {
  /** Mappings at a time. */
  readonly mappings: number;
  /** Pages pinned at a time, each mapping counted. */
  readonly pinned: number;
}

export class AddressSpace {
  readonly #driver: HostDriver;
  readonly #window: GuestWindow;
  readonly #limits: SpaceLimits;
  readonly #failures: Failures;
  /** Pages pinned, each mapping counted. */
  pinned = 0;
  readonly domains: PagingDomain[] = [];
  readonly #map = new RangeMap();

  constructor(driver: HostDriver, window: GuestWindow, limits: SpaceLimits, failures: Failures) {
    this.#driver = driver;
    this.#window = window;
    this.#limits = limits;
    this.#failures = failures;
  }

  get mappings(): number {
    return this.#map.size;
  }

  /**
   * Adds tables, and puts into them what is mapped. Throws {@link HostError}, and then the tables
   * are as before.
   */
  addDomain(domain: PagingDomain): void {
    const ranges = this.#driver.ranges(domain.level);
    for (const range of this.#map) checkRange(ranges, range.page, range.pages);
    let done = 0;
    try {
      for (const range of this.#map) {
        this.#enter(domain, range);
        done++;
      }
    } catch (error) {
      for (const range of this.#map) if (done-- > 0) domain.table.unmap(range.page, range.pages);
      domain.table.reclaim();
      throw error;
    }
    this.domains.push(domain);
  }

  removeDomain(domain: PagingDomain): void {
    this.domains.splice(this.domains.indexOf(domain), 1);
  }

  /**
   * Carries changes out, in order, until one fails; that one's error is thrown. `progress` counts
   * changes and pages.
   */
  change(changes: MapChanges, progress: { done: number }): void {
    const gone: MappedRange[] = [];
    try {
      for (let index = 0; index < changes.unmapCount; index++) {
        this.#failures.check('unmap');
        this.#remove(changes.unmaps[index * 2], changes.unmaps[index * 2 + 1], gone);
        progress.done++;
      }
    } finally {
      this.#release(gone);
    }
    for (let index = 0; index < changes.mapCount; index++) {
      this.#failures.check('map');
      const at = index * 4;
      const { maps } = changes;
      this.#insert({ page: maps[at], guestPage: maps[at + 1], pages: maps[at + 2], rights: maps[at + 3] });
      progress.done++;
    }
  }

  /** Unmaps everything. */
  clear(): void {
    const gone: MappedRange[] = [];
    this.#remove(0, Number.MAX_SAFE_INTEGER, gone);
    this.#release(gone);
  }

  #insert(range: MappedRange): void {
    const { page, pages, guestPage, rights } = range;
    if (!(pages > 0) || rights < 1 || rights > 3)
      throw new HostError('BAD_RANGE', `${pages} pages, rights ${rights}`);
    for (const domain of this.domains) checkRange(this.#driver.ranges(domain.level), page, pages);
    if (this.#map.overlaps(page, pages)) throw new HostError('OVERLAP', pageText(page, pages));
    if (this.#map.size >= this.#limits.mappings)
      throw new HostError('MAPPING_LIMIT', `${this.#map.size} mappings`);
    if (this.pinned + pages > this.#limits.pinned)
      throw new HostError('PIN_LIMIT', `${this.pinned + pages} pages`);
    this.#window.check(guestPage, pages);
    let done = 0;
    try {
      for (const domain of this.domains) {
        this.#enter(domain, range);
        done++;
      }
    } catch (error) {
      for (const domain of this.domains.slice(0, done)) this.#leave(domain, [range]);
      throw error;
    }
    this.#window.pin(guestPage, pages);
    this.pinned += pages;
    this.#map.add(range);
  }

  #enter(domain: PagingDomain, { page, pages, guestPage, rights }: MappedRange): void {
    domain.table.map(page, pageAt(this.#window.base) + guestPage, pages, rights);
  }

  /** Takes mappings out of the map; the tables follow in {@link release}. */
  #remove(page: number, pages: number, gone: MappedRange[]): void {
    if (!(pages > 0)) throw new HostError('BAD_RANGE', pageText(page, pages));
    const first = this.#map.at(page);
    const last = this.#map.at(page + pages - 1);
    const cuts =
      (first !== undefined && first.page < page) ||
      (last !== undefined && last.page + last.pages > page + pages);
    if (cuts) throw new HostError('PARTIAL_UNMAP', pageText(page, pages));
    for (const range of this.#map.take(page, pages)) gone.push(range);
  }

  /** Tables, then caches, then pins: memory is let go when nothing can reach it any more. */
  #release(gone: readonly MappedRange[]): void {
    if (gone.length === 0) return;
    for (const domain of this.domains) this.#leave(domain, gone);
    for (const { guestPage, pages } of gone) {
      this.#window.unpin(guestPage, pages);
      this.pinned -= pages;
    }
  }

  #leave(domain: PagingDomain, gone: readonly MappedRange[]): void {
    for (const { page, pages } of gone) domain.table.unmap(page, pages);
    if (!this.#failures.forgetInvalidations) {
      if (gone.length > MOST_FLUSHES) this.#driver.flush(domain, 0, Number.MAX_SAFE_INTEGER);
      else for (const { page, pages } of gone) this.#driver.flush(domain, page, pages);
    }
    domain.table.reclaim();
  }
}

function checkRange(ranges: readonly PageRange[], page: number, pages: number): void {
  const last = page + pages - 1;
  if (!ranges.some((range) => page >= range.first && last <= range.last)) {
    throw new HostError('IOVA_RANGE', pageText(page, pages));
  }
}

function pageText(page: number, pages: number): string {
  return `${pages} pages at page 0x${page.toString(16)}`;
}
