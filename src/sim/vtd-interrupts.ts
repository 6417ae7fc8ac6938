import { PAGE_BYTES } from '../base/page.js';
import { pack } from '../spec/define.js';
import { DESCRIPTOR, IEC_INV_DSC } from '../spec/vtd/descriptors.js';
import { FEE, IRTE, REMAPPABLE_REQUEST } from '../spec/vtd/interrupts.js';
import { ECAP_REG, IRTA_REG } from '../spec/vtd/registers.js';
import type { GuestRam, PageAllocator } from './machine.js';
import { storeStructure, type Values } from './structure.js';
import { descriptor } from './vtd-invalidate.js';
import type { VtdDriverQueue } from './vtd-queue.js';
import type { Registers } from './vtd-registers.js';

/** Entries of a page. */
const PAGE_ENTRIES = PAGE_BYTES / IRTE.bytes;

/** A message as a device is programmed with it. */
interface Message {
  readonly address: number;
  readonly data: number;
}

/** The guest's side of interrupt remapping. VT-d §5.1 */
export class VtdInterrupts {
  readonly #ram: GuestRam;
  readonly #size: number;
  /** Guest-physical address of the table. */
  readonly table: number;

  /** `size` as IRTA_REG.S: the table has 2^(size+1) entries. */
  constructor(
    readonly registers: Registers,
    readonly queue: VtdDriverQueue,
    ram: GuestRam,
    pages: PageAllocator,
    size = 7,
  ) {
    this.#ram = ram;
    this.#size = size;
    this.table = pages.take(Math.max(1, 2 ** (size + 1) / PAGE_ENTRIES));
  }

  /** True when the unit remaps interrupts. */
  get offered(): boolean {
    return this.registers.field(ECAP_REG, 'IR') === 1;
  }

  /** Sets the table and switches remapping on; `extended`: destinations have 32 bits. §11.4.4.1 */
  enable(extended = false): void {
    this.registers.write(IRTA_REG, { S: this.#size, EIME: extended ? 1 : 0, IRTA: this.table });
    this.registers.command('SIRTP', 'IRTPS');
    this.invalidateAll();
    this.queue.sync();
    this.registers.command('IRE', 'IRES');
  }

  disable(): void {
    this.registers.command('IRE', 'IRES', false);
  }

  /** Lets requests in compatibility format pass, or blocks them. */
  passCompatible(on: boolean): void {
    this.registers.command('CFI', 'CFIS', on);
  }

  /** Stores an entry, and makes the unit forget what it was unless `forget` says otherwise. */
  set(index: number, values: Values<typeof IRTE>, forget = true): void {
    storeStructure(this.#ram, this.table + index * IRTE.bytes, IRTE, values);
    if (!forget) return;
    this.invalidate(index);
    this.queue.sync();
  }

  /** Asks for the invalidation of the aligned block of 2^mask entries; does not wait. §6.5.2.8 */
  invalidate(index: number, mask = 0): void {
    this.#invalidate({ G: 1, IIDX: index, IM: mask });
  }

  invalidateAll(): void {
    this.#invalidate({});
  }

  #invalidate(values: Values<typeof IEC_INV_DSC>): void {
    this.queue.submit(descriptor(IEC_INV_DSC, DESCRIPTOR.INTERRUPT_ENTRY_CACHE, values));
  }

  /** What a device is given for an entry, or for one of the entries behind it. §5.1.2.2 */
  message(index: number, subhandle?: number): Message {
    const [address, data] = pack(REMAPPABLE_REQUEST, {
      FEE,
      Format: 1,
      HANDLE_LOW: index & 0x7fff,
      HANDLE_HIGH: index >> 15,
      SHV: subhandle === undefined ? 0 : 1,
      SUBHANDLE: subhandle ?? 0,
    });
    return { address: address >>> 0, data: data >>> 0 };
  }
}
