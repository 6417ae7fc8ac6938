import { type Layout, pack } from '../spec/define.js';
import {
  CC_INV_DSC,
  DESCRIPTOR,
  DEV_TLB_INV_DSC,
  IOTLB_INV_DSC,
  P_DEV_TLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
  PC_GRANULARITY,
  PC_INV_DSC,
} from '../spec/vtd/descriptors.js';
import { CC_GRANULARITY, CCMD_REG, IOTLB_GRANULARITY, IOTLB_REG, IVA_REG } from '../spec/vtd/registers.js';
import type { VtdDriverQueue } from './vtd-queue.js';
import type { Registers } from './vtd-registers.js';

/** The invalidations that a driver asks for. `sync` returns when all asked before are complete. */
export interface VtdInvalidations {
  contextGlobal(): void;
  contextDomain(did: number): void;
  /** `functionMask` as FM: how many of the function number's highest bits are ignored (0..3). */
  contextDevice(did: number, rid: number, functionMask?: number): void;
  iotlbGlobal(): void;
  iotlbDomain(did: number): void;
  /** 2^am pages at `address`; `hint` (IH) = only leaf entries changed. */
  iotlbPage(did: number, address: bigint, am: number, hint?: boolean): void;
  pasidCacheGlobal(): void;
  pasidCacheDomain(did: number): void;
  pasidCache(did: number, pasid: number): void;
  pasidIotlb(did: number, pasid: number): void;
  pasidIotlbPage(did: number, pasid: number, address: bigint, am: number, hint?: boolean): void;
  /**
   * 2^am pages of a device's TLB; 52 is all of it. `pasid` −1: translations without PASID. Comes
   * after the IOTLB invalidations of the same pages.
   */
  deviceTlb(rid: number, pasid: number, address: bigint, am: number, options?: DeviceTlbOptions): void;
  sync(): void;
}

interface DeviceTlbOptions {
  /** GI: whatever the PASID. */
  readonly global?: boolean;
  /** PFSID; default: the requester itself. */
  readonly physicalFunction?: number;
  /** MIP: how many may be under way at the physical function; 0 = 32. */
  readonly most?: number;
}

/**
 * Address and S of a Device-TLB descriptor for 2^am pages: the lowest clear bit says the size.
 * §6.5.2.5
 */
function sizedAddress(address: bigint, am: number): { readonly address: bigint; readonly sized: boolean } {
  if (am === 0) return { address, sized: false };
  const block = 1n << BigInt(12 + am);
  return { address: (address & ~(block - 1n)) | ((block >> 1n) - 1n), sized: true };
}

/** Puts an input address into words 2 and 3 of a descriptor. It may have more than 52 bits. */
function withAddress(words: Uint32Array, address: bigint): Uint32Array {
  words[2] |= Number(address & 0xffff_f000n);
  words[3] = Number((address >> 32n) & 0xffff_ffffn);
  return words;
}

/** A descriptor of 256 bits, its type filled in. */
export function descriptor<K extends string>(
  shape: Layout<K>,
  type: number,
  values: { readonly [P in K]?: number },
): Uint32Array {
  return pack(shape, { TypeLow: type & 0xf, ...values } as { readonly [P in K]?: number }) as Uint32Array;
}

/** Invalidation through the queue. VT-d §6.5.2 */
export class QueuedInvalidations implements VtdInvalidations {
  constructor(readonly queue: VtdDriverQueue) {}

