import type { SimContainer } from '../../src/sim/container.js';
import { must } from './fuzzer.js';
import { type Entries, type NaiveFormat, readNaively } from './naive-tables.js';
import type { PlugMemory } from './plug-memory.js';
import { mappedBy } from './shadow-pages.js';

const NONE: readonly bigint[] = [];

const PAGE_BYTES = 4096;

/**
 * What the guest has stored: which entries ever, and what those have said since a moment that were
 * stored over.
 */
export class History implements Entries {
  readonly #memory: PlugMemory;
  readonly #values = new Map<number, bigint[]>();
  /** By page, in the order of the first stores. */
  readonly #written = new Map<number, Set<number>>();

  constructor(memory: PlugMemory) {
    this.#memory = memory;
  }

  /** Everything before now is forgotten. */
  begin(): void {
    this.#values.clear();
  }

  /** To be called before a store. */
  note(address: number): void {
    const entry = Math.floor(address / 8) * 8;
    const page = Math.floor(entry / PAGE_BYTES);
    const written = this.#written.get(page);
    if (written === undefined) this.#written.set(page, new Set([entry]));
    else written.add(entry);
    const value = this.#memory.raw(entry);
    if (value === undefined) return;
    const values = this.#values.get(entry);
    if (values === undefined) this.#values.set(entry, [value]);
    else if (!values.includes(value)) values.push(value);
  }

  *written(first: number, end: number): Generator<number> {
    for (let page = Math.floor(first / PAGE_BYTES); page * PAGE_BYTES < end; page++) {
      for (const entry of this.#written.get(page) ?? []) if (entry >= first && entry < end) yield entry;
    }
  }

  /** Everything that an entry has said, and says. */
  values(address: number): readonly bigint[] {
    const now = this.#memory.raw(address);
    if (now === undefined) return NONE;
    const values = this.#values.get(address);
    return values === undefined ? [now] : values.includes(now) ? values : [...values, now];
  }

  /** What entries say now. */
  readonly now: Entries = {
    values: (address) => (this.#memory.contains(address, 8) ? [this.#memory.raw(address) as bigint] : NONE),
    written: (first, end) => this.written(first, end),
  };
}

/** Where each input page may have led since a moment. */
export class Possible {
  readonly #ram: number;
  readonly #pages = new Map<number, number[]>();

  /** @param ram bytes of memory, from 0 on; nothing else can be mapped */
  constructor(ram: number) {
    this.#ram = ram;
  }

  /** By these tables, as far as they have ever said so. */
  read(format: NaiveFormat, root: number, history: History): void {
    readNaively(format, root, history, ({ page, pages, gpa, access }) => {
      for (let n = 0; n < pages && gpa + n * 4096 < this.#ram; n++)
        this.add(page + n, gpa + n * 4096 + access);
    });
  }

  identity(): void {
    for (let gpa = 0; gpa < this.#ram; gpa += 4096) this.add(gpa / 4096, gpa + 3);
  }

  add(page: number, to: number): void {
    const known = this.#pages.get(page);
    if (known === undefined) this.#pages.set(page, [to]);
    else if (!known.includes(to)) known.push(to);
  }

  check(host: SimContainer, what: string): void {
    for (const [page, to] of mappedBy(host)) {
      must(
        this.#pages.get(page)?.includes(to) === true,
        () => `${what}: page 0x${page.toString(16)} leads to 0x${to.toString(16)}, which no table has said`,
      );
    }
  }
}
