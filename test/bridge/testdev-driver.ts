import type { PhysicalMemory } from './physical-memory.js';
import type { BridgeQemu } from './qemu.js';

/** Where the driver puts things in q35's holes. */
const ECAM = 0xb000_0000;
const REGISTERS = 0xe000_0000;
const BUFFER = 0xe010_0000;

/** Where they are on `virt`: what the machine has there, without a window above 4 GiB. */
export const VIRT_MACHINE = 'virt,gic-version=3,highmem-ecam=off';
const VIRT = { ecam: 0x3f00_0000, registers: 0x1000_0000, buffer: 0x1010_0000, apart: 0x20_0000 };

/** Registers of docs/testdev.md. */
export const REG = {
  ID: 0x00,
  VERSION: 0x04,
  FEATURES: 0x08,
  ADDRESS_LO: 0x10,
  ADDRESS_HI: 0x14,
  LENGTH: 0x18,
  OFFSET: 0x1c,
  PASID: 0x20,
  CONTROL: 0x24,
  COMMAND: 0x28,
  STATUS: 0x2c,
  RESULT: 0x30,
  BYTES_DONE: 0x34,
  FAULT_LO: 0x38,
  FAULT_HI: 0x3c,
  COMPLETED: 0x48,
  BEHAVIOUR: 0x50,
  WAITING: 0x54,
  ENABLED: 0x58,
  TRANSLATION_REQUESTS: 0x60,
  ATC_HITS: 0x64,
  ATC_ENTRIES: 0x68,
  INVALIDATIONS: 0x6c,
  PAGE_REQUESTS: 0x70,
  PAGE_RESPONSES: 0x74,
  PAGE_CODE: 0x78,
  STALLS: 0x7c,
} as const;
export const FEATURE_BIT = { PASID: 1, ATS: 2, PRI: 4, STALLS: 8 } as const;
export const CONTROL_BIT = { INTERRUPT: 1, ATS: 2, PRI: 4, STALL: 8 } as const;
export const COMMAND = { READ: 1, WRITE: 2, REQUEST_PAGES: 5, STOP_MARKER: 6, CANCEL: 7 } as const;
export const STATUS = { IDLE: 0, BUSY: 1, DONE: 2, FAULT: 3, REJECTED: 4 } as const;
export const WAITING = { NOTHING: 0, RESUME: 1, PAGE: 2, RELEASE: 3 } as const;
export const BEHAVIOUR = { LATER: 1, NEVER: 2, HOLD: 4, ONCE: 0x1_0000 } as const;
export const PASID_VALID = 0x8000_0000;
export const RESULT = {
  REFUSED: 2,
  UNSUPPORTED_REQUEST: 0x10,
  COMPLETER_ABORT: 0x20,
  NOT_MAPPED: 0x40,
  PAGE_REFUSED: 0x80,
  STALL_ABORTED: 0x100,
  ENDED: 0x200,
  CANCELLED: 0x400,
} as const;

/** Extended capabilities of PCI Express. */
export const CAPABILITY = { ATS: 0x0f, PRI: 0x13, PASID: 0x1b } as const;

interface Transfer {
  readonly address: number;
  readonly length?: number;
  readonly pasid?: number;
  readonly control?: number;
  readonly offset?: number;
}

/** Drives one viommu-testdev from outside the machine, as a guest's driver does from inside. */
export class TestdevDriver {
  readonly memory: PhysicalMemory;
  readonly #config: number;
  readonly #registers: number;
  readonly #buffer: number;

  private constructor(memory: PhysicalMemory, config: number, registers = REGISTERS, buffer = BUFFER) {
    this.memory = memory;
    this.#config = config;
    this.#registers = registers;
    this.#buffer = buffer;
  }

  /**
   * The same on `virt`, on the root bus. @param number of those that a test drives at once, from 0
   */
  static async startOnVirt(memory: PhysicalMemory, rid: number, number = 0): Promise<TestdevDriver> {
    const apart = number * VIRT.apart;
    const { ecam, registers, buffer } = VIRT;
    const driver = new TestdevDriver(memory, ecam + rid * 4096, registers + apart, buffer + apart);
    await driver.enable();
    return driver;
  }

  /**
   * Gives the function its addresses and switches it on.
   * @param rid 0x10 = bus 0, slot 2; on bus 1 behind the bridge `bridge`
   */
  static async start(
    qemu: BridgeQemu,
    memory: PhysicalMemory,
    rid: number,
    bridge: number,
  ): Promise<TestdevDriver> {
    await openEcam(qemu);
    if (rid >= 0x100) await openBridge(memory, ecam(bridge));
    const driver = new TestdevDriver(memory, ecam(rid));
    await driver.enable();
    return driver;
  }

