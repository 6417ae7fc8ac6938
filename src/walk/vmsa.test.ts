import { describe, expect, it } from 'vitest';
import { ArrayMemory } from '../memory/array.js';
import { RIGHT } from '../spec/pagetable/format.js';
import {
  ACCESS_FLAG,
  GRANULE,
  rootBytes,
  stage2Concatenation,
  stage2StartLevel,
  type VmsaStage1Params,
  type VmsaStage2Params,
  vmsaStage1,
  vmsaStage2,
} from '../spec/pagetable/vmsa.js';
import { vtdSecondStage } from '../spec/pagetable/vtd.js';
import { explain } from './explain.js';
import { WALK, WalkResult } from './types.js';
import { walk } from './walk.js';

const S1: VmsaStage1Params = {
  granule: GRANULE.KIB_4,
  inputBits: 48,
  outputBits: 48,
  largePhysical: false,
  accessFlag: ACCESS_FLAG.FAULT,
  dirtyState: false,
  upper: false,
  topByteIgnored: false,
  hierarchical: true,
  writeExecuteNever: false,
  privilegedAccessNever: false,
  singlePrivilege: false,
};
const S2: VmsaStage2Params = {
  granule: GRANULE.KIB_4,
  inputBits: 40,
  outputBits: 44,
  largePhysical: false,
  accessFlag: ACCESS_FLAG.FAULT,
  dirtyState: false,
  startLevel: 1,
  executeNeverByPrivilege: false,
  protectedTableWalk: false,
};
const result = new WalkResult();
const { READ, WRITE, EXECUTE, PRIVILEGED } = RIGHT;

/** A root at 0 whose entry `index` is `entry`, and tables behind it where wanted. */
function memoryOf(...entries: readonly (readonly [address: number, entry: bigint])[]): ArrayMemory {
  const memory = new ArrayMemory([{ base: 0, bytes: 0x8_0000 }]);
  for (const [address, entry] of entries) memory.poke(address, entry);
  return memory;
}

describe('records', () => {
  it('are one object per set of parameters, of the same shape as those of VT-d', () => {
    expect(vmsaStage1({ ...S1 })).toBe(vmsaStage1(S1));
    expect(vmsaStage2({ ...S2 })).toBe(vmsaStage2(S2));
    const others = [
      { upper: true },
      { topByteIgnored: true },
      { hierarchical: false },
      { inputBits: 47 },
      { outputBits: 44 },
      { largePhysical: true },
      { accessFlag: ACCESS_FLAG.UPDATE },
      { granule: GRANULE.KIB_16 },
      { dirtyState: true },
      { writeExecuteNever: true },
      { privilegedAccessNever: true },
      { singlePrivilege: true },
    ].map((change) => vmsaStage1({ ...S1, ...change }));
    expect(new Set([...others, vmsaStage1(S1)]).size).toBe(others.length + 1);
    const vtd = vtdSecondStage(
      {
        hostAddressWidth: 46,
        secondStage2M: true,
        secondStage1G: true,
        firstStage1G: true,
        snoopControl: true,
        transientMapping: false,
      },
      { levels: 4, accessedDirty: false },
    );
    for (const format of [vmsaStage1(S1), vmsaStage2(S2)]) {
      expect(Object.keys(format)).toEqual(Object.keys(vtd));
      expect(Object.keys(format.root)).toEqual(Object.keys(vtd.root));
    }
  });

  it('stay bounded however many parameters a guest tries', () => {
    const first = vmsaStage1(S1);
    for (let inputBits = 25; inputBits <= 48; inputBits++)
      for (const outputBits of [32, 36, 40, 42, 44, 48])
        for (const granule of Object.values(GRANULE))
          for (const upper of [false, true]) vmsaStage1({ ...S1, inputBits, outputBits, granule, upper });
    expect(vmsaStage1(S1)).not.toBe(first);
    expect(vmsaStage1(S1)).toEqual(first);
  });

  it('refuse what no table can be made of', () => {
    expect(() => vmsaStage1({ ...S1, inputBits: 52 })).toThrow('no tables');
    expect(() => vmsaStage2({ ...S2, inputBits: 48 })).toThrow('no stage 2');
  });
});

