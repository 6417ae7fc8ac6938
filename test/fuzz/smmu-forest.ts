import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import type { SmmuDriver } from '../../src/sim/smmu-driver.js';
import type { Trace } from './fuzzer.js';
import { type NaiveFormat, naiveArm } from './naive-tables.js';
import type { PlugMemory } from './plug-memory.js';
import type { Rng } from './rng.js';

const PAGE = 4096;
const MIB = 2 ** 20;
/** Tables, queues and structures; the data above them, in pieces that come and go. */
export const DATA = 6 * MIB;
export const TABLES = [0x1_0000, DATA] as const;
export const PIECE = 2 * MIB;
export const PIECES = 3;
export const RAM = DATA + PIECES * PIECE;
/**
 * Within a piece: what small pages lead to. In front of it lie tables, which no entry is to name by
 * chance.
 */
const LEAVES = 0x1a_0000;
/** Tables of each pool, beside those in pieces. */
const SPARE_TABLES = 5;

/** Bits of descriptors. DDI 0487 D8.3 */
export const [VALID, TYPE] = [1n, 2n];
const [AP_USER, READ_ONLY, AF] = [1n << 6n, 1n << 7n, 1n << 10n];
const [DBM, APTABLE_USER, APTABLE_READ_ONLY] = [1n << 51n, 1n << 61n, 1n << 62n];
/** Bits that do not decide whether data can be read or written: MemAttr, nG, XN. */
const INDIFFERENT = [0n, 1n << 11n, 1n << 54n, 3n << 53n, 4n] as const;

/** One tree of tables, and how to read it. */
export interface Tree {
  readonly domain: SmmuDomain;
  readonly naive: NaiveFormat;
  readonly root: number;
}

/**
 * Trees of every shape, and tables that their entries may point to: at any level, in several trees,
 * in each other.
 */
export class Forest {
  readonly #rng: Rng;
  readonly #trace: Trace;
  readonly #driver: SmmuDriver;
  readonly #memory: PlugMemory;
  readonly #hardware: 'access' | 'dirty' | undefined;
  readonly trees: Tree[] = [];
  /**
   * Tables by granule and whether hardware updates their entries: what it sets is no store, so
   * a walk of the same table without such updates would not hear of it.
   */
  readonly #pools = new Map<string, readonly number[]>();

  /** @param hardware updates that the unit can do */
  constructor(
    rng: Rng,
    trace: Trace,
    driver: SmmuDriver,
    memory: PlugMemory,
    hardware: 'access' | 'dirty' | undefined,
  ) {
    this.#rng = rng;
    this.#trace = trace;
    this.#driver = driver;
    this.#memory = memory;
    this.#hardware = hardware;
  }

