/**
 * Nesting: hardware walks the guest's own stage 1 on top of a host stage 2 (ARCHITECTURE.md,
 * Nesting). Follows what the guest sets up, forwards its invalidations in batches, and gives it the
 * faults and page requests of its devices.
 *
 * The model tells what the guest invalidates ({@link Nesting.invalidated}); `work` looks at what
 * has changed and asks the host for what makes it so, in order: bindings first, then what caches
 * have to drop. Until `pending` is 0 nothing that the guest waits for may be called complete.
 * Nothing here waits.
 */
import type { InvalidateScope, Iommu, PageRequest, TranslateResult } from '../device/iommu.js';
import { EVERYTHING, PAGE_RESPONSE } from '../device/iommu.js';
import type { NestedView } from '../device/nested-view.js';
import {
  type HostDevice,
  type HostFault,
  HostInvalidations,
  type HostIommu,
  type HostPageRequest,
  type PasidRefusal,
} from '../host/port.js';
import { type Binding, Bindings } from './binding.js';
import { ForwardQueue } from './forward-queue.js';
import { HostOperations, type NestingEvent } from './host-operations.js';
import { NestedDevice } from './nested-device.js';
import { NestedFaults } from './nested-faults.js';
import { NestParent, PARENT_SPACE } from './parent.js';
import { SmmuNesting } from './smmuv3.js';
import { VtdNesting } from './vtd.js';

