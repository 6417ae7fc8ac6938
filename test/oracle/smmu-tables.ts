/**
 * Translation tables of the SMMUv3 cases, of every granule, for either stage. Arm ARM D8, IHI 0070
 * §3.3, §3.4
 */
import type { Rng } from '../fuzz/rng.js';
import type { Script } from './script.js';
import { ARENA, OUTPUT_BITS } from './smmu-machine.js';

const AF = 1n << 10n;
export const NG = 1n << 11n;
/** Dirty Bit Modifier. */
const DBM = 1n << 51n;
const CONTIGUOUS = 1n << 52n;

/** Where the machine has neither RAM nor registers. */
export const HOLES = [0x4400_0000n, 0x1_2345_0000n, 0xfff_ffff_0000n] as const;

export interface Shape {
  readonly stage: 1 | 2;
  /** log2 of the granule: 12, 14, 16. */
  readonly granule: number;
  /** Bits of the input address. */
  readonly bits: number;
  /** Arm's level of the root. */
  readonly start: number;
  /**
   * What is added to an address of the arena to make it one of the space that the tables are in.
   */
  readonly offset: bigint;
  /** Bits of the output address that the configuration allows. */
  readonly outputBits: number;
  /** Leaves may be global: of every ASID of their VMID. */
  readonly global: boolean;
  /** Hardware may set Access flags and dirty state. */
  readonly updates: boolean;
  /**
   * Addresses have 52 bits, of which only descriptors of the largest granule hold the upper four,
   * in bits 15:12.
   */
  readonly large: boolean;
}

export interface Leaf {
  readonly input: bigint;
  /** log2 of the block or page. */
  readonly log2: number;
  readonly entry: number;
}

/** log2 of what an entry of Arm's level `level` maps. */
export function levelShift(granule: number, level: number): number {
  return granule + (3 - level) * (granule - 3);
}

/** Level of the root for that many input bits, without concatenation. */
export function startLevel(granule: number, bits: number): number {
  return 4 - Math.ceil((bits - granule) / (granule - 3));
}

/** Bytes of the root table: of several, where they are concatenated. */
function rootBytes({ granule, bits, start }: Shape): number {
  return 8 * 2 ** (bits - levelShift(granule, start));
}

/** One set of tables, written through a script. */
export class TableSet {
  readonly #script: Script;
  readonly #rng: Rng;
  /** Outputs to choose from; without it anything is. */
  readonly #outputs: readonly Leaf[];
  readonly root: number;
  readonly leaves: Leaf[] = [];
  /** Entries that point to tables. */
  readonly nodes: number[] = [];

  constructor(
    script: Script,
    rng: Rng,
    readonly shape: Shape,
    outputs: readonly Leaf[] = [],
  ) {
    this.#script = script;
    this.#rng = rng;
    this.#outputs = outputs;
    const bytes = rootBytes(shape);
    this.root = script.allocate(Math.max(64, bytes), Math.max(64, bytes));
  }

