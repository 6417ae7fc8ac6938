/**
 * Guests of a daemon, over its socket: each sets up its IOMMU as a driver does, through registers
 * and memory that a simulated VM has, and the daemon makes of that what its plan says.
 */
import type { Choice } from '../../src/assignment/planner.js';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import type { GuestRam } from '../../src/sim/machine.js';
import { firstStageFields, type SmmuDomain } from '../../src/sim/smmu-domain.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { SmmuVirtualCommands } from '../../src/sim/smmu-virtual.js';
import { storeStructure } from '../../src/sim/structure.js';
import { type VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { VirtualCommands } from '../../src/sim/vtd-virtual.js';
import { CD, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import { faultName } from '../../src/spec/vtd/faults.js';
import { ECAP_REG } from '../../src/spec/vtd/registers.js';
import { PGTT } from '../../src/spec/vtd/structures.js';
import { WiredMachine } from '../support/wired-machine.js';
import { addDevice, type CellGuest, GUEST_RID, type GuestFault, type Making, RAM } from './guest.js';

/** Numbers of HostDeviceReply.choice. */
const CHOICES: readonly (Choice | 'none')[] = ['none', 'bypass', 'shadow', 'nest'];

export function makeWiredGuest(making: Making, socket: string): WiredGuest {
  return making.kind === 'smmuv3' ? new SmmuGuest(making, socket) : new VtdGuest(making, socket);
}

export abstract class WiredGuest implements CellGuest {
  readonly machine: WiredMachine;
  readonly device: SimDevice;
  readonly #plugged: string;

  /**
   * `options` are those that were chosen for this VM; what the plan needs is the daemon's matter.
   */
  constructor(
    protected readonly making: Making,
    socket: string,
    model: 'vtd' | 'smmuv3',
    options: Readonly<Record<string, string>>,
  ) {
    const { host, name } = making;
    this.machine = new WiredMachine({ socket, host, name, bytes: RAM, model, options });
    this.device = addDevice(making, this.machine.guest);
    this.#plugged = CHOICES[this.machine.plug(this.device, GUEST_RID)];
    if (this.#plugged !== making.strategy.choice) {
      this.close();
      throw new Error(`the daemon has chosen ${this.#plugged}, not ${making.strategy.choice}`);
    }
  }

  get ram(): GuestRam {
    return this.machine.vm.ram;
  }
  get side(): SimGuest {
    return this.machine.guest;
  }
  abstract map(pasid: number, address: number, gpa: number): void;
  abstract unmap(pasid: number, address: number): void;
  abstract createPasid(): number;
  abstract destroyPasid(pasid: number): void;
  /**
   * What a guest's driver does first: the unit is at work, and the device has an address space,
   * with nothing in it.
   */
  protected abstract begin(): void;
  protected abstract drainFaults(): GuestFault[];

  faults(): GuestFault[] {
    this.machine.settle();
    return this.drainFaults();
  }
  reset(): void {
    this.machine.vm.reset();
  }
  restart(): void {
    this.reset();
    this.begin();
  }
  unplug(): void {
    this.machine.unplug(this.device);
  }
  close(): void {
    this.machine.close();
  }
}

class VtdGuest extends WiredGuest {
  #driver!: VtdDriver;
  readonly #spaces = new Map<number, VtdDomain>();
  #nextPasid = 1;

  constructor(making: Making, socket: string) {
    super(making, socket, 'vtd', making.pasids ? {} : { 'pasid-bits': '0' });
    this.begin();
  }

  protected begin(): void {
    const { strategy, kind } = this.making;
    this.#spaces.clear();
    this.#nextPasid = 1;
    this.#driver = new VtdDriver(this.machine.vm, { mode: 'scalable', pages: [RAM / 2, RAM], pdts: 3 });
    this.#driver.start();
    // On vt-d2 requests without PASID can't be nested: the guest passes them through.
    const own = kind === 'vtd2' && strategy.choice === 'nest' ? 'pass-through' : this.#stage();
    this.#attach(-1, this.#driver.createDomain(own));
  }

  /**
   * First stages where there are any, as kernels do. A guest that is shadowed must not be offered
   * them.
   */
  #stage(): 'first' | 'second' {
    return this.#driver.registers.field(ECAP_REG, 'FSTS') === 1 ? 'first' : 'second';
  }

  #attach(pasid: number, domain: VtdDomain): void {
    this.#spaces.set(pasid, domain);
    this.#driver.attach(GUEST_RID, domain, pasid < 0 ? {} : { pasid });
  }

  /**
   * The same tables, emptied, under another domain-id; told with the one that they had, as Linux
   * does.
   */
  exchange(pasid: number, first: boolean, address: number, bytes: number): void {
    const driver = this.#driver;
    const domain = this.#spaces.get(pasid) as VtdDomain;
    const root = Number(domain.table?.rootAddress ?? 0n);
    domain.table?.unmap(BigInt(address), bytes);
    const next = { ...domain, did: driver.createDomain('pass-through').did };
    this.#spaces.set(pasid, next);
    const entry = Math.max(pasid, 0);
    const stage =
      domain.kind === 'first'
        ? { PGTT: PGTT.FIRST_STAGE, FSPTPTR: root }
        : { PGTT: PGTT.SECOND_STAGE, SSPTPTR: root, AW: domain.levels - 2 };
    driver.scalable?.setPasid(GUEST_RID, entry, { P: 1, PWSNP: 1, DID: next.did, ...stage });
    const translations = (): void => {
      if (domain.kind === 'first') driver.invalidate.pasidIotlb(domain.did, entry);
      else driver.invalidate.iotlbDomain(domain.did);
    };
    if (first) translations();
    driver.invalidate.pasidCache(domain.did, entry);
    translations();
    driver.invalidate.sync();
  }

  map(pasid: number, address: number, gpa: number): void {
    this.#driver.map(this.#spaces.get(pasid) as VtdDomain, BigInt(address), gpa, 4096);
  }
  unmap(pasid: number, address: number): void {
    this.#driver.unmap(this.#spaces.get(pasid) as VtdDomain, BigInt(address), 4096);
  }
  createPasid(): number {
    const pasid = this.#allocate();
    this.#attach(pasid, this.#driver.createDomain(this.#stage()));
    return pasid;
  }
  /** As a kernel does: from the unit where it says that PASIDs come from there. */
  #allocate(): number {
    const commands = new VirtualCommands(this.#driver.registers);
    if (!commands.offered) return this.#nextPasid++;
    const pasid = commands.allocate();
    if (pasid === undefined) throw new Error('no PASID');
    return pasid;
  }
  destroyPasid(pasid: number): void {
    this.#driver.detach(GUEST_RID, this.#spaces.get(pasid) as VtdDomain, pasid);
    this.#spaces.delete(pasid);
    const commands = new VirtualCommands(this.#driver.registers);
    if (commands.offered && !commands.free(pasid)) throw new Error('PASID not freed');
  }
  protected drainFaults(): GuestFault[] {
    return this.#driver.faults
      .drain()
      .map(({ reason, pasid }) => ({ name: faultName(reason).split(':')[0] as string, pasid }));
  }
}

class SmmuGuest extends WiredGuest {
  #driver!: SmmuDriver;
  readonly #spaces = new Map<number, SmmuDomain>();
  #nextPasid = 1;
  /** The stream has a CD of its own, and not the driver's table of them. */
  #away = false;

  constructor(making: Making, socket: string) {
    super(making, socket, 'smmuv3', making.pasids ? {} : { 'ssid-bits': '0' });
    this.begin();
  }

  protected begin(): void {
    this.#spaces.clear();
    this.#nextPasid = 1;
    this.#away = false;
    this.#driver = new SmmuDriver(this.machine.vm, { pages: [RAM / 2, RAM] });
    this.#driver.start();
    const own = this.#driver.createDomain('first');
    this.#spaces.set(-1, own);
    this.#driver.attach(GUEST_RID, own, { ssidBits: Math.min(8, this.#driver.capabilities.ssidBits) });
  }

  /** No caching mode: nothing is said but what the stores themselves say. */
  map(pasid: number, address: number, gpa: number): void {
    this.#driver.map(this.#spaces.get(pasid) as SmmuDomain, BigInt(address), gpa, 4096);
  }
  unmap(pasid: number, address: number): void {
    this.#driver.unmap(this.#spaces.get(pasid) as SmmuDomain, BigInt(address), 4096);
  }
  createPasid(): number {
    const pasid = this.#allocate();
    const domain = this.#driver.createDomain('first');
    if (this.#away) this.#comeHome();
    this.#spaces.set(pasid, domain);
    this.#driver.attachSubstream(GUEST_RID, pasid, domain);
    return pasid;
  }
  /**
   * Other tables under the same ASID: another CD in its place; without PASIDs, in turn, another
   * S1ContextPtr.
   */
  exchange(pasid: number, first: boolean): void {
    const driver = this.#driver;
    const before = this.#spaces.get(pasid) as SmmuDomain;
    const domain = { ...driver.createDomain('first'), asid: before.asid, users: before.users };
    this.#spaces.set(pasid, domain);
    if (first) driver.commands.asid(0, domain.asid);
    if (pasid >= 0) driver.attachSubstream(GUEST_RID, pasid, domain);
    else if (this.#away || this.#spaces.size > 1) this.#comeHome();
    else {
      const cd = driver.pages.take();
      storeStructure(this.ram, cd, CD, firstStageFields(domain, driver.capabilities.outputBits));
      driver.streams.set(GUEST_RID, { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: cd });
      driver.commands.stream(GUEST_RID);
      this.#away = true;
    }
    if (!first) driver.commands.asid(0, domain.asid);
    driver.commands.sync();
  }
  #comeHome(): void {
    this.#away = false;
    this.#driver.attach(GUEST_RID, this.#spaces.get(-1) as SmmuDomain);
  }
  #allocate(): number {
    const commands = new SmmuVirtualCommands(this.#driver.registers);
    if (!commands.offered) return this.#nextPasid++;
    const pasid = commands.allocate();
    if (pasid === undefined) throw new Error('no PASID');
    return pasid;
  }
  destroyPasid(pasid: number): void {
    this.#driver.detachSubstream(GUEST_RID, pasid, this.#spaces.get(pasid) as SmmuDomain);
    this.#spaces.delete(pasid);
    const commands = new SmmuVirtualCommands(this.#driver.registers);
    if (commands.offered && !commands.free(pasid)) throw new Error('PASID not freed');
  }
  protected drainFaults(): GuestFault[] {
    return this.#driver.events.drain().map(({ name, ssid }) => ({ name, pasid: ssid }));
  }
}
