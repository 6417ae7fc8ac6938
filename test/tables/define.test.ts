import { describe, expect, it } from 'vitest';
import { addr, type Field, type FieldInput, layout, pack, setField } from '../../src/spec/define.js';

/** A small deterministic generator (xorshift32), so that a failure can be repeated. */
function generator(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function wide(words: ArrayLike<number>, base: number, count: number): bigint {
  let value = 0n;
  for (let index = count - 1; index >= 0; index--)
    value = (value << 32n) | BigInt((words[base + index] ?? 0) >>> 0);
  return value;
}

/** What the getter promises, with nothing in common with how it computes it. */
function expected(field: Field, whole: bigint): bigint {
  const shifted = (whole >> BigInt(field.lsb)) & ((1n << BigInt(field.msb - field.lsb + 1)) - 1n);
  return field.address ? shifted << BigInt(field.lsb % 64) : shifted;
}

const SEED = 0x5eed_1234;

describe('declared fields', () => {
  it('every position and width of 1..32 bits reads what a shift of the whole value gives', () => {
    const random = generator(SEED);
    const words = new Uint32Array(6);
    const signed = new Int32Array(words.buffer);
    let compared = 0;
    for (let lsb = 0; lsb < 128; lsb++) {
      for (let width = 1; width <= 32 && lsb + width <= 128; width++) {
        const shape = layout('T', 16, { X: [lsb + width - 1, lsb] });
        for (let index = 0; index < words.length; index++) words[index] = random();
        for (const base of [0, 2]) {
          const want = Number(expected(shape.fields.X, wide(words, base, 4)));
          const label = `[${lsb + width - 1}:${lsb}] base ${base}`;
          expect(shape.get.X(words, base), label).toBe(want);
          expect(shape.get.X(signed, base), `${label} signed`).toBe(want);
          compared++;
        }
      }
    }
    expect(compared).toBeGreaterThan(7000);
  });

  it('address fields keep their bits in place within their 64-bit word, exactly', () => {
    const random = generator(SEED + 1);
    const words = new Uint32Array(8);
    for (const [msb, lsb] of [
      [63, 12],
      [51, 12],
      [63, 30],
      [127, 76],
      [191, 140],
      [31, 2],
      [127, 96],
    ] as const) {
      const shape = layout('T', 32, { A: addr(msb, lsb) });
      for (let round = 0; round < 200; round++) {
        for (let index = 0; index < words.length; index++) words[index] = random();
        const got = shape.get.A(words);
        expect(BigInt(got), `[${msb}:${lsb}]`).toBe(expected(shape.fields.A, wide(words, 0, 8)));
      }
    }
  });

  it('fields of 33..52 bits that are not addresses are shifted down', () => {
    const random = generator(SEED + 2);
    const words = new Uint32Array(4);
    for (let lsb = 0; lsb < 64; lsb += 3) {
      for (let width = 33; width <= 52 && lsb + width <= 128; width++) {
        // A field over three words cannot be summed exactly before the shift; no specification has
        // one.
        if ((lsb & 31) + width > 64) continue;
        const shape = layout('T', 16, { X: [lsb + width - 1, lsb] });
        for (let index = 0; index < words.length; index++) words[index] = random();
        const got = shape.get.X(words);
        const want = expected(shape.fields.X, wide(words, 0, 4));
        expect(Math.abs(got - Number(want)) <= Number(want) * 2 ** -52, `[${lsb + width - 1}:${lsb}]`).toBe(
          true,
        );
      }
    }
  });

  it('setField stores what the getter reads and touches no other bit', () => {
    const random = generator(SEED + 3);
    for (let round = 0; round < 4000; round++) {
      const lsb = random() % 128;
      const width = 1 + (random() % Math.min(32, 128 - lsb));
      const shape = layout('T', 16, { X: [lsb + width - 1, lsb] });
      const words = Uint32Array.from([random(), random(), random(), random()]);
      const before = wide(words, 0, 4);
      const value = Number(BigInt(random()) & ((1n << BigInt(width)) - 1n));
      setField(words, 0, shape.fields.X, value);
      expect(shape.get.X(words)).toBe(value);
      const mask = ((1n << BigInt(width)) - 1n) << BigInt(lsb);
      expect(wide(words, 0, 4) & ~mask).toBe(before & ~mask);
    }
  });

  it('pack and get agree for addresses in either 64-bit half', () => {
    const shape = layout('T', 16, { LO: addr(63, 12), HI: addr(127, 76), FLAG: 0 });
    const words = pack(shape, { LO: 0x000f_edcb_a987_6000, HI: 0x0000_1234_5678_9000, FLAG: 1 });
    expect(wide(words, 0, 2)).toBe(0x000f_edcb_a987_6001n);
    expect(wide(words, 2, 2)).toBe(0x0000_1234_5678_9000n);
    expect(shape.get.LO(words)).toBe(0x000f_edcb_a987_6000);
    expect(shape.get.HI(words)).toBe(0x0000_1234_5678_9000);
  });

  it('reserved masks are the complement of the fields', () => {
    const inputs: Record<string, FieldInput> = { A: 0, B: [13, 5], C: [66, 30], D: 95 };
    const shape = layout('T', 12, inputs);
    let fields = 0n;
    for (const field of Object.values(shape.fields))
      fields |= ((1n << BigInt(field.msb - field.lsb + 1)) - 1n) << BigInt(field.lsb);
    expect(wide(shape.reserved, 0, 3)).toBe(~fields & ((1n << 96n) - 1n));
  });

  it('refuses a table that is wrong in itself', () => {
    expect(() => layout('T', 4, { A: [3, 0], B: [5, 3] })).toThrow(/overlap/);
    expect(() => layout('T', 4, { A: [32, 30] })).toThrow(/outside/);
    expect(() => layout('T', 4, { A: [1, 2] })).toThrow(/above/);
  });
});
