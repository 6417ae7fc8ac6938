/**
 * An SMMUv3 with array memory and outputs that record what they are told: for the model's unit
 * tests.
 */

import { NO_PASID } from '../../src/base/ids.js';
import { PAGE_BYTES } from '../../src/base/page.js';
import {
  type InvalidateScope,
  type Iommu,
  MAX_SPANS,
  type ModelEvent,
  type PageRequest,
  REQUEST,
  SPAN_WORDS,
  TRANSLATE_STATUS,
  type TranslateResult,
} from '../../src/device/iommu.js';
import { createModel } from '../../src/device/models.js';
import type { PasidSpace } from '../../src/device/pasid-space.js';
import { ArrayMemory, halves } from '../../src/memory/array.js';
import { decode, type Layout, pack } from '../../src/spec/define.js';
import {
  CMD,
  CMD_CFGI_STE,
  CMD_RESUME,
  CMD_SYNC,
  CMD_TLBI,
  COMMAND_BYTES,
} from '../../src/spec/smmuv3/commands.js';
import { EVENT_BYTES, EVENT_LAYOUT, PRI_ENTRY } from '../../src/spec/smmuv3/events.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR0ACK,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GERROR,
  GERRORN,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_PROD,
  SMMU_REGISTER_BYTES,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../src/spec/smmuv3/registers.js';
import { CD, STE, STE_CONFIG } from '../../src/spec/smmuv3/structures.js';
import { DeviceOutputs } from './device-outputs.js';

export const RAM_BYTES = 0x0080_0000;
/** Memory that can't be written. */
export const ROM = 0x1000_0000;
/** Stream table (linear, 256 entries), queues; pages that are given out begin above. */
export const STREAM_TABLE = 0x8000;
export const COMMAND_QUEUE = 0x1_0000;
export const EVENT_QUEUE = 0x2_0000;
export const PRI_QUEUE = 0x3_0000;
const FIRST_PAGE = 0x10_0000;
/** log2 of the entries of all queues. */
export const QUEUE_LOG2 = 4;
export const SID = 0x18;
export const READ = 1;
export const WRITE = 2;
export const EXECUTE = 4;
export const PRIVILEGED = 8;
/** Bits of CR0. ALL: what every driver sets. */
export const ENABLES = { SMMUEN: 1, PRIQEN: 2, EVENTQEN: 4, CMDQEN: 8, ATSCHK: 16, ALL: 13 } as const;

/**
 * Bits of a descriptor: valid page or table, Access flag, not global, unprivileged; in stage 2 both
 * rights.
 */
export const PAGE = 0x3n;
export const AF = 1n << 10n;
export const NG = 1n << 11n;
export const AP_USER = 1n << 6n;
export const AP_READ_ONLY = 1n << 7n;
export const S1_LEAF = PAGE | AF | NG | AP_USER;
export const S2_LEAF = PAGE | AF | (3n << 6n);

type Fields = Readonly<Record<string, number>>;

/** What a translation came to. */
export interface Answer {
  readonly ok: boolean;
  readonly out: bigint;
  readonly log2: number;
  readonly permissions: number;
  readonly space: number;
  readonly sub: number;
  readonly count: number;
}

/** A whole answer; `output` is that of the span. */
interface Outcome {
  readonly status: number;
  readonly stall: number;
  readonly output: bigint;
  readonly log2: number;
  readonly permissions: number;
  readonly space: number;
}

/** A recorded event: its name, and those fields that are not zero. */
interface Recorded {
  readonly name: string;
  readonly [field: string]: number | string | bigint;
}

export class TestSmmu {
  readonly memory = new ArrayMemory([
    { base: 0, bytes: RAM_BYTES },
    { base: ROM, bytes: PAGE_BYTES, writable: false },
  ]);
  readonly registers = new Uint32Array(SMMU_REGISTER_BYTES / 4);
  readonly invalidations: InvalidateScope[] = [];
  readonly interrupts: { address: number; data: number }[] = [];
  readonly wires: number[] = [];
  readonly events: ModelEvent[] = [];
  readonly devices = new DeviceOutputs();
  /** What `pendingAcks` says; a test sets it before an input. */
  acks = 0;
  readonly model: Iommu;
  #nextPage = FIRST_PAGE;
  #produced = 0;

