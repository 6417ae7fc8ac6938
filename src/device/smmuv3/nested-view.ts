/**
 * What hardware that nests has to know of an SMMUv3 guest, and what it reports. IHI 0070 §5.2,
 * §7.3.
 */
import { EVENT } from '../../spec/smmuv3/events.js';
import { STE } from '../../spec/smmuv3/structures.js';
import { type ForwardedFault, type NestedView, STREAM, type StreamEntryView } from '../nested-view.js';
import type { Control } from './control.js';
import type { EventQueue } from './event-queue.js';
import { Fault, OK } from './fault.js';
import type { SmmuLookup } from './lookup.js';

export class SmmuNestedView implements NestedView {
  readonly #lookup: SmmuLookup;
  readonly #control: Control;
  readonly #events: EventQueue;
  /** IDR0.S2P. Without stage 2 there are no VMIDs. */
  readonly #stage2: boolean;
  readonly format = 'smmuv3';
  readonly #looked = new Fault();

  constructor(lookup: SmmuLookup, control: Control, events: EventQueue, stage2: boolean) {
    this.#lookup = lookup;
    this.#control = control;
    this.#events = events;
    this.#stage2 = stage2;
  }

  stream(_rid: number): number {
    if (this.#control.enabled) return STREAM.TABLES;
    return this.#control.aborting ? STREAM.BLOCKED : STREAM.IDENTITY;
  }

  ste(rid: number, out: StreamEntryView): boolean {
    if (this.#lookup.streamEntry(rid, false, this.#looked) !== OK) return false;
    const ste = this.#lookup.lastStreamEntry;
    for (let index = 0; index < out.words.length; index++) out.words[index] = ste[index];
    out.vmid = this.#stage2 ? STE.get.S2VMID(ste) : 0;
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
    this.#events.forward(words);
  }

  noSuchPasid(rid: number, pasid: number): void {
    const words = new Uint32Array(8);
    words[0] = EVENT.C_BAD_SUBSTREAMID | (pasid << 12);
    words[1] = rid;
    this.#events.forward(words);
  }
}
