/**
 * Scopes that a model has invalidated and that are not passed on yet, in order. The objects are
 * used again: it allocates only to hold more than ever before.
 */
import { EVERYTHING, type InvalidateScope } from '../device/iommu.js';

/**
 * Above this, one scope of everything takes the place of all. A full queue of commands that each
 * take several scopes gets there.
 */
export const MOST_SCOPES = 1 << 15;

export class RecordedScopes {
  readonly #scopes: InvalidateScope[] = [];
  #first = 0;
  #end = 0;

  /** Scopes that {@link take} has not returned. */
  get count(): number {
    return this.#end - this.#first;
  }

  /** Records a copy. */
  add(from: InvalidateScope): void {
    if (this.#end === MOST_SCOPES) {
      this.#everything();
      return;
    }
    if (this.#end === this.#scopes.length) this.#scopes.push({ ...EVERYTHING });
    const scope = this.#scopes[this.#end++] as InvalidateScope;
    scope.space = from.space;
    scope.sub = from.sub;
    scope.rid = from.rid;
    scope.pasid = from.pasid;
    scope.lo = from.lo;
    scope.hi = from.hi;
    scope.log2Size = from.log2Size;
    scope.structures = from.structures === true;
  }

  /** The oldest scope. The object is used again by the next {@link add}. */
  take(): InvalidateScope | undefined {
    if (this.#first === this.#end) return undefined;
    const scope = this.#scopes[this.#first] as InvalidateScope;
    if (++this.#first === this.#end) {
      this.#first = 0;
      this.#end = 0;
    }
    return scope;
  }

  /** In place of those that wait. */
  #everything(): void {
    this.#first = 0;
    this.#end = 0;
    this.add(EVERYTHING);
  }
}
