/**
 * The host's SMMUv3 and the driver for it. IHI 0070.
 *
 * What it cannot do follows from its structures. A stream has one STE, and that one S1ContextPtr
 * and one S2TTB: with stage 2 on, the whole CD table is at intermediate addresses, that is in the
 * memory of one guest. A context descriptor names a stage 1 and nothing else, so a PASID has no
 * stage 2 of its own.
 *
 * The TLB is tagged by VMID and ASID (§3.17) and does not know where an entry came from: nothing is
 * dropped from it when a stream or a PASID leaves its tables, as in Linux. Host tables have a tag
 * of their own, which is clean when it is given to others. Of guest tables only the guest knows
 * which of its ASIDs are still good, and has to say so whether or not they are in use.
 */

import type { Level } from '../../assignment/request.js';
import { NO_PASID } from '../../base/ids.js';
import { PAGE_BYTES } from '../../base/page.js';
import type { TranslateResult } from '../../device/iommu.js';
import { pack } from '../../spec/define.js';
import { CMD, CMD_CFGI_CD, CMD_CFGI_CD_ALL, CMD_CFGI_STE, CMD_TLBI } from '../../spec/smmuv3/commands.js';
import { EVENT, F_TRANSLATION } from '../../spec/smmuv3/events.js';
import { CR0, IDR0, STRTAB_BASE, STRTAB_BASE_CFG, STRTAB_FMT } from '../../spec/smmuv3/registers.js';
import { L1STD, STE, STE_CONFIG } from '../../spec/smmuv3/structures.js';
import { HostError } from '../host-errors.js';
import { KERNEL_TYPE, smmuInfo } from '../kernel-structures.js';
import type { HostInvalidations, NestedTable, PageRange } from '../port.js';
import {
  fieldInUse,
  type HostDriver,
  noPlace,
  type RecordedFault,
  ridText,
  type VirtualIommu,
} from './driver.js';
import { VMSA_STAGE1, VMSA_STAGE2 } from './encodings.js';
import {
  type Endpoint,
  type HostDomain,
  HostTags,
  moveEndpoint,
  NestedDomain,
  PagingDomain,
} from './host-domain.js';
import { HostPageTable, TABLE_PAGES } from './host-page-table.js';
import type { HostMemory } from './memory.js';
import { convertCommand } from './smmuv3-commands.js';
import { SmmuQueues } from './smmuv3-queues.js';
import { CdTable, nestedSte, secondSte, stage1Ste } from './smmuv3-structures.js';
import { HostUnit } from './unit.js';

/** Streams in one second-level table of STEs, which fills a page. */
const SPLIT = 6;
const STREAM_BITS = 16;
const ENABLE = { SMMUEN: 1, EVENTQEN: 4, CMDQEN: 8 } as const;
/** SSIDSIZE of the unit. */
const SSID_BITS = 20;
/** Above so many pages a range is not invalidated page by page. */
const MOST_PAGES = 64;

/** What one stream goes through. */
interface Stream {
  readonly rid: number;
  readonly ste: number;
  /** Requests without SubstreamID. */
  own: HostDomain | undefined;
  /** Requests with one, by the host's CD table. */
  readonly substreams: Map<number, PagingDomain>;
  cds: CdTable | undefined;
}

export class HostSmmuDriver implements HostDriver {
  readonly #memory: HostMemory;
  readonly capabilities = {
    kind: 'smmuv3',
    stage1: true,
    stage2: true,
    nesting: true,
    pasidBits: SSID_BITS,
    pageRequests: true,
  } as const;
  readonly unit: HostUnit;
  readonly queues: SmmuQueues;
  readonly #streams = new Map<number, Stream>();
  readonly #level1: number;
  /** Second-level tables by index, and how many of their STEs are in use. */
  readonly #level2 = new Map<number, { readonly table: number; users: number }>();
  readonly #asids = new HostTags(1, 2 ** 16);
  readonly #vmids = new HostTags(1, 2 ** 16);
  #domains = 0;

