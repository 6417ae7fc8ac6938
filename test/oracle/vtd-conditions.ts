/** What the entries of known VT-d differences ask about a difference. */
import type { Outcome } from './script.js';
import type { Difference, KnownDifference } from './suite.js';
import { MEMORY, REG, type VtdKind } from './vtd-machine.js';
import { type Path, pathOf } from './vtd-path.js';

export type VtdDifference = Difference<VtdKind>;
export type VtdKnown = KnownDifference<VtdKind>;

/** What is shown of a fault record and of what follows from it. */
export const RECORD = [
  'fault',
  'SID',
  'FI',
  'T1',
  'T2',
  'PP',
  'PV',
  'EXE',
  'PRIV',
  'FSTS',
  'FECTL.IP',
] as const;
/** All that a request shows. */
export const ALL = ['translated', 'output', 'log2', 'permissions', ...RECORD] as const;

export const path = ({ machine, step }: VtdDifference): Path | undefined =>
  step.request && pathOf(machine.memory, machine.machine.readRegister(REG.RTADDR, 8), step.request);

/** An FPD bit on the way: qualified faults are not recorded. */
function suppressed(d: VtdDifference): boolean {
  const way = path(d);
  return [way?.context[0], way?.directory, way?.pasid[0]].some((word) => ((word ?? 0n) & 2n) !== 0n);
}

/** The condition code of our refusal, recorded or not; empty where ours translated. */
export function refusal(d: VtdDifference): string {
  const event = d.machine.machine.outputs.events.at(-1);
  return d.ours['translated'] === 0 && event?.kind === 'fault' ? (event.name.split(':')[0] ?? '') : '';
}

/** Both refused, for these reasons. */
export function refusals(
  { ours, stock }: VtdDifference,
  mine: readonly string[],
  theirs: readonly string[],
): boolean {
  return is(ours, 0, mine) && is(stock, 0, theirs);
}

/** Ours translated, stock refused for one of these reasons, which FPD may have suppressed. */
export function refusedByStock(d: VtdDifference, reasons: readonly string[]): boolean {
  const seen = suppressed(d) ? [...reasons, 'none'] : reasons;
  return is(d.ours, 1, ['none']) && is(d.stock, 0, seen);
}

/** Stock translated, ours refused for one of these reasons, which FPD may have suppressed. */
export function refusedByOurs(d: VtdDifference, reasons: readonly string[]): boolean {
  const seen = suppressed(d) ? [...reasons, 'none'] : reasons;
  return is(d.stock, 1, ['none']) && is(d.ours, 0, seen);
}

export function is(side: Outcome, translated: 0 | 1, faults: readonly string[]): boolean {
  return side['translated'] === translated && faults.includes(String(side['fault']));
}

/** The aligned block of 2^log2 bytes around an address has some of FEEx_xxxxh in it. */
export function meetsInterruptRange(address: bigint, log2: number): boolean {
  const base = (address >> BigInt(log2)) << BigInt(log2);
  return base <= 0xfeef_ffffn && base + (1n << BigInt(log2)) > 0xfee0_0000n;
}

/** Entries after which Accessed and Dirty bits may differ. */
export const FLAG_CAUSES = [
  'first-stage-dirty',
  'interrupt-range-page',
  'page-walk-snoop',
  'tables-among-registers',
  'pasid-checks',
  'pasid-entry-not-present',
  'pasid-reserved',
  'rid-pasid-needed',
  'rights-per-level',
  'table-types',
  'first-stage-width',
  'context-reserved-features',
];

/** Conditions of page-table entries, as opposed to rights. */
export const TABLE_REASONS = [
  'LSS.1',
  'LSS.2',
  'SSS.1',
  'SSS.3',
  'SSS.2',
  'SFS.1',
  'SFS.2',
  'SFS.3',
  'SGN.2',
  'SGN.6',
];
export const FIRST_RIGHTS = ['SGN.2', 'SGN.6'];

/** PGTT of an entry that uses first-stage tables alone. */
export function firstStage(way: Path | undefined): boolean {
  return way?.scalable === true && (((way.pasid[0] ?? 0n) >> 6n) & 7n) === 1n;
}

/**
 * Words left in memory that differ in their first-stage Accessed and Dirty bits alone, and for
 * which `test` holds.
 */
export function flagWords(
  d: VtdDifference,
  test: (mine: bigint, theirs: bigint) => boolean,
  bits = 0x60n,
  stage = 'first',
): string[] {
  if (d.step.text !== MEMORY || d.kind.scalable !== stage) return [];
  return d.fields.filter((name) => {
    const [mine, theirs] = [d.ours[name] ?? 0n, d.stock[name] ?? 0n] as bigint[];
    return ((mine ^ theirs) & ~bits) === 0n && test(mine, theirs);
  });
}

/** What stock records for a condition of scalable mode. */
export const LEGACY_REASON: Readonly<Record<string, readonly string[]>> = {
  'SRT.1': ['LRT.1'],
  'SRT.2': ['LRT.2'],
  'SRT.3': ['LRT.3'],
  'SCT.1': ['LCT.1'],
  'SCT.2': ['LCT.2'],
  'SCT.3': ['LCT.3'],
  'SSS.1': ['LSS.1'],
  'SSS.2': ['LGN.2', 'LGN.3'],
  'SSS.3': ['LSS.2'],
  'SSS.4': ['LCT.4'],
  'SGN.5': ['LGN.1'],
  'SGN.6': ['LGN.2'],
  'SGN.7': ['LGN.3'],
};
