import { CAP_REG, ECAP_REG, RTADDR_REG, TTM, VER_REG } from '../spec/vtd/registers.js';
import { AW, type CONTEXT_ENTRY, FSPM, PGTT, TT } from '../spec/vtd/structures.js';
import { type Machine, PageAllocator } from './machine.js';
import { GuestPageTable, READ_WRITE, type Rights } from './page-table.js';
import type { Values } from './structure.js';
import { PLAIN, type Variety, WIDTH } from './variety.js';
import { FaultHandler } from './vtd-faults.js';
import { QueuedInvalidations, RegisterInvalidations, type VtdInvalidations } from './vtd-invalidate.js';
import { VtdDriverQueue } from './vtd-queue.js';
import { Registers } from './vtd-registers.js';
import { vtdTableFormat } from './vtd-table-format.js';
import { LegacyTables, ScalableTables } from './vtd-tables.js';

/** PASID that stands for requests without one; context entries name it in RID_PASID. VT-d §9.4 */
const RID_PASID = 0;

/** Address mask of a Device-TLB invalidation of everything. */
const ALL_ADDRESSES = 52;

export type DomainKind = 'first' | 'second' | 'nested' | 'pass-through';

/** A device, or one PASID of it, that uses an address space. */
export interface User {
  readonly rid: number;
  readonly pasid: number;
  /** The device keeps translations of its own. */
  readonly ats: boolean;
}

/** One address space, and the tags and tables by which the unit knows it. */
export interface VtdDomain {
  readonly did: number;
  readonly kind: DomainKind;
  readonly levels: number;
  /** The table that map and unmap edit: second stage, or first stage of first and nested. */
  readonly table: GuestPageTable | undefined;
  /** Nested only: the second stage below. */
  readonly parent: VtdDomain | undefined;
  /** Its users. First-stage invalidations name their PASIDs. */
  readonly users: User[];
}

export interface DriverOptions {
  readonly mode: 'legacy' | 'scalable';
  /** Range of guest RAM that tables and rings may use: [start, end). */
  readonly pages: readonly [start: number, end: number];
  /** Default `queue`; `registers` is possible in legacy mode only. */
  readonly invalidation?: 'queue' | 'registers';
  /** IQA_REG.QS. */
  readonly queueSize?: number;
  /** Default: 256-bit descriptors in scalable mode only. */
  readonly wideDescriptors?: boolean;
  readonly pdts?: number;
  /**
   * Devices have a PASID capability, so their context entries have PASIDE. Default: if the unit has
   * PASIDs.
   */
  readonly pasidDevices?: boolean;
  /** Default: the driver asks for exactly what it needs. */
  readonly variety?: Variety;
  /** Fault-event MSI; none when left out. */
  readonly faultMsi?: { readonly address: number; readonly data: number };
}

export interface AttachOptions {
  /** Scalable mode: attach under this PASID instead of RID_PASID. */
  readonly pasid?: number;
  readonly fpd?: boolean;
  /** Lets the device translate ahead. */
  readonly ats?: boolean;
  /** Lets it ask for pages; scalable mode, with `ats`. */
  readonly pri?: boolean;
}

/** What the unit says it can do. */
interface Capabilities {
  readonly version: string;
  readonly cap: Uint32Array;
  readonly ecap: Uint32Array;
  readonly cachingMode: boolean;
  readonly scalable: boolean;
  readonly domains: number;
  readonly maxAddressMask: number;
}

/**
 * Drives a VT-d unit as a guest's driver does, through registers and memory only. It announces and
 * withdraws mappings with the invalidations that the specification requires (§6.5), unless its
 * caller asks it to forget them.
 */
export class VtdDriver {
  readonly registers: Registers;
  readonly capabilities: Capabilities;
  readonly pages: PageAllocator;
  readonly faults: FaultHandler;
  readonly legacy: LegacyTables | undefined;
  readonly scalable: ScalableTables | undefined;
  readonly queue: VtdDriverQueue | undefined;
  readonly invalidate: VtdInvalidations;
  readonly #options: DriverOptions;
  readonly #variety: Variety;
  /** DID 0 is reserved under caching mode (§6.2), so it is never given out. */
  #nextDid = 1;

