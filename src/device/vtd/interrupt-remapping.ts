/**
 * Interrupt requests and the commands that switch their remapping. VT-d §5.1, §11.4.4.
 *
 * The unit's own events are not remapped (§5.1.6): they leave by `IommuOutputs.interrupt`.
 */

import { ANY } from '../../base/ids.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { maskIn, shiftOf } from '../../spec/define.js';
import { FAULT } from '../../spec/vtd/faults.js';
import {
  COMPATIBILITY_REQUEST,
  FEE,
  IRTE,
  REMAPPABLE_REQUEST,
  SQ_IGNORES,
  SVT,
  XAPIC_DESTINATION,
} from '../../spec/vtd/interrupts.js';
import { GCMD_REG, GSTS_REG, IRTA_REG } from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import {
  ALL_ENTRIES,
  type InterruptRequest,
  type InterruptResult,
  type InterruptView,
} from '../interrupts.js';
import { type IommuOutputs, TRANSLATE_STATUS } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import type { FaultRecorder } from './fault-recorder.js';
import { InterruptEntryCache } from './interrupt-cache.js';
import { InterruptTable } from './interrupt-table.js';
import { OK } from './lookup.js';

const SIRTP = maskIn(GCMD_REG.fields.SIRTP);
const IRE = maskIn(GCMD_REG.fields.IRE);
const CFI = maskIn(GCMD_REG.fields.CFI);
const IRTPS = maskIn(GSTS_REG.fields.IRTPS);
const IRES = maskIn(GSTS_REG.fields.IRES);
const CFIS = maskIn(GSTS_REG.fields.CFIS);

/** Address and data of the messages that processors take, field by field. */
const MESSAGE = {
  FEE: FEE << shiftOf(COMPATIBILITY_REQUEST.fields.FEE),
  DST: shiftOf(COMPATIBILITY_REQUEST.fields.DST),
  RH: shiftOf(COMPATIBILITY_REQUEST.fields.RH),
  DM: shiftOf(COMPATIBILITY_REQUEST.fields.DM),
  DLM: shiftOf(COMPATIBILITY_REQUEST.fields.DLM),
  LEVEL: maskIn(COMPATIBILITY_REQUEST.fields.LEVEL),
  TM: shiftOf(COMPATIBILITY_REQUEST.fields.TM),
} as const;

/** Data bits 31:16, reserved with SHV. §5.1.2.2 */
const RESERVED_DATA = ~maskIn(REMAPPABLE_REQUEST.fields.SUBHANDLE);
const HANDLE_HIGH = REMAPPABLE_REQUEST.fields.HANDLE_LOW.msb - REMAPPABLE_REQUEST.fields.HANDLE_LOW.lsb + 1;

export class VtdInterruptRemapping implements InterruptView {
  readonly #file: RegisterFile;
  readonly #outputs: IommuOutputs;
  readonly #counters: ModelCounters;
  readonly #faults: FaultRecorder;
  readonly #cache: InterruptEntryCache;
  readonly table: InterruptTable;
  /** Remapping is on. Changes with the command; IRES follows when it is safe to say so. */
  on = false;
  /** Requests in compatibility format pass, unless EIME is set: CFIS follows this. */
  #compatible = false;
  #tableSet = false;
  /** A request's address and data. */
  readonly #words = new Uint32Array(2);

  constructor(
    config: VtdConfig,
    file: RegisterFile,
    memory: GuestMemory,
    faults: FaultRecorder,
    outputs: IommuOutputs,
    counters: ModelCounters,
  ) {
    this.#file = file;
    this.#outputs = outputs;
    this.#counters = counters;
    this.#faults = faults;
    this.table = new InterruptTable(config, memory);
    this.#cache = new InterruptEntryCache(config, outputs);
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.on = false;
    this.#compatible = false;
    this.#tableSet = false;
    this.table.set(0, 0, false);
    this.#cache.invalidateAll();
  }

  // Commands. §11.4.4.1

  /** Takes its bits of a store to GCMD_REG. True: remapping was switched on or off. */
  command(command: number): boolean {
    if ((command & SIRTP) !== 0) this.#setTable();
    const compatible = (command & CFI) !== 0;
    if (compatible !== this.#compatible) {
      this.#compatible = compatible;
      this.#changed('compatibility format interrupts', compatible);
    }
    const on = (command & IRE) !== 0;
    if (on === this.on) return false;
    this.on = on;
    this.#changed('interrupt remapping', on);
    return true;
  }

  /** Its bits of GSTS_REG once nothing is outstanding. */
  get status(): number {
    return (this.#tableSet ? IRTPS : 0) | (this.on ? IRES : 0) | (this.#compatible ? CFIS : 0);
  }

  /**
   * Latches IRTA_REG. IRTPS reads 0 until the operation is complete. ESIRTPS: nothing that was
   * cached of the former table is left.
   */
  #setTable(): void {
    const at = IRTA_REG.offset >> 2;
    const { words } = this.#file;
    this.#file.update(GSTS_REG.offset, IRTPS, 0);
    this.#tableSet = true;
    const entries = 2 ** (IRTA_REG.get.S(words, at) + 1);
    this.table.set(IRTA_REG.get.IRTA(words, at), entries, IRTA_REG.get.EIME(words, at) === 1);
    this.#cache.invalidateAll();
    this.#changed('interrupt remapping table', true);
  }

