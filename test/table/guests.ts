/** Guests for the cells of the table: each sets up its IOMMU as a driver does, one of these for each way of serving it. */
import type { Strategy } from '../../src/assignment/plan.js';
import type { DeviceKind, HostKind } from '../../src/assignment/request.js';
import type { SimDevice } from '../../src/host/sim/device.js';
import type { SimHost } from '../../src/host/sim/host.js';
import { ArrayMemory } from '../../src/memory/array.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { type Domain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { VirtualCommands } from '../../src/sim/vtd-virtual.js';
import { faultName } from '../../src/spec/vtd/faults.js';
import { RigGuest } from '../support/host-rig.js';
import { NestedMachine } from '../support/nested-machine.js';
import { ShadowedMachine } from '../support/shadowed-machine.js';

export const RAM = 2 ** 24;
/** What every guest calls its device. */
export const GUEST_RID = 0x18;

/** A fault as the guest finds it: the specification's name, and the PASID. */
export interface GuestFault {
  readonly name: string;
  readonly pasid: number;
}

/** What a scenario asks of a guest. PASID −1: requests without. */
export interface CellGuest {
  readonly memory: ArrayMemory;
  readonly device: SimDevice;
  /** One page. */
  map(pasid: number, address: number, gpa: number): void;
  unmap(pasid: number, address: number): void;
  /** A PASID with an empty address space. */
  createPasid(): number;
  destroyPasid(pasid: number): void;
  /** Faults of the guest's own unit since the last call; undefined: it has none. */
  faults(): GuestFault[] | undefined;
  /** Machine reset: no PASIDs, nothing mapped; what the device then reaches is the cell's matter. */
  reset(): void;
  /** The guest is over. */
  close(): void;
}

interface Making {
  readonly host: SimHost;
  readonly kind: HostKind;
  readonly deviceKind: DeviceKind;
  readonly name: string;
  readonly hostRid: number;
  readonly strategy: Strategy;
}

export function makeGuest(making: Making): CellGuest {
  if (making.strategy.choice === 'bypass') return new BypassGuest(making);
  return making.kind === 'smmuv3' ? new SmmuGuest(making) : new VtdGuest(making);
}

function addDevice({ host, deviceKind, hostRid }: Making, guest: NestedMachine['guest']): SimDevice {
  return deviceKind === 'mdev' ? host.addMdev(hostRid, guest) : host.addVf(hostRid, guest);
}

/** No vIOMMU: device addresses are what the monitor maps, page by page here. */
class BypassGuest implements CellGuest {
  readonly device: SimDevice;
  private readonly rig: RigGuest;

  constructor(private readonly making: Making) {
    this.rig = new RigGuest(making.host, making.name, 'type1');
    this.device = addDevice(making, this.rig.port);
    this.rig.space(1, this.device);
    this.rig.attach(this.device, 1);
  }

  get memory(): ArrayMemory {
    return this.rig.memory;
  }
  map(_pasid: number, address: number, gpa: number): void {
    const { code, text } = this.rig.map(1, address / 4096, gpa / 4096, 1);
    if (code !== 'OK') throw new Error(text);
  }
  unmap(_pasid: number, address: number): void {
    this.rig.unmap(1, address / 4096, 1);
  }
  createPasid(): number {
    throw new Error('no PASIDs without a vIOMMU');
  }
  destroyPasid(): void {}
  faults(): undefined {
    return undefined;
  }
  reset(): void {
    this.rig.unmap(1, 0, 2 ** 30);
  }
  close(): void {
    this.making.host.removeGuest(this.rig.port);
  }
}

type AnyMachine = NestedMachine | ShadowedMachine;

function makeMachine(
  making: Making,
  memory: ArrayMemory,
  options: Readonly<Record<string, string>>,
): AnyMachine {
  const { host, name, strategy, kind } = making;
  const model = kind === 'smmuv3' ? 'smmuv3' : 'vtd';
  const given = { host, name, memory, bytes: RAM, model, options } as const;
  return strategy.choice === 'nest' ? new NestedMachine(given) : new ShadowedMachine(given);
}

/** PASIDs of a shadowed mdev: allocated on the parent, shadowed one by one. */
function allocateShadowed(machine: ShadowedMachine, device: SimDevice): number {
  let pasid = -1;
  machine.guest.allocatePasid(device.number, ({ value }) => {
    pasid = value;
  });
  machine.host.run();
  if (pasid <= 0) throw new Error('no PASID');
  machine.plug(device, GUEST_RID, pasid);
  return pasid;
}

function freeShadowed(machine: ShadowedMachine, device: SimDevice, pasid: number): void {
  machine.unplug(device, pasid);
  machine.guest.freePasid(device.number, pasid, () => {});
  machine.host.run();
}

function end(machine: AnyMachine, device: SimDevice, pasids: Iterable<number>): void {
  if (machine instanceof NestedMachine) {
    machine.nesting.end();
    machine.drain();
  } else {
    for (const pasid of pasids) machine.unplug(device, pasid);
    machine.unplug(device);
  }
  machine.host.removeGuest(machine.guest);
}

