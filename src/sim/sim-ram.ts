import { closeFd, FileMapping, memoryFile } from '../base/native.js';
import type { GuestRam } from './machine.js';

/** One region: an anonymous file, mapped here and, by MEM_ADD, in the daemon. */
export class RamRegion {
  readonly fd: number;
  readonly #file: FileMapping;
  words: Int32Array;
  bytes: Uint8Array;

  /**
   * At most 1 GiB, so that one view covers it.
   * @param hugePage bytes of the huge pages that it is made of; 0 = ordinary ones
   */
  constructor(
    readonly id: number,
    readonly base: number,
    readonly size: number,
    hugePage = 0,
  ) {
    if (size > 2 ** 30) throw new RangeError('simulated RAM: a region has at most 1 GiB');
    this.fd = memoryFile(`viommu-sim-ram${id}`, size, true, hugePage);
    this.#file = new FileMapping(this.fd, 0, size, true);
    const memory = this.#file.view(0, size);
    this.words = new Int32Array(memory);
    this.bytes = new Uint8Array(memory);
  }

  /** Gives the memory back; the views become empty first. */
  close(): void {
    this.words = new Int32Array(0);
    this.bytes = new Uint8Array(0);
    this.#file.unmap();
    closeFd(this.fd);
  }
}

/** The simulated VM's RAM. */
export class SimRam implements GuestRam {
  readonly regions: RamRegion[] = [];
  /** Called after every store of the guest. */
  onStore: (gpa: number, bytes: number) => void = () => {};
  #nextId = 1;

  add(base: number, size: number, hugePage = 0): RamRegion {
    const region = new RamRegion(this.#nextId++, base, size, hugePage);
    this.regions.push(region);
    return region;
  }

  remove(region: RamRegion): void {
    const at = this.regions.indexOf(region);
    if (at < 0) return;
    this.regions.splice(at, 1);
    region.close();
  }

  close(): void {
    for (const region of [...this.regions]) this.remove(region);
  }

  find(gpa: number, bytes: number): RamRegion | undefined {
    return this.regions.find((region) => gpa >= region.base && gpa + bytes <= region.base + region.size);
  }

  contains(gpa: number, bytes: number): boolean {
    return this.find(gpa, bytes) !== undefined;
  }

  load32(gpa: number): number {
    const region = this.#need(gpa, 4);
    return Atomics.load(region.words, (gpa - region.base) / 4);
  }

  store32(gpa: number, value: number): void {
    const region = this.#need(gpa, 4);
    Atomics.store(region.words, (gpa - region.base) / 4, value | 0);
    this.onStore(gpa, 4);
  }

  load64(gpa: number): bigint {
    const region = this.#need(gpa, 8);
    const index = (gpa - region.base) / 4;
    const low = Atomics.load(region.words, index) >>> 0;
    const high = Atomics.load(region.words, index + 1) >>> 0;
    return (BigInt(high) << 32n) | BigInt(low);
  }

  /** High half first, because an entry's present bit is in the low half. */
  store64(gpa: number, value: bigint): void {
    const region = this.#need(gpa, 8);
    const index = (gpa - region.base) / 4;
    Atomics.store(region.words, index + 1, Number((value >> 32n) & 0xffff_ffffn) | 0);
    Atomics.store(region.words, index, Number(value & 0xffff_ffffn) | 0);
    this.onStore(gpa, 8);
  }

  /** The bytes of [gpa, gpa + bytes) themselves. */
  view(gpa: number, bytes: number): Uint8Array {
    const region = this.#need(gpa, bytes);
    return region.bytes.subarray(gpa - region.base, gpa - region.base + bytes);
  }

  #need(gpa: number, bytes: number): RamRegion {
    const region = this.find(gpa, bytes);
    if (region === undefined) throw new RangeError(`simulated RAM: nothing at 0x${gpa.toString(16)}`);
    return region;
  }
}