  #changed(what: string, on: boolean): void {
    this.#outputs.invalidateInterrupts?.(0, ALL_ENTRIES);
    this.#outputs.event({ kind: 'enable', what, on });
  }

  /** Interrupt entry cache invalidation of the block of 2^log2Count entries. §6.5.2.8 */
  invalidate(index: number, log2Count: number): void {
    this.#counters.invalidations++;
    if (log2Count >= ALL_ENTRIES) this.#cache.invalidateAll();
    else this.#cache.invalidate(index, log2Count);
    const first = log2Count >= ALL_ENTRIES ? 0 : index & (-1 << log2Count);
    this.#outputs.invalidateInterrupts?.(first, log2Count);
  }

  /** See {@link InterruptView.check}. */
  check(on: boolean): void {
    this.#cache.check(on);
  }

  // Requests. §5.1.2 to §5.1.4

  /** See {@link InterruptView.remap}. */
  remap(request: InterruptRequest, result: InterruptResult): void {
    const words = this.#words;
    words[0] = request.lo;
    words[1] = request.data;
    result.passAll = !this.on;
    result.index = ANY;
    if (!this.on) this.#pass(request, result);
    else if (request.hi !== 0 || REMAPPABLE_REQUEST.get.FEE(words) !== FEE) this.#block(request, result);
    else if (REMAPPABLE_REQUEST.get.Format(words) === 1) this.#remappable(request, result);
    else if (this.#compatible && !this.table.extended) this.#pass(request, result);
    else this.#fault(FAULT.IR_25, request, -1, false, result);
  }

  #pass(request: InterruptRequest, result: InterruptResult): void {
    result.status = TRANSLATE_STATUS.OK;
    result.lo = request.lo >>> 0;
    result.hi = request.hi >>> 0;
    result.data = request.data >>> 0;
  }

  /** Delivers nothing. An address outside of the range is a mistake of the peer, and no fault. */
  #block(request: InterruptRequest, result: InterruptResult): void {
    if (!request.look) this.#counters.interruptsBlocked++;
    result.status = TRANSLATE_STATUS.FAULT;
    result.lo = 0;
    result.hi = 0;
    result.data = 0;
  }

  #fault(
    reason: number,
    request: InterruptRequest,
    index: number,
    suppressed: boolean,
    result: InterruptResult,
  ): void {
    this.#block(request, result);
    if (!request.look) this.#faults.recordInterrupt(reason, request, index, suppressed);
  }

  #remappable(request: InterruptRequest, result: InterruptResult): void {
    const words = this.#words;
    const { get } = REMAPPABLE_REQUEST;
    const { entry } = this.#cache;
    const subhandled = get.SHV(words) === 1;
    const handle = get.HANDLE_LOW(words) | (get.HANDLE_HIGH(words) << HANDLE_HIGH);
    const index = subhandled ? handle + get.SUBHANDLE(words) : handle;
    let reason: number = OK;
    let suppressed = false;
    if (subhandled && (request.data & RESERVED_DATA) !== 0) reason = FAULT.IR_20;
    else if (index >= this.table.entries) reason = FAULT.IR_21;
    else {
      reason = this.#cache.find(this.table, index);
      suppressed = IRTE.get.FPD(entry) === 1;
      if (reason === OK && !sourceAllowed(entry, request.rid)) reason = FAULT.IR_26;
    }
    if (reason !== OK) {
      this.#fault(reason, request, index, suppressed, result);
      return;
    }
    if (!request.look) this.#counters.interruptsRemapped++;
    result.status = TRANSLATE_STATUS.OK;
    result.index = index;
    this.#describe(entry, result);
  }

  /**
   * The message that the entry describes. Bits 31:8 of a 32-bit destination stand in the same bits
   * of the address' high half, as KVM and QEMU take them.
   */
  #describe(entry: Uint32Array, result: InterruptResult): void {
    const { get } = IRTE;
    const { extended } = this.table;
    const raw = get.DST(entry);
    const destination = extended ? raw : (raw & XAPIC_DESTINATION.MASK) >>> XAPIC_DESTINATION.SHIFT;
    const address = MESSAGE.FEE | ((destination & 0xff) << MESSAGE.DST);
    result.lo = (address | (get.RH(entry) << MESSAGE.RH) | (get.DM(entry) << MESSAGE.DM)) >>> 0;
    result.hi = (destination & 0xffff_ff00) >>> 0;
    result.data =
      get.V(entry) | (get.DLM(entry) << MESSAGE.DLM) | MESSAGE.LEVEL | (get.TM(entry) << MESSAGE.TM);
  }
}

/** Source-id verification. §5.1.4, §9.9 */
export function sourceAllowed(entry: Uint32Array, rid: number): boolean {
  const { get } = IRTE;
  const type = get.SVT(entry);
  if (type === SVT.NONE) return true;
  const sid = get.SID(entry);
  if (type === SVT.SID) return ((sid ^ rid) & 0xffff & ~SQ_IGNORES[get.SQ(entry)]) === 0;
  // The first and the last bus.
  const bus = (rid >> 8) & 0xff;
  return bus >= sid >> 8 && bus <= (sid & 0xff);
}
