import { ACCESS, SPAN_WORDS, TRANSLATE_STATUS } from '../../src/device/iommu.js';
import { PageAllocator } from '../../src/sim/machine.js';
import { READ_WRITE } from '../../src/sim/page-table.js';
import { throughSpan } from '../../src/sim/sim-iotlb.js';
import type { VtdDomain } from '../../src/sim/vtd-driver.js';
import { QueuedInvalidations, RegisterInvalidations } from '../../src/sim/vtd-invalidate.js';
import { VtdDriverQueue } from '../../src/sim/vtd-queue.js';
import { Registers } from '../../src/sim/vtd-registers.js';
import { RTADDR_REG } from '../../src/spec/vtd/registers.js';
import { LocalMachine } from '../support/local-machine.js';
import { CountingMemory } from './counting-memory.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';
import {
  attachOptions,
  DATA,
  makeWorld,
  outputOf,
  PASIDS,
  pickUser,
  RAM,
  RIDS,
  TABLES,
  type User,
  WINDOW,
  type World,
  windowOf,
} from './world.js';

const STEPS = 100;
const FINAL_REQUESTS = 60;
/** A ring that the random writes never touch, for the end. */
const LAST_RING: readonly [number, number] = [0x4000, 0x8000];
const GLOBAL_STATUS_FIELDS = 0x34;
/** In the second quadword of a PASID-table entry. VT-d §9.6 */
const PWSNP = 1 << 23;

interface Request {
  readonly rid: number;
  readonly pasid: number;
  readonly access: number;
  readonly address: bigint;
}

interface Outcome {
  readonly gpa: number | undefined;
  readonly reason: number;
}

/**
 * A guest gone mad: tables and descriptors with random bits, changed while they are in use, and
 * none of the invalidations that ought to follow. While it goes on only bounds are checked. At the
 * end everything is invalidated globally, and then every answer, of the bridge's cache too, must be
 * what a fresh walk gives. Without caches (`cache-policy` none) that must hold all the time.
 */
export class TablesFuzzer implements Fuzzer {
  readonly name = 'tables';
  #mostPerTranslation = 0;
  #mostPerWrite = 0;
  #translated = 0;
  #refused = 0;

  facts(): Readonly<Record<string, number>> {
    return {
      wordsPerTranslation: this.#mostPerTranslation,
      wordsPerWrite: this.#mostPerWrite,
      translated: this.#translated,
      refused: this.#refused,
    };
  }

  run(rng: Rng, trace: Trace): void {
    const world = makeWorld(rng, trace);
    const madness = new Madness(rng, trace, world);
    madness.populate();
    for (let step = 0; step < STEPS; step++) madness.step();
    madness.settle();
    for (let n = 0; n < FINAL_REQUESTS; n++) {
      if (madness.compare(madness.request(), true)) this.#translated++;
      else this.#refused++;
    }
    this.#mostPerTranslation = Math.max(this.#mostPerTranslation, world.machine.mostPerTranslation);
    this.#mostPerWrite = Math.max(this.#mostPerWrite, world.machine.mostPerWrite);
  }
}

class Madness {
  readonly #rng: Rng;
  readonly #trace: Trace;
  readonly #world: World;
  /** A second unit over the same memory, without caches: what it says is a fresh walk. */
  readonly #fresh: LocalMachine;
  readonly #freshMemory: CountingMemory;
  /** Stores that the unit had made when everything was invalidated. */
  #settled = 0;
  readonly #users: (User & { readonly domain: VtdDomain })[] = [];

