/** A peer that walks tables itself, as the bridge does: what it was told, and what it finds. */
import type { Iommu, WalkTables } from '../../src/device/iommu.js';
import type { GuestMemory } from '../../src/memory/port.js';
import { WALK, WalkResult } from '../../src/walk/types.js';
import { walk } from '../../src/walk/walk.js';

const DATA = 3;
const PAGE = 4096;

export class Walker {
  readonly #told = new Map<string, WalkTables>();
  readonly #result = new WalkResult();

  constructor(private readonly memory: GuestMemory) {}

  /** What a TABLES that is sent at this moment says: the model is asked once more. */
  describe(model: Iommu, rid: number, pasid: number, hi: number): WalkTables {
    const tables: WalkTables = {
      ...{ format: undefined, root: 0, space: 0, sub: 0, expectedMask: 0, expected: 0 },
      ...{ holeFirst: 1, holeLast: 0, holeInput: false },
    };
    model.walkable?.(rid, pasid, hi, tables);
    return tables;
  }

  take(rid: number, pasid: number, tables: WalkTables): void {
    this.#told.set(`${rid} ${pasid}`, tables);
  }

  dropAll(): void {
    this.#told.clear();
  }

  /** The span that a walk finds, with its tags; undefined: the daemon is to be asked. */
  find(
    rid: number,
    pasid: number,
    access: number,
    address: bigint,
  ): { readonly spans: readonly number[]; readonly space: number; readonly sub: number } | undefined {
    const tables = this.#told.get(`${rid} ${pasid}`);
    const result = this.#result;
    if (tables?.format === undefined || (access & ~DATA) !== 0) return undefined;
    const { format, root, space, sub, expectedMask, expected } = tables;
    const lo = Number(address & 0xffffffffn) | 0;
    const hi = Number(address >> 32n) | 0;
    if (walk(format, this.memory, root, lo, hi, 0, result) !== WALK.OK) return undefined;
    const rights = result.cachable & DATA;
    if ((access & ~rights) !== 0 || (result.entryLo & expectedMask) !== expected) return undefined;
    const size = 1n << BigInt(result.log2Size);
    const input = address & ~(size - 1n);
    const output = (BigInt(result.outHi >>> 0) << 32n) | BigInt(result.outLo >>> 0);
    if (meetsHole(tables, output, size) || (tables.holeInput && meetsHole(tables, input, size)))
      return undefined;
    const halves = (value: bigint): number[] => [Number(value & 0xffffffffn), Number(value >> 32n)];
    return {
      spans: [...halves(input), ...halves(output), result.log2Size, rights],
      space: space >>> 0,
      sub: sub >>> 0,
    };
  }
}

function meetsHole({ holeFirst, holeLast }: WalkTables, first: bigint, size: bigint): boolean {
  const end = BigInt(holeLast + 1) * BigInt(PAGE);
  return holeFirst <= holeLast && first < end && first + size > BigInt(holeFirst) * BigInt(PAGE);
}
