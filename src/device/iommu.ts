/**
 * What every guest-visible IOMMU model is to the session that runs it, and what it may ask of the
 * session in turn (ARCHITECTURE.md, The engine). A model is synchronous and deterministic: it is
 * called with a message or an acknowledgement, it reads guest memory through its port, and all it
 * does comes out through `IommuOutputs`.
 */

import { ANY, NO_PASID } from '../base/ids.js';
import type { ModelCounters } from './counters.js';
import type { InterruptView } from './interrupts.js';
import type { NestedView } from './nested-view.js';
import type { PeerQueue } from './peer-queue.js';
import type { AddressSpaceTables, WalkTables } from './tables.js';

/** Access bits of a request and permissions of a translation. */
export const ACCESS = { READ: 1, WRITE: 2, EXECUTE: 4, PRIVILEGED: 8 } as const;

/**
 * What a request is to ATS: an ordinary one, a translation request of a device that keeps
 * translations itself, or a request whose address such a translation gave.
 */
export const REQUEST = { UNTRANSLATED: 0, TRANSLATION: 1, TRANSLATED: 2 } as const;

/** One DMA request, as the bridge saw it. The object is reused by the caller. */
export interface TranslateRequest {
  /** PCI requester id: bus 15:8, device 7:3, function 2:0. */
  rid: number;
  /** 20-bit PASID or {@link NO_PASID}. */
  pasid: number;
  /**
   * {@link ACCESS} bits. 0 = what would be allowed (never faults; used by replay and by people).
   */
  access: number;
  /** Input address. */
  lo: number;
  hi: number;
  /** {@link REQUEST} */
  kind: number;
  /** The device can hold this request until {@link IommuOutputs.resume}, and then repeat it. */
  mayStall: boolean;
  /** Bytes of the access, where the peer knows them; 0 or absent: not known. */
  size?: number;
}

/** A PCI Express Page Request Message. The object is reused by the caller. */
export interface PageRequest {
  rid: number;
  /** 20-bit PASID or {@link NO_PASID}. */
  pasid: number;
  /** {@link ACCESS} bits; 0 with `last` set is a Stop Marker. */
  access: number;
  /** Address of the page. */
  lo: number;
  hi: number;
  /** Page Request Group Index, 9 bits. */
  group: number;
  last: boolean;
}

/** Codes of a page response, as PCI Express numbers them. */
export const PAGE_RESPONSE = { SUCCESS: 0, INVALID: 1, FAILURE: 15 } as const;

/**
 * What becomes of a stalled request: repeated, failed, or ended as if done (reads give 0, writes go
 * nowhere).
 */
export const RESUME = { RETRY: 0, ABORT: 1, READ_ZERO: 2 } as const;

/**
 * How an ATS invalidation request ended: done, without an answer in time, or there is no such
 * device.
 */
export const DEVICE_TLB = { DONE: 0, TIMEOUT: 1, UNSUPPORTED: 2 } as const;

/**
 * Bits that an answer to a translation request has beside {@link ACCESS}: the translation holds for
 * every PASID; the address may only be used untranslated.
 */
export const ATS = { GLOBAL: 16, UNTRANSLATED_ONLY: 32 } as const;

/** Words per span in {@link TranslateResult.spans}. */
export const SPAN_WORDS = 6;

/**
 * Most spans that one answer carries: the translation asked for, then neighbours the device is
 * likely to want.
 */
export const MAX_SPANS = 64;

/**
 * FAULT answers a translation request with Unsupported Request, COMPLETER_ABORT with that; a
 * translation request for what is not mapped is OK with a span of no permissions. STALLED is for
 * requests that may stall.
 */
export const TRANSLATE_STATUS = { OK: 0, FAULT: 1, STALLED: 2, COMPLETER_ABORT: 3 } as const;

/**
 * An answer. Spans are [inputLo, inputHi, outputLo, outputHi, log2Size, permissions] with input and
 * output aligned to the size (12..64; 64 = the whole input space, identity). `spans[0]` covers the
 * address asked for; the rest are valid translations that were found beside it and that a cache may
 * hold (never speculated: their Accessed/Dirty bits already are as the architecture wants them).
 */
export interface TranslateResult {
  status: number;
  /** Number of spans; 0 on a fault. */
  count: number;
  spans: Uint32Array;
  /** Cache tag: which invalidations hit these entries (VT-d: DID; SMMUv3: VMID). */
  space: number;
  /**
   * Second tag (VT-d: PASID of first-stage or nested entries; SMMUv3: ASID), {@link ANY} when none.
   */
  sub: number;
  /** Names the request in {@link IommuOutputs.resume}; meaningful with STALLED. */
  stall: number;
}

