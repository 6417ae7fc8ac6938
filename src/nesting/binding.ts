/**
 * What one endpoint (a device with a PASID, or without one) is bound to on the host, as far as that
 * was requested.
 */
import { ANY } from '../base/ids.js';
import type { HostDevice, HostIommu, NestedTable } from '../host/port.js';
import type { HostOperations } from './host-operations.js';
import { PARENT_SPACE } from './parent.js';

/** What an endpoint is bound to. */
export const BOUND = {
  /** Nothing: its requests are refused. */
  NOTHING: 0,
  /** The nest parent alone: guest-physical addresses. */
  PARENT: 1,
  /** Guest tables on top of it. */
  TABLES: 2,
} as const;

/** Names of an entry that are remembered one by one. */
const MOST_NAMES = 8;

export class Binding {
  bound: number = BOUND.NOTHING;
  table: NestedTable | undefined;
  /** Number of the newest request. Answers to older ones are void. */
  asked = 0;
  /** The host has confirmed it. Before that it takes no invalidations for the endpoint. */
  inForce = false;
  /** The guest has invalidated before the host confirmed: hardware may already use the tables. */
  missed = false;
  /** VT-d: domain-id and PASID of the guest's entry, which its invalidations name. */
  #did = -1;
  #tag = -1;
  /**
   * Earlier pairs, since these tables are bound. The guest's own unit may hold entries under them.
   */
  readonly #former: number[] = [];
  #anyName = false;

  constructor(
    readonly device: HostDevice,
    /** −1: requests without PASID. */
    readonly pasid: number,
  ) {}

  /**
   * Takes the entry's present name. True: it had another one, and nothing cached under that is
   * valid any more.
   */
  rename(did: number, tag: number): boolean {
    if (did === this.#did && tag === this.#tag) return false;
    if (this.#former.length < 2 * MOST_NAMES) this.#former.push(this.#did, this.#tag);
    else this.#anyName = true;
    this.#did = did;
    this.#tag = tag;
    return true;
  }

  /** Other tables: the host has dropped what it held of those before. */
  renew(did: number, tag: number): void {
    this.#did = did;
    this.#tag = tag;
    this.#former.length = 0;
    this.#anyName = false;
  }

  /** An invalidation of these concerns it; {@link ANY} is every one. */
  named(did: number, tag: number): boolean {
    if (this.#anyName || matches(did, tag, this.#did, this.#tag)) return true;
    const former = this.#former;
    for (let at = 0; at < former.length; at += 2) {
      if (matches(did, tag, former[at], former[at + 1])) return true;
    }
    return false;
  }
}

function matches(did: number, tag: number, ownDid: number, ownTag: number): boolean {
  return (did === ANY || did === ownDid) && (tag === ANY || tag === ownTag);
}

export class Bindings {
  readonly #host: HostIommu;
  readonly #operations: HostOperations;
  /** Takes bindings that have come into force and of which everything has to be invalidated. */
  readonly #missed: (binding: Binding) => void;
  constructor(host: HostIommu, operations: HostOperations, missed: (binding: Binding) => void) {
    this.#host = host;
    this.#operations = operations;
    this.#missed = missed;
  }

  /** Binds guest tables. False: they are bound already. */
  toTables(binding: Binding, table: NestedTable): boolean {
    if (binding.bound === BOUND.TABLES && binding.table !== undefined && same(binding.table, table)) {
      return false;
    }
    binding.bound = BOUND.TABLES;
    binding.table = table;
    binding.inForce = false;
    binding.missed = false;
    const { device, pasid } = binding;
    const asked = ++binding.asked;
    const refused = (): void => this.#refused(binding, asked);
    const done = this.#operations.begin('guest tables', device, pasid, refused, () => {
      if (binding.asked !== asked) return;
      binding.inForce = true;
      if (binding.missed) this.#missed(binding);
    });
    this.#host.attachNested(device, pasid, PARENT_SPACE, table, done);
    return true;
  }

  toParent(binding: Binding): void {
    if (binding.bound === BOUND.PARENT) return;
    binding.bound = BOUND.PARENT;
    binding.table = undefined;
    binding.inForce = false;
    const { device, pasid } = binding;
    const asked = ++binding.asked;
    const done = this.#operations.begin('guest memory', device, pasid, () => this.#refused(binding, asked));
    this.#host.attach(device, pasid, PARENT_SPACE, done);
  }

  toNothing(binding: Binding): void {
    if (binding.bound === BOUND.NOTHING) return;
    this.#detach(binding);
  }

  /** The host kept the former binding. It is taken down, since the guest has changed its tables. */
  #refused(binding: Binding, asked: number): void {
    if (binding.asked === asked) this.#detach(binding);
  }

  #detach(binding: Binding): void {
    binding.bound = BOUND.NOTHING;
    binding.table = undefined;
    binding.inForce = false;
    binding.asked++;
    const { device, pasid } = binding;
    this.#host.detach(device, pasid, this.#operations.detaching(device, pasid));
  }
}

/**
 * VT-d: true when the host takes invalidations for a binding now; if it will soon, one is not
 * forgotten.
 */
export function takes(binding: Binding): boolean {
  if (binding.bound === BOUND.TABLES && !binding.inForce) binding.missed = true;
  return binding.inForce;
}

function same(a: NestedTable, b: NestedTable): boolean {
  if (a.format === 'smmuv3') {
    return b.format === 'smmuv3' && a.ste.every((word, index) => word === b.ste[index]);
  }
  return (
    b.format === 'vtd' &&
    a.root === b.root &&
    a.levels === b.levels &&
    a.extendedAccessed === b.extendedAccessed &&
    a.writeProtect === b.writeProtect &&
    a.supervisor === b.supervisor
  );
}
