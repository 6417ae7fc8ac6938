import {
  ADDRESS_BITS,
  AIDR,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_IRQ_CFG0,
  GERROR_IRQ_CFG0,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PRIQ_IRQ_CFG0,
  STALL_MODEL,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  STRTAB_FMT,
} from '../spec/smmuv3/registers.js';
import { EATS, S1DSS, S1FMT, STE_CONFIG } from '../spec/smmuv3/structures.js';
import { armTableFormat } from './arm-table-format.js';
import { DeviceRegisters } from './driver-registers.js';
import { type Machine, PageAllocator } from './machine.js';
import { GuestPageTable, type Rights } from './page-table.js';
import { SmmuDriverCommands } from './smmu-commands.js';
import { type DomainOptions, firstStageFields, type SmmuDomain, secondStageFields } from './smmu-domain.js';
import { EventRing, PageRequestRing } from './smmu-output.js';
import { SmmuCommandQueue } from './smmu-queue.js';
import { ContextTable, StreamTable } from './smmu-tables.js';
import { PLAIN, type Variety, WIDTH } from './variety.js';

export interface SmmuDriverOptions {
  /** Range of guest RAM that tables and rings may use: [start, end). */
  readonly pages: readonly [start: number, end: number];
  /** log2 of the StreamIDs. Default 8 with a linear stream table, 16 with two levels. */
  readonly streamBits?: number;
  /** Default: two levels where the unit has them. */
  readonly streamTable?: 'linear' | 'two-level';
  /** log2 of the entries of every queue. Default 6. */
  readonly queueLog2?: number;
  /** How CMD_SYNC is awaited. Default: by polling the consumer index. */
  readonly sync?: 'poll' | 'message';
  /** MSIs of event queue (`data`), global errors (+ 1), PRI queue (+ 2). Default: the wires. */
  readonly messages?: { readonly address: number; readonly data: number };
  /** CR0.ATSCHK. Default true where there is ATS. */
  readonly checkTranslated?: boolean;
  /** Default: the driver asks for exactly what it needs. */
  readonly variety?: Variety;
  /** CR2.RECINVSID */
  readonly recordInvalidStreams?: boolean;
}

/** How a stream is attached, beside its domain. */
export interface StreamOptions {
  /** Default none. */
  readonly ats?: 'full' | 'split';
  /** S1STALLD: CDs may not stall. Default false. */
  readonly noStalls?: boolean;
  /** S1CDMax; 0: no SubstreamIDs. Default: 8 (or what the unit has) as soon as one is attached. */
  readonly ssidBits?: number;
  /** Default two levels with 4 KiB leaves where the unit has them. */
  readonly s1Fmt?: number;
  /** What becomes of requests without SubstreamID. Default S1DSS.SSID0. */
  readonly s1Dss?: number;
  readonly ppar?: boolean;
  /** STE.MEV */
  readonly mergeEvents?: boolean;
}

/** What the unit says it can do. */
interface SmmuCapabilities {
  readonly version: string;
  readonly idr0: Uint32Array;
  readonly idr1: Uint32Array;
  readonly idr3: Uint32Array;
  readonly idr5: Uint32Array;
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly twoLevel: boolean;
  readonly stalls: boolean;
  readonly ats: boolean;
  readonly pri: boolean;
  readonly ranges: boolean;
  readonly ssidBits: number;
  readonly outputBits: number;
  /** log2 of each granule. */
  readonly granules: readonly number[];
}

/** One stream that was attached. */
interface StreamState {
  options: StreamOptions;
  /** Of requests without SubstreamID; undefined: only substreams are attached. */
  domain: SmmuDomain | undefined;
  contexts: ContextTable | undefined;
  /** Stage 2 below every stage 1 of the stream. */
  parent: SmmuDomain | undefined;
}

/**
 * Drives an SMMUv3 as a guest's driver does, through registers and memory only. It invalidates
 * after unmapping and after changes of configuration as the specification requires, unless its
 * caller asks it to forget that.
 */