/** An ordinary request to be filled. */
export function emptyRequest(): TranslateRequest {
  return { rid: 0, pasid: 0, access: 0, lo: 0, hi: 0, kind: REQUEST.UNTRANSLATED, mayStall: false };
}

/** A result to be filled, with room for {@link MAX_SPANS} spans. */
export function emptyResult(): TranslateResult {
  const spans = new Uint32Array(MAX_SPANS * SPAN_WORDS);
  return { status: 0, count: 0, spans, space: 0, sub: 0, stall: 0 };
}

/** What a cache outside of the engine must drop. Fields that are {@link ANY} match everything. */
export interface InvalidateScope {
  space: number;
  sub: number;
  /** One requester, after its configuration changed. */
  rid: number;
  pasid: number;
  /**
   * Input range: `log2Size` ≥ 64 means all; otherwise the aligned block that contains the address.
   */
  lo: number;
  hi: number;
  log2Size: number;
  /**
   * Set when structures (contexts, PASID entries, STEs, CDs) may have changed, not only what tables
   * translate to.
   */
  structures?: boolean;
}

/** Every translation, and every structure. */
export const EVERYTHING: InvalidateScope = {
  ...{ space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64, structures: true },
};

/**
 * Wired interrupt outputs of an SMMUv3, in the order that device trees and IORT list them.
 * Edge-triggered.
 */
export const WIRE = { EVENTQ: 0, PRIQ: 1, CMD_SYNC: 2, GERROR: 3 } as const;

/** What the model may do to the world. Implemented by the session. */
export interface IommuOutputs {
  /**
   * Drops translations in caches outside of the model, after the model's present call: the scope is
   * recorded, and counts in {@link IommuOutputs.pendingAcks} at once. The scope object is read
   * before return.
   */
  invalidate(scope: InvalidateScope): void;
  /**
   * How many invalidations and host operations have not been acknowledged yet. A model that is told
   * of more than 0 hears {@link Iommu.acknowledged} when there are none left.
   */
  pendingAcks(): number;
  /**
   * Raises a message-signalled interrupt: a 32-bit write of `data` to the guest-physical address.
   */
  interrupt(addressLo: number, addressHi: number, data: number): void;
  /**
   * Drops remapped interrupts that are kept outside of the model: of the aligned block of
   * 2^`log2Count` table entries that `index` is in, with 16 and above all, those of no entry too.
   * Recorded and counted as {@link IommuOutputs.invalidate} does. Without it nothing outside keeps
   * any: only a model that remaps interrupts calls it.
   */
  invalidateInterrupts?(index: number, log2Count: number): void;
  /**
   * A rising edge on one of the unit's own interrupt outputs, by {@link WIRE}. Without it such
   * edges are lost: only a model that has wired outputs calls it.
   */
  wire?(line: number): void;
  /**
   * What becomes of a stalled request ({@link RESUME}); `stall` is from {@link TranslateResult}.
   */
  resume(stall: number, action: number): void;
  /** Answers the page requests of a group; `code` is of {@link PAGE_RESPONSE}. */
  pageResponse(rid: number, pasid: number, group: number, code: number): void;
  /**
   * Sends a device an ATS invalidation request for the aligned block (`log2Size` ≥ 64: all
   * addresses; `global`: whatever the PASID). The answer comes as {@link DeviceView.invalidated}
   * with the same `tag`, which the model chooses (≥ 0), later and never from within this call. Not
   * counted by {@link IommuOutputs.pendingAcks}. False: too many are under way, nothing was sent;
   * there is room when one has ended.
   */
  invalidateDeviceTlb(
    tag: number,
    rid: number,
    pasid: number,
    lo: number,
    hi: number,
    log2Size: number,
    global: boolean,
  ): boolean;
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
      /** Of an interrupt request: its index; the address is then that of the message. */
      readonly interrupt?: number;
    }
  | { readonly kind: 'enable'; readonly what: string; readonly on: boolean }
  | {
      readonly kind: 'staleInterrupt';
      readonly index: number;
      /** The entry that was used and the one in memory, in hexadecimal; what differs, by field. */
      readonly cached: string;
      readonly memory: string;
      readonly differs: string;
    }
  | { readonly kind: 'queueError'; readonly name: string; readonly detail: string }
  | { readonly kind: 'invalidation'; readonly name: string; readonly detail: string };

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

