import { ACCESS } from '../../src/device/iommu.js';
import { type VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { ShadowMachine } from '../support/shadow-machine.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import { History, Possible } from './history.js';
import { type NaiveFormat, naiveVtd, readNaively } from './naive-tables.js';
import { PlugMemory } from './plug-memory.js';
import type { Rng } from './rng.js';
import { checkAudit, checkDevice, type Pages } from './shadow-pages.js';
import { varietyOf } from './world.js';

const STEPS = 30;
const PAGE = 4096;
const MIB = 2 ** 20;
const TABLES = [0x1_0000, 2 * MIB] as const;
/** What pages lead to: never to structures, which would be set Accessed as if they were tables. */
const DATA = 2 * MIB;
const RAM = 4 * MIB;
const RIDS = [1, 2] as const;
const SPARE_TABLES = 4;
/** Stores of other processors within one step. */
const MOST_RACES = 10;
/** Reads of guest memory that one step may cost, whatever other processors store. */
const MOST_READS = 400_000;
/** Entries of a table that are ever used: tables in tables stay few. */
const INDEXES = [0, 1, 2, 511] as const;

const OPTIONS: readonly Readonly<Record<string, string>>[] = [
  { 'caching-mode': 'on' },
  { 'caching-mode': 'on', 'scalable-mode': 'off' },
  { 'caching-mode': 'on', 'cache-policy': 'hostile' },
];

interface Tree {
  readonly domain: VtdDomain;
  readonly naive: NaiveFormat;
  readonly root: number;
}

/**
 * A VT-d with caching mode whose guest changes its tables while they are looked at, without saying
 * so, and says something now and then. At no time has a host mapped what no table has said since
 * the last honest invalidation; after the next one, which nothing disturbs, it has mapped what the
 * plainest reading of the tables says.
 */
export class ShadowRaceFuzzer implements Fuzzer {
  readonly name = 'shadow-race';
  #checks = 0;
  #races = 0;
  #pages = 0;

  facts(): Readonly<Record<string, number>> {
    return { checks: this.#checks, races: this.#races, pages: this.#pages };
  }

  run(rng: Rng, trace: Trace): void {
    const play = new Play(rng, trace);
    for (let step = 0; step < STEPS; step++) play.step();
    this.#checks += play.checks;
    this.#races += play.races;
    this.#pages += play.pages;
  }
}

class Play {
  readonly #rng: Rng;
  readonly #trace: Trace;
  checks = 0;
  races = 0;
  /** Pages that were found mapped, over all checks. */
  pages = 0;
  readonly #machine: ShadowMachine;
  readonly #memory = new PlugMemory([{ base: 0, bytes: RAM }]);
  readonly #history = new History(this.#memory);
  readonly #driver: VtdDriver;
  readonly #trees: Tree[] = [];
  /** By stage: what is set in an entry of one is reserved in the other. */
  readonly #tables = { first: [] as number[], second: [] as number[] };
  readonly #attached = new Map<number, Tree>();
  #racesLeft = 0;

  constructor(rng: Rng, trace: Trace) {
    this.#rng = rng;
    this.#trace = trace;
    const options = rng.pick(OPTIONS);
    const machine = new ShadowMachine(this.#memory, options, () => rng.chance(0.6));
    this.#machine = machine;
    machine.uncounted = (look) => this.#memory.quietly(look);
    const mode = options['scalable-mode'] !== 'off' && rng.chance(0.7) ? 'scalable' : 'legacy';
    trace.say(`world ${JSON.stringify(options)} ${mode}`);
    machine.ram.beforeStore = (gpa) => this.#history.note(gpa);
    const pasidDevices = rng.chance(0.5);
    this.#driver = new VtdDriver(machine, { mode, pages: TABLES, pasidDevices, variety: varietyOf(rng) });
    machine.addRam(0, 0, RAM);
    RIDS.forEach((rid, n) => {
      machine.addHost(n + 1, rid);
    });
    machine.drain();
    this.#driver.start();
    for (let n = 1 + rng.below(3); n > 0; n--) this.#makeTree(mode === 'scalable');
    for (const tables of Object.values(this.#tables)) {
      for (let n = 0; n < SPARE_TABLES; n++) tables.push(this.#driver.pages.take());
    }
    for (const rid of RIDS) this.#attach(rid);
    machine.onDelivery = () => {
      if (rng.chance(0.2)) this.#checkPossible();
      this.#race(0.2);
    };
    this.#memory.before = () => this.#race(0.02);
    this.#check();
  }

  step(): void {
    const rng = this.#rng;
    const { invalidate } = this.#driver;
    this.#history.begin();
    this.#memory.reads = 0;
    this.#racesLeft = MOST_RACES;
    const what = rng.below(8);
    if (what === 0) {
      const rid = rng.pick(RIDS);
      this.#detach(rid);
      this.#attach(rid);
    }
    for (let round = 1 + rng.below(3); round > 0; round--) {
      for (let n = rng.below(5); n > 0; n--) this.#store();
      const { domain } = rng.pick(this.#trees);
      const input = BigInt(rng.below(4) * PAGE + rng.pick([0, 0x20_0000, 0x4000_0000]));
      this.#trace.say(`invalidate did ${domain.did} 0x${input.toString(16)}`);
      this.#driver.invalidateRange(domain, input, PAGE * rng.pick([1, 8, 512]));
      invalidate.sync();
    }
    this.#racesLeft = 0;
    this.#machine.drain();
    this.#checkPossible();
    // Findings about entries that changed there and back during the race do not count.
    const before = this.#machine.audit.answer(0).differences.length;
    invalidate.iotlbGlobal();
    invalidate.sync();
    checkAudit(this.#machine.audit, before);
    must(this.#memory.reads < MOST_READS, () => `${this.#memory.reads} reads of guest memory`);
    this.#check();
    this.#driver.faults.drain();
    this.#machine.outputs.events.length = 0;
    this.#machine.outputs.scopes.length = 0;
  }

  #makeTree(scalable: boolean): void {
    const rng = this.#rng;
    const kind = scalable && rng.chance(0.5) ? 'first' : 'second';
    const levels = kind === 'first' ? 4 : rng.pick([3, 4]);
    const domain = this.#driver.createDomain(kind, levels);
    const root = domain.table?.root as number;
    this.#trees.push({ domain, root, naive: naiveVtd(kind, levels) });
    this.#trace.say(`tree ${kind} 0x${root.toString(16)} levels ${levels}`);
  }

  #attach(rid: number): void {
    const tree = this.#rng.pick(this.#trees);
    this.#trace.say(`attach ${rid} to 0x${tree.root.toString(16)}`);
    this.#driver.attach(rid, tree.domain);
    this.#attached.set(rid, tree);
  }

  #detach(rid: number): void {
    const tree = this.#attached.get(rid);
    if (tree !== undefined) this.#driver.detach(rid, tree.domain);
  }

  /**
   * Something, to some table that may be in use: pointers, pages, large pages, nothing, garbage.
   */
  #store(): void {
    const rng = this.#rng;
    const { ram } = this.#machine;
    const tree = rng.pick(this.#trees);
    const atRoot = rng.chance(0.4);
    const table = atRoot ? tree.root : rng.pick(this.#tablesOf(tree));
    const level = atRoot ? tree.naive.levels : 1 + rng.below(tree.naive.levels - 1);
    const entry = table + rng.pick(INDEXES) * 8;
    const value = this.#value(tree, level);
    const half = rng.below(6);
    this.#trace.say(`store 0x${entry.toString(16)} 0x${value.toString(16)} way ${half}`);
    if (half === 0) ram.store32(entry, Number(value & 0xffff_ffffn));
    else if (half === 1) ram.store32(entry + 4, Number(value >> 32n));
    else ram.store64(entry, value);
  }

  #tablesOf({ domain }: Tree): readonly number[] {
    return this.#tables[domain.kind === 'first' ? 'first' : 'second'];
  }

  #value(tree: Tree, level: number): bigint {
    const { domain, naive } = tree;
    const rng = this.#rng;
    const what = rng.below(10);
    if (what === 0) return 0n;
    const rights = domain.kind === 'first' ? rng.pick([5n, 7n, 7n]) : rng.pick([1n, 2n, 3n, 3n]);
    if (level > 3 || (level > 1 && what < 8)) return BigInt(rng.pick(this.#tablesOf(tree))) | rights;
    if (level === 1) return BigInt(DATA + rng.below((RAM - DATA) / PAGE) * PAGE) | rights;
    const shift = naive.shift(level);
    return BigInt(Math.floor(rng.below(RAM) / 2 ** shift) * 2 ** shift) | rights | (1n << 7n);
  }

  #race(probability: number): void {
    if (this.#racesLeft === 0 || !this.#rng.chance(probability)) return;
    this.#racesLeft--;
    this.races++;
    this.#trace.say('in between:');
    this.#machine.asOtherProcessor(() => this.#store());
  }

  #checkPossible(): void {
    const possible = new Possible(RAM);
    // A device may have gone through any of them since.
    for (const { naive, root } of this.#trees) possible.read(naive, root, this.#history);
    for (const [device, host] of this.#machine.hosts) possible.check(host, `device ${device}`);
  }

  #check(): void {
    const { shadow, hosts } = this.#machine;
    must(shadow.pending === 0, () => `${shadow.pending} pending after a completion`);
    for (const space of shadow.devices) {
      const host = hosts.get(space.device);
      if (host === undefined) throw new Error('a device without a host');
      must(host.misuse.length === 0, () => host.misuse.join(', '));
      const wanted = this.#wanted(space.rid);
      checkDevice(space, host, wanted);
      this.pages += wanted.size;
      this.checks++;
    }
  }

  #wanted(rid: number): Pages {
    const pages: Pages = new Map();
    const tree = this.#attached.get(rid);
    if (tree === undefined) return pages;
    readNaively(tree.naive, tree.root, this.#history.now, ({ page, pages: count, gpa, access }) => {
      for (let n = 0; n < count && gpa + n * PAGE < RAM; n++) {
        const interrupts = page + n >= 0xfee00 && page + n <= 0xfeeff;
        if (!interrupts) pages.set(page + n, gpa + n * PAGE + (access & (ACCESS.READ | ACCESS.WRITE)));
      }
    });
    return pages;
  }
}
