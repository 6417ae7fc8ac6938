/**
 * The invalidation queue. VT-d §6.5.2, §11.4.9. What the descriptors do is in descriptors.ts.
 *
 * A state machine without time: a kick (tail write, enable, error cleared, acknowledgement, a
 * Device-TLB's answer) takes descriptors until the queue is empty, an error stops it, or what comes
 * next has to wait for downstream caches or for Device-TLBs. Work per kick is bounded by the
 * queue's size, as only software moves the tail.
 */
import { PAGE_BYTES } from '../../base/page.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { ANY_DESCRIPTOR, descriptorName, INV_WAIT_DSC } from '../../spec/vtd/descriptors.js';
import { ICS_REG, IECTL_REG, IQA_REG, IQEI, IQH_REG, IQT_REG, TTM } from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import type { IommuOutputs } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import { Descriptors, type DescriptorTarget } from './descriptors.js';
import { VtdDeviceTlbs } from './device-tlbs.js';
import { EventInterrupt } from './event-interrupt.js';
import type { FaultRecorder } from './fault-recorder.js';
import type { VtdInterruptRemapping } from './interrupt-remapping.js';
import type { VtdInvalidator } from './invalidation.js';
import type { VtdLookup } from './lookup.js';

const IWC = 1 << ICS_REG.fields.IWC.lsb;
/** Bits of QH and QT. §11.4.9.1 */
const POINTER = 0x7fff0;

export class InvalidationQueue implements DescriptorTarget {
  readonly #config: VtdConfig;
  readonly #file: RegisterFile;
  readonly #memory: GuestMemory;
  readonly #faults: FaultRecorder;
  readonly #counters: ModelCounters;
  readonly #event: EventInterrupt;
  readonly #descriptors: Descriptors;
  readonly #words = new Uint32Array(8);
  readonly deviceTlbs: VtdDeviceTlbs;
  #enabled = false;
  /**
   * A wait descriptor was taken (the head is past it) and what it waits for is not complete: its
   * words are in `wait`, and nothing behind it is fetched. A time-out aborts it for good
   * (§6.5.2.11), which drivers count on.
   */
  #waiting = false;
  readonly #wait = new Uint32Array(4);
  #busy = false;
  /** No memory is beyond. */
  readonly #memoryEnd: number;

  constructor(
    config: VtdConfig,
    file: RegisterFile,
    memory: GuestMemory,
    readonly lookup: VtdLookup,
    readonly invalidator: VtdInvalidator,
    faults: FaultRecorder,
    readonly outputs: IommuOutputs,
    counters: ModelCounters,
    readonly interrupts: VtdInterruptRemapping | undefined,
  ) {
    this.#config = config;
    this.#file = file;
    this.#memory = memory;
    this.#faults = faults;
    this.#counters = counters;
    this.#event = new EventInterrupt(file, outputs, counters, IECTL_REG.offset);
    this.#descriptors = new Descriptors(config);
    this.#memoryEnd = 2 ** config.hostAddressWidth;
    this.deviceTlbs = new VtdDeviceTlbs(outputs, faults);
    file.onWrite(IQT_REG.offset, () => this.kick());
    file.onWrite(ICS_REG.offset, () => this.#statusWritten());
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.#enabled = false;
    this.#waiting = false;
    this.deviceTlbs.reset();
  }

  /** GCMD.QIE changed. Disabling resets the head (§6.5.2) and forgets a pending wait. */
  enable(on: boolean): void {
    this.#enabled = on;
    this.#waiting = false;
    if (on) return;
    this.#file.set(IQH_REG.offset, 0);
  }

  /** Takes descriptors as long as that is possible. */
  kick(): void {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#step()) {
      // Each step moves the head.
    }
    this.#busy = false;
  }

