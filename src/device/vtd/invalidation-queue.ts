/**
 * The invalidation queue. VT-d §6.5.2, §11.4.9.
 *
 * A state machine without time: a kick (tail write, enable, error cleared, acknowledgement, a Device-TLB's answer)
 * takes descriptors until the queue is empty, an error stops it, or what comes next has to wait for the caches outside
 * or for Device-TLBs. Work per kick is bounded by the queue's size, as only software moves the tail.
 */
import type { GuestMemory } from '../../memory/guest-memory.js';
import {
  ANY_DESCRIPTOR,
  CC_INV_DSC,
  DESCRIPTOR,
  DEV_TLB_INV_DSC,
  INV_WAIT_DSC,
  IOTLB_INV_DSC,
  P_DEV_TLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
  PAGE_GRP_RESP_DSC,
  PC_GRANULARITY,
  PC_INV_DSC,
  RESPONSE_CODE,
} from '../../spec/vtd/descriptors.js';
import {
  FSTS_REG,
  ICS_REG,
  IECTL_REG,
  IOTLB_GRANULARITY,
  IQA_REG,
  IQEI,
  IQH_REG,
  IQT_REG,
  TTM,
} from '../../spec/vtd/registers.js';
import type { ModelCounters } from '../counters.js';
import { type IommuOutputs, NO_PASID } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import type { VtdConfig } from './config.js';
import { DescriptorRules, descriptorName } from './descriptor-rules.js';
import { VtdDeviceTlbs } from './device-tlbs.js';
import { EventInterrupt } from './event-interrupt.js';
import type { FaultRecorder } from './fault-recorder.js';
import type { VtdInvalidator } from './invalidation.js';
import type { VtdLookup } from './lookup.js';

const IWC = 1 << ICS_REG.fields.IWC.lsb;
/** Bits of QH and QT. §11.4.9.1 */
const POINTER = 0x7fff0;

export class InvalidationQueue {
  private readonly event: EventInterrupt;
  private readonly rules: DescriptorRules;
  private readonly words = new Uint32Array(8);
  private readonly deviceTlbs: VtdDeviceTlbs;
  private enabled = false;
  /**
   * A wait descriptor was taken (the head is past it) and what it waits for is not complete: its words are in `wait`,
   * and nothing behind it is fetched. A time-out aborts it for good (§6.5.2.11), which drivers count on.
   */
  private waiting = false;
  private readonly wait = new Uint32Array(4);
  private busy = false;
  /** No memory is beyond. */
  private readonly memoryEnd: number;

  constructor(
    private readonly config: VtdConfig,
    private readonly file: RegisterFile,
    private readonly memory: GuestMemory,
    private readonly lookup: VtdLookup,
    private readonly invalidator: VtdInvalidator,
    private readonly faults: FaultRecorder,
    private readonly outputs: IommuOutputs,
    private readonly counters: ModelCounters,
  ) {
    this.event = new EventInterrupt(file, outputs, counters, IECTL_REG.offset);
    this.rules = new DescriptorRules(config);
    this.memoryEnd = 2 ** config.hostAddressWidth;
    this.deviceTlbs = new VtdDeviceTlbs(outputs, faults);
    file.onWrite(IQT_REG.offset, () => this.kick());
    file.onWrite(ICS_REG.offset, () => this.statusWritten());
    file.onWrite(FSTS_REG.offset, () => {
      faults.statusWritten();
      // IQE or ITE may be clear now.
      this.kick();
    });
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.enabled = false;
    this.waiting = false;
    this.deviceTlbs.reset();
  }

  /** GCMD.QIE changed. Disabling resets the head (§6.5.2) and forgets a pending wait. */
  enable(on: boolean): void {
    this.enabled = on;
    this.waiting = false;
    if (on) return;
    this.file.set(IQH_REG.offset, 0);
  }