class VtdGuest implements CellGuest {
  readonly memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  readonly device: SimDevice;
  private readonly machine: AnyMachine;
  private readonly driver: VtdDriver;
  private readonly spaces = new Map<number, Domain>();
  private nextPasid = 1;

  constructor(private readonly making: Making) {
    const { strategy, kind } = making;
    const commands = strategy.pv === 'virtual-commands' && strategy.choice === 'nest';
    this.machine = makeMachine(making, this.memory, {
      'caching-mode': 'on',
      ...(commands ? { 'virtual-commands': 'on' } : {}),
    });
    this.driver = new VtdDriver(this.machine, { mode: 'scalable', pages: [RAM / 2, RAM], pdts: 3 });
    this.device = this.machine.plug(addDevice(making, this.machine.guest), GUEST_RID);
    this.driver.start();
    // On vt-d2 requests without PASID can't be nested: the guest passes them through.
    const own = kind === 'vtd2' && strategy.choice === 'nest' ? 'pass-through' : 'first';
    this.attach(-1, this.driver.createDomain(own));
  }

  private attach(pasid: number, domain: Domain): void {
    this.spaces.set(pasid, domain);
    this.driver.attach(GUEST_RID, domain, pasid < 0 ? {} : { pasid });
  }

  map(pasid: number, address: number, gpa: number): void {
    this.driver.map(this.spaces.get(pasid) as Domain, BigInt(address), gpa, 4096);
  }
  unmap(pasid: number, address: number): void {
    this.driver.unmap(this.spaces.get(pasid) as Domain, BigInt(address), 4096);
  }
  createPasid(): number {
    const pasid = this.allocate();
    this.attach(pasid, this.driver.createDomain('first'));
    return pasid;
  }
  private allocate(): number {
    const { strategy } = this.making;
    if (strategy.pv === 'none') return this.nextPasid++;
    if (this.machine instanceof ShadowedMachine) return allocateShadowed(this.machine, this.device);
    const pasid = new VirtualCommands(this.driver.registers).allocate();
    if (pasid === undefined) throw new Error('no PASID');
    return pasid;
  }
  destroyPasid(pasid: number): void {
    this.driver.detach(GUEST_RID, this.spaces.get(pasid) as Domain, pasid);
    this.spaces.delete(pasid);
    if (this.making.strategy.pv === 'none') return;
    if (this.machine instanceof ShadowedMachine) freeShadowed(this.machine, this.device, pasid);
    else if (!new VirtualCommands(this.driver.registers).free(pasid)) throw new Error('PASID not freed');
  }
  faults(): GuestFault[] {
    this.machine.idle();
    return this.driver.faults
      .drain()
      .map(({ reason, pasid }) => ({ name: faultName(reason).split(':')[0] as string, pasid }));
  }
  reset(): void {
    this.machine.reset();
  }
  close(): void {
    end(
      this.machine,
      this.device,
      [...this.spaces.keys()].filter((pasid) => pasid >= 0),
    );
  }
}

class SmmuGuest implements CellGuest {
  readonly memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  readonly device: SimDevice;
  private readonly machine: AnyMachine;
  private readonly driver: SmmuDriver;
  private readonly spaces = new Map<number, SmmuDomain>();
  private nextPasid = 1;

  constructor(making: Making) {
    this.machine = makeMachine(making, this.memory, {});
    this.driver = new SmmuDriver(this.machine, { pages: [RAM / 2, RAM] });
    this.device = this.machine.plug(addDevice(making, this.machine.guest), GUEST_RID);
    this.driver.start();
    const own = this.driver.createDomain('first');
    this.spaces.set(-1, own);
    this.driver.attach(GUEST_RID, own, { ssidBits: 8 });
  }

  map(pasid: number, address: number, gpa: number): void {
    this.driver.map(this.spaces.get(pasid) as SmmuDomain, BigInt(address), gpa, 4096);
    // No caching mode: the stores to the tables were trapped.
    if (this.machine instanceof ShadowedMachine) this.machine.trapped();
  }
  unmap(pasid: number, address: number): void {
    this.driver.unmap(this.spaces.get(pasid) as SmmuDomain, BigInt(address), 4096);
  }
  createPasid(): number {
    const pasid =
      this.machine instanceof ShadowedMachine
        ? allocateShadowed(this.machine, this.device)
        : this.nextPasid++;
    const domain = this.driver.createDomain('first');
    this.spaces.set(pasid, domain);
    this.driver.attachSubstream(GUEST_RID, pasid, domain);
    return pasid;
  }
  destroyPasid(pasid: number): void {
    this.driver.detachSubstream(GUEST_RID, pasid, this.spaces.get(pasid) as SmmuDomain);
    this.spaces.delete(pasid);
    if (this.machine instanceof ShadowedMachine) freeShadowed(this.machine, this.device, pasid);
  }
  faults(): GuestFault[] {
    this.machine.idle();
    return this.driver.events.drain().map(({ name, ssid }) => ({ name, pasid: ssid }));
  }
  reset(): void {
    this.machine.reset();
  }
  close(): void {
    end(
      this.machine,
      this.device,
      [...this.spaces.keys()].filter((pasid) => pasid >= 0),
    );
  }
}
