/**
 * The invalidation descriptors of this unit, one row each: which units have it, which encodings are
 * valid, what it does, and what the peer may do of it. VT-d §6.5.2, Table 26. A new descriptor is a
 * row here with the function that it names, and a row with its type and layout in
 * src/spec/vtd/descriptors.ts.
 */

import { NO_PASID } from '../../base/ids.js';
import type { Layout } from '../../spec/define.js';
import {
  CC_INV_DSC,
  DESCRIPTOR,
  DESCRIPTOR_LAYOUT,
  DEV_TLB_INV_DSC,
  IEC_INV_DSC,
  INV_WAIT_DSC,
  IOTLB_INV_DSC,
  P_DEV_TLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
  PAGE_GRP_RESP_DSC,
  PC_GRANULARITY,
  PC_INV_DSC,
  RESPONSE_CODE,
} from '../../spec/vtd/descriptors.js';
import { CC_GRANULARITY, IOTLB_GRANULARITY, IQEI, TTM } from '../../spec/vtd/registers.js';
import { ALL_ENTRIES } from '../interrupts.js';
import type { IommuOutputs } from '../iommu.js';
import { type Plain, plainCommands } from '../peer-queue.js';
import { MAXIMUM_HANDLE_MASK, type VtdConfig } from './config.js';
import type { VtdDeviceTlbs } from './device-tlbs.js';
import type { VtdInterruptRemapping } from './interrupt-remapping.js';
import type { VtdInvalidator } from './invalidation.js';
import type { VtdLookup } from './lookup.js';
import { plainIotlb, plainPasidIotlb, plainWait } from './plain-descriptors.js';
import { masks, violates } from './reserved.js';

/** What descriptors act on. */
export interface DescriptorTarget {
  readonly lookup: VtdLookup;
  readonly invalidator: VtdInvalidator;
  readonly deviceTlbs: VtdDeviceTlbs;
  /** Absent: the unit remaps no interrupts. */
  readonly interrupts: VtdInterruptRemapping | undefined;
  readonly outputs: IommuOutputs;
  /** Nothing behind a wait descriptor is fetched until what is before it is complete. */
  waitFor(words: Uint32Array): void;
}

type Run = (target: DescriptorTarget, words: Uint32Array) => boolean;

/** What a descriptor allows the peer: to carry it out in the store that rings the doorbell. */
interface PeerPart {
  /** The encodings that it may carry out. */
  readonly plain: (config: VtdConfig, scalable: boolean) => readonly Plain<string>[];
  /** What is left to do then. False: that encoding is not the peer's. */
  readonly ran: Run;
}

interface DescriptorRow {
  readonly type: number;
  /** Does it. False: not now; the queue stays at it. */
  readonly run: Run;
  /** Units that lack it take its type as invalid. */
  readonly has: (config: VtdConfig) => boolean;
  /** It exists in scalable mode only, and needs 256 bits. Table 26 */
  readonly scalable: boolean;
  /** Fields that are reserved in a unit. */
  readonly absent: (config: VtdConfig) => readonly string[];
  /** False for reserved granularities and unsupported address masks. */
  readonly valid: (words: Uint32Array, config: VtdConfig) => boolean;
  readonly peer: PeerPart | undefined;
}

/** A descriptor as one unit has it. */
interface Descriptor extends DescriptorRow {
  readonly reserved: Uint32Array;
}

const always = (): boolean => true;
const none = (): readonly string[] => [];
const deviceTlb = (config: VtdConfig): boolean => config.deviceTlb;
const interrupts = (config: VtdConfig): boolean => config.interruptRemapping;
const pageRequests = (config: VtdConfig): boolean => config.pageRequests;
/** PD is reserved while ECAP.PDS is clear. §6.5.2.9 */
const drain = (config: VtdConfig): readonly string[] => (config.pageRequests ? [] : ['PD']);

/**
 * Without interrupt remapping (ECAP.IR) its type is invalid: a driver that invalidates its entries
 * expects a table that the unit does not read. Those of Linux, Xen and FreeBSD do that only where
 * they set one up.
 */
