/**
 * What a guest asks to be invalidated, read from its own commands and structures: none of it has
 * been through a model, so a model that announces too little, or the wrong tags, is found out.
 */
import { ANY } from '../../base/ids.js';
import { LAST_PAGE } from '../pages.js';

/** One invalidation that a guest asked for. {@link ANY} stands for every one. */
export interface Asked {
  /**
   * Commands that the unit must have taken before this one is done; 0: it is done with the register
   * write.
   */
  readonly order: number;
  /** Domain-id or VMID. */
  readonly space: number;
  /** PASID or ASID. */
  readonly sub: number;
  readonly rid: number;
  /** Bits of {@link rid} that do not matter. */
  readonly ridMask: number;
  /** Input pages of 4 KiB, both included. */
  readonly first: number;
  readonly last: number;
  /** Translation is turned on or off: what structures said before does not matter. */
  readonly afresh: boolean;
}

/** Tags of what is found through an address space now. */
export interface TagPair {
  readonly space: number;
  readonly sub: number;
}

/** Reads the commands and structures of one unit's guest. */
export interface GuestCommands {
  /** A register is about to be written: what that asks for. */
  written(offset: number, size: number, lo: number, hi: number): readonly Asked[];
  /** Commands that the unit has taken so far, as {@link Asked.order} counts them. */
  readonly done: number;
  /**
   * Counts how often software began its queue anew: what was asked for before and not done is void.
   */
  readonly restarts: number;
  /**
   * Tags of a requester's address space by its structures, read afresh; undefined where there are
   * none.
   */
  tags(rid: number, pasid: number): TagPair | undefined;
}

/** Everything of everybody, unless `change` says less. */
export function asked(order: number, change: Partial<Asked> = {}): Asked {
  return {
    ...{ order, space: ANY, sub: ANY, rid: ANY, ridMask: 0, first: 0, last: LAST_PAGE },
    afresh: false,
    ...change,
  };
}

/** Aligned block of 2^log2 pages that contains a page. */
export function blockOf(page: number, log2: number): { readonly first: number; readonly last: number } {
  const pages = 2 ** log2;
  const first = Math.floor(page / pages) * pages;
  return { first, last: Math.min(LAST_PAGE, first + pages - 1) };
}

/** Commands of one doorbell that are read; what is asked for by more finds no verdict. */
const MOST_COMMANDS = 1024;

/**
 * Commands in a ring, taken one after the other: counts those that were submitted, and those that
 * are done.
 */
export class Ring {
  restarts = 0;
  #tail = 0;
  #submitted = 0;

  /** Nothing is under way, and the next command is at this slot. */
  restart(slot: number): void {
    this.#tail = slot;
    this.restarts++;
  }

  /** Slots up to a new tail, in a ring of `slots`, with the order of each. */
  *submit(tail: number, slots: number): Iterable<{ readonly slot: number; readonly order: number }> {
    const count = (tail - this.#tail + slots) % slots;
    const first = this.#tail;
    const before = this.#submitted;
    this.#tail = tail;
    this.#submitted += count;
    for (let n = 0; n < Math.min(count, MOST_COMMANDS); n++) {
      yield { slot: (first + n) % slots, order: before + n + 1 };
    }
  }

  /** Commands done when the unit's head is at a slot. */
  done(head: number, slots: number): number {
    return this.#submitted - ((this.#tail - head + slots) % slots);
  }
}
