/**
 * What the demo asks of a unit's driver. VT-d and SMMUv3 each have one (vtd-demo.ts, smmu-demo.ts).
 * The demo itself is written once (sim-demo.ts).
 */
import type { Rights } from './page-table.js';

/** Tables and rings: this range of guest memory. */
export const TABLES: readonly [start: number, end: number] = [2 ** 20, 32 * 2 ** 20];
/** DMA buffers begin here. */
export const BUFFERS = 32 * 2 ** 20;
export const RAM_BYTES = 96 * 2 ** 20;
/** Requester or stream of the device. */
export const RID = 0x18;
/** Where the device's buffers are mapped. */
export const IOVA = 0x1_0000_0000n;
/** Where nothing is mapped. */
export const STRAY = 0xdead_0000n;
/** A nested first stage sees guest memory this far up. */
export const NESTED_OFFSET = 2n ** 36n;

/** A fault that the unit has reported to its driver. */
export interface DemoFault {
  readonly rid: number;
  readonly address: bigint;
  /** In the specification's words. */
  readonly name: string;
  /** As a driver's log would have it. */
  readonly text: string;
}

/**
 * One kind of address space of a unit. The device's requests go through it while it is attached.
 */
export interface DemoSpace {
  readonly name: string;
  /** PASID or SubstreamID of the requests; −1: they have none. */
  readonly pasid: number;
  /** Different for each space, so that their patterns differ. */
  readonly seed: number;
  /** Of the smallest page. */
  readonly pageBytes: number;
  /** Where guest memory begins in what the tables map to. */
  readonly base: number;
  attach(): void;
  detach(): void;
  /**
   * Maps consecutive pages from `input`, each to its own output address. Announces them if the unit
   * requires it.
   */
  map(input: bigint, outputs: readonly number[], rights?: Rights): void;
  unmap(input: bigint, bytes: number): void;
}

/** A unit with its driver. */
export interface DemoUnit {
  /** What it is and can do. */
  readonly title: string;
  /** Names that its faults must have; undefined: not checked. */
  readonly faultNames: { readonly unmapped?: string; readonly readOnly?: string };
  /** A request of a device that is attached to nothing is a fault with its address. */
  readonly reportsDetached: boolean;
  /** Descriptors or commands that the driver has put into its queue. */
  readonly submitted: number;
  start(): void;
  stop(): void;
  spaces(): readonly DemoSpace[];
  /** The address that a fault of an access has. */
  faultAddress(address: bigint): bigint;
  /** Takes what the unit has reported, oldest first. */
  faults(): readonly DemoFault[];
  /** Polls until `done` holds. */
  waitUntil(done: () => boolean, what: string): void;
  /** What this unit can do beside plain DMA. */
  more(stage: DemoStage): void;
}

/** Takes the results of a unit's steps. */
export interface DemoStage {
  say(line: string): void;
  fail(text: string): never;
  /** A fault that was provoked came as it must. */
  countFault(): void;
  /** Fails when the unit has reported a fault. */
  noFaults(): void;
}
