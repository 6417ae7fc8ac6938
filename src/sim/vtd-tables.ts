import {
  CONTEXT_ENTRY,
  PASID_DIRECTORY_ENTRY,
  PASID_TABLE_ENTRIES,
  PASID_TABLE_ENTRY,
  ROOT_ENTRY,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../spec/vtd/structures.js';
import type { GuestRam, PageAllocator } from './machine.js';
import { loadStructure, storeStructure, type Values } from './structure.js';

/** Root and context tables of legacy mode. VT-d §9.1, §9.3 */
export class LegacyTables {
  readonly #ram: GuestRam;
  readonly #pages: PageAllocator;
  readonly root: number;
  constructor(ram: GuestRam, pages: PageAllocator) {
    this.#ram = ram;
    this.#pages = pages;
    this.root = pages.take();
  }

  /** Guest-physical address of the context entry; its table is made when missing. */
  contextEntry(rid: number): number {
    const rootEntry = this.root + (rid >> 8) * ROOT_ENTRY.bytes;
    let table = ROOT_ENTRY.get.CTP(loadStructure(this.#ram, rootEntry, ROOT_ENTRY));
    if (table === 0) {
      table = this.#pages.take();
      storeStructure(this.#ram, rootEntry, ROOT_ENTRY, { P: 1, CTP: table });
    }
    return table + (rid & 0xff) * CONTEXT_ENTRY.bytes;
  }

  setContext(rid: number, values: Values<typeof CONTEXT_ENTRY>): void {
    storeStructure(this.#ram, this.contextEntry(rid), CONTEXT_ENTRY, values);
  }
}

/** Root, context, PASID directory and PASID tables of scalable mode. VT-d §9.2, §9.4–9.6 */
export class ScalableTables {
  readonly #ram: GuestRam;
  readonly #pages: PageAllocator;
  readonly root: number;
  /** PASID directories by requester. */
  readonly #directories = new Map<number, number>();
  /** SM_CONTEXT_ENTRY.PDTS of every directory: 2^(PDTS+7) entries. */
  readonly pdts: number;

  constructor(ram: GuestRam, pages: PageAllocator, pdts = 0) {
    this.#ram = ram;
    this.#pages = pages;
    this.root = pages.take();
    this.pdts = pdts;
  }

  contextEntry(rid: number): number {
    const rootEntry = this.root + (rid >> 8) * SM_ROOT_ENTRY.bytes;
    const words = loadStructure(this.#ram, rootEntry, SM_ROOT_ENTRY);
    const upper = (rid & 0x80) !== 0;
    let table = upper ? SM_ROOT_ENTRY.get.UCTP(words) : SM_ROOT_ENTRY.get.LCTP(words);
    if (table === 0) {
      table = this.#pages.take();
      const half = rootEntry + (upper ? 8 : 0);
      this.#ram.store64(half, BigInt(table) | 1n);
    }
    return table + (rid & 0x7f) * SM_CONTEXT_ENTRY.bytes;
  }

  setContext(rid: number, values: Values<typeof SM_CONTEXT_ENTRY>): void {
    storeStructure(this.#ram, this.contextEntry(rid), SM_CONTEXT_ENTRY, {
      PDTS: this.pdts,
      PASIDDIRPTR: this.directory(rid),
      ...values,
    });
  }

  /** Guest-physical address of the requester's PASID directory, made when missing. */
  directory(rid: number): number {
    let directory = this.#directories.get(rid);
    if (directory === undefined) {
      directory = this.#pages.take(Math.max(1, 2 ** (this.pdts + 7 + 3 - 12)));
      this.#directories.set(rid, directory);
    }
    return directory;
  }

  directoryEntry(rid: number, pasid: number): number {
    const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
    return this.directory(rid) + index * PASID_DIRECTORY_ENTRY.bytes;
  }

  /** Guest-physical address of the PASID-table entry; its table is made when missing. */
  pasidEntry(rid: number, pasid: number): number {
    const entry = this.directoryEntry(rid, pasid);
    const words = loadStructure(this.#ram, entry, PASID_DIRECTORY_ENTRY);
    let table = PASID_DIRECTORY_ENTRY.get.SMPTBLPTR(words);
    if (table === 0) {
      table = this.#pages.take();
      storeStructure(this.#ram, entry, PASID_DIRECTORY_ENTRY, { P: 1, SMPTBLPTR: table });
    }
    return table + (pasid % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
  }

  setPasid(rid: number, pasid: number, values: Values<typeof PASID_TABLE_ENTRY>): void {
    storeStructure(this.#ram, this.pasidEntry(rid, pasid), PASID_TABLE_ENTRY, values);
  }
}