  constructor(memory: HostMemory) {
    this.#memory = memory;
    this.unit = new HostUnit('smmuv3', { 'ssid-bits': String(SSID_BITS) }, memory);
    this.queues = new SmmuQueues(this.unit, memory);
    this.#level1 = memory.pool.take('fixed', 1);
    this.unit.write64(STRTAB_BASE.offset, this.#level1);
    this.unit.write32(
      STRTAB_BASE_CFG.offset,
      pack(STRTAB_BASE_CFG, { LOG2SIZE: STREAM_BITS, SPLIT, FMT: STRTAB_FMT.TWO_LEVEL })[0] as number,
    );
    this.unit.write32(CR0.offset, ENABLE.SMMUEN | ENABLE.EVENTQEN | ENABLE.CMDQEN);
  }

  hardwareInfo() {
    const idr = [0, 1, 2, 3, 4, 5].map((index) => this.unit.read32(IDR0.offset + index * 4));
    return { type: KERNEL_TYPE.SMMUV3, info: smmuInfo(idr) };
  }

  ranges(): readonly PageRange[] {
    return [{ first: 0, last: TABLE_PAGES - 1 }];
  }

  addFunction(rid: number): void {
    const index = rid >> SPLIT;
    let group = this.#level2.get(index);
    if (group === undefined) {
      group = { table: this.#memory.pool.take('fixed'), users: 0 };
      this.#level2.set(index, group);
      this.#memory.storeWords(
        this.#level1 + index * L1STD.bytes,
        pack(L1STD, { Span: SPLIT + 1, L2Ptr: group.table }),
      );
    }
    group.users++;
    const ste = group.table + (rid % 2 ** SPLIT) * STE.bytes;
    const stream = { rid, ste, own: undefined, substreams: new Map(), cds: undefined };
    this.#streams.set(rid, stream);
    this.#writeSte(stream);
  }

  removeFunction(rid: number): void {
    const stream = this.#stream(rid);
    this.#memory.storeWords(stream.ste, new Uint32Array(STE.wordCount));
    this.#configurationChanged(rid);
    this.#streams.delete(rid);
    const group = this.#level2.get(rid >> SPLIT);
    if (group === undefined || --group.users > 0) return;
    this.#memory.storeWords(this.#level1 + (rid >> SPLIT) * L1STD.bytes, [0, 0]);
    this.#configurationChanged(rid);
    this.#memory.pool.give('fixed', group.table);
    this.#level2.delete(rid >> SPLIT);
  }

  usualLevel(): Level {
    return 'first';
  }

  createDomain(level: Level): PagingDomain {
    const tag = (level === 'first' ? this.#asids : this.#vmids).take();
    if (tag < 0) throw new HostError('NO_TABLE_MEMORY', level === 'first' ? 'no ASID' : 'no VMID');
    const encoding = level === 'first' ? VMSA_STAGE1 : VMSA_STAGE2;
    const domain = new PagingDomain(level, new HostPageTable(this.#memory, encoding), tag);
    this.#domains++;
    return domain;
  }

  destroyDomain(domain: PagingDomain): void {
    this.flush(domain, 0, TABLE_PAGES);
    domain.table.destroy();
    (domain.level === 'first' ? this.#asids : this.#vmids).give(domain.tag);
    this.#domains--;
  }

  createNested(parent: PagingDomain, table: NestedTable): NestedDomain {
    if (table.format !== 'smmuv3')
      throw new HostError('BAD_TABLE', 'an SMMUv3 walks the tables of an SMMUv3');
    if (parent.level !== 'second') throw noPlace('guest tables go on top of a second level');
    // Throws unless the guest's words can be part of an STE.
    nestedSte(table.ste, parent, SSID_BITS);
    this.#domains++;
    return new NestedDomain(parent, { format: 'smmuv3', ste: table.ste.slice(0, 4) });
  }

  destroyNested(): void {
    this.#domains--;
  }

  attach(endpoint: Endpoint, domain: HostDomain): void {
    const stream = this.#stream(endpoint.rid);
    if (endpoint.pasid === NO_PASID) this.#attachStream(stream, endpoint, domain);
    else this.#attachSubstream(stream, endpoint, domain);
  }

  /** The STE is rewritten: only where its fields are not in use for PASIDs. */
  #attachStream(stream: Stream, endpoint: Endpoint, domain: HostDomain): void {
    const stage1 = domain.kind === 'paging' && domain.level === 'first';
    if (!stage1 && stream.substreams.size > 0) {
      throw fieldInUse(
        domain.kind === 'nested' ? 'STE.S1ContextPtr' : 'STE.Config',
        `stream ${ridText(stream.rid)} has the host's CD table for ${stream.substreams.size} PASIDs`,
      );
    }
    const before = stream.own;
    if (stage1) this.#setContext(stream, 0, domain);
    else if (before?.kind === 'paging' && before.level === 'first') stream.cds?.clear(0);
    stream.own = domain;
    this.#writeSte(stream);
    this.#contextChanged(stream.rid, 0);
    this.#dropUnused(stream);
    moveEndpoint(endpoint, before, domain);
  }

  /** A CD is written: it can name host stage-1 tables, and only if the CD table is the host's. */
  #attachSubstream(stream: Stream, endpoint: Endpoint, domain: HostDomain): void {
    const { pasid, rid } = endpoint;
    if (domain.kind === 'nested') {
      throw noPlace(
        'guest tables come with a CD table of their own, at STE.S1ContextPtr, for the whole stream',
      );
    }
    if (domain.level === 'second') {
      throw noPlace('a CD holds stage 1 only: STE.S2TTB is one for the whole stream');
    }
    if (pasid <= 0 || pasid >= 2 ** SSID_BITS) throw new HostError('NOT_YOUR_PASID', `SubstreamID ${pasid}`);
    const { own } = stream;
    if (own !== undefined && (own.kind === 'nested' || own.level === 'second')) {
      const what = own.kind === 'nested' ? "a guest's CD table" : 'no CD table but a stage 2';
      throw fieldInUse('STE.S1ContextPtr', `stream ${ridText(rid)} has ${what}`);
    }
    const before = stream.substreams.get(pasid);
    this.#setContext(stream, pasid, domain);
    stream.substreams.set(pasid, domain);
    this.#writeSte(stream);
    this.#contextChanged(rid, pasid);
    moveEndpoint(endpoint, before, domain);
  }

  detach(endpoint: Endpoint): boolean {
    const stream = this.#streams.get(endpoint.rid);
    if (stream === undefined) return false;
    if (endpoint.pasid === NO_PASID) {
      const before = stream.own;
      if (before === undefined) return false;
      stream.own = undefined;
      if (before.kind === 'paging' && before.level === 'first') stream.cds?.clear(0);
      this.#writeSte(stream);
      this.#contextChanged(stream.rid, 0);
      moveEndpoint(endpoint, before, undefined);
    } else {
      const before = stream.substreams.get(endpoint.pasid);
      if (before === undefined) return false;
      stream.substreams.delete(endpoint.pasid);
      stream.cds?.clear(endpoint.pasid);
      this.#writeSte(stream);
      this.#contextChanged(stream.rid, endpoint.pasid);
      moveEndpoint(endpoint, before, undefined);
    }
    this.#dropUnused(stream);
    return true;
  }

  attached(endpoint: Endpoint): HostDomain | undefined {
    const stream = this.#streams.get(endpoint.rid);
    // A guest's CD table is that of every substream.
    if (endpoint.pasid === NO_PASID || stream?.own?.kind === 'nested') return stream?.own;
    return stream?.substreams.get(endpoint.pasid);
  }

  flush(domain: PagingDomain, page: number, pages: number): void {
    if (domain.level === 'second') {
      // What both stages made is tagged by guest addresses, so one intermediate address says
      // nothing about it.
      this.queues.push(pack(CMD_TLBI, { Opcode: CMD.TLBI_S12_VMALL, VMID: domain.tag }));
    } else if (pages > MOST_PAGES) {
      this.queues.push(pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_ASID, ASID: domain.tag }));
    } else {
      for (let at = page; at < page + pages; at++) {
        this.queues.push(
          pack(CMD_TLBI, { Opcode: CMD.TLBI_NH_VA, ASID: domain.tag, Address: at * PAGE_BYTES, Leaf: 1 }),
        );
      }
    }
    this.queues.sync();
  }

  clean(): void {
    for (const rid of this.#streams.keys()) {
      this.queues.push(pack(CMD_CFGI_CD_ALL, { Opcode: CMD.CFGI_CD_ALL, StreamID: rid }));
    }
    this.queues.push(pack(CMD_TLBI, { Opcode: CMD.TLBI_NSNH_ALL }));
    this.queues.sync();
  }

  invalidate(guest: VirtualIommu, invalidations: HostInvalidations, index: number): void {
    this.queues.push(convertCommand(invalidations.words, index * 4, guest));
  }

  sync(): void {
    this.queues.sync();
  }

  translate(endpoint: Endpoint, access: number, lo: number, hi: number, result: TranslateResult): boolean {
    return this.unit.translate(endpoint, access, lo, hi, result);
  }

  takeFaults(): RecordedFault[] {
    const faults: RecordedFault[] = [];
    for (let record = this.queues.takeEvent(); record !== undefined; record = this.queues.takeEvent()) {
      const bad = F_TRANSLATION.get.EventNumber(record) === EVENT.C_BAD_SUBSTREAMID;
      const substream = bad || F_TRANSLATION.get.SSV(record) === 1;
      faults.push({
        rid: F_TRANSLATION.get.StreamID(record),
        pasid: substream ? F_TRANSLATION.get.SubstreamID(record) : NO_PASID,
        format: 'smmuv3',
        record,
      });
    }
    return faults;
  }

  leftovers(): Readonly<Record<string, number>> {
    const streams = [...this.#streams.values()];
    return {
      domains: this.#domains,
      asids: this.#asids.live,
      vmids: this.#vmids.live,
      cdTables: streams.filter((stream) => stream.cds !== undefined).length,
      streams: streams.filter((stream) => stream.own !== undefined).length,
      substreams: streams.reduce((sum, stream) => sum + stream.substreams.size, 0),
    };
  }

  /** Where the STE of a function stands. */
  steAddress(rid: number): number {
    return this.#stream(rid).ste;
  }

  #stream(rid: number): Stream {
    const stream = this.#streams.get(rid);
    if (stream === undefined) throw new HostError('NO_SUCH_DEVICE', ridText(rid));
    return stream;
  }

  /** Writes a CD; without memory for its table nothing has changed. */
  #setContext(stream: Stream, ssid: number, domain: PagingDomain): void {
    try {
      stream.cds ??= new CdTable(this.#memory, SSID_BITS);
      stream.cds.set(ssid, domain);
    } catch (error) {
      this.#dropUnused(stream);
      throw error;
    }
  }

  #writeSte(stream: Stream): void {
    this.#memory.storeWords(stream.ste, this.#steOf(stream));
    this.#configurationChanged(stream.rid);
  }

