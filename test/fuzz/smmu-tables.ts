import { ACCESS, SPAN_WORDS, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { DeviceRegisters } from '../../src/sim/driver-registers.js';
import { PageAllocator } from '../../src/sim/machine.js';
import { READ_WRITE } from '../../src/sim/page-table.js';
import { throughSpan } from '../../src/sim/sim-iotlb.js';
import { SmmuDriverCommands } from '../../src/sim/smmu-commands.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import { SmmuCommandQueue } from '../../src/sim/smmu-queue.js';
import { CMD } from '../../src/spec/smmuv3/commands.js';
import {
  CMDQ_PROD,
  CR0,
  CR1,
  CR2,
  GERROR,
  GERRORN,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../src/spec/smmuv3/registers.js';
import { CD, L1CD, STE } from '../../src/spec/smmuv3/structures.js';
import { LocalMachine } from '../support/local-machine.js';
import { CountingMemory } from './counting-memory.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';
import {
  dataPage,
  makeSmmuWorld,
  SIDS,
  type SmmuUser,
  type SmmuWorld,
  SSIDS,
  showUser,
  smmuOutput,
  smmuWindow,
} from './smmu-world.js';
import { RAM, TABLES, WINDOW } from './world.js';

const STEPS = 100;
const FINAL_REQUESTS = 60;
/** A ring that the random writes never touch, for the end. */
const LAST_RING: readonly [number, number] = [0x4000, 0x8000];
const OPCODES = Object.values(CMD);

interface Request extends SmmuUser {
  readonly access: number;
  readonly address: bigint;
}

interface Outcome {
  readonly gpa: number | undefined;
  readonly reason: number;
}

/**
 * A guest gone mad on the SMMUv3: stream table entries, context descriptors, page tables and
 * commands with random bits, changed while they are in use. After everything was invalidated at the
 * end, every answer, of the bridge's cache too, must be what a fresh walk gives; without caches
 * that must hold all the time.
 */
export class SmmuTablesFuzzer implements Fuzzer {
  readonly name = 'smmu-tables';
  readonly #facts = { wordsPerTranslation: 0, wordsPerWrite: 0, translated: 0, refused: 0 };

  facts(): Readonly<Record<string, number>> {
    return this.#facts;
  }

  run(rng: Rng, trace: Trace): void {
    const world = makeSmmuWorld(rng, trace);
    const madness = new Madness(rng, trace, world);
    madness.populate();
    for (let step = 0; step < STEPS; step++) madness.step();
    madness.settle();
    const facts = this.#facts;
    for (let n = 0; n < FINAL_REQUESTS; n++) {
      if (madness.compare(madness.request(), true)) facts.translated++;
      else facts.refused++;
    }
    facts.wordsPerTranslation = Math.max(facts.wordsPerTranslation, world.machine.mostPerTranslation);
    facts.wordsPerWrite = Math.max(facts.wordsPerWrite, world.machine.mostPerWrite);
  }
}

class Madness {
  readonly #rng: Rng;
  readonly #trace: Trace;
  readonly #world: SmmuWorld;
  /** A second unit over the same memory, without caches: what it says is a fresh walk. */
  readonly #fresh: LocalMachine;
  readonly #freshMemory: CountingMemory;
  /** Stores that the unit had made when everything was invalidated. */
  #settled = 0;
  readonly #users: (SmmuUser & { readonly domain: SmmuDomain })[] = [];

  constructor(rng: Rng, trace: Trace, world: SmmuWorld) {
    this.#rng = rng;
    this.#trace = trace;
    this.#world = world;
    const { machine, options } = world;
    this.#freshMemory = new CountingMemory(machine.counting.inner);
    this.#fresh = new LocalMachine(this.#freshMemory, { ...options, 'cache-policy': 'none' }, 'smmuv3');
    const registers = new DeviceRegisters(this.#fresh);
    for (const shape of [CR1, CR2, STRTAB_BASE, STRTAB_BASE_CFG] as const) {
      registers.writeWords(shape, world.driver.registers.read(shape));
    }
    registers.write(CR0, { SMMUEN: 1 });
  }

  /** Some order first, so that there is something to spoil. */
  populate(): void {
    const rng = this.#rng;
    const { driver, domains } = this.#world;
    const free = [...SIDS];
    for (const domain of domains) {
      const sid = free.splice(rng.below(free.length), 1)[0];
      driver.attach(sid, domain, { ssidBits: domain.kind === 'second' ? 0 : 7 });
      this.#users.push({ sid, ssid: -1, domain });
      if (domain.kind !== 'second') {
        const ssid = rng.pick(SSIDS.filter((each) => each > 0));
        driver.attachSubstream(sid, ssid, domain);
        this.#users.push({ sid, ssid, domain });
      }
      for (let page = 0; page < WINDOW; page += rng.pick([1, 1, 1, 2, 4])) this.#map(domain, page);
    }
  }

  step(): void {
    const rng = this.#rng;
    const world = this.#world;
    const { machine } = world;
    const what = rng.below(10);
    if (what < 2) this.#spoil();
    else if (what < 3) this.#map(rng.pick(world.domains), rng.below(WINDOW));
    else if (what < 4) this.#commands();
    else if (what < 5) machine.idle();
    else {
      const request = this.request();
      this.#trace.say(`request ${show(request)}`);
      if (world.options['cache-policy'] === 'none') this.compare(request, false);
      else machine.translate(request.sid, request.ssid, request.access, request.address);
    }
    machine.interrupts.length = 0;
    machine.edges.length = 0;
    machine.outputs.events.length = 0;
    this.#fresh.outputs.events.length = 0;
  }

  request(): Request {
    const rng = this.#rng;
    const user = rng.pick(this.#users);
    const near = smmuWindow(user.domain) + BigInt(rng.below((WINDOW + 4) * 2 ** user.domain.granule));
    const anybody = rng.chance(0.1);
    return {
      sid: anybody ? rng.pick([...SIDS, rng.below(0x10000)]) : user.sid,
      ssid: anybody ? rng.pick([...SSIDS, rng.below(0x100000)]) : user.ssid,
      access: rng.pick([ACCESS.READ, ACCESS.WRITE]),
      address: rng.chance(0.9) ? near : rng.odd64(),
    };
  }

  /** Invalidation of everything through a ring of its own, to the end. */
  settle(): void {
    this.#trace.say('settle');
    const { machine, driver } = this.#world;
    const { registers } = driver;
    // A CMD_SYNC at work first comes to its end; a queue that stopped is told to go on by the
    // error's acknowledgement.
    machine.ack();
    machine.tellDevices();
    const enables = driver.enables;
    driver.control({ ...enables, CMDQEN: 0 });
    registers.writeWords(GERRORN, registers.read(GERROR));
    const queue = new SmmuCommandQueue(registers, new PageAllocator(machine.ram, ...LAST_RING), 4, false);
    queue.program();
    driver.control(enables);
    const commands = new SmmuDriverCommands(queue, driver.capabilities.ranges);
    commands.configurationAll();
    commands.translationsAll();
    commands.sync();
    machine.ack();
    this.#settled = machine.counting.written;
    this.#freshMemory.written = 0;
  }

  /**
   * Asks both units; true when they translate. Anything but the same outcome is a violation, unless
   * a flag of a descriptor was set between them: mad tables may have the unit change its own
   * structures so, and then the question is put again. It is also put again after one more
   * invalidation: two mad streams may share a VMID and an ASID, whose entries then mix (§3.17).
   */
  compare(request: Request, throughBridge: boolean): boolean {
    const { counting } = this.#world.machine;
    for (let attempt = 0; ; attempt++) {
      const before = counting.written;
      const mine = this.#ask(this.#world.machine, request, throughBridge);
      const fresh = this.#ask(this.#fresh, request, false);
      const same = mine.gpa === fresh.gpa && (mine.gpa !== undefined || mine.reason === fresh.reason);
      if (same) return mine.gpa !== undefined;
      const wrote = throughBridge ? counting.written !== this.#settled : counting.written !== before;
      const mixed = throughBridge && attempt === 0;
      must(
        attempt < 5 && (mixed || wrote || this.#freshMemory.written > 0),
        () =>
          `${show(request)} gives ${JSON.stringify(mine)}, a fresh walk ${JSON.stringify(fresh)}; ` +
          JSON.stringify(this.#world.options),
      );
      if (throughBridge) this.settle();
      this.#freshMemory.written = 0;
    }
  }

  #ask(machine: LocalMachine, { sid, ssid, access, address }: Request, throughBridge: boolean): Outcome {
    machine.outputs.events.length = 0;
    if (throughBridge) {
      const found = machine.translate(sid, ssid, access, address);
      return { gpa: found?.gpa, reason: reasonOf(machine) };
    }
    const { counting } = this.#world.machine;
    const before = counting.written;
    const { status, count, spans } = machine.ask(sid, ssid, access, address);
    if (status !== TRANSLATE_STATUS.OK) return { gpa: undefined, reason: reasonOf(machine) };
    must(count > 0, () => 'translated without a span');
    const all = Array.from(spans.subarray(0, count * SPAN_WORDS));
    const settled = machine === this.#world.machine && counting.written === before;
    if (settled) this.#checkSpans({ sid, ssid }, all);
    return { gpa: throughSpan(all, 0, address).gpa, reason: 0 };
  }

  /**
   * Without caches every span, also of a neighbour, is what a fresh walk gives, flags set and all.
   * Not asked of a walk that has just set flags: mad tables may have it change its own structures.
   */
  #checkSpans(user: SmmuUser, spans: readonly number[]): void {
    for (let at = 0; at < spans.length; at += SPAN_WORDS) {
      const input = (BigInt(spans[at + 1]) << 32n) | BigInt(spans[at]);
      const pages = Math.min(4, 2 ** Math.max(0, spans[at + 4] - 12));
      for (let n = 0; n < pages; n++) {
        const address = input + BigInt(n) * 4096n;
        const { gpa, permissions } = throughSpan(spans, at, address);
        for (const access of [ACCESS.READ, ACCESS.WRITE]) {
          if ((permissions & access) !== 0) this.#checkPage({ ...user, access, address }, gpa);
        }
      }
    }
  }

  #checkPage(request: Request, gpa: number): void {
    const { stores } = this.#freshMemory;
    const outcome = this.#ask(this.#fresh, request, false);
    must(
      outcome.gpa === gpa,
      () => `span: ${show(request)} leads to ${gpa}, fresh ${JSON.stringify(outcome)}`,
    );
    must(this.#freshMemory.stores === stores, () => `span: ${show(request)} before its flags were set`);
  }

  /** A leaf as it ought to be, also where something else stands by now. */
  #map(domain: SmmuDomain, page: number): void {
    const { table, granule } = domain;
    if (table === undefined) return;
    const input = smmuWindow(domain) + (BigInt(page) << BigInt(granule));
    const output = smmuOutput(domain, dataPage(domain, this.#rng.below(500)));
    const entry = table.entryAddress(input);
    const outside = entry !== undefined && !this.#world.machine.ram.contains(entry, 8);
    if (outside) return;
    if (entry === undefined) table.map(input, output, 2 ** granule);
    else this.#world.machine.ram.store64(entry, table.leaf(output, READ_WRITE, granule));
  }

  /** One word of the tables gets other bits. */
  #spoil(): void {
    const rng = this.#rng;
    const world = this.#world;
    const memory = world.machine.counting.inner;
    const at = this.#target(rng.pick(world.domains));
    if (!memory.load64(at)) return;
    let value = (BigInt(memory.hi >>> 0) << 32n) | BigInt(memory.lo >>> 0);
    switch (rng.below(7)) {
      case 0:
      case 1:
        value ^= 1n << BigInt(rng.below(64));
        break;
      case 2:
        value = rng.odd64();
        break;
      case 3:
        // A table or page anywhere in the tables: loops, and descriptors of another kind.
        value =
          BigInt(TABLES[0] + rng.below((TABLES[1] - TABLES[0]) / 4096) * 4096) | BigInt(rng.below(4096));
        break;
      case 4:
        value = BigInt(at - (at % 4096)) | 0x443n;
        break;
      case 5:
        value = BigInt(RAM + rng.below(1000) * 4096) | 0x7c3n;
        break;
      default:
        value |= 3n;
    }
    this.#trace.say(`store 0x${at.toString(16)} = 0x${value.toString(16)}`);
    memory.store64(at, Number(value & 0xffff_ffffn), Number(value >> 32n));
  }

  /**
   * An address worth spoiling: a structure or descriptor that a walk meets, or any word of the
   * tables.
   */
  #target(domain: SmmuDomain): number {
    const rng = this.#rng;
    const { streams } = this.#world.driver;
    const sid = rng.pick(SIDS);
    switch (rng.below(20)) {
      case 0:
        return streams.entry(sid) + rng.below(STE.bytes / 8) * 8;
      case 1:
        return this.#context(sid) + rng.below(CD.bytes / 8) * 8;
      case 2:
        return TABLES[0] + rng.below((TABLES[1] - TABLES[0]) / 8) * 8;
      default: {
        const { table } = rng.chance(0.2) ? (domain.parent ?? domain) : domain;
        const input = smmuWindow(domain) + (BigInt(rng.below(WINDOW)) << BigInt(domain.granule));
        const level = rng.chance(0.9) ? 1 : 1 + rng.below(table?.levels ?? 1);
        return table?.entryAddress(input, level) ?? TABLES[0];
      }
    }
  }

  /** Near the context descriptors of a stream, as its entry says now. */
  #context(sid: number): number {
    const { ram } = this.#world.machine;
    const pointer = Number(ram.load64(this.#world.driver.streams.entry(sid)) & 0xf_ffff_ffff_ffc0n);
    const at = pointer >= 2 ** 33 ? pointer - 2 ** 33 : pointer;
    if (!ram.contains(at, 8) || this.#rng.chance(0.1)) return TABLES[0];
    const second = Number(ram.load64(at) & 0xf_ffff_ffff_f000n) % 2 ** 33;
    return ram.contains(second, CD.bytes) && second >= TABLES[0] ? second : at - (at % L1CD.bytes);
  }

  /** Random commands, most of them of a known kind, some valid. */
  #commands(): void {
    const rng = this.#rng;
    const world = this.#world;
    const { queue, registers } = world.driver;
    for (let n = 1 + rng.below(Math.min(6, queue.entries)); n > 0; n--) {
      const words = Uint32Array.from({ length: 4 }, () => (rng.chance(0.3) ? rng.u32() & rng.u32() : 0));
      words[0] = (words[0] & 0xffff_ff00) | (rng.chance(0.95) ? rng.pick(OPCODES) : rng.below(256));
      if (rng.chance(0.5)) words[1] = rng.pick(SIDS);
      const at = queue.base + (queue.prod % queue.entries) * 16;
      for (let i = 0; i < 4; i++) world.machine.ram.store32(at + i * 4, words[i]);
      queue.prod = (queue.prod + 1) % (2 * queue.entries);
      this.#trace.say(`command ${Array.from(words, (word) => word.toString(16)).join(' ')}`);
    }
    queue.kick();
    if (rng.chance(0.7)) registers.writeWords(GERRORN, registers.read(GERROR));
    if (!rng.chance(0.2)) return;
    registers.write(CMDQ_PROD, { WR: rng.below(2 * queue.entries) });
    this.#trace.say('random producer');
  }
}

function reasonOf(machine: LocalMachine): number {
  const last = machine.outputs.events.at(-1);
  return last?.kind === 'fault' ? last.reason : 0;
}

function show(request: Request): string {
  return `${showUser(request)} access ${request.access} at 0x${request.address.toString(16)}`;
}
