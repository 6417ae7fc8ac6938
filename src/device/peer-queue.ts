/**
 * The guest's queue of commands, described as data: from it the peer carries out, in the store that
 * rings the doorbell, what concerns only translations in its own cache, and hands the engine a copy
 * (docs/protocol.md, "Queues").
 */
import type { Field, Layout } from '../spec/define.js';

/** Words of a plain command in {@link QueueDescription.commands}. */
export const PLAIN_WORDS = 32;
/** Most plain commands of one queue. */
const MAX_PLAIN = 32;

/** Indexes of those words; MASK and VALUE have eight, SOME has four. */
export const PLAIN = {
  /** Which bits must be how. */
  MASK: 0,
  VALUE: 8,
  /** Of these bits of the first four words at least one is set, unless there are none. */
  SOME: 16,
  /** {@link PLAIN_KIND} */
  KIND: 20,
  /**
   * Fields (`fieldWord`) of the tags of what is dropped, as in TranslateResult: without a field
   * space is 0, sub is ANY.
   */
  SPACE: 21,
  SUB: 22,
  /**
   * log2 of the bytes of one block, at least 12; 64: all addresses. What a field adds, and the most
   * that it may.
   */
  LOG2: 23,
  MORE: 24,
  MOST: 25,
  /** Fields: there are (NUMBER + 1) << SCALE blocks. */
  NUMBER: 26,
  SCALE: 27,
  /**
   * Bits of the third and fourth word that are the address of what is dropped, or of the memory
   * that is stored to.
   */
  ADDRESS_LO: 28,
  ADDRESS_HI: 29,
  /** Field of the value that is stored. */
  DATA: 30,
} as const;

/**
 * Nothing is done, translations are dropped, or a word is stored to memory when all that came
 * before is done.
 */
export const PLAIN_KIND = { NOTHING: 0, DROP: 1, STORE: 2 } as const;

/** A queue as it is now. Filled by the model; reused. */
export interface QueueDescription {
  /**
   * Register offsets, and which bits of both are the index of an entry, `indexShift` from its
   * lowest.
   */
  tail: number;
  head: number;
  indexMask: number;
  indexShift: number;
  /** The index has a wrap bit above its others. */
  wraps: boolean;
  baseLo: number;
  baseHi: number;
  entryLog2: number;
  entriesLog2: number;
  /** {@link PLAIN_WORDS} for each plain command. */
  commands: ArrayLike<number>;
}

/** The queue of a model, as the session uses it. */
export interface PeerQueue {
  /**
   * Nothing of the queue is under way or has stopped it, and no translation handed out lies outside
   * of what commands name.
   */
  readonly ready: boolean;
  /**
   * A translation handed out lies outside of what commands name, or a request is held that they may
   * concern. Then the queue is not {@link ready}, and translations change nothing else of that.
   * Absent: never.
   */
  readonly loose?: boolean;
  /** Changes with what {@link describe} says. */
  readonly version: number;
  describe(out: QueueDescription): void;
  /**
   * The peer has carried out `count` entries, which begin at word `at` of `words`, and shows
   * `index` in both registers. Does the same to the model's own caches; registers and memory stay
   * as the peer left them. False: it may not carry these out now.
   */
  ran(words: Uint32Array, at: number, count: number, index: number): boolean;
}

/** A field as one word: 0 is none. Fields stand within a word. */
function fieldWord({ lsb, msb }: Field): number {
  return (lsb >> 5) | ((lsb & 31) << 8) | ((msb - lsb + 1) << 16);
}

/**
 * A plain command: its layout, and what its fields must be. Reserved bits must be zero where
 * `reserved` is given.
 */
export class Plain<K extends string> {
  readonly #layout: Layout<K>;
  readonly words = new Uint32Array(PLAIN_WORDS);
  /** Looked for after those that guests give often. */
  isRare = false;

  constructor(layout: Layout<K>, kind: number, reserved: ArrayLike<number> = []) {
    this.#layout = layout;
    for (let word = 0; word < reserved.length; word++)
      this.words[PLAIN.MASK + word] = reserved[word] as number;
    this.words[PLAIN.KIND] = kind;
    this.words[PLAIN.LOG2] = 64;
  }

  /** Guests give it seldom. */
  rare(): this {
    this.isRare = true;
    return this;
  }

  /** The field has this value. */
  is(name: K, value: number): this {
    const { lsb, msb } = this.#layout.fields[name];
    for (let bit = lsb; bit <= msb; bit++) {
      this.words[PLAIN.MASK + (bit >> 5)] |= 1 << (bit & 31);
      if (Math.floor(value / 2 ** (bit - lsb)) % 2 === 1)
        this.words[PLAIN.VALUE + (bit >> 5)] |= 1 << (bit & 31);
    }
    return this;
  }

  /** One of these bits of a field is set, or one of another field named so. */
  some(name: K, mask = -1): this {
    const { lsb, msb } = this.#layout.fields[name];
    for (let bit = lsb; bit <= msb; bit++) {
      if ((mask >>> ((bit - lsb) & 31)) & 1) this.words[PLAIN.SOME + (bit >> 5)] |= 1 << (bit & 31);
    }
    return this;
  }

  /** The word says where a field stands. */
  field(word: number, name: K): this {
    this.words[word] = fieldWord(this.#layout.fields[name]);
    return this;
  }

  /** Blocks of this size, or what a field makes of it. */
  blocks(log2: number, more?: K, most = 0): this {
    this.words[PLAIN.LOG2] = log2;
    if (more === undefined) return this;
    this.words[PLAIN.MOST] = most;
    return this.field(PLAIN.MORE, more);
  }

  address(lo: number, hi: number): this {
    this.words[PLAIN.ADDRESS_LO] = lo;
    this.words[PLAIN.ADDRESS_HI] = hi;
    return this;
  }
}

/** All of them, one after the other: the peer looks through them in this order. */
export function plainCommands(given: readonly Plain<string>[]): Uint32Array {
  const commands = [...given.filter(({ isRare }) => !isRare), ...given.filter(({ isRare }) => isRare)];
  if (commands.length > MAX_PLAIN) throw new Error(`${commands.length} plain commands`);
  const words = new Uint32Array(commands.length * PLAIN_WORDS);
  commands.forEach((command, index) => {
    words.set(command.words, index * PLAIN_WORDS);
  });
  return words;
}
