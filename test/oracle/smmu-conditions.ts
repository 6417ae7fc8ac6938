/** What the entries of known SMMUv3 differences ask about a difference. */
import { CD, STE, STE_CONFIG, TG0_GRANULE } from '../../src/spec/smmuv3/structures.js';
import type { OurMachine } from './ours.js';
import { OUTPUT_BITS, RAM, type SmmuKind } from './smmu-machine.js';
import { levelOne, type Path, pathOf, type Walk, walkSecond } from './smmu-path.js';
import { levelShift } from './smmu-tables.js';
import type { Difference, KnownDifference } from './suite.js';

type SmmuDifference = Difference<SmmuKind>;
export type SmmuKnown = KnownDifference<SmmuKind>;

export const path = ({ machine, step }: SmmuDifference): Path | undefined =>
  step.request && pathOf(machine, step.request);

/** The L1STD of its stream; `span` is undefined in a linear table. */
export const levelOneOf = ({ machine, step }: SmmuDifference) =>
  step.request === undefined
    ? { span: undefined, split: 0, l1: 0n, index: 0 }
    : levelOne(machine, step.request);

/** All that a transaction shows, of both sides. */
export const all = ({ step, fields }: SmmuDifference): readonly string[] => (step.request ? fields : []);

export const bothTranslated = ({ ours, stock }: SmmuDifference): boolean =>
  ours['translated'] === 1 && stock['translated'] === 1;

/** The event that ours has recorded, or that one side of a fault would have. */
export const recorded = ({ ours }: SmmuDifference): string => String(ours['event']);

/** Valid descriptors of a walk. */
function valid(walk: Walk | undefined): bigint[] {
  return (walk?.descriptors ?? []).flatMap(({ value }) =>
    value === undefined || (value & 1n) === 0n ? [] : [value],
  );
}

/**
 * Some descriptor of stage 1 gives privileged access alone: AP[1] clear in the leaf, APTable[0]
 * above it.
 */
export function privilegedOnly(way: Path | undefined): boolean {
  if (way?.first === undefined || way.cd === undefined) return false;
  const disabled = (way.upper ? CD.get.HAD1(way.cd) : CD.get.HAD0(way.cd)) === 1;
  return valid(way.first).some((value, index, list) => {
    const leaf = index === list.length - 1 && way.first?.output !== undefined;
    return leaf ? (value & 0x40n) === 0n : !disabled && (value & (1n << 61n)) !== 0n;
  });
}

/** Some descriptor of stage 1 is read-only. */
export function readOnly(way: Path | undefined): boolean {
  return valid(way?.first).some((value) => (value & 0x80n) !== 0n || (value & (1n << 62n)) !== 0n);
}

/** A descriptor holds an address beyond these bits. */
export function beyond(walk: Walk | undefined, bits: number): boolean {
  return valid(walk).some((value) => (value & 0xffff_ffff_f000n) >> BigInt(bits) !== 0n);
}

const BITS = [32, 36, 40, 42, 44, 48, 52, 52] as const;

/** Bits of what stage 1 and stage 2 may put out. */
export function firstBits(way: Path): number {
  return Math.min(way.cd === undefined ? 52 : BITS[CD.get.IPS(way.cd)], OUTPUT_BITS);
}
export function secondBits(way: Path): number {
  return Math.min(BITS[STE.get.S2PS(way.ste)], OUTPUT_BITS);
}

/**
 * Stage 2 has concatenated root tables, and the address, or one that had to be read on the way to
 * it, is not in the first of them.
 */
export function beyondFirstRoot(way: Path | undefined, address: bigint): boolean {
  if (way === undefined || (way.config & 6) !== 6) return false;
  const granule = TG0_GRANULE[STE.get.S2TG(way.ste)];
  const start = granule === 12 ? 2 - STE.get.S2SL0(way.ste) : 3 - STE.get.S2SL0(way.ste);
  const reach = BigInt(levelShift(granule, start) + granule - 3);
  const nested = way.config === STE_CONFIG.NESTED;
  const first =
    way.first?.descriptors.flatMap(({ value }) => (value === undefined ? [] : [value & 0xffff_ffff_f000n])) ??
    [];
  const tables = way.cd === undefined ? [] : [CD.get.TTB0(way.cd), CD.get.TTB1(way.cd)].map(BigInt);
  const inputs = nested ? [BigInt(STE.get.S1ContextPtr(way.ste)), ...tables, ...first] : [address];
  return inputs.some((input) => input >> reach !== 0n);
}

/**
 * Every walk of stage 2 that the transaction may take: for the CD, for tables of stage 1, and for
 * what comes out of it.
 */
export function secondWalks(machine: OurMachine, way: Path | undefined): Walk[] {
  if (way === undefined || (way.config & 6) !== 6) return [];
  const tables = way.cd === undefined ? [] : [CD.get.TTB0(way.cd), CD.get.TTB1(way.cd)].map(BigInt);
  const below =
    way.first?.descriptors.flatMap(({ value }) => (value === undefined ? [] : [value & 0xffff_ffff_f000n])) ??
    [];
  const nested = way.config === STE_CONFIG.NESTED;
  const inputs = nested ? [BigInt(STE.get.S1ContextPtr(way.ste)), ...tables, ...below] : [];
  const walks = inputs.map((input) => walkSecond(machine, way.ste, input));
  return way.second === undefined ? walks : [...walks, way.second];
}

/** Something on the way is where the machine has flash or registers. */
export function amongRegisters(machine: OurMachine, way: Path | undefined): boolean {
  if (way?.config === STE_CONFIG.S1_TRANSLATE && STE.get.S1ContextPtr(way.ste) < RAM) return true;
  const walks = [way?.first, ...secondWalks(machine, way)].flatMap((walk) => walk?.descriptors ?? []);
  return walks.some(({ address }) => address < BigInt(RAM));
}

/**
 * A block where this granule has none: level 0 of 4 KiB, level 1 and 0 of 16 and 64 KiB. Arm ARM
 * D8.3
 */
export function misplacedBlock(walk: Walk | undefined): boolean {
  if (walk === undefined) return false;
  const first = walk.granule === 12 ? 1 : 2;
  return walk.descriptors.some(
    ({ level, value }) => level < first && value !== undefined && (value & 3n) === 1n,
  );
}

/** The leaf of stage 2 does not allow the access. */
export function secondLacks(way: Path | undefined, access: number): boolean {
  const leaf = way?.second?.output === undefined ? undefined : way.second.descriptors.at(-1)?.value;
  return leaf !== undefined && (Number((leaf >> 6n) & 3n) & access) !== access;
}

/** log2 of what one entry of stage 2's root table maps. */
export function startShift({ ste }: Path): number {
  const granule = TG0_GRANULE[STE.get.S2TG(ste)];
  return levelShift(granule, (granule === 12 ? 2 : 3) - STE.get.S2SL0(ste));
}
