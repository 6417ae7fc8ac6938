/**
 * What completions wait for (ordering rule 2): a completion that the guest can see is published
 * after everything that it promises is done.
 *
 * A completion may promise several kinds of {@link PendingWork}: invalidations that the bridge has
 * not acknowledged, mappings and objects of the host that do not follow the guest's tables yet.
 * Each kind registers here.
 *
 * The model's invalidations are recorded while its call lasts, and passed on when that call has
 * returned. So no command of the guest is interrupted by reads of its tables, which may have to
 * wait for memory. A recorded scope counts as pending, so the model publishes nothing that depends
 * on it.
 *
 * Work is looked at only after a change: whatever may change it calls {@link Completions.mark}. The
 * session then calls {@link Completions.settle} and {@link Completions.answer} before anything of
 * the same input can be seen outside.
 */
import type { InvalidateScope, Iommu } from '../device/iommu.js';
import { RecordedScopes } from './recorded-scopes.js';

/** Completions that one input may bring before the host has to answer. */
const MOST_ROUNDS = 64;

/** One kind of work that completions wait for. */
export interface PendingWork {
  /** 0 when nothing is left to do and nothing is in flight. */
  readonly pending: number;
  /** The guest has invalidated this. The scope object is reused. */
  invalidated(scope: InvalidateScope, model: Iommu): void;
  /** Does a bounded amount of what can be done without waiting, and sends requests for the rest. */
  advance?(): void;
  /**
   * Requests an answer without any work, which gives other inputs a turn. False: nothing can be
   * asked.
   */
  pause?(): boolean;
}

/** Requests whose end is known, and which the model has not been told of. */
export interface EndedRequests {
  /** Tells the model. True: there were some. */
  deliver(model: Iommu): boolean;
}

/** Sends an answer if what it promises is done. True: it was sent. */
type HeldAnswer = () => boolean;

export class Completions {
  readonly #scopes = new RecordedScopes();
  readonly #work: PendingWork[] = [];
  readonly #ended: EndedRequests;
  readonly #completing: () => void;
  readonly #held: HeldAnswer[] = [];
  #marked = false;
  /** Nothing was pending when that was last looked at, and nothing has been marked since. */
  #clear = false;
  /** The model waits for {@link Iommu.acknowledged}. */
  #awaited = false;

  /** @param completing is called before the model hears that nothing is pending */
  constructor(ended: EndedRequests, completing: () => void) {
    this.#ended = ended;
    this.#completing = completing;
  }

  /** Adds a kind of work. The first to register is the first to hear of an invalidation. */
  register(work: PendingWork): void {
    this.#work.push(work);
  }

  /**
   * Something may change that a completion, or a held answer, waits for. To be called before it
   * does.
   */
  mark(): void {
    this.#marked = true;
    this.#clear = false;
  }

  get marked(): boolean {
    return this.#marked;
  }

  /** The model has invalidated this. The object is copied. */
  record(scope: InvalidateScope): void {
    this.mark();
    this.#scopes.add(scope);
  }

  /** Everything that has not been acknowledged or done; 0: a completion may be published. */
  get pending(): number {
    if (this.#clear) return 0;
    let pending = this.#scopes.count;
    for (let index = 0; index < this.#work.length; index++)
      pending += (this.#work[index] as PendingWork).pending;
    return pending;
  }

  /**
   * {@link pending} for the model. Told of more than 0, it is called when nothing is pending any
   * more.
   */
  pendingForModel(): number {
    const { count } = this.#scopes;
    const pending = count > 0 ? count : this.pending;
    if (pending > 0) this.#awaited = true;
    return pending;
  }

  /**
   * The model waits for something else that has happened: it is called as soon as nothing is
   * pending.
   */
  wakeModel(): void {
    this.#awaited = true;
    this.mark();
  }

  /** Does what can be done now, and lets the model publish what is complete. */
  settle(model: Iommu): void {
    for (let round = 0; ; round++) {
      this.#marked = false;
      this.#passOn(model);
      for (let index = 0; index < this.#work.length; index++) (this.#work[index] as PendingWork).advance?.();
      this.#clear = this.pending === 0;
      if (!this.#awaited || !this.#clear) return;
      if (round >= MOST_ROUNDS && this.#pause()) return;
      this.#awaited = false;
      this.#completing();
      model.acknowledged();
      if (!this.#marked) return;
    }
  }

  /**
   * Keeps an answer until what it promises is done. It is tried at the end of each input that
   * changes something.
   */
  hold(answer: HeldAnswer): void {
    this.mark();
    this.#held.push(answer);
  }

  /** Sends the answers that need not wait any longer, in the order in which they were held. */
  answer(): void {
    const held = this.#held;
    if (held.length === 0) return;
    let kept = 0;
    for (let index = 0; index < held.length; index++) {
      const answer = held[index] as HeldAnswer;
      if (!answer()) held[kept++] = answer;
    }
    held.length = kept;
  }

  /** Passes recorded scopes on, and ends of requests, which may lead to more scopes. */
  #passOn(model: Iommu): void {
    do {
      for (let scope = this.#scopes.take(); scope !== undefined; scope = this.#scopes.take()) {
        for (let index = 0; index < this.#work.length; index++) {
          (this.#work[index] as PendingWork).invalidated(scope, model);
        }
      }
    } while (this.#ended.deliver(model));
  }

  #pause(): boolean {
    for (const work of this.#work) {
      if (work.pause?.() !== true) continue;
      // What was requested is pending.
      this.#clear = false;
      work.advance?.();
      return true;
    }
    return false;
  }
}
