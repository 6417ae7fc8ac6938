/**
 * Page requests of devices: the page request queue and its event. VT-d §7.4, §7.5, §6.5.3.1,
 * §11.4.11.
 */

import { NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES, PAGE_OFFSET } from '../../base/page.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import {
  IOTLB_GRANULARITY,
  PECTL_REG,
  PQA_REG,
  PQH_REG,
  PQT_REG,
  PRS_REG,
} from '../../spec/vtd/registers.js';
import { PAGE_REQ_DSC, PAGE_REQUEST_TYPE } from '../../spec/vtd/structures.js';
import type { ModelCounters } from '../counters.js';
import { ACCESS, type IommuOutputs, PAGE_RESPONSE, type PageRequest } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import { type Domain, KIND } from './domain.js';
import { EventInterrupt } from './event-interrupt.js';
import type { FaultRecorder } from './fault-recorder.js';
import type { VtdInvalidator } from './invalidation.js';
import { GATE, OK, type VtdLookup } from './lookup.js';

const PPR = 1 << PRS_REG.fields.PPR.lsb;
const PRO = 1 << PRS_REG.fields.PRO.lsb;
const DESCRIPTOR_BYTES = PAGE_REQ_DSC.bytes;

/** Bits of the first words of a page request descriptor. §7.4.1.1 */
const PP = 1 << PAGE_REQ_DSC.fields.PP.lsb;
const RID_SHIFT = PAGE_REQ_DSC.fields.RID.lsb;
const EXR = 1 << (PAGE_REQ_DSC.fields.EXR.lsb - 32);
const PMR = 1 << (PAGE_REQ_DSC.fields.PMR.lsb - 32);
const RDR = 1 << (PAGE_REQ_DSC.fields.RDR.lsb - 64);
const WRR = 1 << (PAGE_REQ_DSC.fields.WRR.lsb - 64);
const LPIG = 1 << (PAGE_REQ_DSC.fields.LPIG.lsb - 64);
const PRGI_SHIFT = PAGE_REQ_DSC.fields.PRGI.lsb - 64;

export class VtdPageRequests {
  readonly #config: VtdConfig;
  readonly #file: RegisterFile;
  readonly #memory: GuestMemory;
  readonly #lookup: VtdLookup;
  readonly #invalidator: VtdInvalidator;
  readonly #faults: FaultRecorder;
  readonly #outputs: IommuOutputs;
  readonly #domain: Domain;
  readonly #event: EventInterrupt;

  constructor(
    config: VtdConfig,
    file: RegisterFile,
    memory: GuestMemory,
    lookup: VtdLookup,
    invalidator: VtdInvalidator,
    faults: FaultRecorder,
    outputs: IommuOutputs,
    counters: ModelCounters,
    domain: Domain,
  ) {
    this.#config = config;
    this.#file = file;
    this.#memory = memory;
    this.#lookup = lookup;
    this.#invalidator = invalidator;
    this.#faults = faults;
    this.#outputs = outputs;
    this.#domain = domain;
    this.#event = new EventInterrupt(file, outputs, counters, PECTL_REG.offset);
    file.onWrite(PRS_REG.offset, () => this.#statusWritten());
  }

  /** Takes a page request. Without remapping, or without the capability, it is invalid. */
  take(request: PageRequest, translating: boolean): void {
    if (!translating || !this.#config.pageRequests) {
      this.#respond(request, PAGE_RESPONSE.INVALID);
      return;
    }
    const reason = this.#tables(request);
    if (reason !== OK) {
      this.#faults.recordPageRequest(reason, request, this.#domain.suppressed);
      this.#respond(request, PAGE_RESPONSE.INVALID);
      return;
    }
    const status = this.#file.get(PRS_REG.offset);
    if ((status & PRO) !== 0) this.#respond(request, PAGE_RESPONSE.SUCCESS);
    else if (this.#full()) {
      this.#condition(PRO);
      this.#respond(request, PAGE_RESPONSE.SUCCESS);
    } else this.#append(request);
  }

  /** What the tables say of it: Table 30, columns "Page Request". With OK, `domain` is its. */
  #tables(request: PageRequest): number {
    const domain = this.#domain;
    const reason = this.#lookup.admits(request.rid, request.pasid, GATE.PAGE_REQUEST, domain);
    // Access rights are no matter of the tables here (SPT.5 and SPT.6 do not apply).
    return reason !== OK ? reason : this.#lookup.resolve(request.rid, request.pasid, 0, true, domain);
  }

