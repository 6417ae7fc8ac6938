import { PAGE_BYTES, PAGE_OFFSET } from '../base/page.js';
import { ACCESS } from '../device/iommu.js';
import type { Machine } from './machine.js';

/** How a transfer ended. */
interface DmaResult {
  readonly done: number;
  /** First address that the IOMMU refused or that led to no memory; undefined if there was none. */
  readonly failedAt: bigint | undefined;
}

/**
 * A device that moves bytes between itself and guest memory, page by page, as a bus master does.
 */
export class DmaDevice {
  readonly #machine: Machine;
  /** Bytes moved since the device was made. */
  moved = 0;

  /** `pasid` −1: its requests carry none. */
  constructor(
    machine: Machine,
    readonly rid: number,
    readonly pasid = -1,
  ) {
    this.#machine = machine;
  }

  /** Device to memory. `data` in 32-bit words, `address` 4-byte aligned. */
  write(address: bigint, data: Uint32Array): DmaResult {
    return this.#move(address, data.length * 4, ACCESS.WRITE, (gpa, at) => {
      this.#machine.ram.store32(gpa, data[at]);
    });
  }

  /** Memory to device: fills `data`. */
  read(address: bigint, data: Uint32Array): DmaResult {
    return this.#move(address, data.length * 4, ACCESS.READ, (gpa, at) => {
      data[at] = this.#machine.ram.load32(gpa);
    });
  }

  #move(address: bigint, bytes: number, access: number, word: (gpa: number, at: number) => void): DmaResult {
    let done = 0;
    while (done < bytes) {
      const at = address + BigInt(done);
      const found = this.#machine.translate(this.rid, this.pasid, access, at);
      if (found === undefined || (found.permissions & access) !== access) return { done, failedAt: at };
      // A request never crosses a page, as on a bus, so every page is looked up.
      const inPage = PAGE_BYTES - Number(at & BigInt(PAGE_OFFSET));
      const length = Math.min(bytes - done, found.length, inPage);
      if (!this.#machine.ram.contains(found.gpa, length)) return { done, failedAt: at };
      for (let i = 0; i < length; i += 4) word(found.gpa + i, (done + i) / 4);
      done += length;
      this.moved += length;
    }
    return { done, failedAt: undefined };
  }
}

/** A pattern of seed and position: a page in the wrong place changes the checksum. */
export function pattern(words: number, seed: number): Uint32Array {
  const data = new Uint32Array(words);
  let state = (seed ^ 0x9e37_79b9) >>> 0 || 1;
  for (let i = 0; i < words; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data[i] = state >>> 0;
  }
  return data;
}

/** FNV-1a over the words; what the demo prints. */
export function checksum(data: Uint32Array): number {
  let hash = 0x811c_9dc5;
  for (const word of data) {
    hash = Math.imul(hash ^ (word & 0xffff), 0x0100_0193);
    hash = Math.imul(hash ^ (word >>> 16), 0x0100_0193);
  }
  return hash >>> 0;
}
