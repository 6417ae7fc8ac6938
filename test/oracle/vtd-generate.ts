/**
 * Cases for the VT-d unit: structures, a few of them made wrong, requests, changes with the
 * invalidations they need.
 */
import type { Rng } from '../fuzz/rng.js';
import { dump, load } from './operations.js';
import { hex, Script } from './script.js';
import type { Case } from './suite.js';
import { ARENA, ARENA_BYTES, MEMORY, RAM_BYTES, REG, reg, request, type VtdKind } from './vtd-machine.js';
import { Commands } from './vtd-queue.js';
import { breakQueue, endQemu } from './vtd-queue-errors.js';
import { scribble } from './vtd-registers.js';
import { Structures, type User } from './vtd-structures.js';
import { type Domain, HOLES, isFirst, type Leaf, type Stage, Tables } from './vtd-tables.js';

/** Functions of bus 0 and of the second bus. */
const DEVFNS = [0x10, 0x18, 0x19, 0xf8] as const;
const SECOND_DEVFNS = [0x00, 0x80, 0xff] as const;
const PASIDS = [1, 5, 64, 0x1001] as const;
/** Beyond the smallest directory, and beyond the next one. */
const FAR_PASIDS = [0x2005, 0x4007] as const;

export function generateVtd(rng: Rng, kind: VtdKind): Case {
  return new VtdCase(rng, kind).make();
}

class VtdCase {
  readonly #rng: Rng;
  readonly #kind: VtdKind;
  readonly #script = new Script(ARENA, ARENA_BYTES);
  readonly #notes: string[] = [];
  readonly #scalable: boolean;
  readonly #structures: Structures;
  readonly #tables: Tables;
  readonly #commands: Commands;
  readonly #domains: Domain[] = [];
  readonly #rids: readonly number[];
  /**
   * Something was made wrong: who uses which entry is not known any more, so invalidations are
   * global.
   */
  #mutated = false;

  constructor(rng: Rng, kind: VtdKind) {
    this.#rng = rng;
    this.#kind = kind;
    const script = this.#script;
    script.bus = rng.pick([1, 2, 0x42, 0xff]);
    this.#rids = [...DEVFNS, ...SECOND_DEVFNS.map((devfn) => (script.bus << 8) | devfn)];
    this.#scalable = kind.scalable !== undefined && rng.chance(0.85);
    this.#structures = new Structures(script, rng, this.#scalable, kind.scalable === 'all');
    this.#tables = new Tables(script, rng, kind);
    const bytes = this.#scalable ? 32 : rng.chance(0.6) ? 16 : 0;
    this.#commands = new Commands(script, rng, bytes);
    this.#notes.push(this.#scalable ? 'scalable' : 'legacy', bytes === 0 ? 'registers' : 'queue');
  }

