/**
 * Random worlds of VMSAv8-64 tables: a pool of 64 KiB pages that all refer to each other, so that
 * any of them serves as a table of any level and granule, and tables as an operating system would
 * write them, made by {@link VmsaWorld.map}.
 */

import type { PageTableFormat } from '../../src/spec/pagetable/format.js';
import { ACCESS_FLAG, type Granule, vmsaStage1, vmsaStage2 } from '../../src/spec/pagetable/vmsa.js';
import type { Store } from './reference.js';
import { stage1Start, type VmsaRules } from './vmsa-reference.js';
import { type Random, WatchedMemory } from './world.js';

/** One format under test: as the walker knows it, and as the reference does. */
export interface VmsaCase {
  readonly name: string;
  readonly format: PageTableFormat;
  readonly rules: VmsaRules;
}

export type GranuleKiB = 4 | 16 | 64;
export const GRANULES: readonly GranuleKiB[] = [4, 16, 64];

const PAGE_BITS = { 4: 12, 16: 14, 64: 16 } as const;
const STRIDE = { 4: 9, 16: 11, 64: 13 } as const;

/** A random set of parameters for a stage and granule. */
export function randomCase(random: Random, stage: 1 | 2, granule: GranuleKiB): VmsaCase {
  const outputBits = random.pick([32, 36, 40, 42, 44, 48, 48, 52, 52]);
  const lpa = random.chance(outputBits === 52 ? 0.8 : 0.3);
  const most = granule === 64 && lpa ? 52 : 48;
  const clearFlag = random.pick(['fault', 'ignore', 'update', 'update'] as const);
  const coin = (probability = 0.5): boolean => random.chance(probability);
  const one = stage === 1;
  let rules: VmsaRules = {
    stage,
    granule,
    inputBits: random.pick([most, 48, 39, PAGE_BITS[granule] + 2 + random.below(most - 17)]),
    startLevel: 0,
    outputBits,
    lpa,
    clearFlag,
    hd: clearFlag === 'update' && coin(0.7),
    ttb1: one && coin(),
    tbi: one && coin(0.3),
    hpd: one && coin(0.3),
    wxn: one && coin(0.2),
    pan: one && coin(0.3),
    single: one && coin(0.15),
    xnx: !one && coin(),
    ptw: !one && coin(0.3),
  };
  if (rules.inputBits > most) rules = { ...rules, inputBits: most };
  return caseOf(one ? rules : { ...rules, startLevel: random.pick(startLevels(rules)) });
}

/** Start levels that the input size allows: at least two entries in the root, at most 16 tables. */
function startLevels(rules: VmsaRules): number[] {
  const levels: number[] = [];
  for (let level = 0; level <= 3; level++) {
    const entries = 2 ** (rules.inputBits - PAGE_BITS[rules.granule] - (3 - level) * STRIDE[rules.granule]);
    if (entries >= 2 && entries <= 16 * 2 ** STRIDE[rules.granule]) levels.push(level);
  }
  return levels;
}

function caseOf(rules: VmsaRules): VmsaCase {
  const common = {
    granule: PAGE_BITS[rules.granule] as Granule,
    inputBits: rules.inputBits,
    outputBits: rules.outputBits,
    largePhysical: rules.lpa,
    accessFlag: {
      fault: ACCESS_FLAG.FAULT,
      ignore: ACCESS_FLAG.IGNORE,
      update: ACCESS_FLAG.UPDATE,
    }[rules.clearFlag],
    dirtyState: rules.hd,
  };
  const format =
    rules.stage === 1
      ? vmsaStage1({
          ...common,
          upper: rules.ttb1,
          topByteIgnored: rules.tbi,
          hierarchical: !rules.hpd,
          writeExecuteNever: rules.wxn,
          privilegedAccessNever: rules.pan,
          singlePrivilege: rules.single,
        })
      : vmsaStage2({
          ...common,
          startLevel: rules.startLevel,
          executeNeverByPrivilege: rules.xnx,
          protectedTableWalk: rules.ptw,
        });
  return { name: JSON.stringify(rules), format, rules };
}

const KIB_64 = 0x1_0000;
const LOW = 0;
const LOW_PAGES = 16;
const ROM = 0x80_0000;
const HIGH = 0x21_0000_0000;
const HIGH_PAGES = 6;
/** Beyond 48 bits: only the split address of the 64 KiB granule reaches it. */
const HIGHER = 2 ** 48;
/**
 * Where {@link VmsaWorld.map} takes its tables from: two ranges, one for each stage of a nested
 * world.
 */
const TABLES = 0x4000_0000;
const TABLES_BYTES = 0x100_0000;
const HOT = 8;
/** Where tables begin in a page of the pool. */
const OFFSETS = [0, 0x1000, 0x2000, 0x4000, 0x8000];

