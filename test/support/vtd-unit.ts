/**
 * A unit with array memory and outputs that record what they are told: for the model's unit tests.
 */

import { NO_PASID } from '../../src/base/ids.js';
import { PAGE_BYTES } from '../../src/base/page.js';
import {
  type InvalidateScope,
  MAX_SPANS,
  type ModelEvent,
  REQUEST,
  SPAN_WORDS,
  TRANSLATE_STATUS,
  type TranslateResult,
} from '../../src/device/iommu.js';
import { createModel } from '../../src/device/models.js';
import type { PasidSpace } from '../../src/device/pasid-space.js';
import { ArrayMemory, halves } from '../../src/memory/array.js';
import { type Layout, pack } from '../../src/spec/define.js';
import {
  FRCD_BYTES,
  FRCD_OFFSET,
  FRCD_REG,
  FSTS_REG,
  GCMD_REG,
  GSTS_REG,
  IQA_REG,
  IQT_REG,
  RTADDR_REG,
} from '../../src/spec/vtd/registers.js';
import { DeviceOutputs } from './device-outputs.js';

export const RAM_BYTES = 0x0040_0000;
/** The first page that {@link TestMachine.page} gives out; below are the fixed tables. */
const FIRST_PAGE = 0x10_0000;
export const ROOT_TABLE = 0x1000;
export const QUEUE = 0x8000;
export const READ = 1;
export const WRITE = 2;

const GCMD = {
  TE: 2 ** GCMD_REG.fields.TE.lsb,
  SRTP: 2 ** GCMD_REG.fields.SRTP.lsb,
  QIE: 2 ** GCMD_REG.fields.QIE.lsb,
} as const;

/** What a translation came to. */
export interface Answer {
  readonly ok: boolean;
  readonly status: number;
  readonly out: bigint;
  readonly log2: number;
  readonly permissions: number;
  readonly space: number;
  readonly sub: number;
  readonly count: number;
  readonly spans: readonly { in: bigint; out: bigint; log2: number; permissions: number }[];
}

/** One fault recording register with F set. */
interface Fault {
  readonly index: number;
  readonly reason: number;
  readonly sid: number;
  readonly address: number;
  readonly T1: number;
  readonly T2: number;
  readonly AT: number;
  readonly PP: number;
  readonly PV: number;
}

export class TestMachine {
  readonly memory = new ArrayMemory([{ base: 0, bytes: RAM_BYTES }]);
  readonly registers = new Uint32Array(1024);
  readonly invalidations: InvalidateScope[] = [];
  readonly interrupts: { lo: number; hi: number; data: number }[] = [];
  /** Blocks of remapped interrupts that were announced: index and log2 of how many. */
  readonly interruptInvalidations: [index: number, log2Count: number][] = [];
  readonly events: ModelEvent[] = [];
  readonly devices = new DeviceOutputs();
  /** What `pendingAcks` says; a test sets it before an input. */
  acks = 0;
  readonly model;
  #nextPage = FIRST_PAGE;
  #commands = 0;
  #tail = 0;

  constructor(
    readonly options: Readonly<Record<string, string>> = {},
    pasids?: PasidSpace,
  ) {
    this.model = createModel('vtd', options, {
      ...(pasids === undefined ? {} : { pasids }),
      memory: this.memory,
      registers: this.registers,
      outputs: Object.assign(this.devices, {
        invalidate: (scope: InvalidateScope) => void this.invalidations.push({ ...scope }),
        pendingAcks: () => this.acks,
        invalidateInterrupts: (index: number, log2: number) =>
          void this.interruptInvalidations.push([index, log2]),
        interrupt: (lo: number, hi: number, data: number) => void this.interrupts.push({ lo, hi, data }),
        event: (event: ModelEvent) => void this.events.push(event),
      }),
    });
  }

