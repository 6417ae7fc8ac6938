import type { ShadowEvent } from '../../src/events/events.js';
import type { GuestMemory } from '../../src/memory/port.js';
import { LAST_PAGE } from '../../src/shadow/pages.js';
import { Shadow } from '../../src/shadow/shadow.js';
import { SimHost } from '../../src/sim/host.js';
import { LocalMachine } from './local-machine.js';

export const NO_PASID = -1;

/** What is left of a host's batch: its words, and what to do with the answer. */
interface Sent {
  readonly id: number;
  readonly device: number;
  readonly words: Uint32Array;
}

/**
 * A model that is called directly, with devices whose mappings are shadowed. Batches reach the hosts late: when the guest
 * waits, or when `early` says so.
 */
export class ShadowMachine extends LocalMachine {
  readonly shadow: Shadow;
  readonly shadowEvents: ShadowEvent[] = [];
  readonly hosts = new Map<number, SimHost>();
  /** Every batch that was sent, for tests that look at them. */
  readonly batches: Sent[] = [];
  readonly #sent: Sent[] = [];
  #touched = false;

  constructor(
    memory: GuestMemory,
    options: Readonly<Record<string, string>> = {},
    private readonly early: () => boolean = () => true,
    model = 'vtd',
  ) {
    super(memory, options, model);
    this.shadow = new Shadow(memory, (event) => this.shadowEvents.push(event));
    this.outputs.holdAcks = true;
    this.outputs.pendingAcks = () => this.shadow.pending;
    this.outputs.invalidate = (scope) => {
      this.outputs.scopes.push({ ...scope });
      this.#touched = true;
      this.shadow.touch(scope, this.model);
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
  addHost(device: number, rid: number, first = 0): SimHost {
    const host = new SimHost();
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

  override writeRegister(offset: number, size: number, value: bigint): void {
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
      this.shadow.work();
      for (let batch = this.shadow.take(); batch !== undefined; batch = this.shadow.take()) {
        const sent = { id: batch.id, device: batch.space.device, words: batch.words };
        this.#sent.push(sent);
        this.batches.push(sent);
      }
      if (this.#sent.length > 0 && this.early()) {
        this.#one();
        continue;
      }
      if (!this.#touched || this.shadow.pending > 0) return;
      this.#touched = false;
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
    const some = this.#sent.length > 0;
    for (let round = 0; this.deliver(); round++) {
      if (round > 100_000) throw new Error('batches without end');
    }
    return some;
  }

  #one(): boolean {
    const next = this.#sent.shift();
    if (next === undefined) return false;
    this.shadow.answered(next.id, this.hosts.get(next.device)?.run(next.words) ?? []);
    return true;
  }
}
