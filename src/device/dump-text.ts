/** Words for dumps: decoded fields and leaf ranges. */
import { compare, hex64, TWO_32 } from '../base/u64.js';
import { decode, type Layout } from '../spec/define.js';
import type { LeafCursor } from '../walk/enumerate.js';
import type { DumpNode } from './iommu.js';
import type { Leaves } from './leaves.js';

/**
 * Every field; `values` names what enumerations mean. The form: addresses in hexadecimal,
 * enumerations with that name, the rest as numbers.
 */
export function fieldText(
  shape: Layout<string>,
  words: Uint32Array,
  base: number,
  values: Readonly<Record<string, readonly string[]>>,
): Record<string, string | number> {
  const out: Record<string, string | number> = {};
  for (const [name, value] of Object.entries(decode(shape, words, base))) {
    const text = values[name]?.[value];
    if (shape.fields[name].address) out[name] = `0x${value.toString(16)}`;
    else if (text !== undefined) out[name] = `${value} (${text})`;
    else if (value > 0xffff) out[name] = `0x${value.toString(16)}`;
    else out[name] = value;
  }
  return out;
}

const PAGE_NAMES: Readonly<Record<number, string>> = {
  12: '4 KiB',
  14: '16 KiB',
  16: '64 KiB',
  21: '2 MiB',
  25: '32 MiB',
  29: '512 MiB',
  30: '1 GiB',
  42: '4 TiB',
};

/** The translations that `leaves` was started at, as ranges below one node. */
export function leavesNode(label: string, leaves: Leaves, maxLeaves: number): DumpNode {
  const { cursor } = leaves;
  const children: DumpNode[] = [];
  let more = leaves.next();
  while (more && children.length < maxLeaves) {
    const range = new LeafRange(cursor);
    more = leaves.next();
    while (more && range.take(cursor)) more = leaves.next();
    children.push(range.node());
  }
  const notes: string[] = [];
  if (more) notes.push('more translations above');
  if (leaves.exhausted) notes.push('gave up: the tables refer to themselves or are very large');
  if (cursor.malformed > 0) notes.push(`${cursor.malformed} entries malformed or not in memory`);
  const node = { label, children };
  return notes.length === 0 ? node : { ...node, note: notes.join('; ') };
}

/** A growing range of contiguous leaves of one size and permission. */
class LeafRange {
  readonly #inLo: number;
  readonly #inHi: number;
  readonly #outLo: number;
  readonly #outHi: number;
  readonly #log2Size: number;
  readonly #permissions: number;
  #pages = 1;

  constructor(first: LeafCursor) {
    this.#inLo = first.inLo;
    this.#inHi = first.inHi;
    this.#outLo = first.outLo;
    this.#outHi = first.outHi;
    this.#log2Size = first.log2Size;
    this.#permissions = first.permissions & 3;
  }

  /** Takes the next leaf in if it continues the range. */
  take(leaf: LeafCursor): boolean {
    const log2Size = this.#log2Size;
    const pages = this.#pages;
    const continues =
      leaf.log2Size === log2Size &&
      (leaf.permissions & 3) === this.#permissions &&
      pages < 2 ** (52 - log2Size) &&
      compare(
        leaf.inLo,
        leaf.inHi,
        this.#lowAt(pages, this.#inLo),
        this.#highAt(pages, this.#inLo, this.#inHi),
      ) === 0 &&
      compare(
        leaf.outLo,
        leaf.outHi,
        this.#lowAt(pages, this.#outLo),
        this.#highAt(pages, this.#outLo, this.#outHi),
      ) === 0;
    if (continues) this.#pages++;
    return continues;
  }

  /** What the dump prints of it. */
  node(): DumpNode {
    const inLo = this.#inLo;
    const inHi = this.#inHi;
    const pages = this.#pages;
    const permissions = this.#permissions;
    const log2Size = this.#log2Size;
    const bytes = pages * 2 ** log2Size - 1;
    const last = (inLo >>> 0) + (bytes % TWO_32);
    const lastHi = inHi + Math.floor(bytes / TWO_32) + (last >= TWO_32 ? 1 : 0);
    return {
      label: `${hex64(inLo, inHi)}-${hex64(last % TWO_32, lastHi)}`,
      fields: {
        to: hex64(this.#outLo, this.#outHi),
        access: `${(permissions & 1) !== 0 ? 'r' : '-'}${(permissions & 2) !== 0 ? 'w' : '-'}`,
        page: PAGE_NAMES[log2Size] ?? `2^${log2Size}`,
        pages,
      },
    };
  }

  /** Low half of an address `pages` further. */
  #lowAt(pages: number, lo: number): number {
    return ((lo >>> 0) + ((pages * 2 ** this.#log2Size) % TWO_32)) % TWO_32;
  }

  /** High half of it. */
  #highAt(pages: number, lo: number, hi: number): number {
    return (hi + Math.floor(((lo >>> 0) + pages * 2 ** this.#log2Size) / TWO_32)) | 0;
  }
}
