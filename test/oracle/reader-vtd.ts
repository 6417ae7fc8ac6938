/** The third reader of VT-d: chapters 3 and 9, fault conditions of §7.1.3. See reading.ts. */
import { type Answer, type Asked, type Rules, referenceWalk, type Store } from '../walk/reference.js';
import { bit, blockOf, field, flawOf, number, type Reading, type Slate, within } from './reading.js';
import type { Outcome, Request } from './script.js';

/** What the unit advertises. */
interface VtdUnit {
  /** MGAW; host addresses have as many bits, at most 52. */
  readonly addressWidth: 39 | 48 | 57;
  readonly scalable: boolean;
  readonly snoopControl: boolean;
}

/** The registers that a request depends on, as they read. */
interface VtdRegisters {
  readonly GSTS: bigint;
  readonly RTADDR: bigint;
  /** The second half of the one fault recording register. */
  readonly FRCD: bigint;
}

/** A condition of §7.1.3. */
class Blocked extends Error {
  constructor(readonly condition: string) {
    super(condition);
  }
}

/** Conditions that FPD does not suppress (Table 30: not qualified). */
const ALWAYS = [/^RTA/, /^LRT/, /^SRT/, /^LCT\.1$/, /^SCT\.1$/, /^SPD\.1$/, /^SPT\.1$/, /^IR/];

/** What the structures of a requester lead to. */
interface Target {
  readonly scalable: boolean;
  /** Pass-through: width of the addresses that pass. */
  readonly passes?: number;
  readonly first?: { readonly rules: Rules; readonly root: bigint };
  readonly second?: { readonly rules: Rules; readonly root: bigint };
  /** PWSNP: flags of entries may be set. */
  readonly snooped: boolean;
}

interface Translated {
  readonly output: bigint;
  readonly log2: number;
  readonly rights: number;
}

const REACH = 64;
const READ_WRITE = 3;

export function readVtd(unit: VtdUnit, registers: VtdRegisters, slate: Slate, request: Request): Reading {
  return new VtdReader(unit, registers, slate, request).read();
}

class VtdReader {
  readonly #unit: VtdUnit;
  readonly #registers: VtdRegisters;
  readonly #slate: Slate;
  readonly #request: Request;
  /** FPD of a structure on the way. */
  #suppressed = false;
  /**
   * Leaf of a first stage whose Dirty bit was set for a write that the second stage then refused.
   * §3.8
   */
  #spared: bigint | undefined;
  readonly #haw: number;

  constructor(unit: VtdUnit, registers: VtdRegisters, slate: Slate, request: Request) {
    this.#unit = unit;
    this.#registers = registers;
    this.#slate = slate;
    this.#request = request;
    this.#haw = Math.min(unit.addressWidth, 52);
  }