  /** What a reset of the function undoes. */
  async enable(): Promise<void> {
    await this.writeConfig(0x10, this.#registers, 4);
    await this.writeConfig(0x14, this.#buffer, 4);
    await this.writeConfig(0x04, 6, 2);
  }

  readConfig(offset: number, size: 1 | 2 | 4): Promise<number> {
    return this.memory.readWord(this.#config + offset, size);
  }

  writeConfig(offset: number, value: number, size: 1 | 2 | 4): Promise<void> {
    return this.memory.writeWord(this.#config + offset, value, size);
  }

  /** Where an extended capability is, or undefined. */
  capability(id: number): Promise<number | undefined> {
    return extendedCapability(this.memory, this.#config, id);
  }

  /** Where a capability of the first 256 bytes is. */
  oldCapability(id: number): Promise<number> {
    return oldCapability(this.memory, this.#config, id);
  }

  async #control(id: number, value: number): Promise<void> {
    const at = await this.capability(id);
    if (at === undefined) throw new Error(`no extended capability 0x${id.toString(16)}`);
    await this.writeConfig(at + (id === CAPABILITY.PRI ? 4 : 6), value, 2);
  }

  enablePasid(on = true): Promise<void> {
    return this.#control(CAPABILITY.PASID, on ? 1 : 0);
  }

  enableAts(on = true): Promise<void> {
    return this.#control(CAPABILITY.ATS, on ? 0x8000 : 0);
  }

  async enablePri(on = true, allocation = 32): Promise<void> {
    const at = (await this.capability(CAPABILITY.PRI)) as number;
    await this.writeConfig(at + 12, allocation, 4);
    await this.#control(CAPABILITY.PRI, on ? 1 : 0);
  }

  /** Clears its failures, which takes that it is off. */
  async resetPri(): Promise<void> {
    await this.enablePri(false);
    await this.#control(CAPABILITY.PRI, 2);
  }

  async priStatus(): Promise<number> {
    return this.readConfig(((await this.capability(CAPABILITY.PRI)) as number) + 6, 2);
  }

  reg(register: number): Promise<number> {
    return this.memory.readWord(this.#registers + register);
  }

  setReg(register: number, value: number): Promise<void> {
    return this.memory.writeWord(this.#registers + register, value);
  }

  buffer(offset: number, size: number): Promise<Buffer> {
    return this.memory.read(this.#buffer + offset, size);
  }

  setBuffer(offset: number, bytes: Uint8Array): Promise<void> {
    return this.memory.write(this.#buffer + offset, bytes);
  }

  /** Starts a command and returns at once. */
  async command(command: number, transfer: Transfer): Promise<void> {
    const { address, length = 16, pasid, control = 0, offset = 0 } = transfer;
    await this.setReg(REG.ADDRESS_LO, address % 2 ** 32);
    await this.setReg(REG.ADDRESS_HI, Math.floor(address / 2 ** 32));
    await this.setReg(REG.LENGTH, length);
    await this.setReg(REG.OFFSET, offset);
    await this.setReg(REG.PASID, pasid === undefined ? 0 : PASID_VALID + pasid);
    await this.setReg(REG.CONTROL, control);
    await this.setReg(REG.COMMAND, command);
  }

  /** The status once the command has ended. */
  async ended(): Promise<number> {
    for (let tries = 0; tries < 2000; tries++) {
      const status = await this.reg(REG.STATUS);
      if (status !== STATUS.BUSY) return status;
      await new Promise((wake) => setTimeout(wake, 5));
    }
    throw new Error(`the command waits for ${await this.reg(REG.WAITING)}`);
  }

  /** Until the command under way waits for this. */
  async waitsFor(what: number): Promise<void> {
    for (let tries = 0; tries < 2000; tries++) {
      if ((await this.reg(REG.WAITING)) === what) return;
      await new Promise((wake) => setTimeout(wake, 5));
    }
    throw new Error(`status ${await this.reg(REG.STATUS)}, waits for ${await this.reg(REG.WAITING)}`);
  }

  async run(command: number, transfer: Transfer): Promise<number> {
    await this.command(command, transfer);
    return this.ended();
  }
}

/** Where a capability of a function's first 256 bytes is. */
export async function oldCapability(memory: PhysicalMemory, config: number, id: number): Promise<number> {
  let offset = await memory.readWord(config + 0x34, 1);
  for (let hops = 0; hops < 48 && offset !== 0; hops++) {
    if ((await memory.readWord(config + offset, 1)) === id) return offset;
    offset = await memory.readWord(config + offset + 1, 1);
  }
  throw new Error(`no capability 0x${id.toString(16)}`);
}

/** Where an extended capability of a function is, or undefined. */
export async function extendedCapability(
  memory: PhysicalMemory,
  config: number,
  id: number,
): Promise<number | undefined> {
  let offset = 0x100;
  for (let hops = 0; hops < 48 && offset !== 0; hops++) {
    const header = await memory.readWord(config + offset);
    if ((header & 0xffff) === id) return offset;
    offset = header >>> 20;
  }
  return undefined;
}

/** PCIEXBAR of q35's host bridge: configuration space of every bus as memory. */
async function openEcam(qemu: BridgeQemu): Promise<void> {
  for (const line of ['o /w 0xcf8 0x80000060', `o /w 0xcfc 0x${(ECAM + 1).toString(16)}`]) {
    await qemu.command('human-monitor-command', { 'command-line': line });
  }
}

/** Bus 1 behind it, the function's addresses, and DMA upwards. */
export async function openBridge(memory: PhysicalMemory, config: number): Promise<void> {
  await memory.writeWord(config + 0x18, 0x0001_0100);
  await memory.writeWord(
    config + 0x20,
    ((BUFFER >>> 16) & 0xfff0) * 0x1_0000 + ((REGISTERS >>> 16) & 0xfff0),
  );
  await memory.writeWord(config + 0x04, 6, 2);
}

export function ecam(rid: number): number {
  return ECAM + rid * 4096;
}
