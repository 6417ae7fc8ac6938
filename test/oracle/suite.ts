import type { Rng } from '../fuzz/rng.js';
import type { OurMachine, OurOptions } from './ours.js';
import type { Ledger, Reading } from './reading.js';
import type { Outcome, Script, Step } from './script.js';
import type { Target } from './stock.js';

/**
 * A stock machine and what of ours compares with it; or one of ours that stock QEMU has nothing
 * like.
 */
export interface MachineKind {
  readonly name: string;
  /** QEMU's arguments: machine, memory, IOMMU. */
  readonly args?: readonly string[];
  readonly ours: OurOptions;
  /** Of cases, in parts of all kinds' shares. */
  readonly share: number;
}

export interface Case {
  readonly script: Script;
  /** What was made wrong on purpose, for people. */
  readonly notes: readonly string[];
}

/** One step that came out differently. */
export interface Difference<K extends MachineKind = MachineKind> {
  readonly kind: K;
  readonly step: Step;
  readonly ours: Outcome;
  readonly stock: Outcome;
  /** Names of the values that differ. */
  readonly fields: readonly string[];
  /** Our side as it is just after the step. */
  readonly machine: OurMachine;
  /** Ids of the entries that explained something earlier in the case. */
  readonly earlier: ReadonlySet<string>;
}

/** A difference that is understood, and who follows the specification. */
export interface KnownDifference<K extends MachineKind = MachineKind> {
  readonly id: string;
  /** `either`: the specification leaves the choice, or the two advertise different capabilities. */
  readonly right: 'viommu' | 'either';
  readonly section: string;
  readonly says: string;
  /**
   * Names of the values that this accounts for; none when it has nothing to do with the difference.
   */
  readonly claims: (difference: Difference<K>) => readonly string[];
  /** Both sides go on from different states: nothing after it can be compared. */
  readonly ends?: boolean;
}

/** QEMU ended while it ran a case. */
export interface KnownDeath {
  readonly id: string;
  readonly right: 'viommu';
  readonly section: string;
  readonly says: string;
  /** What QEMU says when it ends so. */
  readonly text: RegExp;
}

export interface Suite<K extends MachineKind = MachineKind> {
  readonly name: 'vtd' | 'smmuv3';
  readonly target: Target;
  readonly kinds: readonly K[];
  /**
   * Machines with features that stock QEMU does not have: ours is compared with the third reading
   * alone.
   */
  readonly alone: readonly K[];
  readonly known: readonly KnownDifference<K>[];
  readonly deaths: readonly KnownDeath[];
  readonly generate: (rng: Rng, kind: K) => Case;
  /** Names of what one look has reached, for the coverage that a run has to show. */
  readonly reached: (step: Step, ours: Outcome, machine: OurMachine) => readonly string[];
  /** Names that a run of some hundred cases must have reached. */
  readonly required: readonly string[];
  /** The third reading of a request, before our side serves it. */
  readonly read: (step: Step, machine: OurMachine, kind: K, ledger: Ledger) => Reading | undefined;
  /** A difference, explained or not, after which both sides go on from different states. */
  readonly parts?: (difference: Difference<K>) => boolean;
  /** The structures on the way of a step that failed, decoded. */
  readonly describe: (step: Step, machine: OurMachine) => string;
}
