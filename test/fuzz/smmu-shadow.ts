import { ACCESS } from '../../src/device/iommu.js';
import { HOST_ERROR } from '../../src/sim/container.js';
import { firstStageFields, type SmmuDomain } from '../../src/sim/smmu-domain.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { loadStructure, storeStructure } from '../../src/sim/structure.js';
import { CD, STE } from '../../src/spec/smmuv3/structures.js';
import { ShadowMachine } from '../support/shadow-machine.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import { History, Possible } from './history.js';
import { readNaively } from './naive-tables.js';
import { PlugMemory } from './plug-memory.js';
import type { Rng } from './rng.js';
import { checkAudit, checkDevice, type Pages } from './shadow-pages.js';
import { DATA, Forest, isUpper, PIECE, PIECES, RAM, TABLES, type Tree, TYPE, VALID } from './smmu-forest.js';
import { varietyOf } from './world.js';

const STEPS = 60;
const PAGE = 4096;
const SIDS = [1, 2, 0x88] as const;
/** Stores of other processors within one step. */
const MOST_RACES = 8;

const OPTIONS: readonly Readonly<Record<string, string>>[] = [
  {},
  { oas: '52' },
  { 'range-invalidation': 'off', 'two-level': 'off' },
  { httu: 'access' },
  { httu: 'dirty', granules: '4k' },
  { 'cache-policy': 'hostile' },
];

/** What a stream goes through. */
type Through = 'nothing' | 'bypass' | readonly Tree[];

const TROUBLE = { NONE: 0, REFUSES_MAPS: 1, FEW_MAPPINGS: 2 } as const;

/**
 * Assigned devices behind an SMMUv3, whose guest never says that it maps something: its stores to
 * live tables are trapped. Tables of every shape are linked to each other at random, other
 * processors store while tables are looked at and while the host is waited for. When everything
 * that was stored has ended, each host has mapped what the plainest reading of the tables says,
 * less what it refused, and exactly the pages of live tables are tracked; and at no time is there a
 * mapping that no table has named since the last such moment.
 */
export class SmmuShadowFuzzer implements Fuzzer {
  readonly name = 'smmu-shadow';
  #checks = 0;
  #operations = 0;
  #trapped = 0;
  #races = 0;
  #pages = 0;

