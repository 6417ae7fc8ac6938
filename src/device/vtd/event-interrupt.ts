/**
 * One of the unit's own message-signalled interrupts, with its mask and pending bits: fault events
 * (VT-d §7.3) and invalidation completion events (§6.5.2.10) work alike.
 */
import { FECTL_REG } from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import type { IommuOutputs } from '../iommu.js';
import type { RegisterFile } from '../registers.js';

/** Both event control registers have these bits. */
const IM = 1 << FECTL_REG.fields.IM.lsb;
const IP = 1 << FECTL_REG.fields.IP.lsb;

/**
 * Byte offsets of an event's control, data, address and upper address registers: consecutive words.
 */
export class EventInterrupt {
  readonly #file: RegisterFile;
  readonly #outputs: IommuOutputs;
  readonly #counters: ModelCounters;
  readonly #control: number;
  constructor(file: RegisterFile, outputs: IommuOutputs, counters: ModelCounters, control: number) {
    this.#file = file;
    this.#outputs = outputs;
    this.#counters = counters;
    this.#control = control;
    file.onWrite(control, () => this.#controlWritten());
  }

  /**
   * A new interrupt condition. The caller has checked that no earlier one waits for software (a
   * condition on top of another is not a new one).
   */
  raise(): void {
    if ((this.#file.get(this.#control) & IM) !== 0) this.#file.update(this.#control, IP, IP);
    else this.#send();
  }

  /** Clearing IM lets a held interrupt out. */
  #controlWritten(): void {
    const control = this.#file.get(this.#control);
    if ((control & IM) !== 0 || (control & IP) === 0) return;
    this.#file.update(this.#control, IP, 0);
    this.#send();
  }

  /** Software has serviced every condition: what was held pending is void. */
  serviced(): void {
    if ((this.#file.get(this.#control) & IP) !== 0) this.#file.update(this.#control, IP, 0);
  }

  #send(): void {
    this.#counters.interrupts++;
    this.#outputs.interrupt(
      this.#file.get(this.#control + 8),
      this.#file.get(this.#control + 12),
      this.#file.get(this.#control + 4),
    );
  }
}
