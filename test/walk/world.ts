/**
 * Random worlds of page tables for the walker's tests: a few dozen pages that all refer to each
 * other, so that any page serves as a table of any level (self-maps, shared subtrees and loops come
 * by themselves), with well-formed and hostile entries.
 */

import { ArrayMemory } from '../../src/memory/array.js';
import { type PageTableFormat, RIGHT } from '../../src/spec/pagetable/format.js';
import { type VtdPagingCapabilities, vtdFirstStage, vtdSecondStage } from '../../src/spec/pagetable/vtd.js';
import type { Asked, Rules, Store } from './reference.js';

/** A small seeded generator (splitmix32); the same seed gives the same world everywhere. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0;
  }
  /** 32 random bits, unsigned. */
  u32(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    let z = this.#state ^ (this.#state >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  }
  /** An integer in [0, n). */
  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }
  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }
  pick<T>(from: readonly T[]): T {
    const item = from[this.below(from.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }
}

/** One format under test: as the walker knows it, and as the reference does. */
export interface Case {
  readonly name: string;
  readonly format: PageTableFormat;
  readonly rules: Rules;
}

const CAPABILITIES: readonly VtdPagingCapabilities[] = [
  caps(46, true, true, true, true, false),
  caps(39, true, false, false, false, false),
  caps(52, false, false, true, true, true),
  caps(42, true, true, false, false, true),
];

function caps(
  hostAddressWidth: number,
  secondStage2M: boolean,
  secondStage1G: boolean,
  firstStage1G: boolean,
  snoopControl: boolean,
  transientMapping: boolean,
): VtdPagingCapabilities {
  return {
    hostAddressWidth,
    secondStage2M,
    secondStage1G,
    firstStage1G,
    snoopControl,
    transientMapping,
  };
}

/** Every format with every option, each over every set of capabilities. */
export function allCases(): readonly Case[] {
  return CAPABILITIES.flatMap((c, i) => [...firstStageCases(c, i), ...secondStageCases(c, i)]);
}

function firstStageCases(c: VtdPagingCapabilities, i: number): Case[] {
  const cases: Case[] = [];
  for (const levels of [4, 5] as const)
    for (const writeProtect of [false, true])
      for (const extendedAccessed of [false, true])
        cases.push({
          name: `first-stage ${levels}-level, WPE ${writeProtect}, EAFE ${extendedAccessed}, capabilities ${i}`,
          format: vtdFirstStage(c, { levels, writeProtect, extendedAccessed }),
          rules: {
            stage: 'first',
            levels,
            inputBits: levels === 4 ? 48 : 57,
            haw: c.hostAddressWidth,
            pages2M: true,
            pages1G: c.firstStage1G,
            snoopControl: false,
            transient: false,
            accessedDirty: true,
            extendedAccessed,
            writeProtect,
          },
        });
  return cases;
}

function secondStageCases(c: VtdPagingCapabilities, i: number): Case[] {
  const cases: Case[] = [];
  for (const levels of [3, 4, 5] as const)
    for (const accessedDirty of [false, true])
      for (const narrow of [0, 7]) {
        const inputBits = { 3: 39, 4: 48, 5: 57 }[levels] - (levels === 3 ? 0 : narrow);
        cases.push({
          name: `second-stage ${levels}-level of ${inputBits} bits, SSADE ${accessedDirty}, capabilities ${i}`,
          format: vtdSecondStage(c, { levels, accessedDirty, inputBits }),
          rules: {
            stage: 'second',
            levels,
            inputBits,
            haw: c.hostAddressWidth,
            pages2M: c.secondStage2M,
            pages1G: c.secondStage1G,
            snoopControl: c.snoopControl,
            transient: c.transientMapping,
            accessedDirty,
            extendedAccessed: false,
            writeProtect: false,
          },
        });
      }
  return cases;
}

/** RAM below 4 GiB, RAM far above, a page that can't be written, and nothing in between. */
const LOW = 0x0;
const LOW_PAGES = 24;
const HIGH = 0x21_0000_0000;
const HIGH_PAGES = 12;
const ROM = 0x80_0000;
const ROM_PAGES = 2;
/**
 * Stage-2 tables of a nested world: one page each for levels 5, 4 and 3, two of level 2 and three
 * of level 1.
 */
const SECOND = 0x4000_0000;
const SECOND_PAGES = 8;
/** Present, all rights, Accessed and Dirty, in either stage's positions. */
const TIDY_BITS = 0x767n;
/** Indices that random addresses mostly use, so that entries are hit again and again. */
const HOT = 8;

/** Memory that remembers which words a device wrote. */
export class WatchedMemory extends ArrayMemory {
  readonly written: number[] = [];
  override cas32(gpa: number, expected: number, value: number): boolean {
    const done = super.cas32(gpa, expected, value);
    if (done) this.written.push(gpa);
    return done;
  }
}

export class World {
  readonly memory = new WatchedMemory([
    { base: LOW, bytes: LOW_PAGES * 4096 },
    { base: HIGH, bytes: HIGH_PAGES * 4096 },
    { base: ROM, bytes: ROM_PAGES * 4096, writable: false },
    { base: SECOND, bytes: SECOND_PAGES * 4096 },
  ]);
  readonly pages: readonly number[] = [
    ...Array.from({ length: LOW_PAGES }, (_, i) => LOW + i * 4096),
    ...Array.from({ length: HIGH_PAGES }, (_, i) => HIGH + i * 4096),
    ...Array.from({ length: ROM_PAGES }, (_, i) => ROM + i * 4096),
  ];

  constructor(readonly random: Random) {}

  /** Fills the entries that addresses use with new ones. `hostility`: share of malformed ones. */
  shuffle(hostility: number): void {
    for (const page of this.pages) {
      for (let i = 0; i < HOT; i++) this.memory.poke(page + i * 8, this.entry(hostility));
      this.memory.poke(page + 511 * 8, this.entry(hostility));
    }
  }

  /** Mostly an entry that is well-formed in either format: a table or a page, with most rights. */
  entry(hostility: number): bigint {
    const r = this.random;
    if (r.chance(hostility)) return this.#hostile();
    let value = r.chance(0.8) ? BigInt(r.pick(this.pages)) : this.#anyAddress();
    // R/P, W, U/S and the Accessed/Dirty bits of both stages, bits that either format ignores.
    for (const [n, probability] of [
      [0, 0.97],
      [1, 0.9],
      [2, 0.9],
      [5, 0.6],
      [6, 0.5],
      [8, 0.6],
      [9, 0.5],
      [10, 0.6],
      [3, 0.2],
      [55, 0.2],
      [63, 0.2],
    ] as const)
      if (r.chance(probability)) value |= 1n << BigInt(n);
    if (r.chance(0.15)) value = this.#large(value);
    return value;
  }

  /** A large page: bit 7, address aligned to 2 MiB or 1 GiB, sometimes not quite. */
  #large(value: bigint): bigint {
    const r = this.random;
    const size = r.chance(0.5) ? 21n : 30n;
    const low = value & 0xfffn;
    let address = (this.#anyAddress() >> size) << size;
    if (r.chance(0.2)) address |= 1n << 12n;
    return address | low | (value & (0xfffn << 52n)) | 0x80n;
  }

  #anyAddress(): bigint {
    return this.random.u64() & 0x7f_ffff_f000n;
  }

  #hostile(): bigint {
    const r = this.random;
    switch (r.below(5)) {
      case 0:
        return r.u64();
      case 1:
        return 0n;
      case 2:
        return this.entry(0) ^ (1n << BigInt(r.below(64)));
      case 3:
        return (r.u64() & 0xf_ffff_ffff_f000n) | 7n;
      default:
        return this.entry(0) | (1n << BigInt(r.pick([7, 11, 39, 42, 46, 51, 52, 62])));
    }
  }

  /**
   * Tables as an operating system would write them: sound upper levels, leaf tables full of runs
   * that are contiguous in the output, with holes, rights and Accessed/Dirty bits that vary.
   * Returns a root for that many levels.
   */
  tidy(levels: number): number {
    const r = this.random;
    const group = (level: number): readonly number[] =>
      this.pages.slice(...([[], [14, 36], [8, 14], [4, 8], [2, 4], [0, 2]][level] as [number, number]));
    for (let level = 2; level <= 5; level++) {
      for (const page of group(level)) {
        const largePages = level === 2 && r.chance(0.4);
        if (largePages) this.#runs(page, 21n);
        else
          for (let i = 0; i < 512; i += i === HOT - 1 ? 511 - i : 1)
            this.memory.poke(page + i * 8, BigInt(r.pick(group(level - 1))) | TIDY_BITS);
      }
    }
    for (const page of group(1)) this.#runs(page, 12n);
    return r.pick(group(levels));
  }

  /** Fills a leaf table with runs. */
  #runs(page: number, shift: bigint): void {
    const r = this.random;
    const large = shift > 12n ? 0x80n : 0n;
    let output = 0n;
    let bits = TIDY_BITS;
    for (let i = 0; i < 512; i++) {
      output++;
      const kind = r.below(60);
      if (kind === 0) output = BigInt(r.below(1 << 16));
      if (kind === 1) output = BigInt(i + r.pick([0, 64, 512, 3]));
      if (kind === 2) bits = TIDY_BITS & ~(1n << BigInt(r.pick([0, 1, 2, 5, 6, 8, 9])));
      if (kind === 3) bits = TIDY_BITS;
      const entry = (output << shift) | bits | large;
      this.memory.poke(page + i * 8, kind === 4 ? 0n : kind === 5 ? this.#hostile() : entry);
    }
  }

  /**
   * Stage-2 tables through which most of the world's pages are reached: at their own address or at
   * another's, as 4 KiB or 2 MiB pages, with `damage` entries replaced by hostile ones. Returns the
   * root for that many levels.
   */
  secondStage(levels: number, damage: number): number {
    const r = this.random;
    const page = (n: number): number => SECOND + n * 4096;
    const put = (table: number, index: number, value: number, large = 0): void => {
      let entry = BigInt(value) | BigInt(large) | (r.chance(0.98) ? 1n : 0n) | (r.chance(0.95) ? 2n : 0n);
      if (r.chance(0.6)) entry |= 0x100n;
      if (r.chance(0.5)) entry |= 0x200n;
      this.memory.poke(page(table) + index * 8, entry);
    };
    const leaves = (level2: number, index2: number, level1: number, base: number, count: number): void => {
      if (r.chance(0.25)) put(level2, index2, base, 0x80);
      else put(level2, index2, page(level1));
      for (let i = 0; i < count; i++) put(level1, i, r.chance(0.8) ? base + i * 4096 : r.pick(this.pages));
    };
    put(0, 0, page(1));
    put(1, 0, page(2));
    put(2, 0, page(3));
    put(2, (HIGH / 2 ** 30) & 511, page(4));
    leaves(3, 0, 5, LOW, LOW_PAGES);
    leaves(3, ROM >> 21, 6, ROM, ROM_PAGES);
    leaves(4, 0, 7, HIGH, HIGH_PAGES);
    for (let i = 0; i < damage; i++)
      this.memory.poke(page(r.below(SECOND_PAGES)) + r.below(24) * 8, this.#hostile());
    return page(5 - levels);
  }

  /** A random input address: mostly hot indices and canonical, sometimes anything at all. */
  address(bits: number): bigint {
    const r = this.random;
    if (r.chance(0.03)) return r.u64();
    let address = BigInt(r.below(4096));
    for (let shift = 12; shift < 57; shift += 9) {
      const index = r.chance(0.04) ? 511 : r.chance(0.02) ? r.below(512) : r.below(HOT);
      address |= BigInt(index) << BigInt(shift);
    }
    address &= (1n << BigInt(bits)) - 1n;
    const top = (address >> BigInt(bits - 1)) & 1n;
    if (top === 1n && r.chance(0.9)) address |= ((1n << 64n) - 1n) ^ ((1n << BigInt(bits)) - 1n);
    return address;
  }

  root(): number {
    return this.random.chance(0.01) ? 0x7000_0000 : this.random.pick(this.pages);
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
        const rom = address >= BigInt(ROM) && address < BigInt(ROM + ROM_PAGES * 4096);
        if (there === undefined || rom) return 'impossible';
        if (there !== was) return 'changed';
        writes.set(address, value);
        return 'done';
      },
    };
  }
}

export const ACCESSES: readonly number[] = [
  0,
  RIGHT.READ,
  RIGHT.READ,
  RIGHT.WRITE,
  RIGHT.WRITE,
  RIGHT.READ | RIGHT.WRITE,
  RIGHT.READ | RIGHT.PRIVILEGED,
  RIGHT.WRITE | RIGHT.PRIVILEGED,
  RIGHT.READ | RIGHT.EXECUTE,
];

export function asked(access: number): Asked {
  return {
    read: (access & RIGHT.READ) !== 0,
    write: (access & RIGHT.WRITE) !== 0,
    execute: (access & RIGHT.EXECUTE) !== 0,
    privileged: (access & RIGHT.PRIVILEGED) !== 0,
  };
}

export const lowOf = (value: bigint): number => Number(value & 0xffff_ffffn) | 0;
export const highOf = (value: bigint): number => Number((value >> 32n) & 0xffff_ffffn) | 0;
export const big = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
