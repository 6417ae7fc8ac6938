/**
 * What became of a transaction that was not translated. Filled by lookups and walks; one object is
 * reused.
 */
import { CLASS } from '../../spec/smmuv3/events.js';

/** Outcomes of lookups and translations; other values are event numbers (IHI 0070 §7.3). */
export const OK = 0;
/** Terminated without an event: STE.Config 0b0xx, GBPA.ABORT. */
export const ABORTED = 0x100;

export class Fault {
  /** Event number, {@link OK} or {@link ABORTED}. */
  event: number = OK;
  /** One of CLASS, where the event has one. */
  class: number = CLASS.IN;
  /** Stage 2 made the fault. */
  s2 = false;
  /** A table was to be read (F_PERMISSION with CLASS TT). */
  tableRead = false;
  /** Intermediate address for stage 2. */
  ipaLo = 0;
  ipaHi = 0;
  /** Physical address of a fetch that failed. */
  fetchAddress = 0;
  /** False when CD.R or STE.S2R keep the event from being recorded. */
  recorded = true;
  /** CD.S or STE.S2S of the stage that faulted: a transaction that can wait is stalled. */
  stalls = false;
  /** STE.MEV: equal events may be merged. */
  merge = false;

  /** Nothing has happened. */
  clear(): void {
    this.event = OK;
    this.class = CLASS.IN;
    this.s2 = false;
    this.tableRead = false;
    this.ipaLo = 0;
    this.ipaHi = 0;
    this.fetchAddress = 0;
    this.recorded = true;
    this.stalls = false;
    this.merge = false;
  }

  /**
   * Says how the stage that faulted is configured: R and S of a CD, or S2R and S2S of an STE. A
   * stage that stalls records its faults whatever R says. §5.5
   */
  configured(recorded: boolean, stalls: boolean): void {
    this.recorded = recorded || stalls;
    this.stalls = stalls;
  }

  /** Sets the event and returns it. */
  raise(event: number): number {
    this.event = event;
    return event;
  }

  /** The same for a fetch that failed at a physical address. */
  fetch(event: number, address: number): number {
    this.fetchAddress = address;
    return this.raise(event);
  }
}
