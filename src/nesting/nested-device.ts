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
  /** Observers have been told that something of it can't be nested. */
  told = false;

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
