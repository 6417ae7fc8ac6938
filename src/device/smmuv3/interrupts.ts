/** Interrupt outputs: an MSI where one is configured, a wired edge otherwise. IHI 0070 §3.18. */
import { join } from '../../base/u64.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import type { ModelCounters } from '../counters.js';
import type { IommuOutputs } from '../iommu.js';
import type { RegisterFile } from '../registers.js';

/** Address bits of an MSI: 51:2. §6.3.20 */
const ADDRESS_LO = ~3;
const ADDRESS_HI = 0xfffff;

export class Interrupts {
  readonly #file: RegisterFile;
  readonly #memory: GuestMemory;
  readonly #outputs: IommuOutputs;
  readonly #counters: ModelCounters;
  constructor(file: RegisterFile, memory: GuestMemory, outputs: IommuOutputs, counters: ModelCounters) {
    this.#file = file;
    this.#memory = memory;
    this.#outputs = outputs;
    this.#counters = counters;
  }

  /**
   * Signals through the registers at `configuration` (IRQ_CFG0, 1 and 2), or the wire. Enables are
   * the caller's.
   */
  raise(configuration: number, wire: number): boolean {
    const lo = this.#file.get(configuration);
    const hi = this.#file.get(configuration + 4);
    return this.message(lo, hi, this.#file.get(configuration + 8), wire);
  }

  /**
   * A 32-bit write of `data`; the wire when the address is zero (§3.18). A driver may let CMD_SYNC
   * write to ordinary memory and poll it there, so memory is stored to at once. False: the address
   * is memory that cannot be written; the caller reports the abort (§7.5). The unit does not learn
   * what becomes of a write elsewhere.
   */
  message(addressLo: number, addressHi: number, data: number, wire: number): boolean {
    const lo = addressLo & ADDRESS_LO;
    const hi = addressHi & ADDRESS_HI;
    this.#counters.interrupts++;
    if ((lo | hi) === 0) {
      this.#outputs.wire?.(wire);
      return true;
    }
    const address = join(lo, hi);
    if (this.#memory.contains(address, 4)) return this.#memory.store32(address, data | 0);
    this.#outputs.interrupt(lo >>> 0, hi >>> 0, data >>> 0);
    return true;
  }
}
