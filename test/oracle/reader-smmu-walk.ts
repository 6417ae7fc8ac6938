/**
 * The tables of the SMMUv3's third reader: stage 1, stage 2, and one upon the other. IHI 0070 §3.3,
 * §3.4, §7.3.12 to §7.3.16
 */
import type { Asked, Store } from '../walk/reference.js';
import {
  stage1Start,
  type VmsaAnswer,
  type VmsaOutcome,
  type VmsaRules,
  vmsaReference,
} from '../walk/vmsa-reference.js';
import { bit, field, number, type Slate, within } from './reading.js';

interface Detail {
  readonly recorded: boolean;
  readonly s2: boolean;
  /** What was being translated: CLASS. */
  readonly klass: 'CD' | 'TT' | 'IN';
  readonly ipa: bigint;
  /** Physical address of what could not be read. */
  readonly fetched: bigint;
  /** A descriptor was to be read, rather than updated. */
  readonly tableRead: boolean;
}

/** A transaction is terminated, with an event of §7.3 or with none (`aborted`). */
export class Blocked extends Error {
  readonly recorded: boolean;
  readonly s2: boolean;
  readonly klass: 'CD' | 'TT' | 'IN';
  readonly ipa: bigint;
  readonly fetched: bigint;
  readonly tableRead: boolean;

  constructor(
    readonly event: string,
    detail: Partial<Detail> = {},
  ) {
    super(event);
    this.recorded = detail.recorded ?? true;
    this.s2 = detail.s2 ?? false;
    this.klass = detail.klass ?? 'IN';
    this.ipa = detail.ipa ?? 0n;
    this.fetched = detail.fetched ?? 0n;
    this.tableRead = detail.tableRead ?? false;
  }
}

interface Tables {
  readonly root: bigint;
  readonly rules: VmsaRules;
}

export interface FirstStage {
  /** Without EPD0, without EPD1. */
  readonly low: Tables | undefined;
  readonly high: Tables | undefined;
  /** CD.R */
  readonly recorded: boolean;
}

export interface SecondStage extends Tables {
  /** STE.S2R */
  readonly recorded: boolean;
}

export interface Contexts {
  readonly first?: FirstStage;
  readonly second?: SecondStage;
}

export interface Translated {
  readonly output: bigint;
  readonly log2: number;
  readonly rights: number;
}

/** IPS and S2PS: 0b110 is 52 bits, and so is the reserved value. */
export const outputBitsOf = (size: number): number => [32, 36, 40, 42, 44, 48, 52, 52][size];

/** Bits of a page, and how many an entry of Arm's level resolves above it. */
const PAGE = { 4: 12, 16: 14, 64: 16 } as const;
const lowBitOf = (granule: 4 | 16 | 64, level: number): number =>
  PAGE[granule] + (3 - level) * (PAGE[granule] - 3);

/**
 * Root tables are aligned to their size, 64 bytes at least: of all of them where several are
 * concatenated.
 */
function rootOf(root: bigint, { granule, inputBits }: VmsaRules, level: number): bigint {
  const size = 1n << BigInt(Math.max(6, 3 + inputBits - lowBitOf(granule, level)));
  return root - (root % size);
}

/** Stage 2 of an STE; undefined where what it asks for does not exist. §5.2 */
export function secondStageOf(ste: readonly bigint[], outputBits: number): SecondStage | undefined {
  const [, , word, table] = ste;
  const granule = ([4, 64, 16, undefined] as const)[number(word, 47, 46)];
  if (granule === undefined) return undefined;
  const size = number(word, 37, 32);
  if (size > 39 || size < (granule === 64 && outputBits === 52 ? 12 : 16)) return undefined;
  const inputBits = 64 - size;
  const sl0 = number(word, 39, 38);
  const startLevel = (granule === 4 ? 2 : 3) - sl0;
  if (sl0 === 3 || inputBits > outputBits) return undefined;
  // At least two entries in the root, at most 16 tables.
  const entries = inputBits - lowBitOf(granule, startLevel);
  if (entries < 1 || entries > PAGE[granule] - 3 + 4) return undefined;
  const updates = bit(word, 56);
  const rules: VmsaRules = {
    ...{ stage: 2, granule, inputBits, startLevel },
    outputBits: Math.min(outputBitsOf(number(word, 50, 48)), outputBits),
    lpa: outputBits === 52,
    clearFlag: updates ? 'update' : bit(word, 53) ? 'ignore' : 'fault',
    hd: updates && bit(word, 55),
    ...{ ttb1: false, tbi: false, hpd: false, wxn: false, pan: false, single: false, xnx: true },
    ptw: bit(word, 54),
  };
  const root = rootOf(field(table, 51, 4) << 4n, rules, startLevel);
  return { root, rules, recorded: bit(word, 58) };
}

