/**
 * Page requests: the PRI queue, its overflow, and the answers that the SMMU gives by itself. IHI
 * 0070 chapter 8.
 */

import { NO_PASID } from '../../base/ids.js';
import { PAGE_OFFSET } from '../../base/page.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import { PRI_ENTRY } from '../../spec/smmuv3/events.js';
import {
  CR0,
  IRQ_CTRL,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_IRQ_CFG2,
  PRIQ_PROD,
} from '../../spec/smmuv3/registers.js';
import { STE } from '../../spec/smmuv3/structures.js';
import { ACCESS, type IommuOutputs, PAGE_RESPONSE, type PageRequest, WIRE } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { SmmuConfig } from './config.js';
import { Fault, OK } from './fault.js';
import { GERROR_BIT, type GlobalErrors } from './global-errors.js';
import type { Interrupts } from './interrupts.js';
import type { SmmuLookup } from './lookup.js';
import { OutputQueue } from './output-queue.js';

const SMMUEN = 1 << CR0.fields.SMMUEN.lsb;
const IRQEN = 1 << IRQ_CTRL.fields.PRIQ_IRQEN.lsb;
const LAST_ONLY = 1 << PRIQ_IRQ_CFG2.fields.LO.lsb;
const WORDS = PRI_ENTRY.wordCount;

/** Bit of a field in its word of an entry. */
function bitOf(name: keyof typeof PRI_ENTRY.fields): number {
  return 1 << (PRI_ENTRY.fields[name].lsb & 31);
}
const BIT = {
  Priv: bitOf('Priv'),
  Exec: bitOf('Exec'),
  Read: bitOf('Read'),
  Write: bitOf('Write'),
  Last: bitOf('Last'),
  SSV: bitOf('SSV'),
};

export class SmmuPageRequests {
  readonly #config: SmmuConfig;
  readonly #file: RegisterFile;
  readonly #lookup: SmmuLookup;
  readonly #interrupts: Interrupts;
  readonly #errors: GlobalErrors;
  readonly #outputs: IommuOutputs;
  readonly #queue: OutputQueue;
  readonly #words = new Uint32Array(WORDS);
  readonly #fault = new Fault();

  constructor(
    config: SmmuConfig,
    file: RegisterFile,
    memory: GuestMemory,
    lookup: SmmuLookup,
    interrupts: Interrupts,
    errors: GlobalErrors,
    outputs: IommuOutputs,
  ) {
    this.#config = config;
    this.#file = file;
    this.#lookup = lookup;
    this.#interrupts = interrupts;
    this.#errors = errors;
    this.#outputs = outputs;
    const place = {
      base: PRIQ_BASE.offset,
      prod: PRIQ_PROD.offset,
      cons: PRIQ_CONS.offset,
      enable: 1 << CR0.fields.PRIQEN.lsb,
      abort: GERROR_BIT.PRIQ_ABT_ERR,
      words: WORDS,
    };
    this.#queue = new OutputQueue(place, file, memory, errors);
  }

  /** Takes a page request, or a Stop Marker, which is never answered. */
  take(request: PageRequest): void {
    const queue = this.#queue;
    // §6.3.9.5: the enable counts while SMMUEN is set only.
    const enabled = queue.enabled && (this.#file.get(CR0.offset) & SMMUEN) !== 0;
    if (!enabled || queue.aborted) {
      this.#refuse(request);
      return;
    }
    if (queue.overflowing || queue.full) {
      this.#discard(request);
      return;
    }
    const { empty } = queue;
    this.#pack(request);
    if (!queue.append(this.#words)) {
      this.#refuse(request);
      return;
    }
    if (this.#lastOnly() ? request.last : empty) this.#interrupt();
  }

  /**
   * §8.1: an overflow is told, and a group whose last request is lost is answered as if all were
   * well: it will be asked again.
   */
  #discard(request: PageRequest): void {
    this.#queue.overflow();
    if (!request.last) return;
    if (!isStopMarker(request)) this.#answerDiscarded(request);
    if (this.#lastOnly()) this.#interrupt();
  }

  #answerDiscarded({ rid, pasid, group }: PageRequest): void {
    const outputs = this.#outputs;
    if (pasid === NO_PASID || this.#config.ssidBits === 0) {
      outputs.pageResponse(rid, NO_PASID, group, PAGE_RESPONSE.SUCCESS);
    } else if (this.#lookup.streamEntry(rid, true, this.#fault) !== OK) {
      outputs.pageResponse(rid, NO_PASID, group, PAGE_RESPONSE.FAILURE);
    } else {
      const answered = STE.get.PPAR(this.#lookup.lastStreamEntry) === 1 ? pasid : NO_PASID;
      outputs.pageResponse(rid, answered, group, PAGE_RESPONSE.SUCCESS);
    }
  }

  /** §8.2: while the queue is off or has aborted every request fails. */
  #refuse(request: PageRequest): void {
    if (isStopMarker(request)) return;
    this.#outputs.pageResponse(request.rid, NO_PASID, request.group, PAGE_RESPONSE.FAILURE);
  }

  #lastOnly(): boolean {
    return (this.#file.get(PRIQ_IRQ_CFG2.offset) & LAST_ONLY) !== 0;
  }

  #interrupt(): void {
    if ((this.#file.get(IRQ_CTRL.offset) & IRQEN) === 0) return;
    const sent = this.#interrupts.raise(PRIQ_IRQ_CFG0.offset, WIRE.PRIQ);
    if (!sent) this.#errors.raise(GERROR_BIT.MSI_PRIQ_ABT_ERR);
  }

  #pack({ rid, pasid, access, lo, hi, group, last }: PageRequest): void {
    const words = this.#words;
    const substream = pasid !== NO_PASID && this.#config.ssidBits > 0;
    words[0] = rid;
    words[1] = substream ? pasid | BIT.SSV : 0;
    if ((access & ACCESS.READ) !== 0) words[1] |= BIT.Read;
    if ((access & ACCESS.WRITE) !== 0) words[1] |= BIT.Write;
    // Both come with the PASID (chapter 8).
    if (substream && (access & ACCESS.EXECUTE) !== 0) words[1] |= BIT.Exec;
    if (substream && (access & ACCESS.PRIVILEGED) !== 0) words[1] |= BIT.Priv;
    if (last) words[1] |= BIT.Last;
    words[2] = group | (lo & ~PAGE_OFFSET);
    words[3] = hi;
  }
}

/**
 * The last request of a group that asks for nothing. One without PASID is an ordinary request
 * (chapter 8).
 */
function isStopMarker({ access, pasid, last }: PageRequest): boolean {
  return last && pasid !== NO_PASID && (access & (ACCESS.READ | ACCESS.WRITE)) === 0;
}