/** Registers and tables as a tree, for people. Changes nothing, records no fault. */
export interface DumpView {
  dump(options: DumpOptions): DumpNode[];
}

/** A look at a model from outside: reads tables afresh, changes nothing, records no fault. */
export interface SurveyView {
  /**
   * Translations of a requester at or above `lo:hi`, for replay. Fills `result`: at most
   * {@link MAX_SPANS}, ascending, permissions as mapped, no Accessed or Dirty bit set. True: more
   * follow above the last one.
   */
  enumerate(rid: number, pasid: number, lo: number, hi: number, result: TranslateResult): boolean;
}

/** Which address space each requester has, for caches that keep mappings of their own. */
export interface SpacesView {
  /** True: the guest does not announce new mappings, so stores to its tables have to be trapped. */
  readonly mapsInSilence?: boolean;
  /**
   * Whether translations of this scope may belong to a requester that its `rid` does not exclude.
   */
  concerns(scope: InvalidateScope, rid: number): boolean;
  /**
   * The tables that translate a requester, read afresh. Absent: the model's requesters can't be
   * shadowed.
   */
  tables?(rid: number, pasid: number, out: AddressSpaceTables): void;
}

/** Tables that the peer may walk by itself. */
export interface PeerWalkView {
  /**
   * The tables that translate a requester's ordinary requests around an address. The peer walks
   * them until structures are invalidated. It asks where a walk fails, where an Accessed or Dirty
   * bit would have to be set, and where it finds anything that is not described. False: every
   * request is to be asked for.
   */
  describe(rid: number, pasid: number, hi: number, out: WalkTables): boolean;
}

/** The PASIDs that the guest allocates through registers. */
export interface PasidView {
  /** Width in bits. */
  readonly bits: number;
  /**
   * Takes what a `PasidSpace` (pasid-space.ts) promised to answer later: a PASID > 0, or one of
   * PASID_ANSWER.
   */
  answered(answer: number): void;
  /** A PASID is no longer the guest's. Nothing happens if the guest did not have it. */
  revoked(pasid: number): void;
}

/** Messages of devices that translate ahead. */
export interface DeviceView {
  /**
   * Takes a page request. Absent: the model has none, and the session answers that it is invalid.
   */
  pageRequest?(request: PageRequest): void;
  /** An ATS invalidation request has ended; `result` is of {@link DEVICE_TLB}. */
  invalidated(tag: number, result: number): void;
}

/** A guest-visible IOMMU. */
export interface Iommu {
  readonly model: 'vtd' | 'smmuv3';
  /** Bytes of register space; the register memory handed in has this size. */
  readonly registerBytes: number;
  readonly counters: ModelCounters;
  /**
   * False: an answer is good for the request that asked, and no cache outside may keep it (cache
   * policy `none`).
   */
  readonly answersMayBeKept: boolean;
  readonly dumper: DumpView;
  readonly survey: SurveyView;
  readonly spaces: SpacesView;
  /** Absent: devices send nothing to the model. */
  readonly devices?: DeviceView;
  /** Absent: the guest has no registers that allocate PASIDs. */
  readonly pasids?: PasidView | undefined;
  /** Absent: interrupts are not remapped, and pass as they are. */
  readonly interrupts?: InterruptView | undefined;
  /** Absent: the model's requesters can't be nested. */
  readonly nested?: NestedView;
  /** Absent: the peer asks for every translation. */
  readonly peerWalk?: PeerWalkView;
  /**
   * The queue whose plain commands the peer may carry out itself. Absent: it forwards every
   * doorbell.
   */
  readonly peerQueue?: PeerQueue;
  /**
   * A guest store of 1, 2, 4 or 8 bytes. Sizes or alignments that the specification does not allow
   * are ignored (and traced). All that it changes at once is visible in the register memory when
   * this returns.
   */
  writeRegister(offset: number, size: number, lo: number, hi: number): void;
  /**
   * Answers one request; records the architected fault when there is one. Fills `result`
   * completely.
   */
  translate(request: TranslateRequest, result: TranslateResult): void;
  /**
   * Nothing is pending any more ({@link IommuOutputs.pendingAcks}): go on with what waits for that.
   */
  acknowledged(): void;
  /** Machine reset. All state as at power-on, all caches dropped (the session tells the bridge). */
  reset(): void;
}
