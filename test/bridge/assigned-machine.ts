import { expect } from 'vitest';
import { pack, type Words } from '../../src/spec/define.js';
import { ANY_COMMAND, CMD, COMMAND_BYTES } from '../../src/spec/smmuv3/commands.js';
import * as SMMU from '../../src/spec/smmuv3/registers.js';
import { CD, STE, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { COMMAND, STATUS, TestdevDriver, VIRT_MACHINE } from './testdev-driver.js';
import { Vcpu } from './vcpu.js';

const RID = 0x10;
const DID = 5;
/** Input address of page 0. */
const IOVA = 0x4000_0000;
const SIXTEEN = Buffer.from('sixteen letters.');
/** Leaf tables, one after the other, and the entries of each. */
const TABLES = 16;
const ENTRIES = 512;
/** Where the vCPU of an arm64 machine has its program. */
const PROGRAM_AT = 0x4018_0000;
/** Bytes that one packet of QEMU's gdb stub has room for. */
const PACKET = 1024;

/**
 * A machine that stands still, with `viommu-testdev` as an assigned device and tables of 4 KiB
 * pages for it; what a guest would do to them and to the unit comes from outside.
 */
export abstract class AssignedMachine {
  readonly qemu: BridgeQemu;
  memory!: PhysicalMemory;
  device!: TestdevDriver;
  /** Guest-physical address of RAM that nothing else uses: 64 MiB of it. */
  abstract readonly data: number;
  /** Of the first leaf table. */
  abstract readonly leaves: number;
  /** Of the entry that points to the first leaf table. */
  protected abstract readonly links: number;

  constructor(arch: 'amd64' | 'arm64') {
    this.qemu = new BridgeQemu(arch);
  }

  /** Starts QEMU. @param options of the test device, with a comma before each */
  abstract start(options?: string): Promise<void>;

  /**
   * Finds the test device and gives it addresses: at the start, and after a reset of the machine.
   */
  abstract open(): Promise<void>;

  /** Tables with nothing in them, for the test device; then translation on. */
  abstract enable(): Promise<void>;

  /** The guest has seen that what it announced is complete. */
  abstract settled(): Promise<void>;

  /** The guest says that translations of `2^order` pages have changed, and does not wait. */
  protected abstract announce(index: number, order: number): Promise<void>;

  /** The entry for a page, and the one that points to a table. */
  abstract leaf(gpa: number): bigint;
  abstract link(table: number): bigint;

  /** Where page `index` is for the device. */
  iova(index: number): number {
    return IOVA + index * 4096;
  }

  /**
   * Maps page `index` to `gpa`, or to nothing, and announces it where the unit has to be told; see
   * {@link settled}.
   */
  async change(index: number, gpa?: number): Promise<void> {
    await this.changeTo(index, gpa === undefined ? 0n : this.leaf(gpa));
  }

  /** The same with any entry. */
  async changeTo(index: number, entry: bigint): Promise<void> {
    await this.store(this.leaves + index * 8, entry);
    await this.announce(index, 0);
  }

  /**
   * Fills leaf table `number` while nothing points to it, then puts it in; `gpa` of its pages by
   * their index.
   */
  async fill(number: number, gpa: (index: number) => number): Promise<void> {
    const first = number * ENTRIES;
    await this.store(this.links + number * 8, 0n);
    await this.announce(first, 9);
    await this.settled();
    const table = Buffer.alloc(ENTRIES * 8);
    for (let n = 0; n < ENTRIES; n++) table.writeBigUInt64LE(this.leaf(gpa(first + n)), n * 8);
    await this.writeTable(this.leaves + number * 4096, table);
    await this.store(this.links + number * 8, this.link(this.leaves + number * 4096));
    await this.announce(first, 9);
  }

  /** Stores that are not trapped, as long as nothing points to the table. */
  async writeTable(address: number, table: Buffer): Promise<void> {
    for (let at = 0; at < table.length; at += PACKET) {
      await this.memory.write(address + at, table.subarray(at, at + PACKET));
    }
  }

  async dma(kind: number, address: number): Promise<number> {
    return await this.device.run(kind, { address, length: SIXTEEN.length });
  }

  /** Writes through the device and looks where it came out. */
  async expectReaches(address: number, gpa: number): Promise<void> {
    await this.memory.write(gpa, Buffer.alloc(SIXTEEN.length));
    await this.device.setBuffer(0, SIXTEEN);
    expect(await this.dma(COMMAND.WRITE, address), this.qemu.text).toBe(STATUS.DONE);
    expect((await this.memory.read(gpa, SIXTEEN.length)).equals(SIXTEEN)).toBe(true);
  }

  /** Names of the overlays that trap stores. */
  async trackedPages(): Promise<string[]> {
    return [...new Set((await this.monitor('info mtree')).match(/alias viommu-tracked-[0-9a-f]+/g))];
  }

  /** QEMU's map of an address space, a line for each piece; of all with that name. */
  async memoryMap(addressSpace: string): Promise<string> {
    const maps = (await this.monitor('info mtree -f')).split(/^FlatView #/m);
    const found = maps.filter((text) => text.includes(` AS "${addressSpace}", `));
    if (found.length === 0) throw new Error(`no address space ${addressSpace}`);
    return found.join('');
  }

  /** Pieces of guest RAM there. */
  async ramPieces(addressSpace: string): Promise<number> {
    return (await this.memoryMap(addressSpace)).match(/\): ram0\b/g)?.length ?? 0;
  }

  /** A command of the human monitor. */
  async monitor(command: string): Promise<string> {
    return String(await this.qemu.command('human-monitor-command', { 'command-line': command }));
  }

  dispose(): void {
    this.memory?.close();
    this.qemu.dispose();
  }

  protected async power(
    options: string,
    unit: string,
    machine?: string,
    more: readonly string[] = [],
  ): Promise<void> {
    const gdb = `unix:${this.qemu.path('gdb')},server=on,wait=off`;
    const device = ['-S', '-device', `viommu-testdev,assigned=on${options}`, '-gdb', gdb];
    this.qemu.start(unit, [...device, ...more], undefined, machine);
    await this.qemu.command('query-status');
    this.memory = await PhysicalMemory.connect(this.qemu.path('gdb'));
    await this.open();
  }

  /** One store of 8 bytes. */
  async store(address: number, value: bigint): Promise<void> {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    await this.memory.write(address, bytes);
  }

  protected async completed(address: number, done: (value: number) => boolean): Promise<void> {
    for (let tries = 0; !done((await this.memory.readWord(address)) >>> 0); tries++) {
      if (tries === 500 || this.qemu.text !== '') {
        throw new Error(`no completion at 0x${address.toString(16)} ${this.qemu.text}`);
      }
      await new Promise((wake) => setTimeout(wake, 10));
    }
  }
}

/** Behind a VT-d with caching mode. */
export class VtdAssigned extends AssignedMachine {
  readonly data = 0x200_0000;
  readonly leaves = 0x11_0000;
  protected readonly links = 0x10_4000;
  #iotlb = 0;

  constructor() {
    super('amd64');
  }

  override async start(options = ''): Promise<void> {
    await this.power(options, ',caching-mode=on');
  }

  override async open(): Promise<void> {
    this.device = await TestdevDriver.start(this.qemu, this.memory, RID, 0);
  }

  override async enable(): Promise<void> {
    const [unit, root, context, top, next] = [0xfed9_0000, 0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000];
    const [gcmd, gsts, rtaddr, ccmd] = [unit + 0x18, unit + 0x1c, unit + 0x20, unit + 0x28];
    const command = async (bits: number): Promise<void> => {
      await this.memory.writeWord(gcmd, bits);
      await this.completed(gsts, (value) => (value & bits) !== 0);
    };
    this.#iotlb = unit + (((await this.memory.readWord(unit + 0x10)) >>> 8) & 0x3ff) * 16 + 8;
    await this.store(root, BigInt(context) | 1n);
    await this.store(context + RID * 16, BigInt(top) | 1n);
    await this.store(context + RID * 16 + 8, 2n | (BigInt(DID) << 8n));
    await this.store(top, BigInt(next) | 3n);
    await this.store(next + 8, BigInt(this.links) | 3n);
    for (let n = 0; n < TABLES; n++) await this.store(this.links + n * 8, this.link(this.leaves + n * 4096));
    await this.store(rtaddr, BigInt(root));
    await command(0x4000_0000);
    await this.store(ccmd, (1n << 63n) | (1n << 61n));
    await this.completed(ccmd + 4, (high) => high >>> 31 === 0);
    await this.store(this.#iotlb, (1n << 63n) | (1n << 60n));
    await this.settled();
    await command(0x8000_0000);
  }

  override async settled(): Promise<void> {
    await this.completed(this.#iotlb + 4, (high) => high >>> 31 === 0);
  }

  protected override async announce(index: number, order: number): Promise<void> {
    await this.store(this.#iotlb - 8, BigInt(this.iova(index) + order));
    await this.store(this.#iotlb, (1n << 63n) | (3n << 60n) | (BigInt(DID) << 32n));
  }

  override leaf(gpa: number): bigint {
    return BigInt(gpa) | 3n;
  }

  override link(table: number): bigint {
    return BigInt(table) | 3n;
  }
}

/**
 * The SMMUv3's registers, and where its stream table, the context descriptor and the command queue
 * are.
 */
const SMMU_AT = { unit: 0x905_0000, streams: 0x4010_0000, context: 0x4010_1000, commands: 0x4010_4000 };
/** Commands that its queue has room for. */
const COMMANDS = 16;

/**
 * Behind an SMMUv3, which has no caching mode: a store to its tables is trapped, and ends when it
 * is in force.
 */
export class SmmuAssigned extends AssignedMachine {
  readonly data = 0x4200_0000;
  /** Entry `n` is for the input addresses from n GiB on; entry 1 is taken. */
  readonly root = 0x4010_2000;
  readonly leaves = 0x4011_0000;
  protected readonly links = 0x4010_3000;
  #vcpu!: Vcpu;
  /** Commands given to the unit. */
  #commands = 0;

  constructor() {
    super('arm64');
  }

  /**
   * @param more arguments: a device that this adds has RID 0x18
   * @param machine options of the machine, with a comma before each
   */
  override async start(options = '', more: readonly string[] = [], machine = ''): Promise<void> {
    await this.power(options, '', VIRT_MACHINE + machine, ['-cpu', 'cortex-a57', ...more]);
  }

  override async open(): Promise<void> {
    this.#vcpu = await Vcpu.start(this.memory, PROGRAM_AT);
    this.device = await TestdevDriver.startOnVirt(this.memory, RID);
    this.#commands = 0;
  }

  /** Gives another device the same tables, before {@link enable}. */
  async attach(rid: number): Promise<void> {
    const entry = pack(STE, { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: SMMU_AT.context });
    await this.#put(SMMU_AT.streams + rid * STE.bytes, entry);
  }

  /** An invalidation of all translations that has completed. */
  async invalidate(): Promise<void> {
    for (const opcode of [CMD.TLBI_NSNH_ALL, CMD.SYNC]) {
      const index = this.#commands++ % COMMANDS;
      await this.#put(SMMU_AT.commands + index * COMMAND_BYTES, pack(ANY_COMMAND, { Opcode: opcode }));
    }
    const position = this.#commands % (2 * COMMANDS);
    await this.memory.writeWord(SMMU_AT.unit + SMMU.CMDQ_PROD.offset, position);
    await this.completed(SMMU_AT.unit + SMMU.CMDQ_CONS.offset, (value) => value === position);
  }

  override async enable(): Promise<void> {
    const top = this.root;
    const { unit, streams, context, commands } = SMMU_AT;
    await this.#put(
      context,
      pack(CD, { V: 1, AA64: 1, A: 1, R: 1, IPS: 5, EPD1: 1, T0SZ: 25, TTB0: top, ASID: 1 }),
    );
    await this.attach(RID);
    await this.store(top + 8, BigInt(this.links) | 3n);
    for (let n = 0; n < TABLES; n++) await this.store(this.links + n * 8, this.link(this.leaves + n * 4096));
    await this.store(unit + SMMU.STRTAB_BASE.offset, BigInt(streams));
    await this.memory.writeWord(unit + SMMU.STRTAB_BASE_CFG.offset, 5);
    await this.store(unit + SMMU.CMDQ_BASE.offset, BigInt(commands) | 4n);
    const on = pack(SMMU.CR0, { SMMUEN: 1, CMDQEN: 1 })[0];
    await this.memory.writeWord(unit + SMMU.CR0.offset, on);
    await this.completed(unit + SMMU.CR0ACK.offset, (value) => value === on);
  }

  override async store(address: number, value: bigint): Promise<void> {
    await this.#vcpu.store(address, value);
  }

  override async settled(): Promise<void> {}

  protected override async announce(): Promise<void> {}

  async #put(at: number, words: Words): Promise<void> {
    await this.memory.write(at, new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
  }

  override leaf(gpa: number): bigint {
    return BigInt(gpa) | 0x443n;
  }

  override link(table: number): bigint {
    return BigInt(table) | 3n;
  }
}
