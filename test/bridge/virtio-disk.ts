import type { PhysicalMemory } from './physical-memory.js';

/**
 * Where configuration space is on `virt`, and where the driver puts the structures of the device.
 */
const ECAM = 0x3f00_0000;
const BAR = 0x1080_0000;
/** Of QEMU's virtio PCI devices, in BAR 4. */
const NOTIFY = 0x3000;
/** Fields of the common configuration structure, VIRTIO 1.2 §4.1.4.3. */
const COMMON = {
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  STATUS: 0x14,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_ENABLE: 0x1c,
  QUEUE_DESC: 0x20,
  QUEUE_DRIVER: 0x28,
  QUEUE_DEVICE: 0x30,
} as const;
const STATUS = { ACKNOWLEDGE: 1, DRIVER: 2, DRIVER_OK: 4, FEATURES_OK: 8, NEEDS_RESET: 0x40 } as const;
/** Features 32 and 33: VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM. */
const FEATURES = 3;
const DESCRIPTOR = { NEXT: 1, WRITE: 2 } as const;
const DESCRIPTOR_BYTES = 16;
const SLOTS = 8;
/** Inside of the page that driver and device share. */
const AT = { descriptors: 0, available: 0x100, used: 0x200, header: 0x300, status: 0x310 } as const;
const [HEADER_BYTES, STATUS_BYTES] = [16, 1];
const SECTOR = 512;
/** What the driver puts where the device says how a request ended. */
const NO_STATUS = 0xff;

/** Drives a virtio-blk-pci behind the IOMMU from outside the machine: one request at a time. */
export class VirtioDisk {
  readonly #memory: PhysicalMemory;
  /** The shared page in memory, and for the device. */
  readonly #page: number;
  readonly #iova: number;
  /** Requests that were made. */
  #made = 0;

  private constructor(memory: PhysicalMemory, page: number, iova: number) {
    this.#memory = memory;
    this.#page = page;
    this.#iova = iova;
  }

  static async start(memory: PhysicalMemory, rid: number, page: number, iova: number): Promise<VirtioDisk> {
    const config = ECAM + rid * 4096;
    await memory.writeWord(config + 0x20, BAR);
    await memory.writeWord(config + 0x24, 0);
    await memory.writeWord(config + 0x04, 6, 2);
    await memory.write(page, Buffer.alloc(0x400));
    const disk = new VirtioDisk(memory, page, iova);
    let status = 0;
    const say = async (bit: number): Promise<void> => {
      status |= bit;
      await memory.writeWord(BAR + COMMON.STATUS, status, 1);
    };
    await say(0);
    await say(STATUS.ACKNOWLEDGE);
    await say(STATUS.DRIVER);
    await memory.writeWord(BAR + COMMON.DRIVER_FEATURE_SELECT, 1);
    await memory.writeWord(BAR + COMMON.DRIVER_FEATURE, FEATURES);
    await say(STATUS.FEATURES_OK);
    await memory.writeWord(BAR + COMMON.QUEUE_SELECT, 0, 2);
    await memory.writeWord(BAR + COMMON.QUEUE_SIZE, SLOTS, 2);
    for (const [field, offset] of [
      [COMMON.QUEUE_DESC, AT.descriptors],
      [COMMON.QUEUE_DRIVER, AT.available],
      [COMMON.QUEUE_DEVICE, AT.used],
    ] as const) {
      await memory.writeWord(BAR + field, iova + offset);
      await memory.writeWord(BAR + field + 4, 0);
    }
    await memory.writeWord(BAR + COMMON.QUEUE_ENABLE, 1, 2);
    await say(STATUS.DRIVER_OK);
    return disk;
  }

  /** Has the device store the disk's bytes from `offset` on to one buffer, and does not wait. */
  async read(offset: number, address: number, bytes: number): Promise<void> {
    const memory = this.#memory;
    const page = this.#page;
    const iova = this.#iova;
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(offset / SECTOR, 8);
    await memory.write(page + AT.header, header);
    await memory.writeWord(page + AT.status, NO_STATUS, 1);
    const chain = Buffer.alloc(3 * DESCRIPTOR_BYTES);
    const { NEXT, WRITE } = DESCRIPTOR;
    for (const [index, [at, length, flags]] of [
      [iova + AT.header, HEADER_BYTES, NEXT],
      [address, bytes, NEXT | WRITE],
      [iova + AT.status, STATUS_BYTES, WRITE],
    ].entries()) {
      const descriptor = index * DESCRIPTOR_BYTES;
      chain.writeBigUInt64LE(BigInt(at as number), descriptor);
      chain.writeUInt32LE(length as number, descriptor + 8);
      chain.writeUInt16LE(flags as number, descriptor + 12);
      chain.writeUInt16LE(index + 1, descriptor + 14);
    }
    await memory.write(page + AT.descriptors, chain);
    await memory.writeWord(page + AT.available + 4 + (this.#made % SLOTS) * 2, 0, 2);
    this.#made++;
    await memory.writeWord(page + AT.available + 2, this.#made & 0xffff, 2);
    await memory.writeWord(BAR + NOTIFY, 0, 2);
  }

  /** The device has no more to do. */
  async idle(): Promise<boolean> {
    return (await this.#memory.readWord(this.#page + AT.used + 2, 2)) === (this.#made & 0xffff);
  }

  /**
   * How the request ended: 0 is success. Throws when it has not within a while, or the device is
   * broken.
   */
  async ended(): Promise<number> {
    for (let tries = 0; !(await this.idle()); tries++) {
      const status = await this.#memory.readWord(BAR + COMMON.STATUS, 1);
      if (tries === 1000 || (status & STATUS.NEEDS_RESET) !== 0) {
        throw new Error(`the disk does not answer, status 0x${status.toString(16)}`);
      }
      await new Promise((wake) => setTimeout(wake, 10));
    }
    return await this.#memory.readWord(this.#page + AT.status, 1);
  }
}
