/**
 * The Command queue. IHI 0070 §3.5, chapter 4, §7.1.
 *
 * A state machine without time: a kick (producer write, enable, error acknowledged, acknowledgement from outside)
 * takes commands until the queue is empty, an error stops it, a CMD_SYNC meets invalidations that caches outside or
 * devices have not acknowledged, or a CMD_ATC_INV finds too many of them under way. Work per kick is bounded by the
 * queue's size, as only software moves the producer.
 */
import type { GuestMemory } from '../../memory/guest-memory.js';
import {
  ANY_COMMAND,
  ATC_INV_ALL,
  CMD,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_TLBI,
  COMMAND_BYTES,
  CS,
  commandName,
  PRI_RESP,
  RANGE_ALL,
  TLBI_TG_GRANULE,
} from '../../spec/smmuv3/commands.js';
import { CERROR, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, GERRORN } from '../../spec/smmuv3/registers.js';
import type { ModelCounters } from '../counters.js';
import { ANY, type IommuOutputs, NO_PASID, PAGE_RESPONSE, WIRE } from '../iommu.js';
import type { RegisterFile } from '../registers.js';
import { QUEUE_LOG2, type SmmuConfig, STREAM_ID_BITS } from './config.js';
import type { DeviceInvalidations } from './device-invalidations.js';
import { GERROR_BIT, type GlobalErrors } from './global-errors.js';
import type { Interrupts } from './interrupts.js';
import type { SmmuInvalidator } from './invalidation.js';
import type { Stalls } from './stalls.js';

const WORDS = COMMAND_BYTES / 4;
const CMDQEN = 1 << CR0.fields.CMDQEN.lsb;
const SMMUEN = 1 << CR0.fields.SMMUEN.lsb;
const ERR_SHIFT = CMDQ_CONS.fields.ERR.lsb;
/** Address bits 51:12 of CMD_TLBI_S2_IPA. */
const IPA_HI = 0xfffff;
/** PCI Express response codes by CMD_PRI_RESP.Resp. §8.3 */
const RESPONSE_CODE: readonly number[] = [
  PAGE_RESPONSE.FAILURE,
  PAGE_RESPONSE.INVALID,
  PAGE_RESPONSE.SUCCESS,
];

export class CommandQueue {
  private readonly words = new Uint32Array(WORDS);
  /** A CMD_SYNC was taken; acknowledgements are missing. The consumer index still points at it. */
  private waiting = false;
  private busy = false;
  /** Invalidations were taken since the last CMD_SYNC. */
  private invalidated = false;

  constructor(
    private readonly config: SmmuConfig,
    private readonly file: RegisterFile,
    private readonly memory: GuestMemory,
    private readonly invalidator: SmmuInvalidator,
    private readonly devices: DeviceInvalidations,
    private readonly stalls: Stalls,
    private readonly errors: GlobalErrors,
    private readonly interrupts: Interrupts,
    private readonly outputs: IommuOutputs,
    private readonly counters: ModelCounters,
  ) {
    file.onWrite(CMDQ_PROD.offset, () => this.kick());
    file.onWrite(GERRORN.offset, () => {
      // An error that stopped this queue, or the Event queue, may be acknowledged now.
      this.kick();
      stalls.writeRecords();
    });
  }

  /** Power-on; the registers are reset by their file. */
  reset(): void {
    this.waiting = false;
    this.invalidated = false;
  }

  /** CMDQEN was cleared: what waits is fetched again when it is set. */
  stop(): void {
    this.waiting = false;
  }

  /** Takes commands as long as that is possible. */
  kick(): void {
    if (this.busy) return;
    this.busy = true;
    // Indexes that software put further apart than the queue is long make no more work than that.
    for (let left = 2 ** (QUEUE_LOG2 + 1); left > 0 && this.step(); left--) {
      // Each step moves the consumer index.
    }
    this.busy = false;
  }

  /** Enabled, and no error stops it. */
  private get running(): boolean {
    return (this.file.get(CR0.offset) & CMDQEN) !== 0 && !this.errors.active(GERROR_BIT.CMDQ_ERR);
  }

  /** Running, with no command left and none under way. */
  get atRest(): boolean {
    const { file, devices } = this;
    if (!this.running || this.waiting || devices.pending > 0 || devices.timedOut) return false;
    const mask = indexMask(file);
    return ((file.get(CMDQ_CONS.offset) ^ file.get(CMDQ_PROD.offset)) & mask) === 0;
  }

  /** A plain command that the peer has carried out, from word `at` of `words`. False: it is none. */
  ran(words: Uint32Array, at: number): boolean {
    for (let word = 0; word < WORDS; word++) this.words[word] = words[at + word];
    const opcode = ANY_COMMAND.get.Opcode(this.words);
    if (!this.legal(opcode)) return false;
    if (opcode === CMD.SYNC) {
      this.synchronized();
      if (CMD_SYNC.get.CS(this.words) === CS.SIG_IRQ) this.counters.interrupts++;
    } else if (opcode >= CMD.TLBI_NH_ALL && opcode < CMD.TLBI_NSNH_ALL) this.execute(opcode);
    else return false;
    this.counters.commands++;
    return true;
  }