export class SmmuDriver {
  readonly registers: DeviceRegisters;
  readonly capabilities: SmmuCapabilities;
  readonly pages: PageAllocator;
  readonly streams: StreamTable;
  readonly queue: SmmuCommandQueue;
  readonly commands: SmmuDriverCommands;
  readonly events: EventRing;
  readonly pageRequests: PageRequestRing;
  readonly #options: SmmuDriverOptions;
  readonly #variety: Variety;
  readonly #attached = new Map<number, StreamState>();
  /** Stages 2 that a stage 1 stands on. */
  readonly #parents = new Set<SmmuDomain>();
  #nextVmid = 1;
  #nextAsid = 1;

  constructor(
    readonly machine: Machine,
    options: SmmuDriverOptions,
  ) {
    this.#options = options;
    this.#variety = options.variety ?? PLAIN;
    this.registers = new DeviceRegisters(machine);
    this.capabilities = readCapabilities(this.registers);
    const { twoLevel, ranges } = this.capabilities;
    this.pages = new PageAllocator(machine.ram, options.pages[0], options.pages[1]);
    const levels = options.streamTable ?? (twoLevel ? 'two-level' : 'linear');
    const bits = options.streamBits ?? (levels === 'linear' ? 8 : 16);
    this.streams = new StreamTable(machine.ram, this.pages, bits, levels === 'two-level');
    const log2 = options.queueLog2 ?? 6;
    this.queue = new SmmuCommandQueue(this.registers, this.pages, log2, options.sync === 'message');
    this.commands = new SmmuDriverCommands(this.queue, ranges);
    this.events = new EventRing(this.registers, this.pages, log2);
    this.pageRequests = new PageRequestRing(this.registers, this.pages, log2);
  }

