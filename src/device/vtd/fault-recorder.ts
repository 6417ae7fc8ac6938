/** Primary fault logging, the fault status register and its event. VT-d §7.2, §7.3, §11.4.7. */

import { NO_PASID } from '../../base/ids.js';
import { maskIn, shiftOf } from '../../spec/define.js';
import { faultName, isQualified } from '../../spec/vtd/faults.js';
import {
  FECTL_REG,
  FRCD_BYTES,
  FRCD_OFFSET,
  FRCD_REG,
  FSTS_REG,
  IQERCD_REG,
} from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import type { InterruptRequest } from '../interrupts.js';
import { ACCESS, type IommuOutputs, REQUEST, type TranslateRequest } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import { EventInterrupt } from './event-interrupt.js';

const FSTS = FSTS_REG.offset;
const PFO = maskIn(FSTS_REG.fields.PFO);
const PPF = maskIn(FSTS_REG.fields.PPF);
const IQE = maskIn(FSTS_REG.fields.IQE);
const ICE = maskIn(FSTS_REG.fields.ICE);
const ITE = maskIn(FSTS_REG.fields.ITE);
const FRI_SHIFT = shiftOf(FSTS_REG.fields.FRI);
const FRI = maskIn(FSTS_REG.fields.FRI);
/**
 * Conditions that software has yet to service: while one is there, another is not a new interrupt.
 * §7.3
 */
const CONDITIONS = PFO | PPF | IQE | ICE | ITE;

const IQEI_BITS = maskIn(IQERCD_REG.fields.IQEI);
/** In the high word of IQERCD_REG. */
const ITESID = maskIn(IQERCD_REG.fields.ITESID);
const ICESID = maskIn(IQERCD_REG.fields.ICESID);

/** A fault recording register: fields of its third and of its fourth word. §11.4.7.6 */
const { SID, PRIV, EXE, PP, T2, FR, PV, AT, T1, F } = FRCD_REG.fields;
const WORD2 = {
  SID: maskIn(SID),
  PRIV: maskIn(PRIV),
  EXE: maskIn(EXE),
  PP: maskIn(PP),
  T2: maskIn(T2),
} as const;
const WORD3 = {
  FR: maskIn(FR),
  PV: maskIn(PV),
  PV_SHIFT: shiftOf(PV),
  AT_SHIFT: shiftOf(AT),
  T1: maskIn(T1),
  F: maskIn(F),
} as const;
/** Where FI has an interrupt's index: bits 63:48. §11.4.7.6 */
const INDEX_SHIFT = 16;
/** Byte offset of the word with F. */
const F_OFFSET = (F.lsb >> 5) * 4;

/** What was faulted: fields that every kind of request has. */
interface Faulted {
  readonly rid: number;
  readonly pasid: number;
  readonly access: number;
  readonly lo: number;
  readonly hi: number;
}

export class FaultRecorder {
  readonly #file: RegisterFile;
  readonly #outputs: IommuOutputs;
  readonly #counters: ModelCounters;
  readonly #config: VtdConfig;
  readonly #event: EventInterrupt;
  readonly #addressLo: number;
  readonly #addressHi: number;
  /** Where the next fault goes. */
  #next = 0;
  /**
   * Errors may be cleared that stopped the invalidation queue. The model says what goes on then.
   */
  statusCleared: () => void = () => {};

  constructor(file: RegisterFile, outputs: IommuOutputs, counters: ModelCounters, config: VtdConfig) {
    this.#file = file;
    this.#outputs = outputs;
    this.#counters = counters;
    this.#config = config;
    this.#event = new EventInterrupt(file, outputs, counters, FECTL_REG.offset);
    file.onWrite(FSTS, () => {
      this.#statusWritten();
      this.statusCleared();
    });
    const recordWritten = (): void => this.#recordWritten();
    for (let at = 0; at < config.faultRecords * FRCD_BYTES; at += 4)
      file.onWrite(FRCD_OFFSET + at, recordWritten);
    // FI 63:N is reserved, N being the largest AGAW (§11.4.7.6).
    this.#addressLo = maskIn(FRCD_REG.fields.FI);
    this.#addressHi = config.addressWidth >= 64 ? -1 : 2 ** (config.addressWidth - 32) - 1;
  }

  /** Machine reset; the registers are reset by their file. */
  reset(): void {
    this.#next = 0;
  }

  /** Both remappings are off: the internal index starts again. §7.2.1 */
  remappingDisabled(): void {
    this.#next = 0;
  }

  /**
   * A non-recoverable fault of a request. `suppressed`: an FPD bit on the way was set. Recording is
   * §7.2.1 without compression: each fault takes a record of its own.
   */
  record(reason: number, request: TranslateRequest, suppressed: boolean): void {
    // A translation request is a read, whatever it is for.
    const ahead = request.kind === REQUEST.TRANSLATION;
    const reads = ahead || (request.access & (ACCESS.READ | ACCESS.EXECUTE)) !== 0;
    const writes = !ahead && (request.access & ACCESS.WRITE) !== 0;
    // T1 T2: write 00, page request 01, read 10, AtomicOp (both rights at once) 11. AT is the
    // request's kind.
    const word2 = reads && writes ? WORD2.T2 : 0;
    const word3 = (reads ? WORD3.T1 : 0) | (this.#config.deviceTlb ? request.kind << WORD3.AT_SHIFT : 0);
    this.#note(reason, request, suppressed, word2, word3);
  }

  /** A page request that met a condition of Table 30. */
  recordPageRequest(reason: number, request: Faulted, suppressed: boolean): void {
    this.#note(reason, request, suppressed, WORD2.T2, 0);
  }