  /** Takes descriptors as long as that is possible. */
  kick(): void {
    if (this.busy) return;
    this.busy = true;
    while (this.step()) {
      // Each step moves the head.
    }
    this.busy = false;
  }

  /** Enabled and usable, with no descriptor left and none under way. */
  get atRest(): boolean {
    if (!this.enabled || this.waiting || this.faults.queueStopped || this.deviceTlbs.pending > 0)
      return false;
    const head = this.file.get(IQH_REG.offset) & POINTER;
    return head === (this.file.get(IQT_REG.offset) & POINTER) && this.usable(head);
  }

  private usable(head: number): boolean {
    return this.checkQueue(head, head, isWide(this.file), queueBytes(this.file)) === IQEI.NONE;
  }

  /** A plain descriptor that the peer has carried out, from word `at` of `words`. False: it is none. */
  ran(words: Uint32Array, at: number, size: number): boolean {
    for (let word = 0; word < 8; word++) this.words[word] = word < size ? words[at + word] : 0;
    const type = ANY_DESCRIPTOR.get.TypeLow(this.words) | (ANY_DESCRIPTOR.get.TypeHigh(this.words) << 4);
    if (this.rules.check(type, this.words, size === 8, this.lookup.mode) !== IQEI.NONE) return false;
    if (type === DESCRIPTOR.WAIT) {
      if (INV_WAIT_DSC.get.SW(this.words) !== 1 || INV_WAIT_DSC.get.IF(this.words) !== 0) return false;
    } else if (type === DESCRIPTOR.IOTLB || type === DESCRIPTOR.PASID_IOTLB) {
      // The peer drops what is of one domain; a global one is not described to it.
      const global = IOTLB_INV_DSC.get.G(this.words) === IOTLB_GRANULARITY.GLOBAL;
      if (type === DESCRIPTOR.IOTLB && global) return false;
      this.execute(type);
    } else return false;
    this.counters.commands++;
    return true;
  }

  /** An ATS invalidation request has ended; see {@link DeviceView.invalidated}. */
  deviceTlbEnded(tag: number, result: number): void {
    if (!this.deviceTlbs.ended(tag, result)) this.waiting = false;
    this.kick();
  }

  /** Handles one descriptor. False when nothing more can be done now. */
  private step(): boolean {
    if (!this.enabled || this.faults.queueStopped) return false;
    if (this.waiting) return this.finishWait();
    const wide = isWide(this.file);
    // Bit 4 of the head is always 0 with 256-bit descriptors (§11.4.9.1), even if software changed DW under it.
    const head = this.file.get(IQH_REG.offset) & (wide ? POINTER & ~0x10 : POINTER);
    const tail = this.file.get(IQT_REG.offset) & POINTER;
    if (head === tail) return false;
    const bytes = queueBytes(this.file);
    const info = this.checkQueue(head, tail, wide, bytes);
    if (info !== IQEI.NONE) return this.fail(info, 'queue');
    if (!this.fetch(head, wide)) return this.fail(IQEI.FETCH, 'fetch');
    const type = ANY_DESCRIPTOR.get.TypeLow(this.words) | (ANY_DESCRIPTOR.get.TypeHigh(this.words) << 4);
    const wrong = this.rules.check(type, this.words, wide, this.lookup.mode);
    if (wrong !== IQEI.NONE) return this.fail(wrong, descriptorName(type));
    if (!this.execute(type)) return false;
    this.counters.commands++;
    const next = head + (wide ? 32 : 16);
    this.file.set(IQH_REG.offset, next >= bytes ? 0 : next);
    return true;
  }