  constructor(
    readonly machine: Machine,
    options: DriverOptions,
  ) {
    this.#options = options;
    this.#variety = options.variety ?? PLAIN;
    this.registers = new Registers(machine);
    this.capabilities = readCapabilities(this.registers);
    this.pages = new PageAllocator(machine.ram, options.pages[0], options.pages[1]);
    this.faults = new FaultHandler(this.registers);
    if (options.mode === 'legacy') this.legacy = new LegacyTables(machine.ram, this.pages);
    else this.scalable = new ScalableTables(machine.ram, this.pages, options.pdts ?? 0);
    if (options.invalidation === 'registers') {
      this.invalidate = new RegisterInvalidations(this.registers);
    } else {
      const wide = options.wideDescriptors ?? options.mode === 'scalable';
      this.queue = new VtdDriverQueue(this.registers, this.pages, wide, options.queueSize ?? 0);
      this.invalidate = new QueuedInvalidations(this.queue);
    }
  }

  /** Whether devices may send requests with PASID. */
  get pasidDevices(): boolean {
    return this.#options.pasidDevices ?? true;
  }

  get root(): number {
    return (this.legacy ?? this.scalable)?.root ?? 0;
  }

  /** Everything up to TE: fault event, queue, root table with its invalidations. §6.6, §11.4.5 */
  start(): void {
    const msi = this.#options.faultMsi;
    if (msi !== undefined) this.faults.enableInterrupt(msi.address, msi.data);
    this.queue?.enable();
    this.setRoot();
    this.registers.command('TE', 'TES');
  }

  /** Points the unit at the root table, and invalidates what it has cached of another. §6.6 */
  setRoot(): void {
    const scalable = this.scalable !== undefined;
    this.registers.write(RTADDR_REG, { TTM: scalable ? TTM.SCALABLE : TTM.LEGACY, RTA: this.root });
    this.registers.command('SRTP', 'RTPS');
    this.invalidate.contextGlobal();
    if (scalable) this.invalidate.pasidCacheGlobal();
    this.invalidate.iotlbGlobal();
    this.invalidate.sync();
  }

  stop(): void {
    this.registers.command('TE', 'TES', false);
    this.queue?.disable();
  }

