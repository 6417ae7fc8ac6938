import {
  VCCAP,
  VCID_SIGNATURE,
  VCID0,
  VCID1,
  VCMD,
  VCMD_COMMAND,
  VCRSP,
  VCRSP_STATUS,
} from '../spec/smmuv3/virtual-commands.js';
import type { DeviceRegisters } from './driver-registers.js';

/**
 * SubstreamIDs from the unit, as a driver that knows our registers asks for them. docs/pv-pasid.md
 */
export class SmmuVirtualCommands {
  constructor(readonly registers: DeviceRegisters) {}

  /** True when SubstreamIDs can and must be had this way. */
  get offered(): boolean {
    const { registers } = this;
    return (
      registers.read(VCID0)[0] >>> 0 === VCID_SIGNATURE[0] &&
      registers.read(VCID1)[0] >>> 0 === VCID_SIGNATURE[1] &&
      VCCAP.get.PAS(registers.read(VCCAP)) === 1
    );
  }

  /** A SubstreamID; undefined when none is left. */
  allocate(): number | undefined {
    const { status, ssid } = this.command(VCMD_COMMAND.ALLOCATE);
    if (status === VCRSP_STATUS.NO_SUBSTREAMID) return undefined;
    if (status !== VCRSP_STATUS.SUCCESS) throw new Error(`simulated guest: virtual command status ${status}`);
    return ssid;
  }

  /** False when the unit says that the guest does not have it. */
  free(ssid: number): boolean {
    return this.command(VCMD_COMMAND.FREE, ssid).status === VCRSP_STATUS.SUCCESS;
  }

  /** Any command, and what VCRSP says when it has ended. */
  command(code: number, ssid = 0): { readonly status: number; readonly ssid: number } {
    const { registers } = this;
    registers.write(VCMD, { CMD: code, SubstreamID: ssid });
    let words: Uint32Array = new Uint32Array(VCRSP.wordCount);
    registers.waitUntil(() => {
      words = registers.read(VCRSP);
      return VCRSP.get.BUSY(words) === 0;
    }, 'VCRSP.BUSY = 0');
    return { status: VCRSP.get.SC(words), ssid: VCRSP.get.SubstreamID(words) };
  }
}
