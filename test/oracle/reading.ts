/**
 * The third reading: what a plain walk of the tables says of one request, beside our model and the
 * stock one. Readers (reader-vtd.ts, reader-smmu.ts) keep nothing from one request to the next and
 * share no code, table or layout with src: bit numbers and rules are spelled out again, from the
 * specifications.
 */
import type { Store } from '../walk/reference.js';
import type { Outcome } from './script.js';

export interface Reading {
  /**
   * Values that a request shows, where the tables decide them. Addresses of the two sides are
   * compared as numbers.
   */
  readonly outcome: Outcome;
  /** Words that the walk changes: Accessed and Dirty bits. */
  readonly writes: ReadonlyMap<bigint, bigint>;
  /**
   * One of them that need not change: a cache may have refused the request without a walk, and a
   * walk that gets as far as to set this bit is refused too.
   */
  readonly spared?: bigint | undefined;
  /**
   * What is wrong with an answer of this size and these rights; undefined: nothing. Only of what is
   * translated.
   */
  readonly flaw?: (log2: number, permissions: number) => string | undefined;
}

/** What a word of memory was read as. */
type Role = 'structure' | 'stage 1' | 'stage 2';

/**
 * Whether a walk of the tables as they stand can tell what a unit with caches answers. It can while
 * every change is followed by its invalidations, which is what the script does, unless the unit
 * itself writes to something that it may have cached: an Accessed bit set in what is a PASID-table
 * entry too, a record of an event upon a table.
 */
export class Ledger {
  readonly #roles = new Map<number, Set<Role>>();
  /** From here on nothing is decided. */
  muddled = false;

  note(address: bigint, role: Role): void {
    const at = Number(address);
    const roles = this.#roles.get(at);
    if (roles === undefined) this.#roles.set(at, new Set([role]));
    else roles.add(role);
  }

  /** The unit has changed flags of a paging entry. */
  flagged(address: number): void {
    const roles = this.#roles.get(address);
    if (roles !== undefined && (roles.has('structure') || roles.size > 1)) this.muddled = true;
  }

  /** The unit has stored something else. */
  stored(address: number): void {
    if (this.#roles.has(address)) this.muddled = true;
  }
}

/** Memory as a reader sees it. What it writes is on the slate alone. */
export class Slate {
  readonly #memory: (address: bigint) => bigint | undefined;
  readonly #ledger: Ledger;
  readonly writes = new Map<bigint, bigint>();

  constructor(memory: (address: bigint) => bigint | undefined, ledger: Ledger) {
    this.#memory = memory;
    this.#ledger = ledger;
  }

  /** A word of 64 bits; undefined where there is no memory. */
  word(address: bigint, role: Role = 'structure'): bigint | undefined {
    this.#ledger.note(address, role);
    return this.writes.get(address) ?? this.#memory(address);
  }

  /** `count` words; undefined where one of them has no memory. */
  words(address: bigint, count: number): bigint[] | undefined {
    const all = Array.from({ length: count }, (_, n) => this.word(address + 8n * BigInt(n)));
    return all.includes(undefined) ? undefined : (all as bigint[]);
  }

  /** Tables of a stage. */
  tables(role: Role): Store {
    return {
      read: (address) => this.word(address, role),
      exchange: (address, was, value) => {
        const now = this.word(address, role);
        if (now === undefined) return 'impossible';
        if (now !== was) return 'changed';
        this.writes.set(address, value);
        return 'done';
      },
    };
  }
}

export const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
export const field = (value: bigint, msb: number, lsb: number): bigint =>
  (value >> BigInt(lsb)) & ((1n << BigInt(msb - lsb + 1)) - 1n);
export const number = (value: bigint, msb: number, lsb: number): number => Number(field(value, msb, lsb));

/** The aligned block of 2^log2 bytes around an address. */
export const blockOf = (address: bigint, log2: number): bigint => (address >> BigInt(log2)) << BigInt(log2);

/** Offset within such a block. */
export const within = (address: bigint, log2: number): bigint => address & ((1n << BigInt(log2)) - 1n);

interface Answered {
  readonly address: bigint;
  readonly access: number;
  readonly output: bigint;
  /** log2 of the page or block. */
  readonly log2: number;
  /** ACCESS bits that need no further flag to be set. */
  readonly rights: number;
}

/** Of the blocks of an answer larger than a page that are looked at, at most so many. */
const MOST_BLOCKS = 64;

/**
 * What is wrong with an answer. A part of a page is right, and so is what a cache knew before
 * another request made the page dirty. What is larger than the page has to be so everywhere: `look`
 * reads the tables at another address.
 */
export function flawOf(
  { address, access, output, log2, rights }: Answered,
  said: { readonly log2: number; readonly permissions: number },
  look: (address: bigint) => Omit<Answered, 'address' | 'access'> | undefined,
): string | undefined {
  if ((said.permissions & access) !== access || (said.permissions & ~rights) !== 0) {
    return `rights ${said.permissions}, the third reading has ${rights}`;
  }
  if (said.log2 <= log2) return undefined;
  const [base, out] = [blockOf(address, said.log2), output - within(address, said.log2)];
  const count = 1n << BigInt(said.log2 - log2);
  const step = count > BigInt(MOST_BLOCKS) ? count / BigInt(MOST_BLOCKS) : 1n;
  for (let n = 0n; n < count; n += step) {
    const offset = n << BigInt(log2);
    const there = look(base + offset);
    if (there === undefined || there.output !== out + offset || (said.permissions & ~there.rights) !== 0) {
      return `2^${said.log2} bytes are told, and the third reading has something else at 0x${(base + offset).toString(16)}`;
    }
  }
  return undefined;
}

/**
 * What the unit has changed in memory while it served a request: words and what they were before.
 */
interface Changes {
  readonly before: ReadonlyMap<number, bigint>;
  readonly now: (address: number) => bigint | undefined;
}

/** Where our side and the third reading of the same request are not the same. */
export function disagreements(ours: Outcome, reading: Reading, changes: Changes): string[] {
  const found: string[] = [];
  const show = (value: string | number | bigint | undefined): string =>
    typeof value === 'bigint' ? `0x${value.toString(16)}` : String(value);
  for (const [name, value] of Object.entries(reading.outcome)) {
    if (ours[name] !== value) found.push(`${name}: ours ${show(ours[name])}, third reading ${show(value)}`);
  }
  if (found.length === 0 && ours['translated'] === 1) {
    const flaw = reading.flaw?.(Number(ours['log2']), Number(ours['permissions']));
    if (flaw !== undefined) found.push(`ours: ${flaw}`);
  }
  const words = new Set([...changes.before.keys(), ...[...reading.writes.keys()].map(Number)]);
  for (const address of words) {
    const now = changes.now(address);
    const expected = reading.writes.get(BigInt(address)) ?? changes.before.get(address);
    const spared = BigInt(address) === reading.spared && !changes.before.has(address);
    if (now !== expected && !spared) {
      found.push(`word at ${show(BigInt(address))}: ours ${show(now)}, third reading ${show(expected)}`);
    }
  }
  return found;
}
