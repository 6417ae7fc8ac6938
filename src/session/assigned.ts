/**
 * Devices of the host that are assigned to this guest, with objects of the host's IOMMU behind
 * them: HOST_DEVICE brings one, the planner decides, and it is nested, shadowed into spaces of the
 * host, or refused. ARCHITECTURE.md, Nesting.
 */
import { guestOf, lackingOptions, planOffer } from '../assignment/offer.js';
import type { Choice, Strategy } from '../assignment/planner.js';
import { remedyText } from '../assignment/remedies.js';
import type { AssignmentRequest } from '../assignment/request.js';
import { CodedError, ERRORS } from '../base/errors.js';
import type { InvalidateScope, Iommu, TranslateResult } from '../device/iommu.js';
import { emptyResult, PAGE_RESPONSE } from '../device/iommu.js';
import { PASID_ANSWER, type PasidSpace, PrivatePasids } from '../device/pasid-space.js';
import { noTables, THROUGH } from '../device/tables.js';
import type { HostDevice, HostFault } from '../host/port.js';
import type { NestingEvent } from '../nesting/host-operations.js';
import { askAgain } from '../nesting/nested-faults.js';
import { Nesting } from '../nesting/nesting.js';
import { HostPasids } from '../nesting/pasids.js';
import { HostSpaces } from '../shadow/host-spaces.js';
import type { Batch } from '../shadow/outbox.js';
import type { Shadow } from '../shadow/shadow.js';
import type * as M from '../wire/messages.js';
import { announcedDevice, deviceKind, faultOf } from './assigned-messages.js';
import type { PendingWork } from './completions.js';
import type { DeviceTable } from './devices.js';
import type { Outlet, SessionPorts, SessionSettings } from './ports.js';
import { WireHost } from './wire-host.js';

/** Numbers of HostDeviceReply.choice. */
const CHOICES: readonly (Choice | 'none')[] = ['none', 'bypass', 'shadow', 'nest'];

interface AssignedDevice {
  readonly device: HostDevice;
  rid: number;
  readonly kind: 'vf' | 'mdev';
  readonly strategy: Strategy;
  /** Shadowed by HOST_BATCH: nothing is asked of host objects. */
  readonly batches: boolean;
}

/** How a device is served. */
export interface AssignedReport {
  readonly device: number;
  readonly rid: number;
  readonly kind: 'vf' | 'mdev';
  readonly choice: Choice;
  /** By HOST_BATCH, not by objects of the host. */
  readonly batches: boolean;
}

export class AssignedDevices implements PendingWork {
  readonly #ports: Pick<SessionPorts, 'event' | 'log'>;
  readonly #settings: SessionSettings;
  readonly #table: DeviceTable;
  readonly #model: () => Iommu | undefined;
  readonly host = new WireHost();
  readonly nesting: Nesting;
  readonly spaces: HostSpaces;
  /** What a model's PASID registers give out. */
  readonly pasids: GuestPasids;
  readonly #hostPasids: HostPasids;
  readonly #devices = new Map<HostDevice, AssignedDevice>();
  readonly #request = { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, kind: 0, mayStall: false };
  readonly #looked = noTables();
  readonly #result: TranslateResult = emptyResult();

  constructor(
    ports: Pick<SessionPorts, 'event' | 'log'>,
    settings: SessionSettings,
    table: DeviceTable,
    shadow: Shadow,
    model: () => Iommu | undefined,
    /** Something that was asked of the host has ended. */
    ended: () => void,
  ) {
    this.#ports = ports;
    this.#settings = settings;
    this.#table = table;
    this.#model = model;
    const tell = (event: NestingEvent): void => this.#tell(event);
    this.nesting = new Nesting(this.host, model, this.#result, tell, ended);
    this.spaces = new HostSpaces(this.host, shadow, this.nesting.operations, ended);
    this.#hostPasids = new HostPasids(
      this.host,
      this.nesting.operations,
      () => this.#mdev(),
      (answer) => this.#model()?.pasids?.answered(answer),
      (pasid, live) => this.#pasidChanged(pasid, live),
      (pasid) => this.pasids.private(pasid),
    );
    const hosts = (): HostPasids | undefined => (this.#mdev() === undefined ? undefined : this.#hostPasids);
    this.pasids = new GuestPasids(hosts, () => this.#model()?.pasids?.bits);
  }

  open(backend: Outlet | undefined): void {
    this.host.open(backend);
  }

  /** More than 0 while hardware is not known to do what the guest has set up. */
  get pending(): number {
    const { nesting, spaces } = this;
    // Asked with every invalidation: without devices only operations that are in flight count.
    const nested = this.#devices.size > 0 ? nesting.pending : nesting.operations.pending;
    return nested + spaces.underWay;
  }

  get idle(): boolean {
    return this.#devices.size === 0;
  }

  /** This device is served by host objects, not by notifiers. */
  has(device: HostDevice): boolean {
    return this.#devices.get(device)?.batches === false;
  }

  get report(): AssignedReport[] {
    return Array.from(this.#devices.values(), ({ device, rid, kind, strategy, batches }) => ({
      device,
      rid,
      kind,
      choice: strategy.choice,
      batches,
    }));
  }

