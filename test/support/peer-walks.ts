/** A peer that walks tables itself, as the bridge does: what it was told, and what it finds. */
import { PAGE_BYTES } from '../../src/base/page.js';
import type { Iommu } from '../../src/device/iommu.js';
import { noWalkTables, type WalkTables } from '../../src/device/tables.js';
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';
import { big, highOf, lowOf } from '../walk/world.js';

const DATA = 3;
const PAGE = BigInt(PAGE_BYTES);

/** What may be cached of a block. */
interface PeerBlock {
  readonly input: bigint;
  readonly output: bigint;
  readonly log2Size: number;
  readonly rights: number;
}

/**
 * Walks as the peer does. The block around an address that allows all of `access`; undefined: the
 * peer has to ask the daemon. Fills `result`.
 */
export function walkAsPeer(
  memory: GuestMemory,
  tables: WalkTables,
  access: number,
  address: bigint,
  result: WalkResult,
): PeerBlock | undefined {
  const { format, root, expectedMask, expected } = tables;
  if (format === undefined || (access & ~DATA) !== 0) return undefined;
  if (walk(format, memory, root, lowOf(address), highOf(address), 0, result) !== WALK.OK) return undefined;
  const rights = result.cachable & DATA;
  if (rights === 0 || (access & ~rights) !== 0 || (result.entryLo & expectedMask) !== expected)
    return undefined;
  const { log2Size } = result;
  const size = 1n << BigInt(log2Size);
  const input = address & ~(size - 1n);
  const output = big(result.outLo, result.outHi);
  if (meetsHole(tables, output, size) || (tables.holeInput && meetsHole(tables, input, size)))
    return undefined;
  return { input, output, log2Size, rights };
}

function meetsHole({ holeFirst, holeLast }: WalkTables, first: bigint, size: bigint): boolean {
  return (
    holeFirst <= holeLast && first < BigInt(holeLast + 1) * PAGE && first + size > BigInt(holeFirst) * PAGE
  );
}

export class Walker {
  readonly #memory: GuestMemory;
  readonly #walks = new Map<string, WalkTables>();
  readonly #result = new WalkResult();

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** What a PEER_WALK that is sent at this moment says: the model is asked once more. */
  describe(model: Iommu, rid: number, pasid: number, hi: number): WalkTables {
    const tables = noWalkTables();
    model.peerWalk?.describe(rid, pasid, hi, tables);
    return tables;
  }

  take(rid: number, pasid: number, tables: WalkTables): void {
    this.#walks.set(`${rid} ${pasid}`, tables);
  }

  dropAll(): void {
    this.#walks.clear();
  }

  /** The span that a walk finds, with its tags; undefined: the daemon is to be asked. */
  find(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
  ): { readonly spans: readonly number[]; readonly space: number; readonly sub: number } | undefined {
    const tables = this.#walks.get(`${rid} ${pasid}`);
    const block = tables && walkAsPeer(this.#memory, tables, access, address, this.#result);
    if (tables === undefined || block === undefined) return undefined;
    const halves = (value: bigint): number[] => [Number(value & 0xffffffffn), Number(value >> 32n)];
    const spans = [...halves(block.input), ...halves(block.output), block.log2Size, block.rights];
    return { spans, space: tables.space >>> 0, sub: tables.sub >>> 0 };
  }
}