describe('geometry', () => {
  // DDI 0487 D8.2: granule, TxSZ → Arm's start level and entries in the root.
  it.each([
    [GRANULE.KIB_4, 48, 0, 512],
    [GRANULE.KIB_4, 40, 0, 2],
    [GRANULE.KIB_4, 39, 1, 512],
    [GRANULE.KIB_4, 31, 1, 2],
    [GRANULE.KIB_4, 30, 2, 512],
    [GRANULE.KIB_4, 25, 2, 16],
    [GRANULE.KIB_16, 48, 0, 2],
    [GRANULE.KIB_16, 47, 1, 2048],
    [GRANULE.KIB_16, 36, 2, 2048],
    [GRANULE.KIB_64, 48, 1, 64],
    [GRANULE.KIB_64, 42, 2, 8192],
    [GRANULE.KIB_64, 29, 3, 8192],
  ])(
    'stage 1, granule 2^%d, %d bits: starts at level %d with %d entries',
    (granule, inputBits, level, entries) => {
      const format = vmsaStage1({ ...S1, granule, inputBits });
      expect([4 - format.levels, format.root.indexMask + 1]).toEqual([level, entries]);
      expect(rootBytes(format)).toBe(Math.max(64, entries * 8));
    },
  );

  it.each([
    [GRANULE.KIB_4, [2, 1, 0, undefined]],
    [GRANULE.KIB_16, [3, 2, 1, undefined]],
    [GRANULE.KIB_64, [3, 2, 1, undefined]],
  ] as const)('S2SL0 with granule 2^%d', (granule, levels) => {
    expect([0, 1, 2, 3].map((sl0) => stage2StartLevel(granule, sl0))).toEqual(levels);
  });

  it.each([
    [GRANULE.KIB_4, 39, 1, 0],
    [GRANULE.KIB_4, 40, 1, 1],
    [GRANULE.KIB_4, 43, 1, 4],
    [GRANULE.KIB_4, 44, 1, undefined],
    [GRANULE.KIB_4, 44, 0, 0],
    [GRANULE.KIB_4, 39, 0, undefined],
    [GRANULE.KIB_16, 40, 2, 4],
    [GRANULE.KIB_64, 46, 2, 4],
    [GRANULE.KIB_64, 47, 2, undefined],
  ])('stage 2, granule 2^%d, %d bits from level %d: 2^%s tables', (granule, bits, level, log2) => {
    expect(stage2Concatenation(granule, bits, level)).toBe(log2);
  });

  it('walks the second of two concatenated root tables', () => {
    // IPA bit 39 chooses the table; level 1 block of 1 GiB.
    const memory = memoryOf([0x1000, 0x4_4000_0000n | 0x4c1n]);
    expect(walk(vmsaStage2(S2), memory, 0, 0x1234, 0x80, READ | WRITE, result)).toBe(WALK.OK);
    expect([result.outLo, result.outHi, result.log2Size, 4 - result.level]).toEqual([0x4000_0000, 4, 30, 1]);
  });

  it('puts bits 15:12 of the 64 KiB granule at 51:48 in tables, pages and blocks of 4 TiB', () => {
    const large = vmsaStage1({
      ...S1,
      granule: GRANULE.KIB_64,
      inputBits: 52,
      outputBits: 52,
      largePhysical: true,
    });
    const block = memoryOf([8, 0x0400_0000_a000n | 0x441n]);
    expect(walk(large, block, 0, 0, 0x400, READ, result)).toBe(WALK.OK);
    expect([result.outHi, result.log2Size]).toEqual([0xa_0400, 42]);
    const memory = new ArrayMemory([
      { base: 0, bytes: 0x1_0000 },
      { base: 2 ** 50, bytes: 0x1_0000 },
    ]);
    memory.poke(0, 0x4003n);
    expect(walk(large, memory, 0, 0, 0, READ, result)).toBe(WALK.NOT_PRESENT);
    expect(result.entryAddress).toBe(2 ** 50);
    const small = { ...S1, granule: GRANULE.KIB_64 };
    // Without 52 bits of output it is an Address size fault, without the feature nothing.
    expect(walk(vmsaStage1({ ...small, largePhysical: true }), memory, 0, 0, 0, READ, result)).toBe(
      WALK.OUTPUT_SIZE,
    );
    // The table is at 0 then, and its entry a page without the Access flag.
    expect(walk(vmsaStage1(small), memory, 0, 0, 0, READ, result)).toBe(WALK.ACCESS_FLAG);
    expect([result.entryAddress, 4 - result.level]).toEqual([0, 3]);
  });

  it('takes the input range of TTB1, and with TBI any top byte', () => {
    const memory = memoryOf([511 * 8, 0x1003n], [0x1000 + 511 * 8, 0x441n]);
    const plain = vmsaStage1({ ...S1, upper: true });
    const tagged = vmsaStage1({ ...S1, upper: true, topByteIgnored: true });
    const look = (format: typeof plain, hi: number): number => walk(format, memory, 0, -1, hi, READ, result);
    expect([look(plain, -1), look(plain, 0x12ff_ffff), look(plain, 0xffff)]).toEqual([
      WALK.OK,
      WALK.ADDRESS_SIZE,
      WALK.ADDRESS_SIZE,
    ]);
    expect([look(tagged, 0x12ff_ffff), look(tagged, 0xff7f_ffff)]).toEqual([WALK.OK, WALK.ADDRESS_SIZE]);
    const narrow = vmsaStage1({ ...S1, inputBits: 25 });
    expect(walk(narrow, memoryOf([0, 0x441n]), 0, 0x0200_0000, 0, READ, result)).toBe(WALK.ADDRESS_SIZE);
  });
});