  /** Handles one command. False when nothing more can be done now. */
  private step(): boolean {
    if (!this.running) return false;
    const { file } = this;
    const mask = indexMask(file);
    const cons = file.get(CMDQ_CONS.offset) & mask;
    if (cons === (file.get(CMDQ_PROD.offset) & mask)) return false;
    const index = cons & (mask >> 1);
    if (!this.memory.loadWords(queueBase(file) + index * COMMAND_BYTES, this.words, WORDS)) {
      return this.fail(CERROR.ABT, 'fetch');
    }
    const opcode = ANY_COMMAND.get.Opcode(this.words);
    if (!this.legal(opcode)) return this.fail(CERROR.ILL, commandName(opcode));
    if (opcode === CMD.SYNC) {
      if (!this.waiting) this.counters.commands++;
      this.waiting = this.outputs.pendingAcks() > 0 || this.devices.pending > 0;
      if (this.waiting) return false;
      if (this.devices.takeTimeout()) return this.fail(CERROR.ATC_INV_SYNC, commandName(opcode));
      this.complete();
    } else if (opcode === CMD.ATC_INV) {
      if (!this.invalidateDevice()) return false;
      this.counters.commands++;
    } else {
      this.counters.commands++;
      this.execute(opcode);
    }
    const next = ((cons + 1) & mask) >>> 0;
    file.set(CMDQ_CONS.offset, next | (file.get(CMDQ_CONS.offset) & (0x7f << ERR_SHIFT)));
    return true;
  }

  /** §7.1: the consumer index stays at the command, and the queue stops until the error is acknowledged. */
  private fail(error: number, detail: string): false {
    this.waiting = false;
    this.file.update(CMDQ_CONS.offset, 0x7f << ERR_SHIFT, error << ERR_SHIFT);
    this.outputs.event({ kind: 'queueError', name: errorName(error), detail });
    this.errors.raise(GERROR_BIT.CMDQ_ERR);
    return false;
  }

  /** §4.1.3, §7.1: commands of features that are not there, of Secure state, and reserved encodings are ILLEGAL. */
  private legal(opcode: number): boolean {
    const { words, config } = this;
    if (ANY_COMMAND.get.SSec(words) === 1) return false;
    switch (opcode) {
      case CMD.PREFETCH_CONFIG:
      case CMD.PREFETCH_ADDR:
      case CMD.CFGI_STE:
      case CMD.CFGI_STE_RANGE:
      case CMD.TLBI_NSNH_ALL:
        return true;
      case CMD.CFGI_CD:
      case CMD.CFGI_CD_ALL:
      case CMD.TLBI_NH_ALL:
      case CMD.TLBI_NH_ASID:
        return config.stage1;
      case CMD.TLBI_NH_VA:
      case CMD.TLBI_NH_VAA:
        return config.stage1 && this.rangeLegal();
      case CMD.TLBI_S12_VMALL:
        return config.stage2;
      case CMD.TLBI_S2_IPA:
        return config.stage2 && this.rangeLegal();
      case CMD.ATC_INV:
        return config.ats && CMD_ATC_INV.get.Size(words) <= ATC_INV_ALL;
      case CMD.PRI_RESP:
        return config.pri && CMD_PRI_RESP.get.Resp(words) !== PRI_RESP.RESERVED;
      case CMD.RESUME:
      case CMD.STALL_TERM:
        return config.stall;
      case CMD.SYNC:
        return CMD_SYNC.get.CS(words) !== CS.RESERVED;
      default:
        return false;
    }
  }

  /** §4.4.1.1: with a granule, TTL, NUM and SCALE must not all be zero; level 1 has no leaves of 16 KiB granules and is as 0. */
  private rangeLegal(): boolean {
    const { words } = this;
    const granule = TLBI_TG_GRANULE[CMD_TLBI.get.TG(words)];
    if (!this.config.rangeInvalidation || granule === 0) return true;
    const ttl = CMD_TLBI.get.TTL(words);
    const level = granule === 14 && ttl === 1 ? 0 : ttl;
    return (CMD_TLBI.get.NUM(words) | CMD_TLBI.get.SCALE(words) | level) !== 0;
  }

  private execute(opcode: number): void {
    const { words, invalidator } = this;
    const sid = words[1];
    if (opcode >= CMD.CFGI_STE && opcode <= CMD.TLBI_NSNH_ALL) this.invalidated = true;
    switch (opcode) {
      case CMD.CFGI_STE:
        invalidator.streamTableEntry(CMD_CFGI_STE.get.StreamID(words));
        return;
      case CMD.CFGI_STE_RANGE: {
        const range = CMD_CFGI_STE_RANGE.get.Range(words);
        invalidator.streamTableRange(sid, range === RANGE_ALL ? 32 : range);
        return;
      }
      case CMD.CFGI_CD:
        invalidator.contextDescriptor(sid, CMD_CFGI_CD.get.SubstreamID(words));
        return;
      case CMD.CFGI_CD_ALL:
        invalidator.contextDescriptors(sid);
        return;
      case CMD.TLBI_NSNH_ALL:
        invalidator.everything();
        return;
      case CMD.PREFETCH_CONFIG:
      case CMD.PREFETCH_ADDR:
        // Hints (§4.2). Nothing is gained by fetching early here.
        return;
      case CMD.PRI_RESP:
        this.respond();
        return;
      case CMD.RESUME:
        this.stalls.resume(sid, CMD_RESUME.get.STAG(words), CMD_RESUME.get.Ac(words) === 1);
        return;
      case CMD.STALL_TERM:
        this.stalls.terminate(CMD_STALL_TERM.get.StreamID(words));
        return;
      default:
        this.invalidateTranslations(opcode);
    }
  }