/** What nesting needs of a model. */
type NestedModel = Pick<Iommu, 'nested' | 'translate' | 'devices'>;

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
  readonly #host: HostIommu;
  readonly #model: () => NestedModel | undefined;
  readonly operations: HostOperations;
  readonly faults: NestedFaults;
  readonly #parent: NestParent;
  readonly #vtd: VtdNesting;
  readonly #smmu: SmmuNesting;
  readonly #bindings: Bindings;
  readonly #devices = new Map<HostDevice, NestedDevice>();
  readonly #queue = new ForwardQueue();
  readonly #list = new HostInvalidations();
  /** More has to be dropped than is in the queue. */
  #overflow = false;
  /**
   * SMMUv3: the host's TLB may hold what the guest has taken away, so nothing is bound until all of
   * it has gone.
   */
  #unclean = false;
  /** It is to be asked to. */
  #emptyWanted = false;
  /** That request is under way. */
  #emptying = false;
  readonly #pageRequest: PageRequest = {
    rid: 0,
    pasid: 0,
    access: 0,
    lo: 0,
    hi: 0,
    group: 0,
    last: false,
  };

  /**
   * @param result scratch space for translations
   * @param settled is called when the host has done everything that was asked of it
   */
  constructor(
    host: HostIommu,
    model: () => NestedModel | undefined,
    result: TranslateResult,
    event: (event: NestingEvent) => void,
    settled: () => void,
  ) {
    this.#host = host;
    this.#model = model;
    this.operations = new HostOperations(event, settled);
    this.#parent = new NestParent(host, this.operations);
    this.#bindings = new Bindings(host, this.operations, (binding) => this.#missed(binding));
    this.#vtd = new VtdNesting(this.#bindings, this.#queue, event);
    const devices = (): Iterable<NestedDevice> => this.#devices.values();
    this.#smmu = new SmmuNesting(this.#bindings, devices, () => this.#empty(), event);
    this.faults = new NestedFaults(result);
    host.listen({
      fault: (fault) => this.#hostFault(fault),
      refusedPasid: (refusal) => this.#refusedPasid(refusal),
      pageRequest: (request) => this.#hostPageRequest(request),
    });
  }

  /** More than 0 while hardware is not known to do what the guest has set up. */
  get pending(): number {
    return this.operations.pending + (this.#unfinished() ? 1 : 0);
  }

  #unfinished(): boolean {
    const unclean = this.#unclean;
    // Where nothing is bound nothing goes through: what the host refused to do is not waited for.
    if (this.#overflow || (unclean ? this.#emptyWanted : this.#queue.count > 0)) return true;
    for (const { stale, scanAt, contextsStale } of this.#devices.values()) {
      if (contextsStale || (!unclean && (stale || scanAt >= 0))) return true;
    }
    return false;
  }

  /** A device that the guest knows as `rid`. */
  attach(device: HostDevice, rid: number): void {
    this.#parent.provide(device);
    const added = new NestedDevice(device, rid);
    this.#devices.set(device, added);
    this.#identify(added);
    this.#tryAgain();
  }

  #identify(of: NestedDevice): void {
    const { device, rid } = of;
    of.unknown = false;
    const identity = ++of.identity;
    const refused = (): void => {
      if (of.identity !== identity) return;
      of.unknown = true;
      of.stale = true;
    };
    this.#host.identify(device, rid, this.operations.begin('StreamID', device, -1, refused));
  }

  /** The guest knows a device by another requester id. */
  renumber(device: HostDevice, rid: number): void {
    const found = this.#devices.get(device);
    if (found === undefined) return;
    found.rid = rid;
    found.stale = true;
    this.#identify(found);
    this.#tryAgain();
  }

  /** It goes: nothing of it stays bound. */
  detach(device: HostDevice): void {
    const found = this.#devices.get(device);
    if (found === undefined) return;
    for (const binding of found.bindings()) this.#bindings.toNothing(binding);
    this.#devices.delete(device);
    this.#smmu.left();
    if (this.#devices.size === 0) this.#drop();
    else this.#tryAgain();
  }

  /** Something has changed, so the host may now drop what it refused to drop before. */
  #tryAgain(): void {
    if (this.#unclean) this.#emptyWanted = true;
    for (const device of this.#devices.values()) if (device.unclean) device.contextsStale = true;
  }

  /** Nothing is nested any more. The host's cached state goes with the nest parent and its VMID. */
  #drop(): void {
    this.#parent.drop();
    this.#queue.clear();
    this.#overflow = false;
    this.#unclean = false;
    this.#emptyWanted = false;
    this.#emptying = false;
    this.#smmu.emptied();
  }

  ramAdded(region: number, gpa: number, bytes: number, readonly: boolean): void {
    this.#parent.ramAdded(region, gpa, bytes, readonly);
  }

  ramRemoved(region: number): void {
    this.#parent.ramRemoved(region);
  }

  /** The guest invalidates. */
  invalidated(scope: InvalidateScope): void {
    const view = this.#model()?.nested;
    if (view === undefined || this.#devices.size === 0) return;
    for (const device of this.#devices.values()) {
      if (scope.structures === true) this.#policy(view).changed(device, scope, view);
      this.#policy(view).forward(device, scope);
    }
    if (view.format === 'smmuv3') this.#smmu.forwardTranslations(scope, this.#queue);
    this.#tryAgain();
    if (this.#queue.count <= MOST_INVALIDATIONS) return;
    this.#queue.clear();
    this.#overflow = true;
  }

  /** A PASID is no longer the guest's. The host has detached what was bound to it. */
  forgetPasid(pasid: number): void {
    for (const device of this.#devices.values()) device.pasids.delete(pasid);
  }

  /** Machine reset: nothing is as it was, and caches are empty as at power-on. */
  reset(): void {
    if (this.#devices.size === 0) return;
    for (const device of this.#devices.values()) device.stale = true;
    this.#overflow = true;
    this.#tryAgain();
  }

  /**
   * Asks the host for what makes hardware do as the guest has set up. A bounded amount of work;
   * more remains while `pending`.
   */
  work(): void {
    const view = this.#model()?.nested;
    if (view === undefined) return;
    // A device may wait for what another one gives up.
    for (let round = 0; round <= this.#devices.size && this.#resync(view); round++);
    let budget = MOST_SCANNED;
    for (const device of this.#devices.values()) {
      if (budget > 0) budget = this.#policy(view).scan(device, view, budget);
    }
    if (this.#overflow) this.#everything(view);
    this.#dropContexts();
    if (this.#unclean) this.#askToEmpty();
    else this.#flush();
  }

  /** Binds stale devices again. False: there were none. */
  #resync(view: NestedView): boolean {
    let some = false;
    for (const device of this.#devices.values()) {
      if (this.#unclean) return false;
      if (!device.stale) continue;
      some = true;
      device.stale = false;
      this.#policy(view).resync(device, view);
    }
    return some;
  }

  /** Invalidates everything, in place of more than was collected. */
  #everything(view: NestedView): void {
    this.#overflow = false;
    this.#queue.clear();
    for (const device of this.#devices.values()) this.#policy(view).forward(device, EVERYTHING);
    if (view.format === 'smmuv3') this.#smmu.forwardTranslations(EVERYTHING, this.#queue);
  }

  /**
   * SMMUv3: context descriptors, before what was made of them. Stream by stream, since the host
   * stops at a StreamID that it does not know, and may have lost a device that is still here.
   */
  #dropContexts(): void {
    for (const device of this.#devices.values()) {
      if (!device.contextsStale) continue;
      device.contextsStale = false;
      if (device.unknown) continue;
      const list = this.#smmu.contexts(device, this.#list);
      const kept = (): void => this.#contextsKept(device);
      this.#invalidate(list, device.device, kept, () => this.#contextsDropped(device));
    }
  }

  /** That device is bound no more, and what it has found by them since goes. */
  #contextsKept(device: NestedDevice): void {
    // The second time: the guest's next invalidation tries again.
    if (device.unclean) return;
    device.unclean = true;
    device.contextsStale = true;
    device.stale = true;
    this.#bindings.toNothing(device.own);
    this.#smmu.forwardTranslations(EVERYTHING, this.#queue);
    this.work();
  }

  #contextsDropped(device: NestedDevice): void {
    if (!device.unclean) return;
    device.unclean = false;
    device.stale = true;
    this.work();
  }

  /** Sends what was collected. */
  #flush(): void {
    const queue = this.#queue;
    const list = this.#list;
    queue.drain(list.clear());
    if (list.count > 0) this.#invalidate(list, 0, () => this.#invalidationFailed());
  }

  /** @param device whom it concerns, for observers */
  #invalidate(
    list: HostInvalidations,
    device: HostDevice,
    failed: () => void,
    succeeded: () => void = () => {},
  ): void {
    const parent = this.#parent;
    const { generation } = parent;
    if (parent.refused) return;
    // What was cached on top of a nest parent that is gone is gone with it.
    const current =
      (then: () => void): (() => void) =>
      () => {
        if (generation === parent.generation) then();
      };
    const done = this.operations.begin('invalidation', device, -1, current(failed), current(succeeded));
    this.#host.invalidate(PARENT_SPACE, list, done);
  }

  /**
   * Hardware may still use what the guest has taken away, so everything is unbound, and then bound
   * anew.
   */
  #invalidationFailed(): void {
    if (this.#model()?.nested?.format === 'smmuv3') this.#empty();
    // A VT-d host drops what it held of tables that it does not walk any more.
    else this.#unbindAll();
    this.work();
  }

  #unbindAll(): void {
    for (const device of this.#devices.values()) {
      for (const binding of device.bindings()) this.#bindings.toNothing(binding);
      device.pasids.clear();
      device.stale = true;
    }
  }

  /**
   * SMMUv3: TLB entries outlive the binding that they came from, so all of them go before anything
   * is bound.
   */
  #empty(): void {
    this.#unbindAll();
    this.#unclean = true;
    this.#emptyWanted = true;
  }

  #askToEmpty(): void {
    if (!this.#emptyWanted || this.#emptying) return;
    this.#emptyWanted = false;
    if (this.#parent.refused) return;
    this.#emptying = true;
    this.#queue.clear();
    const ended = (clean: boolean): void => {
      this.#emptying = false;
      // When it was refused, the guest's next invalidation tries again.
      if (clean) {
        this.#unclean = false;
        this.#emptyWanted = false;
        this.#smmu.emptied();
      }
      this.work();
    };
    const list = this.#smmu.translations(this.#list);
    this.#invalidate(
      list,
      0,
      () => ended(false),
      () => ended(true),
    );
  }

  /** VT-d: a binding has come into force behind an invalidation. */
  #missed(binding: Binding): void {
    if (this.#devices.has(binding.device)) this.#queue.whole(binding);
  }

  /** The model answers a group of page requests. */
  pageResponse(rid: number, pasid: number, group: number, code: number): void {
    for (const device of this.#devices.values()) {
      if (device.rid === rid) this.#host.respond(device.device, pasid, group, code);
    }
  }

  /** The end of the guest: every device is detached. */
  end(): void {
    for (const device of [...this.#devices.keys()]) this.detach(device);
  }

  /** Numbers for reports. */
  get report(): NestingReport {
    return {
      devices: this.#devices.size,
      operations: this.operations.count,
      refused: this.operations.refused,
      faultsForwarded: this.faults.forwarded,
      faultsWithheld: this.faults.withheld,
    };
  }

  #policy(view: NestedView): VtdNesting | SmmuNesting {
    return view.format === 'vtd' ? this.#vtd : this.#smmu;
  }

  #hostFault(fault: HostFault): void {
    const model = this.#model();
    const device = this.#devices.get(fault.device);
    if (model !== undefined && device !== undefined) this.faults.fault(fault, device.rid, model);
  }

  #refusedPasid(refusal: PasidRefusal): void {
    const model = this.#model();
    const device = this.#devices.get(refusal.device);
    if (model !== undefined && device !== undefined) this.faults.refusedPasid(refusal, device.rid, model);
  }

  #hostPageRequest({ device, pasid, access, lo, hi, group, last }: HostPageRequest): void {
    const model = this.#model();
    const found = this.#devices.get(device);
    if (model?.devices?.pageRequest === undefined || found === undefined) {
      if (last) this.#host.respond(device, pasid, group, PAGE_RESPONSE.INVALID);
      return;
    }
    model.devices.pageRequest(
      Object.assign(this.#pageRequest, { rid: found.rid, pasid, access, lo, hi, group, last }),
    );
  }
}