  /** Errors that have nothing to do with a descriptor. §11.4.9.9 */
  private checkQueue(head: number, tail: number, wide: boolean, bytes: number): number {
    const mode = this.lookup.mode;
    if (mode === TTM.RESERVED || mode === TTM.ABORT_DMA) return IQEI.INVALID_TTM;
    if (mode === TTM.SCALABLE && !this.config.scalableMode) return IQEI.INVALID_TTM;
    if (wide ? !this.config.scalableMode : mode === TTM.SCALABLE) return IQEI.INVALID_WIDTH;
    if (tail >= bytes || head >= bytes) return IQEI.INVALID_TAIL;
    if (wide && (tail & 0x10) !== 0) return IQEI.TAIL_ALIGNMENT;
    return IQEI.NONE;
  }

  private fetch(head: number, wide: boolean): boolean {
    const base = IQA_REG.get.IQA(this.file.words, IQA_REG.offset >> 2);
    if (base >= this.memoryEnd) return false;
    // Not fill(): a call costs more than four stores.
    if (!wide) for (let word = 4; word < 8; word++) this.words[word] = 0;
    return this.memory.loadWords(base + head, this.words, wide ? 8 : 4);
  }

  /** §6.5.2.11: the head stays at the descriptor and the queue stops until software clears IQE. */
  private fail(info: number, detail: string): false {
    this.faults.queueError(info);
    this.outputs.event({ kind: 'queueError', name: queueErrorName(info), detail });
    return false;
  }

  /** False when the descriptor has to be taken again later. */
  private execute(type: number): boolean {
    const { words } = this;
    switch (type) {
      case DESCRIPTOR.CONTEXT_CACHE:
        this.invalidator.contextCache(
          CC_INV_DSC.get.G(words),
          CC_INV_DSC.get.DID(words),
          CC_INV_DSC.get.SID(words),
          CC_INV_DSC.get.FM(words),
          this.lookup.mode !== TTM.LEGACY,
        );
        return true;
      case DESCRIPTOR.IOTLB:
        this.invalidator.iotlb(
          IOTLB_INV_DSC.get.G(words),
          IOTLB_INV_DSC.get.DID(words),
          words[2],
          words[3],
          IOTLB_INV_DSC.get.AM(words),
        );
        return true;
      case DESCRIPTOR.PASID_CACHE:
        this.pasidCache();
        return true;
      case DESCRIPTOR.PASID_IOTLB:
        this.pasidIotlb();
        return true;
      case DESCRIPTOR.WAIT:
        this.wait.set(words.subarray(0, 4));
        this.waiting = true;
        return true;
      case DESCRIPTOR.DEVICE_TLB:
        return this.deviceTlb();
      case DESCRIPTOR.PASID_DEVICE_TLB:
        return this.pasidDeviceTlb();
      case DESCRIPTOR.PAGE_GROUP_RESPONSE:
        this.pageGroupResponse();
        return true;
      default:
        throw new Error(`descriptor type ${type} passed its check and has no handler`);
    }
  }

  /** §6.5.2.5. §6.5.2.12: only after the IOTLB invalidations ahead of it are complete. */
  private deviceTlb(): boolean {
    if (this.outputs.pendingAcks() > 0) return false;
    const { words } = this;
    const { get } = DEV_TLB_INV_DSC;
    return this.deviceTlbs.request(
      get.SID(words),
      get.PFSID_LOW(words) | (get.PFSID_HIGH(words) << 4),
      get.MIP(words),
      NO_PASID,
      words[2],
      words[3],
      get.S(words) === 1,
      false,
    );
  }

  /** §6.5.2.6 */
  private pasidDeviceTlb(): boolean {
    if (this.outputs.pendingAcks() > 0) return false;
    const { words } = this;
    const { get } = P_DEV_TLB_INV_DSC;
    return this.deviceTlbs.request(
      get.SID(words),
      get.PFSID_LOW(words) | (get.PFSID_HIGH(words) << 4),
      get.MIP(words),
      get.PASID(words),
      words[2],
      words[3],
      get.S(words) === 1,
      get.GI(words) === 1,
    );
  }