  /** The requester is a device that host objects serve. */
  serves(rid: number): boolean {
    for (const device of this.#devices.values()) if (device.rid === rid && !device.batches) return true;
    return false;
  }

  /** HOST_DEVICE. Throws `OUT_OF_ORDER`, `BAD_ARGUMENT`; what the planner refuses is an answer. */
  announce(
    message: M.HostDevice,
    modelName: string,
    options: Readonly<Record<string, string>>,
  ): M.HostDeviceReply {
    const known = this.#table.find(message.device);
    if (known === undefined) throw new CodedError('OUT_OF_ORDER', `device ${message.device} was not added`);
    const announced = announcedDevice(message);
    const { guest, pasids } = guestOf(modelName, options);
    const request: AssignmentRequest = {
      device: deviceKind(message.kind),
      guest,
      pasids,
      mode: this.#settings.assignment?.mode ?? 'auto',
      host: announced.capabilities,
    };
    this.remove(message.device);
    const strategy = strategyOf(request);
    if (typeof strategy === 'string') {
      this.#ports.log('error', 'a device cannot be assigned: none of its requests goes through', {
        device: known.name,
        rid: known.rid,
        reason: strategy,
      });
      return { code: ERRORS.NOT_ASSIGNABLE.code, text: strategy, choice: 0 };
    }
    const batches = message.batches && strategy.choice === 'shadow';
    const device = { device: message.device, rid: known.rid, kind: request.device, strategy, batches };
    this.#devices.set(message.device, device);
    this.host.announce(message.device, announced);
    if (!batches) this.#begin(device);
    const { choice, reason } = strategy;
    this.#ports.log('info', 'device assigned', { device: known.name, rid: known.rid, choice, reason });
    const lacking = lackingOptions(options, strategy);
    if (lacking.length > 0) {
      const fields = { device: known.name, rid: known.rid, options: lacking.join(', ') };
      this.#ports.log('warn', 'the guest is not offered what this device needs', fields);
    }
    return { code: 0, text: reason, choice: CHOICES.indexOf(choice) };
  }

  #begin({ device, rid, strategy }: AssignedDevice): void {
    if (strategy.choice === 'nest') {
      this.nesting.attach(device, rid);
      return;
    }
    this.spaces.attach(device, rid, this.#model() as Iommu);
    for (const pasid of this.#hostPasids.live) this.spaces.attach(device, rid, this.#model() as Iommu, pasid);
  }

  /** The guest knows a device by another requester id. */
  renumber(device: HostDevice, rid: number): void {
    const found = this.#devices.get(device);
    if (found === undefined || found.rid === rid || found.batches) return;
    found.rid = rid;
    if (found.strategy.choice === 'nest') this.nesting.renumber(device, rid);
    else this.spaces.renumber(device, rid, this.#model() as Iommu);
  }

  /** The device has gone, and the peer has detached everything of it. */
  remove(device: HostDevice): void {
    const found = this.#devices.get(device);
    if (found === undefined) return;
    if (found.kind === 'mdev' && this.#mdevs().length === 1) this.#leavePasids();
    this.nesting.detach(device);
    this.spaces.detachAll(device);
    this.host.forget(device);
    this.#devices.delete(device);
  }

  invalidated(scope: InvalidateScope): void {
    if (this.#devices.size > 0) this.nesting.invalidated(scope);
  }

  advance(): void {
    if (this.#devices.size > 0) this.nesting.work();
  }

  /** Takes a batch of the shadow. False: it is not for a space of the host. */
  takes(batch: Batch): boolean {
    return this.spaces.takes(batch);
  }

  /** Machine reset; the model has been reset. */
  reset(): void {
    this.nesting.reset();
  }

  ramAdded(region: number, gpa: number, bytes: number, readonly: boolean): void {
    this.nesting.ramAdded(region, gpa, bytes, readonly);
  }

  ramRemoved(region: number): void {
    this.nesting.ramRemoved(region);
  }

  /** The model answers page requests of a device that is nested; false: of another one. */
  pageResponse(rid: number, pasid: number, group: number, code: number): boolean {
    for (const device of this.#devices.values()) {
      if (device.rid !== rid || device.batches) continue;
      this.host.respond(device.device, pasid, group, code);
      return true;
    }
    return false;
  }

  /** HOST_EVENT. A record that names no known device is dropped. */
  hostEvent(message: M.HostEvent): void {
    if (message.lost) this.#ports.log('warn', 'faults of the host were lost', { space: message.space });
    const fault = faultOf(message, (streamId) => this.host.deviceOf(streamId));
    const found = fault && this.#devices.get(fault.device);
    if (found === undefined) return;
    if (found.strategy.choice === 'nest') this.host.events?.fault(fault as HostFault);
    else this.#askAgain(fault as HostFault, found.rid);
  }

  /**
   * Hardware refused a shadowed device. The guest's own unit refuses the same request, and records
   * it.
   */
  #askAgain(fault: HostFault, rid: number): void {
    const model = this.#model();
    if (model !== undefined) askAgain(fault, rid, model, this.#request, this.#result);
  }

  /** HOST_PAGE_REQUEST. */
  pageRequest({ device, pasid, access, lo, hi, group, last }: M.HostPageRequest): void {
    const found = this.#find(device);
    if (found.strategy.choice === 'nest') {
      this.host.events?.pageRequest({ device, pasid: pasid - 1, access: access & 0xf, lo, hi, group, last });
    } else if (last) {
      this.host.respond(device, pasid - 1, group, PAGE_RESPONSE.INVALID);
    }
  }

  /**
   * HOST_PASID_REFUSED. Where the guest's own structures refuse it too, its unit says so, and why.
   */
  refusedPasid({ device, pasid, access, lo, hi }: M.HostPasidRefused): void {
    const { rid, strategy } = this.#find(device);
    const model = this.#model();
    const rights = access & 0xf;
    if (strategy.choice === 'shadow' && model?.spaces.tables !== undefined) {
      model.spaces.tables(rid, pasid - 1, this.#looked);
      if (this.#looked.through === THROUGH.NOTHING) {
        const request = Object.assign(this.#request, { rid, pasid: pasid - 1, access: rights, lo, hi });
        model.translate(request, this.#result);
        return;
      }
    }
    model?.nested?.noSuchPasid(rid, pasid - 1, rights, lo, hi);
  }

  /** The parent of the guest's PASIDs goes. PASIDs that the guest frees are known to its model. */
  #leavePasids(): void {
    const hostPasids = this.#hostPasids;
    for (const pasid of hostPasids.live) this.#model()?.pasids?.revoked(pasid);
    hostPasids.leave();
  }

  #find(device: HostDevice): AssignedDevice {
    const found = this.#devices.get(device);
    if (found === undefined) throw new CodedError('OUT_OF_ORDER', `device ${device} is not assigned`);
    return found;
  }

  #mdevs(): AssignedDevice[] {
    return [...this.#devices.values()].filter(({ kind }) => kind === 'mdev');
  }

  /** The mdev on whose parent the guest's PASIDs are. */
  #mdev(): HostDevice | undefined {
    return this.#mdevs()[0]?.device;
  }

  #pasidChanged(pasid: number, live: boolean): void {
    if (!live) this.nesting.forgetPasid(pasid);
    for (const { device, rid, strategy, batches } of this.#mdevs()) {
      if (strategy.choice !== 'shadow' || batches) continue;
      if (live) this.spaces.attach(device, rid, this.#model() as Iommu, pasid);
      else this.spaces.detach(device, pasid);
    }
  }

  #tell(event: NestingEvent): void {
    const device = this.#table.find(event.device)?.name ?? '';
    if (event.kind === 'notNestable') {
      const { rid, pasid, reason } = event;
      this.#ports.log('warn', `hardware cannot nest ${reason}: requests there fail`, { device, rid, pasid });
    } else {
      const { what, pasid, code, text } = event;
      this.#ports.log('warn', `the host refused: ${what}`, { device, pasid, code, text });
    }
  }
}

/** A strategy, or why there is none. */
function strategyOf(request: AssignmentRequest): Strategy | string {
  const planned = planOffer(request);
  if (planned.ok) return planned;
  const remedies = remedyText({ ...request, pasids: false });
  return `no ${request.mode} (${planned.code}): ${planned.rule}. What would work: ${remedies}.`;
}

/** The host's while an mdev is assigned; without one from a space of the guest's own. */
class GuestPasids implements PasidSpace {
  readonly #hosts: () => HostPasids | undefined;
  readonly #bits: () => number | undefined;
  #own: PrivatePasids | undefined;

  constructor(hosts: () => HostPasids | undefined, bits: () => number | undefined) {
    this.#hosts = hosts;
    this.#bits = bits;
  }

  /** True for a PASID of the guest's own space. */
  private(pasid: number): boolean {
    return this.#own?.has(pasid) === true;
  }

  allocate(): number {
    const hosts = this.#hosts();
    if (hosts !== undefined) return hosts.allocate();
    this.#own ??= new PrivatePasids(this.#bits());
    return this.#own.allocate();
  }

  free(pasid: number): number {
    if (this.private(pasid)) return (this.#own as PrivatePasids).free(pasid);
    return this.#hosts()?.free(pasid) ?? PASID_ANSWER.REFUSED;
  }

  releaseAll(): void {
    this.#hosts()?.releaseAll();
    this.#own?.releaseAll();
  }
}
