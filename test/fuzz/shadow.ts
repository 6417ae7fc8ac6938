import { NO_PASID } from '../../src/base/ids.js';
import { pageOf } from '../../src/base/page.js';
import { ACCESS, MAX_SPANS, SPAN_WORDS } from '../../src/device/iommu.js';
import { ArrayMemory } from '../../src/memory/array.js';
import { HOST_ERROR } from '../../src/sim/container.js';
import { type VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { newResult } from '../support/local-machine.js';
import { ShadowMachine } from '../support/shadow-machine.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';
import { checkAudit, checkDevice, type Pages } from './shadow-pages.js';
import { attachOptions, varietyOf } from './world.js';

const STEPS = 60;
const PAGE = 4096n;
const MIB = 2 ** 20;
/** Tables and rings; the data above them, in pieces that come and go. */
const TABLES = [0x1_0000, 8 * MIB] as const;
const DATA = 8 * MIB;
const PIECE = 2 * MIB;
const PIECES = 6;
const RAM = DATA + PIECES * PIECE;
/** Where a nested first stage sees guest memory. */
const NESTED_OFFSET = 2 ** 33;
/** Of the second half of a PASID-table entry's first 128 bits. */
const PWSNP = 1n << 23n;
const RIDS = [1, 2, 0x88] as const;
/** 2 MiB units of input addresses that are mapped from. */
const UNITS = 6;

const OPTIONS: readonly Readonly<Record<string, string>>[] = [
  { 'caching-mode': 'on' },
  { 'caching-mode': 'on', 'scalable-mode': 'off' },
  { 'caching-mode': 'on', 'aw-bits': '57' },
  { 'caching-mode': 'on', 'aw-bits': '39' },
  { 'caching-mode': 'on', 'cache-policy': 'hostile' },
];

/** What the host does to operations. */
const TROUBLE = { NONE: 0, REFUSES_MAPS: 1, FEW_MAPPINGS: 2, KEEPS_MAPPINGS: 3 } as const;

/**
 * A driver that announces every change, devices whose mappings are shadowed, and a host that
 * answers late and sometimes refuses. After every completion each host has mapped what a fresh walk
 * of the tables finds, less what it refused.
 */
export class ShadowFuzzer implements Fuzzer {
  readonly name = 'shadow';
  #checks = 0;
  #operations = 0;

  facts(): Readonly<Record<string, number>> {
    return { checks: this.#checks, operations: this.#operations };
  }

  run(rng: Rng, trace: Trace): void {
    const play = new Play(rng, trace);
    for (let step = 0; step < STEPS; step++) play.step();
    this.#checks += play.checks;
    for (const host of play.machine.hosts.values()) this.#operations += host.maps + host.unmaps;
  }
}

class Play {
  readonly #rng: Rng;
  readonly #trace: Trace;
  checks = 0;
  readonly machine: ShadowMachine;
  readonly #driver: VtdDriver;
  readonly #domains: VtdDomain[] = [];
  readonly #attached = new Map<number, VtdDomain>();
  readonly #pieces = new Set<number>();
  readonly #trouble: number;
  #refusing = false;
  /** Page walks are snooped (PWSNP): bits may be set in tables. */
  #snooped = true;

  constructor(rng: Rng, trace: Trace) {
    this.#rng = rng;
    this.#trace = trace;
    const options = rng.pick(OPTIONS);
    this.machine = new ShadowMachine(new ArrayMemory([{ base: 0, bytes: RAM }]), options, () =>
      rng.chance(0.6),
    );
    const scalable = options['scalable-mode'] !== 'off' && rng.chance(0.6);
    this.#trouble = rng.chance(0.5) ? TROUBLE.NONE : rng.pick(Object.values(TROUBLE));
    const mode = scalable ? 'scalable' : 'legacy';
    trace.say(`world ${JSON.stringify(options)} ${mode} trouble ${this.#trouble}`);
    const pasidDevices = rng.chance(0.4);
    if (scalable) trace.say(`devices ${pasidDevices ? 'with' : 'without'} PASIDs`);
    this.#driver = new VtdDriver(this.machine, {
      mode,
      pages: TABLES,
      pasidDevices,
      variety: varietyOf(rng),
    });
    this.#addRam(0, 0, DATA);
    for (let piece = 1; piece <= PIECES; piece++) if (rng.chance(0.8)) this.#togglePiece(piece);
    for (const device of [1, 2]) if (rng.chance(0.8)) this.#toggleDevice(device);
    this.#driver.start();
    const narrow = options['aw-bits'] === '39';
    for (let n = 1 + rng.below(3); n > 0; n--)
      this.#makeDomain(scalable && !narrow, narrow, options['aw-bits'] === '57');
    this.#check();
  }

  step(): void {
    const rng = this.#rng;
    this.#refusing = rng.chance(0.5);
    const domain = rng.pick(this.#domains);
    const what = rng.below(12);
    if (what < 4) this.#edit(domain, true);
    else if (what < 7) this.#edit(domain, false);
    else if (what === 7) this.#attach(domain);
    else if (what === 8) this.#detach();
    else if (what === 9 && rng.chance(0.7)) this.#replace(domain);
    else if (what === 9 && rng.chance(0.3)) this.#toggleDevice(rng.pick([1, 2, 3]));
    else if (what === 10 && rng.chance(0.5)) this.#togglePiece(1 + rng.below(PIECES));
    else if (what === 11 && rng.chance(0.3)) this.#turnSnooping();
    else if (what === 11) this.#invalidateAll();
    this.#check();
    this.#driver.faults.drain();
    this.machine.outputs.events.length = 0;
    this.machine.outputs.scopes.length = 0;
  }

  #makeDomain(firstStage: boolean, narrow: boolean, wide: boolean): void {
    const rng = this.#rng;
    const driver = this.#driver;
    const levels = narrow ? 3 : rng.pick(wide ? [3, 4, 5] : [3, 4]);
    const kind = rng.below(10);
    if (kind === 0) this.#domains.push(driver.createDomain('pass-through', levels));
    else if (firstStage && kind < 3) {
      const parent = driver.createDomain('second', levels);
      parent.table?.map(BigInt(NESTED_OFFSET), 0, RAM, undefined, rng.chance(0.5) ? 21 : 12);
      this.#domains.push(driver.createNested(parent, 4, (gpa) => BigInt(NESTED_OFFSET + gpa)));
    } else if (firstStage && kind < 6) this.#domains.push(driver.createDomain('first', 4));
    else this.#domains.push(driver.createDomain('second', levels));
  }

  /** Maps or unmaps something, pages or a large page, over whatever was there, and announces it. */
  #edit(domain: VtdDomain, map: boolean): void {
    const { table } = domain;
    if (table === undefined) return;
    const rng = this.#rng;
    const unit = windowOf(domain) + BigInt(rng.below(UNITS)) * BigInt(PIECE);
    const large = rng.chance(0.2);
    const first = large ? 0 : rng.below(512);
    const count = large ? 512 : Math.min(1 + rng.below(rng.pick([2, 16, 512])), 512 - first);
    const input = unit + BigInt(first) * PAGE;
    // Where there is a large page, or will be, the table below goes first, with its own
    // invalidation.
    const entry = this.#makeWay(domain, unit, large);
    this.#trace.say(
      `${map ? 'map' : 'unmap'} did ${domain.did} 0x${input.toString(16)} pages ${count}${large ? ' large' : ''}`,
    );
    if (!map) {
      if (large) this.machine.ram.store64(entry, 0n);
      else table.unmap(input, count * 4096);
    } else {
      const rights = rng.pick([ACCESS.READ, 3, 3, ACCESS.WRITE]);
      const writable = {
        read: (rights & ACCESS.READ) !== 0 || domain.kind !== 'second',
        write: (rights & ACCESS.WRITE) !== 0,
      };
      const gpa = large
        ? DATA - PIECE + rng.below(PIECES + 2) * PIECE
        : DATA + rng.below(PIECES * 512 - 300) * 4096;
      const output = domain.kind === 'nested' ? NESTED_OFFSET + gpa : gpa;
      if (large) this.machine.ram.store64(entry, table.leaf(output, writable, 21));
      else if (rng.chance(0.7)) table.map(input, output, Math.min(count * 4096, RAM - gpa), writable);
      else this.#scatter(domain, input, count, writable);
    }
    this.#announce(domain, input, count);
  }

  #scatter(domain: VtdDomain, input: bigint, count: number, rights: { read: boolean; write: boolean }): void {
    for (let n = 0; n < count; n++) {
      const gpa = DATA + this.#rng.below(PIECES * 512) * 4096;
      const output = domain.kind === 'nested' ? NESTED_OFFSET + gpa : gpa;
      domain.table?.map(input + BigInt(n) * PAGE, output, 4096, rights);
    }
  }

  /**
   * Address of the unit's entry of level 2. Afterwards the entry points to a table, or to none if a
   * large page is to come.
   */
  #makeWay(domain: VtdDomain, unit: bigint, large: boolean): number {
    const table = domain.table;
    if (table === undefined) throw new Error('no table');
    let entry = table.entryAddress(unit, 2);
    if (entry === undefined) {
      table.map(unit, DATA, 4096);
      table.unmap(unit, 4096);
      entry = table.entryAddress(unit, 2) as number;
    }
    const value = this.machine.ram.load64(entry);
    const leaf = (value & (1n << 7n)) !== 0n;
    if (value !== 0n && leaf !== large) {
      this.machine.ram.store64(entry, 0n);
      this.#announce(domain, unit, 512);
    }
    if (!large && leaf) {
      // What the table below holds is mapped again with it.
      table.restore(entry);
      this.#announce(domain, unit, 512);
    }
    return entry;
  }

  #announce(domain: VtdDomain, input: bigint, pages: number): void {
    if (this.#rng.chance(0.1)) this.#invalidateDomain(domain);
    else this.#driver.invalidateRange(domain, input, pages * 4096);
    this.#driver.invalidate.sync();
  }

  #invalidateDomain(domain: VtdDomain): void {
    const { invalidate } = this.#driver;
    if (domain.kind === 'second' || domain.kind === 'pass-through') invalidate.iotlbDomain(domain.did);
    else for (const { pasid } of domain.users) invalidate.pasidIotlb(domain.did, pasid);
  }

  #invalidateAll(): void {
    this.#trace.say('invalidate all');
    this.#driver.invalidate.iotlbGlobal();
    this.#driver.invalidate.sync();
  }

  /**
   * Toggles PWSNP in every entry, while tables are in use and some of their flags are set. In every
   * entry, because a flag set for one requester is announced by no invalidation of another.
   */
  #turnSnooping(): void {
    const { scalable, invalidate } = this.#driver;
    if (scalable === undefined) return;
    this.#snooped = !this.#snooped;
    this.#trace.say(`PWSNP ${this.#snooped ? 'set' : 'clear'}`);
    for (const rid of this.#attached.keys()) {
      const at = scalable.pasidEntry(rid, 0) as number;
      const { ram } = this.machine;
      const word = ram.load64(at + 8);
      ram.store64(at + 8, this.#snooped ? word | PWSNP : word & ~PWSNP);
    }
    invalidate.pasidCacheGlobal();
    invalidate.iotlbGlobal();
    invalidate.sync();
  }

  #attach(domain: VtdDomain): void {
    const rid = this.#rng.pick(RIDS);
    if (this.#attached.has(rid)) return;
    // The driver writes entries with PWSNP set.
    if (!this.#snooped) this.#turnSnooping();
    this.#trace.say(`attach ${rid} to did ${domain.did} (${domain.kind})`);
    this.#driver.attach(rid, domain, attachOptions({ rid, pasid: NO_PASID }));
    this.#attached.set(rid, domain);
  }

  #detach(): void {
    if (this.#attached.size === 0) return;
    const [rid, domain] = this.#rng.pick([...this.#attached]);
    this.#trace.say(`detach ${rid}`);
    this.#attached.delete(rid);
    this.#driver.detach(rid, domain);
  }

  #replace(to: VtdDomain): void {
    if (this.#attached.size === 0) return;
    const [rid, from] = this.#rng.pick([...this.#attached]);
    if (from.did === to.did) return;
    if (!this.#snooped) this.#turnSnooping();
    this.#trace.say(`replace did ${from.did} of ${rid} by did ${to.did} (${to.kind})`);
    this.#attached.set(rid, to);
    this.#driver.replace(rid, from, to);
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
    const rid = RIDS[device - 1] as number;
    this.#trace.say(`device ${device} (${rid}) comes`);
    const host = machine.addHost(device, rid, rng.chance(0.3) ? rng.below(0x4000) : 0);
    if (this.#trouble === TROUBLE.FEW_MAPPINGS) host.limit = 1 + rng.below(20);
    host.refuse = (access) => {
      if (!this.#refusing) return 0;
      if (access !== 0)
        return this.#trouble === TROUBLE.REFUSES_MAPS && rng.chance(0.3) ? HOST_ERROR.NO_MEMORY : 0;
      return this.#trouble === TROUBLE.KEEPS_MAPPINGS && rng.chance(0.05) ? HOST_ERROR.INVALID : 0;
    };
    // The last resort has to work, or the session ends.
    host.lastResort = true;
    machine.drain();
  }

  #addRam(region: number, gpa: number, bytes: number): void {
    this.machine.addRam(region, gpa, bytes);
  }

  #togglePiece(piece: number): void {
    this.#trace.say(`RAM ${piece} ${this.#pieces.has(piece) ? 'goes' : 'comes'}`);
    if (this.#pieces.delete(piece)) this.machine.removeRam(piece);
    else {
      this.#pieces.add(piece);
      this.#addRam(piece, DATA + (piece - 1) * PIECE, PIECE);
    }
    this.machine.drain();
  }

  #check(): void {
    const { shadow, hosts } = this.machine;
    must(shadow.pending === 0, () => `${shadow.pending} pending after a completion`);
    checkAudit(this.machine.audit);
    for (const space of shadow.devices) {
      const host = hosts.get(space.device);
      if (host === undefined) throw new Error('a device without a host');
      if (this.#trouble !== TROUBLE.KEEPS_MAPPINGS)
        must(host.misuse.length === 0, () => host.misuse.join(', '));
      const wanted = this.#wanted(space.rid, space.listened);
      if (this.#trouble === TROUBLE.NONE) must(space.failed.count === 0, () => 'something failed');
      checkDevice(space, host, wanted);
      this.checks++;
    }
  }

  /**
   * Every page of RAM that a requester reaches by a fresh walk of the tables, where the host
   * listens.
   */
  #wanted(rid: number, listened: { contains(page: number): boolean }): Pages {
    const result = newResult();
    const pages: Pages = new Map();
    const { model, shadow } = this.machine;
    const { ram } = shadow;
    const put = (page: number, gpa: number, access: number): void => {
      const index = ram.from(gpa / 4096);
      const inRam = index < ram.count && ram.first(index) * 4096 <= gpa;
      if (!inRam || (page >= 0xfee00 && page <= 0xfeeff) || !listened.contains(page)) return;
      pages.set(page, gpa + access);
    };
    let [lo, hi] = [0, 0];
    for (let more = true; more; ) {
      more = model.survey.enumerate(rid, NO_PASID, lo, hi, result);
      must(result.count <= MAX_SPANS, () => 'too many spans');
      let end = 0n;
      for (let at = 0; at < result.count * SPAN_WORDS; at += SPAN_WORDS) {
        const { spans } = result;
        const first = pageOf(spans[at], spans[at + 1]);
        const gpa = spans[at + 3] * 2 ** 32 + spans[at + 2];
        const count = Math.min(2 ** (spans[at + 4] - 12), RAM / 4096);
        for (let n = 0; n < count; n++) put(first + n, gpa + n * 4096, spans[at + 5] & 3);
        end = (BigInt(first) << 12n) + (1n << BigInt(spans[at + 4]));
      }
      [lo, hi] = [Number(end & 0xffff_ffffn), Number((end >> 32n) & 0xffff_ffffn)];
    }
    return pages;
  }
}

/** Input addresses that this domain is used at. */
function windowOf(domain: VtdDomain): bigint {
  if (domain.kind === 'first' || domain.kind === 'nested') return 0xffff_ffff_c000_0000n;
  return domain.levels === 3 ? 0x4000_0000n : 2n ** 39n - BigInt(2 * PIECE);
}
