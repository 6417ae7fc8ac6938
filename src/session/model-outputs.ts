/**
 * What the model may do to the world: each output becomes a message, or is recorded for after the
 * model's call.
 */
import { DEVICE_TLB, type InvalidateScope, type IommuOutputs, type ModelEvent } from '../device/iommu.js';
import { CODEC } from '../wire/codec.js';
import { FEATURE, MESSAGE } from '../wire/frame.js';
import type { AssignedDevices } from './assigned.js';
import type { Completions } from './completions.js';
import type { Connection } from './connection.js';
import type { DeviceTlbs } from './device-tlb-requests.js';
import type { InterruptRemapping } from './interrupt-requests.js';
import type { PeerCommands } from './peer-commands.js';
import type { Invalidations } from './peer-invalidations.js';

export class ModelOutputs implements IommuOutputs {
  readonly #connection: Connection;
  readonly #completions: Completions;
  readonly #invalidations: Invalidations;
  readonly #interrupts: InterruptRemapping;
  readonly #peerCommands: PeerCommands;
  readonly #deviceTlbs: DeviceTlbs;
  readonly #assigned: AssignedDevices;
  constructor(
    connection: Connection,
    completions: Completions,
    invalidations: Invalidations,
    interrupts: InterruptRemapping,
    peerCommands: PeerCommands,
    deviceTlbs: DeviceTlbs,
    assigned: AssignedDevices,
    readonly event: (event: ModelEvent) => void,
  ) {
    this.#connection = connection;
    this.#completions = completions;
    this.#invalidations = invalidations;
    this.#interrupts = interrupts;
    this.#peerCommands = peerCommands;
    this.#deviceTlbs = deviceTlbs;
    this.#assigned = assigned;
  }

  invalidate(scope: InvalidateScope): void {
    const peerCommands = this.#peerCommands;
    // A model that is being made invalidates nothing that could be held.
    if (this.#connection.model === undefined) return;
    if (!peerCommands.following) this.#completions.record(scope);
    else if (peerCommands.exactly) this.#invalidations.carriedOut(scope);
  }

  pendingAcks(): number {
    return this.#completions.pendingForModel();
  }

  interrupt(addressLo: number, addressHi: number, data: number): void {
    this.#interrupt(addressLo, addressHi, data, 0);
  }

  invalidateInterrupts(index: number, log2Count: number): void {
    // As with translations.
    if (this.#connection.model !== undefined) this.#interrupts.record(index, log2Count);
  }

  wire(line: number): void {
    this.#interrupt(0, 0, 0, line + 1);
  }

  resume(stall: number, action: number): void {
    const message = { stall: stall >>> 0, action };
    this.#connection.backendWith(FEATURE.STALLS)?.put(MESSAGE.RESUME, 0, 0, CODEC.Resume, message);
  }

  pageResponse(rid: number, pasid: number, group: number, code: number): void {
    if (this.#assigned.pageResponse(rid, pasid, group, code)) return;
    const message = { rid, pasid: pasid + 1, group, code };
    this.#connection.backendWith(FEATURE.PRI)?.put(MESSAGE.PAGE_RESPONSE, 0, 0, CODEC.PageResponse, message);
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
    this.#completions.mark();
    // A host invalidates the device as it invalidates its IOMMU; the completion waits for that
    // anyway.
    if (this.#assigned.serves(rid)) return this.#deviceTlbs.end(tag, DEVICE_TLB.DONE);
    return this.#deviceTlbs.request(tag, rid, pasid, lo, hi, log2Size, global);
  }

  #interrupt(addressLo: number, addressHi: number, data: number, wire: number): void {
    const backend = this.#connection.agreement?.backend;
    if (backend === undefined) return;
    const message = { addressLo: addressLo >>> 0, addressHi: addressHi >>> 0, data: data >>> 0, wire };
    backend.put(MESSAGE.INTERRUPT, 0, 0, CODEC.Interrupt, message);
  }
}
