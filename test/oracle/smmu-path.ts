/**
 * What stands in memory on the way of one transaction: a reader of its own, for explaining
 * differences. IHI 0070 §3.3
 */
import { CD, STE, TG0_GRANULE, TG1_GRANULE } from '../../src/spec/smmuv3/structures.js';
import type { OurMachine } from './ours.js';
import { hex, type Request } from './script.js';
import { REG } from './smmu-machine.js';
import { levelShift, startLevel } from './smmu-tables.js';

interface Descriptor {
  readonly level: number;
  readonly address: bigint;
  /** Undefined where there is no memory. */
  readonly value: bigint | undefined;
}

export interface Walk {
  readonly granule: number;
  readonly start: number;
  readonly descriptors: readonly Descriptor[];
  /** Where it leads; undefined where it ends early. */
  readonly output: bigint | undefined;
}

export interface Path {
  /** L1STD.Span and the index below it, of a two-level table. */
  readonly span: number | undefined;
  readonly split: number;
  /** The L1STD itself. */
  readonly l1: bigint;
  readonly index: number;
  readonly ste: Uint32Array;
  readonly config: number;
  readonly cd: Uint32Array | undefined;
  /** The address is in TTB1's half. */
  readonly upper: boolean;
  readonly first: Walk | undefined;
  /** Of the address, or of what stage 1 makes of it. */
  readonly second: Walk | undefined;
}

const NONE: Walk = { granule: 12, start: 3, descriptors: [], output: undefined };
const ADDRESS = 0xffff_ffff_f000n;
/** L2Ptr, ADDR. */
const POINTER = 0xf_ffff_ffff_ffc0n;

/** The L1STD of a two-level table, if there is one. */
export function levelOne(machine: OurMachine, { rid }: Request): Omit<Entry, 'ste'> {
  return entryOf(machine, rid);
}

export function pathOf(machine: OurMachine, { rid, address }: Request): Path | undefined {
  const { ste, span, split, l1, index } = entryOf(machine, rid);
  if (ste === undefined) return undefined;
  const config = STE.get.Config(ste);
  const nested = config === 7;
  const cd = (config & 5) === 5 ? contextOf(machine, ste, nested) : undefined;
  const upper = ((address >> 55n) & 1n) === 1n;
  const first = cd === undefined ? undefined : walkFirst(machine, ste, cd, nested, upper, address);
  const input = first === undefined ? address : first.output;
  const second = (config & 6) === 6 && input !== undefined ? walkSecond(machine, ste, input) : undefined;
  return { span, split, l1, index, ste, config, cd, upper, first, second };
}

function word(machine: OurMachine, address: bigint): bigint | undefined {
  return address < 1n << 52n ? machine.memory.peek(Number(address)) : undefined;
}

function words(machine: OurMachine, address: bigint, count: number): Uint32Array | undefined {
  const out = new Uint32Array(count);
  for (let n = 0; n < count; n += 2) {
    const value = word(machine, address + BigInt(n * 4));
    if (value === undefined) return undefined;
    out[n] = Number(value & 0xffff_ffffn);
    out[n + 1] = Number(value >> 32n);
  }
  return out;
}

interface Entry {
  readonly span: number | undefined;
  readonly split: number;
  readonly l1: bigint;
  readonly index: number;
  readonly ste: Uint32Array | undefined;
}

function entryOf(machine: OurMachine, sid: number): Entry {
  const base = machine.machine.readRegister(REG.STRTAB_BASE, 8) & POINTER;
  const config = Number(machine.machine.readRegister(REG.STRTAB_BASE_CFG, 4));
  const split = (config >> 6) & 31;
  const linear = { span: undefined, split, l1: 0n, index: sid };
  if (sid >= 1 << (config & 63)) return { ...linear, ste: undefined };
  if (config >> 16 === 0) return { ...linear, ste: words(machine, base + BigInt(sid * 64), 16) };
  const l1 = word(machine, base + BigInt((sid >> split) * 8)) ?? 0n;
  const span = Number(l1 & 31n);
  const index = sid & ((1 << split) - 1);
  // L2Ptr is aligned to the table's size.
  const table = l1 & POINTER & ~((1n << BigInt(5 + span)) - 1n);
  const ste = span === 0 ? undefined : words(machine, table + BigInt(index * 64), 16);
  return { span, split, l1, index, ste };
}

