/** Stream tables, STEs and CDs of the SMMUv3 cases. IHI 0070, chapter 5 */

import { type Layout, pack } from '../../src/spec/define.js';
import { ADDRESS_BITS } from '../../src/spec/smmuv3/registers.js';
import { CD, STE, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import type { Rng } from '../fuzz/rng.js';
import { hex, type Script } from './script.js';
import { ContextTable } from './smmu-contexts.js';
import { ARENA_BYTES, REG, type SmmuKind, write } from './smmu-machine.js';
import { levelShift, mapArena, type Shape, startLevel, TableSet } from './smmu-tables.js';

type Fields = Readonly<Record<string, number>>;

/**
 * What a stream is given: tables of one or two stages, and the numbers that tag their translations.
 */
export interface Space {
  readonly config: number;
  readonly vmid: number;
  readonly second: TableSet | undefined;
  /**
   * What stage 2 adds to addresses of the arena: where the CD and the tables of stage 1 are for it.
   */
  readonly offset: bigint;
  readonly ste: Fields;
  /** Of the table of context descriptors: those that there are, and what is made of them. */
  readonly contexts: readonly Context[];
}

/** Tables of TTB0 and TTB1, those that are there. */
export interface Half {
  readonly tables: TableSet;
  readonly upper: boolean;
  readonly tbi: boolean;
}

export interface Context {
  /** −1: of transactions without SubstreamID, where there is no table. */
  readonly ssid: number;
  readonly asid: number;
  readonly halves: readonly Half[];
  readonly cd: number;
}

export interface Stream {
  readonly sid: number;
  space: Space;
}

/** Words of a structure as 64-bit values. */
function quadwords<K extends string>(shape: Layout<K>, fields: { readonly [P in K]?: number }): bigint[] {
  const words = pack(shape, fields);
  return Array.from(
    { length: words.length / 2 },
    (_, n) => (BigInt(words[n * 2 + 1] >>> 0) << 32n) | BigInt(words[n * 2] >>> 0),
  );
}

/** Context descriptors of one table. */
const MOST_CONTEXTS = 3;

export class Streams {
  readonly #script: Script;
  readonly #rng: Rng;
  readonly #kind: SmmuKind;
  readonly list: Stream[] = [];
  /** Words worth making wrong. */
  readonly words: { readonly address: number; readonly what: string }[] = [];
  readonly #split: number;
  readonly #log2: number;
  readonly #base: number;
  readonly #asids: number[] = [];

  constructor(script: Script, rng: Rng, kind: SmmuKind) {
    this.#script = script;
    this.#rng = rng;
    this.#kind = kind;
    this.#split = rng.pick([0, 0, 6, 6, 8, 10]);
    this.#log2 = this.#split === 0 ? rng.pick([8, 8, 9, 5]) : 16;
    const entries = this.#split === 0 ? 64 << this.#log2 : 8 << (16 - this.#split);
    this.#base = script.allocate(entries, entries);
  }

  get linear(): boolean {
    return this.#split === 0;
  }

  /** STRTAB_BASE and STRTAB_BASE_CFG. */
  program(): void {
    write(this.#script, REG.STRTAB_BASE, 8, BigInt(this.#base), 'STRTAB_BASE');
    const format = this.linear ? 0 : 1;
    const value = this.#log2 | (this.#split << 6) | (format << 16);
    write(this.#script, REG.STRTAB_BASE_CFG, 4, BigInt(value), 'STRTAB_BASE_CFG');
  }

  attach(sid: number, space: Space): Stream {
    const stream = { sid, space };
    this.list.push(stream);
    this.name(stream);
    return stream;
  }

  /** Writes the STE of a stream. A linear table that is too short has none. */
  name({ sid, space }: Stream, valid = true): void {
    const address = this.#address(sid);
    if (address === undefined) return;
    const values = quadwords(STE, { ...space.ste, V: valid ? 1 : 0 });
    for (const [n, value] of values.entries())
      this.#script.store(address + n * 8, value, `STE ${hex(sid)} +${n * 8}`);
    for (const n of [0, 1, 2, 3])
      this.words.push({ address: address + n * 8, what: `STE ${hex(sid)} +${n * 8}` });
  }

  #address(sid: number): number | undefined {
    const script = this.#script;
    const rng = this.#rng;
    if (this.linear) return sid < 1 << this.#log2 ? this.#base + sid * STE.bytes : undefined;
    const slot = this.#base + (sid >> this.#split) * 8;
    if (script.word(slot) === 0n) {
      const table = script.allocate(STE.bytes << this.#split, STE.bytes << this.#split);
      // Span: 2^(Span − 1) entries; mostly all that SPLIT allows.
      const span = rng.chance(0.9) ? this.#split + 1 : 1 + rng.below(this.#split);
      script.store(slot, BigInt(table) | BigInt(span), 'L1STD');
      this.words.push({ address: slot, what: 'L1STD' });
    }
    return Number(script.word(slot) & 0xf_ffff_ffff_ffc0n) + (sid & ((1 << this.#split) - 1)) * STE.bytes;
  }

  /** A configuration that this kind of unit can do. */
  space(): Space {
    const rng = this.#rng;
    const kind = this.#kind;
    const translated = {
      '1': [STE_CONFIG.S1_TRANSLATE],
      '2': [STE_CONFIG.S2_TRANSLATE],
      nested: [STE_CONFIG.S1_TRANSLATE, STE_CONFIG.S2_TRANSLATE, STE_CONFIG.NESTED, STE_CONFIG.NESTED],
    }[kind.stages];
    const config = rng.chance(0.05) ? 0 : rng.chance(0.08) ? STE_CONFIG.BYPASS : rng.pick(translated);
    const vmid = rng.below(0x10000);
    const asid = this.#ownAsids(rng.below(0x10000));
    const second = (config & 6) === 6 ? this.#secondStage(config === STE_CONFIG.NESTED) : undefined;
    const secondFields: Fields = second === undefined ? {} : this.#secondFields(second);
    const offset = second === undefined ? 0n : this.#mapArena(second);
    const first = (config & 5) === 5 ? this.#contexts(asid, offset, second) : undefined;
    const ste = {
      Config: config,
      S2VMID: vmid,
      ...secondFields,
      ...(first === undefined ? {} : first.ste),
      // Attributes mean nothing here.
      ...(rng.chance(0.3) ? { MTCFG: 1, MemAttr: 15, SHCFG: 1, S1CIR: 1, S1COR: 1, S1CSH: 3 } : {}),
    };
    return { config, vmid, second, offset, ste, contexts: first?.contexts ?? [] };
  }

  /** The first of so many that no other space has. */
  #ownAsids(drawn: number): number {
    let asid = drawn;
    while (this.#asids.some((other) => Math.abs(other - asid) < MOST_CONTEXTS)) {
      asid = (asid + MOST_CONTEXTS) % (0x10000 - MOST_CONTEXTS);
    }
    this.#asids.push(asid);
    return asid;
  }

  /** One context descriptor, or a table of them where the unit has SubstreamIDs. */
  #contexts(
    asid: number,
    offset: bigint,
    second: TableSet | undefined,
  ): { readonly ste: Fields; readonly contexts: Context[] } {
    const rng = this.#rng;
    const script = this.#script;
    const kind = this.#kind;
    const size = kind.substreamBits > 0 && rng.chance(0.85) ? 1 + rng.below(kind.substreamBits) : 0;
    if (size === 0) {
      const cd = script.allocate(CD.bytes);
      const halves = this.#firstStage(cd, asid, offset, second);
      return { ste: { S1ContextPtr: cd + Number(offset) }, contexts: [{ ssid: -1, asid, halves, cd }] };
    }
    const table = new ContextTable(script, rng, size, offset);
    const ssids = new Set([0, rng.below(2 ** size), rng.below(2 ** size)]);
    const contexts = [...ssids].slice(0, rng.pick([1, 2, MOST_CONTEXTS])).map((ssid, n) => {
      const cd = table.slot(ssid, (address, what) => this.words.push({ address, what }));
      // Neighbours' tags: what one has must not serve another.
      return {
        ssid,
        asid: asid + n,
        halves: this.#firstStage(cd, asid + n, offset, second),
        cd,
      };
    });
    return { ste: { ...table.fields, S1DSS: rng.pick([0, 1, 1, 2, 2, 2, 2, 2, 2, 3]) }, contexts };
  }

  #secondStage(nested: boolean): TableSet {
    const rng = this.#rng;
    const script = this.#script;
    const granule = rng.pick([12, 12, 14, 16]);
    const widest = granule === 16 ? this.#kind.outputBits : Math.min(48, this.#kind.outputBits);
    const bits = rng.pick(this.#updates ? [32, 36, 40, 42, widest] : [32, 36, 40, 42, 44]);
    // Every start level whose tables are at most 16 concatenated ones.
    const levels = [0, 1, 2].filter((start) => {
      const entries = bits - levelShift(granule, start);
      return start <= 2 && entries > 0 && entries <= granule - 3 + 4 && (granule === 12 || start > 0);
    });
    // Mostly one root table: stock's model loses the index of concatenated ones, and then nothing
    // is reached.
    const single = levels.filter((level) => bits - levelShift(granule, level) <= granule - 3);
    const start = rng.pick(single.length > 0 && rng.chance(nested ? 0.9 : 0.6) ? single : levels);
    const shape: Shape = {
      stage: 2,
      granule,
      bits,
      start,
      offset: 0n,
      outputBits: this.#kind.outputBits,
      global: false,
      updates: this.#updates,
      large: this.#kind.outputBits === 52,
    };
    return new TableSet(script, rng, shape);
  }

  /** The arena's own mapping first, then others. @returns what it adds */
  #mapArena(tables: TableSet): bigint {
    const rng = this.#rng;
    const unit = 1n << BigInt(levelShift(tables.shape.granule, 2));
    const offset = rng.pick([0n, 0n, unit, unit * 2n]);
    // Attributes that S2PTW refuses, or tables of stage 1 that cannot be changed: rare, for nothing
    // gets through then.
    const bits = !this.#updates
      ? undefined
      : (rng.chance(0.93) ? 3n << 6n : 1n << 6n) |
        (rng.chance(0.85) ? 0x3cn : 0n) |
        (rng.chance(0.7) ? 1n << 10n : 0n);
    mapArena(tables, offset, bits);
    for (let n = 3 + rng.below(4); n > 0; n--) tables.map(tables.pickInput(), tables.pickLevel());
    return offset;
  }

  #secondFields({ root, shape }: TableSet): Fields {
    const rng = this.#rng;
    const sl0 = shape.granule === 12 ? 2 - shape.start : 3 - shape.start;
    return {
      S2T0SZ: 64 - shape.bits,
      S2SL0: sl0,
      S2TG: shape.granule === 12 ? 0 : shape.granule === 16 ? 1 : 2,
      S2PS: rng.pick([4, 4, 5, 4]),
      S2AA64: 1,
      S2AFFD: rng.chance(0.1) ? 1 : 0,
      S2R: rng.chance(this.#updates ? 0.8 : 0.9) ? 1 : 0,
      S2TTB: root,
      ...(this.#updates
        ? { S2PTW: rng.below(2), S2PS: rng.pick([4, 5, 6, 6]), ...this.#updateFields('S2HA', 'S2HD') }
        : {}),
    };
  }

  get #updates(): boolean {
    return this.#kind.updates > 0;
  }

  /** HA, and HD where the unit has it. */
  #updateFields(access: string, dirty: string): Fields {
    const rng = this.#rng;
    const kind = this.#kind;
    const ha = rng.chance(0.8) ? 1 : 0;
    return { [access]: ha, [dirty]: ha === 1 && kind.updates === 2 && rng.chance(0.7) ? 1 : 0 };
  }

  #firstStage(cd: number, asid: number, offset: bigint, second: TableSet | undefined): Half[] {
    const rng = this.#rng;
    const script = this.#script;
    const ips = rng.pick(this.#updates ? [0, 2, 4, 5, 6, 6] : [0, 2, 4, 4, 5]);
    const both = rng.chance(0.35);
    const uppers = both ? [false, true] : [rng.chance(0.2)];
    const outputs = second?.leaves ?? [];
    const tables = uppers.map((upper) => ({
      tables: this.#firstTables(offset, Math.min(ADDRESS_BITS[ips] ?? 52, this.#kind.outputBits), outputs),
      upper,
      tbi: rng.chance(0.2),
    }));
    const fields: Record<string, number> = {
      V: 1,
      AA64: 1,
      A: 1,
      R: rng.chance(0.9) ? 1 : 0,
      AFFD: rng.chance(0.1) ? 1 : 0,
      IPS: ips,
      ASID: asid,
      EPD0: 1,
      EPD1: 1,
      ASET: rng.below(2),
      ...(this.#updates ? this.#updateFields('HA', 'HD') : {}),
    };
    for (const { tables: set, upper, tbi } of tables) {
      const n = upper ? 1 : 0;
      const { granule, bits } = set.shape;
      fields[`EPD${n}`] = 0;
      fields[`T${n}SZ`] = 64 - bits;
      fields[`TG${n}`] = upper
        ? granule === 12
          ? 2
          : granule === 14
            ? 1
            : 3
        : granule === 12
          ? 0
          : granule === 16
            ? 1
            : 2;
      fields[`TBI${n}`] = tbi ? 1 : 0;
      fields[`HAD${n}`] = rng.chance(this.#updates ? 0.4 : 0.15) ? 1 : 0;
      fields[`TTB${n}`] = set.root + Number(offset);
    }
    const values = quadwords(CD, fields);
    for (const [n, value] of values.entries()) script.store(cd + n * 8, value, `CD +${n * 8}`);
    for (const n of [0, 0, 1, 2]) this.words.push({ address: cd + n * 8, what: `CD +${n * 8}` });
    return tables;
  }

  #firstTables(offset: bigint, outputBits: number, outputs: TableSet['leaves']): TableSet {
    const rng = this.#rng;
    const script = this.#script;
    // Large tables only while there is room for them.
    const granule = rng.pick(this.#updates && script.used > ARENA_BYTES / 2 ? [12] : [12, 12, 14, 16]);
    const widest = granule === 16 && this.#kind.outputBits === 52 ? 52 : 48;
    const bits = rng.pick([25, 32, 36, 39, 42, 47, 48, widest]);
    const start = startLevel(granule, bits);
    // Without stage 2 there is one VMID, and contexts of a stream share theirs: global leaves of
    // one would be another's.
    const global = this.#kind.stages === 'nested' && this.#kind.substreamBits === 0;
    const tables = new TableSet(
      script,
      rng,
      {
        ...{ stage: 1, granule, bits, start, offset, outputBits, global, updates: this.#updates },
        large: this.#kind.outputBits === 52,
      },
      outputs,
    );
    for (let n = 3 + rng.below(5); n > 0; n--) tables.map(tables.pickInput(), tables.pickLevel());
    return tables;
  }
}
