/** Commands and structures of a VT-d guest. VT-d §6.5, §9. */

import { ANY, NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES, PAGE_OFFSET, pageOf } from '../../base/page.js';
import { join } from '../../base/u64.js';
import type { GuestMemory } from '../../memory/guest-memory.js';
import {
  ANY_DESCRIPTOR,
  CC_INV_DSC,
  DESCRIPTOR,
  IOTLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
  PC_GRANULARITY,
  PC_INV_DSC,
} from '../../spec/vtd/descriptors.js';
import {
  CC_GRANULARITY,
  CCMD_REG,
  FSTS_REG,
  GCMD_REG,
  GSTS_REG,
  IOTLB_GRANULARITY,
  IOTLB_REG,
  IQA_REG,
  IQH_REG,
  IQT_REG,
  IVA_REG,
  RTADDR_REG,
  TTM,
} from '../../spec/vtd/registers.js';
import {
  CONTEXT_ENTRY,
  PASID_DIRECTORY_ENTRY,
  PASID_TABLE_ENTRIES,
  PASID_TABLE_ENTRY,
  SM_CONTEXT_ENTRY,
} from '../../spec/vtd/structures.js';
import { type Asked, asked, blockOf, type GuestCommands, Ring, type TagPair } from './guest-commands.js';

const PRESENT = 1;
/** Bits 51:12 of an entry's pointer. */
const POINTER_HI = 0xfffff;
/** Function-number bits that FM hides. Table 21 */
const FUNCTION_MASKS = [0, 0b100, 0b110, 0b111] as const;
const NOTHING: readonly Asked[] = [];

export class VtdCommands implements GuestCommands {
  readonly #registers: Uint32Array;
  readonly #memory: GuestMemory;
  readonly #ring = new Ring();
  readonly #words = new Uint32Array(16);
  /** IVA_REG, which can't be read back. */
  readonly #address = new Uint32Array(2);
  /** RTADDR_REG as it was latched by Set Root Table Pointer. */
  #root = 0;
  #scalable = false;

  constructor(registers: Uint32Array, memory: GuestMemory) {
    this.#registers = registers;
    this.#memory = memory;
    this.#latchRoot();
    this.#ring.restart(this.#slotOf(IQT_REG.offset));
  }

  get restarts(): number {
    return this.#ring.restarts;
  }

  get done(): number {
    return this.#ring.done(this.#slotOf(IQH_REG.offset), this.#slots());
  }

  written(offset: number, size: number, lo: number, hi: number): readonly Asked[] {
    const registers = this.#registers;
    if (offset === IQT_REG.offset) return size < 4 ? NOTHING : this.#doorbell(lo);
    if (offset === GCMD_REG.offset) return this.#globalCommand(Uint32Array.of(lo));
    if (offset === FSTS_REG.offset) return this.#errorCleared(Uint32Array.of(lo));
    if (offset === IVA_REG.offset || offset === IVA_REG.offset + 4) {
      this.#address[(offset - IVA_REG.offset) / 4] = lo;
      if (size === 8) this.#address[1] = hi;
      return NOTHING;
    }
    const high = offset % 8 === 4 ? lo : size === 8 ? hi : undefined;
    const base = offset - (offset % 8);
    if (high === undefined || (base !== CCMD_REG.offset && base !== IOTLB_REG.offset)) return NOTHING;
    const words = Uint32Array.of(offset % 8 === 4 ? registers[base >> 2] : lo, high);
    return base === CCMD_REG.offset ? this.#contextCommand(words) : this.#iotlbCommand(words);
  }

