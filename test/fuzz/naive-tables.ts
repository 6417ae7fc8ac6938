/**
 * What page tables say, by the plainest reading of the specifications: entry by entry, from the
 * root down, in BigInt. Shares nothing with the engine. It knows the entries that the fuzzers write
 * and no others (no reserved bits, no output sizes).
 *
 * An entry may have had several values, because the guest changed it while it was read; then
 * everything is told that some combination of them says.
 */

const READ = 1;
const WRITE = 2;
const PAGES = 2n ** 52n;

export interface NaiveFormat {
  /** Level of the root; 1 is the last. */
  readonly levels: number;
  /** log2 of what an entry of a level maps. */
  shift(level: number): number;
  /** Entries of a table. */
  entries(level: number): number;
  /** Input page number of a position in the input space. */
  pageAt(position: bigint): bigint;
  kind(entry: bigint, level: number): 'nothing' | 'table' | 'leaf';
  /** Address that an entry holds. */
  address(entry: bigint, shift: number): number;
  /** What is left of `rights` below a table, and through a leaf. */
  through(rights: number, entry: bigint): number;
  leaf(rights: number, entry: bigint): number;
}

interface NaiveLeaf {
  /** Input page and number of pages. */
  readonly page: number;
  readonly pages: number;
  readonly gpa: number;
  readonly access: number;
}

export interface Entries {
  /** Values of the entry at an address; none where there is no memory. */
  values(address: number): readonly bigint[];
  /** Where within [first, end) something may be other than zero. */
  written(first: number, end: number): Iterable<number>;
}

/** Calls `found` for every leaf with rights, and `table` for every table. */
export function readNaively(
  format: NaiveFormat,
  root: number,
  entries: Entries,
  found: (leaf: NaiveLeaf) => void,
  table: (address: number, bytes: number) => void = () => {},
): void {
  // With several values of an entry the same table is come to in several ways.
  const seen = new Set<string>();
  const look = (address: number, level: number, at: bigint, rights: number): void => {
    const way = `${address} ${level} ${at} ${rights}`;
    if (seen.has(way)) return;
    seen.add(way);
    const count = format.entries(level);
    table(address, count * 8);
    const shift = format.shift(level);
    for (const where of entries.written(address, address + count * 8)) {
      const position = at + (BigInt((where - address) / 8) << BigInt(shift - 12));
      for (const entry of entries.values(where)) {
        const kind = format.kind(entry, level);
        if (kind === 'table') {
          look(format.address(entry, 12), level - 1, position, format.through(rights, entry));
        } else if (kind === 'leaf') {
          const access = format.leaf(rights, entry) & (READ | WRITE);
          const page = Number(format.pageAt(position) % PAGES);
          const gpa = format.address(entry, shift);
          if (access !== 0) found({ page, pages: 2 ** (shift - 12), gpa, access });
        }
      }
    }
  };
  look(root, format.levels, 0n, READ | WRITE);
}

const bit = (entry: bigint, number: number): boolean => ((entry >> BigInt(number)) & 1n) === 1n;

/** Bits [51, shift) of an entry. */
function addressOf(entry: bigint, shift: number, top = 52): number {
  const mask = (1n << BigInt(top)) - (1n << BigInt(shift));
  return Number(entry & mask);
}

interface ArmShape {
  readonly stage: 1 | 2;
  readonly granule: number;
  readonly inputBits: number;
  readonly levels: number;
  readonly upper: boolean;
  /** Addresses have 52 bits. */
  readonly large: boolean;
  /** Hardware updates of the Access flag, and of the dirty state. */
  readonly hardware?: 'access' | 'dirty' | undefined;
}

/** VMSAv8-64. DDI 0487 D8.3, D8.4 */
export function naiveArm(shape: ArmShape): NaiveFormat {
  const { stage, granule, inputBits, levels, upper, large, hardware } = shape;
  const stride = granule - 3;
  const shift = (level: number): number => granule + stride * (level - 1);
  /**
   * Blocks: of two levels with 4 KiB pages, and with 64 KiB ones where addresses have 52 bits;
   * otherwise of one.
   */
  const blocks = (level: number): boolean =>
    level === 2 || (level === 3 && (granule === 12 || (granule === 16 && large)));
  const dirty = hardware === 'dirty';
  return {
    levels,
    shift,
    entries: (level) => 2 ** (level === levels ? inputBits - shift(levels) : stride),
    pageAt: (position) => (upper ? PAGES - (1n << BigInt(inputBits - 12)) + position : position),
    kind: (entry, level) => {
      if (!bit(entry, 0)) return 'nothing';
      const type = bit(entry, 1);
      if (level > 1 && type) return 'table';
      if (level === 1 ? !type : !blocks(level)) return 'nothing';
      return bit(entry, 10) || hardware !== undefined ? 'leaf' : 'nothing';
    },
    // With 52 bits, bits 15:12 of an entry for 64 KiB pages are bits 51:48 of its address.
    address: (entry, from) => {
      const low = addressOf(entry, Math.max(from, granule), 48);
      return large && granule === 16 ? low + Number((entry >> 12n) & 0xfn) * 2 ** 48 : low;
    },
    // APTable: no access without privilege, no writes. Stage 2 has none.
    through: (rights, entry) => {
      if (stage === 2) return rights;
      return bit(entry, 61) ? 0 : bit(entry, 62) ? rights & READ : rights;
    },
    leaf: (rights, entry) => {
      const modified = dirty && bit(entry, 51);
      if (stage === 2) {
        return (bit(entry, 6) ? READ : 0) | (bit(entry, 7) || modified ? WRITE : 0);
      }
      if (!bit(entry, 6)) return 0;
      return bit(entry, 7) && !modified ? rights & READ : rights;
    },
  };
}

/**
 * VT-d tables of 9-bit levels: second-stage (§9.8) or first-stage (§9.7), with addresses that a
 * first stage extends.
 */
export function naiveVtd(stage: 'first' | 'second', levels: number): NaiveFormat {
  const first = stage === 'first';
  const bits = BigInt(9 * levels);
  const extended = first ? PAGES - (1n << bits) : 0n;
  const rights = (entry: bigint): number => {
    if (!first) return Number(entry & 3n);
    return bit(entry, 2) ? READ | (bit(entry, 1) ? WRITE : 0) : 0;
  };
  return {
    levels,
    shift: (level) => 12 + 9 * (level - 1),
    entries: () => 512,
    pageAt: (position) => (position >> (bits - 1n) === 1n ? position + extended : position),
    kind: (entry, level) => {
      if ((entry & (first ? 1n : 3n)) === 0n) return 'nothing';
      if (level === 1) return 'leaf';
      if (!bit(entry, 7)) return 'table';
      // Large pages are of two levels, and aligned.
      const low = (1n << BigInt(12 + 9 * (level - 1))) - 4096n;
      return level <= 3 && (entry & low) === 0n ? 'leaf' : 'nothing';
    },
    address: (entry, shift) => addressOf(entry, shift),
    through: (from, entry) => from & rights(entry),
    leaf: (from, entry) => from & rights(entry),
  };
}
