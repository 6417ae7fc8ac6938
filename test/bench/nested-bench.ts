/**
 * What the generic walker costs over Armv8 tables: a stage-1 walk of four levels, and the same walk
 * nested in stage-2 tables of four levels, where each of its descriptors and its output go through
 * stage 2. 4 KiB pages, shuffled addresses, the fastest of interleaved rounds.
 */

import { ArrayMemory } from '../../src/memory/array.js';
import { ACCESS_FLAG, GRANULE, vmsaStage1, vmsaStage2 } from '../../src/spec/pagetable/vmsa.js';
import { StageTwo, walkNested } from '../../src/walk/nested.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';

interface NestedBench {
  /** Nanoseconds per walk: four levels of stage 1, and these nested in four levels of stage 2. */
  readonly plainNs: number;
  readonly nestedNs: number;
}

const LEAVES = 64;
const INPUTS = 1 << 13;
const COMMON = {
  granule: GRANULE.KIB_4,
  inputBits: 48,
  outputBits: 48,
  largePhysical: false,
  accessFlag: ACCESS_FLAG.FAULT,
  dirtyState: false,
} as const;

const TABLE = 3;
/**
 * Valid page, accessed; stage 1: for unprivileged reads and writes; stage 2: readable and writable.
 */
const PAGE_1 = 0x443;
const PAGE_2 = 0x4c3;

/**
 * Three tables above `LEAVES` leaf tables, from `first` on; page n of the leaves leads to
 * `target(n)`.
 */
function build(memory: ArrayMemory, first: number, page: number, target: (n: number) => number): void {
  const set = (table: number, index: number, to: number, bits: number): void => {
    memory.store64((first + table) * 4096 + index * 8, to * 4096 + bits, 0);
  };
  set(0, 0, first + 1, TABLE);
  set(1, 0, first + 2, TABLE);
  for (let t = 0; t < LEAVES; t++) {
    set(2, t, first + 3 + t, TABLE);
    for (let i = 0; i < 512; i++) set(3 + t, i, target(t * 512 + i), page);
  }
}

/**
 * Measures both; takes about `rounds` × 5 ms. Throws when a walk fails or leads to the wrong page.
 */
export function benchNested(rounds = 60): NestedBench {
  const tables = 3 + LEAVES;
  const memory = new ArrayMemory([{ base: 0, bytes: 2 * tables * 4096 }]);
  build(memory, 0, PAGE_1, (n) => n ^ 0x155);
  // Stage 2 leaves every page where it is: both walks answer alike.
  build(memory, tables, PAGE_2, (n) => n);
  const stage1 = vmsaStage1({
    ...COMMON,
    upper: false,
    topByteIgnored: false,
    hierarchical: true,
    writeExecuteNever: false,
    privilegedAccessNever: false,
    singlePrivilege: false,
  });
  const stage2 = vmsaStage2({
    ...COMMON,
    startLevel: 0,
    executeNeverByPrivilege: false,
    protectedTableWalk: false,
  });
  const inputs = new Int32Array(INPUTS);
  let seed = 12345;
  for (let i = 0; i < INPUTS; i++) {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    inputs[i] = ((seed >> 8) % (LEAVES * 512)) << 12;
  }
  const result = new WalkResult();
  const through = new StageTwo(memory);

  const plain = (): number => {
    let sum = 0;
    for (let i = 0; i < INPUTS; i++) {
      if (walk(stage1, memory, 0, inputs[i], 0, 1, result) !== WALK.OK) throw new Error('the walk failed');
      sum = (sum + result.outLo) | 0;
    }
    return sum;
  };
  const nested = (): number => {
    let sum = 0;
    for (let i = 0; i < INPUTS; i++) {
      const outcome = walkNested(stage1, 0, through, stage2, tables * 4096, inputs[i], 0, 1, result);
      if (outcome !== WALK.OK) throw new Error('the nested walk failed');
      sum = (sum + result.outLo) | 0;
    }
    return sum;
  };

  let plainNs = Number.POSITIVE_INFINITY;
  let nestedNs = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const start = process.hrtime.bigint();
    const a = plain();
    const middle = process.hrtime.bigint();
    const b = nested();
    const end = process.hrtime.bigint();
    if (a !== b) throw new Error(`the walks disagree: ${a} and ${b}`);
    plainNs = Math.min(plainNs, Number(middle - start) / INPUTS);
    nestedNs = Math.min(nestedNs, Number(end - middle) / INPUTS);
  }
  return { plainNs, nestedNs };
}
