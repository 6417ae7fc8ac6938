/** A model that is called directly, with devices of a simulated host whose guest tables are shadowed into host spaces. */
import type { Container } from '../../src/assignment/request.js';
import type { SimDevice } from '../../src/host/sim/device.js';
import type { SimGuest } from '../../src/host/sim/guest.js';
import type { SimHost } from '../../src/host/sim/host.js';
import type { GuestMemory } from '../../src/memory/port.js';
import { askAgain } from '../../src/nesting/faults.js';
import { HostOperations } from '../../src/nesting/operations.js';
import { HostSpaces } from '../../src/shadow/host-spaces.js';
import { Shadow } from '../../src/shadow/shadow.js';
import { LocalMachine, newResult } from './local-machine.js';

export interface ShadowedMachineOptions {
  readonly host: SimHost;
  readonly name: string;
  readonly memory: GuestMemory;
  readonly bytes: number;
  readonly model: 'vtd' | 'smmuv3';
  readonly options?: Readonly<Record<string, string>>;
  readonly container?: Container;
}

export class ShadowedMachine extends LocalMachine {
  readonly host: SimHost;
  readonly guest: SimGuest;
  readonly shadow: Shadow;
  readonly spaces: HostSpaces;
  private readonly operations = new HostOperations(
    () => {},
    () => {},
  );
  private readonly rids = new Map<number, number>();

  constructor(given: ShadowedMachineOptions) {
    const { host, name, memory, bytes } = given;
    super(memory, given.options ?? {}, given.model);
    this.host = host;
    this.guest = host.addGuest({ name, memory, bytes, container: given.container ?? 'iommufd' });
    this.shadow = new Shadow(memory, () => {});
    this.spaces = new HostSpaces(this.guest, this.shadow, this.operations);
    this.outputs.holdAcks = true;
    this.outputs.pendingAcks = () => this.shadow.pending + this.operations.pending;
    this.outputs.invalidate = (scope) => this.shadow.touch(scope, this.model);
    this.shadow.ramAdded(0, 0, bytes, false, this.model);
    const request = { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, kind: 0, mayStall: false };
    this.guest.listen({
      // What hardware refuses, the guest's own unit refuses too, and records.
      fault: (fault) => {
        const rid = this.rids.get(fault.device);
        if (rid !== undefined) askAgain(fault, rid, this.model, request, newResult());
      },
      refusedPasid: ({ device, pasid, access, lo, hi }) => {
        const rid = this.rids.get(device);
        if (rid !== undefined) this.model.nested?.noSuchPasid(rid, pasid, access, lo, hi);
      },
      pageRequest: () => {},
    });
  }

  /** A device that the guest knows as `rid`, or one PASID of it. */
  plug(device: SimDevice, rid: number, pasid = -1): SimDevice {
    this.rids.set(device.number, rid);
    this.spaces.attach(device.number, rid, this.model, pasid);
    this.settle();
    return device;
  }

  unplug(device: SimDevice, pasid = -1): void {
    this.spaces.detach(device.number, pasid);
    this.settle();
  }

  /** Stores to live tables were trapped: what stands for caching mode where there is none. */
  trapped(): void {
    this.shadow.touchAll(this.model);
    this.settle();
  }

  reset(): void {
    this.model.reset();
    this.trapped();
  }

  override writeRegister(offset: number, size: number, value: bigint): void {
    super.writeRegister(offset, size, value);
    this.settle();
  }

  override idle(): boolean {
    this.settle();
    return true;
  }

  override ack(): boolean {
    this.settle();
    return true;
  }

  /** Works until the host's mappings equal the guest's tables, then tells the guest. */
  settle(): void {
    for (let round = 0; round < 10_000; round++) {
      this.shadow.work();
      for (let batch = this.shadow.take(); batch !== undefined; batch = this.shadow.take())
        this.spaces.takes(batch);
      this.host.run();
      if (this.outputs.pendingAcks() > 0) continue;
      this.model.acknowledged();
      if (this.outputs.pendingAcks() === 0) return;
    }
    throw new Error('the shadow never comes to rest');
  }
}