  /** Maps `input` somewhere by a leaf of `level`, where nothing is in the way. */
  map(input: bigint, level: number, output = this.#output(), bits = this.#leafBits()): void {
    const { granule, start } = this.shape;
    let table = this.root;
    for (let at = start; ; at++) {
      const shift = levelShift(granule, at);
      const index = (input & ((1n << BigInt(this.shape.bits)) - 1n)) >> BigInt(shift);
      const mask = at === start ? (1n << 40n) - 1n : (1n << BigInt(granule - 3)) - 1n;
      const entry = table + Number(index & mask) * 8;
      const there = this.#script.word(entry);
      if (at === level) {
        if (there === 0n) this.#leaf(input, output, entry, at, shift, bits);
        return;
      }
      if (there === 0n) {
        const next = this.#script.allocate(1 << granule, 1 << granule);
        this.nodes.push(entry);
        this.#script.store(
          entry,
          (BigInt(next) + this.shape.offset) | 3n | this.#tableBits(),
          `level ${at} table`,
        );
        table = next;
      } else if ((there & 2n) === 0n) return;
      else table = Number((there & 0xffff_ffff_f000n) - this.shape.offset);
    }
  }

  /** A level that has leaves, mostly the last. */
  pickLevel(): number {
    const { granule, start, large } = this.shape;
    const blocks = granule === 12 || (large && granule === 16) ? [1, 2] : [2];
    return this.#rng.pick([3, 3, 3, ...blocks.filter((level) => level >= start)]);
  }

  /** An input address from few regions, so that leaves share tables. */
  pickInput(): bigint {
    const rng = this.#rng;
    const { shape } = this;
    let input = 0n;
    for (let level = shape.start; level <= 3; level++) {
      const top = level === shape.start;
      const width = top ? shape.bits - levelShift(shape.granule, level) : shape.granule - 3;
      const last = 2 ** Math.min(width, 20) - 1;
      const index = level === 3 && !top ? rng.below(last + 1) : rng.pick([0, 0, 1, last]);
      input |= BigInt(Math.min(index, last)) << BigInt(levelShift(shape.granule, level));
    }
    return input;
  }

  /** Another value for a leaf. */
  leafValue(log2: number): bigint {
    const base = (this.#output() >> BigInt(log2)) << BigInt(log2);
    return this.#address(base) | (log2 === this.shape.granule ? 3n : 1n) | this.#leafBits();
  }

  #leaf(input: bigint, output: bigint, entry: number, level: number, log2: number, bits: bigint): void {
    const base = (output >> BigInt(log2)) << BigInt(log2);
    this.#script.store(entry, this.#address(base) | (level === 3 ? 3n : 1n) | bits, `level ${level} leaf`);
    this.leaves.push({ input: (input >> BigInt(log2)) << BigInt(log2), log2, entry });
  }

  /** An address as a descriptor holds it. */
  #address(base: bigint): bigint {
    const { large, granule } = this.shape;
    if (!large) return base;
    const low = BigInt.asUintN(48, base);
    return granule === 16 ? low | ((base >> 48n) << 12n) : low;
  }

  #output(): bigint {
    const rng = this.#rng;
    const outputs = this.#outputs;
    const { shape } = this;
    if (outputs.length > 0 && rng.chance(0.85)) {
      const { input, log2 } = rng.pick(outputs);
      return input + (rng.u64() & ((1n << BigInt(log2)) - 1n));
    }
    const bits = rng.pick([32, shape.outputBits, shape.outputBits, OUTPUT_BITS]);
    return rng.chance(0.03) ? rng.u64() & ((1n << 48n) - 1n) : rng.u64() & ((1n << BigInt(bits)) - 1n);
  }

  #tableBits(): bigint {
    if (this.shape.stage === 2) return 0n;
    const rng = this.#rng;
    const ap = rng.chance(this.shape.updates ? 0.25 : 0.1) ? BigInt(rng.below(4)) << 61n : 0n;
    return ap | this.#some(0x1n << 59n, 0.05) | this.#some(0x1n << 60n, 0.05) | this.#some(0xffn << 2n, 0.05);
  }

  #leafBits(): bigint {
    const rng = this.#rng;
    const { updates } = this.shape;
    const dirty = updates ? this.#some(DBM, 0.5) : 0n;
    const shared =
      dirty |
      this.#some(AF, updates ? 0.4 : 0.93) |
      this.#some(CONTIGUOUS, 0.08) |
      this.#some(1n << 54n, 0.1);
    const attributes = (BigInt(rng.below(4)) << 8n) | this.#some(BigInt(rng.below(16)) << 55n, 0.1);
    if (this.shape.stage === 2) {
      const s2ap = BigInt(rng.pick(dirty === 0n ? [3, 3, 3, 3, 3, 1, 1, 2, 0] : [3, 1, 1, 1, 0]));
      return shared | attributes | (s2ap << 6n) | this.#some(0x3cn, 0.3);
    }
    // What may become dirty is mostly clean: read-only as it stands.
    const ap = (rng.chance(0.95) ? 1n : 0n) | (rng.chance(dirty === 0n ? 0.25 : 0.7) ? 2n : 0n);
    return (
      shared |
      attributes |
      (ap << 6n) |
      (this.shape.global ? this.#some(NG, 0.7) : NG) |
      this.#some(BigInt(rng.below(8)) << 2n, 0.3)
    );
  }

  #some(bits: bigint, probability: number): bigint {
    return this.#rng.chance(probability) ? bits : 0n;
  }
}

/**
 * Second-stage tables that have the arena at `ARENA + offset`, in one block, and other mappings
 * beside it.
 */
export function mapArena(tables: TableSet, offset: bigint, rights = (3n << 6n) | AF): void {
  const level = 2;
  const shift = BigInt(levelShift(tables.shape.granule, level));
  const base = (BigInt(ARENA) >> shift) << shift;
  tables.map(base + offset, level, base, rights);
}
