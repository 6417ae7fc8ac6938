/**
 * Which encodings of descriptors the peer may carry out itself: they concern cached translations
 * and nothing else. VT-d §6.5.2.3, §6.5.2.4, §6.5.2.9. Global IOTLB invalidations are rare, and
 * left out.
 */
import { PAGE_LOG2, PAGE_OFFSET } from '../../base/page.js';
import {
  DESCRIPTOR,
  INV_WAIT_DSC,
  IOTLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
} from '../../spec/vtd/descriptors.js';
import { IOTLB_GRANULARITY } from '../../spec/vtd/registers.js';
import { PLAIN, PLAIN_KIND, Plain } from '../peer-queue.js';
import type { VtdConfig } from './config.js';

/** Address bits of a page: 31:12, in the low word. */
const PAGE = ~PAGE_OFFSET >>> 0;
/** A larger mask of a P_IOTLB descriptor means every address, and stays the queue's. */
const MOST_MASK = 51;

/**
 * In scalable mode first-stage and nested mappings of the domain go whatever their address.
 * §6.5.2.3
 */
export function plainIotlb(config: VtdConfig, scalable: boolean): readonly Plain<string>[] {
  const iotlb = (granularity: number): Plain<keyof typeof IOTLB_INV_DSC.fields> =>
    new Plain(IOTLB_INV_DSC, PLAIN_KIND.DROP, IOTLB_INV_DSC.reserved)
      .is('TypeLow', DESCRIPTOR.IOTLB)
      .is('TypeHigh', 0)
      .is('G', granularity)
      .field(PLAIN.SPACE, 'DID');
  const pages = iotlb(IOTLB_GRANULARITY.PAGE);
  const most = config.maximumAddressMask;
  if (scalable) pages.blocks(64, 'AM', most);
  else pages.blocks(PAGE_LOG2, 'AM', most).address(PAGE, 0xffff_ffff);
  return [pages, iotlb(IOTLB_GRANULARITY.DOMAIN).rare()];
}

export function plainPasidIotlb(): readonly Plain<string>[] {
  const pasid = (granularity: number): Plain<keyof typeof P_IOTLB_INV_DSC.fields> =>
    new Plain(P_IOTLB_INV_DSC, PLAIN_KIND.DROP, P_IOTLB_INV_DSC.reserved)
      .is('TypeLow', DESCRIPTOR.PASID_IOTLB)
      .is('TypeHigh', 0)
      .is('G', granularity)
      .field(PLAIN.SPACE, 'DID')
      .field(PLAIN.SUB, 'PASID');
  return [
    pasid(P_IOTLB_GRANULARITY.PAGE).blocks(PAGE_LOG2, 'AM', MOST_MASK).address(PAGE, 0xffff_ffff),
    pasid(P_IOTLB_GRANULARITY.PASID),
  ];
}

/** A wait that stores its status, and raises no interrupt. */
export function plainWait(config: VtdConfig): readonly Plain<string>[] {
  const highBits = 2 ** (config.hostAddressWidth - 32) - 1;
  const stores = new Plain(INV_WAIT_DSC, PLAIN_KIND.STORE, INV_WAIT_DSC.reserved)
    .is('TypeLow', DESCRIPTOR.WAIT)
    .is('TypeHigh', 0)
    .is('IF', 0)
    .is('SW', 1)
    .is('PD', 0)
    .address(0xffff_fffc, highBits)
    .field(PLAIN.DATA, 'StatusData');
  return [stores];
}
