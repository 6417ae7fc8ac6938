/**
 * The host's VT-d 3 unit in scalable mode and the driver for it. VT-d Rev. 5.10.
 *
 * Every PASID-table entry has a first- and a second-stage pointer of its own, so each PASID can be
 * attached, or nested, by itself; requests without PASID use the entry that RID_PASID names. There
 * is one PASID table for each function, and it is the host's.
 */

import type { Level } from '../../assignment/request.js';
import { NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES, pageHi, pageLo, pageOf } from '../../base/page.js';
import type { TranslateResult } from '../../device/iommu.js';
import { pack } from '../../spec/define.js';
import {
  CC_INV_DSC,
  DESCRIPTOR,
  IOTLB_INV_DSC,
  P_IOTLB_GRANULARITY,
  P_IOTLB_INV_DSC,
  PC_GRANULARITY,
  PC_INV_DSC,
} from '../../spec/vtd/descriptors.js';
import {
  CAP_REG,
  CC_GRANULARITY,
  ECAP_REG,
  FRCD_REG,
  GCMD_REG,
  IOTLB_GRANULARITY,
  RTADDR_REG,
  TTM,
} from '../../spec/vtd/registers.js';
import { HostError } from '../host-errors.js';
import { KERNEL_TYPE, vtdInfo } from '../kernel-structures.js';
import { ALL_PAGES, type HostInvalidations, type NestedTable, type PageRange } from '../port.js';
import { type HostDriver, noPlace, type RecordedFault, ridText, type VirtualIommu } from './driver.js';
import { VTD_FIRST, VTD_SECOND } from './encodings.js';
import { type Endpoint, type HostDomain, moveEndpoint, NestedDomain, PagingDomain } from './host-domain.js';
import { HostPageTable } from './host-page-table.js';
import type { HostMemory } from './memory.js';
import { HostUnit } from './unit.js';
import { alignedMask, checkVtdTable, vtdRanges } from './vtd-common.js';
import { DomainIds } from './vtd3-domain-ids.js';
import { VtdQueue } from './vtd3-queue.js';
import { type PciFunction, RID_PASID, VtdTables } from './vtd3-structures.js';

const PASID_BITS = 20;
const FAULT_RECORDS = 16;
/** Largest AM of a page-selective invalidation (CAP.MAMV of the unit). */
const MAMV = 18;

export class HostVtd3Driver implements HostDriver {
  readonly #memory: HostMemory;
  readonly capabilities = {
    kind: 'vtd3',
    stage1: true,
    stage2: true,
    nesting: true,
    pasidBits: PASID_BITS,
    pageRequests: true,
  } as const;
  readonly unit: HostUnit;
  readonly #queue: VtdQueue;
  readonly #tables: VtdTables;
  readonly #functions = new Map<number, PciFunction>();
  readonly #dids = new DomainIds();
  #domains = 0;
  /** Of one of many invalidations. */
  readonly #endpoint = { rid: -1, pasid: NO_PASID };
  /** A descriptor. */
  readonly #words = new Uint32Array(8);

