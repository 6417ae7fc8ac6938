import { ANY, type InvalidateScope, SPAN_WORDS, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import type { GuestMemory } from '../../src/memory/port.js';
import { Iotlb, throughSpan } from '../../src/sim/iotlb.js';
import type { Translation } from '../../src/sim/machine.js';
import { LocalMachine } from '../support/local-machine.js';
import { CountingMemory } from './counting-memory.js';
import { must } from './fuzzer.js';
import { WORDS_PER_TRANSLATION, WORDS_PER_WRITE } from './limits.js';
import type { Rng } from './rng.js';

/**
 * A model with a bridge's cache in front of it. An invalidation reaches that cache only when the model's wait
 * for acknowledgements is served, at a random moment: a completion that is published earlier shows as a stale
 * translation.
 */
export class FuzzMachine extends LocalMachine {
  readonly bridge = new Iotlb();
  readonly counting: CountingMemory;
  mostPerWrite = 0;
  mostPerTranslation = 0;
  /** Looks at the spans of every answer before they are kept. */
  onSpans: (rid: number, pasid: number, spans: readonly number[]) => void = () => {};
  readonly #rng: Rng;
  readonly #waiting: InvalidateScope[] = [];
  #epoch = 0;

  constructor(rng: Rng, memory: GuestMemory, options: Readonly<Record<string, string>>) {
    const counting = new CountingMemory(memory);
    super(counting, options);
    this.counting = counting;
    this.#rng = rng;
    this.outputs.holdAcks = true;
    this.outputs.onInvalidate = (scope) => {
      this.#epoch++;
      this.#waiting.push({ ...scope });
    };
  }

  override writeRegister(offset: number, size: number, value: bigint): void {
    this.counting.taken();
    super.writeRegister(offset, size, value);
    const words = this.counting.taken();
    this.mostPerWrite = Math.max(this.mostPerWrite, words);
    must(words <= WORDS_PER_WRITE, () => `one write touched ${words} words of memory`);
    this.outputs.scopes.length = 0;
  }

  /** Serves the invalidations that wait: the bridge's cache first, then the model hears of it. */
  override ack(): boolean {
    let some = false;
    for (let round = 0; this.outputs.pending > 0; round++) {
      must(round < 100_000, () => 'invalidations never come to an end');
      for (const scope of this.#waiting.splice(0)) this.#dropFromBridge(scope);
      this.outputs.pending = 0;
      this.outputs.scopes.length = 0;
      this.counting.taken();
      this.model.acknowledged();
      const words = this.counting.taken();
      must(words <= WORDS_PER_WRITE, () => `one acknowledgement touched ${words} words of memory`);
      some = true;
    }
    return some;
  }

  override idle(): boolean {
    return this.#rng.chance(0.5) && this.ack();
  }

  override translate(rid: number, pasid: number, access: number, address: bigint): Translation | undefined {
    const hit = this.bridge.lookup(rid, pasid, access, address);
    if (hit !== undefined) return hit;
    this.counting.taken();
    const result = this.ask(rid, pasid, access, address);
    const words = this.counting.taken();
    this.mostPerTranslation = Math.max(this.mostPerTranslation, words);
    must(words <= WORDS_PER_TRANSLATION, () => `one translation touched ${words} words of memory`);
    const { status, count } = result;
    must(count <= 64 && (status === TRANSLATE_STATUS.OK) === count > 0, () => 'status and count disagree');
    if (status !== TRANSLATE_STATUS.OK) return undefined;
    const spans = Array.from(result.spans.subarray(0, count * SPAN_WORDS));
    this.onSpans(rid, pasid, spans);
    if (access !== 0) this.bridge.fill(rid, pasid, result.space, result.sub, this.#epoch, spans);
    return throughSpan(spans, 0, address);
  }

  #dropFromBridge(scope: InvalidateScope): void {
    const base = (BigInt(scope.hi >>> 0) << 32n) | BigInt(scope.lo >>> 0);
    const pasid = scope.pasid === ANY ? ANY : scope.pasid + 1;
    this.bridge.invalidate({ ...scope, pasid, base }, this.#epoch);
  }
}