const ROWS: readonly DescriptorRow[] = [
  row(DESCRIPTOR.CONTEXT_CACHE, contextCache, { valid: contextGranularity }),
  row(DESCRIPTOR.IOTLB, iotlb, { valid: iotlbGranularity, peer: { plain: plainIotlb, ran: iotlbByPeer } }),
  row(DESCRIPTOR.DEVICE_TLB, deviceTlbInvalidation, { has: deviceTlb }),
  row(DESCRIPTOR.INTERRUPT_ENTRY_CACHE, interruptEntryCache, { has: interrupts, valid: interruptMask }),
  row(DESCRIPTOR.WAIT, wait, { absent: drain, peer: { plain: plainWait, ran: waitByPeer } }),
  row(DESCRIPTOR.PASID_IOTLB, pasidIotlb, {
    scalable: true,
    valid: pasidIotlbGranularity,
    peer: { plain: plainPasidIotlb, ran: pasidIotlb },
  }),
  row(DESCRIPTOR.PASID_CACHE, pasidCache, { scalable: true, valid: pasidGranularity }),
  row(DESCRIPTOR.PASID_DEVICE_TLB, pasidDeviceTlbInvalidation, { scalable: true, has: deviceTlb }),
  row(DESCRIPTOR.PAGE_GROUP_RESPONSE, pageGroupResponse, { scalable: true, has: pageRequests }),
];

function row(type: number, run: Run, rest: Partial<DescriptorRow>): DescriptorRow {
  const { has = always, scalable = false, absent = none, valid = always, peer } = rest;
  return { type, run, has, scalable, absent, valid, peer };
}

/** The descriptors of one unit, and which of their encodings are valid. */
export class Descriptors {
  /** By type; undefined: invalid in this unit. */
  readonly #byType: readonly (Descriptor | undefined)[];
  readonly #config: VtdConfig;

  constructor(config: VtdConfig) {
    const byType = new Array<Descriptor | undefined>(128).fill(undefined);
    for (const { type, run, has, scalable, absent, valid, peer } of ROWS) {
      if (!has(config)) continue;
      const reserved = masks(DESCRIPTOR_LAYOUT[type] as Layout<string>, 0, [], absent(config));
      byType[type] = { type, run, has, scalable, absent, valid, peer, reserved };
    }
    this.#byType = byType;
    this.#config = config;
  }

  /** The row of a type that {@link check} has accepted. */
  get(type: number): Descriptor {
    return this.#byType[type] as Descriptor;
  }

