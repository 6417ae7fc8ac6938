/**
 * Tables that the peer may walk itself (PEER_WALK). They are described at the first request of a
 * requester that tables answered, and are void after an invalidation of structures. What the peer
 * finds has the tags that an answer would have.
 */
import type { Iommu } from '../device/iommu.js';
import { noWalkTables, type WalkTables } from '../device/tables.js';
import type { FormatLevel } from '../spec/pagetable/format.js';
import { CODEC } from '../wire/codec.js';
import { MESSAGE } from '../wire/frame.js';
import type { PeerWalk } from '../wire/messages.js';
import type { Outlet } from './ports.js';

/** Requesters beyond these ask for each translation. */
const MOST_DESCRIBED = 65536;
const PASIDS = 2 ** 20 + 1;

export class PeerWalks {
  readonly #described = new Set<number>();
  readonly #spaces = new Set<number>();
  readonly #message: PeerWalk = CODEC.PeerWalk.create();
  readonly #tables = noWalkTables();
  #backend: Outlet | undefined;

  /** @param backend where PEER_WALK goes; undefined: the peer does not walk */
  open(backend: Outlet | undefined): void {
    this.#backend = backend;
  }

  /** Whether the peer walks any tables, and so may hold translations that no answer gave it. */
  get any(): boolean {
    return this.#spaces.size > 0;
  }

  /** The same for tables whose translations have this tag. */
  has(space: number): boolean {
    return this.#spaces.has(space);
  }

  /**
   * A request was answered from tables. Describes them to the peer, once; returns what was
   * described now.
   */
  answered(rid: number, pasid: number, hi: number, model: Iommu): WalkTables | undefined {
    const backend = this.#backend;
    if (backend === undefined) return undefined;
    const key = rid * PASIDS + pasid + 1;
    if (this.#described.has(key) || this.#described.size >= MOST_DESCRIBED) return undefined;
    this.#described.add(key);
    const tables = this.#tables;
    if (model.peerWalk?.describe(rid, pasid, hi, tables) !== true || !this.#describe(rid, pasid))
      return undefined;
    this.#spaces.add(tables.space >>> 0);
    backend.put(MESSAGE.PEER_WALK, 0, 0, CODEC.PeerWalk, this.#message);
    return tables;
  }

  /** Requester ids have changed, so the peer may have dropped descriptions. */
  tellAgain(): void {
    this.#described.clear();
  }

  /** Every PEER_WALK becomes void. Adds the tags of what the peer may have found to `handedOut`. */
  forget(handedOut: Set<number>): void {
    this.#described.clear();
    for (const space of this.#spaces) handedOut.add(space);
    this.#spaces.clear();
  }

  #describe(rid: number, pasid: number): boolean {
    const { format, root, space, sub, expectedMask, expected, holeFirst, holeLast, holeInput } = this.#tables;
    if (format === undefined) return false;
    const m = this.#message;
    m.rid = rid;
    m.pasid = pasid + 1;
    m.space = space >>> 0;
    m.sub = sub >>> 0;
    m.rootLo = root % 2 ** 32;
    m.rootHi = Math.floor(root / 2 ** 32);
    m.signExtended = format.signMask !== 0;
    m.upper = format.upper !== 0;
    m.inputLo = format.inputLo >>> 0;
    m.inputHi = format.inputHi >>> 0;
    m.present = format.presentMask >>> 0;
    m.keep = format.keepLo >>> 0;
    m.tableAccessed = format.tableAccessed >>> 0;
    m.accessed = format.accessed >>> 0;
    m.dirty = format.dirty >>> 0;
    m.clean = format.clean >>> 0;
    m.addressLo = format.addressLo >>> 0;
    m.addressHi = format.addressHi >>> 0;
    m.split = format.splitLo >>> 0;
    m.splitShift = format.splitShift;
    m.lowShift = format.lowShift;
    m.lowMask = format.lowMask;
    m.leafHiShift = format.leafHiShift;
    m.leafHiMask = format.leafHiMask;
    m.aboveHiShift = format.aboveHiShift;
    m.aboveHiMask = format.aboveHiMask;
    m.rights = format.rights;
    m.levels = levelsOf(format.root);
    m.expectedMask = expectedMask >>> 0;
    m.expected = expected >>> 0;
    m.holeFirst = holeFirst;
    m.holeLast = holeLast;
    m.holeInput = holeInput;
    return true;
  }
}

function levelsOf(root: FormatLevel): number[] {
  const words: number[] = [];
  for (let at: FormatLevel | undefined = root; at !== undefined; at = at.next) {
    const { shift, indexMask, leafMask, leafValue, flip, tableReservedLo, tableReservedHi } = at;
    const { leafReservedLo, leafReservedHi, leafAddressLo, leafAddressHi } = at;
    words.push(shift, indexMask, leafMask, leafValue, flip, tableReservedLo, tableReservedHi);
    words.push(leafReservedLo, leafReservedHi, leafAddressLo, leafAddressHi);
  }
  return words.map((word) => word >>> 0);
}
