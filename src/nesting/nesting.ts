/**
 * Nesting: hardware walks the guest's own stage 1 on top of a host stage 2 (DESIGN §7). Follows what the guest sets up,
 * forwards its invalidations in batches, and gives it the faults and page requests of its devices.
 *
 * The model tells what the guest invalidates (`touch`); `work` looks at what has changed and asks the host for what makes it
 * so, in order: bindings first, then what caches have to drop. Until `pending` is 0 nothing that the guest waits for may
 * be called complete. Nothing here waits.
 */
import type { InvalidateScope, Iommu, PageRequest, TranslateResult } from '../device/iommu.js';
import { PAGE_RESPONSE } from '../device/iommu.js';
import type { NestedView } from '../device/nested-view.js';
import {
  type HostDevice,
  type HostFault,
  type HostIommu,
  type HostPageRequest,
  Invalidations,
  type PasidRefusal,
} from '../host/port.js';
import { type Binding, Bindings } from './binding.js';
import { NestedFaults } from './faults.js';
import { ForwardQueue } from './forward-queue.js';
import { NestedDevice } from './nested-device.js';
import { HostOperations, type NestingEvent } from './operations.js';
import { NestParent, PARENT_SPACE } from './parent.js';
import { SmmuNesting } from './smmuv3.js';
import { VtdNesting } from './vtd.js';

/** What nesting needs of a model. */
export type NestedModel = Pick<Iommu, 'nested' | 'translate' | 'pageRequest'>;

/** What nesting has done. */
export interface NestingReport {
  /** Devices that are nested. */
  readonly devices: number;
  /** Operations that the host was asked for, and those that it refused. */
  readonly operations: number;
  readonly refused: number;
  readonly faultsForwarded: number;
  readonly faultsWithheld: number;
}

/** Invalidations that are collected one by one; more become a few that drop everything. */
const MOST_INVALIDATIONS = 1 << 14;
/** Entries of PASID tables that one call of {@link Nesting.work} looks at. */
const MOST_SCANNED = 1 << 16;

export class Nesting {
  readonly operations: HostOperations;
  readonly faults: NestedFaults;
  private readonly parent: NestParent;
  private readonly vtd: VtdNesting;
  private readonly smmu: SmmuNesting;
  private readonly bindings: Bindings;
  private readonly devices = new Map<HostDevice, NestedDevice>();
  private readonly queue = new ForwardQueue();
  private readonly list = new Invalidations();
  /** More has to be dropped than is in the queue. */
  private overflow = false;
  private readonly pageRequest: PageRequest = {
    rid: 0,
    pasid: 0,
    access: 0,
    lo: 0,
    hi: 0,
    group: 0,
    last: false,
  };

  /**
   * @param result to be used for translations; anybody's
   * @param settled is called when the host has done everything that was asked of it
   */
  constructor(
    private readonly host: HostIommu,
    private readonly model: () => NestedModel | undefined,
    result: TranslateResult,
    event: (event: NestingEvent) => void,
    settled: () => void,
  ) {
    this.operations = new HostOperations(event, settled);
    this.parent = new NestParent(host, this.operations);
    this.bindings = new Bindings(host, this.operations, (binding) => this.missed(binding));
    this.vtd = new VtdNesting(this.bindings, event);
    this.smmu = new SmmuNesting(this.bindings, event);
    this.faults = new NestedFaults(result);
    host.listen({
      fault: (fault) => this.hostFault(fault),
      refusedPasid: (refusal) => this.refusedPasid(refusal),
      pageRequest: (request) => this.hostPageRequest(request),
    });
  }

  /** More than 0 while hardware is not known to do what the guest has set up. */
  get pending(): number {
    return this.operations.pending + (this.unfinished ? 1 : 0);
  }

  private get unfinished(): boolean {
    if (this.overflow || this.queue.count > 0) return true;
    for (const { stale, scanAt } of this.devices.values()) if (stale || scanAt >= 0) return true;
    return false;
  }

  /** A device that the guest knows as `rid`. */
  attach(device: HostDevice, rid: number): void {
    this.parent.provide(device);
    const done = this.operations.begin('StreamID', device, -1);
    this.host.identify(device, rid, done);
    this.devices.set(device, new NestedDevice(device, rid));
  }

  /** The guest knows a device by another requester id. */
  renumber(device: HostDevice, rid: number): void {
    const found = this.devices.get(device);
    if (found === undefined) return;
    found.rid = rid;
    found.stale = true;
    this.host.identify(device, rid, this.operations.begin('StreamID', device, -1));
  }

  /** It goes: nothing of it stays bound. */
  detach(device: HostDevice): void {
    const found = this.devices.get(device);
    if (found === undefined) return;
    for (const binding of found.bindings()) this.bindings.toNothing(binding);
    this.devices.delete(device);
    if (this.devices.size === 0) this.parent.drop();
  }

  ramAdded(region: number, gpa: number, bytes: number, readonly: boolean): void {
    this.parent.ramAdded(region, gpa, bytes, readonly);
  }

  ramRemoved(region: number): void {
    this.parent.ramRemoved(region);
  }

