/**
 * A register file made from declared tables.
 *
 * The guest reads the shared words directly, without asking the model, so every store keeps this
 * order: what a flag promises is stored before the flag. Write-only bits live in a private copy and
 * read as zero.
 */
import type { Access, Register } from '../spec/define.js';

/** A register as the file needs it: where it stands and what each field may do. */
export type AnyRegister = Register<string>;

const WRITABLE: ReadonlySet<Access> = new Set<Access>(['RW', 'RWS', 'WO']);
const CLEARABLE: ReadonlySet<Access> = new Set<Access>(['RW1C', 'RW1CS']);

/**
 * What a guest's store to one word leads to. Its plain fields have taken effect: RW and WO bits are
 * stored, RW1C bits that were written as 1 are cleared. `written` is the raw value, `before` the
 * word as it was.
 */
type WriteHandler = (written: number, before: number) => void;

/** Bits of a word that a store of `written` leaves as they are. */
type WriteGuard = (written: number) => number;

/** A guard's answer: the store is dropped, and no handler hears of it. */
export const ALL_BITS = -1;

export class RegisterFile {
  readonly #minimumSize: 1 | 2 | 4;
  readonly bytes: number;
  readonly declared: readonly AnyRegister[];
  readonly #shared: Uint32Array;
  readonly #values: Uint32Array;
  readonly #writable: Uint32Array;
  readonly #clearable: Uint32Array;
  readonly #readable: Uint32Array;
  readonly #initial: Uint32Array;
  readonly #handlers: (WriteHandler | undefined)[];
  readonly #guards: (WriteGuard | undefined)[];
  readonly #whole: ((() => void) | undefined)[];

  /**
   * @param shared the words that the guest reads
   * @param declared registers; words that belong to none read as zero and ignore writes
   * @param minimumSize smallest store in bytes that the specification allows: 1, 2 or 4
   */
  constructor(shared: Uint32Array, declared: readonly AnyRegister[], minimumSize: 1 | 2 | 4 = 4) {
    this.#minimumSize = minimumSize;
    const words = shared.length;
    this.bytes = words * 4;
    this.#shared = shared;
    this.declared = declared;
    this.#values = new Uint32Array(words);
    this.#writable = new Uint32Array(words);
    this.#clearable = new Uint32Array(words);
    this.#readable = new Uint32Array(words).fill(0xffffffff);
    this.#initial = new Uint32Array(words);
    this.#handlers = new Array<WriteHandler | undefined>(words).fill(undefined);
    this.#guards = new Array<WriteGuard | undefined>(words).fill(undefined);
    this.#whole = new Array<(() => void) | undefined>(words).fill(undefined);
    const taken = new Uint32Array(words);
    for (const register of declared) this.#declare(register, taken);
  }

