/**
 * Invalidation queue and fault records of the host's VT-d unit, as its kernel drives them. VT-d
 * §6.5.2, §7.2.
 */
import { PAGE_BYTES } from '../../base/page.js';
import { pack } from '../../spec/define.js';
import { DESCRIPTOR, INV_WAIT_DSC } from '../../spec/vtd/descriptors.js';
import {
  FRCD_BYTES,
  FRCD_OFFSET,
  FRCD_REG,
  FSTS_REG,
  IQA_REG,
  IQERCD_REG,
  IQT_REG,
} from '../../spec/vtd/registers.js';
import type { HostMemory } from './memory.js';
import type { HostUnit } from './unit.js';

/** 256-bit descriptors, in one page. */
const DESCRIPTOR_BYTES = 32;
const ENTRIES = PAGE_BYTES / DESCRIPTOR_BYTES;
const DONE = 1;
const FAULT_BIT = 2 ** 31;

export class VtdQueue {
  readonly #unit: HostUnit;
  readonly #memory: HostMemory;
  readonly #records: number;
  readonly #queue: number;
  readonly #status: number;
  readonly #wait;
  #tail = 0;
  #outstanding = 0;
  #nextRecord = 0;

  constructor(unit: HostUnit, memory: HostMemory, records: number) {
    this.#unit = unit;
    this.#memory = memory;
    this.#records = records;
    this.#queue = memory.pool.take('fixed');
    this.#status = memory.pool.take('fixed');
    this.#wait = pack(INV_WAIT_DSC, {
      TypeLow: DESCRIPTOR.WAIT,
      SW: 1,
      FN: 1,
      StatusData: DONE,
      StatusAddress: this.#status,
    });
    unit.write64(IQT_REG.offset, 0);
    unit.write64(IQA_REG.offset, this.#queue + 2 ** IQA_REG.fields.DW.lsb);
  }

  /** Puts a descriptor on the queue; it takes effect at the next {@link sync} at the latest. */
  push(words: ArrayLike<number>): void {
    this.#store(words);
    this.#tail = (this.#tail + DESCRIPTOR_BYTES) % PAGE_BYTES;
    // The queue is full when one more would meet the head.
    if (++this.#outstanding === ENTRIES - 2) this.sync();
  }

  /** A wait descriptor: everything that was pushed is done. */
  sync(): void {
    this.#memory.store32(this.#status, 0);
    this.#store(this.#wait);
    this.#tail = (this.#tail + DESCRIPTOR_BYTES) % PAGE_BYTES;
    this.#outstanding = 0;
    this.#unit.write64(IQT_REG.offset, this.#tail);
    this.#memory.load32(this.#status);
    if (this.#memory.lo === DONE) return;
    const why = IQERCD_REG.get.IQEI(this.#unit.registers, IQERCD_REG.offset >> 2);
    throw new Error(`the host's invalidation queue stopped: IQEI ${why}`);
  }

  /** No descriptor of ours has anything in its upper 128 bits, which stay zero. */
  #store(words: ArrayLike<number>): void {
    const at = this.#queue + this.#tail;
    this.#memory.store64(at, words[0] | 0, words[1] | 0);
    this.#memory.store64(at + 8, words[2] | 0, words[3] | 0);
  }

  /** The next fault record, cleared in its register, or undefined. */
  takeFault(): Uint32Array | undefined {
    const offset = FRCD_OFFSET + this.#nextRecord * FRCD_BYTES;
    const base = offset >> 2;
    const { registers } = this.#unit;
    if (FRCD_REG.get.F(registers, base) === 0) {
      if (FSTS_REG.get.PFO(registers, FSTS_REG.offset >> 2) === 1) this.#unit.write32(FSTS_REG.offset, 1);
      return undefined;
    }
    const record = registers.slice(base, base + FRCD_BYTES / 4);
    this.#unit.write32(offset + 12, FAULT_BIT);
    this.#nextRecord = (this.#nextRecord + 1) % this.#records;
    return record;
  }
}
