/**
 * The third reader of the SMMUv3: IHI 0070 chapters 3, 5 and 7, for AArch64 tables. See reading.ts.
 */
import type { Asked } from '../walk/reference.js';
import {
  Blocked,
  type Contexts,
  type FirstStage,
  outputBitsOf,
  type SecondStage,
  SmmuWalker,
  secondStageOf,
  type Translated,
} from './reader-smmu-walk.js';
import { bit, field, flawOf, number, type Reading, type Slate } from './reading.js';
import type { Outcome, Request } from './script.js';

/** What the unit advertises; stalls, ATS, PRI and HYP are not there, all granules are. */
export interface SmmuUnit {
  readonly stages: '1' | '2' | 'nested';
  /** OAS. */
  readonly outputBits: number;
  /** SSIDSIZE. */
  readonly substreamBits: number;
  /** IDR0.HTTU: 0 nothing, 1 Access flags, 2 dirty state too. */
  readonly updates: 0 | 1 | 2;
}

/** The registers that a transaction depends on, as they read. */
interface SmmuRegisters {
  readonly CR0: bigint;
  readonly CR2: bigint;
  readonly GBPA: bigint;
  readonly STRTAB_BASE: bigint;
  readonly STRTAB_BASE_CFG: bigint;
}

export function readSmmu(unit: SmmuUnit, registers: SmmuRegisters, slate: Slate, request: Request): Reading {
  return new SmmuReader(unit, registers, slate, request).read();
}

class SmmuReader {
  readonly #unit: SmmuUnit;
  readonly #registers: SmmuRegisters;
  readonly #slate: Slate;
  readonly #request: Request;
  constructor(unit: SmmuUnit, registers: SmmuRegisters, slate: Slate, request: Request) {
    this.#unit = unit;
    this.#registers = registers;
    this.#slate = slate;
    this.#request = request;
  }

