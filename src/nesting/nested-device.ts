/** A device whose guest tables hardware walks. */
import type { HostDevice } from '../host/port.js';
import { Binding } from './binding.js';

export class NestedDevice {
  /** Requests without PASID. */
  readonly own: Binding;
  /** Requests with one, where the host binds PASIDs one by one. */
  readonly pasids = new Map<number, Binding>();
  /** Everything about it has to be looked at again. */
  stale = true;
  /** PASIDs from here on have to be looked for; −1: no search is under way. */
  scanAt = -1;
  /** SMMUv3: the host has not taken its StreamID, so nothing that names it can be asked for. */
  unknown = false;
  /**
   * Number of the last StreamID that the host was asked to take: answers about earlier ones are
   * void.
   */
  identity = 0;
  /** SMMUv3: its context descriptors have to be dropped. */
  contextsStale = false;
  /** SMMUv3: the host did not drop them, so nothing of it is bound until it has. */
  unclean = false;
  /** SMMUv3: VMID that the guest's stage 1 is under, while it is bound; −1: none. */
  vmid = -1;
  /**
   * SMMUv3: refused because of another device's VMID; to be looked at again when that one's has
   * changed.
   */
  waits = false;
  /** An event has said that something of it can't be nested. */
  reported = false;

  constructor(
    readonly device: HostDevice,
    public rid: number,
  ) {
    this.own = new Binding(device, -1);
  }

  *bindings(): Iterable<Binding> {
    yield this.own;
    yield* this.pasids.values();
  }
}
