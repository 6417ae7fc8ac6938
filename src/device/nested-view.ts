/**
 * What a guest has set up, as hardware needs to know it that walks the guest's stage 1 itself: read
 * afresh, nothing is cached and no table is walked. And the way back: what that hardware reports
 * becomes the guest's own faults.
 */

/** What becomes of a requester's requests, all its PASIDs together. */
export const STREAM = {
  /** Nothing goes through. */
  BLOCKED: 0,
  /** The IOMMU is off: addresses are guest-physical ones. */
  IDENTITY: 1,
  /** Its structures decide. */
  TABLES: 2,
} as const;

/** What a PASID-table entry says of requests. */
export const ENTRY = {
  /** Not present, or nothing that may be used. */
  NONE: 0,
  PASS_THROUGH: 1,
  FIRST_STAGE: 2,
  /** A second stage of the guest takes part: no hardware nests that below its own. */
  SECOND_STAGE: 3,
} as const;

/** Filled by {@link NestedView.entry}; reused. Root, levels and flags are of FIRST_STAGE. */
export interface PasidEntryView {
  kind: number;
  /** Domain-id and PASID that invalidations name. */
  did: number;
  tag: number;
  root: number;
  levels: number;
  extendedAccessed: boolean;
}

/** Filled by {@link NestedView.ste}; reused. */
export interface StreamEntryView {
  /** The first four words of the STE. */
  readonly words: Uint32Array;
  /**
   * What translations of its stage 1 are tagged with, beside their ASIDs; 0 where the unit has no
   * stage 2. IHI 0070 §3.17
   */
  vmid: number;
}

/** A fault that hardware has recorded, with the guest's numbers for who asked. */
export interface ForwardedFault {
  readonly rid: number;
  readonly pasid: number;
  /** The record as hardware wrote it: an event record of 8 words, or a fault record of 4. */
  readonly record: Uint32Array;
}

export interface NestedView {
  readonly format: 'vtd' | 'smmuv3';
  /** One of {@link STREAM}. */
  stream(rid: number): number;
  /** SMMUv3: a stream's STE. False when it can't be used. */
  ste(rid: number, out: StreamEntryView): boolean;
  /** VT-d: the entry that requests use with this PASID, or without one (−1). */
  entry(rid: number, pasid: number, out: PasidEntryView): void;
  /**
   * VT-d: the next PASID ≥ `from` whose entry is present. −1: there is none. Below −1: none below
   * `−2 − value`; the search has looked at `budget` entries and can go on there.
   */
  nextPasid(rid: number, from: number, budget: number): number;
  /** Records a fault of stage 1. */
  fault(fault: ForwardedFault): void;
  /** Records that a request used a PASID which the requester does not have. */
  noSuchPasid(rid: number, pasid: number, access: number, lo: number, hi: number): void;
}

export function newStreamEntryView(): StreamEntryView {
  return { words: new Uint32Array(4), vmid: 0 };
}

export function newPasidEntryView(): PasidEntryView {
  return { kind: ENTRY.NONE, did: 0, tag: 0, root: 0, levels: 4, extendedAccessed: false };
}
