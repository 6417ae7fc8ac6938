/** Which invalidation descriptors are valid, by mode and width. VT-d §6.5.2.11 (Table 26), §11.4.9.9. */
import {
  CC_INV_DSC,
  DESCRIPTOR,
  DESCRIPTOR_LAYOUT,
  IOTLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
  PC_GRANULARITY,
  PC_INV_DSC,
} from '../../spec/vtd/descriptors.js';
import { CC_GRANULARITY, IOTLB_GRANULARITY, IQEI, TTM } from '../../spec/vtd/registers.js';
import type { VtdConfig } from './config.js';
import { violates } from './reserved.js';

/** Types of one unit: those whose capability it has. */
export class DescriptorRules {
  private readonly reserved: (Uint32Array | undefined)[] = [];
  private readonly maximumAddressMask: number;

  constructor(config: VtdConfig) {
    this.maximumAddressMask = config.maximumAddressMask;
    for (const [key, shape] of Object.entries(DESCRIPTOR_LAYOUT)) {
      const type = Number(key);
      if (!shape || !offered(type, config)) continue;
      const mask = Uint32Array.from(shape.reserved);
      // PD is reserved while ECAP.PDS is clear (§6.5.2.9). SADDR bits beyond HAW are ignored there.
      if (type === DESCRIPTOR.WAIT && !config.pageRequests) mask[0] |= 1 << shape.fields['PD'].lsb;
      this.reserved[type] = mask;
    }
  }

  /** {@link IQEI}.NONE, or what is wrong. `words` has 8 words, the upper half zero when not `wide`. */
  check(type: number, words: Uint32Array, wide: boolean, mode: number): number {
    const mask = this.reserved[type];
    if (mask === undefined) return IQEI.INVALID_TYPE;
    // Table 26: types from 6 on exist in scalable mode only, and need 256 bits.
    const narrow = type < DESCRIPTOR.PASID_IOTLB;
    if (!narrow && (!wide || mode !== TTM.SCALABLE)) return IQEI.INVALID_TYPE;
    if (violates(mask, words, 0, 8)) return IQEI.RESERVED_FIELD;
    return this.granularityAllowed(type, words) ? IQEI.NONE : IQEI.RESERVED_FIELD;
  }

  /** Reserved granularities and unsupported address masks. */
  private granularityAllowed(type: number, words: Uint32Array): boolean {
    switch (type) {
      case DESCRIPTOR.CONTEXT_CACHE:
        return CC_INV_DSC.get.G(words) !== CC_GRANULARITY.RESERVED;
      case DESCRIPTOR.IOTLB: {
        const granularity = IOTLB_INV_DSC.get.G(words);
        if (granularity === IOTLB_GRANULARITY.RESERVED) return false;
        if (granularity !== IOTLB_GRANULARITY.PAGE) return true;
        return IOTLB_INV_DSC.get.AM(words) <= this.maximumAddressMask;
      }
      case DESCRIPTOR.PASID_CACHE:
        return PC_INV_DSC.get.G(words) !== PC_GRANULARITY.RESERVED;
      case DESCRIPTOR.PASID_IOTLB: {
        const granularity = P_IOTLB_INV_DSC.get.G(words);
        return granularity === P_IOTLB_GRANULARITY.PASID || granularity === P_IOTLB_GRANULARITY.PAGE;
      }
      default:
        return true;
    }
  }
}

/**
 * False for types whose capability the unit lacks: invalid ones (§6.5.2.5, §6.5.2.6, §7.6.1). Interrupt remapping is not advertised
 * (ECAP.IR): a driver that invalidates its entries expects a table that the unit does not read, and gets an error. Those of Linux, Xen and
 * FreeBSD do that only where they have set one up.
 */
function offered(type: number, config: VtdConfig): boolean {
  if (type === DESCRIPTOR.INTERRUPT_ENTRY_CACHE) return false;
  if (type === DESCRIPTOR.DEVICE_TLB || type === DESCRIPTOR.PASID_DEVICE_TLB) return config.deviceTlb;
  return type !== DESCRIPTOR.PAGE_GROUP_RESPONSE || config.pageRequests;
}

/** Name of a descriptor type, for people. */
export function descriptorName(type: number): string {
  return DESCRIPTOR_LAYOUT[type]?.name ?? `type 0x${type.toString(16)}`;
}