  /** Throws where two registers have a bit in common: our own mistake. */
  #declare(register: AnyRegister, taken: Uint32Array): void {
    for (const field of Object.values(register.fields)) {
      for (let bit = field.lsb; bit <= field.msb; bit++) {
        const word = (register.offset >> 2) + (bit >> 5);
        const mask = 1 << (bit & 31);
        if ((taken[word] & mask) !== 0) throw new Error(`${register.name}: bit ${bit} is declared twice`);
        taken[word] |= mask;
        if (WRITABLE.has(field.access)) this.#writable[word] |= mask;
        if (CLEARABLE.has(field.access)) this.#clearable[word] |= mask;
        if (field.access === 'WO') this.#readable[word] &= ~mask;
        if (Math.floor(field.reset / 2 ** (bit - field.lsb)) % 2 === 1) this.#initial[word] |= mask;
      }
    }
  }

  /**
   * Overrides the value at reset of a 32-bit word (capability registers are computed, not
   * declared).
   */
  setInitial(offset: number, value: number): void {
    this.#initial[offset >> 2] = value;
  }

  /**
   * Makes bits of a 32-bit word read as zero and ignore writes: what this unit does not have of a
   * declared register.
   */
  absent(offset: number, mask: number): void {
    const word = offset >> 2;
    this.#writable[word] &= ~mask;
    this.#clearable[word] &= ~mask;
    this.#initial[word] &= ~mask;
  }

  /**
   * The owner of a register says what a store to its word at a 4-byte aligned offset leads to. A
   * word has one handler, as it has one of the following: a second one is a mistake of ours, since
   * their order would depend on which was made first.
   */
  onWrite(offset: number, handler: WriteHandler): void {
    own(this.#handlers, offset, handler, 'a write handler');
  }

  /**
   * The owner of a register says what follows a store that begins at its word, once all words of
   * that store have taken effect.
   */
  onWholeWrite(offset: number, handler: () => void): void {
    own(this.#whole, offset, handler);
  }

  /** The owner of a register says which bits of its word can't be written now. */
  guard(offset: number, guard: WriteGuard): void {
    own(this.#guards, offset, guard);
  }

  /** Every word as at power-on. */
  reset(): void {
    for (let word = 0; word < this.#values.length; word++) {
      this.#values[word] = this.#initial[word];
      Atomics.store(this.#shared, word, this.#initial[word] & this.#readable[word]);
    }
  }

  /**
   * The word at a 4-byte aligned offset as the model sees it, write-only bits included; unsigned.
   */
  get(offset: number): number {
    return this.#values[offset >> 2];
  }

  /** Stores a whole word, whatever its access rights: the model's own update. */
  set(offset: number, value: number): void {
    const word = offset >> 2;
    this.#values[word] = value;
    Atomics.store(this.#shared, word, this.#values[word] & this.#readable[word]);
  }

  /** The bits of `mask` in a word, which the peer has already stored in the shared words. */
  adopt(offset: number, mask: number, value: number): void {
    this.#values[offset >> 2] = (this.#values[offset >> 2] & ~mask) | (value & mask);
  }

  /** Replaces the bits of `mask` in a word. */
  update(offset: number, mask: number, value: number): void {
    this.set(offset, (this.#values[offset >> 2] & ~mask) | (value & mask));
  }

  /** What the guest reads: write-only bits are zero. */
  get visible(): Uint32Array {
    return this.#shared;
  }

  /** The words of a register, for its getters: `register.get.NAME(file.words, base)`. */
  get words(): Uint32Array {
    return this.#values;
  }

  /**
   * A guest store. A store that crosses a word is taken as its words in ascending order, as
   * hardware may disassemble it (VT-d §11.2). Returns false when size or alignment is not allowed;
   * nothing has then happened.
   */
  write(offset: number, size: number, lo: number, hi: number): boolean {
    if (size < this.#minimumSize || (size !== 1 && size !== 2 && size !== 4 && size !== 8)) return false;
    if (!Number.isInteger(offset) || offset < 0 || offset % size !== 0 || offset + size > this.bytes) {
      return false;
    }
    if (size >= 4) {
      const taken = this.#store(offset, lo >>> 0, 0xffffffff);
      if (size === 8) this.#store(offset + 4, hi >>> 0, 0xffffffff);
      const whole = this.#whole[offset >> 2];
      if (taken && whole !== undefined) whole();
      return true;
    }
    const shift = (offset & 3) * 8;
    const lanes = size === 1 ? 0xff : 0xffff;
    this.#store(offset & ~3, ((lo & lanes) << shift) >>> 0, (lanes << shift) >>> 0);
    return true;
  }

  /** False: a guard has dropped it. */
  #store(offset: number, written: number, lanes: number): boolean {
    const word = offset >> 2;
    const before = this.#values[word];
    const guard = this.#guards[word];
    const kept = guard === undefined ? 0 : guard(written);
    if (kept === ALL_BITS) return false;
    const takes = this.#writable[word] & lanes & ~kept;
    const clears = this.#clearable[word] & lanes & written & ~kept;
    this.set(offset, (before & ~takes & ~clears) | (written & takes));
    const handler = this.#handlers[word];
    if (handler !== undefined) handler(written, before);
    return true;
  }
}

function own<T>(byWord: (T | undefined)[], offset: number, given: T, what = 'one already'): void {
  const word = offset >> 2;
  if (byWord[word] !== undefined) throw new Error(`0x${offset.toString(16)} has ${what}`);
  byWord[word] = given;
}