  /** The guest invalidates. */
  touch(scope: InvalidateScope): void {
    const view = this.model()?.nested;
    if (view === undefined || this.devices.size === 0) return;
    for (const device of this.devices.values()) {
      if (scope.structures === true) this.policy(view).changed(device, scope, view);
      this.policy(view).forward(device, scope, this.queue);
    }
    if (view.format === 'smmuv3' && this.inForce) this.smmu.forwardTranslations(scope, this.queue);
    if (this.queue.count <= MOST_INVALIDATIONS) return;
    this.queue.clear();
    this.overflow = true;
  }

  /** A PASID is no longer the guest's: the host has detached what was bound to it. */
  forgetPasid(pasid: number): void {
    for (const device of this.devices.values()) device.pasids.delete(pasid);
  }

  /** Everything may have changed: reset, translation switched on or off. */
  touchAll(): void {
    for (const device of this.devices.values()) device.stale = true;
  }

  /** Asks the host for what makes hardware do as the guest has set up. A bounded amount of work; more remains while `pending`. */
  work(): void {
    const view = this.model()?.nested;
    if (view === undefined) return;
    let budget = MOST_SCANNED;
    for (const device of this.devices.values()) {
      if (device.stale) {
        device.stale = false;
        this.policy(view).resync(device, view);
      }
      if (budget > 0) budget = this.policy(view).scan(device, view, budget);
    }
    this.flush(view);
  }

  /** Sends what was collected. */
  private flush(view: NestedView): void {
    const { queue, list } = this;
    if (this.overflow) {
      this.overflow = false;
      queue.clear();
      for (const device of this.devices.values()) this.policy(view).forward(device, EVERYTHING, queue);
      if (view.format === 'smmuv3') this.smmu.forwardTranslations(EVERYTHING, queue);
    }
    if (queue.count === 0) return;
    queue.drain(list);
    // Without hardware that walks guest tables there is nothing to drop.
    if (view.format === 'smmuv3' && !this.inForce) return;
    if (list.count === 0) return;
    const done = this.operations.begin('invalidation', 0, -1, () => this.invalidationFailed());
    this.host.invalidate(PARENT_SPACE, list, done);
  }

  /**
   * Hardware may go on using what the guest has taken away: nothing may be bound any more. Then everything is bound anew,
   * which starts without old translations.
   */
  private invalidationFailed(): void {
    for (const device of this.devices.values()) {
      for (const binding of device.bindings()) this.bindings.toNothing(binding);
      device.pasids.clear();
      device.stale = true;
    }
    this.work();
  }

  /** A binding has come into force behind an invalidation. */
  private missed(binding: Binding): void {
    const device = this.devices.get(binding.device);
    if (device === undefined) return;
    if (this.model()?.nested?.format === 'vtd') this.queue.whole(binding);
    else this.smmu.forwardAll(device.rid, this.queue);
  }

  /** Hardware walks tables of some device. */
  private get inForce(): boolean {
    for (const { own } of this.devices.values()) if (own.inForce) return true;
    return false;
  }

  /** The model answers a group of page requests. */
  pageResponse(rid: number, pasid: number, group: number, code: number): void {
    for (const device of this.devices.values()) {
      if (device.rid === rid) this.host.respond(device.device, pasid, group, code);
    }
  }

  /** The end: what is bound goes with the guest's side of the host. */
  end(): void {
    for (const device of [...this.devices.keys()]) this.detach(device);
  }

  /** Numbers for reports. */
  get report(): NestingReport {
    return {
      devices: this.devices.size,
      operations: this.operations.count,
      refused: this.operations.refused,
      faultsForwarded: this.faults.forwarded,
      faultsWithheld: this.faults.withheld,
    };
  }

  private policy(view: NestedView): VtdNesting | SmmuNesting {
    return view.format === 'vtd' ? this.vtd : this.smmu;
  }

  private hostFault(fault: HostFault): void {
    const model = this.model();
    const device = this.devices.get(fault.device);
    if (model !== undefined && device !== undefined) this.faults.fault(fault, device.rid, model);
  }

  private refusedPasid(refusal: PasidRefusal): void {
    const model = this.model();
    const device = this.devices.get(refusal.device);
    if (model !== undefined && device !== undefined) this.faults.refusedPasid(refusal, device.rid, model);
  }

  private hostPageRequest({ device, pasid, access, lo, hi, group, last }: HostPageRequest): void {
    const model = this.model();
    const found = this.devices.get(device);
    if (model?.pageRequest === undefined || found === undefined) {
      if (last) this.host.respond(device, pasid, group, PAGE_RESPONSE.INVALID);
      return;
    }
    model.pageRequest(
      Object.assign(this.pageRequest, { rid: found.rid, pasid, access, lo, hi, group, last }),
    );
  }
}

const EVERYTHING: InvalidateScope = {
  space: 0xffffffff,
  sub: 0xffffffff,
  rid: 0xffffffff,
  pasid: 0xffffffff,
  lo: 0,
  hi: 0,
  log2Size: 64,
};