  facts(): Readonly<Record<string, number>> {
    const [checks, operations, trapped] = [this.#checks, this.#operations, this.#trapped];
    return { checks, operations, trapped, races: this.#races, pages: this.#pages };
  }

  run(rng: Rng, trace: Trace): void {
    const play = new Play(rng, trace);
    for (let step = 0; step < STEPS; step++) play.step();
    this.#checks += play.checks;
    this.#races += play.races;
    this.#pages += play.pages;
    this.#trapped += play.machine.trapped;
    for (const host of play.machine.hosts.values()) this.#operations += host.maps + host.unmaps;
  }
}

class Play {
  readonly #rng: Rng;
  readonly #trace: Trace;
  checks = 0;
  races = 0;
  /** Pages that were found mapped, over all checks. */
  pages = 0;
  readonly machine: ShadowMachine;
  readonly #memory = new PlugMemory([{ base: 0, bytes: RAM }]);
  readonly #history = new History(this.#memory);
  readonly #driver: SmmuDriver;
  readonly #forest: Forest;
  readonly #bypass: SmmuDomain;
  readonly #through = new Map<number, Through>();
  /** Trees, and the bypass, that a stream has gone through since the last check. */
  readonly #seen = new Map<number, Set<Tree | 'bypass'>>();
  readonly #pieces = new Set<number>();
  readonly #trouble: number;
  readonly #racing: boolean;
  #racesLeft = 0;
  #refusing = false;

  constructor(rng: Rng, trace: Trace) {
    this.#rng = rng;
    this.#trace = trace;
    const options = rng.pick(OPTIONS);
    this.machine = new ShadowMachine(this.#memory, options, () => rng.chance(0.6), 'smmuv3');
    this.#trouble = rng.chance(0.6) ? TROUBLE.NONE : rng.pick(Object.values(TROUBLE));
    this.#racing = rng.chance(0.5);
    trace.say(`world ${JSON.stringify(options)} trouble ${this.#trouble} racing ${this.#racing}`);
    const { machine } = this;
    machine.trackStores();
    machine.uncounted = (look) => this.#memory.quietly(look);
    machine.ram.beforeStore = (gpa) => this.#history.note(gpa);
    const sync = rng.pick(['poll', 'message'] as const);
    this.#driver = new SmmuDriver(machine, { pages: TABLES, sync, variety: varietyOf(rng) });
    machine.addRam(0, 0, DATA);
    for (let piece = 1; piece <= PIECES; piece++) {
      if (rng.chance(0.8)) this.#togglePiece(piece);
      else this.#memory.unplug(DATA + (piece - 1) * PIECE, PIECE);
    }
    for (const device of [1, 2]) if (rng.chance(0.8)) this.#toggleDevice(device);
    this.#driver.start();
    this.#bypass = this.#driver.createDomain('bypass');
    const hardware = options['httu'] as 'access' | 'dirty' | undefined;
    this.#forest = new Forest(rng, trace, this.#driver, this.#memory, hardware);
    for (let n = 1 + rng.below(4); n > 0; n--) this.#forest.grow();
    for (const sid of SIDS) if (rng.chance(0.8)) this.#attach(sid);
    machine.onDelivery = () => this.#delivered();
    this.#memory.before = () => this.#race(0.01);
    this.#check();
  }

  step(): void {
    const rng = this.#rng;
    this.#refusing = rng.chance(0.5);
    this.#racesLeft = this.#racing ? MOST_RACES : 0;
    const what = rng.below(18);
    if (what < 6) this.#storeSomewhere();
    else if (what < 9) this.#map();
    else if (what < 11) this.#breakBeforeMake();
    else if (what === 11) this.#attach(rng.pick(SIDS));
    else if (what === 12 && rng.chance(0.4)) this.#detach();
    else if (what === 13) this.#changeContext();
    else if (what === 14 && rng.chance(0.4)) this.#toggleDevice(rng.pick([1, 2, 3]));
    else if (what === 15) this.#togglePieces();
    else if (what === 16) this.#invalidate();
    else if (what === 17) this.#storeByDevice();
    this.#check();
    this.#driver.events.drain();
    this.machine.outputs.events.length = 0;
    this.machine.outputs.scopes.length = 0;
  }

  #storeSomewhere(): void {
    const rng = this.#rng;
    for (let n = 1 + rng.below(4); n > 0; n--) {
      const { tree, table, level } = this.#forest.somewhere(this.machine.tracked);
      this.#store(this.#forest.entryIn(tree, table, level), this.#forest.value(tree, level));
    }
  }

  /** Stores that are not trapped, and the invalidation that they are seen with. */
  #storeByDevice(): void {
    const rng = this.#rng;
    for (let n = 1 + rng.below(4); n > 0; n--) {
      const { tree, table, level } = this.#forest.somewhere(this.machine.tracked);
      const entry = this.#forest.entryIn(tree, table, level);
      const value = this.#forest.value(tree, level);
      this.#trace.say(`a device stores 0x${entry.toString(16)} 0x${value.toString(16)}`);
      if (!this.#memory.contains(entry, 8)) continue;
      this.#history.note(entry);
      this.#memory.store64(entry, Number(value & 0xffff_ffffn), Number(value >> 32n));
    }
    this.#driver.commands.translationsAll();
    this.#driver.commands.sync();
  }

  /** In one piece, in halves, one half only, or twice. */
  #store(entry: number, value: bigint): void {
    const rng = this.#rng;
    const { ram } = this.machine;
    if (!ram.contains(entry, 8)) return;
    const low = Number(value & 0xffff_ffffn);
    const high = Number(value >> 32n);
    const how = rng.below(8);
    this.#trace.say(`store 0x${entry.toString(16)} 0x${value.toString(16)} way ${how}`);
    if (how === 0) ram.store32(entry, low);
    else if (how === 1) ram.store32(entry + 4, high);
    else if (how === 2) {
      ram.store32(entry + 4, high);
      ram.store32(entry, low);
    } else {
      ram.store64(entry, value);
      if (how === 3) ram.store64(entry, value);
    }
  }

  /** A page or a block, and the tables on the way to it, as a driver does. */
  #map(): void {
    const rng = this.#rng;
    const { ram } = this.machine;
    const tree = rng.pick(this.#forest.trees);
    const { naive, domain } = tree;
    const to = naive.levels > 1 && rng.chance(0.2) ? 2 : 1;
    let table = tree.root;
    for (let level = naive.levels; ; level--) {
      const entry = this.#forest.entryIn(tree, table, level);
      if (!ram.contains(entry, 8)) return;
      if (level === to) {
        const count = rng.pick([1, 1, 8]);
        const first = this.#forest.value(tree, level) | VALID;
        for (
          let n = 0;
          n < count && (entry + n * 8) % 2 ** domain.granule >= entry % 2 ** domain.granule;
          n++
        ) {
          if (ram.contains(entry + n * 8, 8) && entry + n * 8 < table + naive.entries(level) * 8) {
            this.#store(entry + n * 8, first + BigInt(n * 2 ** naive.shift(level)));
          }
        }
        return;
      }
      const value = ram.load64(entry);
      if (naive.kind(value, level) === 'table') table = naive.address(value, 12);
      else {
        table = rng.pick(this.#forest.tablesOf(tree));
        this.#store(entry, BigInt(table) | VALID | TYPE);
      }
    }
  }

  /** An entry is cleared, invalidated, and then made anew. */
  #breakBeforeMake(): void {
    const { tree, table, level } = this.#forest.somewhere(this.machine.tracked);
    const entry = this.#forest.entryIn(tree, table, level);
    this.#store(entry, 0n);
    this.#invalidateTree(tree);
    this.#driver.commands.sync();
    if (this.#rng.chance(0.8)) this.#store(entry, this.#forest.value(tree, level));
  }

  #invalidateTree({ domain }: Tree): void {
    const rng = this.#rng;
    const input = BigInt(rng.below(8)) << BigInt(domain.granule);
    if (rng.chance(0.5)) this.#driver.invalidateRange(domain, input, 2 ** rng.pick([12, 16, 21]));
    else if (domain.kind === 'second') this.#driver.commands.vmid(domain.vmid);
    else this.#driver.commands.asid(domain.vmid, domain.asid);
  }

  #invalidate(): void {
    const rng = this.#rng;
    this.#trace.say('invalidate');
    const { commands } = this.#driver;
    const what = rng.below(3);
    if (what === 0) commands.translationsAll();
    else if (what === 1) commands.configurationAll();
    else this.#invalidateTree(rng.pick(this.#forest.trees));
    commands.sync();
  }