  /** A fresh zeroed page of RAM. */
  page(): number {
    const page = this.#nextPage;
    this.#nextPage += PAGE_BYTES;
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

  entry(gpa: number, value: bigint): void {
    this.memory.poke(gpa, value);
  }

  /** One-shot bits of GCMD, beside the levels that are set. */
  commandOnce(bits: number): void {
    this.write32(GCMD_REG.offset, this.#commands + bits);
  }

  /** Sets the root table and its mode, and waits for the status. */
  setRoot(mode: number, table = ROOT_TABLE): void {
    this.write64(RTADDR_REG.offset, table + mode * 2 ** 10);
    this.commandOnce(GCMD.SRTP);
  }

  enable(): void {
    this.command(GCMD.TE, true);
  }

  disable(): void {
    this.command(GCMD.TE, false);
  }

  /** Enables the queue with `2^size` pages. */
  enableQueue(wide: boolean, size = 0, base = QUEUE): void {
    this.write64(IQT_REG.offset, 0);
    this.#tail = 0;
    this.write64(IQA_REG.offset, base + (wide ? 2 ** 11 : 0) + size);
    this.command(GCMD.QIE, true);
  }

  disableQueue(): void {
    this.command(GCMD.QIE, false);
  }

  /** Sets or clears one of the levels in GCMD. */
  command(bit: number, on: boolean): void {
    const had = Math.floor(this.#commands / bit) % 2 === 1;
    if (on !== had) this.#commands += on ? bit : -bit;
    this.write32(GCMD_REG.offset, this.#commands);
  }

  /** Bits of GSTS that are set. */
  get status() {
    const word = GSTS_REG.offset >> 2;
    return {
      TES: GSTS_REG.get.TES(this.registers, word),
      RTPS: GSTS_REG.get.RTPS(this.registers, word),
      QIES: GSTS_REG.get.QIES(this.registers, word),
    };
  }

  /** Writes descriptors behind the tail and moves it. */
  submit(...descriptors: readonly ArrayLike<number>[]): void {
    const wide = IQA_REG.get.DW(this.registers, IQA_REG.offset >> 2) === 1;
    const bytes = wide ? 32 : 16;
    const size = PAGE_BYTES * 2 ** IQA_REG.get.QS(this.registers, IQA_REG.offset >> 2);
    const base = IQA_REG.get.IQA(this.registers, IQA_REG.offset >> 2);
    for (const words of descriptors) {
      this.store(
        base + this.#tail,
        Array.from({ length: bytes / 4 }, (_, index) => words[index] ?? 0),
      );
      this.#tail = (this.#tail + bytes) % size;
    }
    this.write64(IQT_REG.offset, this.#tail);
  }

  /** Legacy context-entry of a requester, with its root-entry. Returns its address. */
  context(rid: number, low: bigint, high: bigint): number {
    const root = ROOT_TABLE + (rid >> 8) * 16;
    const present = this.memory.peek(root) ?? 0n;
    const table = (present & 1n) === 1n ? Number(present & ~0xfffn) : this.page();
    this.entry(root, BigInt(table) | 1n);
    const address = table + (rid & 0xff) * 16;
    this.entry(address, low);
    this.entry(address + 8, high);
    return address;
  }

  /**
   * Scalable-mode context-entry with a PASID directory of 2^(pdts+7) entries. Returns entry and
   * directory.
   */
  scalableContext(
    rid: number,
    fields: { paside?: boolean; ridPasid?: number; pdts?: number; dte?: boolean; pre?: boolean } = {},
  ) {
    const root = ROOT_TABLE + (rid >> 8) * 16 + ((rid & 0xff) >= 128 ? 8 : 0);
    const present = this.memory.peek(root) ?? 0n;
    const table = (present & 1n) === 1n ? Number(present & ~0xfffn) : this.page();
    this.entry(root, BigInt(table) | 1n);
    const directory = this.page();
    const address = table + (rid & 127) * 32;
    const pdts = BigInt(fields.pdts ?? 0);
    const flags = (fields.paside ? 8n : 0n) | (fields.dte ? 4n : 0n) | (fields.pre ? 16n : 0n);
    this.entry(address, BigInt(directory) | 1n | flags | (pdts << 9n));
    this.entry(address + 8, BigInt(fields.ridPasid ?? 0));
    return { address, directory };
  }

  /** PASID-table entry under a directory; words 0..3 as 64-bit values. Returns its address. */
  pasidEntry(directory: number, pasid: number, ...values: readonly bigint[]): number {
    const slot = directory + (pasid >> 6) * 8;
    const present = this.memory.peek(slot) ?? 0n;
    const table = (present & 1n) === 1n ? Number(present & ~0xfffn) : this.page();
    this.entry(slot, BigInt(table) | 1n);
    const address = table + (pasid & 63) * 64;
    for (let index = 0; index < 8; index++) this.entry(address + index * 8, values[index] ?? 0n);
    return address;
  }

  /**
   * Maps a page through tables that it makes: `tableBits` in entries on the way, `leafBits` in the
   * leaf.
   */
  map(
    root: number,
    levels: number,
    iova: bigint,
    out: bigint,
    leafBits: bigint,
    tableBits: bigint,
    leafLevel = 1,
  ): number {
    let table = root;
    for (let level = levels; ; level--) {
      const address = table + Number((iova >> BigInt(12 + 9 * (level - 1))) & 511n) * 8;
      if (level === leafLevel) {
        this.entry(address, out | leafBits | (level > 1 ? 0x80n : 0n));
        return address;
      }
      const value = this.memory.peek(address) ?? 0n;
      if ((value & 3n) === 0n) this.entry(address, BigInt(this.page()) | tableBits);
      table = Number((this.memory.peek(address) ?? 0n) & 0xf_ffff_ffff_f000n);
    }
  }

  /** Second-stage R/W page. Returns the leaf's address. */
  mapSecond(root: number, levels: number, iova: bigint, out: bigint, leafLevel = 1, bits = 3n): number {
    return this.map(root, levels, iova, out, bits, 3n, leafLevel);
  }

  /** First-stage user page. Returns the leaf's address. */
  mapFirst(root: number, levels: number, iova: bigint, out: bigint, leafLevel = 1, bits = 7n): number {
    return this.map(root, levels, iova, out, bits, 7n, leafLevel);
  }

  translate(
    rid: number,
    address: bigint,
    access: number,
    pasid = NO_PASID,
    kind: number = REQUEST.UNTRANSLATED,
    size = 0,
  ): Answer {
    const result: TranslateResult = {
      status: -1,
      count: -1,
      spans: new Uint32Array(MAX_SPANS * SPAN_WORDS),
      space: 0,
      sub: 0,
      stall: 0,
    };
    const lo = Number(address & 0xffffffffn);
    const hi = Number((address >> 32n) & 0xffffffffn);
    this.model.translate({ rid, pasid, access, lo, hi, kind, mayStall: false, size }, result);
    return this.describe(result, address);
  }

  /** A result with its spans as values. */
  describe(result: TranslateResult, address: bigint): Answer {
    const spans = [];
    for (let index = 0; index < result.count; index++) {
      const [inLo, inHi, outLo, outHi, log2, permissions] = result.spans.subarray(index * 6, index * 6 + 6);
      spans.push({
        in: BigInt(inLo) | (BigInt(inHi) << 32n),
        out: BigInt(outLo) | (BigInt(outHi) << 32n),
        log2,
        permissions,
      });
    }
    const first = spans[0];
    return {
      ok: result.status === TRANSLATE_STATUS.OK,
      status: result.status,
      out: first ? first.out | (address & ((1n << BigInt(first.log2)) - 1n)) : -1n,
      log2: first?.log2 ?? -1,
      permissions: first?.permissions ?? 0,
      space: result.space,
      sub: result.sub,
      count: result.count,
      spans,
    };
  }

  /** Recorded faults, by register index. */
  faults(): Fault[] {
    const found: Fault[] = [];
    for (let index = 0; index < 8; index++) {
      const base = (FRCD_OFFSET + index * FRCD_BYTES) >> 2;
      const get = FRCD_REG.get;
      if (get.F(this.registers, base) === 0) continue;
      found.push({
        index,
        reason: get.FR(this.registers, base),
        sid: get.SID(this.registers, base),
        address: get.FI(this.registers, base),
        T1: get.T1(this.registers, base),
        T2: get.T2(this.registers, base),
        AT: get.AT(this.registers, base),
        PP: get.PP(this.registers, base),
        PV: get.PV(this.registers, base),
      });
    }
    return found;
  }

  /** Reason of the last fault event, recorded or not; 0 when there was none. */
  lastReason(): number {
    for (let index = this.events.length - 1; index >= 0; index--) {
      const event = this.events[index];
      if (event.kind === 'fault') return event.reason;
    }
    return 0;
  }

  /** Clears every fault record and the fault status, as a driver does. */
  clearFaults(): void {
    for (let index = 0; index < 8; index++) this.write32(FRCD_OFFSET + index * FRCD_BYTES + 12, 0x80000000);
    this.write32(FSTS_REG.offset, 0xff);
  }
}

/** Words of a descriptor. */
export function descriptor<K extends string>(
  shape: Layout<K>,
  fields: { readonly [P in K]?: number },
): Uint32Array {
  return pack(shape, fields) as Uint32Array;
}

/** Low and high half of a legacy context-entry. AW 2 = 48 bits. */
export function contextEntry(
  root: number,
  did: number,
  options: { aw?: number; tt?: number; fpd?: boolean } = {},
) {
  const low = BigInt(root) | 1n | (options.fpd ? 2n : 0n) | (BigInt(options.tt ?? 0) << 2n);
  return [low, BigInt(options.aw ?? 2) | (BigInt(did) << 8n)] as const;
}