  constructor(rng: Rng, trace: Trace, world: World) {
    this.#rng = rng;
    this.#trace = trace;
    this.#world = world;
    const { machine, options, driver } = world;
    this.#freshMemory = new CountingMemory(machine.counting.inner);
    this.#fresh = new LocalMachine(this.#freshMemory, { ...options, 'cache-policy': 'none' });
    const registers = new Registers(this.#fresh);
    registers.write(RTADDR_REG, { TTM: driver.scalable === undefined ? 0 : 1, RTA: driver.root });
    registers.command('SRTP', 'RTPS');
    registers.command('TE', 'TES');
  }

  /** Some order first, so that there is something to spoil. */
  populate(): void {
    const rng = this.#rng;
    const world = this.#world;
    for (const domain of world.domains) {
      const user = pickUser(rng, world.driver);
      world.driver.attach(user.rid, domain, attachOptions(user));
      this.#users.push({ ...user, domain });
      if (domain.table === undefined) continue;
      for (let page = 0; page < WINDOW; page += rng.pick([1, 1, 1, 2, 4])) this.#map(domain, page);
    }
    world.driver.invalidate.contextGlobal();
    world.driver.invalidate.iotlbGlobal();
    world.driver.invalidate.sync();
  }

  step(): void {
    const rng = this.#rng;
    const world = this.#world;
    const what = rng.below(10);
    if (what < 2) this.#spoil();
    else if (what < 3) this.#map(rng.pick(world.domains), rng.below(WINDOW));
    else if (what < 4) this.#descriptors();
    else if (what < 5) world.machine.idle();
    else {
      const request = this.request();
      this.#trace.say(`request ${show(request)}`);
      if (world.options['cache-policy'] === 'none') this.compare(request, false);
      else world.machine.translate(request.rid, request.pasid, request.access, request.address);
    }
    world.machine.interrupts.length = 0;
    world.machine.outputs.events.length = 0;
    this.#fresh.outputs.events.length = 0;
  }

  request(): Request {
    const rng = this.#rng;
    const user = rng.pick(this.#users);
    const base = user.domain.table === undefined ? BigInt(DATA) : windowOf(user.domain);
    const near = base + BigInt(rng.below((WINDOW + 4) * 4096));
    const anybody = rng.chance(0.1);
    return {
      rid: anybody ? rng.pick([...RIDS, rng.below(0x10000)]) : user.rid,
      pasid: anybody ? rng.pick([...PASIDS, rng.below(0x100000)]) : user.pasid,
      access: rng.pick([ACCESS.READ, ACCESS.WRITE, ACCESS.READ, ACCESS.WRITE, ACCESS.READ | ACCESS.WRITE]),
      address: rng.chance(0.9) ? near : rng.odd64(),
    };
  }

  /** Global invalidation of everything through a ring of its own, to the end. */
  settle(): void {
    this.#invalidateAll();
    this.#settled = this.#world.machine.counting.written;
    this.#freshMemory.written = 0;
  }

  #invalidateAll(): void {
    const { machine, driver } = this.#world;
    this.#trace.say('settle');
    const registers = new Registers(machine);
    machine.ack();
    if (driver.queue !== undefined) driver.queue.disable();
    machine.ack();
    machine.writeRegister(GLOBAL_STATUS_FIELDS, 4, 0x7fn);
    if (driver.scalable === undefined && driver.queue === undefined) {
      const invalidate = new RegisterInvalidations(registers);
      invalidate.contextGlobal();
      invalidate.iotlbGlobal();
      return;
    }
    const pages = new PageAllocator(machine.ram, LAST_RING[0], LAST_RING[1]);
    const queue = new VtdDriverQueue(registers, pages, driver.scalable !== undefined);
    queue.enable();
    const invalidate = new QueuedInvalidations(queue);
    invalidate.contextGlobal();
    if (driver.scalable !== undefined) invalidate.pasidCacheGlobal();
    invalidate.iotlbGlobal();
    invalidate.sync();
  }

  /**
   * Asks both units; true when they translate. Anything but the same outcome is a violation, unless
   * an Accessed or Dirty bit was set between them: mad tables may have the unit change its
   * own structures so, and then the question is put again.
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
      must(
        attempt < 5 && (wrote || this.#freshMemory.written > 0),
        () =>
          `${show(request)} gives ${JSON.stringify(mine)}, a fresh walk ${JSON.stringify(fresh)}; ${this.#entries(request)}`,
      );
      if (throughBridge) this.settle();
      this.#freshMemory.written = 0;
    }
  }

  /** The entries on the way of a request, for the message of a violation. */
  #entries({ rid, pasid, address }: Request): string {
    const domain = this.#users.find((user) => user.rid === rid && user.pasid === pasid)?.domain;
    if (domain?.table === undefined) return 'no domain';
    const found: string[] = [`${domain.kind} ${JSON.stringify(this.#world.options)}`];
    for (let level = domain.levels; level > 0; level--) {
      const at = domain.table.entryAddress(address, level);
      if (at !== undefined) found.push(`level ${level} 0x${this.#world.machine.ram.load64(at).toString(16)}`);
    }
    return found.join(', ');
  }