const EVENTS: Readonly<Record<VmsaOutcome, string>> = {
  OK: '',
  INPUT: 'F_TRANSLATION',
  TRANSLATION: 'F_TRANSLATION',
  ADDRESS_SIZE: 'F_ADDR_SIZE',
  ACCESS_FLAG: 'F_ACCESS',
  PERMISSION: 'F_PERMISSION',
  FETCH: 'F_WALK_EABT',
  UPDATE: 'F_WALK_EABT',
  STAGE2_ON_FETCH: '',
  STAGE2: '',
};

const rightsOf = ({ cache }: VmsaAnswer): number => (cache.read ? 1 : 0) | (cache.write ? 2 : 0);

export class SmmuWalker {
  readonly #slate: Slate;
  readonly #outputBits: number;
  readonly #contexts: Contexts;
  constructor(slate: Slate, outputBits: number, contexts: Contexts) {
    this.#slate = slate;
    this.#outputBits = outputBits;
    this.#contexts = contexts;
  }

  translate(address: bigint, asked: Asked, look: boolean): Translated {
    const { first, second } = this.#contexts;
    // §3.4: what stage 1 would put out is bounded, also where it is bypassed.
    if (first === undefined) {
      if (address >> BigInt(this.#outputBits) !== 0n) throw new Blocked('F_ADDR_SIZE');
      if (second === undefined) return { output: address, log2: this.#outputBits, rights: 3 };
      return this.#second(second, address, asked, 'IN', look);
    }
    const tables = bit(address, 55) ? first.high : first.low;
    const { recorded } = first;
    if (tables === undefined) throw new Blocked('F_TRANSLATION', { recorded });
    const { rules } = tables;
    const root = rootOf(tables.root, rules, stage1Start(rules));
    let physical = 0n;
    const inner = this.#slate.tables('stage 1');
    const place = (at: bigint, write: boolean): bigint => {
      if (second === undefined) physical = at;
      else {
        const what = { read: true, write, execute: false, privileged: false };
        physical = this.#second(second, at, what, 'TT', look).output;
      }
      return physical;
    };
    const view: Store = {
      read: (at) => inner.read(place(at, false)),
      exchange: (at, was, value) => inner.exchange(place(at, true), was, value),
    };
    const one = vmsaReference(rules, view, root, address, asked, look);
    if (one.outcome === 'FETCH' || one.outcome === 'UPDATE') {
      throw new Blocked('F_WALK_EABT', { klass: 'TT', fetched: physical });
    }
    if (one.outcome !== 'OK') throw new Blocked(EVENTS[one.outcome], { recorded });
    const intermediate = one.output + within(address, one.log2Size);
    if (second === undefined) return { output: intermediate, log2: one.log2Size, rights: rightsOf(one) };
    const two = this.#second(second, intermediate, asked, 'IN', look);
    return { ...two, log2: Math.min(one.log2Size, two.log2), rights: rightsOf(one) & two.rights };
  }

  /**
   * Words of a structure that stage 1 needs: its address is an intermediate one where there is a
   * stage 2.
   */
  fetch(address: bigint, count: number): bigint[] {
    const { second } = this.#contexts;
    let base = address;
    const words = Array.from({ length: count }, (_, n) => {
      const at = address + 8n * BigInt(n);
      const what = { read: true, write: false, execute: false, privileged: false };
      const physical = second === undefined ? at : this.#second(second, at, what, 'CD', false).output;
      if (n === 0) base = physical;
      const word = this.#slate.word(physical);
      if (word === undefined) throw new Blocked('F_CD_FETCH', { fetched: base });
      return word;
    });
    return words;
  }

  #second(
    { root, rules, recorded }: SecondStage,
    address: bigint,
    asked: Asked,
    klass: 'CD' | 'TT' | 'IN',
    look: boolean,
  ): Translated {
    const answer = vmsaReference(rules, this.#slate.tables('stage 2'), root, address, asked, look);
    let { outcome } = answer;
    const { read, write } = answer.rights;
    if (outcome === 'OK' && ((asked.read && !read) || (asked.write && !write))) outcome = 'PERMISSION';
    // S2PTW: MemAttr[3:2] of Device memory is 0.
    const device = field(answer.entry, 5, 4) === 0n;
    if (outcome === 'OK' && klass !== 'IN' && rules.ptw && device) outcome = 'PERMISSION';
    if (outcome === 'FETCH' || outcome === 'UPDATE') {
      throw new Blocked('F_WALK_EABT', { s2: true, klass, fetched: answer.entryAddress, ipa: address });
    }
    if (outcome !== 'OK') {
      const tableRead = !asked.write;
      throw new Blocked(EVENTS[outcome], { recorded, s2: true, klass, ipa: address, tableRead });
    }
    const output = answer.output + within(address, answer.log2Size);
    return { output, log2: answer.log2Size, rights: rightsOf(answer) };
  }
}
