import { describe, expect, it } from 'vitest';
import { COMMAND_QUEUE, QUEUE_LOG2, SID, STREAM_TABLE, TestSmmu } from '../../../test/support/smmu-unit.js';
import { ANY, NO_PASID } from '../../base/ids.js';
import { CD, STE } from '../../spec/smmuv3/structures.js';
import { MAX_SPANS, SPAN_WORDS, TRANSLATE_STATUS, type TranslateResult } from '../iommu.js';

const OFFSETS = [
  0x20, 0x28, 0x2c, 0x44, 0x50, 0x60, 0x64, 0x68, 0x70, 0x80, 0x84, 0x88, 0x90, 0x94, 0x98, 0x9c, 0xa0, 0xa8,
  0xac, 0xb0, 0xb8, 0x100a8, 0x100ac, 0x100cc, 0x1fffc,
];

/** The same numbers every time. */
function generator(seed: number) {
  let state = seed | 1;
  const word = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return { word, below: (limit: number): number => word() % limit };
}

/** Words that are mostly plausible: enough of the fields are right to get past the first check. */
function nearlyValid(
  words: Uint32Array,
  random: ReturnType<typeof generator>,
  usual: readonly number[],
): Uint32Array {
  for (let index = 0; index < usual.length; index++) words[index] = usual[index];
  for (let flips = random.below(6); flips > 0; flips--) {
    words[random.below(words.length)] ^= 2 ** random.below(32);
  }
  return words;
}

describe.each(['faithful', 'none', 'hostile'])(
  'a guest that programs nonsense, cache-policy %s',
  (policy) => {
    it.each([11, 12])('never stops the model (seed %i)', (seed) => {
      const random = generator(seed);
      const vm = new TestSmmu({
        ats: 'on',
        'cache-policy': policy,
        oas: random.below(2) === 0 ? '48' : '52',
      }).start();
      const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
      const result: TranslateResult = { status: -1, count: -1, spans, space: 0, sub: 0, stall: 0 };
      const table = (): number => 0x10_0000 + random.below(32) * 4096;
      const descriptor = (): bigint =>
        random.below(8) === 0
          ? BigInt(random.word())
          : (BigInt(random.below(4)) << 51n) | BigInt(table()) | BigInt(0x4c3 ^ (1 << random.below(12)));
      for (let entry = 0; entry < 32 * 512; entry++) vm.memory.poke(0x10_0000 + entry * 8, descriptor());
      const ste = new Uint32Array(STE.wordCount);
      const cd = new Uint32Array(CD.wordCount);
      let answered = 0;
      let refused = 0;
      for (let round = 0; round < 3000; round++) {
        const config = [5, 6, 7, 7][random.below(4)];
        const context = 0x20_0000 + random.below(8) * 4096;
        const granule = random.below(3);
        const size = (24 | (1 << 6) | (granule << 14) | (5 << 16) | (1 << 19) | (1 << 26)) >>> 0;
        nearlyValid(ste, random, [
          1 | (config << 1) | context,
          random.below(3) << 27,
          0,
          0,
          7,
          size,
          table(),
          0,
        ]);
        const attributes = 5 | (random.below(2) << 3) | (random.below(4) << 10) | 0x6200 | (5 << 16);
        nearlyValid(cd, random, [(0xc000_0018 | (granule << 6)) >>> 0, attributes, table(), 0]);
        vm.store(STREAM_TABLE + (SID + random.below(4)) * 64, ste);
        vm.store(context, cd);
        for (let index = 0; index < 8; index++) vm.memory.poke(table() + random.below(512) * 8, descriptor());
        if (random.below(20) === 0) {
          const offset = OFFSETS[random.below(OFFSETS.length)];
          vm.model.writeRegister(offset, random.below(2) === 0 ? 4 : 8, random.word(), random.word());
          vm.start();
        }
        if (random.below(4) === 0) {
          const command = Uint32Array.from({ length: 4 }, () => random.word());
          command[0] = [1, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2a, 0x30, 0x46, 0x20][
            random.below(14)
          ];
          command[0] |= random.word() & 0x01f1_f000;
          vm.store(COMMAND_QUEUE + random.below(2 ** QUEUE_LOG2) * 16, command);
          vm.write32(0x98, random.below(32));
          vm.acknowledgeErrors();
        }
        const rid = SID + random.below(5);
        const pasid = random.below(4) === 0 ? random.below(8) : NO_PASID;
        const request = {
          ...{ rid, pasid, access: random.below(16), lo: random.word(), hi: random.below(0x100) },
          ...{ kind: 0, mayStall: false },
        };
        vm.model.translate(request, result);
        if (result.status === TRANSLATE_STATUS.OK) {
          answered++;
          expect(result.count).toBeGreaterThan(0);
          const [inLo, inHi, , , log2, permissions] = spans;
          if (log2 < 32) expect((inLo ^ request.lo) >>> log2).toBe(0);
          if (log2 <= 32) expect(inHi).toBe(request.hi);
          const needed = (request.access & 6) === 4 ? 4 : request.access & 3;
          expect(needed & ~permissions, 'rights').toBe(0);
        } else {
          refused++;
          expect(result.count).toBe(0);
        }
        if (random.below(100) === 0) {
          vm.model.survey.enumerate(rid, pasid, 0, 0, result);
          vm.model.spaces.concerns(
            { space: 7, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
            rid,
          );
          vm.model.dumper.dump({ registers: true, tables: random.below(4) === 0, rid, maxLeaves: 4 });
        }
      }
      expect(answered).toBeGreaterThan(50);
      expect(refused).toBeGreaterThan(100);
    });
  },
);