function contextOf(machine: OurMachine, ste: Uint32Array, nested: boolean): Uint32Array | undefined {
  const pointer = BigInt(STE.get.S1ContextPtr(ste));
  const at = nested ? walkSecond(machine, ste, pointer).output : pointer;
  return at === undefined ? undefined : words(machine, at, 16);
}

function walkFirst(
  machine: OurMachine,
  ste: Uint32Array,
  cd: Uint32Array,
  nested: boolean,
  upper: boolean,
  address: bigint,
): Walk {
  const granule = upper ? TG1_GRANULE[CD.get.TG1(cd)] : TG0_GRANULE[CD.get.TG0(cd)];
  const bits = 64 - (upper ? CD.get.T1SZ(cd) : CD.get.T0SZ(cd));
  if (granule === 0 || bits < 25 || bits > 48) return NONE;
  const root = BigInt(upper ? CD.get.TTB1(cd) : CD.get.TTB0(cd));
  const through = (at: bigint): bigint | undefined => (nested ? walkSecond(machine, ste, at).output : at);
  return walk(machine, granule, startLevel(granule, bits), bits, root, address, through);
}

/** Stage 2 of an intermediate address. */
export function walkSecond(machine: OurMachine, ste: Uint32Array, address: bigint): Walk {
  const granule = TG0_GRANULE[STE.get.S2TG(ste)];
  const bits = 64 - STE.get.S2T0SZ(ste);
  const start = granule === 12 ? 2 - STE.get.S2SL0(ste) : 3 - STE.get.S2SL0(ste);
  if (granule === 0 || start < 0 || bits < 25) return NONE;
  return walk(machine, granule, start, bits, BigInt(STE.get.S2TTB(ste)), address, (at) => at);
}

function walk(
  machine: OurMachine,
  granule: number,
  start: number,
  bits: number,
  root: bigint,
  address: bigint,
  through: (at: bigint) => bigint | undefined,
): Walk {
  const descriptors: Descriptor[] = [];
  const input = address & ((1n << BigInt(bits)) - 1n);
  // Root tables are aligned to their size, at least to 64 bytes.
  const size = 1n << BigInt(Math.max(6, 3 + bits - levelShift(granule, start)));
  let table = root & ~(size - 1n);
  for (let level = start; level <= 3; level++) {
    const shift = BigInt(levelShift(granule, level));
    const mask = level === start ? (1n << 40n) - 1n : (1n << BigInt(granule - 3)) - 1n;
    const at = through(table + ((input >> shift) & mask) * 8n);
    const value = at === undefined ? undefined : word(machine, at);
    descriptors.push({ level, address: at ?? table, value });
    if (value === undefined || (value & 1n) === 0n) break;
    if (level === 3 || (value & 2n) === 0n) {
      const output = (((value & ADDRESS) >> shift) << shift) | (input & ((1n << shift) - 1n));
      return { granule, start, descriptors, output };
    }
    table = value & ADDRESS & ~((1n << BigInt(granule)) - 1n);
  }
  return { granule, start, descriptors, output: undefined };
}

export function describePath(path: Path | undefined): string {
  if (path === undefined) return '  no valid STE';
  const list = (structure: Uint32Array | undefined): string =>
    structure === undefined ? '–' : Array.from(structure.subarray(0, 8), (value) => hex(value)).join(' ');
  const lines = [`  STE ${list(path.ste)}`];
  if (path.cd !== undefined) lines.push(`  CD ${list(path.cd)}`);
  for (const [name, walked] of [
    ['stage 1', path.first],
    ['stage 2', path.second],
  ] as const) {
    for (const { level, address, value } of walked?.descriptors ?? []) {
      lines.push(`  ${name} level ${level} at ${hex(address)}: ${value === undefined ? '–' : hex(value)}`);
    }
  }
  return lines.join('\n');
}