  read(): Reading {
    const slate = this.#slate;
    const request = this.#request;
    try {
      const contexts = this.#contexts();
      const walker = new SmmuWalker(slate, this.#unit.outputBits, contexts);
      const found = this.#translate(walker);
      return {
        outcome: { translated: 1, output: found.output, event: 'none' },
        writes: slate.writes,
        flaw: (log2, permissions) =>
          flawOf({ ...request, ...found }, { log2, permissions }, (address) =>
            this.#look(walker, contexts, address),
          ),
      };
    } catch (error) {
      if (!(error instanceof Blocked)) throw error;
      return { outcome: { translated: 0, ...this.#record(error) }, writes: slate.writes };
    }
  }

  #translate(walker: SmmuWalker): Translated {
    const { address, access } = this.#request;
    const asked: Asked = {
      read: (access & 1) !== 0,
      write: (access & 2) !== 0,
      execute: false,
      privileged: false,
    };
    return walker.translate(address, asked, false);
  }

  #look(walker: SmmuWalker, { first, second }: Contexts, address: bigint): Translated | undefined {
    if (first === undefined && second === undefined) return undefined;
    try {
      return walker.translate(
        address,
        { read: false, write: false, execute: false, privileged: false },
        true,
      );
    } catch (error) {
      if (error instanceof Blocked) return undefined;
      throw error;
    }
  }

  /** The record of an event. §7.3 */
  #record({ event, recorded, s2, klass, ipa, fetched, tableRead }: Blocked): Outcome {
    const { rid, pasid, access, address } = this.#request;
    if (!recorded || event === 'aborted') return { event: 'none' };
    if (event === 'C_BAD_STREAMID' && !bit(this.#registers.CR2, 1)) return { event: 'none' };
    const head = { event, StreamID: rid };
    const substream = pasid < 0 ? 0 : pasid;
    if (event === 'F_STREAM_DISABLED') return head;
    if (event === 'C_BAD_SUBSTREAMID') return { ...head, SubstreamID: substream };
    const full = { ...head, SSV: pasid < 0 ? 0 : 1, SubstreamID: substream };
    const FetchAddr = Number(field(fetched, 51, 3) << 3n);
    if (event === 'F_STE_FETCH' || event === 'F_CD_FETCH') return { ...full, Reason: 0, FetchAddr };
    if (event.startsWith('C_BAD')) return full;
    const transaction = {
      ...{ PnU: 0, InD: 0, RnW: (access & 2) === 0 ? 1 : 0, InputAddr: address },
      ...{ NSIPA: 0, S2: s2 ? 1 : 0, CLASS: ['CD', 'TT', 'IN'].indexOf(klass) },
    };
    if (event === 'F_WALK_EABT') return { ...full, ...transaction, Reason: 0, FetchAddr };
    const table = event === 'F_PERMISSION' ? { TTRnW: klass === 'TT' && tableRead ? 1 : 0 } : {};
    const IPA = s2 ? Number(field(ipa, 51, 12) << 12n) : 0;
    return { ...full, ...transaction, ...table, STAG: 0, Stall: 0, IPA };
  }

  /** What translates the transaction; without stages nothing does. */
  #contexts(): Contexts {
    const registers = this.#registers;
    const unit = this.#unit;
    const request = this.#request;
    const bypass: Contexts = {};
    if (!bit(registers.CR0, 0)) {
      const beyond = request.address >> BigInt(unit.outputBits) !== 0n;
      if (bit(registers.GBPA, 20) || beyond) throw new Blocked('aborted');
      return bypass;
    }
    const ste = this.#streamEntry();
    const config = number(ste[0], 3, 1);
    if (config < 4) throw new Blocked('aborted');
    const second = (config & 2) === 0 ? undefined : secondStageOf(ste, unit.outputBits);
    const below = second === undefined ? bypass : { second };
    const { pasid } = request;
    if ((config & 1) === 0) {
      if (pasid >= 0) throw new Blocked('C_BAD_SUBSTREAMID');
      return below;
    }
    const size = unit.substreamBits === 0 ? 0 : number(ste[0], 63, 59);
    const behaviour = size === 0 ? 2 : number(ste[1], 1, 0);
    if (pasid >= 0) {
      if (pasid >= 2 ** size || size === 0) throw new Blocked('C_BAD_SUBSTREAMID');
      if (pasid === 0 && behaviour === 2) throw new Blocked('F_STREAM_DISABLED');
    } else {
      if (behaviour === 1) return below;
      if (behaviour !== 2) throw new Blocked('F_STREAM_DISABLED');
    }
    const cd = this.#contextDescriptor(ste, size, Math.max(0, pasid), second);
    return { first: this.#firstStage(cd), ...(second && { second }) };
  }

  /** §5.1, §5.2, §3.3.1, §3.3.2 */
  #streamEntry(): bigint[] {
    const { STRTAB_BASE: base, STRTAB_BASE_CFG: config } = this.#registers;
    const sid = this.#request.rid;
    const log2 = Math.min(number(config, 5, 0), 16);
    if (sid >= 2 ** log2) throw new Blocked('C_BAD_STREAMID');
    const table = field(base, 51, 6) << 6n;
    let at = aligned(table, 64 * 2 ** log2) + BigInt(sid) * 64n;
    if (number(config, 17, 16) === 1) {
      const split = [8, 10].includes(number(config, 10, 6)) ? number(config, 10, 6) : 6;
      const l1 = aligned(table, 8 * 2 ** Math.max(0, log2 - split)) + BigInt(sid >> split) * 8n;
      const descriptor = this.#slate.word(l1);
      if (descriptor === undefined) throw new Blocked('F_STE_FETCH', { fetched: l1 });
      const span = number(descriptor, 4, 0);
      const index = sid % 2 ** split;
      if (span === 0 || span > 11 || span - 1 > split || index >= 2 ** (span - 1)) {
        throw new Blocked('C_BAD_STREAMID');
      }
      const below = aligned(field(descriptor, 51, 6) << 6n, 64 * 2 ** (span - 1));
      at = below + BigInt(index) * 64n;
    }
    const ste = this.#slate.words(at, 8);
    if (ste === undefined) throw new Blocked('F_STE_FETCH', { fetched: at });
    if (!bit(ste[0], 0) || this.#streamEntryIllegal(ste)) throw new Blocked('C_BAD_STE');
    return ste;
  }

  /** §5.2.2 */
  #streamEntryIllegal(ste: readonly bigint[]): boolean {
    const unit = this.#unit;
    const config = number(ste[0], 3, 1);
    if (config < 4) return false;
    const [one, two] = [(config & 1) !== 0, (config & 2) !== 0];
    if ((one && unit.stages === '2') || (two && unit.stages === '1')) return true;
    if (one) {
      // S1STALLD without stalls.
      if (bit(ste[1], 27)) return true;
      if (!two && field(ste[0], 51, 6) >> BigInt(unit.outputBits - 6) !== 0n) return true;
      if (unit.substreamBits > 0 && number(ste[0], 63, 59) > unit.substreamBits) return true;
    }
    if (!two) return false;
    const [, , word, root] = ste;
    // S2AA64, S2ENDI, S2S; S2HA and S2HD.
    if (!bit(word, 51) || bit(word, 52) || bit(word, 57)) return true;
    if (this.#updatesAbsent(bit(word, 56), bit(word, 55))) return true;
    const second = secondStageOf(ste, unit.outputBits);
    return second === undefined || field(root, 51, 4) >> BigInt(second.rules.outputBits - 4) !== 0n;
  }

  #updatesAbsent(access: boolean, dirty: boolean): boolean {
    return (access && this.#unit.updates < 1) || (dirty && this.#unit.updates < 2);
  }

  /** §5.3, §5.4, §3.3.3 */
  #contextDescriptor(
    ste: readonly bigint[],
    size: number,
    index: number,
    second: SecondStage | undefined,
  ): bigint[] {
    const slate = this.#slate;
    const unit = this.#unit;
    const walker = new SmmuWalker(slate, unit.outputBits, second === undefined ? {} : { second });
    const load = (at: bigint, count: number): bigint[] => walker.fetch(at, count);
    const base = field(ste[0], 51, 6) << 6n;
    const format = number(ste[0], 5, 4);
    let at = size === 0 ? base : aligned(base, 64 * 2 ** size) + BigInt(index) * 64n;
    if (size > 0 && (format === 1 || format === 2)) {
      const split = format === 1 ? 6 : 10;
      const l1 = aligned(base, 8 * 2 ** Math.max(0, size - split)) + BigInt(index >> split) * 8n;
      const [descriptor] = load(l1, 1);
      const table = aligned(field(descriptor, 51, 12) << 12n, 64 * 2 ** split);
      const beyond = second === undefined && table >> BigInt(unit.outputBits) !== 0n;
      if (!bit(descriptor, 0) || beyond) throw new Blocked('C_BAD_SUBSTREAMID');
      at = table + BigInt(index % 2 ** split) * 64n;
    }
    const cd = load(at, 8);
    if (!bit(cd[0], 31) || this.#contextIllegal(cd)) throw new Blocked('C_BAD_CD');
    return cd;
  }

  /** §5.4.2 */
  #contextIllegal(cd: readonly bigint[]): boolean {
    const [word] = cd;
    // AA64, A (terminations are aborts), S.
    if (!bit(word, 41) || !bit(word, 46) || bit(word, 44)) return true;
    if (this.#updatesAbsent(bit(word, 43), bit(word, 42))) return true;
    return [false, true].some((upper) => {
      if (bit(word, upper ? 30 : 14)) return false;
      // ENDI
      if (bit(word, 15)) return true;
      const size = upper ? number(word, 21, 16) : number(word, 5, 0);
      const granule = granuleOf(word, upper);
      if (granule === undefined || !sizeExists(size, granule, this.#unit.outputBits)) return true;
      const root = field(cd[upper ? 2 : 1], 51, 4) << 4n;
      return root >> BigInt(this.#intermediateBits(word)) !== 0n;
    });
  }

  /** IPS */
  #intermediateBits(word: bigint): number {
    return Math.min(outputBitsOf(number(word, 34, 32)), this.#unit.outputBits);
  }

  #firstStage(cd: readonly bigint[]): FirstStage {
    const [word] = cd;
    const half = (upper: boolean) => {
      const granule = granuleOf(word, upper);
      if (bit(word, upper ? 30 : 14) || granule === undefined) return undefined;
      const updates = bit(word, 43);
      const root = field(cd[upper ? 2 : 1], 51, 4) << 4n;
      return {
        root,
        rules: {
          stage: 1 as const,
          granule,
          inputBits: 64 - (upper ? number(word, 21, 16) : number(word, 5, 0)),
          startLevel: 0,
          outputBits: this.#intermediateBits(word),
          lpa: this.#unit.outputBits === 52,
          clearFlag: updates ? ('update' as const) : bit(word, 35) ? ('ignore' as const) : ('fault' as const),
          hd: updates && bit(word, 42),
          ttb1: upper,
          tbi: bit(word, upper ? 39 : 38),
          hpd: bit(cd[upper ? 2 : 1], 1),
          wxn: bit(word, 36),
          pan: bit(word, 40),
          ...{ single: false, xnx: false, ptw: false },
        },
      };
    };
    return { low: half(false), high: half(true), recorded: bit(word, 45) };
  }
}

/** TG0 and TG1 have encodings of their own. §5.4 */
function granuleOf(word: bigint, upper: boolean): 4 | 16 | 64 | undefined {
  const low = [4, 64, 16, undefined] as const;
  const high = [undefined, 16, 4, 64] as const;
  return upper ? high[number(word, 23, 22)] : low[number(word, 7, 6)];
}

/**
 * T0SZ, T1SZ and S2T0SZ: 16 to 39, and from 12 on with 52-bit addresses and the largest granule.
 * §5.4, §5.2
 */
function sizeExists(size: number, granule: number, outputBits: number): boolean {
  return size <= 39 && size >= (granule === 64 && outputBits === 52 ? 12 : 16);
}

/** Bits below the size of a table, 64 bytes at least, are taken as zero. */
function aligned(address: bigint, bytes: number): bigint {
  const size = BigInt(Math.max(64, bytes));
  return address - (address % size);
}