export class VmsaWorld {
  readonly memory = new WatchedMemory([
    { base: LOW, bytes: LOW_PAGES * KIB_64 },
    { base: ROM, bytes: 2 * KIB_64, writable: false },
    { base: HIGH, bytes: HIGH_PAGES * KIB_64 },
    { base: HIGHER, bytes: 2 * KIB_64 },
    { base: TABLES, bytes: TABLES_BYTES },
  ]);
  readonly pages: readonly number[] = [
    ...Array.from({ length: LOW_PAGES }, (_, i) => LOW + i * KIB_64),
    ...Array.from({ length: HIGH_PAGES }, (_, i) => HIGH + i * KIB_64),
    ...[ROM, ROM + KIB_64, HIGHER, HIGHER + KIB_64],
  ];
  /** Entries that {@link map} wrote, and the next free table. */
  #mapped: number[] = [];
  #free = TABLES;

  constructor(readonly random: Random) {}

  /** Fills the entries that addresses use with new ones. `hostility`: share of malformed ones. */
  shuffle(hostility: number): void {
    for (const page of this.pages) {
      for (const offset of OFFSETS)
        for (let i = 0; i < HOT; i++) this.memory.poke(page + offset + i * 8, this.entry(hostility));
      for (const last of [511, 2047, 8191]) this.memory.poke(page + last * 8, this.entry(hostility));
    }
  }

  entry(hostility: number): bigint {
    const r = this.random;
    if (r.chance(hostility)) return this.#hostile();
    let value = r.chance(0.85) ? this.#tableAddress() : r.u64() & 0xffff_ffff_f000n;
    for (const [n, probability] of [
      [0, 0.98],
      [1, 0.85],
      [2, 0.3],
      [4, 0.5],
      [5, 0.3],
      [6, 0.8],
      [7, 0.5],
      [8, 0.3],
      [10, 0.75],
      [11, 0.3],
      [50, 0.1],
      [51, 0.4],
      [52, 0.2],
      [53, 0.3],
      [54, 0.3],
      [58, 0.1],
      [59, 0.08],
      [60, 0.08],
      [61, 0.08],
      [62, 0.08],
      [63, 0.2],
    ] as const)
      if (r.chance(probability)) value |= 1n << BigInt(n);
    return value;
  }