describe('descriptors', () => {
  it('fault on the encodings that are not defined', () => {
    const level0Block = memoryOf([0, 0x441n]);
    expect(walk(vmsaStage1(S1), level0Block, 0, 0, 0, READ, result)).toBe(WALK.NOT_PRESENT);
    const level3 = memoryOf([0, 0x1003n], [0x1000, 0x2003n], [0x2000, 0x3003n], [0x3000, 0x441n]);
    expect(walk(vmsaStage1(S1), level3, 0, 0, 0, READ, result)).toBe(WALK.NOT_PRESENT);
    expect(4 - result.level).toBe(3);
  });

  it('report size before the Access flag, and that before permissions', () => {
    const format = vmsaStage1({ ...S1, inputBits: 30, outputBits: 36 });
    const outcome = (entry: bigint): number => walk(format, memoryOf([0, entry]), 0, 0, 0, WRITE, result);
    expect(outcome(0x10_0000_0081n)).toBe(WALK.OUTPUT_SIZE);
    expect(outcome(0x0081n)).toBe(WALK.ACCESS_FLAG);
    expect(outcome(0x0481n)).toBe(WALK.PERMISSION);
    expect(outcome(0x0441n)).toBe(WALK.OK);
  });

  it('make a writable-clean page dirty: AP[2] cleared in stage 1, S2AP[1] set in stage 2', () => {
    const hardware = { accessFlag: ACCESS_FLAG.UPDATE, dirtyState: true } as const;
    const one = memoryOf([0, 0x0008_0000_0000_00c1n]);
    const first = vmsaStage1({ ...S1, ...hardware, inputBits: 30 });
    expect(walk(first, one, 0, 0, 0, READ, result)).toBe(WALK.OK);
    expect([one.peek(0), result.permissions & WRITE, result.cachable & WRITE]).toEqual([
      0x0008_0000_0000_04c1n,
      WRITE,
      0,
    ]);
    expect(walk(first, one, 0, 0, 0, WRITE, result)).toBe(WALK.OK);
    expect([one.peek(0), result.cachable & WRITE]).toEqual([0x0008_0000_0000_0441n, WRITE]);
    const two = memoryOf([0, 0x0008_0000_0000_0041n]);
    expect(walk(vmsaStage2({ ...S2, ...hardware }), two, 0, 0, 0, WRITE, result)).toBe(WALK.OK);
    expect(two.peek(0)).toBe(0x0008_0000_0000_04c1n);
    // Not where HD = 0.
    const still = memoryOf([0, 0x0008_0000_0000_04c1n]);
    const plain = vmsaStage1({ ...S1, accessFlag: ACCESS_FLAG.UPDATE, inputBits: 30 });
    expect(walk(plain, still, 0, 0, 0, WRITE, result)).toBe(WALK.PERMISSION);
  });
});