  make(): Case {
    const rng = this.#rng;
    if (rng.chance(0.05)) scribble(this.#script, rng);
    this.#build();
    for (let n = rng.pick([0, 0, 1, 1, 2]); n > 0; n--) this.#mutate();
    this.#enable();
    this.#requests(4 + rng.below(8));
    for (let round = rng.below(4); round > 0; round--) {
      this.#change();
      this.#requests(2 + rng.below(4));
    }
    if (rng.chance(0.1)) this.#pileUp();
    if (this.#commands.queued && rng.chance(0.2)) {
      this.#notes.push(breakQueue(this.#script, rng, this.#commands));
      this.#requests(2);
    }
    if (rng.chance(0.05)) {
      this.#commands.translation(false);
      this.#requests(2);
    }
    this.#end();
    // Rarely: each costs a new QEMU.
    if (rng.chance(0.002)) this.#notes.push(endQemu(this.#script, rng, this.#commands));
    return { script: this.#script, notes: this.#notes };
  }

  #build(): void {
    const rng = this.#rng;
    for (let n = 1 + rng.below(3); n > 0; n--) this.#domains.push(this.#domain());
    const rids = new Set<number>();
    for (let n = 1 + rng.below(3); n > 0; n--) rids.add(rng.pick(this.#rids));
    for (const rid of rids) {
      this.#structures.attach(rid, -1, rng.pick(this.#domains));
      if (!this.#scalable) continue;
      for (const pasid of this.#pasids) {
        if (rng.chance(0.3) && pasid !== this.#structures.ownPasid(rid)) {
          this.#structures.attach(rid, pasid, rng.pick(this.#domains));
        }
      }
    }
  }

  get #pasids(): readonly number[] {
    return this.#kind.scalable === 'all' ? [...PASIDS, ...FAR_PASIDS] : PASIDS;
  }

  #domain(): Domain {
    const rng = this.#rng;
    const kind = this.#kind;
    if (kind.scalable === 'all') return this.#anyDomain();
    const translated: Stage = this.#scalable && kind.scalable === 'first' ? 'first' : 'second';
    const stage = rng.chance(0.1) ? 'pass-through' : translated;
    const levels = stage === 'first' ? 4 : kind.addressWidth === 39 ? 3 : rng.pick([3, 4, 4]);
    return this.#tables.domain(stage, 1 + rng.below(0xffff), levels, 3 + rng.below(6));
  }

  /** What no stock unit has: all stages of all depths. */
  #anyDomain(): Domain {
    const rng = this.#rng;
    const kind = this.#kind;
    const wide = kind.addressWidth === 57;
    const did = 1 + rng.below(0xffff);
    const deep = (): number => rng.pick(wide ? [3, 4, 5, 5] : [3, 4]);
    const stages = ['first', 'second', 'nested', 'nested', 'nested'] as const;
    const stage = rng.chance(0.05) ? 'pass-through' : this.#scalable ? rng.pick(stages) : 'second';
    if (stage === 'second' || stage === 'pass-through') {
      return this.#tables.domain(stage, did, deep(), 3 + rng.below(6));
    }
    const levels = wide ? rng.pick([4, 5]) : 4;
    // Without other leaves than the arena's own as yet: those follow what the first stage needs.
    const second = stage === 'first' ? undefined : this.#tables.domain('second', did, deep(), 0);
    const domain = this.#tables.domain(stage, did, levels, 0, second);
    if (second !== undefined) this.#tables.fill(second, 3 + rng.below(5));
    this.#tables.fill(domain, 3 + rng.below(6));
    return domain;
  }

  /** Makes one word wrong. */
  #mutate(): void {
    const script = this.#script;
    const { address, what } = this.#target();
    const before = script.word(address);
    const after = this.#wrong(before);
    if (after === before) return;
    this.#mutated = true;
    this.#notes.push(`${what} at ${hex(address)}: ${hex(before)} → ${hex(BigInt.asUintN(64, after))}`);
    script.store(address, after, what);
  }

