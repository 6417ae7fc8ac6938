import type { IommuOutputs } from '../../src/device/iommu.js';
import type { BusPageResponse } from '../../src/sim/machine.js';

interface DeviceTlbRequest {
  readonly tag: number;
  readonly rid: number;
  readonly pasid: number;
  readonly lo: number;
  readonly hi: number;
  readonly log2Size: number;
  readonly global: boolean;
}

/**
 * Keeps what a model tells devices that stall, translate ahead and ask for pages. None answers by
 * itself.
 */
export class DeviceOutputs implements Pick<IommuOutputs, 'resume' | 'pageResponse' | 'invalidateDeviceTlb'> {
  readonly resumed: { readonly stall: number; readonly action: number }[] = [];
  readonly pageResponses: BusPageResponse[] = [];
  /** ATS invalidation requests, as they came. */
  readonly deviceTlbs: DeviceTlbRequest[] = [];
  /** Whether more are taken. */
  deviceTlbRoom = true;

  resume(stall: number, action: number): void {
    this.resumed.push({ stall, action });
  }
  pageResponse(rid: number, pasid: number, group: number, code: number): void {
    this.pageResponses.push({ rid, pasid, group, code });
  }
  invalidateDeviceTlb(
    tag: number,
    rid: number,
    pasid: number,
    lo: number,
    hi: number,
    log2Size: number,
    global: boolean,
  ): boolean {
    if (this.deviceTlbRoom) this.deviceTlbs.push({ tag, rid, pasid, lo, hi, log2Size, global });
    return this.deviceTlbRoom;
  }
}