  #attach(sid: number): void {
    const rng = this.#rng;
    const tree = rng.chance(0.06) ? undefined : rng.pick(this.#forest.trees);
    this.#trace.say(`attach ${sid} to ${tree === undefined ? 'bypass' : `0x${tree.root.toString(16)}`}`);
    // What a stage 2 has left in the entry of a stream would stand below another's stage 1.
    if (this.#through.has(sid)) this.#detachStream(sid);
    this.#goesThrough(sid, tree === undefined ? 'bypass' : [tree]);
    this.#driver.attach(sid, tree?.domain ?? this.#bypass);
  }

  #detach(): void {
    if (this.#through.size === 0) return;
    const sid = this.#rng.pick([...this.#through.keys()]);
    this.#trace.say(`detach ${sid}`);
    this.#detachStream(sid);
  }

  #detachStream(sid: number): void {
    this.#driver.detach(sid);
    this.#through.delete(sid);
  }

  /** A live context descriptor gets one tree or two, or none that is used. */
  #changeContext(): void {
    const rng = this.#rng;
    const { ram } = this.machine;
    const streams = [...this.#through].filter(
      ([, to]) => typeof to !== 'string' && to[0]?.domain.kind !== 'second',
    );
    if (streams.length === 0) return;
    const [sid] = rng.pick(streams);
    const firsts = this.#forest.trees.filter(({ domain }) => domain.kind === 'first');
    const lower = firsts.filter(({ domain }) => domain.options.upper !== true);
    const upper = firsts.filter(({ domain }) => domain.options.upper === true);
    const chosen = [lower, upper].flatMap((some) =>
      some.length > 0 && rng.chance(0.7) ? [rng.pick(some)] : [],
    );
    // Hardware updates are of both halves.
    if (new Set(chosen.map(({ domain }) => domain.options.hardware)).size > 1) chosen.pop();
    this.#trace.say(`context of ${sid}: ${chosen.map(({ root }) => `0x${root.toString(16)}`).join(' ')}`);
    const at = STE.get.S1ContextPtr(loadStructure(ram, this.#driver.streams.entry(sid), STE));
    const { outputBits } = this.#driver.capabilities;
    const fields = chosen.map(({ domain }) => firstStageFields(domain, outputBits));
    const off = { EPD0: chosen.some(isLower) ? 0 : 1, EPD1: chosen.some(isUpper) ? 0 : 1 };
    const base = { V: 1, AA64: 1, A: 1, R: 1, IPS: 5, ASID: 0 };
    this.#goesThrough(sid, chosen);
    storeStructure(ram, at, CD, Object.assign({ ...base }, ...fields, off));
    this.#driver.commands.context(sid, -1);
    this.#driver.commands.translationsAll();
    this.#driver.commands.sync();
  }

  #goesThrough(sid: number, to: Through): void {
    this.#through.set(sid, to);
    const seen = this.#seenBy(sid);
    if (to === 'bypass') seen.add('bypass');
    else if (to !== 'nothing') for (const tree of to) seen.add(tree);
  }