  #target(): { readonly address: number; readonly what: string } {
    const rng = this.#rng;
    const sets = this.#domains.flatMap((domain) =>
      domain.second === undefined ? [domain] : [domain, domain.second],
    );
    const entries = sets.flatMap(({ leaves, nodes }) => [...leaves.map(({ entry }) => entry), ...nodes]);
    if (entries.length === 0 || rng.chance(0.5)) return rng.pick(this.#structures.words);
    return { address: rng.pick(entries), what: 'paging entry' };
  }

  #wrong(value: bigint): bigint {
    const rng = this.#rng;
    const address = 0x000f_ffff_ffff_f000n;
    switch (rng.below(10)) {
      case 0:
        return value & ~3n;
      case 1:
        return (value & ~address) | rng.pick(HOLES);
      case 2:
        // The last words of RAM, and where it ends.
        return (value & ~address) | BigInt(RAM_BYTES - 4096 * rng.below(2));
      case 3:
        return rng.chance(0.3) ? (1n << 64n) - 1n : 0n;
      case 4:
        return value ^ (1n << BigInt(rng.below(12)));
      case 5:
        return value | (1n << BigInt(39 + rng.below(25)));
      case 6:
        return value ^ (1n << BigInt(rng.below(12))) ^ (1n << BigInt(rng.below(12)));
      default:
        return value ^ (1n << BigInt(rng.below(64)));
    }
  }

  #enable(): void {
    const rng = this.#rng;
    const commands = this.#commands;
    if (rng.chance(0.1)) this.#requests(1);
    commands.setRoot(this.#structures.root, this.#scalable);
    commands.enableQueue();
    this.#invalidateAll();
    commands.translation(true);
  }

  #invalidateAll(): void {
    const commands = this.#commands;
    commands.contextGlobal();
    if (this.#scalable) commands.pasidCacheGlobal();
    commands.iotlbGlobal();
    commands.wait(this.#rng.chance(0.9) ? this.#script.allocate() : undefined);
  }

  #requests(count: number): void {
    for (let n = 0; n < count; n++) this.#request();
  }

  #request(): void {
    const rng = this.#rng;
    const user = rng.pick(this.#structures.users);
    const stranger = rng.chance(0.06);
    const rid = stranger ? rng.pick(this.#rids) : user.rid;
    const pasid =
      stranger && this.#scalable
        ? rng.pick([-1, ...this.#pasids, this.#structures.ownPasid(rid)])
        : user.pasid;
    const address = this.#address(user.domain);
    if (inInterruptRange(address)) return;
    request(this.#script, { rid, pasid, access: rng.pick([1, 2]), address });
  }

  #address(domain: Domain): bigint {
    const rng = this.#rng;
    if (domain.leaves.length > 0 && rng.chance(0.85)) {
      const { input, level } = rng.pick(domain.leaves);
      const size = 1n << BigInt(3 + 9 * level);
      const offset = rng.u64() & (size - 1n);
      return BigInt.asUintN(64, input + offset + (rng.chance(0.1) ? size : 0n));
    }
    const width = BigInt(rng.pick([30, 39, 48, this.#kind.addressWidth]));
    switch (rng.below(4)) {
      case 0:
        return rng.odd64();
      case 1:
        return (1n << width) - 1n - BigInt(rng.below(8192));
      case 2:
        return (1n << width) + BigInt(rng.below(8192));
      default:
        return rng.u64() & ((1n << width) - 1n);
    }
  }

  /** A change that a driver would make, and the invalidations that the specification asks for. */
  #change(): void {
    const rng = this.#rng;
    const user = rng.pick(this.#structures.users);
    if (user.domain.leaves.length > 0 && rng.chance(0.7)) this.#changeTables(user.domain);
    else this.#moveUser(user);
  }

  #changeTables(domain: Domain): void {
    const rng = this.#rng;
    const script = this.#script;
    if (domain.second !== undefined && rng.chance(0.4)) {
      this.#changeTables(domain.second);
      return;
    }
    const leaf = rng.pick(domain.leaves);
    const before = script.word(leaf.entry);
    if (rng.chance(0.15) && domain.nodes.length > 0) {
      const node = rng.pick(domain.nodes);
      script.store(node, script.word(node) === 0n ? before : 0n, 'table entry');
      this.#notes.push('table entry changed');
      this.#invalidateDomain(domain);
      return;
    }
    const value = rng.chance(0.4) ? 0n : this.#tables.leafValue(domain, leaf.level);
    script.store(leaf.entry, value, 'leaf changed');
    // Nothing that was not present is cached without caching mode (§6.1); the mutated may be
    // anything.
    if (before === 0n && !this.#kind.cachingMode && !this.#mutated && rng.chance(0.7)) return;
    this.#invalidateLeaf(domain, leaf);
  }

  #invalidateLeaf(domain: Domain, leaf: Leaf): void {
    const rng = this.#rng;
    const commands = this.#commands;
    if (this.#mutated || rng.chance(0.3)) {
      this.#invalidateDomain(domain);
      return;
    }
    const mask = Math.min(18, 9 * (leaf.level - 1) + rng.pick([0, 0, 0, 1, 3]));
    if (!isFirst(domain.stage)) commands.iotlbPages(domain.did, leaf.input, mask);
    else
      for (const user of this.#usersOf(domain))
        commands.pasidIotlbPages(domain.did, this.#tag(user), leaf.input, mask);
    commands.wait(this.#script.allocate());
  }

  #invalidateDomain(domain: Domain): void {
    const rng = this.#rng;
    const commands = this.#commands;
    if (this.#mutated || rng.chance(0.2)) {
      this.#invalidateAll();
      return;
    }
    if (this.#scalable && rng.chance(0.5)) {
      for (const user of this.#usersOf(domain)) commands.pasidIotlb(domain.did, this.#tag(user));
    } else commands.iotlbDomain(domain.did);
    commands.wait(rng.chance(0.8) ? this.#script.allocate() : undefined);
  }

  #usersOf(domain: Domain): User[] {
    return this.#structures.users.filter(({ domain: its }) => its === domain || its.second === domain);
  }

  /** The PASID that translations of a user are tagged with. */
  #tag({ rid, pasid }: User): number {
    return pasid < 0 ? this.#structures.ownPasid(rid) : pasid;
  }

  /** Another domain for a user, or none. */
  #moveUser(user: User): void {
    const rng = this.#rng;
    const commands = this.#commands;
    const old = user.domain.did;
    user.domain = rng.pick(this.#domains);
    this.#structures.name(user, rng.chance(0.85));
    this.#notes.push(`${hex(user.rid)} PASID ${user.pasid} moved`);
    if (this.#mutated || this.#kind.cachingMode || rng.chance(0.2)) {
      this.#invalidateAll();
      return;
    }
    if (!this.#scalable) {
      if (rng.chance(0.5)) commands.contextDevice(old, user.rid, rng.pick([0, 0, 1, 2, 3]));
      else commands.contextDomain(old);
    } else if (rng.chance(0.5)) commands.pasidCache(old, this.#tag(user));
    else commands.pasidCacheDomain(old);
    commands.iotlbDomain(old);
    commands.wait(this.#script.allocate());
  }

  /** Faults that find the record taken: of functions that have no context-entry. */
  #pileUp(): void {
    const rng = this.#rng;
    const users = this.#structures.users.map(({ rid }) => rid);
    const strangers = this.#rids.filter((rid) => !users.includes(rid));
    this.#notes.push('faults pile up');
    for (let n = 0; n < 5; n++) {
      const address = BigInt(rng.below(0x1000_0000));
      request(
        this.#script,
        { rid: rng.pick(strangers), pasid: -1, access: rng.pick([1, 2]), address },
        n < 3,
      );
    }
  }

  #end(): void {
    const script = this.#script;
    const names = ['GSTS', 'RTADDR', 'FSTS', 'FECTL', 'IQH', 'IQT', 'IQA', 'ICS', 'IECTL'] as const;
    const size = (name: string): 4 | 8 => (['RTADDR', 'IQH', 'IQT', 'IQA'].includes(name) ? 8 : 4);
    const operations = names.map((name) => load(reg(REG[name]), size(name)));
    script.look('registers at the end', operations, (answers) => {
      return Object.fromEntries(names.map((name) => [name, answers.load()]));
    });
    script.look(MEMORY, [dump(ARENA, script.used)], (answers) => words(answers.dump(), ARENA));
  }
}

/** Words of a dump that are not zero. */
export function words(bytes: Uint8Array, base: number): Record<string, bigint> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found: Record<string, bigint> = {};
  for (let at = 0; at < bytes.length; at += 8) {
    const low = view.getUint32(at, true);
    const high = view.getUint32(at + 4, true);
    if ((low | high) !== 0) found[hex(base + at)] = (BigInt(high) << 32n) | BigInt(low);
  }
  return found;
}

function inInterruptRange(address: bigint): boolean {
  return address >> 20n === 0xfeen;
}
