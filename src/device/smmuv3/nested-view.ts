/** What hardware that nests has to know of an SMMUv3 guest, and what it reports. IHI 0070 §5.2, §7.3. */
import { EVENT } from '../../spec/smmuv3/events.js';
import { type ForwardedFault, type NestedView, STREAM } from '../nested-view.js';
import type { Control } from './control.js';
import type { EventQueue } from './event-queue.js';
import { Fault, OK } from './fault.js';
import type { Lookup } from './lookup.js';

/** Words of an STE that a host has to know. */
const STE_WORDS = 4;

export class SmmuNestedView implements NestedView {
  readonly format = 'smmuv3';
  private readonly looked = new Fault();

  constructor(
    private readonly lookup: Lookup,
    private readonly control: Control,
    private readonly events: EventQueue,
  ) {}

  stream(_rid: number): number {
    if (this.control.enabled) return STREAM.TABLES;
    return this.control.aborting ? STREAM.BLOCKED : STREAM.IDENTITY;
  }

  ste(rid: number, out: Uint32Array): boolean {
    if (this.lookup.streamEntry(rid, false, this.looked) !== OK) return false;
    for (let index = 0; index < STE_WORDS; index++) out[index] = this.lookup.lastStreamEntry[index];
    return true;
  }

  entry(): void {
    // The guest's CD table is handed over as it is.
  }

  nextPasid(): number {
    return -1;
  }

  /** The SubstreamID is the guest's already: its CD table is its own. */
  fault({ rid, record }: ForwardedFault): void {
    const words = record.slice();
    words[1] = rid;
    this.events.forward(words);
  }

  noSuchPasid(rid: number, pasid: number): void {
    const words = new Uint32Array(8);
    words[0] = EVENT.C_BAD_SUBSTREAMID | (pasid << 12);
    words[1] = rid;
    this.events.forward(words);
  }
}
