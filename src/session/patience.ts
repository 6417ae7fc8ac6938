/**
 * How long a session looks for more before it sleeps, and on which processor.
 *
 * While a device is shadowed its guest waits for every invalidation, and a sleep makes that several times longer. So the looks
 * before a sleep become more as long as sleeps end soon, and fewer when they do not: a guest that is at it finds the session
 * awake, and one that is not costs nothing.
 */
import { leaveCpu } from '../base/native.js';
import { SPINS } from '../wire/echo.js';

/** Milliseconds of a sleep after which it would have been better to look on. */
const SHORT_SLEEP_MS = 0.5;
const MOST_LOOKS = 512;
/** The fewest into the mailbox, about 250 µs: what a guest takes from one operation to the next. */
const LEAST_MAIL_LOOKS = 96;
/** Turns without a further look after one that found nothing. */
const TURNS_WITHOUT = 16;
/** Milliseconds between two moves to another processor. */
const MOVE_MS = 1;

export class Patience {
  /** A look is one into the mailbox, not a system call. */
  mail = false;
  #looks = SPINS;
  #turnsWithout = 0;
  #moved = Number.NEGATIVE_INFINITY;

  /** Looks before a sleep, where a guest waits for every answer. */
  get looks(): number {
    return Math.max(this.#looks, this.#least);
  }

  /** A session whose guest waits for every answer was woken after so many milliseconds. */
  slept(milliseconds: number): void {
    if (milliseconds < SHORT_SLEEP_MS) this.#looks = Math.min(this.looks * 2, MOST_LOOKS);
    else this.#looks = Math.max(this.looks >> 1, this.#least);
  }

  /**
   * Looks found nothing: that is time taken from whoever was just answered, maybe on the same processor, so they are left
   * out for a while.
   */
  inVain(): void {
    this.#turnsWithout = TURNS_WITHOUT;
  }

  /** Whether to do without looks in this turn; counts it. */
  without(): boolean {
    if (this.#turnsWithout === 0) return false;
    this.#turnsWithout--;
    return true;
  }

  /**
   * Takes this thread to another processor, as whoever it waits for needs this one. Not often: with all of them busy, it may
   * be worse elsewhere. False: it is still there.
   * @param now milliseconds
   */
  leave(cpu: number, now: number): boolean {
    if (now - this.#moved < MOVE_MS) return false;
    this.#moved = now;
    return leaveCpu(cpu);
  }

  get #least(): number {
    return this.mail ? LEAST_MAIL_LOOKS : SPINS;
  }
}
