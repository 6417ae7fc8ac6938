/**
 * A guest without a vIOMMU: device addresses are what the monitor maps, page by page here. No
 * daemon has a part in it.
 */
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import type { SimGuest } from '../../src/host/sim/sim-guest.js';
import { RigGuest } from '../support/host-rig.js';
import { PortRam } from '../support/local-machine.js';
import { addDevice, type CellGuest, type Making } from './guest.js';

const SPACE = 1;
const ALL_PAGES = 2 ** 30;

export class BypassGuest implements CellGuest {
  readonly #making: Making;
  readonly device: SimDevice;
  readonly ram: PortRam;
  readonly #rig: RigGuest;

  constructor(making: Making) {
    this.#making = making;
    this.#rig = new RigGuest(making.host, making.name, 'type1');
    this.ram = new PortRam(this.#rig.memory);
    this.device = addDevice(making, this.#rig.port);
    this.#rig.space(SPACE, this.device);
    this.#rig.attach(this.device, SPACE);
  }

  get side(): SimGuest {
    return this.#rig.port;
  }
  map(_pasid: number, address: number, gpa: number): void {
    const { code, text } = this.#rig.map(SPACE, address / 4096, gpa / 4096, 1);
    if (code !== 'OK') throw new Error(text);
  }
  unmap(_pasid: number, address: number): void {
    this.#rig.unmap(SPACE, address / 4096, 1);
  }
  createPasid(): number {
    throw new Error('no PASIDs without a vIOMMU');
  }
  destroyPasid(): void {}
  faults(): undefined {
    return undefined;
  }
  reset(): void {
    this.#rig.unmap(SPACE, 0, ALL_PAGES);
  }
  restart(): void {
    this.reset();
  }
  unplug(): void {
    this.#rig.detach(this.device);
    this.#rig.ok((port, done) => port.destroySpace(SPACE, done));
    this.#making.host.removeDevice(this.device);
  }
  close(): void {
    this.#making.host.removeGuest(this.#rig.port);
  }
}