  contextGlobal(): void {
    this.#context({ G: CC_GRANULARITY.GLOBAL });
  }
  contextDomain(did: number): void {
    this.#context({ G: CC_GRANULARITY.DOMAIN, DID: did });
  }
  contextDevice(did: number, rid: number, functionMask = 0): void {
    this.#context({ G: CC_GRANULARITY.DEVICE, DID: did, SID: rid, FM: functionMask });
  }
  iotlbGlobal(): void {
    this.#iotlb({ G: IOTLB_GRANULARITY.GLOBAL, DW: 1, DR: 1 });
  }
  iotlbDomain(did: number): void {
    this.#iotlb({ G: IOTLB_GRANULARITY.DOMAIN, DID: did, DW: 1, DR: 1 });
  }
  iotlbPage(did: number, address: bigint, am: number, hint = false): void {
    const values = { G: IOTLB_GRANULARITY.PAGE, DID: did, DW: 1, DR: 1, AM: am, IH: hint ? 1 : 0 };
    this.queue.submit(withAddress(descriptor(IOTLB_INV_DSC, DESCRIPTOR.IOTLB, values), address));
  }
  pasidCacheGlobal(): void {
    this.queue.submit(descriptor(PC_INV_DSC, DESCRIPTOR.PASID_CACHE, { G: PC_GRANULARITY.GLOBAL }));
  }
  pasidCacheDomain(did: number): void {
    const values = { G: PC_GRANULARITY.DOMAIN, DID: did };
    this.queue.submit(descriptor(PC_INV_DSC, DESCRIPTOR.PASID_CACHE, values));
  }
  pasidCache(did: number, pasid: number): void {
    const values = { G: PC_GRANULARITY.PASID, DID: did, PASID: pasid };
    this.queue.submit(descriptor(PC_INV_DSC, DESCRIPTOR.PASID_CACHE, values));
  }
  pasidIotlb(did: number, pasid: number): void {
    const values = { G: P_IOTLB_GRANULARITY.PASID, DID: did, PASID: pasid };
    this.queue.submit(descriptor(P_IOTLB_INV_DSC, DESCRIPTOR.PASID_IOTLB, values));
  }
  pasidIotlbPage(did: number, pasid: number, address: bigint, am: number, hint = false): void {
    const values = { G: P_IOTLB_GRANULARITY.PAGE, DID: did, PASID: pasid, AM: am, IH: hint ? 1 : 0 };
    this.queue.submit(withAddress(descriptor(P_IOTLB_INV_DSC, DESCRIPTOR.PASID_IOTLB, values), address));
  }
  deviceTlb(rid: number, pasid: number, address: bigint, am: number, options: DeviceTlbOptions = {}): void {
    const { global = false, physicalFunction = rid, most = 0 } = options;
    const { address: encoded, sized } = sizedAddress(address, am);
    const values = {
      SID: rid,
      S: sized ? 1 : 0,
      MIP: most,
      PFSID_LOW: physicalFunction & 0xf,
      PFSID_HIGH: physicalFunction >> 4,
    };
    const words =
      pasid < 0
        ? descriptor(DEV_TLB_INV_DSC, DESCRIPTOR.DEVICE_TLB, values)
        : descriptor(P_DEV_TLB_INV_DSC, DESCRIPTOR.PASID_DEVICE_TLB, {
            ...values,
            PASID: pasid,
            GI: global ? 1 : 0,
          });
    this.queue.submit(withAddress(words, encoded));
  }
  sync(): void {
    this.queue.sync();
  }

  #context(values: { readonly [P in keyof typeof CC_INV_DSC.fields]?: number }): void {
    this.queue.submit(descriptor(CC_INV_DSC, DESCRIPTOR.CONTEXT_CACHE, values));
  }
  #iotlb(values: { readonly [P in keyof typeof IOTLB_INV_DSC.fields]?: number }): void {
    this.queue.submit(descriptor(IOTLB_INV_DSC, DESCRIPTOR.IOTLB, values));
  }
}

/** Invalidation through CCMD_REG and IOTLB_REG; legacy mode only. VT-d §6.5.1 */
export class RegisterInvalidations implements VtdInvalidations {
  constructor(readonly registers: Registers) {}

  contextGlobal(): void {
    this.#context({ CIRG: CC_GRANULARITY.GLOBAL });
  }
  contextDomain(did: number): void {
    this.#context({ CIRG: CC_GRANULARITY.DOMAIN, DID: did });
  }
  contextDevice(did: number, rid: number, functionMask = 0): void {
    this.#context({ CIRG: CC_GRANULARITY.DEVICE, DID: did, SID: rid, FM: functionMask });
  }
  iotlbGlobal(): void {
    this.#iotlb({ IIRG: IOTLB_GRANULARITY.GLOBAL });
  }
  iotlbDomain(did: number): void {
    this.#iotlb({ IIRG: IOTLB_GRANULARITY.DOMAIN, DID: did });
  }
  iotlbPage(did: number, address: bigint, am: number, hint = false): void {
    const words = pack(IVA_REG, { AM: am, IH: hint ? 1 : 0 });
    words[0] |= Number(address & 0xffff_f000n);
    words[1] = Number((address >> 32n) & 0xffff_ffffn);
    this.registers.writeWords(IVA_REG, words);
    this.#iotlb({ IIRG: IOTLB_GRANULARITY.PAGE, DID: did });
  }
  pasidCacheGlobal(): void {
    this.#refuse();
  }
  pasidCacheDomain(): void {
    this.#refuse();
  }
  pasidCache(): void {
    this.#refuse();
  }
  pasidIotlb(): void {
    this.#refuse();
  }
  pasidIotlbPage(): void {
    this.#refuse();
  }
  deviceTlb(): void {
    this.#refuse();
  }
  /** Each command above waits for itself. */
  sync(): void {}

  #refuse(): never {
    throw new Error('simulated guest: this is invalidated through the queue only');
  }
  #context(values: { readonly [P in keyof typeof CCMD_REG.fields]?: number }): void {
    this.registers.write(CCMD_REG, { ...values, ICC: 1 });
    this.registers.waitUntil(() => this.registers.field(CCMD_REG, 'ICC') === 0, 'CCMD_REG.ICC = 0');
  }
  #iotlb(values: { readonly [P in keyof typeof IOTLB_REG.fields]?: number }): void {
    this.registers.write(IOTLB_REG, { ...values, DW: 1, DR: 1, IVT: 1 });
    this.registers.waitUntil(() => this.registers.field(IOTLB_REG, 'IVT') === 0, 'IOTLB_REG.IVT = 0');
  }
}
