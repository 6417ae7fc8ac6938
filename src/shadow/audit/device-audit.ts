/**
 * What an {@link Audit} knows of one device: its tags, what was asked for, and how things stood
 * before.
 */
import { ANY } from '../../base/ids.js';
import type { PieceVisitor } from '../compare.js';
import { LAST_PAGE } from '../pages.js';
import { PageRanges } from '../ranges.js';
import { TooMuch } from './bounded-memory.js';
import type { Asked, TagPair } from './guest-commands.js';

/** A piece of input pages, and where it led by the tables and on the host when it was looked at. */
export interface Piece {
  readonly first: number;
  readonly last: number;
  readonly wanted: number;
  readonly wantedAccess: number;
  readonly mapped: number;
  readonly mappedAccess: number;
}

/** Pieces by rising address, disjoint. */
export type Pieces = readonly Piece[];

/** An invalidation that concerns the device and is not complete. */
export interface Ask {
  readonly order: number;
  readonly pages: PageRanges;
  readonly afresh: boolean;
  /** How tables and host stood on these pages when it was asked for. */
  readonly before: Pieces;
}

/** Tags of one device that are remembered. What is asked of older ones has no verdict. */
const MOST_TAGS = 32;

export class DeviceAudit {
  asks: Ask[] = [];
  /**
   * Of the last look at everything: pieces, and for how many looks each difference has been there.
   */
  looked: Pieces | undefined;
  readonly ages = new Map<string, Age>();
  /** What was asked for since then. */
  readonly asked = new PageRanges();
  /** Completions until the next look at everything. */
  rest = 0;
  #tags: TagPair[] = [];
  #current: TagPair | undefined;

  /** Its structures say these tags now. */
  note(tags: TagPair | undefined): void {
    this.#current = tags;
    if (tags === undefined || this.#tags.some((known) => same(known, tags))) return;
    if (this.#tags.length === MOST_TAGS) this.#tags.shift();
    this.#tags.push(tags);
  }

  /** Whether something that the device may use is meant. `rid`: the device's. */
  concerned({ rid: askedRid, ridMask, space, sub, first, last }: Asked, rid: number): boolean {
    if (askedRid !== ANY && (askedRid & ~ridMask) !== (rid & ~ridMask)) return false;
    if (space === ANY) return true;
    const whole = first === 0 && last === LAST_PAGE;
    // One of addresses means global entries as well, whatever their second tag.
    return this.#tags.some(
      (tag) => tag.space === space && (sub === ANY || tag.sub === ANY || tag.sub === sub || !whole),
    );
  }

  /** All of these tags was invalidated: what the device had under them before is gone. */
  forget({ space, sub, first, last }: Asked): void {
    if (first !== 0 || last !== LAST_PAGE) return;
    this.#tags = this.#tags.filter(
      (tag) =>
        (this.#current !== undefined && same(tag, this.#current)) ||
        !(space === ANY || (tag.space === space && (sub === ANY || tag.sub === sub))),
    );
  }
}

/** Since when a difference has been there. */
export interface Age {
  /** Looks at everything that found it. */
  looks: number;
  /** What had reached the unit by the first of them. */
  readonly inputs: number;
}

/** A visitor that keeps every piece; beyond `most` it throws {@link TooMuch}. */
export function collect(pieces: Piece[], most: number): PieceVisitor {
  return (first, last, wanted, wantedAccess, mapped, mappedAccess) => {
    if (pieces.length === most) throw new TooMuch();
    pieces.push({ first, last, wanted, wantedAccess, mapped, mappedAccess });
    return true;
  };
}

export function differs({ wanted, wantedAccess, mapped, mappedAccess }: Piece): boolean {
  return wanted !== mapped || wantedAccess !== mappedAccess;
}

/** The piece that contains a page. */
export function pieceAt(pieces: Pieces, page: number): Piece | undefined {
  let low = 0;
  let high = pieces.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((pieces[middle] as Piece).last < page) low = middle + 1;
    else high = middle;
  }
  const found = pieces[low];
  return found !== undefined && found.first <= page ? found : undefined;
}

/**
 * Whether the first page of a piece led to the same place by the tables then; `was` undefined:
 * nowhere.
 */
export function sameWanted({ first, wanted, wantedAccess }: Piece, was: Piece | undefined): boolean {
  if (was === undefined || was.wanted < 0) return wanted < 0;
  return wanted === was.wanted + first - was.first && wantedAccess === was.wantedAccess;
}

/** Whether tables and host agreed on a page then. */
export function agreed(was: Piece | undefined): boolean {
  return was === undefined || !differs(was);
}

function same(a: TagPair, b: TagPair): boolean {
  return a.space === b.space && a.sub === b.sub;
}
