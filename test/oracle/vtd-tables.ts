/**
 * Page tables of the VT-d cases: mostly what a driver would build, with everything a driver may
 * choose. VT-d §9.8, §9.9
 */
import type { Rng } from '../fuzz/rng.js';
import type { Script } from './script.js';
import { ARENA, ARENA_BYTES } from './vtd-machine.js';

export const MASK52 = 0xf_ffff_ffff_f000n;
/** Where neither machine has anything. */
export const HOLES = [0x0400_0000n, 0x1_2345_6000n, 0x7f_ffff_f000n] as const;

const SS = { R: 1n, W: 2n, PS: 0x80n, SNP: 0x800n, TM: 1n << 62n } as const;
const FS = { P: 1n, RW: 2n, US: 4n, PWT: 8n, PCD: 16n, A: 32n, D: 64n, PS: 0x80n, G: 0x100n } as const;

export type Stage = 'second' | 'first' | 'nested' | 'pass-through';

export interface Leaf {
  /** First input address. */
  readonly input: bigint;
  /** 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB. */
  readonly level: number;
  /** Where the entry is. */
  readonly entry: number;
}

/**
 * One set of tables and the domain-id that goes with it; nested: the first stage, and what is below
 * it.
 */
export interface Domain {
  readonly stage: Stage;
  /**
   * Nested: the second stage, and what it subtracts from addresses of the arena, where its first
   * stage is for it.
   */
  readonly second?: Domain;
  readonly offset: bigint;
  readonly did: number;
  readonly levels: number;
  readonly root: number;
  readonly leaves: Leaf[];
  /** Entries that point to tables. */
  readonly nodes: number[];
}

interface TableOptions {
  readonly addressWidth: number;
  readonly snoopControl: boolean;
}

/** Stages whose tables a process would have. */
export const isFirst = (stage: Stage): boolean => stage === 'first' || stage === 'nested';

/** Tables of one domain, made through a script. */
export class Tables {
  readonly #script: Script;
  readonly #rng: Rng;
  readonly #options: TableOptions;
  constructor(script: Script, rng: Rng, options: TableOptions) {
    this.#script = script;
    this.#rng = rng;
    this.#options = options;
  }

  domain(stage: Stage, did: number, levels: number, leaves: number, second?: Domain): Domain {
    const root = stage === 'pass-through' ? Number(HOLES[1]) : this.#script.allocate();
    const below = second === undefined ? { offset: 0n } : { second, offset: this.#mapArena(second) };
    const domain: Domain = { stage, did, levels, root, leaves: [], nodes: [], ...below };
    if (stage !== 'pass-through') this.fill(domain, leaves);
    return domain;
  }

  /** Maps so much more. */
  fill(domain: Domain, leaves: number): void {
    for (let n = 0; n < leaves; n++) this.map(domain, this.#input(domain), this.#level());
  }

  /**
   * Maps the arena in tables of a second stage, so that tables of a first one are there: by one
   * page of 2 MiB, or by small ones of which some allow less. @returns how far above its place
   */
  #mapArena(second: Domain): bigint {
    const rng = this.#rng;
    const offset = rng.pick([0n, 1n << 21n, 1n << 30n, 5n << 30n]);
    const arena = BigInt(ARENA);
    if (rng.chance(0.75)) {
      this.map(second, arena + offset, 2, arena | SS.PS | SS.R | this.#some(SS.W, 0.9));
      return offset;
    }
    for (let at = 0; at < ARENA_BYTES; at += 4096) {
      const page = arena + BigInt(at);
      this.map(second, page + offset, 1, page | this.#some(SS.R, 0.97) | this.#some(SS.W, 0.97));
    }
    return offset;
  }

  #level(): number {
    return this.#rng.pick([1, 1, 1, 1, 2, 2, 3]);
  }

  /** An address from few regions, so that leaves share tables. */
  #input(domain: Domain): bigint {
    const rng = this.#rng;
    const top = domain.levels >= 4 ? BigInt(rng.pick([0, 0, 0, 1, 255, 256, 511])) : 0n;
    const fifth = domain.levels === 5 ? BigInt(rng.pick([0, 0, 0, 1, 255, 256, 511])) : 0n;
    const third = BigInt(rng.pick([0, 1, 1, 3, 255, 511]));
    const second = BigInt(rng.pick([0, 1, 2, 0x1f6, 511]));
    const input =
      (fifth << 48n) | (top << 39n) | (third << 30n) | (second << 21n) | (BigInt(rng.below(512)) << 12n);
    const width = 12 + 9 * domain.levels;
    return isFirst(domain.stage) ? BigInt.asUintN(64, BigInt.asIntN(width, input)) : input;
  }

  /** Maps where nothing is mapped yet; what is in the way of a large page makes it a small one. */
  map(domain: Domain, input: bigint, level: number, value?: bigint): void {
    let table = domain.root;
    for (let at = domain.levels; ; at--) {
      const entry = table + Number((input >> BigInt(3 + 9 * at)) & 511n) * 8;
      const there = this.#script.word(entry);
      if (at === level || at === 1) {
        if (there === 0n) this.#leaf(domain, input, at, entry, value ?? this.leafValue(domain, at));
        else if (at > 1 && (there & SS.PS) === 0n) this.map(domain, input, at - 1);
        return;
      }
      if (there === 0n) {
        const next = this.#script.allocate();
        domain.nodes.push(entry);
        const pointer = BigInt(next) + domain.offset;
        this.#script.store(entry, pointer | this.#tableBits(domain), `level ${at} entry`);
        table = next;
      } else if (at < 4 && (there & SS.PS) !== 0n) return;
      else table = Number((there & MASK52) - domain.offset);
    }
  }

  #leaf(domain: Domain, input: bigint, level: number, entry: number, value: bigint): void {
    const size = BigInt(3 + 9 * level);
    this.#script.store(entry, value, `level ${level} leaf`);
    domain.leaves.push({ input: (input >> size) << size, level, entry });
  }

