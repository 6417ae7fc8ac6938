/**
 * What the generic walker costs beside a hand-written walk over the same tables, in the same run.
 *
 * Both walk 4-level second-stage tables of VT-d (4 KiB pages) in one array, over addresses in a
 * shuffled order, and do the same work: bounds check, presence, reserved bits, rights gathered over
 * all levels, output address. The runs are interleaved and the fastest of each counts, as anything
 * slower is the machine's doing.
 */

import { ArrayMemory } from '../../src/memory/array.js';
import { vtdSecondStage } from '../../src/spec/pagetable/vtd.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';

interface WalkBench {
  /** Nanoseconds per 4-level walk. */
  readonly genericNs: number;
  readonly handWrittenNs: number;
  readonly ratio: number;
  /** Walks per round, and rounds of each kind. */
  readonly walks: number;
  readonly rounds: number;
}

const CAPS = {
  hostAddressWidth: 46,
  secondStage2M: true,
  secondStage1G: true,
  firstStage1G: true,
  snoopControl: true,
  transientMapping: false,
};

const TABLES = 64;
const BYTES = 4096 * (3 + TABLES);
const INPUTS = 1 << 14;

/** What the hand-written walk found: the out-parameters of a function that allocates nothing. */
const found = { outLo: 0, outHi: 0, permissions: 0, log2Size: 0 };

const RESERVED_HI = 0x000fc000 | 0x40000000;

/** The walk as one would write it for this one format alone. Returns 0 when translated. */
function handWritten(words: Int32Array, root: number, lo: number, hi: number, access: number): number {
  if (hi >>> 16 !== 0) return 1;
  let table = root;
  let gathered = -1;
  for (let level = 4; level > 0; level--) {
    const index =
      level === 4
        ? (hi >>> 7) & 511
        : level === 3
          ? ((lo >>> 30) | (hi << 2)) & 511
          : level === 2
            ? (lo >>> 21) & 511
            : (lo >>> 12) & 511;
    const address = table + index * 8;
    if (address + 8 > words.length * 4) return 2;
    const word = address / 4;
    // Low, high, low again: the guest may be writing.
    let entryLo = words[word];
    let entryHi = words[word + 1];
    for (let again = words[word]; again !== entryLo; again = words[word]) {
      entryLo = again;
      entryHi = words[word + 1];
    }
    if ((entryLo & 3) === 0) return 3;
    gathered &= entryLo;
    if (level === 1 || ((entryLo & 0x80) !== 0 && level < 4)) {
      const shift = 12 + 9 * (level - 1);
      if ((entryHi & RESERVED_HI) !== 0 || (entryLo & ((1 << shift) - 1) & ~0xfff) !== 0) return 4;
      if ((access & ~gathered) !== 0) return 5;
      found.outLo = entryLo & (-1 << shift);
      found.outHi = entryHi & 0x3fff;
      found.permissions = gathered & 3;
      found.log2Size = shift;
      return 0;
    }
    if ((entryHi & RESERVED_HI) !== 0 || (entryLo & 0x880) !== 0) return 4;
    table = (entryHi & 0x3fff) * 0x1_0000_0000 + ((entryLo & -4096) >>> 0);
  }
  return 6;
}

function buildTables(words: Int32Array): void {
  const set = (table: number, index: number, target: number, bits: number): void => {
    words[table * 1024 + index * 2] = (target * 4096) | bits;
    words[table * 1024 + index * 2 + 1] = 0;
  };
  set(0, 1, 1, 3);
  set(1, 2, 2, 3);
  for (let t = 0; t < TABLES; t++) {
    set(2, t, 3 + t, 3);
    for (let i = 0; i < 512; i++) set(3 + t, i, 0x1000 + ((t * 512 + i) ^ 0x155), 3);
  }
}

/**
 * Addresses in a fixed shuffled order: low halves (index 1 of level 4 and 2 of level 3 are in the
 * constants below).
 */
function shuffledInputs(): Int32Array {
  const inputs = new Int32Array(INPUTS);
  let seed = 12345;
  for (let i = 0; i < INPUTS; i++) {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    inputs[i] = (2 << 30) | (((seed >> 8) % (TABLES * 512)) << 12);
  }
  return inputs;
}

/** `2 << 30` overflows into bit 31 of the low half: level-3 index 2. Level-4 index 1 is bit 39. */
const INPUT_HI = 1 << 7;

/** Measures both walks; takes about `rounds` × 5 ms. Throws when they disagree or a walk fails. */
export function benchWalk(rounds = 60): WalkBench {
  const memory = new ArrayMemory([{ base: 0, bytes: BYTES }]);
  const words = new Int32Array(BYTES / 4);
  buildTables(words);
  for (let i = 0; i < words.length; i += 2) memory.store64(i * 4, words[i], words[i + 1]);
  const format = vtdSecondStage(CAPS, { levels: 4, accessedDirty: false });
  const inputs = shuffledInputs();
  const result = new WalkResult();

  const generic = (): number => {
    let sum = 0;
    for (let i = 0; i < INPUTS; i++) {
      if (walk(format, memory, 0, inputs[i], INPUT_HI, 1, result) !== WALK.OK) throw new Error('walk failed');
      sum = (sum + result.outLo + result.permissions) | 0;
    }
    return sum;
  };
  const byHand = (): number => {
    let sum = 0;
    for (let i = 0; i < INPUTS; i++) {
      if (handWritten(words, 0, inputs[i], INPUT_HI, 1) !== 0) throw new Error('hand-written walk failed');
      sum = (sum + found.outLo + found.permissions) | 0;
    }
    return sum;
  };

  let genericNs = Number.POSITIVE_INFINITY;
  let handWrittenNs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const start = process.hrtime.bigint();
    const a = generic();
    const middle = process.hrtime.bigint();
    const b = byHand();
    const end = process.hrtime.bigint();
    if (a !== b) throw new Error(`the walks disagree: ${a} and ${b}`);
    genericNs = Math.min(genericNs, Number(middle - start) / INPUTS);
    handWrittenNs = Math.min(handWrittenNs, Number(end - middle) / INPUTS);
  }
  return { genericNs, handWrittenNs, ratio: genericNs / handWrittenNs, walks: INPUTS, rounds };
}
