/** What every model counts. */

/** Counters every model keeps; plain numbers, read by reports and metrics. */
export interface ModelCounters {
  translations: number;
  /** Translations answered from the model's own IOTLB. */
  iotlbHits: number;
  walks: number;
  faults: number;
  /** Faults that found no free record. */
  faultsDropped: number;
  commands: number;
  invalidations: number;
  interrupts: number;
  /** Interrupt requests that a table entry remapped, and those that were blocked. */
  interruptsRemapped: number;
  interruptsBlocked: number;
}

/** Counters as they start. */
export function zeroCounters(): ModelCounters {
  return {
    translations: 0,
    iotlbHits: 0,
    walks: 0,
    faults: 0,
    faultsDropped: 0,
    commands: 0,
    invalidations: 0,
    interrupts: 0,
    interruptsRemapped: 0,
    interruptsBlocked: 0,
  };
}
