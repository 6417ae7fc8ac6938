/**
 * What every guest-visible IOMMU model is to the session that runs it (DESIGN §2, §5), and what it may ask
 * of the session in turn. A model is synchronous and deterministic: it is called with a message or an
 * acknowledgement, it reads guest memory through its port, and all it does comes out through `IommuOutputs`.
 */

/** Access bits of a request and permissions of a translation. */
export const ACCESS = { READ: 1, WRITE: 2, EXECUTE: 4, PRIVILEGED: 8 } as const;

/** `pasid` of a request without PASID. */
export const NO_PASID = -1;

/** Stands for "every one" in a scope. */
export const ANY = 0xffffffff;

/** One DMA request, as the bridge saw it. The object is reused by the caller. */
export interface TranslateRequest {
  /** PCI requester id: bus 15:8, device 7:3, function 2:0. */
  rid: number;
  /** 20-bit PASID or {@link NO_PASID}. */
  pasid: number;
  /** {@link ACCESS} bits. 0 = what would be allowed (never faults; used by replay and by people). */
  access: number;
  /** Input address. */
  lo: number;
  hi: number;
}

/** Words per span in {@link TranslateResult.spans}. */
export const SPAN_WORDS = 6;

/** Most spans that one answer carries: the translation asked for, then neighbours the device is likely to want. */
export const MAX_SPANS = 64;

export const TRANSLATE_STATUS = { OK: 0, FAULT: 1 } as const;

/**
 * An answer. Spans are [inputLo, inputHi, outputLo, outputHi, log2Size, permissions] with input and output
 * aligned to the size (12..64; 64 = the whole input space, identity). `spans[0]` covers the address asked for;
 * the rest are valid translations that were found beside it and that a cache may hold (never speculated:
 * their Accessed/Dirty bits already are as the architecture wants them).
 */
export interface TranslateResult {
  status: number;
  /** Number of spans; 0 on a fault. */
  count: number;
  spans: Uint32Array;
  /** Cache tag: which invalidations hit these entries (VT-d: DID; SMMUv3: VMID). */
  space: number;
  /** Second tag (VT-d: PASID of first-stage or nested entries; SMMUv3: ASID), {@link ANY} when none. */
  sub: number;
}

/** What a cache outside of the engine must drop. Fields that are {@link ANY} match everything. */
export interface InvalidateScope {
  space: number;
  sub: number;
  /** One requester, after its configuration changed. */
  rid: number;
  pasid: number;
  /** Input range: `log2Size` ≥ 64 means all; otherwise the aligned block that contains the address. */
  lo: number;
  hi: number;
  log2Size: number;
}

/** Wired interrupt outputs of an SMMUv3, in the order that device trees and IORT list them. Edge-triggered. */
export const WIRE = { EVENTQ: 0, PRIQ: 1, CMD_SYNC: 2, GERROR: 3 } as const;

/** What the model may do to the world. Implemented by the session. */
export interface IommuOutputs {
  /**
   * Drops translations outside of the engine. Does not wait: the model finds out through
   * {@link IommuOutputs.pendingAcks} and {@link Iommu.acknowledged}. The scope object is read before return.
   */
  invalidate(scope: InvalidateScope): void;
  /** How many invalidations and host operations have not been acknowledged yet. */
  pendingAcks(): number;
  /** Raises a message-signalled interrupt: a 32-bit write of `data` to the guest-physical address. */
  interrupt(addressLo: number, addressHi: number, data: number): void;
  /**
   * A rising edge on one of the unit's own interrupt outputs, by {@link WIRE}. Without it such edges are lost:
   * only a model that has wired outputs calls it.
   */
  wire?(line: number): void;
  /** Tells observers. Must not change what the model does. Called on rare paths only. */
  event(event: ModelEvent): void;
}

/** A model's rare happenings, for logs, trace and reports. */
export type ModelEvent =
  | {
      readonly kind: 'fault';
      readonly rid: number;
      readonly pasid: number;
      /** The specification's number and name of the reason. */
      readonly reason: number;
      readonly name: string;
      readonly lo: number;
      readonly hi: number;
      readonly access: number;
      /** False when the fault could not be recorded (overflow, FPD). */
      readonly recorded: boolean;
    }
  | { readonly kind: 'enable'; readonly what: string; readonly on: boolean }
  | { readonly kind: 'queueError'; readonly name: string; readonly detail: string }
  | { readonly kind: 'invalidation'; readonly name: string; readonly detail: string };

/** Counters every model keeps; plain numbers, read by reports and metrics. */
export interface ModelCounters {
  translations: number;
  /** Translations answered from the model's own IOTLB. */
  iotlbHits: number;
  walks: number;
  faults: number;
  /** Faults that found no free record. */
  faultsDropped: number;
  commands: number;
  invalidations: number;
  interrupts: number;
}

/** Counters as they start. */
export function zeroCounters(): ModelCounters {
  return {
    translations: 0,
    iotlbHits: 0,
    walks: 0,
    faults: 0,
    faultsDropped: 0,
    commands: 0,
    invalidations: 0,
    interrupts: 0,
  };
}

/** One node of what `viommu dump` prints. */
export interface DumpNode {
  /** e.g. `GSTS_REG`, `root[00]`, `context 00:03.0`, `SS-PML4[5]`. */
  readonly label: string;
  /** Raw value(s) in hexadecimal, where the node is a register or an entry. */
  readonly raw?: string;
  /** Specification field names and values. */
  readonly fields?: Readonly<Record<string, string | number>>;
  readonly children?: readonly DumpNode[];
  /** Said when children were left out, and how many. */
  readonly note?: string;
}

export interface DumpOptions {
  readonly registers: boolean;
  readonly tables: boolean;
  /** One requester only. */
  readonly rid?: number;
  /** Most leaf ranges to print per address space. */
  readonly maxLeaves: number;
}

/** A guest-visible IOMMU. */
export interface Iommu {
  readonly model: 'vtd' | 'smmuv3';
  /** Bytes of register space; the register memory handed in has this size. */
  readonly registerBytes: number;
  readonly counters: ModelCounters;
  /** False: an answer is good for the request that asked, and no cache outside may keep it (cache policy `none`). */
  readonly answersMayBeKept: boolean;
  /**
   * A guest store of 1, 2, 4 or 8 bytes. Sizes or alignments that the specification does not allow are ignored (and traced).
   * All that it changes at once is visible in the register memory when this returns.
   */
  writeRegister(offset: number, size: number, lo: number, hi: number): void;
  /** Answers one request; records the architected fault when there is one. Fills `result` completely. */
  translate(request: TranslateRequest, result: TranslateResult): void;
  /** The session's pending acknowledgements reached zero: go on with what waits for them. */
  acknowledged(): void;
  /** Machine reset. All state as at power-on, all caches dropped (the session tells the bridge). */
  reset(): void;
  /**
   * Enumerates translations of a requester at or above `lo:hi`, for replay: fills `result` (at most
   * {@link MAX_SPANS}, ascending, permissions as mapped) and returns true when more follow above the last one.
   * Never faults, sets no Accessed/Dirty bit, reads tables afresh.
   */
  enumerate(rid: number, pasid: number, lo: number, hi: number, result: TranslateResult): boolean;
  /** Requesters among `rids` that translations tagged by this scope may belong to. Appends to `out`, returns count. */
  affected(scope: InvalidateScope, rids: readonly number[], out: number[]): number;
  dump(options: DumpOptions): DumpNode[];
}