  #seenBy(sid: number): Set<Tree | 'bypass'> {
    const known = this.#seen.get(sid) ?? new Set();
    this.#seen.set(sid, known);
    return known;
  }

  #toggleDevice(device: number): void {
    const rng = this.#rng;
    const { machine } = this;
    machine.drain();
    if (machine.hosts.has(device)) {
      this.#trace.say(`device ${device} goes`);
      machine.removeHost(device);
      return;
    }
    const sid = SIDS[device - 1] as number;
    this.#trace.say(`device ${device} (${sid}) comes`);
    const host = machine.addHost(device, sid, rng.chance(0.2) ? rng.below(0x4000) : 0);
    if (this.#trouble === TROUBLE.FEW_MAPPINGS) host.limit = 1 + rng.below(20);
    host.refuse = (access) => {
      if (!this.#refusing || access === 0) return 0;
      return this.#trouble === TROUBLE.REFUSES_MAPS && rng.chance(0.3) ? HOST_ERROR.NO_MEMORY : 0;
    };
    machine.drain();
  }

  /** Goes, comes, or goes and comes again with what it held. */
  #togglePieces(): void {
    const piece = 1 + this.#rng.below(PIECES);
    this.#togglePiece(piece);
    if (this.#rng.chance(0.5)) this.#togglePiece(piece);
  }

  #togglePiece(piece: number): void {
    const first = DATA + (piece - 1) * PIECE;
    this.#trace.say(`RAM ${piece} ${this.#pieces.has(piece) ? 'goes' : 'comes'}`);
    if (this.#pieces.delete(piece)) {
      this.#memory.unplug(first, PIECE);
      this.machine.forgetTracked(first / PAGE, (first + PIECE) / PAGE - 1);
      this.machine.removeRam(piece);
    } else {
      this.#pieces.add(piece);
      this.#memory.plug(first);
      this.machine.addRam(piece, first, PIECE);
    }
    this.machine.drain();
  }

  /** Another processor stores at any moment. */
  #race(probability: number): void {
    if (this.#racesLeft === 0 || !this.#rng.chance(probability)) return;
    this.#racesLeft--;
    this.races++;
    this.machine.asOtherProcessor(() => {
      const { tree, table, level } = this.#forest.somewhere(this.machine.tracked);
      this.#trace.say('in between:');
      this.#store(this.#forest.entryIn(tree, table, level), this.#forest.value(tree, level));
    });
  }

  /** Something has reached a host or the monitor. */
  #delivered(): void {
    if (this.#rng.chance(0.3)) this.#checkPossible();
    this.#race(0.15);
  }

  #checkPossible(): void {
    for (const space of this.machine.shadow.devices) {
      const possible = new Possible(RAM);
      for (const tree of this.#seenBy(space.rid)) {
        if (tree === 'bypass') possible.identity();
        else possible.read(tree.naive, tree.root, this.#history);
      }
      const host = this.machine.hosts.get(space.device);
      if (host !== undefined) possible.check(host, `device ${space.device}`);
    }
  }

  #check(): void {
    const { machine } = this;
    const { shadow, hosts } = machine;
    this.#racesLeft = 0;
    machine.drain();
    must(shadow.pending === 0, () => `${shadow.pending} pending after everything has ended`);
    // While others store, a difference may be of a store that is under way.
    if (!this.#racing) checkAudit(machine.audit);
    const live = new Set<number>();
    for (const space of shadow.devices) {
      const host = hosts.get(space.device);
      if (host === undefined) throw new Error('a device without a host');
      must(host.misuse.length === 0, () => host.misuse.join(', '));
      if (this.#trouble === TROUBLE.NONE) must(space.failed.count === 0, () => 'something failed');
      const wanted = this.#wanted(space.rid, space.listened, live);
      checkDevice(space, host, wanted);
      this.pages += wanted.size;
      this.checks++;
    }
    const inRam = (page: number): boolean => this.#memory.contains(page * PAGE, PAGE);
    for (const page of live)
      must(!inRam(page) || machine.tracked.has(page), () => `page ${page} is not tracked`);
    // Stores to addresses without memory need no tracking.
    for (const page of machine.tracked)
      must(!inRam(page) || live.has(page), () => `page ${page} is tracked, and no table`);
    this.#history.begin();
    this.#seen.clear();
    for (const [sid, to] of this.#through) this.#goesThrough(sid, to);
  }

  /**
   * Every page that a stream reaches, as far as it is RAM and the host listens; its tables are
   * added to `live`.
   */
  #wanted(sid: number, listened: { contains(page: number): boolean }, live: Set<number>): Pages {
    const pages: Pages = new Map();
    const put = (page: number, gpa: number, access: number): void => {
      if (this.#memory.contains(gpa, PAGE) && listened.contains(page)) pages.set(page, gpa + access);
    };
    const through = this.#through.get(sid) ?? 'nothing';
    if (through === 'nothing') return pages;
    if (through === 'bypass') {
      for (let gpa = 0; gpa < RAM; gpa += PAGE) put(gpa / PAGE, gpa, ACCESS.READ | ACCESS.WRITE);
      return pages;
    }
    for (const { naive, root } of through) {
      readNaively(
        naive,
        root,
        this.#history.now,
        ({ page, pages: count, gpa, access }) => {
          for (let n = 0; n < count && gpa + n * PAGE < RAM; n++) put(page + n, gpa + n * PAGE, access);
        },
        (address, bytes) => {
          for (let at = address; at < address + bytes; at += PAGE) live.add(Math.floor(at / PAGE));
        },
      );
    }
    return pages;
  }
}

const isLower = (tree: Tree): boolean => !isUpper(tree);