  constructor(memory: HostMemory) {
    this.#memory = memory;
    const options = { 'fault-records': String(FAULT_RECORDS), 'device-tlb': 'on', 'page-requests': 'on' };
    this.unit = new HostUnit('vtd', options, memory);
    this.#tables = new VtdTables(memory, PASID_BITS, (rid) => this.#contextChanged(rid));
    this.#queue = new VtdQueue(this.unit, memory, FAULT_RECORDS);
    const bit = (field: 'QIE' | 'SRTP' | 'TE'): number => 2 ** GCMD_REG.fields[field].lsb;
    this.unit.write64(RTADDR_REG.offset, this.#tables.root + TTM.SCALABLE * 2 ** RTADDR_REG.fields.TTM.lsb);
    this.unit.write32(GCMD_REG.offset, bit('SRTP'));
    this.unit.write32(GCMD_REG.offset, bit('QIE'));
    this.unit.write32(GCMD_REG.offset, bit('QIE') + bit('TE'));
  }

  hardwareInfo() {
    const words = (offset: number): number[] => [this.unit.read32(offset), this.unit.read32(offset + 4)];
    return { type: KERNEL_TYPE.VTD, info: vtdInfo(words(CAP_REG.offset), words(ECAP_REG.offset)) };
  }

  ranges(level: Level): readonly PageRange[] {
    return vtdRanges(level);
  }

  addFunction(rid: number): void {
    this.#functions.set(rid, this.#tables.addFunction(rid));
  }

  removeFunction(rid: number): void {
    const found = this.#function(rid);
    this.#tables.removeFunction(found);
    this.#functions.delete(rid);
  }

  usualLevel(): Level {
    return 'first';
  }

  createDomain(level: Level): PagingDomain {
    const table = new HostPageTable(this.#memory, level === 'first' ? VTD_FIRST : VTD_SECOND);
    this.#domains++;
    return new PagingDomain(level, table, this.#dids.take());
  }

  destroyDomain(domain: PagingDomain): void {
    this.flush(domain, 0, ALL_PAGES);
    domain.table.destroy();
    this.#dids.give(domain.tag);
    this.#domains--;
  }

  createNested(parent: PagingDomain, table: NestedTable): NestedDomain {
    if (parent.level !== 'second') throw noPlace('guest tables go on top of a second level');
    checkVtdTable(table);
    this.#domains++;
    return new NestedDomain(parent, table);
  }

  destroyNested(): void {
    this.#domains--;
  }

  attach(endpoint: Endpoint, domain: HostDomain): void {
    const found = this.#function(endpoint.rid);
    const index = entryIndex(endpoint);
    const before = found.entries.get(index);
    const did = this.#takeId(endpoint, domain);
    try {
      this.#tables.setEntry(found, index, domain, did);
    } catch (error) {
      this.#giveId(endpoint, domain);
      throw error;
    }
    found.entries.set(index, domain);
    this.#entryChanged(endpoint, before === undefined ? did : this.#idOf(endpoint, before));
    if (before !== undefined) this.#giveId(endpoint, before);
    moveEndpoint(endpoint, before, domain);
  }

  detach(endpoint: Endpoint): boolean {
    const found = this.#functions.get(endpoint.rid);
    const index = entryIndex(endpoint);
    const before = found?.entries.get(index);
    if (found === undefined || before === undefined) return false;
    found.entries.delete(index);
    this.#tables.clearEntry(found, index);
    this.#entryChanged(endpoint, this.#idOf(endpoint, before));
    this.#giveId(endpoint, before);
    this.#tables.reclaim(found, index);
    moveEndpoint(endpoint, before, undefined);
    return true;
  }

  attached(endpoint: Endpoint): HostDomain | undefined {
    return this.#functions.get(endpoint.rid)?.entries.get(entryIndex(endpoint));
  }

  flush(domain: PagingDomain, page: number, pages: number): void {
    const mask = alignedMask(page, pages, MAMV);
    if (domain.level === 'first') {
      for (const endpoint of domain.endpoints)
        this.#invalidatePasid(domain.tag, entryIndex(endpoint), page, mask);
    } else {
      this.#invalidatePages(domain.tag, page, mask);
      // Guest addresses say nothing about intermediate ones: what is on top goes whole.
      for (const did of this.#dids.on(domain)) this.#invalidatePages(did, 0, undefined);
    }
    this.#queue.sync();
  }

  clean(): void {
    this.#queue.push(pack(PC_INV_DSC, { TypeLow: DESCRIPTOR.PASID_CACHE, G: PC_GRANULARITY.GLOBAL }));
    this.#queue.push(pack(IOTLB_INV_DSC, { TypeLow: DESCRIPTOR.IOTLB, G: IOTLB_GRANULARITY.GLOBAL }));
    this.#queue.sync();
  }

  invalidate(guest: VirtualIommu, invalidations: HostInvalidations, index: number): void {
    const { words } = invalidations;
    const at = index * 5;
    const endpoint = this.#endpoint;
    endpoint.rid = words[at];
    endpoint.pasid = words[at + 1] - 1;
    const domain = this.attached(endpoint);
    if (domain?.kind !== 'nested' || domain.parent !== guest.parent) {
      throw new HostError(
        'BAD_INVALIDATION',
        `PASID ${endpoint.pasid} of ${ridText(endpoint.rid)} is not nested`,
      );
    }
    const page = pageOf(words[at + 2] as number, words[at + 3] as number);
    const pages = words[at + 4] as number;
    const mask = pages === ALL_PAGES ? undefined : alignedMask(page, pages, MAMV);
    this.#invalidatePasid(this.#idOf(endpoint, domain), entryIndex(endpoint), page, mask);
  }

  sync(): void {
    this.#queue.sync();
  }

  translate(endpoint: Endpoint, access: number, lo: number, hi: number, result: TranslateResult): boolean {
    return this.unit.translate(endpoint, access, lo, hi, result);
  }

  takeFaults(): RecordedFault[] {
    const faults: RecordedFault[] = [];
    for (let record = this.#queue.takeFault(); record !== undefined; record = this.#queue.takeFault()) {
      const pasid = FRCD_REG.get.PP(record) === 1 ? FRCD_REG.get.PV(record) : NO_PASID;
      faults.push({ rid: FRCD_REG.get.SID(record), pasid, format: 'vtd', record });
    }
    return faults;
  }

  leftovers(): Readonly<Record<string, number>> {
    const functions = [...this.#functions.values()];
    return {
      domains: this.#domains,
      domainIds: this.#dids.live,
      pasidEntries: functions.reduce((sum, { entries }) => sum + entries.size, 0),
    };
  }

  #function(rid: number): PciFunction {
    const found = this.#functions.get(rid);
    if (found === undefined) throw new HostError('NO_SUCH_DEVICE', ridText(rid));
    return found;
  }

  /** The domain-id in the PASID-table entry of an endpoint that is attached to a domain. */
  #idOf({ rid }: Endpoint, domain: HostDomain): number {
    return domain.kind === 'nested' ? this.#dids.of(domain.parent, rid) : domain.tag;
  }

  #takeId({ rid }: Endpoint, domain: HostDomain): number {
    return domain.kind === 'nested' ? this.#dids.share(domain.parent, rid) : domain.tag;
  }

  #giveId({ rid }: Endpoint, domain: HostDomain): void {
    if (domain.kind !== 'nested') return;
    const did = this.#dids.of(domain.parent, rid);
    if (!this.#dids.unshare(domain.parent, rid)) return;
    this.#invalidateDomain(did);
    this.#dids.give(did);
  }

  #contextChanged(rid: number): void {
    this.#queue.push(
      pack(CC_INV_DSC, { TypeLow: DESCRIPTOR.CONTEXT_CACHE, G: CC_GRANULARITY.DEVICE, SID: rid }),
    );
    this.#queue.push(pack(PC_INV_DSC, { TypeLow: DESCRIPTOR.PASID_CACHE, G: PC_GRANULARITY.GLOBAL }));
    this.#queue.push(pack(IOTLB_INV_DSC, { TypeLow: DESCRIPTOR.IOTLB, G: IOTLB_GRANULARITY.GLOBAL }));
    this.#queue.sync();
  }