  #steOf({ own, cds, substreams }: Stream): ArrayLike<number> {
    if (own?.kind === 'nested') {
      const { stage1, parent } = own;
      if (stage1.format === 'smmuv3') return nestedSte(stage1.ste, parent, SSID_BITS);
    } else if (own?.level === 'second') {
      return secondSte(own);
    } else if (cds !== undefined && (own !== undefined || substreams.size > 0)) {
      return stage1Ste(cds, own !== undefined);
    }
    return pack(STE, { V: 1, Config: STE_CONFIG.ABORT });
  }

  /** The host's CD table goes with the last thing in it. */
  #dropUnused(stream: Stream): void {
    const { own } = stream;
    const first = own?.kind === 'paging' && own.level === 'first';
    if (stream.cds === undefined || first || stream.substreams.size > 0) return;
    stream.cds.destroy();
    stream.cds = undefined;
  }

  #configurationChanged(rid: number): void {
    this.queues.push(pack(CMD_CFGI_STE, { Opcode: CMD.CFGI_STE, StreamID: rid, Leaf: 1 }));
    this.queues.sync();
  }

  #contextChanged(rid: number, ssid: number): void {
    this.queues.push(pack(CMD_CFGI_CD, { Opcode: CMD.CFGI_CD, StreamID: rid, SubstreamID: ssid, Leaf: 1 }));
    this.queues.sync();
  }
}