  read(): Reading {
    const slate = this.#slate;
    try {
      const target = this.#target();
      const found = this.#translate(target);
      return {
        outcome: { translated: 1, output: found.output, ...this.#record() },
        writes: slate.writes,
        flaw: (log2, permissions) => this.#flaw(target, found, log2, permissions),
      };
    } catch (error) {
      if (!(error instanceof Blocked)) throw error;
      const silent = this.#suppressed && !ALWAYS.some((pattern) => pattern.test(error.condition));
      const outcome = { translated: 0, ...this.#record(silent ? undefined : error.condition) };
      return { outcome, writes: slate.writes, spared: this.#spared };
    }
  }

  /**
   * What stands in the fault recording register: FI, SID, T1 and T2, PP, PV, EXE, PRIV. §11.4.7.6
   */
  #record(condition?: string): Outcome {
    const { rid, pasid, access, address } = this.#request;
    if (bit(this.#registers.FRCD, 63)) return { fault: 'pending' };
    if (condition === undefined) return { fault: 'none' };
    const tag = pasid < 0 ? { PP: 0 } : { PP: 1, PV: pasid, EXE: 0, PRIV: 0 };
    const FI = field(address, this.#unit.addressWidth - 1, 12) << 12n;
    return { fault: condition, SID: rid, FI, T1: access & 1, T2: 0, ...tag };
  }

  /** Root and context structures, in either mode. */
  #target(): Target | 'off' | 'interrupt' {
    const registers = this.#registers;
    const request = this.#request;
    const unit = this.#unit;
    if (!bit(registers.GSTS, 31)) return 'off';
    // §3.15: without PASID, whatever the tables say.
    if (request.pasid < 0 && inInterruptRange(request.address)) {
      if ((request.access & 1) !== 0) throw new Blocked('IR.29');
      return 'interrupt';
    }
    const mode = field(registers.RTADDR, 11, 10);
    const root = field(registers.RTADDR, 51, 12) << 12n;
    if (mode === 0n) {
      if (request.pasid >= 0) throw new Blocked('RTA.2');
      return this.#legacy(root);
    }
    if (mode !== 1n || !unit.scalable) throw new Blocked('RTA.1');
    return this.#scalable(root);
  }

  /** §9.1, §9.3 */
  #legacy(root: bigint): Target {
    const { rid } = this.#request;
    const rootEntry = this.#slate.words(root + BigInt(rid >> 8) * 16n, 2);
    if (rootEntry === undefined) throw new Blocked('LRT.1');
    if (!bit(rootEntry[0], 0)) throw new Blocked('LRT.2');
    if (field(rootEntry[0], 11, 1) !== 0n || this.#beyond(rootEntry[0]) || rootEntry[1] !== 0n) {
      throw new Blocked('LRT.3');
    }
    const context = this.#slate.words(pointer(rootEntry[0]) + BigInt(rid & 0xff) * 16n, 2);
    if (context === undefined) throw new Blocked('LCT.1');
    const [low, high] = context;
    this.#suppressed = bit(low, 1);
    if (!bit(low, 0)) throw new Blocked('LCT.2');
    const type = number(low, 3, 2);
    const beyond = type !== 2 && this.#beyond(low);
    if (field(low, 11, 4) !== 0n || beyond || bit(high, 7) || high >> 24n !== 0n) throw new Blocked('LCT.3');
    const width = number(high, 2, 0);
    // TT: 1 is of Device-TLBs, 3 is reserved.
    if (!this.#widthExists(width) || (type !== 0 && type !== 2)) throw new Blocked('LCT.4');
    const snooped = true;
    if (type === 2) return { scalable: false, passes: Math.min(30 + 9 * width, this.#haw), snooped };
    const second = { rules: this.#secondRules(width, false), root: pointer(low) };
    return { scalable: false, second, snooped };
  }

  /** §9.2, §9.4, §9.5, §9.6 */
  #scalable(root: bigint): Target {
    const { rid, pasid } = this.#request;
    const rootEntry = this.#slate.words(root + BigInt(rid >> 8) * 16n, 2);
    if (rootEntry === undefined) throw new Blocked('SRT.1');
    const half = rootEntry[(rid & 0x80) === 0 ? 0 : 1];
    if (!bit(half, 0)) throw new Blocked('SRT.2');
    if (field(half, 11, 1) !== 0n || this.#beyond(half)) throw new Blocked('SRT.3');
    const context = this.#slate.words(pointer(half) + BigInt(rid & 0x7f) * 32n, 4);
    if (context === undefined) throw new Blocked('SCT.1');
    const [low, high, third, fourth] = context;
    this.#suppressed = bit(low, 1);
    if (!bit(low, 0)) throw new Blocked('SCT.2');
    // DTE, PRE, RID_PRIV and bits 6:5 are of features that are not there.
    const reserved = bit(low, 2) || field(low, 8, 4) !== 0n || this.#beyond(low) || high >> 20n !== 0n;
    if (reserved || third !== 0n || fourth !== 0n) throw new Blocked('SCT.3');
    const limit = 2 ** (number(low, 11, 9) + 13);
    const own = number(high, 19, 0);
    if (own >= limit) throw new Blocked('SCT.4');
    if (pasid >= 0) {
      if (!bit(low, 3)) throw new Blocked('SCT.6');
      if (pasid >= limit) throw new Blocked('SCT.7');
      if (pasid === own) throw new Blocked('SCT.9');
    }
    return this.#pasidEntry(pointer(low), pasid < 0 ? own : pasid);
  }

  #pasidEntry(directory: bigint, pasid: number): Target {
    const slot = this.#slate.word(directory + BigInt(pasid >> 6) * 8n);
    if (slot === undefined) throw new Blocked('SPD.1');
    this.#suppressed ||= bit(slot, 1);
    if (!bit(slot, 0)) throw new Blocked('SPD.2');
    if (field(slot, 11, 2) !== 0n || this.#beyond(slot)) throw new Blocked('SPD.3');
    const entry = this.#slate.words(pointer(slot) + BigInt(pasid & 63) * 64n, 8);
    if (entry === undefined) throw new Blocked('SPT.1');
    const [low, high, third] = entry;
    this.#suppressed ||= bit(low, 1);
    if (!bit(low, 0)) throw new Blocked('SPT.2');
    if (this.#pasidReserved(entry)) throw new Blocked('SPT.3');
    const type = number(low, 8, 6);
    const snooped = bit(high, 23);
    if (type === 4) return { scalable: true, passes: this.#haw, snooped };
    const width = number(low, 4, 2);
    const mode = number(third, 3, 2);
    const firstStage = this.#hasFirstStage && mode <= 1;
    const ok = [false, firstStage, this.#widthExists(width), firstStage && this.#widthExists(width)][type];
    if (!ok) throw new Blocked('SPT.4');
    const reach = Math.min(30 + 9 * width, this.#unit.addressWidth);
    if (type === 3 && pointer(third) >> BigInt(reach) !== 0n) throw new Blocked('SPT.4');
    const first = { rules: this.#firstRules(mode, bit(third, 7)), root: pointer(third) };
    const second =
      type === 1 ? undefined : { rules: this.#secondRules(width, bit(low, 9)), root: pointer(low) };
    return { scalable: true, snooped, ...(type !== 2 && { first }), ...(second && { second }) };
  }

  /** §9.6: what no field covers, and fields of capabilities that are not there. */
  #pasidReserved(entry: readonly bigint[]): boolean {
    const [low, high, third, ...rest] = entry;
    if (bit(low, 5) || field(low, 11, 10) !== 0n || this.#beyond(low)) return true;
    // DID, PWSNP, PGSNP.
    const known = 0xffffn | (1n << 23n) | (this.#unit.snoopControl ? 1n << 24n : 0n);
    if ((high & ~known) !== 0n || rest.some((word) => word !== 0n)) return true;
    // Bits 6:5 are ignored.
    if (!this.#hasFirstStage) return (third & ~0x60n) !== 0n;
    return field(third, 1, 0) !== 0n || field(third, 11, 8) !== 0n || this.#beyond(third);
  }

  get #hasFirstStage(): boolean {
    return this.#unit.scalable && this.#unit.addressWidth >= 48;
  }

  #beyond(word: bigint): boolean {
    return word >> BigInt(this.#haw) !== 0n;
  }

  /** SAGAW: 39 bits alone, or all from 39 up to MGAW. */
  #widthExists(width: number): boolean {
    return width >= 1 && 30 + 9 * width <= this.#unit.addressWidth;
  }

  #firstRules(mode: number, extendedAccessed: boolean): Rules {
    const levels = 4 + mode;
    return {
      ...{ stage: 'first', levels, inputBits: 12 + 9 * levels, haw: this.#haw, pages2M: true, pages1G: true },
      ...{
        snoopControl: false,
        transient: false,
        accessedDirty: true,
        extendedAccessed,
        writeProtect: false,
      },
    };
  }

  #secondRules(width: number, accessedDirty: boolean): Rules {
    const levels = width + 2;
    return {
      ...{ stage: 'second', levels, inputBits: Math.min(12 + 9 * levels, this.#unit.addressWidth) },
      ...{ haw: this.#haw, pages2M: true, pages1G: true, snoopControl: this.#unit.snoopControl },
      ...{ transient: false, accessedDirty, extendedAccessed: false, writeProtect: false },
    };
  }

  #translate(target: Target | 'off' | 'interrupt'): Translated {
    const { address, access } = this.#request;
    if (target === 'off') return { output: address, log2: REACH, rights: READ_WRITE };
    if (target === 'interrupt') return { output: address, log2: 12, rights: 2 };
    const asked: Asked = {
      read: (access & 1) !== 0,
      write: (access & 2) !== 0,
      execute: false,
      privileged: false,
    };
    const found = this.#walk(target, address, asked, false);
    if (inInterruptRange(found.output)) throw new Blocked(target.scalable ? 'SGN.8' : 'LGN.4');
    return found;
  }

  /** `look`: sets no flag and asks for no right. */
  #walk(target: Target, address: bigint, asked: Asked, look: boolean): Translated {
    const { first, second, passes } = target;
    if (passes !== undefined) {
      if (address >> BigInt(passes) !== 0n) throw new Blocked(target.scalable ? 'SGN.4' : 'LGN.1');
      return { output: address, log2: passes, rights: READ_WRITE };
    }
    if (first !== undefined && second !== undefined) return this.#nested(target, address, asked, look);
    const { rules, root } = (first ?? second) as { rules: Rules; root: bigint };
    const store = this.#store(target, first === undefined ? 'second' : 'first');
    const answer = referenceWalk(rules, store, root, address, asked, look);
    if (answer.outcome !== 'OK') {
      throw new Blocked(
        first === undefined
          ? secondCondition(answer, rules, asked, target)
          : firstCondition(answer, rules, asked),
      );
    }
    return {
      output: answer.output + within(address, answer.log2Size),
      log2: answer.log2Size,
      rights: rightsOf(answer),
    };
  }

  /** Without page-walk snooping no flag can be set. §9.6 (PWSNP) */
  #store({ snooped }: Target, stage: 'first' | 'second'): Store {
    const tables = this.#slate.tables(stage === 'first' ? 'stage 1' : 'stage 2');
    if (snooped) return tables;
    return {
      read: tables.read,
      exchange: () => {
        throw new Blocked(stage === 'first' ? 'SFS.9' : 'SSS.5');
      },
    };
  }

  /**
   * §3.8: every entry of the first stage, and what comes out of it, is translated by the second.
   */
  #nested(target: Target, address: bigint, asked: Asked, look: boolean): Translated {
    const { first, second } = target as Required<Target>;
    const below = this.#store(target, 'second');
    const inner = this.#store(target, 'first');
    const through = (at: bigint, what: Asked): Answer => {
      const answer = referenceWalk(second.rules, below, second.root, at, what, look);
      const lacking = (what.read && !answer.read) || (what.write && !answer.write);
      return answer.outcome === 'OK' && lacking ? { ...answer, outcome: 'PERMISSION' } : answer;
    };
    let level = first.rules.levels + 1;
    let again = false;
    // Where the last entry is whose only change was the Dirty bit, in host memory.
    let changed: bigint | undefined;
    const place = (at: bigint, write: boolean): bigint => {
      const what = { read: true, write, execute: false, privileged: false };
      const answer = through(at, what);
      if (answer.outcome === 'OK') return answer.output + within(at, answer.log2Size);
      const root = level === first.rules.levels;
      if (answer.outcome === 'ADDRESS_SIZE') throw new Blocked('SFS.5');
      if (answer.outcome === 'PERMISSION') throw new Blocked(write ? 'SFS.8' : root ? 'SFS.6' : 'SFS.7');
      throw new Blocked(secondCondition(answer, second.rules, what, target));
    };
    const view: Store = {
      read: (at) => {
        if (!again) level--;
        again = false;
        return inner.read(place(at, false));
      },
      exchange: (at, was, value) => {
        // Nothing is asked of the second stage for what the first may not do.
        if (!target.snooped) throw new Blocked('SFS.9');
        const where = place(at, true);
        const done = inner.exchange(where, was, value);
        changed = (was ^ value) === 1n << 6n ? where : undefined;
        // An entry that has changed while its flags were to be set is read again.
        again = done === 'changed';
        return done;
      },
    };
    const one = referenceWalk(first.rules, view, first.root, address, asked, look);
    if (one.outcome !== 'OK') throw new Blocked(firstCondition(one, first.rules, asked));
    const intermediate = one.output + within(address, one.log2Size);
    const two = through(intermediate, asked);
    if (two.outcome === 'PERMISSION') this.#spared = changed;
    if (two.outcome === 'ADDRESS_SIZE') throw new Blocked('SFS.5');
    if (two.outcome !== 'OK') throw new Blocked(secondCondition(two, second.rules, asked, target));
    return {
      output: two.output + within(intermediate, two.log2Size),
      log2: Math.min(one.log2Size, two.log2Size),
      rights: rightsOf(one) & rightsOf(two),
    };
  }

  /** Answers keep clear of the interrupt range, on the way in only without PASID. §3.15 */
  #flaw(
    target: Target | 'off' | 'interrupt',
    found: Translated,
    log2: number,
    permissions: number,
  ): string | undefined {
    const request = this.#request;
    const { address, access } = request;
    if (typeof target !== 'string') {
      const sides = request.pasid < 0 ? [found.output, address] : [found.output];
      if (sides.some((side) => meetsInterruptRange(side, log2)))
        return `2^${log2} bytes have the interrupt range in them`;
    }
    const nothing: Asked = { read: false, write: false, execute: false, privileged: false };
    return flawOf({ address, access, ...found }, { log2, permissions }, (at) => {
      try {
        return typeof target === 'string' ? undefined : this.#walk(target, at, nothing, true);
      } catch (error) {
        if (error instanceof Blocked) return undefined;
        throw error;
      }
    });
  }
}

const pointer = (word: bigint): bigint => field(word, 51, 12) << 12n;

const inInterruptRange = (address: bigint): boolean => address >> 20n === 0xfeen;

function meetsInterruptRange(address: bigint, log2: number): boolean {
  const base = blockOf(address, log2);
  return base < 0xfef0_0000n && base + (1n << BigInt(log2)) > 0xfee0_0000n;
}

const rightsOf = ({ cacheRead, cacheWrite }: Answer): number => (cacheRead ? 1 : 0) | (cacheWrite ? 2 : 0);

function firstCondition({ outcome, level, read }: Answer, rules: Rules, asked: Asked): string {
  switch (outcome) {
    case 'ADDRESS_SIZE':
      return 'SGN.1';
    case 'NOT_PRESENT':
      return 'SFS.2';
    case 'RESERVED':
      return 'SFS.3';
    case 'FETCH':
      return level === rules.levels ? 'SFS.4' : 'SFS.1';
    case 'UPDATE':
      return 'SFS.10';
    default:
      // A user's request for what only supervisors have is that, whatever it wants to do.
      return !read ? 'SGN.2' : asked.write ? 'SGN.6' : 'SGN.7';
  }
}

/** Conditions of second-stage tables; scalable mode has others than legacy mode. */
function secondCondition(
  { outcome, level, read, write }: Answer,
  rules: Rules,
  asked: Asked,
  { scalable }: Target,
): string {
  const root = level === rules.levels;
  switch (outcome) {
    case 'ADDRESS_SIZE':
      return scalable ? 'SGN.5' : 'LGN.1';
    case 'NOT_PRESENT':
      return scalable ? 'SSS.2' : asked.write ? 'LGN.2' : 'LGN.3';
    case 'RESERVED':
      return scalable ? 'SSS.3' : 'LSS.2';
    case 'FETCH':
      if (root) return scalable ? 'SSS.4' : 'LCT.4';
      return scalable ? 'SSS.1' : 'LSS.1';
    case 'UPDATE':
      return 'SSS.6';
    default:
      if (!scalable) return asked.write ? 'LGN.2' : 'LGN.3';
      if (!read && !write) return 'SSS.2';
      return asked.write ? 'SGN.6' : 'SGN.7';
  }
}
