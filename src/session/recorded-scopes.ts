/**
 * Scopes that a model has invalidated and that are not passed on yet, in order. Allocates only to
 * grow.
 */
import { ANY, type InvalidateScope } from '../device/iommu.js';

const WORDS = 8;
const FEW = 64;
/**
 * Above this one scope stands for all: everything. A queue of commands that is full and takes long
 * to list gets there.
 */
export const MOST_SCOPES = 1 << 15;

export class RecordedScopes {
  #words = new Float64Array(FEW * WORDS);
  #first = 0;
  #end = 0;
  readonly #scope: InvalidateScope = {
    ...{ space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64, structures: false },
  };

  /** Scopes that {@link take} has not returned. */
  get count(): number {
    return this.#end - this.#first;
  }

  add(scope: InvalidateScope): void {
    if (this.#end === MOST_SCOPES) {
      this.#everything();
      return;
    }
    const at = this.#end * WORDS;
    if (at === this.#words.length) this.#grow();
    const words = this.#words;
    words[at] = scope.space;
    words[at + 1] = scope.sub;
    words[at + 2] = scope.rid;
    words[at + 3] = scope.pasid;
    words[at + 4] = scope.lo;
    words[at + 5] = scope.hi;
    words[at + 6] = scope.log2Size;
    words[at + 7] = scope.structures === true ? 1 : 0;
    this.#end++;
  }

  /** The oldest scope. The object is reused. */
  take(): InvalidateScope | undefined {
    if (this.#first === this.#end) return undefined;
    const words = this.#words;
    const scope = this.#scope;
    const at = this.#first * WORDS;
    scope.space = words[at] as number;
    scope.sub = words[at + 1] as number;
    scope.rid = words[at + 2] as number;
    scope.pasid = words[at + 3] as number;
    scope.lo = words[at + 4] as number;
    scope.hi = words[at + 5] as number;
    scope.log2Size = words[at + 6] as number;
    scope.structures = words[at + 7] === 1;
    if (++this.#first === this.#end) {
      this.#first = 0;
      this.#end = 0;
    }
    return scope;
  }

  #grow(): void {
    const larger = new Float64Array(this.#words.length * 2);
    larger.set(this.#words);
    this.#words = larger;
  }

  /** In place of those that wait. */
  #everything(): void {
    this.#first = 0;
    this.#end = 0;
    this.add(EVERYTHING);
  }
}

/** Every translation, and every structure. */
export const EVERYTHING: InvalidateScope = {
  ...{ space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64, structures: true },
};
