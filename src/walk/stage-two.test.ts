/** Guest memory behind stage-2 tables: what each access needs there, and what refuses it. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ArrayMemory } from '../memory/array.js';
import { ACCESS_FLAG, GRANULE, vmsaStage2 } from '../spec/pagetable/vmsa.js';
import { vtdSecondStage } from '../spec/pagetable/vtd.js';
import { StageTwo } from './nested.js';
import { WALK } from './types.js';

const FORMAT = vtdSecondStage(
  {
    ...{ hostAddressWidth: 46, secondStage2M: true, secondStage1G: true, firstStage1G: true },
    ...{ snoopControl: false, transientMapping: false },
  },
  { levels: 3, inputBits: 39, accessedDirty: false },
);
const ROOT = 0x1000;
const LEAVES = 0x3000;
const DATA = 0x8000;
/** Pages of intermediate addresses: of all rights, read-only, of no RAM, of none. */
const IPA = 0x4000;
const READ_ONLY = 0x5000;
const NO_RAM = 0x6000;
const NOWHERE = 0x7000;

let memory: ArrayMemory;
let stage2: StageTwo;

beforeEach(() => {
  memory = new ArrayMemory([{ base: 0, bytes: 0x1_0000 }]);
  memory.poke(ROOT, 0x2000n | 3n);
  memory.poke(0x2000, BigInt(LEAVES) | 3n);
  memory.poke(LEAVES + 8 * 4, BigInt(DATA) | 3n);
  memory.poke(LEAVES + 8 * 5, BigInt(DATA) | 1n);
  memory.poke(LEAVES + 8 * 6, 0x100_0000n | 3n);
  memory.poke(DATA + 8, 0x1122_3344_5566_7788n);
  memory.poke(DATA + 16, 0x99n);
  stage2 = new StageTwo(memory).use(FORMAT, ROOT, false);
});

const halves = (): string[] => [stage2.lo, stage2.hi].map((half) => (half >>> 0).toString(16));

describe('memory behind stage 2', () => {
  it('is read word by word', () => {
    expect(stage2.load64(IPA + 8)).toBe(true);
    expect(halves()).toEqual(['55667788', '11223344']);
    expect(stage2.load32(IPA + 12)).toBe(true);
    expect(stage2.lo).toBe(0x1122_3344);
    const words = new Uint32Array([7, 7, 7, 7]);
    expect(stage2.loadWords(IPA + 8, words, 3)).toBe(true);
    expect([...words]).toEqual([0x5566_7788, 0x1122_3344, 0x99, 7]);
    expect(stage2.loadWords(READ_ONLY + 8, words, 4)).toBe(true);
    expect([...words]).toEqual([0x5566_7788, 0x1122_3344, 0x99, 0]);
    expect(stage2.contains(IPA, 8)).toBe(true);
    expect(stage2.failed).toBe(WALK.OK);
  });

  it.each([
    ['no RAM', NO_RAM, WALK.OK],
    ['no page', NOWHERE, WALK.NOT_PRESENT],
  ])('is not there where stage 2 leads to %s', (_, ipa, failed) => {
    const words = new Uint32Array(4);
    expect([stage2.load32(ipa), stage2.load64(ipa), stage2.loadWords(ipa, words, 4)]).toEqual([
      false,
      false,
      false,
    ]);
    expect([stage2.store32(ipa, 1), stage2.store64(ipa, 1, 2), stage2.cas32(ipa, 0, 1)]).toEqual([
      false,
      false,
      false,
    ]);
    expect(stage2.contains(ipa, 8)).toBe(false);
    expect([...words]).toEqual([0, 0, 0, 0]);
    expect(stage2.failed).toBe(failed);
  });

  it('ends where its second page is not there', () => {
    const words = new Uint32Array(4);
    expect(stage2.loadWords(READ_ONLY + 0xff8, words, 4)).toBe(false);
  });

  it('is written with the right to write', () => {
    expect(stage2.store32(IPA + 8, 5)).toBe(true);
    expect(stage2.store64(IPA + 16, 6, 7)).toBe(true);
    expect(stage2.cas32(IPA + 8, 5, 9)).toBe(true);
    expect([memory.peek(DATA + 8), memory.peek(DATA + 16)]).toEqual([0x1122_3344_0000_0009n, 0x7_0000_0006n]);
    expect(stage2.cas32(IPA + 8, 5, 10)).toBe(false);
    expect(stage2.lo).toBe(9);
  });

  it('is not written without it, and says which right was asked for', () => {
    expect(stage2.store32(READ_ONLY + 8, 5)).toBe(false);
    expect([stage2.failed, stage2.failedAccess, stage2.failedAddress]).toEqual([
      WALK.PERMISSION,
      2,
      READ_ONLY + 8,
    ]);
    expect(stage2.store64(READ_ONLY + 8, 5, 6)).toBe(false);
    expect(stage2.cas32(READ_ONLY + 8, 0x5566_7788, 6)).toBe(false);
    expect([stage2.lo, stage2.failedAccess]).toEqual([0x5566_7788, 3]);
    expect(memory.peek(DATA + 8)).toBe(0x1122_3344_5566_7788n);
  });

  it('may be the first page of all', () => {
    memory.poke(LEAVES + 8 * 7, 3n);
    expect([stage2.store32(NOWHERE, 5), stage2.load32(NOWHERE), stage2.lo]).toEqual([true, true, 5]);
    expect([stage2.store64(NOWHERE, 6, 7), stage2.load64(NOWHERE), stage2.hi]).toEqual([true, true, 7]);
    expect([stage2.cas32(NOWHERE, 6, 8), stage2.contains(NOWHERE, 8)]).toEqual([true, true]);
    expect(memory.peek(0)).toBe(0x7_0000_0008n);
  });

  it('lies anywhere in a block of more than 4 GiB', () => {
    // Arm's blocks of 4 TiB: the intermediate and the physical one, with the same RAM in it.
    const address = 2 ** 43 + 2 ** 40 + 0x1_2345_6000;
    const block = vmsaStage2({
      ...{ granule: GRANULE.KIB_64, inputBits: 48, outputBits: 52, largePhysical: true, startLevel: 1 },
      ...{ accessFlag: ACCESS_FLAG.FAULT, dirtyState: false, executeNeverByPrivilege: false },
      protectedTableWalk: false,
    });
    const far = new ArrayMemory([
      { base: 0, bytes: 0x1000 },
      { base: address, bytes: 0x1000 },
    ]);
    far.poke(8, BigInt(2 ** 43) | 0x4fdn);
    far.poke(address + 8, 0x1122_3344_5566_7788n);
    stage2 = new StageTwo(far).use(block, 0, false);
    expect(stage2.load64(address - 2 ** 42 + 8)).toBe(true);
    expect(halves()).toEqual(['55667788', '11223344']);
  });

  it('is not written by a look', () => {
    stage2.use(FORMAT, ROOT, true);
    expect(stage2.load64(IPA + 8)).toBe(true);
    expect([stage2.store32(IPA, 1), stage2.store64(IPA, 1, 2), stage2.cas32(IPA, 0, 1)]).toEqual([
      false,
      false,
      false,
    ]);
    expect(memory.peek(DATA)).toBe(0n);
  });
});
