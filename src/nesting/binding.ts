/** What one endpoint (a device, and a PASID of it or none) goes through on the host, as far as it was asked for. */
import type { HostDevice, HostIommu, NestedTable } from '../host/port.js';
import type { HostOperations } from './operations.js';
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

export class Binding {
  bound: number = BOUND.NOTHING;
  table: NestedTable | undefined;
  /** The host says that it is so. Before that it takes no invalidations for it. */
  inForce = false;
  /** The guest has invalidated meanwhile: hardware may already have begun to use the tables. */
  missed = false;
  /** VT-d: what invalidations of the guest name. */
  did = -1;
  tag = -1;

  constructor(
    readonly device: HostDevice,
    /** −1: requests without PASID. */
    readonly pasid: number,
  ) {}
}

export class Bindings {
  constructor(
    private readonly host: HostIommu,
    private readonly operations: HostOperations,
    /** Takes bindings that are in force now, and of which everything has to be invalidated. */
    private readonly missed: (binding: Binding) => void,
  ) {}

  /** Guest tables, or others than before. */
  toTables(binding: Binding, table: NestedTable): void {
    if (binding.bound === BOUND.TABLES && binding.table !== undefined && same(binding.table, table)) return;
    binding.bound = BOUND.TABLES;
    binding.table = table;
    binding.inForce = false;
    binding.missed = false;
    const { device, pasid } = binding;
    const refused = (): void => this.refused(binding, table);
    const done = this.operations.begin('guest tables', device, pasid, refused, () => {
      if (binding.table !== table) return;
      binding.inForce = true;
      if (binding.missed) this.missed(binding);
    });
    this.host.attachNested(device, pasid, PARENT_SPACE, table, done);
  }

  toParent(binding: Binding): void {
    if (binding.bound === BOUND.PARENT) return;
    binding.bound = BOUND.PARENT;
    binding.table = undefined;
    binding.inForce = false;
    const { device, pasid } = binding;
    const done = this.operations.begin('guest memory', device, pasid, () => this.refused(binding, undefined));
    this.host.attach(device, pasid, PARENT_SPACE, done);
  }

  toNothing(binding: Binding): void {
    if (binding.bound === BOUND.NOTHING) return;
    binding.bound = BOUND.NOTHING;
    binding.table = undefined;
    binding.inForce = false;
    const { device, pasid } = binding;
    this.host.detach(device, pasid, this.operations.detaching(device, pasid));
  }

  /** The host kept what was there before: nothing may go through it any more, since the guest has moved on. */
  private refused(binding: Binding, table: NestedTable | undefined): void {
    if (binding.table !== table) return;
    binding.bound = BOUND.NOTHING;
    binding.table = undefined;
    const { device, pasid } = binding;
    this.host.detach(device, pasid, this.operations.detaching(device, pasid));
  }
}

/** True when the host takes invalidations for a binding now; if it will soon, one is not forgotten. */
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
