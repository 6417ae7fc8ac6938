/**
 * VT-d: the host owns the PASID table, and each guest first stage is bound to one PASID of it;
 * requests without PASID are those of the entry that RID_PASID names. ARCHITECTURE.md, Nesting
 */
import { ANY } from '../base/ids.js';
import type { InvalidateScope } from '../device/iommu.js';
import {
  ENTRY,
  type NestedView,
  newPasidEntryView,
  type PasidEntryView,
  STREAM,
} from '../device/nested-view.js';
import { ALL_PAGES } from '../host/port.js';
import { Binding, type Bindings, takes } from './binding.js';
import type { ForwardQueue } from './forward-queue.js';
import type { NestingEvent } from './host-operations.js';
import type { NestedDevice } from './nested-device.js';

/**
 * PASIDs of one device that are bound at a time; a guest that sets up more has the others refused.
 */
const MOST_PASIDS = 1 << 16;
/** Largest block whose pages are counted. */
const MOST_LOG2 = 43;

export class VtdNesting {
  readonly #bindings: Bindings;
  readonly #queue: ForwardQueue;
  readonly #event: (event: NestingEvent) => void;
  readonly #entry = newPasidEntryView();

  constructor(bindings: Bindings, queue: ForwardQueue, event: (event: NestingEvent) => void) {
    this.#bindings = bindings;
    this.#queue = queue;
    this.#event = event;
  }

  /**
   * Binds a device as its structures are now; PASIDs that are not known yet are found by
   * {@link scan}.
   */
  resync(device: NestedDevice, view: NestedView): void {
    const state = view.stream(device.rid);
    if (state === STREAM.TABLES) {
      this.#check(device, device.own, view);
      for (const binding of device.pasids.values()) this.#check(device, binding, view);
      device.scanAt = 0;
      return;
    }
    device.scanAt = -1;
    for (const binding of device.pasids.values()) this.#unbind(device, binding);
    if (state === STREAM.IDENTITY) this.#bindings.toParent(device.own);
    else this.#bindings.toNothing(device.own);
  }

  /**
   * Goes on looking for PASIDs. Returns how much of `budget` is left; 0 when there is more to do.
   */
  scan(device: NestedDevice, view: NestedView, budget: number): number {
    let left = budget;
    while (device.scanAt >= 0) {
      if (left <= 0) return 0;
      const found = view.nextPasid(device.rid, device.scanAt, left);
      if (found < -1) {
        device.scanAt = -2 - found;
        return 0;
      }
      if (found === -1) {
        device.scanAt = -1;
        break;
      }
      left -= 1 + found - device.scanAt;
      device.scanAt = found + 1;
      this.#found(device, found, view);
    }
    return Math.max(1, left);
  }

  /** Structures have changed: what the scope names is looked at again. */
  changed(device: NestedDevice, scope: InvalidateScope, view: NestedView): void {
    if (scope.sub === ANY) {
      if (scope.rid === ANY || scope.rid === device.rid) device.stale = true;
      return;
    }
    if (view.stream(device.rid) !== STREAM.TABLES) return;
    // Which entry RID_PASID names is in the structures, too.
    this.#check(device, device.own, view);
    this.#found(device, scope.sub, view);
  }

  #found(device: NestedDevice, pasid: number, view: NestedView): void {
    let binding = device.pasids.get(pasid);
    if (binding === undefined) {
      if (device.pasids.size >= MOST_PASIDS) {
        this.#tell(device, pasid, `more than ${MOST_PASIDS} PASIDs`);
        return;
      }
      binding = new Binding(device.device, pasid);
      device.pasids.set(pasid, binding);
    }
    this.#check(device, binding, view);
  }

  /** Makes a binding what the guest's entry says. */
  #check(device: NestedDevice, binding: Binding, view: NestedView): void {
    const entry = this.#entry;
    view.entry(device.rid, binding.pasid, entry);
    switch (entry.kind) {
      case ENTRY.FIRST_STAGE:
        this.#bind(binding, entry);
        return;
      case ENTRY.PASS_THROUGH:
        this.#bindings.toParent(binding);
        return;
      case ENTRY.SECOND_STAGE:
        this.#tell(device, binding.pasid, 'a second stage of the guest');
        this.#unbind(device, binding);
        return;
      default:
        this.#unbind(device, binding);
    }
  }

  #bind(binding: Binding, entry: PasidEntryView): void {
    const others = this.#bindings.toTables(binding, {
      format: 'vtd',
      root: entry.root,
      levels: entry.levels === 5 ? 5 : 4,
      writeProtect: false,
      extendedAccessed: entry.extendedAccessed,
      supervisor: false,
    });
    if (others) binding.renew(entry.did, entry.tag);
    // The host's own tags stay the same: it would go on with what the guest's unit finds no more
    // (§6.2.1).
    else if (binding.rename(entry.did, entry.tag)) this.#queue.whole(binding);
  }

  #unbind(device: NestedDevice, binding: Binding): void {
    this.#bindings.toNothing(binding);
    if (binding.pasid >= 0) device.pasids.delete(binding.pasid);
  }

  /** Adds what the host has to drop of one device for a scope. */
  forward(device: NestedDevice, scope: InvalidateScope): void {
    // A PASID-cache invalidation says nothing of what the tables translate to; another one follows
    // for that.
    if (scope.structures === true && scope.sub !== ANY) return;
    if (scope.rid !== ANY && scope.rid !== device.rid) return;
    this.#forwardOne(device.own, scope);
    if (scope.sub === ANY) {
      for (const binding of device.pasids.values()) this.#forwardOne(binding, scope);
      return;
    }
    // Entries of PASIDs are tagged with these.
    const binding = device.pasids.get(scope.sub);
    if (binding !== undefined) this.#forwardOne(binding, scope);
  }

  #forwardOne(binding: Binding, scope: InvalidateScope): void {
    if (!binding.named(scope.space, scope.sub) || !takes(binding)) return;
    // An address without PASID says nothing of a first stage: all of it may have changed
    // (§6.5.2.3).
    const whole = scope.log2Size > MOST_LOG2 || scope.sub === ANY;
    this.#queue.range(binding, scope.lo, scope.hi, whole ? ALL_PAGES : 2 ** (scope.log2Size - 12));
  }

  #tell(device: NestedDevice, pasid: number, reason: string): void {
    if (device.reported) return;
    device.reported = true;
    this.#event({ kind: 'notNestable', device: device.device, rid: device.rid, pasid, reason });
  }
}