  /**
   * Everything up to SMMUEN: attributes, stream table, queues, caches, interrupts. §3.11, §6.3.9
   */
  start(): void {
    const { registers, queue, commands, streams } = this;
    this.control({});
    const cached = { QUEUE_IC: 1, QUEUE_OC: 1, QUEUE_SH: 3, TABLE_IC: 1, TABLE_OC: 1, TABLE_SH: 3 };
    registers.write(CR1, cached);
    registers.write(CR2, { RECINVSID: this.#options.recordInvalidStreams === true ? 1 : 0 });
    registers.write(STRTAB_BASE, { ADDR: streams.base, RA: 1 });
    registers.write(STRTAB_BASE_CFG, {
      LOG2SIZE: streams.log2,
      SPLIT: streams.twoLevel ? streams.split : 0,
      FMT: streams.twoLevel ? STRTAB_FMT.TWO_LEVEL : STRTAB_FMT.LINEAR,
    });
    queue.program();
    this.control({ CMDQEN: 1 });
    commands.configurationAll();
    commands.translationsAll();
    commands.sync();
    this.events.program();
    if (this.capabilities.pri) this.pageRequests.program();
    this.#enableInterrupts();
    this.control(this.enables);
  }

  /** CR0 of a unit at work. */
  get enables(): { readonly [P in keyof typeof CR0.fields]?: number } {
    const { ats, pri } = this.capabilities;
    const check = ats && (this.#options.checkTranslated ?? true);
    return { CMDQEN: 1, EVENTQEN: 1, PRIQEN: pri ? 1 : 0, ATSCHK: check ? 1 : 0, SMMUEN: 1 };
  }

  /** Writes CR0 and waits for its acknowledgement. */
  control(values: { readonly [P in keyof typeof CR0.fields]?: number }): void {
    this.registers.write(CR0, values);
    const written = this.registers.read(CR0)[0];
    this.registers.waitUntil(() => this.registers.read(CR0ACK)[0] === written, 'CR0ACK');
  }

  stop(): void {
    this.control({});
  }

  /** A new, empty address space of one stage, or a bypass. */
  createDomain(kind: 'first' | 'second' | 'bypass', options: DomainOptions = {}): SmmuDomain {
    return this.#domain(kind, undefined, options, BigInt);
  }

  /**
   * An address space whose stage 1 is on top of `parent`'s stage 2. `tableAddress`: the
   * intermediate address at which the parent maps a table.
   */
  createNested(
    parent: SmmuDomain,
    options: DomainOptions = {},
    tableAddress: (gpa: number) => bigint = BigInt,
  ): SmmuDomain {
    this.#parents.add(parent);
    return this.#domain('nested', parent, options, tableAddress);
  }

  #domain(
    kind: SmmuDomain['kind'],
    parent: SmmuDomain | undefined,
    options: DomainOptions,
    tableAddress: (gpa: number) => bigint,
  ): SmmuDomain {
    const { granules, outputBits } = this.capabilities;
    const granule = options.granule ?? granules[0] ?? 12;
    const widest = kind === 'second' ? outputBits : 48;
    const inputBits = Math.min(options.inputBits ?? 48, widest);
    const first = kind === 'first' || kind === 'nested';
    const format = armTableFormat({
      stage: first ? 1 : 2,
      granule,
      inputBits,
      global: options.global ?? false,
    });
    const table =
      kind === 'bypass' ? undefined : new GuestPageTable(this.machine.ram, this.pages, format, tableAddress);
    const vmid = kind === 'second' ? this.#nextVmid++ : (parent?.vmid ?? 0);
    const asid = first ? this.#nextAsid++ : 0;
    return { kind, options, table, parent, vmid, asid, granule, inputBits, users: [], tableAddress };
  }

  /** Makes requests of a stream go through the domain. `options` count at its first attachment. */
  attach(sid: number, domain: SmmuDomain, options: StreamOptions = {}): void {
    const state = this.#state(sid, options);
    state.domain = domain;
    state.parent = domain.kind === 'second' ? domain : domain.parent;
    const stage1 = domain.kind === 'first' || domain.kind === 'nested';
    if (stage1) this.#contexts(state, domain).set(0, firstStageFields(domain, this.capabilities.outputBits));
    this.#writeStream(sid, state);
    domain.users.push({ sid, ssid: -1 });
    this.#forgetStream(sid);
  }

  /** The same for one SubstreamID. Requests without one stay as they are. */
  attachSubstream(sid: number, ssid: number, domain: SmmuDomain, options: StreamOptions = {}): void {
    const fresh = !this.#attached.has(sid);
    const bits = Math.min(8, this.capabilities.ssidBits);
    const state = this.#state(sid, { ssidBits: bits, ...options });
    state.parent ??= domain.parent;
    this.#contexts(state, domain).set(ssid, firstStageFields(domain, this.capabilities.outputBits));
    domain.users.push({ sid, ssid });
    if (fresh) this.#writeStream(sid, state);
    if (fresh) this.#forgetStream(sid);
    else this.#forgetContext(sid, ssid);
  }

  /** Makes requests of a stream abort silently, and waits until no cache has its translations. */
  detach(sid: number): void {
    const state = this.#attached.get(sid);
    this.#attached.delete(sid);
    this.streams.set(sid, { V: 1, Config: STE_CONFIG.ABORT });
    this.#forgetStream(sid);
    this.#forgetDomain(state?.domain, sid, -1);
  }

  /** Makes requests with a SubstreamID fail (C_BAD_CD). */
  detachSubstream(sid: number, ssid: number, domain: SmmuDomain): void {
    this.#attached.get(sid)?.contexts?.set(ssid, {});
    this.#forgetContext(sid, ssid);
    this.#forgetDomain(domain, sid, ssid);
  }

  /** Maps. No command is needed, because an SMMUv3 caches no entry that is not valid. */
  map(
    domain: SmmuDomain,
    input: bigint,
    output: number,
    bytes: number,
    rights?: Rights,
    log2?: number,
  ): void {
    domain.table?.map(input, output, bytes, rights, log2);
  }

  /** Unmaps, invalidates and waits: afterwards no request reaches the pages. */
  unmap(domain: SmmuDomain, input: bigint, bytes: number, log2?: number): void {
    domain.table?.unmap(input, bytes, log2);
    this.invalidateRange(domain, input, bytes);
    this.commands.sync();
    if (this.invalidateDevices(domain, input, bytes)) this.commands.sync();
  }

  /** Asks for the invalidation of a range in the unit's own TLB; does not wait. IHI 0070 §4.4 */
  invalidateRange(domain: SmmuDomain, input: bigint, bytes: number): void {
    const { commands } = this;
    const pages = Math.ceil(bytes / 2 ** domain.granule);
    const width = this.#variety.width();
    if (width === WIDTH.ALL) commands.translationsAll();
    else if (domain.kind === 'second') {
      if (width === WIDTH.TAGGED) commands.vmid(domain.vmid);
      else {
        commands.intermediateAddresses(domain.vmid, input, domain.granule, pages);
        // Nested translations are not found by intermediate address (§4.4.3.1).
        if (this.#parents.has(domain)) commands.firstStage(domain.vmid);
      }
    } else if (width === WIDTH.TAGGED) {
      if (this.#variety.pauses()) commands.firstStage(domain.vmid);
      else commands.asid(domain.vmid, domain.asid);
    } else if (this.#variety.pauses()) {
      commands.allAddresses(domain.vmid, input, domain.granule, pages);
    } else commands.addresses(domain.vmid, domain.asid, input, domain.granule, pages);
  }

  /**
   * Asks for the invalidation of a range in devices that translate ahead (§4.5.1); does not wait.
   * False: there are none.
   */
  invalidateDevices(domain: SmmuDomain, input: bigint, bytes: number): boolean {
    let some = false;
    for (const { sid, ssid } of domain.users) {
      if (this.#attached.get(sid)?.options.ats === undefined) continue;
      this.commands.device(sid, ssid, input, sizeCovering(input, bytes));
      some = true;
    }
    return some;
  }

  #forgetDomain(domain: SmmuDomain | undefined, sid: number, ssid: number): void {
    if (domain === undefined) return;
    const at = domain.users.findIndex((user) => user.sid === sid && user.ssid === ssid);
    if (at >= 0) domain.users.splice(at, 1);
    if (domain.kind === 'second') this.commands.vmid(domain.vmid);
    else if (domain.kind !== 'bypass') this.commands.asid(domain.vmid, domain.asid);
    this.commands.sync();
  }

  #state(sid: number, options: StreamOptions): StreamState {
    let state = this.#attached.get(sid);
    if (state === undefined) {
      state = { options, domain: undefined, contexts: undefined, parent: undefined };
      this.#attached.set(sid, state);
    }
    return state;
  }

  #contexts(state: StreamState, { tableAddress }: SmmuDomain): ContextTable {
    if (state.contexts === undefined) {
      const { options } = state;
      const bits = options.ssidBits ?? 0;
      const twoLevel = this.capabilities.twoLevel && bits > 0 ? S1FMT.TWO_LEVEL_4K : S1FMT.LINEAR;
      const format = options.s1Fmt ?? twoLevel;
      state.contexts = new ContextTable(this.machine.ram, this.pages, bits, format, tableAddress);
    }
    return state.contexts;
  }

  /** The STE as the state says. */
  #writeStream(sid: number, state: StreamState): void {
    const { options, contexts, parent, domain } = state;
    const bypass = domain?.kind === 'bypass';
    const first = contexts === undefined || bypass ? 0 : 1;
    const config = STE_CONFIG.BYPASS | first | (parent === undefined || bypass ? 0 : 2);
    const s1 =
      contexts === undefined
        ? {}
        : {
            S1ContextPtr: Number(contexts.tableAddress(contexts.base)),
            S1CDMax: contexts.log2,
            S1Fmt: contexts.format,
            S1DSS: options.s1Dss ?? (domain === undefined ? S1DSS.TERMINATE : S1DSS.SSID0),
            S1STALLD: options.noStalls ? 1 : 0,
          };
    this.streams.set(sid, {
      V: 1,
      Config: config,
      EATS: options.ats === 'full' ? EATS.FULL : options.ats === 'split' ? EATS.SPLIT : EATS.NONE,
      PPAR: options.ppar ? 1 : 0,
      MEV: options.mergeEvents ? 1 : 0,
      ...s1,
      ...(parent === undefined ? {} : secondStageFields(parent, this.capabilities.outputBits)),
    });
  }

  #forgetStream(sid: number): void {
    if (this.#variety.width() === WIDTH.ALL) this.commands.configurationAll();
    else this.commands.stream(sid);
    this.commands.sync();
  }

  #forgetContext(sid: number, ssid: number): void {
    const width = this.#variety.width();
    if (width === WIDTH.ALL) this.commands.configurationAll();
    else if (width === WIDTH.TAGGED) this.commands.contexts(sid);
    else this.commands.context(sid, ssid);
    this.commands.sync();
  }

