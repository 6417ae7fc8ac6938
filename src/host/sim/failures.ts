/** Failures on demand: the nth operation of a kind fails, or invalidations get lost. */
import { HostError, type HostErrorName } from '../host-errors.js';

type FailureKind = 'map' | 'unmap' | 'attach' | 'invalidate' | 'pasid';

interface Armed {
  after: number;
  readonly code: HostErrorName;
}

export class Failures {
  /** The kernel forgets to invalidate after unmapping: what that does must be seen. */
  forgetInvalidations = false;
  readonly #armed = new Map<FailureKind, Armed>();

  /** The operation of this kind after the next `after` ones fails, once. */
  arm(kind: FailureKind, after = 0, code: HostErrorName = 'FAILED'): void {
    this.#armed.set(kind, { after, code });
  }

  /** Throws when it is time. */
  check(kind: FailureKind): void {
    const found = this.#armed.get(kind);
    if (found === undefined || found.after-- > 0) return;
    this.#armed.delete(kind);
    throw new HostError(found.code, `injected into ${kind}`);
  }
}
