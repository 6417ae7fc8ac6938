import { PAGE_BYTES, PAGE_OFFSET } from '../base/page.js';
import { DESCRIPTOR, PAGE_GRP_RESP_DSC, RESPONSE_CODE } from '../spec/vtd/descriptors.js';
import {
  PEADDR_REG,
  PECTL_REG,
  PEDATA_REG,
  PEUADDR_REG,
  PQA_REG,
  PQH_REG,
  PQT_REG,
  PRS_REG,
} from '../spec/vtd/registers.js';
import { PAGE_REQ_DSC } from '../spec/vtd/structures.js';
import type { PageAllocator } from './machine.js';
import { loadStructure } from './structure.js';
import { descriptor } from './vtd-invalidate.js';
import type { VtdDriverQueue } from './vtd-queue.js';
import type { Registers } from './vtd-registers.js';

/** One page request as the queue has it. */
export interface PageRequestRecord {
  readonly rid: number;
  /** −1 = without PASID. */
  readonly pasid: number;
  readonly address: bigint;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
  readonly last: boolean;
  readonly group: number;
}

/** A driver's answer to a page request: one of RESPONSE_CODE. */
type PageHandler = (request: PageRequestRecord) => number;

/** The guest's side of the page request queue. VT-d §7.4 to §7.6 */
export class PageRequestQueue {
  readonly #registers: Registers;
  readonly #responses: VtdDriverQueue;
  readonly base: number;
  readonly bytes: number;

  /**
   * `size` as PQA_REG.PQS: the ring has 2^size pages. Responses go out through the invalidation
   * queue.
   */
  constructor(
    registers: Registers,
    responses: VtdDriverQueue,
    pages: PageAllocator,
    readonly size = 0,
  ) {
    this.#registers = registers;
    this.#responses = responses;
    this.base = pages.take(2 ** size);
    this.bytes = PAGE_BYTES * 2 ** size;
  }

  /** Programs the queue; with `msi`, its event too. */
  enable(msi?: { readonly address: number; readonly data: number }): void {
    const registers = this.#registers;
    registers.machine.writeRegister(PQH_REG.offset, 8, 0n);
    registers.machine.writeRegister(PQT_REG.offset, 8, 0n);
    registers.write(PQA_REG, { PQS: this.size, PQA: this.base });
    if (msi === undefined) return;
    registers.write(PEDATA_REG, { IMD: msi.data });
    registers.write(PEADDR_REG, { MA: msi.address });
    registers.write(PEUADDR_REG, { MUA: 0 });
    this.mask(false);
  }

  mask(on: boolean): void {
    this.#registers.write(PECTL_REG, { IM: on ? 1 : 0 });
  }

  get status(): { readonly pending: boolean; readonly overflow: boolean } {
    const words = this.#registers.read(PRS_REG);
    return { pending: PRS_REG.get.PPR(words) === 1, overflow: PRS_REG.get.PRO(words) === 1 };
  }

  /** What is queued, oldest first, without taking it. */
  peek(): PageRequestRecord[] {
    const records: PageRequestRecord[] = [];
    const tail = this.#registers.field(PQT_REG, 'PQT');
    for (
      let at = this.#registers.field(PQH_REG, 'PQH');
      at !== tail;
      at = (at + PAGE_REQ_DSC.bytes) % this.bytes
    ) {
      records.push(this.#record(at));
    }
    return records;
  }

  /**
   * What an interrupt handler does: takes every request, answers every group, clears an overflow.
   * Returns the requests.
   */
  service(handler: PageHandler): PageRequestRecord[] {
    this.#registers.write(PRS_REG, { PPR: 1 });
    const records = this.peek();
    /** The worst answer to any request of a group. */
    const worst = new Map<string, number>();
    for (const record of records) {
      if (record.last && !record.read && !record.write) continue;
      const key = `${record.rid}.${record.pasid}.${record.group}`;
      const code = Math.max(handler(record), worst.get(key) ?? 0);
      worst.set(key, code);
      if (!record.last) continue;
      worst.delete(key);
      this.respond(record, code);
    }
    this.#registers.write(PQH_REG, { PQH: this.#registers.field(PQT_REG, 'PQT') });
    if (this.status.overflow) this.#registers.write(PRS_REG, { PRO: 1 });
    if (records.length > 0) this.#responses.sync();
    return records;
  }

  /** Adds a page group response. */
  respond({ rid, pasid, group }: PageRequestRecord, code: number = RESPONSE_CODE.SUCCESS): void {
    this.#responses.submit(
      descriptor(PAGE_GRP_RESP_DSC, DESCRIPTOR.PAGE_GROUP_RESPONSE, {
        PP: pasid < 0 ? 0 : 1,
        RC: code,
        RID: rid,
        PASID: Math.max(pasid, 0),
        PRGI: group,
      }),
    );
  }

  #record(at: number): PageRequestRecord {
    const words = loadStructure(this.#registers.machine.ram, this.base + at, PAGE_REQ_DSC);
    const { get } = PAGE_REQ_DSC;
    return {
      rid: get.RID(words),
      pasid: get.PP(words) === 1 ? get.PASID(words) : -1,
      address: (BigInt(words[3] >>> 0) << 32n) | BigInt((words[2] & ~PAGE_OFFSET) >>> 0),
      read: get.RDR(words) === 1,
      write: get.WRR(words) === 1,
      execute: get.EXR(words) === 1,
      privileged: get.PMR(words) === 1,
      last: get.LPIG(words) === 1,
      group: get.PRGI(words),
    };
  }
}