  #enableInterrupts(): void {
    const { messages } = this.#options;
    const { registers } = this;
    registers.write(IRQ_CTRL, {});
    registers.waitUntil(() => registers.read(IRQ_CTRLACK)[0] === 0, 'IRQ_CTRLACK');
    const configurations = [EVENTQ_IRQ_CFG0, GERROR_IRQ_CFG0, PRIQ_IRQ_CFG0];
    configurations.forEach((configuration, n) => {
      registers.write(configuration, { ADDR: messages?.address ?? 0 });
      this.machine.writeRegister(configuration.offset + 8, 4, BigInt((messages?.data ?? 0) + n));
    });
    const enables = { GERROR_IRQEN: 1, EVENTQ_IRQEN: 1, PRIQ_IRQEN: this.capabilities.pri ? 1 : 0 };
    registers.write(IRQ_CTRL, enables);
    const written = registers.read(IRQ_CTRL)[0];
    registers.waitUntil(() => registers.read(IRQ_CTRLACK)[0] === written, 'IRQ_CTRLACK');
  }
}

/** CMD_ATC_INV.Size of the smallest aligned block that covers the range; 52: everything. §4.5.1 */
function sizeCovering(input: bigint, bytes: number): number {
  const first = input >> 12n;
  const last = (input + BigInt(bytes) - 1n) >> 12n;
  let size = 0;
  while (first >> BigInt(size) !== last >> BigInt(size)) size++;
  return size;
}

