/** Options and results of a simulated VM. */

export interface SimDemoOptions {
  /** Name of the VM in logs and dumps. */
  readonly name?: string;
  /** Bytes moved by each DMA test. Default 4 MiB. */
  readonly bytes?: number;
  /** The model's options. */
  readonly options?: Readonly<Record<string, string>>;
  /** Default `vtd`. */
  readonly model?: 'vtd' | 'smmuv3';
  /** VT-d. Default: both. Scalable mode is skipped if the unit does not have it. */
  readonly modes?: readonly ('legacy' | 'scalable')[];
}

/** What the simulated VM did, in numbers. */
export interface SimReport {
  bytesMoved: number;
  /** Translations asked of the daemon: the misses of the VM's own IOTLB. */
  misses: number;
  hits: number;
  /** Invalidations that the daemon asked of the VM. */
  invalidations: number;
  /** Descriptors or commands that the driver put into the queue. */
  descriptors: number;
  interrupts: number;
  /** Faults that the demo provoked and read back. */
  expectedFaults: number;
  /** Faults that the demo did not provoke. There should be none. */
  unexpectedFaults: number;
  /** One line per thing tried. */
  readonly steps: string[];
}

export function emptyReport(): SimReport {
  return {
    bytesMoved: 0,
    misses: 0,
    hits: 0,
    invalidations: 0,
    descriptors: 0,
    interrupts: 0,
    expectedFaults: 0,
    unexpectedFaults: 0,
    steps: [],
  };
}

/** A step of the demo had a wrong result. */
export class SimDemoFailure extends Error {}