  constructor(
    readonly options: Readonly<Record<string, string>> = {},
    pasids?: PasidSpace,
  ) {
    this.model = createModel('smmuv3', options, {
      memory: this.memory,
      registers: this.registers,
      outputs: Object.assign(this.devices, {
        invalidate: (scope: InvalidateScope) => void this.invalidations.push({ ...scope }),
        pendingAcks: () => this.acks,
        interrupt: (lo: number, hi: number, data: number) =>
          void this.interrupts.push({ address: hi * 2 ** 32 + lo, data }),
        wire: (line: number) => void this.wires.push(line),
        event: (event: ModelEvent) => void this.events.push(event),
      }),
      ...(pasids && { pasids }),
    });
  }

  /** Fresh zeroed pages of RAM, aligned to their size. */
  page(count = 1): number {
    const bytes = count * PAGE_BYTES;
    const page = Math.ceil(this.#nextPage / bytes) * bytes;
    this.#nextPage = page + bytes;
    return page;
  }

  read(offset: number): number {
    return this.registers[offset >> 2];
  }

  write32(offset: number, value: number): void {
    this.model.writeRegister(offset, 4, value >>> 0, 0);
  }

  write64(offset: number, value: number): void {
    const [lo, hi] = halves(value);
    this.model.writeRegister(offset, 8, lo, hi);
  }

  store(gpa: number, words: ArrayLike<number>): void {
    for (let index = 0; index < words.length; index++) this.memory.store32(gpa + index * 4, words[index] | 0);
  }

  /** Tables and queues in place, everything enabled: what a driver's probe leaves. */
  start(enables: number = ENABLES.ALL): this {
    this.write64(STRTAB_BASE.offset, STREAM_TABLE);
    this.write32(STRTAB_BASE_CFG.offset, 8);
    this.write64(CMDQ_BASE.offset, COMMAND_QUEUE + QUEUE_LOG2);
    this.write64(EVENTQ_BASE.offset, EVENT_QUEUE + QUEUE_LOG2);
    this.write64(PRIQ_BASE.offset, PRI_QUEUE + QUEUE_LOG2);
    this.write32(CR0.offset, enables);
    return this;
  }

  get acknowledged(): number {
    return this.read(CR0ACK.offset);
  }

  /** Stores a linear STE. `V` is 1 unless said otherwise. */
  ste(sid: number, fields: Fields): void {
    this.store(STREAM_TABLE + sid * STE.bytes, pack(STE, { V: 1, ...fields }));
  }

  /** Stores a CD: 4 KiB granule, 48 bits, TTB0 only, faults recorded, unless said otherwise. */
  cd(address: number, fields: Fields): void {
    const usual = { V: 1, AA64: 1, A: 1, R: 1, T0SZ: 16, EPD1: 1, IPS: 5 };
    this.store(address, pack(CD, { ...usual, ...fields }));
  }

  /** Stage 1 with one CD. Returns the root table and the CD's address. */
  stage1(sid: number, cd: Fields = {}, ste: Fields = {}): { root: number; cd: number } {
    const root = this.page();
    const address = this.page();
    this.cd(address, { TTB0: root, ASID: 5, ...cd });
    this.ste(sid, { Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: address, ...ste });
    return { root, cd: address };
  }

  /** Fields of an STE's stage 2: 40 bits from level 1 (two concatenated tables). */
  stage2Fields(root: number, vmid = 7): Fields {
    return { S2VMID: vmid, S2T0SZ: 24, S2SL0: 1, S2PS: 5, S2AA64: 1, S2R: 1, S2TTB: root };
  }

  /**
   * Maps a 4 KiB page (or a block of `level`) through 4 KiB tables; `top` is Arm's level of the
   * root.
   */
  map(root: number, input: bigint, output: bigint, leaf: bigint, top = 0, level = 3): number {
    let table = root;
    for (let at = top; ; at++) {
      const shift = BigInt(12 + 9 * (3 - at));
      const index = at === top ? (input & ((1n << 48n) - 1n)) >> shift : (input >> shift) & 511n;
      const address = table + Number(top === 1 && at === top ? index & 1023n : index & 511n) * 8;
      if (at === level) {
        this.memory.poke(address, output | (level === 3 ? leaf : leaf & ~2n));
        return address;
      }
      const value = this.memory.peek(address) ?? 0n;
      if ((value & 1n) === 0n) this.memory.poke(address, BigInt(this.page()) | PAGE);
      table = Number((this.memory.peek(address) ?? 0n) & 0xffff_ffff_f000n);
    }
  }

  /** Puts commands on the queue and moves the producer. */
  submit(...commands: readonly ArrayLike<number>[]): void {
    for (const words of commands) {
      const index = this.#produced & (2 ** QUEUE_LOG2 - 1);
      this.store(COMMAND_QUEUE + index * COMMAND_BYTES, words);
      this.#produced = (this.#produced + 1) & (2 ** (QUEUE_LOG2 + 1) - 1);
    }
    this.write32(CMDQ_PROD.offset, this.#produced);
  }

  get consumed(): number {
    return this.read(CMDQ_CONS.offset) & 0xfffff;
  }

  get commandError(): number {
    return (this.read(CMDQ_CONS.offset) >>> 24) & 0x7f;
  }

  get activeErrors(): number {
    return (this.read(GERROR.offset) ^ this.read(GERRORN.offset)) >>> 0;
  }

  acknowledgeErrors(): void {
    this.write32(GERRORN.offset, this.read(GERROR.offset));
  }

  /** Takes the recorded events off the queue. */
  recorded(): Recorded[] {
    const found: Recorded[] = [];
    const mask = 2 ** (QUEUE_LOG2 + 1) - 1;
    let cons = this.read(EVENTQ_CONS.offset);
    while ((cons & mask) !== (this.read(EVENTQ_PROD.offset) & mask)) {
      found.push(this.#event(EVENT_QUEUE + (cons & (2 ** QUEUE_LOG2 - 1)) * EVENT_BYTES));
      cons = ((cons & ~mask) | ((cons + 1) & mask)) >>> 0;
    }
    this.write32(EVENTQ_CONS.offset, cons);
    return found;
  }

  #event(address: number): Recorded {
    const words = new Uint32Array(EVENT_BYTES / 4);
    this.memory.loadWords(address, words, words.length);
    const shape = EVENT_LAYOUT[words[0] & 0xff] as Layout<string>;
    const fields: Record<string, number | string | bigint> = { name: shape.name };
    for (const name of Object.keys(shape.fields)) {
      const value =
        name === 'InputAddr' ? (BigInt(words[5]) << 32n) | BigInt(words[4]) : shape.get[name](words);
      if (value !== 0 && value !== 0n && name !== 'EventNumber') fields[name] = value;
    }
    for (let word = 0; word < words.length; word++) {
      if ((words[word] & shape.reserved[word]) !== 0) throw new Error(`reserved bits in word ${word}`);
    }
    return fields as Recorded;
  }

  /** Takes the page requests off their queue. */
  pageRequests(): Record<string, number>[] {
    const found: Record<string, number>[] = [];
    const mask = 2 ** (QUEUE_LOG2 + 1) - 1;
    const words = new Uint32Array(PRI_ENTRY.wordCount);
    let cons = this.read(PRIQ_CONS.offset);
    while ((cons & mask) !== (this.read(PRIQ_PROD.offset) & mask)) {
      const address = PRI_QUEUE + (cons & (2 ** QUEUE_LOG2 - 1)) * PRI_ENTRY.bytes;
      this.memory.loadWords(address, words, words.length);
      const fields = Object.entries(decode(PRI_ENTRY, words)).filter(([, value]) => value !== 0);
      found.push(Object.fromEntries(fields));
      cons = ((cons & ~mask) | ((cons + 1) & mask)) >>> 0;
    }
    this.write32(PRIQ_CONS.offset, cons);
    return found;
  }

  requestPage(request: Partial<PageRequest>): void {
    const usual = { rid: SID, pasid: NO_PASID, access: READ, lo: 0x5000, hi: 7, group: 3, last: true };
    this.model.devices?.pageRequest?.({ ...usual, ...request });
  }

  /** A transaction of a device that can wait. */
  stallable(sid: number, address: bigint, access: number, ssid = NO_PASID): Outcome {
    return this.ask(sid, address, access, ssid, REQUEST.UNTRANSLATED, true);
  }

  ask(sid: number, address: bigint, access: number, ssid: number, kind: number, mayStall = false): Outcome {
    const result = this.#request(sid, address, access, ssid, kind, mayStall);
    const [, , outLo, outHi, log2, permissions] = result.spans;
    const { status, stall, space, count } = result;
    if ((status === TRANSLATE_STATUS.OK) !== count > 0) throw new Error(`status ${status}, ${count} spans`);
    if (count === 0) return { status, stall, space, output: -1n, log2: 0, permissions: 0 };
    return { status, stall, space, output: BigInt(outLo) | (BigInt(outHi) << 32n), log2, permissions };
  }

  #request(
    sid: number,
    address: bigint,
    access: number,
    pasid: number,
    kind: number,
    mayStall: boolean,
  ): TranslateResult {
    const result: TranslateResult = {
      status: -1,
      count: -1,
      spans: new Uint32Array(MAX_SPANS * SPAN_WORDS),
      space: 0,
      sub: 0,
      stall: -1,
    };
    const lo = Number(address & 0xffff_ffffn);
    const hi = Number((address >> 32n) & 0xffff_ffffn);
    this.model.translate({ rid: sid, pasid, access, lo, hi, kind, mayStall }, result);
    return result;
  }

  translate(sid: number, address: bigint, access: number, ssid = NO_PASID): Answer {
    const result = this.#request(sid, address, access, ssid, REQUEST.UNTRANSLATED, false);
    const [, , outLo, outHi, log2, permissions] = result.spans;
    const ok = result.status === TRANSLATE_STATUS.OK;
    const base = BigInt(outLo) | (BigInt(outHi) << 32n);
    return {
      ok,
      out: ok ? base | (address & ((1n << BigInt(log2)) - 1n)) : -1n,
      log2,
      permissions,
      space: result.space,
      sub: result.sub,
      count: result.count,
    };
  }

  /**
   * The one event that an access leaves behind; 'none' when it is translated, 'silent' when nothing
   * is recorded.
   */
  fault(sid: number, address: bigint, access: number, ssid = NO_PASID): Recorded {
    if (this.translate(sid, address, access, ssid).ok) return { name: 'none' };
    const events = this.recorded();
    if (events.length > 1) throw new Error(`${events.length} events`);
    return events[0] ?? { name: 'silent' };
  }
}

/** Words of a command. */
export function command<K extends string>(
  shape: Layout<K>,
  fields: { readonly [P in K]?: number },
): Uint32Array {
  return pack(shape, fields) as Uint32Array;
}

export const sync = (fields: Fields = {}): Uint32Array => command(CMD_SYNC, { Opcode: CMD.SYNC, ...fields });

export const resume = (STAG: number, Ac: number, StreamID = SID): Uint32Array =>
  command(CMD_RESUME, { Opcode: CMD.RESUME, StreamID, STAG, Ac, Ab: 1 });

export const cfgiSte = (StreamID = SID): Uint32Array =>
  command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID });

export const tlbi = (opcode: number, fields: Fields = {}): Uint32Array => {
  // The address is 64 bits wide: its high half is put in directly.
  const { High = 0, ...rest } = fields;
  const words = command(CMD_TLBI, { Opcode: opcode, ...rest });
  words[3] |= High;
  return words;
};
