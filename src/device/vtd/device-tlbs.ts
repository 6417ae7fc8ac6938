/**
 * Device-TLB invalidation requests that are under way. VT-d §4.3, §6.5.2.5, §6.5.2.6: each has a
 * tag of ours until its device has answered, or did not in time.
 */
import { PAGE_LOG2 } from '../../base/page.js';
import { DEVICE_TLB, type IommuOutputs } from '../iommu.js';
import type { FaultRecorder } from './fault-recorder.js';
import { WHOLE_SPACE } from './spans.js';

/** Tags there are. */
const MOST = 1024;
/** What a function has to take without throttling the link where MIP is 0. §6.5.2.5 */
const MOST_PER_FUNCTION = 32;

export class VtdDeviceTlbs {
  readonly #outputs: IommuOutputs;
  readonly #faults: FaultRecorder;
  readonly #sids = new Uint16Array(MOST);
  /** The physical function that each counts for. */
  readonly #functions = new Uint16Array(MOST);
  readonly #used = new Uint8Array(MOST);
  /** Unused tags: the first `unused` of `stack`. */
  readonly #stack = new Uint16Array(MOST);
  #unused = 0;
  readonly #underWay = new Uint8Array(0x10000);

  constructor(outputs: IommuOutputs, faults: FaultRecorder) {
    this.#outputs = outputs;
    this.#faults = faults;
    this.reset();
  }

  /** Power-on: an answer that still comes is dropped. */
  reset(): void {
    this.#used.fill(0);
    this.#underWay.fill(0);
    for (let tag = 0; tag < MOST; tag++) this.#stack[tag] = MOST - 1 - tag;
    this.#unused = MOST;
  }

  /** Requests that have not ended. */
  get pending(): number {
    return MOST - this.#unused;
  }

  /**
   * Sends a request for 2^n pages (§6.5.2.5: with `sized`, the lowest clear bit of the address is
   * in the middle of the block). `function` is the PFSID, `most` the MIP. False: too many are under
   * way; one of them has to end first.
   */
  request(
    sid: number,
    pfsid: number,
    most: number,
    pasid: number,
    lo: number,
    hi: number,
    sized: boolean,
    global: boolean,
  ): boolean {
    if (this.#unused === 0) return false;
    if (this.#underWay[pfsid] >= (most === 0 ? MOST_PER_FUNCTION : most)) return false;
    const tag = this.#stack[this.#unused - 1];
    const log2 = sized ? blockLog2(lo, hi) : PAGE_LOG2;
    const maskLo = log2 >= 32 ? 0 : -1 << log2;
    const maskHi = log2 >= WHOLE_SPACE ? 0 : log2 <= 32 ? -1 : -1 << (log2 - 32);
    const base = (lo & maskLo) >>> 0;
    if (!this.#outputs.invalidateDeviceTlb(tag, sid, pasid, base, (hi & maskHi) >>> 0, log2, global))
      return false;
    this.#unused--;
    this.#used[tag] = 1;
    this.#sids[tag] = sid;
    this.#functions[tag] = pfsid;
    this.#underWay[pfsid]++;
    return true;
  }

  /**
   * A request has ended; `result` is of DEVICE_TLB. False: not as it should. A device that is not
   * there answers no more than one that is late: both are time-outs (ITE). An answer to no
   * request is ICE.
   */
  ended(tag: number, result: number): boolean {
    if (tag < 0 || tag >= MOST || this.#used[tag] === 0) {
      this.#faults.unexpectedCompletion();
      return true;
    }
    this.#used[tag] = 0;
    this.#stack[this.#unused++] = tag;
    this.#underWay[this.#functions[tag]]--;
    if (result === DEVICE_TLB.DONE) return true;
    this.#faults.invalidationTimeout(this.#sids[tag]);
    this.#outputs.event({
      kind: 'queueError',
      name: 'ITE',
      detail: `requester 0x${this.#sids[tag].toString(16)}`,
    });
    return false;
  }
}

/**
 * log2 of the bytes that ADDR with S = 1 names: twice its lowest clear bit, all addresses where
 * there is none.
 */
function blockLog2(lo: number, hi: number): number {
  const clearLo = ~lo & (-1 << PAGE_LOG2);
  if (clearLo !== 0) return 32 - Math.clz32(clearLo & -clearLo);
  const clearHi = ~hi;
  return clearHi === 0 ? WHOLE_SPACE : WHOLE_SPACE - Math.clz32(clearHi & -clearHi);
}
