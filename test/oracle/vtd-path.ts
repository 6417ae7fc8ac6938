/**
 * What stands in memory on the way of one request: a reader of its own, for explaining differences.
 * VT-d chapter 9
 */
import type { ArrayMemory } from '../../src/memory/array.js';
import { hex, type Request } from './script.js';
import { MASK52 } from './vtd-tables.js';

interface PathEntry {
  readonly level: number;
  readonly address: number;
  /** Undefined where there is no memory. */
  readonly value: bigint | undefined;
}

export interface Path {
  readonly scalable: boolean;
  readonly root: readonly (bigint | undefined)[];
  readonly context: readonly (bigint | undefined)[];
  /**
   * PASID-directory and PASID-table entry; of RID_PASID for a request without. Empty in legacy
   * mode.
   */
  readonly directory: bigint | undefined;
  readonly pasid: readonly (bigint | undefined)[];
  readonly ridPasid: number;
  /** Page-table entries from the root to the leaf, or to what ends the walk. */
  readonly entries: readonly PathEntry[];
}

/** Follows pointers whatever reserved bits say, as far as something is present. */
export function pathOf(memory: ArrayMemory, rootTable: bigint, request: Request): Path {
  const { rid, pasid, address } = request;
  const word = (at: bigint | number): bigint | undefined => memory.peek(Number(at));
  const scalable = (rootTable & 0xc00n) === 0x400n;
  const root = (rootTable & MASK52) + BigInt((rid >> 8) * 16);
  const rootEntry = [word(root), word(root + 8n)];
  const devfn = rid & 0xff;
  const upper = scalable && devfn >= 128 ? 1 : 0;
  const table = (rootEntry[upper] ?? 0n) & MASK52;
  const bytes = scalable ? 32 : 16;
  const at = table + BigInt((scalable ? devfn & 127 : devfn) * bytes);
  const context = Array.from({ length: bytes / 8 }, (_, n) => word(at + BigInt(n * 8)));
  const own = Number((context[1] ?? 0n) & 0xf_ffffn);
  const number = BigInt(pasid < 0 ? own : pasid);
  const directory = scalable ? word(((context[0] ?? 0n) & MASK52) + (number >> 6n) * 8n) : undefined;
  const entry = ((directory ?? 0n) & MASK52) + (number & 63n) * 64n;
  const pasidEntry = scalable ? Array.from({ length: 8 }, (_, n) => word(entry + BigInt(n * 8))) : [];
  const first = scalable && (((pasidEntry[0] ?? 0n) >> 6n) & 7n) === 1n;
  const width = scalable ? ((pasidEntry[0] ?? 0n) >> 2n) & 7n : (context[1] ?? 0n) & 7n;
  const pointer = first ? pasidEntry[2] : scalable ? pasidEntry[0] : context[0];
  const levels = first ? 4 : Number(width) + 2;
  return {
    scalable,
    root: rootEntry,
    context,
    directory,
    pasid: pasidEntry,
    ridPasid: own,
    entries: levels > 5 ? [] : walk(memory, (pointer ?? 0n) & MASK52, levels, address, first ? 1n : 3n),
  };
}

function walk(
  memory: ArrayMemory,
  table: bigint,
  levels: number,
  address: bigint,
  present: bigint,
): PathEntry[] {
  const found: PathEntry[] = [];
  let at = table;
  for (let level = levels; level > 0; level--) {
    const entry = Number(at + ((address >> BigInt(3 + 9 * level)) & 511n) * 8n);
    const value = memory.peek(entry);
    found.push({ level, address: entry, value });
    if (value === undefined || (value & present) === 0n) break;
    if (level <= 3 && level > 1 && (value & 0x80n) !== 0n) break;
    at = value & MASK52;
  }
  return found;
}

export function describePath(path: Path): string {
  const list = (values: readonly (bigint | undefined)[]): string =>
    values.map((value) => (value === undefined ? '–' : hex(value))).join(' ');
  const lines = [`  root ${list(path.root)}; context ${list(path.context)}`];
  if (path.scalable)
    lines.push(`  PASID directory ${list([path.directory])}; PASID entry ${list(path.pasid.slice(0, 3))}`);
  for (const { level, address, value } of path.entries) {
    lines.push(`  level ${level} at ${hex(address)}: ${list([value])}`);
  }
  return lines.join('\n');
}