  /**
   * Bytes of the queue; a power of two, which also bounds what software may have left in the
   * pointers.
   */
  #bytes(): number {
    return PAGE_BYTES * 2 ** PQA_REG.get.PQS(this.#file.words, PQA_REG.offset >> 2);
  }

  #tail(): number {
    return PQT_REG.get.PQT(this.#file.words, PQT_REG.offset >> 2) & (this.#bytes() - 1);
  }

  /** All entries but one are in use. */
  #full(): boolean {
    const head = PQH_REG.get.PQH(this.#file.words, PQH_REG.offset >> 2) & (this.#bytes() - 1);
    return ((this.#tail() + DESCRIPTOR_BYTES) & (this.#bytes() - 1)) === head;
  }

  /** The descriptor, then the tail, then the status that says so. */
  #append(request: PageRequest): void {
    this.#forget(request);
    const tail = this.#tail();
    const address = PQA_REG.get.PQA(this.#file.words, PQA_REG.offset >> 2) + tail;
    if (!this.#store(address, request)) {
      const detail = `0x${address.toString(16)}`;
      this.#outputs.event({ kind: 'queueError', name: 'page request queue is not memory', detail });
      this.#respond(request, PAGE_RESPONSE.INVALID);
      return;
    }
    this.#file.set(PQT_REG.offset, (tail + DESCRIPTOR_BYTES) & (this.#bytes() - 1));
    this.#condition(PPR);
  }

  #store(address: number, request: PageRequest): boolean {
    const memory = this.#memory;
    const { access } = request;
    if (!memory.contains(address, DESCRIPTOR_BYTES)) return false;
    const withPasid = request.pasid !== NO_PASID;
    const word0 = PAGE_REQUEST_TYPE | (withPasid ? PP : 0) | (request.rid << RID_SHIFT);
    let word1 = withPasid ? request.pasid : 0;
    if (withPasid && (access & ACCESS.EXECUTE) !== 0) word1 |= EXR;
    if (withPasid && (access & ACCESS.PRIVILEGED) !== 0) word1 |= PMR;
    let word2 = (request.lo & ~PAGE_OFFSET) | (request.group << PRGI_SHIFT);
    if ((access & ACCESS.READ) !== 0) word2 |= RDR;
    if ((access & ACCESS.WRITE) !== 0) word2 |= WRR;
    if (request.last) word2 |= LPIG;
    return (
      memory.store64(address, word0, word1) &&
      memory.store64(address + 8, word2, request.hi) &&
      memory.store64(address + 16, 0, 0) &&
      memory.store64(address + 24, 0, 0)
    );
  }

  /**
   * §6.5.3.1, Table 27: what the IOTLB holds for the page goes, since software that grants a right
   * after a page request need not invalidate.
   */
  #forget(request: PageRequest): void {
    const domain = this.#domain;
    const invalidator = this.#invalidator;
    const { lo, hi } = request;
    if (domain.kind === KIND.FIRST) invalidator.pasidIotlbPages(domain.did, domain.tag, lo, hi, 0);
    else if (domain.kind === KIND.NESTED) invalidator.iotlb(IOTLB_GRANULARITY.DOMAIN, domain.did, lo, hi, 0);
    else invalidator.iotlb(IOTLB_GRANULARITY.PAGE, domain.did, lo, hi, 0);
  }

  /**
   * Sets PPR or PRO. It is a new interrupt condition unless software has yet to see an earlier one.
   * §7.5
   */
  #condition(flag: number): void {
    const status = this.#file.get(PRS_REG.offset);
    this.#file.update(PRS_REG.offset, flag, flag);
    if ((status & (PPR | PRO)) === 0) this.#event.raise();
  }

  /** Ends the group, if this request does: the last one, which is no Stop Marker. */
  #respond(request: PageRequest, code: number): void {
    if (!request.last || (request.access & (ACCESS.READ | ACCESS.WRITE)) === 0) return;
    this.#outputs.pageResponse(request.rid, request.pasid, request.group, code);
  }

  #statusWritten(): void {
    if ((this.#file.get(PRS_REG.offset) & (PPR | PRO)) === 0) this.#event.serviced();
  }
}
