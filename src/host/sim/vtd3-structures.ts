/** Root, context and PASID tables as the host's VT-d driver writes them. VT-d §9. */
import { pack, type Words } from '../../spec/define.js';
import {
  AW,
  FSPM,
  PASID_DIRECTORY_ENTRY,
  PASID_TABLE_ENTRIES,
  PASID_TABLE_ENTRY,
  PGTT,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from '../../spec/vtd/structures.js';
import { HostError } from '../host-errors.js';
import type { HostDomain } from './host-domain.js';
import type { HostMemory } from './memory.js';

/** The PASID-table entry of requests without PASID. */
export const RID_PASID = 0;

/** One function's tables. */
export interface PciFunction {
  readonly rid: number;
  readonly context: number;
  /** Its PASID directory; 0 while it has no entry. */
  directory: number;
  /** PASID tables by index, and how many of their entries are in use. */
  readonly tables: Map<number, { readonly table: number; users: number }>;
  readonly entries: Map<number, HostDomain>;
}

export class VtdTables {
  readonly #memory: HostMemory;
  readonly #pasidBits: number;
  /** A context-entry was cleared: caches have to forget it now. */
  readonly #contextCleared: (rid: number) => void;
  readonly root: number;
  readonly #order: number;
  readonly #contextTables = new Map<number, { readonly table: number; users: number }>();

  constructor(memory: HostMemory, pasidBits: number, contextCleared: (rid: number) => void) {
    this.#memory = memory;
    this.#pasidBits = pasidBits;
    this.#contextCleared = contextCleared;
    this.root = memory.pool.take('fixed');
    this.#order = Math.max(0, pasidBits - 6 + 3 - 12);
  }

  /** A context-entry without PASID directory: not present. */
  addFunction(rid: number): PciFunction {
    const half = rid >> 7;
    let table = this.#contextTables.get(half);
    if (table === undefined) {
      table = { table: this.#memory.pool.take('fixed'), users: 0 };
      this.#contextTables.set(half, table);
      this.#writeRoot(half, table.table);
    }
    table.users++;
    const context = table.table + (rid & 127) * SM_CONTEXT_ENTRY.bytes;
    return { rid, context, directory: 0, tables: new Map(), entries: new Map() };
  }

  #clearContext(found: PciFunction): void {
    this.#memory.storeWords(found.context, new Uint32Array(SM_CONTEXT_ENTRY.wordCount));
    this.#contextCleared(found.rid);
  }

  removeFunction(found: PciFunction): void {
    const { rid } = found;
    if (found.entries.size > 0) throw new Error('something is attached to the function');
    this.#clearContext(found);
    const half = rid >> 7;
    const table = this.#contextTables.get(half);
    if (table === undefined || --table.users > 0) return;
    this.#writeRoot(half, 0);
    this.#contextCleared(rid);
    this.#memory.pool.give('fixed', table.table);
    this.#contextTables.delete(half);
  }

  /** Half a root-entry: devfn 0..127 or 128..255 of a bus. */
  #writeRoot(half: number, table: number): void {
    const words = table === 0 ? [0, 0] : pack(SM_ROOT_ENTRY, { LP: 1, LCTP: table }).slice(0, 2);
    this.#memory.storeWords(this.root + half * 8, words);
  }

  /**
   * Writes a PASID-table entry. Throws {@link HostError} NO_TABLE_MEMORY, and then nothing has
   * changed.
   */
  setEntry(found: PciFunction, pasid: number, domain: HostDomain, did: number): void {
    if (pasid < 0 || pasid >= 2 ** this.#pasidBits) throw new HostError('NOT_YOUR_PASID', `PASID ${pasid}`);
    try {
      if (found.directory === 0) found.directory = this.#memory.pool.take('tables', this.#order);
      const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
      let table = found.tables.get(index);
      if (table === undefined) {
        table = { table: this.#memory.pool.take('tables'), users: 0 };
        found.tables.set(index, table);
        this.#memory.storeWords(
          found.directory + index * PASID_DIRECTORY_ENTRY.bytes,
          pack(PASID_DIRECTORY_ENTRY, { P: 1, SMPTBLPTR: table.table }),
        );
      }
      if (!found.entries.has(pasid)) table.users++;
      const entry = table.table + (pasid % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
      // Not present while it changes: what the unit reads is the old entry, none, or the new one.
      this.#memory.store64(entry, 0, 0);
      this.#memory.storeWords(entry, entryOf(domain, did));
      this.#writeContext(found);
    } catch (error) {
      this.reclaim(found, pasid);
      throw error;
    }
  }

  clearEntry(found: PciFunction, pasid: number): void {
    const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
    const table = found.tables.get(index);
    if (table === undefined) return;
    const entry = table.table + (pasid % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
    this.#memory.storeWords(entry, new Uint32Array(PASID_TABLE_ENTRY.wordCount));
    table.users--;
  }

  /**
   * Gives back the table of a PASID if it has no entries left, and the directory with the last;
   * caches have been invalidated.
   */
  reclaim(found: PciFunction, pasid: number): void {
    const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
    const table = found.tables.get(index);
    if (table?.users === 0) {
      this.#memory.storeWords(found.directory + index * PASID_DIRECTORY_ENTRY.bytes, [0, 0]);
      this.#memory.pool.give('tables', table.table);
      found.tables.delete(index);
    }
    if (found.tables.size > 0 || found.directory === 0) return;
    this.#clearContext(found);
    this.#memory.pool.give('tables', found.directory, this.#order);
    found.directory = 0;
  }

  #writeContext(found: PciFunction): void {
    const words = pack(SM_CONTEXT_ENTRY, {
      P: 1,
      PASIDE: 1,
      PDTS: this.#pasidBits - 13,
      PASIDDIRPTR: found.directory,
      RID_PASID,
    });
    this.#memory.storeWords(found.context, words);
  }
}

function entryOf(domain: HostDomain, DID: number): Words {
  if (domain.kind === 'paging') {
    const root = domain.table.root;
    return domain.level === 'first'
      ? pack(PASID_TABLE_ENTRY, { ...COMMON, PGTT: PGTT.FIRST_STAGE, DID, FSPTPTR: root })
      : pack(PASID_TABLE_ENTRY, {
          ...COMMON,
          PGTT: PGTT.SECOND_STAGE,
          AW: AW.BITS_48,
          DID,
          SSPTPTR: root,
        });
  }
  const { stage1, parent } = domain;
  if (stage1.format !== 'vtd') throw new HostError('BAD_TABLE', 'not first-stage tables');
  return pack(PASID_TABLE_ENTRY, {
    ...COMMON,
    PGTT: PGTT.NESTED,
    AW: AW.BITS_48,
    DID,
    SSPTPTR: parent.table.root,
    FSPTPTR: stage1.root,
    FSPM: stage1.levels === 5 ? FSPM.FIVE_LEVEL : FSPM.FOUR_LEVEL,
    WPE: stage1.writeProtect ? 1 : 0,
    EAFE: stage1.extendedAccessed ? 1 : 0,
  });
}

/** Page walks snoop: memory is coherent. */
const COMMON = { P: 1, PWSNP: 1 } as const;
