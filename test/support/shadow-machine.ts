import { pageAt, pageOf } from '../../src/base/page.js';
import type { ShadowEvent } from '../../src/events/viommu-events.js';
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import { Audit } from '../../src/shadow/audit/audit.js';
import { SmmuCommands } from '../../src/shadow/audit/smmuv3.js';
import { VtdCommands } from '../../src/shadow/audit/vtd.js';
import { LAST_PAGE } from '../../src/shadow/pages.js';
import { Shadow } from '../../src/shadow/shadow.js';
import { SimContainer } from '../../src/sim/container.js';
import { LocalMachine } from './local-machine.js';
import { heard } from './spoil.js';

/** What is left of a host's batch, or of a TRACK: its words, and what to do with the answer. */
interface Sent {
  readonly id: number;
  /** −1: a TRACK. */
  readonly device: number;
  readonly words: Uint32Array;
}

const TRACK = -1;
/** Words of a page of a TRACK, whose first bit says that it begins. */
const TRACK_WORDS = 2;
const BEGIN = 1;

/**
 * A model that is called directly, with devices whose mappings are shadowed. Batches reach the
 * hosts late: when the guest waits, or when `early` says so. With {@link trackStores} the guest's
 * stores to tracked pages are trapped, as a monitor does: from when a TRACK has reached it, and a
 * store ends when nothing is pending.
 */
export class ShadowMachine extends LocalMachine {
  readonly #early: () => boolean;
  readonly shadow: Shadow;
  /**
   * Looks on from outside: it hears what the guest writes, and nothing of what the model announces.
   */
  audit: Audit;
  /**
   * Runs the audit. A test that counts the engine's reads keeps the audit's out of its count here.
   */
  uncounted: (look: () => void) => void = (look) => look();
  readonly shadowEvents: ShadowEvent[] = [];
  readonly hosts = new Map<number, SimContainer>();
  /** Every batch that was sent, for tests that look at them. */
  readonly batches: Sent[] = [];
  /** Pages whose stores are trapped now. */
  readonly tracked = new Set<number>();
  /** Stores that were trapped. */
  trapped = 0;
  /** Called when something has reached a host or the monitor. Other processors may run then. */
  onDelivery: () => void = () => {};
  readonly #sent: Sent[] = [];
  /** Trapped stores that the shadow has not seen: address and bytes. */
  readonly #notices: number[] = [];
  /** Stores come from another processor, which does not wait for them. */
  #otherProcessor = false;
  #changed = false;

  constructor(
    memory: GuestMemory,
    options: Readonly<Record<string, string>> = {},
    early: () => boolean = () => true,
    model = 'vtd',
  ) {
    super(memory, options, model);
    this.#early = early;
    this.shadow = new Shadow(memory, (event) => this.shadowEvents.push(event));
    const Commands = model === 'vtd' ? VtdCommands : SmmuCommands;
    this.audit = new Audit(this.shadow, this.model, memory, new Commands(this.registers, memory));
    this.outputs.holdAcks = true;
    this.outputs.pendingAcks = () => this.shadow.pending;
    this.outputs.invalidate = (scope) => {
      this.outputs.scopes.push({ ...scope });
      this.#changed = true;
      const relevant = heard(scope);
      if (relevant !== undefined) this.shadow.markStale(relevant, this.model);
    };
  }

  addRam(region: number, gpa: number, bytes: number): void {
    this.shadow.ramAdded(region, gpa, bytes, false, this.model);
    this.settle();
  }

  removeRam(region: number): void {
    this.shadow.ramRemoved(region, this.model);
    this.settle();
  }

  /** A device whose host takes operations from input page `first` on. */
  addHost(device: number, rid: number, first = 0): SimContainer {
    const host = new SimContainer();
    this.hosts.set(device, host);
    this.shadow.attach(device, rid, this.model);
    this.shadow.listen(device, first, LAST_PAGE);
    this.settle();
    return host;
  }

  removeHost(device: number): void {
    this.hosts.delete(device);
    this.shadow.detach(device);
    this.settle();
  }

  /** The guest does not say when it maps something. Before the first device. */
  trackStores(): void {
    this.shadow.track();
    this.ram.afterStore = (gpa, bytes) => {
      if (!this.tracked.has(pageAt(gpa))) return;
      this.trapped++;
      this.#notices.push(gpa, bytes);
      if (this.#otherProcessor) return;
      this.settle();
      this.drain();
    };
  }

  /**
   * What another processor does while something else is in flight: its stores do not hold that up.
   */
  asOtherProcessor(work: () => void): void {
    const before = this.#otherProcessor;
    this.#otherProcessor = true;
    work();
    this.#otherProcessor = before;
  }

  /** The monitor's traps on pages [first, last] are gone with their memory. */
  forgetTracked(first: number, last: number): void {
    for (const page of this.tracked) if (page >= first && page <= last) this.tracked.delete(page);
  }

  override writeRegister(offset: number, size: number, value: bigint): void {
    const [lo, hi] = [Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn)];
    this.uncounted(() => this.audit.asking(offset, size, lo, hi));
    super.writeRegister(offset, size, value);
    this.settle();
  }

  override idle(): boolean {
    return this.deliver();
  }

  override ack(): boolean {
    return this.drain();
  }

  /** What the session does after every input. */
  settle(): void {
    for (let round = 0; round < 10_000; round++) {
      this.#announceStores();
      this.shadow.work();
      for (let track = this.shadow.takeTrack(); track !== undefined; track = this.shadow.takeTrack()) {
        this.#sent.push({ id: track.id, device: TRACK, words: track.words });
      }
      for (let batch = this.shadow.take(); batch !== undefined; batch = this.shadow.take()) {
        const sent = { id: batch.id, device: batch.space.device, words: batch.words };
        this.#sent.push(sent);
        this.batches.push(sent);
      }
      if (this.#sent.length > 0 && this.#early()) {
        this.#one();
        continue;
      }
      if (this.#notices.length > 0) continue;
      if (!this.#changed || this.shadow.pending > 0) return;
      this.#changed = false;
      this.uncounted(() => this.audit.completing());
      this.model.acknowledged();
    }
    throw new Error('the shadow never comes to rest');
  }

  /** The oldest batch reaches its host. */
  deliver(): boolean {
    const some = this.#one();
    if (some) this.settle();
    return some;
  }

  /** All do. */
  drain(): boolean {
    if (this.#notices.length > 0) this.settle();
    const some = this.#sent.length > 0;
    for (let round = 0; this.deliver(); round++) {
      if (round > 100_000) throw new Error('batches without end');
    }
    return some;
  }

  #one(): boolean {
    const next = this.#sent.shift();
    if (next === undefined) return false;
    if (next.device === TRACK) this.#track(next);
    else this.#run(next);
    this.onDelivery();
    return true;
  }

  #run(next: Sent): void {
    this.shadow.answered(next.id, this.hosts.get(next.device)?.run(next.words) ?? []);
  }

  #track({ id, words }: Sent): void {
    for (let at = 0; at < words.length; at += TRACK_WORDS) {
      const page = pageOf(words[at], words[at + 1]);
      if ((words[at] & BEGIN) !== 0) this.tracked.add(page);
      else this.tracked.delete(page);
    }
    this.shadow.trackAnswered(id);
  }

  /** Reports trapped stores, in order. */
  #announceStores(): void {
    for (let at = 0; at < this.#notices.length; at += 2) {
      this.shadow.stored(this.#notices[at] as number, this.#notices[at + 1] as number);
      this.audit.stored();
    }
    this.#notices.length = 0;
  }
}