  /** §7.6.1. What a device makes of reserved codes is defined: it is failure. */
  private pageGroupResponse(): void {
    const { words } = this;
    const { get } = PAGE_GRP_RESP_DSC;
    const code = get.RC(words);
    const defined = code === RESPONSE_CODE.SUCCESS || code === RESPONSE_CODE.INVALID_REQUEST;
    this.outputs.pageResponse(
      get.RID(words),
      get.PP(words) === 1 ? get.PASID(words) : NO_PASID,
      get.PRGI(words),
      defined ? code : RESPONSE_CODE.RESPONSE_FAILURE,
    );
  }

  private pasidCache(): void {
    const { words } = this;
    const granularity = PC_INV_DSC.get.G(words);
    if (granularity === PC_GRANULARITY.GLOBAL) this.invalidator.pasidCacheGlobal();
    else if (granularity === PC_GRANULARITY.DOMAIN) {
      this.invalidator.pasidCacheDomain(PC_INV_DSC.get.DID(words));
    } else {
      this.invalidator.pasidCachePasid(PC_INV_DSC.get.DID(words), PC_INV_DSC.get.PASID(words));
    }
  }

  private pasidIotlb(): void {
    const { words } = this;
    const did = P_IOTLB_INV_DSC.get.DID(words);
    const pasid = P_IOTLB_INV_DSC.get.PASID(words);
    const addressMask = P_IOTLB_INV_DSC.get.AM(words);
    // Any mask is allowed here (§11.4.2, MAMV); one that reaches beyond 64 bits means every address.
    if (P_IOTLB_INV_DSC.get.G(words) === P_IOTLB_GRANULARITY.PAGE && addressMask < 52) {
      this.invalidator.pasidIotlbPages(did, pasid, words[2], words[3], addressMask);
    } else {
      this.invalidator.pasidIotlb(did, pasid);
    }
  }

  /**
   * The wait that was taken, if its predecessors are all done. §6.5.2.9, §6.5.2.10. PD needs nothing: a page request
   * is in its queue before anything else is looked at.
   */
  private finishWait(): boolean {
    if (this.outputs.pendingAcks() > 0 || this.deviceTlbs.pending > 0) return false;
    this.waiting = false;
    this.complete(this.wait);
    return true;
  }

  private complete(words: Uint32Array): void {
    if (INV_WAIT_DSC.get.SW(words) === 1) {
      const highMask = 2 ** (this.config.hostAddressWidth - 32) - 1;
      const address = (words[3] & highMask) * 2 ** 32 + words[2];
      if (!this.memory.store32(address, INV_WAIT_DSC.get.StatusData(words))) {
        this.outputs.event({
          kind: 'queueError',
          name: 'status address is not memory',
          detail: `0x${address.toString(16)}`,
        });
      }
    }
    if (INV_WAIT_DSC.get.IF(words) === 0) return;
    // IWC still set: an earlier completion waits for software, so this is no new interrupt condition.
    if ((this.file.get(ICS_REG.offset) & IWC) !== 0) return;
    this.file.update(ICS_REG.offset, IWC, IWC);
    this.event.raise();
  }

  /** ICS_REG was written. */
  private statusWritten(): void {
    if ((this.file.get(ICS_REG.offset) & IWC) === 0) this.event.serviced();
  }
}

/** Descriptors have 256 bits instead of 128. §11.4.9.3 */
export function isWide(file: RegisterFile): boolean {
  return IQA_REG.get.DW(file.words, IQA_REG.offset >> 2) === 1;
}

/** Of the whole queue. §11.4.9.3 */
export function queueBytes(file: RegisterFile): number {
  return 4096 * 2 ** IQA_REG.get.QS(file.words, IQA_REG.offset >> 2);
}

/** Names of {@link IQEI} values. */
function queueErrorName(info: number): string {
  for (const [name, value] of Object.entries(IQEI)) if (value === info) return `IQE ${name}`;
  return `IQE ${info}`;
}
