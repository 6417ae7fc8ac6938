import {
  CMD,
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL_TERM,
  CMD_TLBI,
  RANGE_ALL,
} from '../spec/smmuv3/commands.js';
import { command, type SmmuCommandQueue } from './smmu-queue.js';

/**
 * A range invalidation of `pages` granules of 2^granule bytes, in as few commands as possible. IHI
 * 0070 §4.4.1.1
 */
interface Range {
  readonly granule: number;
  readonly pages: number;
}

/** TG by log2 of the granule. */
const TG: Readonly<Record<number, number>> = { 12: 1, 14: 2, 16: 3 };

/** The commands that a driver gives. They are complete only when `sync` has returned. */
export class SmmuDriverCommands {
  /** IDR3.RIL */
  readonly #ranges: boolean;
  constructor(
    readonly queue: SmmuCommandQueue,
    ranges: boolean,
  ) {
    this.#ranges = ranges;
  }

  configurationAll(): void {
    this.queue.submit(command(CMD_CFGI_STE_RANGE, { Opcode: CMD.CFGI_STE_RANGE, Range: RANGE_ALL }));
  }
  stream(sid: number): void {
    this.queue.submit(command(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: sid, Leaf: 1 }));
  }
  context(sid: number, ssid: number): void {
    const values = { Opcode: CMD.CFGI_CD, StreamID: sid, SubstreamID: ssid, Leaf: 1 };
    this.queue.submit(command(CMD_CFGI_CD, values));
  }
  contexts(sid: number): void {
    this.queue.submit(command(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: sid }));
  }
  translationsAll(): void {
    this.queue.submit(command(CMD_TLBI, { Opcode: CMD.TLBI_NSNH_ALL }));
  }
  firstStage(vmid: number): void {
    this.queue.submit(command(CMD_TLBI, { Opcode: CMD.TLBI_NH_ALL, VMID: vmid }));
  }
  vmid(vmid: number): void {
    this.queue.submit(command(CMD_TLBI, { Opcode: CMD.TLBI_S12_VMALL, VMID: vmid }));
  }
  asid(vmid: number, asid: number): void {
    this.queue.submit(command(CMD_TLBI, { Opcode: CMD.TLBI_NH_ASID, VMID: vmid, ASID: asid }));
  }
  /** Stage-1 leaves of [address, address + pages × 2^granule). */
  addresses(vmid: number, asid: number, address: bigint, granule: number, pages: number): void {
    this.#addressed({ Opcode: CMD.TLBI_NH_VA, VMID: vmid, ASID: asid }, address, { granule, pages });
  }
  /** The same of every ASID. */
  allAddresses(vmid: number, address: bigint, granule: number, pages: number): void {
    this.#addressed({ Opcode: CMD.TLBI_NH_VAA, VMID: vmid }, address, { granule, pages });
  }
  /** Stage-2 leaves. Nested translations of both stages stay. */
  intermediateAddresses(vmid: number, address: bigint, granule: number, pages: number): void {
    this.#addressed({ Opcode: CMD.TLBI_S2_IPA, VMID: vmid }, address, { granule, pages });
  }
  /**
   * 2^(12 + size) bytes around the address, or all with size 52. `ssid` −1: without a SubstreamID.
   */
  device(sid: number, ssid: number, address: bigint, size: number, global = false): void {
    const substream = ssid < 0 ? {} : { SSV: 1, SubstreamID: ssid, Global: global ? 1 : 0 };
    const values = { Opcode: CMD.ATC_INV, StreamID: sid, Size: size, ...substream };
    this.queue.submit(withAddress(command(CMD_ATC_INV, values), address));
  }
  /** `response` of PRI_RESP. */
  pageResponse(sid: number, ssid: number, group: number, response: number): void {
    const substream = ssid < 0 ? {} : { SSV: 1, SubstreamID: ssid };
    const values = { Opcode: CMD.PRI_RESP, StreamID: sid, PRGIndex: group, Resp: response, ...substream };
    this.queue.submit(command(CMD_PRI_RESP, values));
  }
  resume(sid: number, stag: number, retry: boolean): void {
    const values = { Opcode: CMD.RESUME, StreamID: sid, STAG: stag, Ac: retry ? 1 : 0, Ab: 1 };
    this.queue.submit(command(CMD_RESUME, values));
  }
  terminateStalls(sid: number): void {
    this.queue.submit(command(CMD_STALL_TERM, { Opcode: CMD.STALL_TERM, StreamID: sid }));
  }
  sync(): void {
    this.queue.sync();
  }

  #addressed(
    values: { readonly [P in keyof typeof CMD_TLBI.fields]?: number },
    address: bigint,
    { granule, pages }: Range,
  ): void {
    if (!this.#ranges) {
      for (let page = 0; page < pages; page++) {
        const at = address + BigInt(page) * (1n << BigInt(granule));
        this.queue.submit(withAddress(command(CMD_TLBI, { ...values, Leaf: 1 }), at));
      }
      return;
    }
    // (NUM + 1) × 2^SCALE granules: each command takes the highest five bits of the rest.
    for (let left = pages, at = address; left > 0; ) {
      const scale = Math.max(0, Math.floor(Math.log2(left)) - 4);
      const count = Math.floor(left / 2 ** scale);
      const range = { TG: TG[granule] ?? 1, NUM: count - 1, SCALE: scale, TTL: 3, Leaf: 1 };
      this.queue.submit(withAddress(command(CMD_TLBI, { ...values, ...range }), at));
      left -= count * 2 ** scale;
      at += BigInt(count * 2 ** scale) * (1n << BigInt(granule));
    }
  }
}

/** Puts a 64-bit input address into words 2 and 3 of a command; it may have more than 52 bits. */
function withAddress(words: Uint32Array, address: bigint): Uint32Array {
  words[2] |= Number(address & 0xffff_f000n);
  words[3] = Number((address >> 32n) & 0xffff_ffffn);
  return words;
}