  /** One more tree, with an empty root. */
  grow(): void {
    const rng = this.#rng;
    const driver = this.#driver;
    const kind = rng.chance(0.7) ? 'first' : 'second';
    const granule = rng.pick(driver.capabilities.granules);
    const bits = rng.pick([25, 30, 32, 36, 39, 42, 48]);
    const upper = kind === 'first' && rng.chance(0.3);
    const hardware = rng.chance(0.7) ? this.#hardware : undefined;
    const inputBits = kind === 'second' ? Math.max(bits, 32) : bits;
    const updates = hardware === undefined ? {} : { hardware };
    const domain = driver.createDomain(kind, { granule, inputBits, upper, ...updates });
    const { table } = domain;
    if (table === undefined) throw new Error('no table');
    const { levels, root } = table;
    const large = driver.capabilities.outputBits === 52;
    const shape = { granule, levels, upper, large, hardware, inputBits: domain.inputBits };
    this.trees.push({ domain, root, naive: naiveArm({ stage: kind === 'first' ? 1 : 2, ...shape }) });
    this.#trace.say(`tree ${kind} 0x${root.toString(16)} granule ${granule} bits ${domain.inputBits}`);
    const pool = poolOf(domain);
    if (!this.#pools.has(pool)) this.#pools.set(pool, this.#makePool(granule, hardware !== undefined));
  }

  /** What entries of a tree may point to. */
  tablesOf({ domain }: Tree): readonly number[] {
    return this.#pools.get(poolOf(domain)) ?? [];
  }

  /**
   * A table that some tree may go through, and as what level its entry is meant. Most often one of
   * `tracked` pages.
   */
  somewhere(tracked: ReadonlySet<number>): { tree: Tree; table: number; level: number } {
    const rng = this.#rng;
    const isLive = (table: number): boolean => tracked.has(table / PAGE);
    const roots = rng.chance(0.8) ? this.trees.filter(({ root }) => isLive(root)) : [];
    const tree = rng.pick(roots.length > 0 ? roots : this.trees);
    const { levels } = tree.naive;
    const all = this.tablesOf(tree);
    const live = rng.chance(0.8) ? all.filter(isLive) : [];
    if (rng.chance(live.length > 0 ? 0.2 : 0.5)) return { tree, table: tree.root, level: levels };
    const table = rng.pick(live.length > 0 ? live : all);
    return { tree, table, level: 1 + rng.below(Math.max(1, levels - 1)) };
  }

  /** Few entries of each table are ever used, so that tables in tables stay few. */
  entryIn({ root, naive }: Tree, table: number, level: number): number {
    const count = naive.entries(table === root ? naive.levels : level);
    const index = this.#rng.pick([0, 1, 2, 3, count - 2, count - 1]);
    return table + Math.min(Math.max(index, 0), count - 1) * 8;
  }

  /** Nothing, garbage that is not valid, a table, a page or a block. */
  value(tree: Tree, level: number): bigint {
    const rng = this.#rng;
    const { domain, naive } = tree;
    const what = rng.below(10);
    if (what === 0) return 0n;
    if (what === 1) return rng.u64() & ~VALID;
    if (level > 1 && what < 7) {
      const limits = rng.chance(0.1) ? rng.pick([APTABLE_USER, APTABLE_READ_ONLY]) : 0n;
      return BigInt(rng.pick(this.tablesOf(tree))) | VALID | TYPE | limits;
    }
    const size = 2 ** naive.shift(level);
    const small = DATA + rng.below(PIECES) * PIECE + LEAVES + rng.below(PIECE - LEAVES);
    const gpa = Math.floor((level === 1 ? small : rng.below(RAM)) / size) * size;
    let value = BigInt(gpa) | VALID | AP_USER | rng.pick(INDIFFERENT);
    if (level === 1) value |= TYPE;
    if (rng.chance(0.9)) value |= AF;
    // Of a stage 2 the same bits mean: read, and write.
    if (rng.chance(domain.kind === 'second' ? 0.7 : 0.3)) value |= READ_ONLY;
    if (rng.chance(0.05)) value &= ~AP_USER;
    if (this.#hardware === 'dirty' && rng.chance(0.3)) value |= DBM;
    return value;
  }

  #makePool(granule: number, updated: boolean): number[] {
    const bytes = 2 ** granule;
    const { pages } = this.#driver;
    const tables: number[] = [];
    for (let n = 0; n < SPARE_TABLES; n++) {
      const table = granule === 12 ? pages.take() : pages.takeAligned(granule, bytes);
      for (let at = 0; at < bytes; at += 8) this.#memory.poke(table + at, 0n);
      tables.push(table);
    }
    // Entries are for one granule each: what its addresses leave out says something else with
    // another.
    const offset = (granule - 12) * 2 ** 17 + (updated ? MIB : 0);
    for (let piece = 0; piece < PIECES; piece++) tables.push(DATA + piece * PIECE + offset);
    return tables;
  }
}

export const isUpper = ({ domain }: Tree): boolean => domain.options.upper === true;

const poolOf = ({ granule, options }: SmmuDomain): string => `${granule} ${options.hardware ?? ''}`;