  #tableAddress(): bigint {
    const r = this.random;
    const page = r.pick(this.pages);
    if (page >= HIGHER) return BigInt(page - HIGHER) | 0x1000n;
    return BigInt(page + (r.chance(0.85) ? 0 : r.pick(OFFSETS)));
  }

  #hostile(): bigint {
    const r = this.random;
    switch (r.below(4)) {
      case 0:
        return r.u64();
      case 1:
        return this.entry(0) & ~BigInt(1 + r.below(3));
      case 2:
        return this.entry(0) ^ (1n << BigInt(r.below(64)));
      default:
        return this.entry(0) | (1n << BigInt(r.pick([13, 14, 15, 33, 36, 40, 42, 44, 47])));
    }
  }

  /**
   * A random input address: mostly hot indices in range, sometimes not quite or anything at all.
   */
  address(rules: VmsaRules): bigint {
    const r = this.random;
    if (r.chance(0.02)) return r.u64();
    const page = PAGE_BITS[rules.granule];
    let address = BigInt(r.below(2 ** page));
    for (let shift: number = page; shift < rules.inputBits; shift += STRIDE[rules.granule]) {
      const index = r.chance(0.04) ? 2 ** STRIDE[rules.granule] - 1 : r.below(r.chance(0.02) ? 512 : HOT);
      address |= BigInt(index) << BigInt(shift);
    }
    // Concatenated tables: bits that no index above reached.
    if (rules.stage === 2 && r.chance(0.3)) address |= BigInt(r.below(16)) << BigInt(rules.inputBits - 4);
    const width = BigInt(rules.inputBits);
    address &= (1n << width) - 1n;
    if (rules.ttb1) address |= ((1n << 64n) - 1n) ^ ((1n << width) - 1n);
    if (rules.tbi && r.chance(0.5)) address = (address & ((1n << 56n) - 1n)) | (BigInt(r.below(256)) << 56n);
    return r.chance(0.02)
      ? address ^ (1n << BigInt(rules.inputBits + r.below(64 - rules.inputBits)))
      : address;
  }

  root(): number {
    return this.random.chance(0.01) ? 0x7000_0000 : this.random.pick(this.pages);
  }

  /** Forgets all tables that {@link map} made. */
  clear(): void {
    for (const address of this.#mapped) this.memory.poke(address, 0n);
    this.#mapped = [];
    this.#free = TABLES;
  }

  /** Room for a root table, concatenated ones included. */
  newRoot(rules: VmsaRules): number {
    return this.#table(rules.stage === 2 ? 16 * 2 ** PAGE_BITS[rules.granule] : KIB_64);
  }

  #table(bytes: number): number {
    const table = Math.ceil(this.#free / bytes) * bytes;
    this.#free = table + bytes;
    if (this.#free > TABLES + TABLES_BYTES) throw new Error('no room for tables');
    return table;
  }

  /**
   * Maps the page or block (`level` 1 or 2) at `input` to `output` with `bits`; overwrites what is
   * there. False: a block is in the way.
   */
  map(
    rules: VmsaRules,
    root: number,
    input: bigint,
    output: bigint,
    bits: bigint,
    leafLevel: number,
    tableBits = 3n,
  ): boolean {
    const page = PAGE_BITS[rules.granule];
    const stride = STRIDE[rules.granule];
    const address = input & ((1n << BigInt(rules.inputBits)) - 1n);
    let table = root;
    let top = rules.inputBits;
    for (let level = rules.stage === 1 ? stage1Start(rules) : rules.startLevel; ; level++) {
      const low = page + (3 - level) * stride;
      const index = Number((address >> BigInt(low)) & ((1n << BigInt(top - low)) - 1n));
      const at = table + index * 8;
      const there = this.memory.peek(at) ?? 0n;
      if (level >= leafLevel) {
        const high = (output >> 48n) << 12n;
        const type = level === 3 ? 3n : 1n;
        this.memory.poke(at, (output & 0xffff_ffff_ffffn) | high | bits | type);
        this.#mapped.push(at);
        return true;
      }
      if ((there & 1n) === 0n) {
        const next = this.#table(2 ** page);
        this.memory.poke(at, BigInt(next) | tableBits);
        this.#mapped.push(at);
        table = next;
      } else if ((there & 2n) === 0n) return false;
      else table = Number(there & 0xffff_ffff_f000n & ~(2n ** BigInt(page) - 1n));
      top = low;
    }
  }

  /** Random attributes of a stage-2 leaf: mostly generous. */
  stage2Bits(): bigint {
    const r = this.random;
    let bits = 0n;
    for (const [n, probability] of [
      [4, 0.95],
      [6, 0.96],
      [7, 0.85],
      [10, 0.93],
      [51, 0.5],
      [53, 0.15],
      [54, 0.15],
    ] as const)
      if (r.chance(probability)) bits |= 1n << BigInt(n);
    return bits;
  }

  /**
   * Stage-2 tables through which most of the pool is reached: at its own address or another's.
   * Returns the root.
   */
  secondStage(rules: VmsaRules, damage: number): number {
    const r = this.random;
    const root = this.newRoot(rules);
    const page = PAGE_BITS[rules.granule];
    if (rules.startLevel <= 2 && r.chance(0.25)) this.map(rules, root, 0n, 0n, this.stage2Bits(), 2);
    for (const base of [...this.pages, TABLES, TABLES + KIB_64]) {
      if (base + KIB_64 > 2 ** rules.inputBits) continue;
      for (let offset = 0; offset < KIB_64; offset += 2 ** page) {
        const other = r.chance(0.85) ? base : r.pick(this.pages);
        // A split address is what only the 64 KiB granule can hold.
        if (other >= HIGHER && !(rules.granule === 64 && rules.lpa)) continue;
        this.map(rules, root, BigInt(base + offset), BigInt(other + offset), this.stage2Bits(), 3);
      }
    }
    // A very narrow input reaches no page of the pool: nothing is mapped then.
    if (this.#mapped.length > 0)
      for (let i = 0; i < damage; i++) this.memory.poke(r.pick(this.#mapped), this.#hostile());
    return root;
  }

  /**
   * Maps every table made so far to itself, in blocks or pages of `leafLevel` and with all rights.
   */
  identity(rules: VmsaRules, root: number, leafLevel: number): void {
    const page = PAGE_BITS[rules.granule];
    const level = Math.max(leafLevel, rules.startLevel);
    const size = 2 ** (page + (3 - level) * STRIDE[rules.granule]);
    const end = this.#free;
    for (let at = Math.floor(TABLES / size) * size; at < end; at += size)
      this.map(rules, root, BigInt(at), BigInt(at), 0x4f0n, level);
  }

  /** The reference's view: reads memory, keeps its own writes to itself. */
  shadow(): Store & { readonly writes: Map<bigint, bigint> } {
    const writes = new Map<bigint, bigint>();
    const memory = this.memory;
    return {
      writes,
      read: (address) => writes.get(address) ?? memory.peek(Number(address)),
      exchange: (address, was, value) => {
        const there = writes.get(address) ?? memory.peek(Number(address));
        const rom = address >= BigInt(ROM) && address < BigInt(ROM + 2 * KIB_64);
        if (there === undefined || rom) return 'impossible';
        if (there !== was) return 'changed';
        writes.set(address, value);
        return 'done';
      },
    };
  }
}