  /**
   * An interrupt request that is blocked. FI is its index alone; `index` is -1 where there is none
   * (25h), and FI 0. §11.4.7.6
   */
  recordInterrupt(reason: number, request: InterruptRequest, index: number, suppressed: boolean): void {
    this.#counters.faults++;
    const { rid, lo, hi } = request;
    const recorded =
      !(suppressed && isQualified(reason)) && this.#logInterrupt(reason, rid, Math.max(0, index));
    this.#outputs.event({
      kind: 'fault',
      rid,
      pasid: NO_PASID,
      reason,
      name: faultName(reason),
      lo: lo >>> 0,
      hi: hi >>> 0,
      access: ACCESS.WRITE,
      recorded,
      ...(index < 0 ? {} : { interrupt: index }),
    });
  }

  #note(reason: number, request: Faulted, suppressed: boolean, word2: number, word3: number): void {
    this.#counters.faults++;
    const recorded = !(suppressed && isQualified(reason)) && this.#log(reason, request, word2, word3);
    this.#outputs.event({
      kind: 'fault',
      rid: request.rid,
      pasid: request.pasid,
      reason,
      name: faultName(reason),
      lo: request.lo >>> 0,
      hi: request.hi >>> 0,
      access: request.access,
      recorded,
    });
  }

  #log(reason: number, request: Faulted, word2: number, word3: number): boolean {
    const offset = this.#claim();
    if (offset < 0) return false;
    this.#store(offset, reason, request, word2, word3);
    this.#logged();
    return true;
  }

  #logInterrupt(reason: number, rid: number, index: number): boolean {
    const offset = this.#claim();
    if (offset < 0) return false;
    this.#file.set(offset, 0);
    this.#file.set(offset + 4, (index << INDEX_SHIFT) >>> 0);
    this.#file.set(offset + 8, rid & WORD2.SID);
    this.#file.set(offset + 12, (reason & WORD3.FR) | WORD3.F);
    this.#logged();
    return true;
  }

  /** Offset of the record for a fault, or -1 when there is none free. */
  #claim(): number {
    const status = this.#file.get(FSTS);
    const offset = FRCD_OFFSET + this.#next * FRCD_BYTES;
    if ((status & PFO) === 0 && (this.#file.get(offset + F_OFFSET) & WORD3.F) === 0) return offset;
    this.#counters.faultsDropped++;
    if ((status & PFO) === 0) this.#file.update(FSTS, PFO, PFO);
    return -1;
  }

  /** The record that was claimed is stored. */
  #logged(): void {
    const status = this.#file.get(FSTS);
    if ((status & PPF) === 0) {
      this.#file.update(FSTS, PPF | FRI, PPF | (this.#next << FRI_SHIFT));
    }
    this.#next = (this.#next + 1) % this.#config.faultRecords;
    if ((status & CONDITIONS) === 0) this.#event.raise();
  }

  /** F stands in the last word and is stored last: a reader that sees it sees the rest. */
  #store(offset: number, reason: number, request: Faulted, type2: number, type3: number): void {
    let word2 = (request.rid & WORD2.SID) | type2;
    let word3 = (reason & WORD3.FR) | type3 | WORD3.F;
    if (request.pasid !== NO_PASID && this.#config.scalableMode) {
      word2 |= WORD2.PP;
      if ((request.access & ACCESS.EXECUTE) !== 0) word2 |= WORD2.EXE;
      if ((request.access & ACCESS.PRIVILEGED) !== 0) word2 |= WORD2.PRIV;
      word3 |= (request.pasid << WORD3.PV_SHIFT) & WORD3.PV;
    }
    this.#file.set(offset, request.lo & this.#addressLo);
    this.#file.set(offset + 4, request.hi & this.#addressHi);
    this.#file.set(offset + 8, word2);
    this.#file.set(offset + 12, word3);
  }

  /** An invalidation queue error. §6.5.2.11, §11.4.9.9 */
  queueError(info: number): void {
    const status = this.#file.get(FSTS);
    this.#file.update(IQERCD_REG.offset, IQEI_BITS, info);
    this.#file.update(FSTS, IQE, IQE);
    if ((status & CONDITIONS) === 0) this.#event.raise();
  }

  /**
   * A Device-TLB did not answer in time. ITESID says whose, of the first that software has not
   * seen. §11.4.9.9
   */
  invalidationTimeout(sid: number): void {
    this.#deviceTlbError(ITE, ITESID, sid << shiftOf(IQERCD_REG.fields.ITESID));
  }

  /** An answer to no request. Its sender is not known (ICESID 0). §4.3 */
  unexpectedCompletion(): void {
    this.#deviceTlbError(ICE, ICESID, 0);
  }

  #deviceTlbError(flag: number, mask: number, sid: number): void {
    const status = this.#file.get(FSTS);
    if ((status & flag) === 0) this.#file.update(IQERCD_REG.offset + 4, mask, sid);
    this.#file.update(FSTS, flag, flag);
    if ((status & CONDITIONS) === 0) this.#event.raise();
  }

  /** True while queue errors stop the invalidation queue. */
  get queueStopped(): boolean {
    return (this.#file.get(FSTS) & (IQE | ITE)) !== 0;
  }

  /** Software cleared status bits. */
  #statusWritten(): void {
    if ((this.#file.get(FSTS) & CONDITIONS) === 0) this.#event.serviced();
  }

  /** Software wrote a fault recording register: PPF is the OR of all F bits. */
  #recordWritten(): void {
    let pending = false;
    for (let index = 0; index < this.#config.faultRecords; index++) {
      if ((this.#file.get(FRCD_OFFSET + index * FRCD_BYTES + F_OFFSET) & WORD3.F) !== 0) pending = true;
    }
    if (pending) return;
    this.#file.update(FSTS, PPF, 0);
    this.#statusWritten();
  }
}