  /** A leaf to somewhere. */
  leafValue({ stage, second }: Domain, level: number): bigint {
    const align = ~((1n << BigInt(3 + 9 * level)) - 1n);
    return (this.#output(second) & align) | this.#leafBits(stage, level);
  }

  /** `second`: mostly to what those tables map. */
  #output(second: Domain | undefined): bigint {
    const rng = this.#rng;
    const options = this.#options;
    if (second !== undefined && rng.chance(0.8)) {
      const { input, level } = rng.pick(second.leaves);
      return input + (rng.u64() & ((1n << BigInt(3 + 9 * level)) - 1n));
    }
    switch (rng.below(12)) {
      case 0:
        return 0xfee0_0000n + BigInt(rng.below(1 << 20));
      case 1:
        return 0xfec0_0000n + BigInt(rng.below(1 << 22));
      case 2:
        return (1n << BigInt(options.addressWidth)) - 1n - BigInt(rng.below(1 << 24));
      default:
        return rng.u64() & ((1n << BigInt(rng.pick([32, 36, options.addressWidth]))) - 1n);
    }
  }

  #tableBits(domain: Domain): bigint {
    const rng = this.#rng;
    if (isFirst(domain.stage)) {
      return (
        FS.P | this.#some(FS.RW, 0.9) | this.#some(FS.US, 0.97) | this.#some(FS.A, 0.3) | this.#cacheBits()
      );
    }
    const ignored =
      this.#some(BigInt(rng.below(8)) << 8n, 0.2) | this.#some(BigInt(rng.below(1024)) << 52n, 0.1);
    return this.#some(SS.R, 0.96) | this.#some(SS.W, 0.93) | ignored;
  }

  #leafBits(stage: Stage, level: number): bigint {
    const rng = this.#rng;
    const options = this.#options;
    const large = level > 1 ? SS.PS : 0n;
    if (isFirst(stage)) {
      const flags = this.#some(FS.A, 0.4) | this.#some(FS.D, 0.3) | this.#some(FS.G, 0.2) | this.#cacheBits();
      return FS.P | this.#some(FS.RW, 0.8) | this.#some(FS.US, 0.95) | large | flags;
    }
    const ignored =
      this.#some(BigInt(rng.below(8)) << 8n, 0.2) | this.#some(BigInt(rng.below(1024)) << 52n, 0.1);
    const snoop = options.snoopControl ? this.#some(SS.SNP, 0.2) : 0n;
    return this.#some(SS.R, 0.88) | this.#some(SS.W, 0.8) | large | ignored | snoop;
  }

  #cacheBits(): bigint {
    return this.#some(FS.PWT | FS.PCD, 0.1) | this.#some(1n << 55n, 0.05);
  }

  #some(bits: bigint, probability: number): bigint {
    return this.#rng.chance(probability) ? bits : 0n;
  }
}
