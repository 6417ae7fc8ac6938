/**
 * A model that is called directly, with devices that a simulated host has assigned: nested, or
 * given guest memory as it is.
 */
import type { Container } from '../../src/assignment/request.js';
import { PASID_ANSWER, type PasidSpace } from '../../src/device/pasid-space.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import type { SimHost } from '../../src/host/sim/sim-host.js';
import type { GuestMemory } from '../../src/memory/guest-memory.js';
import type { NestingEvent } from '../../src/nesting/host-operations.js';
import { Nesting } from '../../src/nesting/nesting.js';
import { HostPasids } from '../../src/nesting/pasids.js';
import { LocalMachine, newResult } from './local-machine.js';

interface NestedMachineOptions {
  readonly host: SimHost;
  readonly name: string;
  readonly memory: GuestMemory;
  /** End of guest-physical addresses; RAM is all of it. */
  readonly bytes: number;
  readonly model: 'vtd' | 'smmuv3';
  readonly options?: Readonly<Record<string, string>>;
  readonly container?: Container;
  readonly pasidQuota?: number;
}

/** The model wants its PASIDs before there is anything that could ask the host. */
class LatePasids implements PasidSpace {
  space: PasidSpace | undefined;

  allocate(): number {
    return this.space?.allocate() ?? PASID_ANSWER.REFUSED;
  }
  free(pasid: number): number {
    return this.space?.free(pasid) ?? PASID_ANSWER.REFUSED;
  }
  releaseAll(): void {
    this.space?.releaseAll();
  }
}

/**
 * The host gets to run when the guest waits (`idle`), or at once with {@link early}. A completion
 * that the guest can see before the host has done what it promises is a bug that then shows.
 */
export class NestedMachine extends LocalMachine {
  readonly host: SimHost;
  readonly guest: SimGuest;
  readonly nesting: Nesting;
  readonly nestingEvents: NestingEvent[] = [];
  readonly pasids: HostPasids;
  /** The host runs after every input. */
  early = true;

  constructor(given: NestedMachineOptions) {
    const { host, name, memory, bytes, pasidQuota } = given;
    const late = new LatePasids();
    super(memory, given.options ?? {}, given.model, late);
    const container = given.container ?? 'iommufd';
    this.host = host;
    this.guest = host.addGuest({ name, memory, bytes, container, ...(pasidQuota && { pasidQuota }) });
    this.nesting = new Nesting(
      this.guest,
      () => this.model,
      newResult(),
      (event) => void this.nestingEvents.push(event),
      () => {},
    );
    this.pasids = new HostPasids(
      this.guest,
      this.nesting.operations,
      () => [...this.guest.devices.values()].find(({ kind }) => kind === 'mdev')?.number,
      (answer) => this.model.pasids?.answered(answer),
      (pasid, live) => {
        if (!live) this.nesting.forgetPasid(pasid);
      },
    );
    late.space = this.pasids;
    this.outputs.holdAcks = true;
    this.outputs.pendingAcks = () => this.nesting.pending;
    this.outputs.invalidate = (scope) => {
      this.outputs.scopes.push({ ...scope });
      this.nesting.invalidated(scope);
    };
    this.outputs.pageResponse = (rid, pasid, group, code) =>
      this.nesting.pageResponse(rid, pasid, group, code);
    this.nesting.ramAdded(0, 0, bytes, false);
  }

  /** A device that the guest knows as `rid`; `device` is the host's. */
  plug(device: SimDevice, rid: number): SimDevice {
    this.nesting.attach(device.number, rid);
    this.settle();
    return device;
  }

  unplug(device: SimDevice): void {
    this.nesting.detach(device.number);
    this.drain();
    this.host.removeDevice(device);
  }

  /** Machine reset. */
  reset(): void {
    this.model.reset();
    this.nesting.reset();
    this.settle();
  }

  override writeRegister(offset: number, size: number, value: bigint): void {
    super.writeRegister(offset, size, value);
    this.settle();
  }

  override idle(): boolean {
    return this.drain();
  }

  override ack(): boolean {
    return this.drain();
  }

  /** What the session does after every input. */
  settle(): void {
    this.nesting.work();
    if (this.early) this.drain();
    else if (this.nesting.pending === 0) this.model.acknowledged();
  }

  /** The host does all that it was asked for, and what follows from that. */
  drain(): boolean {
    let some = false;
    for (let round = 0; round < 10_000; round++) {
      const count = this.host.run();
      some ||= count > 0;
      this.nesting.work();
      if (this.nesting.pending > 0) continue;
      this.model.acknowledged();
      if (this.nesting.pending === 0 && this.guest.pending === 0) return some;
    }
    throw new Error('nesting never comes to rest');
  }
}
