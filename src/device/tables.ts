/** The tables of a requester, as a model describes them to readers that walk them themselves. */

import { ANY, NO_TAG } from '../base/ids.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';

/**
 * What stands between a requester and memory: nothing goes through, everything as it is, or tables
 * decide.
 */
export const THROUGH = { NOTHING: 0, IDENTITY: 1, TABLES: 2, NESTED: 3 } as const;

/**
 * The tables of one requester, for a cache that keeps mappings of its own. Filled by the model;
 * reused.
 */
export interface AddressSpaceTables {
  /** {@link THROUGH} */
  through: number;
  /** IDENTITY: width of the addresses that pass. */
  reach: number;
  /**
   * TABLES: trees that share the input space, `count` of them (Arm: TTB0 and TTB1). NESTED: of the
   * first stage; the second is in `secondFormat` and `secondRoot`.
   */
  count: number;
  readonly formats: PageTableFormat[];
  readonly roots: number[];
  secondFormat: PageTableFormat | undefined;
  secondRoot: number;
  /**
   * Whether the address of an invalidation that names no `sub` tells where these tables changed.
   */
  addressed: boolean;
  /**
   * Tags of what is found by these tables, as in a `TranslateResult`; {@link NO_TAG} where
   * nothing goes through.
   */
  space: number;
  sub: number;
  /** The guest announces what goes from these tables, and not what comes to them. */
  silent: boolean;
  /**
   * Whether an Accessed or Dirty bit may be set in these tables. Where not, what would need one set
   * is not allowed.
   */
  updates: boolean;
  /**
   * Pages of 4 KiB, both included, that are never translated (an interrupt range); `holeFirst` >
   * `holeLast`: none.
   */
  holeFirst: number;
  holeLast: number;
}

/** An object to be filled: of a space that nothing goes through. */
export function noTables(): AddressSpaceTables {
  const tables = { formats: [], roots: [] } as unknown as AddressSpaceTables;
  clearTables(tables);
  return tables;
}

/** Back to a space that nothing goes through: what a model leaves alone means that. */
export function clearTables(tables: AddressSpaceTables): void {
  tables.through = THROUGH.NOTHING;
  tables.reach = 0;
  tables.count = 0;
  tables.secondFormat = undefined;
  tables.secondRoot = 0;
  tables.addressed = false;
  tables.space = NO_TAG;
  tables.sub = ANY;
  tables.silent = false;
  tables.updates = true;
  tables.holeFirst = 1;
  tables.holeLast = 0;
}

/** Tables of one stage that the peer may walk for a requester. Filled by the model; reused. */
export interface WalkTables {
  format: PageTableFormat | undefined;
  root: number;
  /** Tags of what is found, as in a `TranslateResult`. */
  space: number;
  sub: number;
  /** Bits of a leaf's low half, and how they must be in one that the peer understands. */
  expectedMask: number;
  expected: number;
  /**
   * Pages of 4 KiB, both included, that are no output (`holeInput`: and no input) of a walk;
   * `holeFirst` > `holeLast`: none.
   */
  holeFirst: number;
  holeLast: number;
  holeInput: boolean;
}

/** An object to be filled. */
export function noWalkTables(): WalkTables {
  return {
    ...{ format: undefined, root: 0, space: 0, sub: 0, expectedMask: 0, expected: 0 },
    ...{ holeFirst: 1, holeLast: 0, holeInput: false },
  };
}