  /** Enabled and usable, with no descriptor left and none under way. */
  get atRest(): boolean {
    if (!this.#enabled || this.#waiting || this.#faults.queueStopped || this.deviceTlbs.pending > 0)
      return false;
    const head = this.#file.get(IQH_REG.offset) & POINTER;
    return head === (this.#file.get(IQT_REG.offset) & POINTER) && this.#usable(head);
  }

  #usable(head: number): boolean {
    return this.#checkQueue(head, head, isWide(this.#file), queueBytes(this.#file)) === IQEI.NONE;
  }

  /**
   * A plain descriptor that the peer has carried out, from word `at` of `words`. False: it is none.
   */
  ran(words: Uint32Array, at: number, size: number): boolean {
    for (let word = 0; word < 8; word++) this.#words[word] = word < size ? words[at + word] : 0;
    const type = typeOf(this.#words);
    const wrong = this.#descriptors.check(type, this.#words, size === 8, this.lookup.mode);
    if (wrong !== IQEI.NONE) return false;
    const { peer } = this.#descriptors.get(type);
    if (peer === undefined || !peer.ran(this, this.#words)) return false;
    this.#counters.commands++;
    return true;
  }

  /** An ATS invalidation request has ended; see {@link DeviceView.invalidated}. */
  deviceTlbEnded(tag: number, result: number): void {
    if (!this.deviceTlbs.ended(tag, result)) this.#waiting = false;
    this.kick();
  }

  /** Handles one descriptor. False when nothing more can be done now. */
  #step(): boolean {
    if (!this.#enabled || this.#faults.queueStopped) return false;
    if (this.#waiting) return this.#finishWait();
    const wide = isWide(this.#file);
    // Bit 4 of the head is always 0 with 256-bit descriptors (§11.4.9.1), even if software changed
    // DW under it.
    const head = this.#file.get(IQH_REG.offset) & (wide ? POINTER & ~0x10 : POINTER);
    const tail = this.#file.get(IQT_REG.offset) & POINTER;
    if (head === tail) return false;
    const bytes = queueBytes(this.#file);
    const info = this.#checkQueue(head, tail, wide, bytes);
    if (info !== IQEI.NONE) return this.#fail(info, 'queue');
    if (!this.#fetch(head, wide)) return this.#fail(IQEI.FETCH, 'fetch');
    const type = typeOf(this.#words);
    const wrong = this.#descriptors.check(type, this.#words, wide, this.lookup.mode);
    if (wrong !== IQEI.NONE) return this.#fail(wrong, descriptorName(type));
    if (!this.#descriptors.get(type).run(this, this.#words)) return false;
    this.#counters.commands++;
    const next = head + (wide ? 32 : 16);
    this.#file.set(IQH_REG.offset, next >= bytes ? 0 : next);
    return true;
  }

  /** Errors that have nothing to do with a descriptor. §11.4.9.9 */
  #checkQueue(head: number, tail: number, wide: boolean, bytes: number): number {
    const mode = this.lookup.mode;
    if (mode === TTM.RESERVED) return IQEI.INVALID_TTM;
    if (mode === TTM.SCALABLE && !this.#config.scalableMode) return IQEI.INVALID_TTM;
    if (wide ? !this.#config.scalableMode : mode === TTM.SCALABLE) return IQEI.INVALID_WIDTH;
    if (tail >= bytes || head >= bytes) return IQEI.INVALID_TAIL;
    if (wide && (tail & 0x10) !== 0) return IQEI.TAIL_ALIGNMENT;
    return IQEI.NONE;
  }

  #fetch(head: number, wide: boolean): boolean {
    const base = IQA_REG.get.IQA(this.#file.words, IQA_REG.offset >> 2);
    if (base >= this.#memoryEnd) return false;
    // Not fill(): a call costs more than four stores.
    if (!wide) for (let word = 4; word < 8; word++) this.#words[word] = 0;
    return this.#memory.loadWords(base + head, this.#words, wide ? 8 : 4);
  }

  /** §6.5.2.11: the head stays at the descriptor and the queue stops until software clears IQE. */
  #fail(info: number, detail: string): false {
    this.#faults.queueError(info);
    this.outputs.event({ kind: 'queueError', name: queueErrorName(info), detail });
    return false;
  }

  /** See {@link DescriptorTarget.waitFor}. */
  waitFor(words: Uint32Array): void {
    for (let word = 0; word < 4; word++) this.#wait[word] = words[word];
    this.#waiting = true;
  }

  /**
   * The wait that was taken, if its predecessors are all done. §6.5.2.9, §6.5.2.10. PD needs
   * nothing: a page request is in its queue before anything else is looked at.
   */
  #finishWait(): boolean {
    if (this.outputs.pendingAcks() > 0 || this.deviceTlbs.pending > 0) return false;
    this.#waiting = false;
    this.#complete(this.#wait);
    return true;
  }

  #complete(words: Uint32Array): void {
    if (INV_WAIT_DSC.get.SW(words) === 1) {
      const highMask = 2 ** (this.#config.hostAddressWidth - 32) - 1;
      const address = (words[3] & highMask) * 2 ** 32 + words[2];
      if (!this.#memory.store32(address, INV_WAIT_DSC.get.StatusData(words))) {
        this.outputs.event({
          kind: 'queueError',
          name: 'status address is not memory',
          detail: `0x${address.toString(16)}`,
        });
      }
    }
    if (INV_WAIT_DSC.get.IF(words) === 0) return;
    // IWC still set: an earlier completion waits for software, so this is no new interrupt
    // condition.
    if ((this.#file.get(ICS_REG.offset) & IWC) !== 0) return;
    this.#file.update(ICS_REG.offset, IWC, IWC);
    this.#event.raise();
  }

  /** ICS_REG was written. */
  #statusWritten(): void {
    if ((this.#file.get(ICS_REG.offset) & IWC) === 0) this.#event.serviced();
  }
}

/** The 7 bits of a descriptor's type. */
function typeOf(words: Uint32Array): number {
  return ANY_DESCRIPTOR.get.TypeLow(words) | (ANY_DESCRIPTOR.get.TypeHigh(words) << 4);
}

/** Descriptors have 256 bits instead of 128. §11.4.9.3 */
export function isWide(file: RegisterFile): boolean {
  return IQA_REG.get.DW(file.words, IQA_REG.offset >> 2) === 1;
}

/** Of the whole queue. §11.4.9.3 */
export function queueBytes(file: RegisterFile): number {
  return PAGE_BYTES * 2 ** IQA_REG.get.QS(file.words, IQA_REG.offset >> 2);
}

/** Names of {@link IQEI} values. */
function queueErrorName(info: number): string {
  for (const [name, value] of Object.entries(IQEI)) if (value === info) return `IQE ${name}`;
  return `IQE ${info}`;
}