describe('permissions', () => {
  const RWX = READ | WRITE | EXECUTE;
  /** Rights of a 1 GiB block with these AP, UXN and PXN bits under a table with these limits. */
  function rights(params: Partial<VmsaStage1Params>, leaf: bigint, table: bigint, access: number): number {
    const memory = memoryOf([0, 0x1003n | table], [0x1000, 0x401n | leaf]);
    expect(walk(vmsaStage1({ ...S1, ...params }), memory, 0, 0, 0, access, result)).toBe(WALK.OK);
    return result.permissions & ~PRIVILEGED;
  }
  const UXN = 1n << 54n;
  const PXN = 1n << 53n;

  // DDI 0487 D8.4, AP[2:1]: privileged and unprivileged rights when nothing forbids execution.
  it.each([
    [0n, RWX, EXECUTE],
    [1n, READ | WRITE, RWX],
    [2n, READ | EXECUTE, EXECUTE],
    [3n, READ | EXECUTE, READ | EXECUTE],
  ])('AP[2:1] = %d', (ap, privileged, unprivileged) => {
    expect(rights({}, ap << 6n, 0n, PRIVILEGED)).toBe(privileged);
    expect(rights({}, ap << 6n, 0n, 0)).toBe(unprivileged);
    const data = READ | WRITE;
    expect(rights({}, (ap << 6n) | UXN | PXN, 0n, PRIVILEGED)).toBe(privileged & data);
    expect(rights({}, (ap << 6n) | UXN | PXN, 0n, 0)).toBe(unprivileged & data);
  });

  it('tables limit them, unless HPD', () => {
    const limits = (bits: bigint, access: number): number => rights({}, 1n << 6n, bits << 59n, access);
    expect([limits(1n, PRIVILEGED), limits(1n, 0)]).toEqual([READ | WRITE, RWX]);
    expect(limits(2n, 0)).toBe(READ | WRITE);
    expect([limits(4n, 0), limits(4n, PRIVILEGED)]).toEqual([EXECUTE, RWX]);
    expect([limits(8n, 0), limits(8n, PRIVILEGED)]).toEqual([READ | EXECUTE, READ | EXECUTE]);
    expect(rights({ hierarchical: false }, 1n << 6n, 0xfn << 59n, 0)).toBe(RWX);
  });

  it('WXN, PAN and a regime of one privilege', () => {
    expect(rights({ writeExecuteNever: true }, 1n << 6n, 0n, 0)).toBe(READ | WRITE);
    expect(rights({ writeExecuteNever: true }, 3n << 6n, 0n, 0)).toBe(READ | EXECUTE);
    expect(rights({ privilegedAccessNever: true }, 3n << 6n, 0n, PRIVILEGED)).toBe(EXECUTE);
    expect(rights({ privilegedAccessNever: true }, 2n << 6n, 0n, PRIVILEGED)).toBe(READ | EXECUTE);
    expect(rights({ singlePrivilege: true }, PXN, 0n, 0)).toBe(RWX);
    expect(rights({ singlePrivilege: true }, UXN, 0n, PRIVILEGED)).toBe(READ | WRITE);
  });

  // XN[1:0] of stage 2: who may execute.
  it.each([
    [0n, true, true],
    [1n, false, true],
    [2n, false, false],
    [3n, true, false],
  ])('stage 2, XN = %d', (xn, privileged, unprivileged) => {
    const memory = memoryOf([0, 0x4c1n | (xn << 53n)]);
    const can = (byPrivilege: boolean, access: number): boolean => {
      walk(vmsaStage2({ ...S2, executeNeverByPrivilege: byPrivilege }), memory, 0, 0, 0, access, result);
      return (result.permissions & EXECUTE) !== 0;
    };
    expect([can(true, PRIVILEGED), can(true, 0)]).toEqual([privileged, unprivileged]);
    expect(can(false, 0)).toBe((xn & 2n) === 0n);
  });
});

describe('explain', () => {
  it('names levels and fields as the architecture does', () => {
    const memory = memoryOf(
      [0, 0x1003n | (1n << 61n)],
      [0x1000, 0x2003n],
      [0x2000 + 8, 0x0048_0000_0020_0081n],
    );
    const format = vmsaStage1({ ...S1, accessFlag: ACCESS_FLAG.UPDATE, dirtyState: true });
    const text = explain(format, memory, 0, 0x20_1234, 0, WRITE | PRIVILEGED);
    expect(text.outcome).toBe('OK');
    expect(text.steps.map((s) => [s.name, s.verdict, s.sets])).toEqual([
      ['level 0 descriptor', 'table', []],
      ['level 1 descriptor', 'table', []],
      ['level 2 descriptor', 'page of 2 MiB', ['AF', 'AP']],
    ]);
    expect(text.steps[0]?.fields).toMatchObject({ valid: 1, type: 1, APTable: 1, ADDR: 0x1000 });
    expect(text.steps[2]?.fields).toMatchObject({ AP: 2, AF: 0, DBM: 1, UXN: 1, ADDR: 0x20_0000 });
    const flag = explain(vmsaStage1(S1), memory, 0, 0x20_1234, 0, READ);
    expect([flag.outcome, flag.steps.at(-1)?.verdict]).toEqual(['ACCESS_FLAG', 'the Access flag is clear']);
  });

  it('takes what limits rights from tables alone', () => {
    // Bits 62:59 of a block are no limits (APTable, XNTable): they are for software.
    const memory = memoryOf([0, 0x7800_0000_0000_0441n]);
    const text = explain(vmsaStage1({ ...S1, inputBits: 39 }), memory, 0, 0, 0, READ);
    expect([text.rights, text.steps[0]?.rights]).toEqual(['R W X', 'R W X']);
  });
});