  #ask(machine: LocalMachine, request: Request, throughBridge: boolean): Outcome {
    const { rid, pasid, access, address } = request;
    machine.outputs.events.length = 0;
    if (throughBridge) {
      const found = machine.translate(rid, pasid, access, address);
      return { gpa: found?.gpa, reason: reasonOf(machine) };
    }
    const { counting } = this.#world.machine;
    const before = counting.written;
    const { status, count, spans } = machine.ask(rid, pasid, access, address);
    if (status !== TRANSLATE_STATUS.OK) return { gpa: undefined, reason: reasonOf(machine) };
    must(count > 0, () => 'translated without a span');
    const all = Array.from(spans.subarray(0, count * SPAN_WORDS));
    if (machine === this.#world.machine && counting.written === before) this.#checkSpans(rid, pasid, all);
    return { gpa: throughSpan(all, 0, address).gpa, reason: 0 };
  }

  /**
   * Without caches every span, also of a neighbour, is what a fresh walk gives, flags set and all.
   * Not asked of a walk that has just set bits: mad tables may have it change its own structures.
   */
  #checkSpans(rid: number, pasid: number, spans: readonly number[]): void {
    for (let at = 0; at < spans.length; at += SPAN_WORDS) {
      const input = (BigInt(spans[at + 1]) << 32n) | BigInt(spans[at]);
      const pages = Math.min(4, 2 ** Math.max(0, spans[at + 4] - 12));
      for (let n = 0; n < pages; n++) {
        const address = input + BigInt(n) * 4096n;
        const { gpa, permissions } = throughSpan(spans, at, address);
        const access = permissions & (ACCESS.READ | ACCESS.WRITE);
        if (access === 0) continue;
        const stores = this.#freshMemory.stores;
        const outcome = this.#ask(this.#fresh, { rid, pasid, access, address }, false);
        must(
          outcome.gpa === gpa,
          () => `span at 0x${address.toString(16)}: ${gpa}, fresh ${JSON.stringify(outcome)}`,
        );
        must(
          this.#freshMemory.stores === stores,
          () => `span at 0x${address.toString(16)} before its flags were set`,
        );
      }
    }
  }

  /** A leaf as it ought to be, also where something else stands by now. */
  #map(domain: VtdDomain, page: number): void {
    const { table } = domain;
    if (table === undefined) return;
    const input = windowOf(domain) + BigInt(page) * 4096n;
    const gpa = outputOf(domain, DATA + this.#rng.below(500) * 4096);
    const entry = table.entryAddress(input);
    if (entry === undefined) table.map(input, gpa, 4096);
    else this.#world.machine.ram.store64(entry, table.leaf(gpa, READ_WRITE, 12));
  }

  /**
   * PWSNP of one PASID-table entry is turned: with tables in use, some of whose flags are
   * set by now.
   */
  #turnSnooping(): void {
    const rng = this.#rng;
    const world = this.#world;
    const at = world.driver.scalable?.pasidEntry(rng.pick(RIDS), Math.max(0, rng.pick(PASIDS)));
    if (at === undefined) return;
    const memory = world.machine.counting.inner;
    if (!memory.load64(at + 8)) return;
    memory.store64(at + 8, memory.lo ^ PWSNP, memory.hi);
    this.#trace.say(`PWSNP of the entry at 0x${at.toString(16)} turned`);
  }

  /** One word of the tables gets other bits. */
  #spoil(): void {
    const rng = this.#rng;
    const world = this.#world;
    if (rng.chance(0.1)) this.#turnSnooping();
    const memory = world.machine.counting.inner;
    const domain = rng.pick(world.domains);
    const at = this.#target(domain);
    memory.load64(at);
    let value = (BigInt(memory.hi >>> 0) << 32n) | BigInt(memory.lo >>> 0);
    switch (rng.below(6)) {
      case 0:
        value ^= 1n << BigInt(rng.below(64));
        break;
      case 1:
        value = rng.odd64();
        break;
      case 2:
        // A table or page anywhere in the tables: loops, and entries of another kind.
        value = BigInt(TABLES[0] + rng.below((TABLES[1] - TABLES[0]) / 4096) * 4096) | BigInt(rng.below(256));
        break;
      case 3:
        value = BigInt(at - (at % 4096)) | 7n;
        break;
      case 4:
        value = BigInt(RAM + rng.below(1000) * 4096) | 7n;
        break;
      default:
        value |= 3n;
    }
    this.#trace.say(`store 0x${at.toString(16)} = 0x${value.toString(16)}`);
    memory.store64(at, Number(value & 0xffff_ffffn), Number(value >> 32n));
  }

  /** An address worth spoiling: an entry that a walk meets, or any word of the tables. */
  #target(domain: World['domains'][number]): number {
    const rng = this.#rng;
    const world = this.#world;
    const { legacy, scalable } = world.driver;
    const rid = rng.pick(RIDS);
    const pasid = Math.max(0, rng.pick(PASIDS));
    switch (rng.below(80)) {
      case 0:
        return legacy?.contextEntry(rid) ?? scalable?.pasidEntry(rid, pasid) ?? DATA;
      case 1:
        return (legacy?.contextEntry(rid) ?? scalable?.contextEntry(rid) ?? DATA) + rng.below(2) * 8;
      case 2:
        return (scalable?.pasidEntry(rid, pasid) ?? world.driver.root) + rng.below(8) * 8;
      case 3:
        return TABLES[0] + rng.below((TABLES[1] - TABLES[0]) / 8) * 8;
      default: {
        const input = windowOf(domain) + BigInt(rng.below(WINDOW) * 4096);
        const level = rng.chance(0.9) ? 1 : 1 + rng.below(domain.levels);
        return domain.table?.entryAddress(input, level) ?? DATA;
      }
    }
  }

  /** Random descriptors, most of them of a known type, some valid. */
  #descriptors(): void {
    const rng = this.#rng;
    const world = this.#world;
    const { queue } = world.driver;
    if (queue === undefined) return;
    for (let n = 1 + rng.below(6); n > 0; n--) {
      const words = Uint32Array.from({ length: 8 }, () => (rng.chance(0.3) ? rng.u32() & rng.u32() : 0));
      words[0] = (words[0] & 0xffff_f1f0) | rng.pick([1, 2, 2, 5, 6, 7, rng.below(16)]);
      const at = queue.base + queue.tail;
      for (let i = 0; i < queue.descriptorBytes / 4; i++) world.machine.ram.store32(at + i * 4, words[i]);
      queue.tail = (queue.tail + queue.descriptorBytes) % queue.bytes;
      this.#trace.say(`descriptor ${Array.from(words, (word) => word.toString(16)).join(' ')}`);
    }
    queue.kick();
    if (rng.chance(0.7)) world.machine.writeRegister(GLOBAL_STATUS_FIELDS, 4, 0x70n);
    if (rng.chance(0.3)) {
      world.machine.writeRegister(0x80 + 8, 8, BigInt(rng.below(0x1000)) & ~15n);
      this.#trace.say('random tail');
    }
  }
}

function reasonOf(machine: LocalMachine): number {
  const last = machine.outputs.events.at(-1);
  return last?.kind === 'fault' ? last.reason : 0;
}

function show(request: Request): string {
  const { rid, pasid, access, address } = request;
  return `rid ${rid} pasid ${pasid} access ${access} at 0x${address.toString(16)}`;
}