function readCapabilities(registers: DeviceRegisters): SmmuCapabilities {
  const [idr0, idr1, idr3, idr5] = [IDR0, IDR1, IDR3, IDR5].map((shape) => registers.read(shape));
  const aidr = registers.read(AIDR);
  const granules: number[] = [];
  if (IDR5.get.GRAN4K(idr5) === 1) granules.push(12);
  if (IDR5.get.GRAN16K(idr5) === 1) granules.push(14);
  if (IDR5.get.GRAN64K(idr5) === 1) granules.push(16);
  return {
    version: `SMMUv3.${AIDR.get.ArchMinorRev(aidr)}`,
    idr0,
    idr1,
    idr3,
    idr5,
    stage1: IDR0.get.S1P(idr0) === 1,
    stage2: IDR0.get.S2P(idr0) === 1,
    twoLevel: IDR0.get.ST_LEVEL(idr0) === 1,
    stalls: IDR0.get.STALL_MODEL(idr0) === STALL_MODEL.STALL_AND_TERMINATE,
    ats: IDR0.get.ATS(idr0) === 1,
    pri: IDR0.get.PRI(idr0) === 1,
    ranges: IDR3.get.RIL(idr3) === 1,
    ssidBits: IDR1.get.SSIDSIZE(idr1),
    outputBits: ADDRESS_BITS[IDR5.get.OAS(idr5)] ?? 48,
    granules,
  };
}