  tags(rid: number, pasid: number): TagPair | undefined {
    if (GSTS_REG.get.TES(this.#registers, GSTS_REG.offset >> 2) === 0) return undefined;
    return this.#scalable ? this.#scalableTags(rid, pasid) : this.#legacyTags(rid, pasid);
  }

  get #queueing(): boolean {
    return GSTS_REG.get.QIES(this.#registers, GSTS_REG.offset >> 2) === 1;
  }

  #doorbell(tail: number): readonly Asked[] {
    if (this.#queueing) return [...this.#queued(tail)];
    this.#ring.restart(this.#slot(tail));
    return NOTHING;
  }

  /**
   * The queue goes on where it stopped, and software may have written other descriptors there
   * (§6.5.2.11).
   */
  #errorCleared(written: Uint32Array): readonly Asked[] {
    const stopped = FSTS_REG.get.IQE(this.#registers, FSTS_REG.offset >> 2) === 1;
    if (!stopped || FSTS_REG.get.IQE(written) === 0) return NOTHING;
    this.#ring.restart(this.#slotOf(IQH_REG.offset));
    return [...this.#queued(this.#registers[IQT_REG.offset >> 2])];
  }

  #latchRoot(): void {
    const at = RTADDR_REG.offset >> 2;
    this.#root = RTADDR_REG.get.RTA(this.#registers, at);
    this.#scalable = RTADDR_REG.get.TTM(this.#registers, at) === TTM.SCALABLE;
  }

  #descriptorBytes(): number {
    return IQA_REG.get.DW(this.#registers, IQA_REG.offset >> 2) === 1 ? 32 : 16;
  }

  /** §11.4.9.3: 2^QS pages. */
  #slots(): number {
    return (PAGE_BYTES * 2 ** IQA_REG.get.QS(this.#registers, IQA_REG.offset >> 2)) / this.#descriptorBytes();
  }

  #slotOf(register: number): number {
    return this.#slot(this.#registers[register >> 2]);
  }

  /** Slot of a byte offset into the queue. */
  #slot(offset: number): number {
    return Math.floor((offset & 0x7fff0) / this.#descriptorBytes()) % this.#slots();
  }

  *#queued(tail: number): Iterable<Asked> {
    const bytes = this.#descriptorBytes();
    const base = IQA_REG.get.IQA(this.#registers, IQA_REG.offset >> 2);
    const slots = this.#slots();
    for (const { slot, order } of this.#ring.submit(this.#slot(tail), slots)) {
      const words = this.#words.fill(0);
      if (!this.#memory.loadWords(base + slot * bytes, words, bytes / 4)) continue;
      const found = descriptorAsks(order, words, this.#scalable);
      if (found !== undefined) yield found;
    }
  }

  /** Set Root Table Pointer and a change of TE leave nothing that was cached (ESRTPS). */
  #globalCommand(command: Uint32Array): readonly Asked[] {
    const at = GSTS_REG.offset >> 2;
    const latches = GCMD_REG.get.SRTP(command) === 1;
    if (latches) this.#latchRoot();
    if (!this.#queueing) this.#ring.restart(this.#slotOf(IQT_REG.offset));
    const changes = GCMD_REG.get.TE(command) !== GSTS_REG.get.TES(this.#registers, at);
    return changes || latches ? [asked(0, { afresh: true })] : NOTHING;
  }

  #contextCommand(words: Uint32Array): readonly Asked[] {
    const { get } = CCMD_REG;
    if (get.ICC(words) === 0) return NOTHING;
    if (get.CIRG(words) === CC_GRANULARITY.DOMAIN && !this.#scalable)
      return [asked(0, { space: get.DID(words) })];
    if (get.CIRG(words) !== CC_GRANULARITY.DEVICE) return [asked(0)];
    return [asked(0, { rid: get.SID(words), ridMask: FUNCTION_MASKS[get.FM(words)] })];
  }

  #iotlbCommand(words: Uint32Array): readonly Asked[] {
    const { get } = IOTLB_REG;
    if (get.IVT(words) === 0) return NOTHING;
    const space = get.DID(words);
    if (get.IIRG(words) === IOTLB_GRANULARITY.GLOBAL) return [asked(0)];
    if (get.IIRG(words) === IOTLB_GRANULARITY.DOMAIN) return [asked(0, { space })];
    const page = pageOf(this.#address[0], this.#address[1]);
    return [asked(0, { space, ...blockOf(page, IVA_REG.get.AM(this.#address)) })];
  }

  #load(address: number, words: number): boolean {
    return this.#memory.loadWords(address, this.#words, words) && (this.#words[0] & PRESENT) !== 0;
  }

  #pointer(): number {
    return join(this.#words[0] & ~PAGE_OFFSET, this.#words[1] & POINTER_HI);
  }

  #legacyTags(rid: number, pasid: number): TagPair | undefined {
    if (pasid !== NO_PASID || !this.#load(this.#root + (rid >> 8) * 16, 4)) return undefined;
    if (!this.#load(this.#pointer() + (rid & 0xff) * CONTEXT_ENTRY.bytes, 4)) return undefined;
    return { space: CONTEXT_ENTRY.get.DID(this.#words), sub: ANY };
  }

  #scalableTags(rid: number, pasid: number): TagPair | undefined {
    const devfn = rid & 0xff;
    if (!this.#load(this.#root + (rid >> 8) * 16 + (devfn >> 7) * 8, 2)) return undefined;
    if (!this.#load(this.#pointer() + (devfn & 0x7f) * SM_CONTEXT_ENTRY.bytes, 8)) return undefined;
    const sub = pasid === NO_PASID ? SM_CONTEXT_ENTRY.get.RID_PASID(this.#words) : pasid;
    const index = Math.floor(sub / PASID_TABLE_ENTRIES);
    const directory = SM_CONTEXT_ENTRY.get.PASIDDIRPTR(this.#words);
    if (!this.#load(directory + index * PASID_DIRECTORY_ENTRY.bytes, 2)) return undefined;
    const entry = this.#pointer() + (sub % PASID_TABLE_ENTRIES) * PASID_TABLE_ENTRY.bytes;
    if (!this.#load(entry, 16)) return undefined;
    return { space: PASID_TABLE_ENTRY.get.DID(this.#words), sub };
  }
}

function descriptorAsks(order: number, words: Uint32Array, scalable: boolean): Asked | undefined {
  const type = ANY_DESCRIPTOR.get.TypeLow(words) | (ANY_DESCRIPTOR.get.TypeHigh(words) << 4);
  const page = pageOf(words[2], words[3]);
  switch (type) {
    case DESCRIPTOR.CONTEXT_CACHE: {
      const { get } = CC_INV_DSC;
      if (get.G(words) === CC_GRANULARITY.DOMAIN && !scalable) return asked(order, { space: get.DID(words) });
      if (get.G(words) !== CC_GRANULARITY.DEVICE) return asked(order);
      return asked(order, { rid: get.SID(words), ridMask: FUNCTION_MASKS[get.FM(words)] });
    }
    case DESCRIPTOR.PASID_CACHE: {
      const { get } = PC_INV_DSC;
      if (get.G(words) === PC_GRANULARITY.GLOBAL) return asked(order);
      const sub = get.G(words) === PC_GRANULARITY.PASID ? get.PASID(words) : ANY;
      return asked(order, { space: get.DID(words), sub });
    }
    case DESCRIPTOR.IOTLB: {
      const { get } = IOTLB_INV_DSC;
      if (get.G(words) === IOTLB_GRANULARITY.GLOBAL) return asked(order);
      const space = get.DID(words);
      if (get.G(words) === IOTLB_GRANULARITY.DOMAIN) return asked(order, { space });
      return asked(order, { space, ...blockOf(page, get.AM(words)) });
    }
    case DESCRIPTOR.PASID_IOTLB: {
      const { get } = P_IOTLB_INV_DSC;
      const tags = { space: get.DID(words), sub: get.PASID(words) };
      if (get.G(words) === P_IOTLB_GRANULARITY.PASID) return asked(order, tags);
      return asked(order, { ...tags, ...blockOf(page, get.AM(words)) });
    }
    default:
      return undefined;
  }
}
