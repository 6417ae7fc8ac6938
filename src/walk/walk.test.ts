import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../memory/array.js';
import { RIGHT } from '../spec/pagetable/format.js';
import { ACCESS_FLAG, GRANULE, vmsaStage1 } from '../spec/pagetable/vmsa.js';
import { vtdFirstStage, vtdSecondStage } from '../spec/pagetable/vtd.js';
import { StageTwo, walkNested } from './nested.js';
import { WALK, WalkResult } from './types.js';
import { walk } from './walk.js';

const CAPS = {
  hostAddressWidth: 46,
  secondStage2M: true,
  secondStage1G: true,
  firstStage1G: true,
  snoopControl: true,
  transientMapping: false,
};
const FIRST = vtdFirstStage(CAPS, { levels: 4, writeProtect: true, extendedAccessed: true });
const SECOND = vtdSecondStage(CAPS, { levels: 3, accessedDirty: true });
const A_EA = 0x420n;
const D = 0x40n;

/** A guest that changes an entry between the walk's read and its update. */
class Meddler extends ArrayMemory {
  meddle: ((gpa: number) => void) | undefined;
  exchanges = 0;
  override cas32(gpa: number, expected: number, value: number): boolean {
    this.exchanges++;
    this.meddle?.(gpa);
    return super.cas32(gpa, expected, value);
  }
}

/** One 4-level path to page 0x9000: tables in pages 0..3, first-stage entries without Accessed. */
function path(bits = 7n): Meddler {
  const memory = new Meddler([{ base: 0, bytes: 8 * 4096 }]);
  for (const page of [0, 1, 2]) memory.poke(page * 4096, BigInt((page + 1) * 4096) | 7n);
  memory.poke(0x3000, 0x9000n | bits);
  return memory;
}

const result = new WalkResult();

describe('Accessed and Dirty', () => {
  it('are set in every entry used, Dirty in the leaf of a write only', () => {
    const memory = path();
    expect(walk(FIRST, memory, 0, 0x123, 0, RIGHT.READ, result)).toBe(WALK.OK);
    expect([0, 0x1000, 0x2000].map((at) => memory.peek(at))).toEqual([
      0x1007n | A_EA,
      0x2007n | A_EA,
      0x3007n | A_EA,
    ]);
    expect(memory.peek(0x3000)).toBe(0x9007n | A_EA);
    expect([result.permissions, result.cachable]).toEqual([RIGHT.READ | RIGHT.WRITE, RIGHT.READ]);
    expect(walk(FIRST, memory, 0, 0x123, 0, RIGHT.WRITE, result)).toBe(WALK.OK);
    expect(memory.peek(0x3000)).toBe(0x9007n | A_EA | D);
    expect(result.cachable).toBe(RIGHT.READ | RIGHT.WRITE);
    const before = memory.exchanges;
    walk(FIRST, memory, 0, 0x123, 0, RIGHT.WRITE, result);
    expect(memory.exchanges).toBe(before);
  });

  it('stay clear when the access is refused or only looked at', () => {
    const memory = path(5n);
    expect(walk(FIRST, memory, 0, 0, 0, RIGHT.WRITE, result)).toBe(WALK.PERMISSION);
    expect(memory.peek(0x3000)).toBe(0x9005n);
    expect(result.denied).toBe(RIGHT.WRITE);
    const untouched = path();
    expect(walk(FIRST, untouched, 0, 0, 0, 0, result)).toBe(WALK.OK);
    expect([result.permissions, result.cachable, untouched.exchanges]).toEqual([3, 0, 0]);
  });

  it('go into the entry that the guest has just put there', () => {
    const memory = path();
    let once = true;
    memory.meddle = (gpa) => {
      if (gpa === 0x3000 && once) {
        once = false;
        memory.poke(0x3000, 0xa007n);
      }
    };
    expect(walk(FIRST, memory, 0, 0, 0, RIGHT.READ, result)).toBe(WALK.OK);
    expect(result.outLo).toBe(0xa000);
    expect(memory.peek(0x3000)).toBe(0xa007n | A_EA);
  });

  it('see a change of the high half alone, which a 32-bit exchange does not', () => {
    const memory = path();
    let once = true;
    memory.meddle = (gpa) => {
      if (gpa === 0x3000 && once) {
        once = false;
        memory.poke(0x3000, 0x1_0000_9007n);
      }
    };
    expect(walk(FIRST, memory, 0, 0, 0, RIGHT.READ, result)).toBe(WALK.OK);
    expect(result.outHi).toBe(1);
  });

  it('report an entry that went away, and give up on one that never holds still', () => {
    const gone = path();
    gone.meddle = (gpa) => {
      if (gpa === 0x2000) gone.poke(0x2000, 0n);
    };
    expect(walk(FIRST, gone, 0, 0, 0, RIGHT.READ, result)).toBe(WALK.NOT_PRESENT);
    expect(result.level).toBe(2);
    const restless = path();
    let turn = 0n;
    restless.meddle = (gpa) => {
      if (gpa === 0x3000) restless.poke(0x3000, 0x9007n | ((++turn & 1n) << 11n));
    };
    expect(walk(FIRST, restless, 0, 0, 0, RIGHT.READ, result)).toBe(WALK.UPDATE);
    expect(restless.exchanges).toBeLessThan(40);
  });
});