  /** A new, empty address space. `levels`: 3, 4 or 5. */
  createDomain(kind: 'first' | 'second' | 'pass-through', levels = 4): VtdDomain {
    const table =
      kind === 'pass-through'
        ? undefined
        : new GuestPageTable(this.machine.ram, this.pages, vtdTableFormat(kind, levels));
    return { did: this.#nextDid++, kind, levels, table, parent: undefined, users: [] };
  }

  /**
   * An address space whose first stage is on top of `parent`'s second stage. `tableAddress`: the
   * intermediate address at which the parent maps a table page.
   */
  createNested(parent: VtdDomain, levels = 4, tableAddress: (gpa: number) => bigint = BigInt): VtdDomain {
    const format = vtdTableFormat('first', levels);
    const table = new GuestPageTable(this.machine.ram, this.pages, format, tableAddress);
    return { did: parent.did, kind: 'nested', levels, table, parent, users: [] };
  }

  /** Makes requests of `rid` (with `pasid`, if given) go through the domain. */
  attach(rid: number, domain: VtdDomain, options: AttachOptions = {}): void {
    const { pasid = RID_PASID, ats = false } = options;
    if (this.legacy !== undefined) this.#attachLegacy(this.legacy, rid, domain, options);
    else if (this.scalable !== undefined) this.#attachScalable(this.scalable, rid, domain, options);
    domain.users.push({ rid, pasid, ats });
  }

  /**
   * Makes requests of `rid` (with `pasid`) fault, and waits until no cache has their translations.
   */
  detach(rid: number, domain: VtdDomain, pasid: number = RID_PASID): void {
    const at = domain.users.findIndex((user) => user.rid === rid && user.pasid === pasid);
    const gone = at >= 0 ? domain.users.splice(at, 1) : [];
    if (this.legacy !== undefined) {
      this.legacy.setContext(rid, {});
      this.#forgetContext(domain, rid);
    } else {
      this.scalable?.setPasid(rid, pasid, {});
      this.#forgetPasid(domain, pasid);
    }
    this.#forgetAhead(gone, 0n, ALL_ADDRESSES);
    this.invalidate.sync();
  }

  /**
   * Makes requests of `rid` (with `pasid`) go through another domain. The entry stays present all
   * the time. Only the old domain is invalidated, because nothing of the new one can be cached
   * (§6.5.3.3).
   */
  replace(rid: number, from: VtdDomain, to: VtdDomain, options: AttachOptions = {}): void {
    const { pasid = RID_PASID, ats = false } = options;
    const at = from.users.findIndex((user) => user.rid === rid && user.pasid === pasid);
    const gone = at >= 0 ? from.users.splice(at, 1) : [];
    if (this.legacy !== undefined) {
      this.legacy.setContext(rid, this.#contextEntry(to, options));
      this.#forgetContext(from, rid);
    } else {
      this.scalable?.setPasid(rid, pasid, this.#pasidEntry(to, options.fpd ? 1 : 0));
      this.#forgetPasid(from, pasid);
    }
    this.#forgetAhead(gone, 0n, ALL_ADDRESSES);
    this.invalidate.sync();
    to.users.push({ rid, pasid, ats });
  }

  /** Maps and, under caching mode, announces. Sizes and alignment as {@link GuestPageTable.map}. */
  map(
    domain: VtdDomain,
    input: bigint,
    output: number,
    bytes: number,
    rights: Rights = READ_WRITE,
    log2 = 12,
  ): void {
    domain.table?.map(input, output, bytes, rights, log2);
    if (!this.capabilities.cachingMode) return;
    this.invalidateRange(domain, input, bytes);
    this.invalidate.sync();
  }

  /** Unmaps, invalidates and waits: afterwards no request reaches the pages. */
  unmap(domain: VtdDomain, input: bigint, bytes: number, log2 = 12): void {
    domain.table?.unmap(input, bytes, log2);
    this.invalidateRange(domain, input, bytes);
    this.invalidate.sync();
  }

  /**
   * Asks for the invalidation of the smallest block that covers a range; does not wait. §6.5.2.3,
   * §6.5.2.4
   */
  invalidateRange(domain: VtdDomain, input: bigint, bytes: number): void {
    const am = addressMask(input, bytes);
    const width = this.#variety.width();
    const all = am > this.capabilities.maxAddressMask || width === WIDTH.TAGGED;
    if (width === WIDTH.ALL) this.invalidate.iotlbGlobal();
    else if (domain.kind === 'second') {
      if (all) this.invalidate.iotlbDomain(domain.did);
      else this.invalidate.iotlbPage(domain.did, input, am);
    } else {
      for (const pasid of new Set(domain.users.map((user) => user.pasid))) {
        if (all) this.invalidate.pasidIotlb(domain.did, pasid);
        else this.invalidate.pasidIotlbPage(domain.did, pasid, input, am);
      }
    }
    this.#forgetAhead(domain.users, input, am);
  }

  /** Device-TLBs come after the IOTLB. §6.5.2.5 */
  #forgetAhead(users: readonly User[], input: bigint, am: number): void {
    for (const { rid, pasid, ats } of users) {
      if (ats) this.invalidate.deviceTlb(rid, pasid === RID_PASID ? -1 : pasid, input, am);
    }
  }

  #attachLegacy(tables: LegacyTables, rid: number, domain: VtdDomain, options: AttachOptions): void {
    tables.setContext(rid, this.#contextEntry(domain, options));
    if (!this.capabilities.cachingMode) return;
    // Entries that were not present may be cached, tagged with domain 0. §6.1, §6.2
    this.invalidate.contextDevice(0, rid);
    this.invalidate.iotlbDomain(domain.did);
    this.invalidate.sync();
  }

  #contextEntry(domain: VtdDomain, options: AttachOptions): Values<typeof CONTEXT_ENTRY> {
    if (domain.kind === 'first' || domain.kind === 'nested') {
      throw new Error('simulated guest: legacy mode has no first stage');
    }
    const passThrough = domain.kind === 'pass-through';
    return {
      P: 1,
      FPD: options.fpd ? 1 : 0,
      TT: passThrough ? TT.PASS_THROUGH : options.ats ? TT.ALL : TT.UNTRANSLATED,
      SSPTPTR: passThrough ? 0 : Number(domain.table?.rootAddress ?? 0n),
      AW: passThrough ? this.#widestAw() : domain.levels - 2,
      DID: domain.did,
    };
  }

  #attachScalable(tables: ScalableTables, rid: number, domain: VtdDomain, options: AttachOptions): void {
    const ecap = this.capabilities.ecap;
    const { pasid = RID_PASID } = options;
    tables.setPasid(rid, pasid, this.#pasidEntry(domain, options.fpd ? 1 : 0));
    const contextEntry = tables.contextEntry(rid);
    const fresh = (this.machine.ram.load32(contextEntry) & 1) === 0;
    if (fresh) {
      tables.setContext(rid, {
        P: 1,
        PASIDE: this.pasidDevices ? ECAP_REG.get.PASID(ecap) : 0,
        DTE: options.ats ? 1 : 0,
        PRE: options.pri ? 1 : 0,
        RID_PASID: RID_PASID,
      });
    }
    if (!this.capabilities.cachingMode) return;
    if (fresh) this.invalidate.contextDevice(0, rid);
    this.#forgetPasid(domain, pasid, true);
    this.invalidate.sync();
  }

  #pasidEntry(domain: VtdDomain, fpd: number): Record<string, number> {
    // Page walks are snooped where the unit can, as Accessed and Dirty updates need. §9.6
    const snooped = ECAP_REG.get.SMPWCS(this.capabilities.ecap);
    const common = { P: 1, FPD: fpd, DID: domain.did, PWSNP: snooped };
    const second = domain.kind === 'nested' ? domain.parent : domain;
    const stage2 = { AW: (second?.levels ?? 4) - 2, SSPTPTR: Number(second?.table?.rootAddress ?? 0n) };
    const stage1 = {
      FSPM: domain.levels === 5 ? FSPM.FIVE_LEVEL : FSPM.FOUR_LEVEL,
      FSPTPTR: Number(domain.table?.rootAddress ?? 0n),
    };
    switch (domain.kind) {
      case 'second':
        return { ...common, ...stage2, PGTT: PGTT.SECOND_STAGE };
      case 'first':
        return { ...common, ...stage1, PGTT: PGTT.FIRST_STAGE };
      case 'nested':
        return { ...common, ...stage2, ...stage1, PGTT: PGTT.NESTED };
      case 'pass-through':
        return { ...common, AW: this.#widestAw(), PGTT: PGTT.PASS_THROUGH };
    }
  }

  /**
   * Context-cache and IOTLB invalidations after a change of a present legacy context entry.
   * §6.5.3.3
   */
  #forgetContext(domain: VtdDomain, rid: number): void {
    const { invalidate } = this;
    const width = this.#variety.width();
    if (width === WIDTH.ALL) invalidate.contextGlobal();
    else if (width === WIDTH.TAGGED) invalidate.contextDomain(domain.did);
    else invalidate.contextDevice(domain.did, rid);
    if (this.#variety.pauses()) invalidate.sync();
    if (this.#variety.width() === WIDTH.ALL) invalidate.iotlbGlobal();
    else invalidate.iotlbDomain(domain.did);
  }

  /**
   * PASID-cache and IOTLB invalidations after a change of a PASID-table entry (§6.5.3.3). `fresh`:
   * it was not present, and what is cached of that has another domain-id (§6.2.3).
   */
  #forgetPasid(domain: VtdDomain, pasid: number, fresh = false): void {
    const width = this.#variety.width();
    if (width === WIDTH.ALL) this.invalidate.pasidCacheGlobal();
    else if (width === WIDTH.TAGGED && !fresh) this.invalidate.pasidCacheDomain(domain.did);
    else this.invalidate.pasidCache(domain.did, pasid);
    if (this.#variety.pauses()) this.invalidate.sync();
    if (this.#variety.width() === WIDTH.ALL) this.invalidate.iotlbGlobal();
    else if (domain.kind === 'second' || domain.kind === 'pass-through')
      this.invalidate.iotlbDomain(domain.did);
    else this.invalidate.pasidIotlb(domain.did, pasid);
  }

  #widestAw(): number {
    const sagaw = CAP_REG.get.SAGAW(this.capabilities.cap);
    return sagaw & 8 ? AW.BITS_57 : sagaw & 4 ? AW.BITS_48 : AW.BITS_39;
  }
}

/** The smallest AM whose aligned block of 2^AM pages covers the range. §6.5.2.3 */
function addressMask(input: bigint, bytes: number): number {
  const first = input >> 12n;
  const last = (input + BigInt(bytes) - 1n) >> 12n;
  let am = 0;
  while (first >> BigInt(am) !== last >> BigInt(am)) am++;
  return am;
}

function readCapabilities(registers: Registers): Capabilities {
  const version = registers.read(VER_REG);
  const cap = registers.read(CAP_REG);
  const ecap = registers.read(ECAP_REG);
  return {
    version: `${VER_REG.get.MAX(version)}.${VER_REG.get.MIN(version)}`,
    cap,
    ecap,
    cachingMode: CAP_REG.get.CM(cap) === 1,
    scalable: ECAP_REG.get.SMTS(ecap) === 1,
    domains: 2 ** (4 + 2 * CAP_REG.get.ND(cap)),
    maxAddressMask: CAP_REG.get.MAMV(cap),
  };
}
