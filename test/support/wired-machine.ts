/**
 * A simulated VM at a real daemon, with devices that a simulated host has assigned to it: all over
 * the protocol.
 */

import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import type { SimHost } from '../../src/host/sim/sim-host.js';
import { MappedMemory } from '../../src/memory/mapped.js';
import { AssignedHost } from '../../src/sim/assigned-host.js';
import { SimVm } from '../../src/sim/vm.js';

interface WiredMachineOptions {
  readonly socket: string;
  readonly host: SimHost;
  readonly name: string;
  readonly bytes: number;
  readonly model: 'vtd' | 'smmuv3';
  readonly options?: Readonly<Record<string, string>>;
  readonly pasidQuota?: number;
  /** False: the daemon reads and writes RAM by messages. */
  readonly sharedMemory?: boolean;
}

export class WiredMachine {
  readonly vm: SimVm;
  readonly host: SimHost;
  readonly guest: SimGuest;
  /** The guest's RAM, as the host reaches it. */
  readonly memory = new MappedMemory();
  readonly assigned: AssignedHost;

  constructor(wanted: WiredMachineOptions) {
    const { socket, host, name, bytes, model, options = {}, pasidQuota, sharedMemory = true } = wanted;
    this.host = host;
    this.vm = SimVm.connect(socket, { name, model, options, ramBytes: bytes, sharedMemory });
    const [{ fd }] = this.vm.ram.regions;
    this.memory.add({ region: 1, gpa: 0, size: bytes, offset: 0, readonly: false, fd, fileBytes: bytes });
    const { memory } = this;
    this.guest = host.addGuest({
      name,
      memory,
      bytes,
      container: 'iommufd',
      ...(pasidQuota && { pasidQuota }),
    });
    this.assigned = new AssignedHost(host, this.guest, this.vm.client);
    this.vm.assigned = this.assigned;
  }

  /**
   * A device that the guest knows as `rid`. Returns what the daemon chose: 0 none, 1 as it is, 2
   * shadow, 3 nest.
   */
  plug(device: SimDevice, rid: number): number {
    this.vm.addDevice(device.number, rid, `assigned ${device.number}`);
    const { choice } = this.assigned.announce(device);
    this.settle();
    return choice;
  }

  /**
   * It goes, with all that it was attached to; then the daemon hears of it, and takes down what it
   * had asked for.
   */
  unplug(device: SimDevice): void {
    this.host.removeDevice(device);
    this.vm.removeDevice(device.number);
    this.settle();
  }

  /**
   * The daemon has ended the connection: says why. Nothing that it had asked for stays, and the
   * guest goes on without DMA.
   */
  ended(): string {
    const { reason } = this.vm.client.awaitEnd();
    this.host.removeGuest(this.guest);
    return reason;
  }

  /** Until the daemon has handled what was sent, and the host what it asked for. */
  settle(): void {
    this.assigned.deliver();
    this.vm.settle();
  }

  /** The VM is unplugged, and its process ends. */
  close(): void {
    this.vm.close();
    this.host.removeGuest(this.guest);
    this.memory.clear();
  }
}