  /**
   * {@link IQEI}.NONE, or what is wrong. `words` has 8 words, the upper half zero when not `wide`.
   */
  check(type: number, words: Uint32Array, wide: boolean, mode: number): number {
    const descriptor = this.#byType[type];
    if (descriptor === undefined) return IQEI.INVALID_TYPE;
    if (descriptor.scalable && (!wide || mode !== TTM.SCALABLE)) return IQEI.INVALID_TYPE;
    if (violates(descriptor.reserved, words, 0, 8)) return IQEI.RESERVED_FIELD;
    return descriptor.valid(words, this.#config) ? IQEI.NONE : IQEI.RESERVED_FIELD;
  }
}

/**
 * Those that the peer may carry out, as {@link QueueDescription.commands}: of legacy or of scalable
 * mode.
 */
export function plainDescriptors(config: VtdConfig, scalable: boolean): Uint32Array {
  const rows = ROWS.filter((given) => given.has(config) && (scalable || !given.scalable));
  return plainCommands(rows.flatMap((given) => given.peer?.plain(config, scalable) ?? []));
}

// The model's caches. §6.5.2.1 to §6.5.2.4

function contextGranularity(words: Uint32Array): boolean {
  return CC_INV_DSC.get.G(words) !== CC_GRANULARITY.RESERVED;
}

function contextCache({ invalidator, lookup }: DescriptorTarget, words: Uint32Array): boolean {
  const { get } = CC_INV_DSC;
  const scalable = lookup.mode !== TTM.LEGACY;
  invalidator.contextCache(get.G(words), get.DID(words), get.SID(words), get.FM(words), scalable);
  return true;
}

function iotlbGranularity(words: Uint32Array, config: VtdConfig): boolean {
  const granularity = IOTLB_INV_DSC.get.G(words);
  if (granularity === IOTLB_GRANULARITY.RESERVED) return false;
  if (granularity !== IOTLB_GRANULARITY.PAGE) return true;
  return IOTLB_INV_DSC.get.AM(words) <= config.maximumAddressMask;
}

function iotlb({ invalidator }: DescriptorTarget, words: Uint32Array): boolean {
  const { get } = IOTLB_INV_DSC;
  invalidator.iotlb(get.G(words), get.DID(words), words[2], words[3], get.AM(words));
  return true;
}

/** The peer drops what is of one domain; a global one is not described to it. */
function iotlbByPeer(target: DescriptorTarget, words: Uint32Array): boolean {
  return IOTLB_INV_DSC.get.G(words) !== IOTLB_GRANULARITY.GLOBAL && iotlb(target, words);
}

function pasidGranularity(words: Uint32Array): boolean {
  return PC_INV_DSC.get.G(words) !== PC_GRANULARITY.RESERVED;
}

function pasidCache({ invalidator }: DescriptorTarget, words: Uint32Array): boolean {
  const { get } = PC_INV_DSC;
  const granularity = get.G(words);
  if (granularity === PC_GRANULARITY.GLOBAL) invalidator.pasidCacheGlobal();
  else if (granularity === PC_GRANULARITY.DOMAIN) invalidator.pasidCacheDomain(get.DID(words));
  else invalidator.pasidCachePasid(get.DID(words), get.PASID(words));
  return true;
}

function pasidIotlbGranularity(words: Uint32Array): boolean {
  const granularity = P_IOTLB_INV_DSC.get.G(words);
  return granularity === P_IOTLB_GRANULARITY.PASID || granularity === P_IOTLB_GRANULARITY.PAGE;
}

/**
 * Any mask is allowed here (§11.4.2, MAMV); one that reaches beyond 64 bits means every address.
 */
function pasidIotlb({ invalidator }: DescriptorTarget, words: Uint32Array): boolean {
  const { get } = P_IOTLB_INV_DSC;
  const did = get.DID(words);
  const pasid = get.PASID(words);
  const addressMask = get.AM(words);
  if (get.G(words) === P_IOTLB_GRANULARITY.PAGE && addressMask < 52) {
    invalidator.pasidIotlbPages(did, pasid, words[2], words[3], addressMask);
  } else {
    invalidator.pasidIotlb(did, pasid);
  }
  return true;
}

// Interrupts. §6.5.2.8

/** The mask is looked at in an index-selective invalidation only. */
function interruptMask(words: Uint32Array): boolean {
  return IEC_INV_DSC.get.G(words) === 0 || IEC_INV_DSC.get.IM(words) <= MAXIMUM_HANDLE_MASK;
}

function interruptEntryCache(target: DescriptorTarget, words: Uint32Array): boolean {
  const { get } = IEC_INV_DSC;
  if (get.G(words) === 0) target.interrupts?.invalidate(0, ALL_ENTRIES);
  else target.interrupts?.invalidate(get.IIDX(words), get.IM(words));
  return true;
}

// Devices. §6.5.2.5, §6.5.2.6, §7.6.1

/** §6.5.2.12: only after the IOTLB invalidations ahead of it are complete. */
function deviceTlbInvalidation({ deviceTlbs, outputs }: DescriptorTarget, words: Uint32Array): boolean {
  if (outputs.pendingAcks() > 0) return false;
  const { get } = DEV_TLB_INV_DSC;
  const pfsid = get.PFSID_LOW(words) | (get.PFSID_HIGH(words) << 4);
  const sized = get.S(words) === 1;
  return deviceTlbs.request(
    get.SID(words),
    pfsid,
    get.MIP(words),
    NO_PASID,
    words[2],
    words[3],
    sized,
    false,
  );
}

function pasidDeviceTlbInvalidation({ deviceTlbs, outputs }: DescriptorTarget, words: Uint32Array): boolean {
  if (outputs.pendingAcks() > 0) return false;
  const { get } = P_DEV_TLB_INV_DSC;
  return deviceTlbs.request(
    get.SID(words),
    get.PFSID_LOW(words) | (get.PFSID_HIGH(words) << 4),
    get.MIP(words),
    get.PASID(words),
    words[2],
    words[3],
    get.S(words) === 1,
    get.GI(words) === 1,
  );
}

/** What a device makes of reserved codes is defined: it is failure. §7.6.1 */
function pageGroupResponse({ outputs }: DescriptorTarget, words: Uint32Array): boolean {
  const { get } = PAGE_GRP_RESP_DSC;
  const code = get.RC(words);
  const defined = code === RESPONSE_CODE.SUCCESS || code === RESPONSE_CODE.INVALID_REQUEST;
  outputs.pageResponse(
    get.RID(words),
    get.PP(words) === 1 ? get.PASID(words) : NO_PASID,
    get.PRGI(words),
    defined ? code : RESPONSE_CODE.RESPONSE_FAILURE,
  );
  return true;
}

// Waits. §6.5.2.9

function wait(target: DescriptorTarget, words: Uint32Array): boolean {
  target.waitFor(words);
  return true;
}

/** The peer has stored the status. It raises no interrupt. */
function waitByPeer(_target: DescriptorTarget, words: Uint32Array): boolean {
  return INV_WAIT_DSC.get.SW(words) === 1 && INV_WAIT_DSC.get.IF(words) === 0;
}
