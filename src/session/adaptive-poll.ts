/**
 * How long a session busy-polls before it sleeps, and on which processor.
 *
 * While a device is shadowed, the guest waits for every invalidation, and the wake-up from a sleep
 * makes that wait several times longer. The number of polls before a sleep therefore doubles while
 * sleeps end soon, and halves when they last. A busy guest finds the session awake, and an idle one
 * costs nothing.
 */
import { leaveCpu } from '../base/native.js';

/** How often an empty socket is polled again before the thread goes to sleep. */
export const SPINS = 4;
/** A sleep that ends within these milliseconds is shorter than the polling that it replaced. */
const SHORT_SLEEP_MS = 0.5;
const MOST_POLLS = 512;
/**
 * The fewest polls of the mailbox, about 250 µs: the time that a guest takes from one operation to
 * the next.
 */
const LEAST_MAILBOX_POLLS = 96;
/** Turns that go without polling after a turn that polled in vain. */
const TURNS_SKIPPED = 16;
/** Milliseconds between two moves to another processor. */
const MOVE_MS = 1;

export class AdaptivePoll {
  /** A poll reads the mailbox in shared memory, which costs no system call. */
  mailbox = false;
  #polls = SPINS;
  #skipped = 0;
  #moved = Number.NEGATIVE_INFINITY;

  /** Polls before a sleep, while a guest waits for every answer. */
  get polls(): number {
    return Math.max(this.#polls, this.#least);
  }

  /** A session whose guest waits for every answer slept for so long. */
  slept(milliseconds: number): void {
    if (milliseconds < SHORT_SLEEP_MS) this.#polls = Math.min(this.polls * 2, MOST_POLLS);
    else this.#polls = Math.max(this.polls >> 1, this.#least);
  }

  /**
   * A turn has polled and found nothing. That took time from the peer, perhaps on the same CPU: the
   * next turns skip it.
   */
  foundNothing(): void {
    this.#skipped = TURNS_SKIPPED;
  }

  /** Whether this turn goes without polling. Counts the turn. */
  skipTurn(): boolean {
    if (this.#skipped === 0) return false;
    this.#skipped--;
    return true;
  }

  /**
   * Moves this thread to another CPU, because the peer needs this one. Not often: where all are
   * busy, another may be worse. False: the thread is still here.
   * @param now milliseconds
   */
  leaveCpu(cpu: number, now: number): boolean {
    if (now - this.#moved < MOVE_MS) return false;
    this.#moved = now;
    return leaveCpu(cpu);
  }

  get #least(): number {
    return this.mailbox ? LEAST_MAILBOX_POLLS : SPINS;
  }
}
