/** What a simulated VM is asked for, and what it says it did. */

export interface SimDemoOptions {
  /** Name of the VM in logs and dumps. */
  readonly name?: string;
  /** Bytes moved by each DMA test. Default 4 MiB. */
  readonly bytes?: number;
  /** The model's options. */
  readonly options?: Readonly<Record<string, string>>;
  /** Default `vtd`. */
  readonly model?: 'vtd' | 'smmuv3';
  /** VT-d: `both` when left out; scalable mode is left out when the unit does not have it. */
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
  /** Faults that the story provoked and read back. */
  expectedFaults: number;
  /** Faults that nobody provoked: 0 when all is well. */
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

/** Something in the story did not come out as it must. */
export class SimDemoFailure extends Error {}
