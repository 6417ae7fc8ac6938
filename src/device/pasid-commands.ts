/**
 * What allocate and free commands of a guest come to, whatever registers they are given in: VT-d's
 * virtual commands and the SMMUv3's counterpart. One command at a time; its end may come later.
 */
import type { IommuOutputs } from './iommu.js';
import { PASID_ANSWER, type PasidSpace } from './pasid-space.js';

/** How a command ended: done, no PASID to be had, or not a PASID that the guest has. */
export const PASID_OUTCOME = { DONE: 0, NONE_LEFT: 1, NOT_OWNED: 2 } as const;

const WAITING = { FOR_NOTHING: 0, ALLOCATE: 1, FREE: 2, GIVE_BACK: 3 } as const;

/** The PASIDs that a guest has, as its unit knows them. */
export class OwnedPasids {
  /** PASIDs below this number can be had. */
  readonly limit: number;
  readonly #words: Uint32Array;

  /** @param bits width of the unit's PASIDs, 1..20 */
  constructor(readonly bits: number) {
    this.limit = 2 ** bits;
    this.#words = new Uint32Array(Math.max(1, this.limit >> 5));
  }

  has(pasid: number): boolean {
    return pasid >= 0 && pasid < this.limit && (this.#words[pasid >> 5] & (1 << (pasid & 31))) !== 0;
  }

  add(pasid: number): void {
    this.#words[pasid >> 5] |= 1 << (pasid & 31);
  }

  /** False when the guest did not have it. */
  delete(pasid: number): boolean {
    if (!this.has(pasid)) return false;
    this.#words[pasid >> 5] &= ~(1 << (pasid & 31));
    return true;
  }

  clear(): void {
    this.#words.fill(0);
  }
}

export class PasidCommands {
  readonly #owned: OwnedPasids;
  readonly #pasids: PasidSpace;
  readonly #outputs: IommuOutputs;
  readonly #lost: (pasid: number) => void;
  readonly #ended: (outcome: number, pasid: number) => void;
  #waiting: number = WAITING.FOR_NOTHING;

  /**
   * @param lost called for each PASID that the guest loses, except by a reset
   * @param ended called when a command ends, with one of {@link PASID_OUTCOME}, and the PASID that
   * was allocated or 0
   */
  constructor(
    owned: OwnedPasids,
    pasids: PasidSpace,
    outputs: IommuOutputs,
    lost: (pasid: number) => void,
    ended: (outcome: number, pasid: number) => void,
  ) {
    this.#owned = owned;
    this.#pasids = pasids;
    this.#outputs = outputs;
    this.#lost = lost;
    this.#ended = ended;
  }

  /** A command has not ended: none may be given. */
  get busy(): boolean {
    return this.#waiting !== WAITING.FOR_NOTHING;
  }

  /** Power-on: everything is given back, and what is under way has no end. */
  reset(): void {
    this.#waiting = WAITING.FOR_NOTHING;
    this.#owned.clear();
    this.#pasids.releaseAll();
  }

  allocate(): void {
    this.#begin(WAITING.ALLOCATE, this.#pasids.allocate());
  }

  free(pasid: number): void {
    const answer = this.#pasids.free(pasid);
    if (answer !== PASID_ANSWER.REFUSED) this.revoked(pasid);
    this.#begin(WAITING.FREE, answer);
  }

  /** See {@link PasidView.answered}. */
  answered(answer: number): void {
    const waiting = this.#waiting;
    if (waiting === WAITING.FOR_NOTHING) return;
    this.#waiting = WAITING.FOR_NOTHING;
    this.#finish(waiting, answer);
  }

  /** See {@link PasidView.revoked}. */
  revoked(pasid: number): void {
    if (this.#owned.delete(pasid)) this.#lost(pasid);
  }

  #begin(what: number, answer: number): void {
    if (answer === PASID_ANSWER.LATER) this.#waiting = what;
    else this.#finish(what, answer);
  }

  #finish(what: number, answer: number): void {
    if (what === WAITING.FREE) {
      if (answer === PASID_ANSWER.DONE) this.#ended(PASID_OUTCOME.DONE, 0);
      else this.#failed(PASID_OUTCOME.NOT_OWNED, 'the PASID is not allocated');
    } else if (what === WAITING.ALLOCATE && answer > 0) {
      this.#allocated(answer);
    } else {
      this.#failed(PASID_OUTCOME.NONE_LEFT, 'no PASID is available');
    }
  }

  /** A parent device may have PASIDs that are wider than the unit's. */
  #allocated(pasid: number): void {
    if (pasid >= this.#owned.limit || this.#owned.has(pasid)) {
      this.#begin(WAITING.GIVE_BACK, this.#pasids.free(pasid));
      return;
    }
    this.#owned.add(pasid);
    this.#ended(PASID_OUTCOME.DONE, pasid);
  }

  #failed(outcome: number, detail: string): void {
    this.#outputs.event({ kind: 'queueError', name: 'virtual command failed', detail });
    this.#ended(outcome, 0);
  }
}
