/**
 * Domain-ids of guest tables. VT-d caches first-stage translations by domain-id and PASID (§6.2),
 * so guest tables on the same second stage can share an id where their PASIDs differ: in one
 * function they do, because it has one PASID table. So each function has one id on each nest
 * parent, and 16 bits are no limit for PASIDs.
 */
import { HostError } from '../host-errors.js';
import type { PagingDomain } from './host-domain.js';
import { HostTags } from './host-domain.js';

interface SharedId {
  readonly did: number;
  users: number;
}

export class DomainIds {
  /** Domain-ID 0 is reserved for caching mode (§6.1). */
  readonly #tags = new HostTags(1, 2 ** 16);
  /** By nest parent, then by requester id. */
  readonly #shared = new Map<PagingDomain, Map<number, SharedId>>();

  get live(): number {
    return this.#tags.live;
  }

  /** An id of its own. Throws {@link HostError} NO_TABLE_MEMORY. */
  take(): number {
    const did = this.#tags.take();
    if (did < 0) throw new HostError('NO_TABLE_MEMORY', 'no domain-id');
    return did;
  }

  give(did: number): void {
    this.#tags.give(did);
  }

  /**
   * One more PASID of a function is nested on `parent`: the id for it. Throws {@link HostError}
   * NO_TABLE_MEMORY.
   */
  share(parent: PagingDomain, rid: number): number {
    let functions = this.#shared.get(parent);
    if (functions === undefined) {
      functions = new Map();
      this.#shared.set(parent, functions);
    }
    let id = functions.get(rid);
    if (id === undefined) {
      id = { did: this.take(), users: 0 };
      functions.set(rid, id);
    }
    id.users++;
    return id.did;
  }

  /** The id that a function's PASIDs have on `parent`; −1: none of them is nested there. */
  of(parent: PagingDomain, rid: number): number {
    return this.#shared.get(parent)?.get(rid)?.did ?? -1;
  }

  /** One less. True: it was the last, and the id is to be invalidated and {@link give}n back. */
  unshare(parent: PagingDomain, rid: number): boolean {
    const functions = this.#shared.get(parent);
    const id = functions?.get(rid);
    if (functions === undefined || id === undefined || --id.users > 0) return false;
    functions.delete(rid);
    if (functions.size === 0) this.#shared.delete(parent);
    return true;
  }

  /** Ids of everything that is nested on `parent`. */
  *on(parent: PagingDomain): Generator<number> {
    for (const { did } of this.#shared.get(parent)?.values() ?? []) yield did;
  }
}
