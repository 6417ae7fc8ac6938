/**
 * The caches downstream of a model: bridge IOTLBs, shadow tables, hardware that nests. The model
 * tells them what to drop in one reused scope, so that an invalidation allocates nothing.
 */
import { ANY } from '../base/ids.js';
import type { InvalidateScope, IommuOutputs } from './iommu.js';
import { WHOLE_SPACE } from './spans.js';

export class DownstreamCaches {
  readonly #outputs: IommuOutputs;
  readonly #scope: InvalidateScope = {
    space: ANY,
    sub: ANY,
    rid: ANY,
    pasid: ANY,
    lo: 0,
    hi: 0,
    log2Size: WHOLE_SPACE,
    structures: false,
  };

  constructor(outputs: IommuOutputs) {
    this.#outputs = outputs;
  }

  /** Everything of every requester. */
  everything(): void {
    this.structures(ANY, ANY, ANY);
  }

  /** Structures have changed that translations of these tags, or of a requester, depend on. */
  structures(space: number, sub: number, rid: number): void {
    this.#scope.structures = true;
    this.tell(space, sub, rid, 0, 0, WHOLE_SPACE);
    this.#scope.structures = false;
  }

  /**
   * The aligned block of 2^log2Size bytes that contains the address; {@link WHOLE_SPACE} and more =
   * all.
   */
  tell(space: number, sub: number, rid: number, lo: number, hi: number, log2Size: number): void {
    const scope = this.#scope;
    const whole = log2Size >= WHOLE_SPACE;
    scope.space = space;
    scope.sub = sub;
    scope.rid = rid;
    scope.lo = whole || log2Size >= 32 ? 0 : (lo & (-1 << log2Size)) >>> 0;
    scope.hi = whole ? 0 : log2Size <= 32 ? hi >>> 0 : (hi & (-1 << (log2Size - 32))) >>> 0;
    scope.log2Size = whole ? WHOLE_SPACE : log2Size;
    this.#outputs.invalidate(scope);
  }
}
