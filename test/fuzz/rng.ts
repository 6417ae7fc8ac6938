/** A seeded generator (xorshift32 over a mixed seed): the same seed is the same run, everywhere. */
export class Rng {
  #state: number;

  constructor(readonly seed: number) {
    this.#state = (Math.imul(seed ^ 0x5bd1_e995, 0x9e37_79b1) ^ 0x85eb_ca6b) >>> 0 || 1;
    for (let i = 0; i < 4; i++) this.u32();
  }

  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** 0 .. limit − 1. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit);
  }

  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** A 64-bit value with few bits set, or all, or a small one: what finds edges. */
  odd64(): bigint {
    switch (this.below(6)) {
      case 0:
        return 0n;
      case 1:
        return (1n << 64n) - 1n;
      case 2:
        return 1n << BigInt(this.below(64));
      case 3:
        return BigInt(this.below(0x10000));
      case 4:
        return this.u64() & this.u64() & this.u64();
      default:
        return this.u64();
    }
  }
}