  /** §4.5: without SMMUEN the ATS interface does not work, and its commands are ignored. */
  private get atsWorks(): boolean {
    return (this.file.get(CR0.offset) & SMMUEN) !== 0;
  }

  /** CMD_ATC_INV. False: not now. */
  private invalidateDevice(): boolean {
    return !this.atsWorks || this.devices.send(this.words);
  }

  /** CMD_PRI_RESP. §4.5.2 */
  private respond(): void {
    const { words, config } = this;
    const sid = CMD_PRI_RESP.get.StreamID(words);
    if (!this.atsWorks || sid >= 2 ** STREAM_ID_BITS) return;
    const substream = CMD_PRI_RESP.get.SSV(words) === 1 && config.ssidBits > 0;
    const ssid = substream ? CMD_PRI_RESP.get.SubstreamID(words) : NO_PASID;
    const code = RESPONSE_CODE[CMD_PRI_RESP.get.Resp(words)];
    this.outputs.pageResponse(sid, ssid, CMD_PRI_RESP.get.PRGIndex(words), code);
  }

  private invalidateTranslations(opcode: number): void {
    const { words, invalidator } = this;
    // §4.4: without stage 2 there is one VMID, 0.
    const vmid = this.config.stage2 ? CMD_TLBI.get.VMID(words) : 0;
    const asid = CMD_TLBI.get.ASID(words);
    const range = this.config.rangeInvalidation ? TLBI_TG_GRANULE[CMD_TLBI.get.TG(words)] : 0;
    const granule = range === 0 ? 12 : range;
    const pages = range === 0 ? 1 : (CMD_TLBI.get.NUM(words) + 1) * 2 ** CMD_TLBI.get.SCALE(words);
    const lo = words[2] & (-1 << granule);
    switch (opcode) {
      case CMD.TLBI_NH_ALL:
        invalidator.firstStage(vmid);
        return;
      case CMD.TLBI_NH_ASID:
        invalidator.asid(vmid, asid);
        return;
      case CMD.TLBI_NH_VA:
        invalidator.addresses(vmid, asid, lo, words[3] | 0, granule, pages);
        return;
      case CMD.TLBI_NH_VAA:
        invalidator.addresses(vmid, ANY, lo, words[3] | 0, granule, pages);
        return;
      case CMD.TLBI_S12_VMALL:
        invalidator.vmid(vmid);
        return;
      case CMD.TLBI_S2_IPA:
        invalidator.intermediateAddresses(vmid, lo, words[3] & IPA_HI, granule, pages);
        return;
      default:
        throw new Error(`${commandName(opcode)} is legal, but nothing handles it`);
    }
  }

  /** A CMD_SYNC whose predecessors are all done. SEV is not advertised: it completes like NONE. §4.7.3 */
  private complete(): void {
    const { words } = this;
    this.synchronized();
    if (CMD_SYNC.get.CS(words) !== CS.SIG_IRQ) return;
    const sent = this.interrupts.message(words[2], words[3], CMD_SYNC.get.MSIData(words), WIRE.CMD_SYNC);
    if (!sent) this.errors.raise(GERROR_BIT.MSI_CMDQ_ABT_ERR);
  }

  private synchronized(): void {
    if (this.invalidated) this.stalls.invalidated();
    this.invalidated = false;
  }
}

/** Bits of the queue's indexes, the wrap bit among them. §3.5.1 */
export function indexMask(file: RegisterFile): number {
  const log2 = Math.min(CMDQ_BASE.get.LOG2SIZE(file.words, CMDQ_BASE.offset >> 2), QUEUE_LOG2);
  return 2 ** (log2 + 1) - 1;
}

/** Address of the first entry: aligned to the size of the queue, at least to 32 bytes. §3.5.1 */
export function queueBase(file: RegisterFile): number {
  const address = CMDQ_BASE.get.ADDR(file.words, CMDQ_BASE.offset >> 2);
  return address - (address % Math.max(32, ((indexMask(file) + 1) / 2) * COMMAND_BYTES));
}

/** Names of {@link CERROR} values. */
function errorName(error: number): string {
  if (error === CERROR.ATC_INV_SYNC) return 'CERROR_ATC_INV_SYNC';
  return error === CERROR.ILL ? 'CERROR_ILL' : 'CERROR_ABT';
}
