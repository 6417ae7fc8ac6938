/**
 * CMD_ATC_INV: invalidations of what devices keep, until a CMD_SYNC has seen their ends. IHI 0070
 * §3.9.1.4, §4.5.1.
 */

import { NO_PASID } from '../../base/ids.js';
import { ATC_INV_ALL, CMD_ATC_INV } from '../../spec/smmuv3/commands.js';
import { DEVICE_TLB, type IommuOutputs } from '../iommu.js';
import { WHOLE_SPACE } from '../spans.js';
import { type SmmuConfig, STREAM_ID_BITS } from './config.js';

export class DeviceInvalidations {
  readonly #config: SmmuConfig;
  readonly #outputs: IommuOutputs;
  /** Sent, and not ended. */
  pending = 0;
  /** One has ended without an answer of the device since the last CMD_SYNC. */
  timedOut = false;
  #nextTag = 0;

  constructor(config: SmmuConfig, outputs: IommuOutputs) {
    this.#config = config;
    this.#outputs = outputs;
  }

  /** Power-on: nothing that is still on its way is heard of again. */
  reset(): void {
    this.pending = 0;
    this.timedOut = false;
  }

  /** Sends what a CMD_ATC_INV asks for. False: there is no room now. */
  send(words: Uint32Array): boolean {
    const sid = words[1];
    // §4.1.7: no device has a StreamID of more bits.
    if (sid >= 2 ** STREAM_ID_BITS) return true;
    // §4.5.1: without substreams the command is as one without SSV, of which Global is no part.
    const substream = CMD_ATC_INV.get.SSV(words) === 1 && this.#config.ssidBits > 0;
    const size = CMD_ATC_INV.get.Size(words);
    const log2 = size === ATC_INV_ALL ? WHOLE_SPACE : 12 + size;
    const sent = this.#outputs.invalidateDeviceTlb(
      this.#nextTag,
      sid,
      substream ? CMD_ATC_INV.get.SubstreamID(words) : NO_PASID,
      log2 >= 32 ? 0 : (words[2] & (-1 << log2)) >>> 0,
      log2 >= WHOLE_SPACE ? 0 : log2 <= 32 ? words[3] : (words[3] & (-1 << (log2 - 32))) >>> 0,
      log2,
      substream && CMD_ATC_INV.get.Global(words) === 1,
    );
    if (!sent) return false;
    this.#nextTag = (this.#nextTag + 1) & 0x7fff_ffff;
    this.pending++;
    return true;
  }

  /**
   * One has ended. A device that refuses (Unsupported Request) ends it as well as one that does it.
   * §3.9.1.5
   */
  ended(result: number): void {
    if (this.pending > 0) this.pending--;
    if (result === DEVICE_TLB.TIMEOUT) this.timedOut = true;
  }

  /** For a CMD_SYNC: true when one before it timed out, which is said once. §7.1 */
  takeTimeout(): boolean {
    const { timedOut } = this;
    this.timedOut = false;
    return timedOut;
  }
}