  /** A PASID-table entry that was cached under a domain-id has changed. §6.5.3.3 */
  #entryChanged(endpoint: Endpoint, DID: number): void {
    const PASID = entryIndex(endpoint);
    this.#queue.push(
      pack(PC_INV_DSC, { TypeLow: DESCRIPTOR.PASID_CACHE, G: PC_GRANULARITY.PASID, DID, PASID }),
    );
    this.#invalidatePasid(DID, PASID, 0, undefined);
    this.#queue.sync();
  }

  /**
   * P_IOTLB invalidation; `mask` undefined: the whole PASID. Guests ask for many, so it is put
   * together by hand.
   */
  #invalidatePasid(did: number, pasid: number, page: number, mask: number | undefined): void {
    const words = this.#words;
    const whole = mask === undefined;
    const granularity = whole ? P_IOTLB_GRANULARITY.PASID : P_IOTLB_GRANULARITY.PAGE;
    const { G, DID } = P_IOTLB_INV_DSC.fields;
    words[0] = DESCRIPTOR.PASID_IOTLB | (granularity << G.lsb) | (did << DID.lsb);
    words[1] = pasid;
    words[2] = whole ? 0 : mask + pageLo(page);
    words[3] = whole ? 0 : pageHi(page);
    this.#queue.push(words);
  }

  #invalidatePages(DID: number, page: number, mask: number | undefined): void {
    const fields =
      mask === undefined
        ? { G: IOTLB_GRANULARITY.DOMAIN }
        : { G: IOTLB_GRANULARITY.PAGE, AM: mask, ADDR: page * PAGE_BYTES };
    this.#queue.push(pack(IOTLB_INV_DSC, { TypeLow: DESCRIPTOR.IOTLB, DID, ...fields }));
  }

  #invalidateDomain(did: number): void {
    this.#invalidatePages(did, 0, undefined);
    this.#queue.sync();
  }
}

/** Which PASID-table entry an endpoint's requests use. */
function entryIndex({ pasid }: Endpoint): number {
  return pasid === NO_PASID ? RID_PASID : pasid;
}