describe('why a request is refused', () => {
  it('names privilege where U/S is clear, the rights otherwise', () => {
    const supervisor = path(3n);
    expect(walk(FIRST, supervisor, 0, 0, 0, RIGHT.READ, result)).toBe(WALK.PERMISSION);
    expect(result.denied).toBe(RIGHT.READ | RIGHT.PRIVILEGED);
    expect(walk(FIRST, supervisor, 0, 0, 0, RIGHT.READ | RIGHT.PRIVILEGED, result)).toBe(WALK.OK);
    expect(result.permissions & RIGHT.PRIVILEGED).toBe(RIGHT.PRIVILEGED);
    const readOnly = path(5n);
    const write = RIGHT.WRITE | RIGHT.PRIVILEGED;
    expect(walk(FIRST, readOnly, 0, 0, 0, write, result)).toBe(WALK.PERMISSION);
    expect(result.denied).toBe(RIGHT.WRITE);
    const unprotected = vtdFirstStage(CAPS, { levels: 4, writeProtect: false, extendedAccessed: true });
    expect(walk(unprotected, readOnly, 0, 0, 0, write, result)).toBe(WALK.OK);
    expect(walk(FIRST, path(), 0, 0, 0, RIGHT.READ | RIGHT.EXECUTE, result)).toBe(WALK.PERMISSION);
    expect(result.denied).toBe(RIGHT.EXECUTE);
  });

  it('names no privilege where that would not help', () => {
    const writeOnly = new ArrayMemory([{ base: 0, bytes: 4096 }]);
    writeOnly.poke(0, 0x82n);
    expect(walk(SECOND, writeOnly, 0, 0, 0, RIGHT.READ, result)).toBe(WALK.PERMISSION);
    expect(result.denied).toBe(RIGHT.READ);
  });
});

describe('tables', () => {
  it.each([
    ['2 GiB', 0x8000_0000],
    ['the end of 4 GiB', 0xffff_f000],
    ['4 GiB', 0x1_0000_0000],
    ['6 GiB', 0x1_8000_0000],
  ])('are walked at %s', (_, table) => {
    const memory = new ArrayMemory([
      { base: 0, bytes: 4096 },
      { base: table, bytes: 4096 },
    ]);
    memory.poke(0, BigInt(table) | 3n);
    memory.poke(table + 8, 0x4000_0083n);
    expect(walk(SECOND, memory, 0, 0x20_0000, 0, RIGHT.READ, result)).toBe(WALK.OK);
    expect([result.entryAddress, result.outLo]).toEqual([table + 8, 0x4000_0000]);
  });
});

describe('nested', () => {
  it('sets Dirty in stage 2 for the pages of tables whose bits it sets, and keeps privileged-only rights so', () => {
    const memory = path(3n);
    // Stage 2 in pages 4..6: intermediate pages 0..3 as they stand, 0x9000 → 0x5_0000, all but the
    // leaf's page writable.
    memory.poke(0x4000, 0x5003n);
    memory.poke(0x5000, 0x6003n);
    for (const page of [0, 1, 2, 3]) memory.poke(0x6000 + page * 8, BigInt(page * 4096) | 3n);
    memory.poke(0x6000 + 9 * 8, 0x50002n);
    const stage2 = new StageTwo(memory);
    const write = RIGHT.WRITE | RIGHT.PRIVILEGED;
    expect(walkNested(FIRST, 0, stage2, SECOND, 0x4000, 0x10, 0, write, result)).toBe(WALK.OK);
    expect(result.outLo).toBe(0x50000);
    expect(result.permissions).toBe(RIGHT.WRITE | RIGHT.PRIVILEGED);
    expect(memory.peek(0x6000)).toBe(0x303n);
    expect(memory.peek(0x6000 + 9 * 8)).toBe(0x50302n);
    const read = RIGHT.READ | RIGHT.PRIVILEGED;
    expect(walkNested(FIRST, 0, stage2, SECOND, 0x4000, 0x10, 0, read, result)).toBe(WALK.STAGE2);
    expect([result.stage2, result.stage2Access, result.ipaLo]).toEqual([WALK.PERMISSION, RIGHT.READ, 0x9010]);
  });

  it('takes a fetch for a read where stage 2 knows no execution', () => {
    const first = vmsaStage1({
      ...{ granule: GRANULE.KIB_4, inputBits: 30, outputBits: 36, largePhysical: false },
      ...{ accessFlag: ACCESS_FLAG.FAULT, dirtyState: false, upper: false, topByteIgnored: false },
      ...{ hierarchical: true, writeExecuteNever: false, privilegedAccessNever: false },
      singlePrivilege: false,
    });
    const memory = new ArrayMemory([{ base: 0, bytes: 4 * 4096 }]);
    // Stage 1: 2 MiB at intermediate 2 MiB and 4 MiB. Stage 2: these are readable and writable
    // only.
    memory.poke(0, 0x20_0441n);
    memory.poke(8, 0x40_0441n);
    memory.poke(0x1000, 0x2003n);
    memory.poke(0x2000, 0x83n);
    memory.poke(0x2008, 0x20_0081n);
    memory.poke(0x2010, 0x40_0082n);
    const stage2 = new StageTwo(memory);
    const second = vtdSecondStage(CAPS, { levels: 3, accessedDirty: false });
    const { EXECUTE, READ } = RIGHT;
    expect(walkNested(first, 0, stage2, second, 0x1000, 0, 0, EXECUTE, result)).toBe(WALK.OK);
    expect([result.permissions, result.cachable]).toEqual([READ | EXECUTE, READ | EXECUTE]);
    expect(walkNested(first, 0, stage2, second, 0x1000, 0x20_0000, 0, EXECUTE, result)).toBe(WALK.STAGE2);
    expect([result.stage2, result.stage2Access]).toEqual([WALK.PERMISSION, READ]);
  });
});
