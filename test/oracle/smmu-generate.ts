/**
 * Cases for the SMMUv3: structures, a few of them made wrong, transactions, changes with the
 * commands they need.
 */

import { CMD } from '../../src/spec/smmuv3/commands.js';
import { EVENT_BYTES } from '../../src/spec/smmuv3/events.js';
import type { Rng } from '../fuzz/rng.js';
import { load, store } from './operations.js';
import { hex, Script } from './script.js';
import { breakCommands } from './smmu-command-errors.js';
import { CMDQ_LOG2, CommandQueue, tlbi } from './smmu-commands.js';
import { ARENA, ARENA_BYTES, EVENTQ_LOG2, REG, reg, request, type SmmuKind, write } from './smmu-machine.js';
import { type Context, type Half, type Space, type Stream, Streams } from './smmu-streams.js';
import { HOLES, type Leaf, NG, type TableSet } from './smmu-tables.js';
import type { Case } from './suite.js';

/** Functions of bus 0 and of the second bus. */
const DEVFNS = [0x08, 0x10, 0x11, 0x80] as const;
const SECOND_DEVFNS = [0x00, 0x41, 0xff] as const;
/** CR0: SMMUEN, EVENTQEN, CMDQEN. */
const ENABLES = 0xdn;

export function generateSmmu(rng: Rng, kind: SmmuKind): Case {
  return new SmmuCase(rng, kind).make();
}

class SmmuCase {
  readonly #rng: Rng;
  readonly #kind: SmmuKind;
  readonly #script = new Script(ARENA, ARENA_BYTES);
  readonly #notes: string[] = [];
  readonly #rids: readonly number[];
  readonly #streams: Streams;
  readonly #spaces: Space[] = [];
  readonly #commands: CommandQueue;
  readonly #eventQueue: number;
  /**
   * Something was made wrong: who uses which entry is not known any more, so invalidations are of
   * everything.
   */
  #mutated = false;

  constructor(rng: Rng, kind: SmmuKind) {
    this.#rng = rng;
    this.#kind = kind;
    const script = this.#script;
    script.bus = rng.pick([1, 2, 0x42, 0xff]);
    this.#rids = [...DEVFNS, ...SECOND_DEVFNS.map((devfn) => (script.bus << 8) | devfn)];
    this.#commands = new CommandQueue(script);
    this.#eventQueue = script.allocate(EVENT_BYTES << EVENTQ_LOG2);
    this.#streams = new Streams(script, rng, kind);
    this.#notes.push(this.#streams.linear ? 'linear' : '2-level');
  }

  make(): Case {
    const rng = this.#rng;
    this.#build();
    for (let n = rng.pick([0, 0, 1, 1, 2]); n > 0; n--) this.#mutate();
    this.#enable();
    this.#requests(4 + rng.below(8));
    for (let round = rng.below(4); round > 0; round--) {
      this.#change();
      this.#requests(2 + rng.below(4));
    }
    if (rng.chance(0.15)) {
      this.#notes.push(breakCommands(rng, this.#commands, this.#kind));
      this.#requests(2);
    }
    if (rng.chance(0.05)) {
      const abort = BigInt(rng.below(2));
      const off = [
        store(reg(REG.CR0), 4, ENABLES & ~1n),
        store(reg(REG.GBPA), 4, (1n << 31n) | (abort << 20n)),
      ];
      this.#script.look(`SMMUEN off, GBPA.ABORT ${abort}`, [...off, load(reg(REG.CR0ACK), 4)], (answers) => ({
        CR0ACK: answers.load(),
      }));
      this.#requests(2);
    }
    this.#end();
    return { script: this.#script, notes: this.#notes };
  }

  #build(): void {
    const rng = this.#rng;
    for (let n = 1 + rng.below(2); n > 0; n--) this.#spaces.push(this.#streams.space());
    const sids = new Set<number>();
    for (let n = 1 + rng.below(3); n > 0; n--) sids.add(rng.pick(this.#rids));
    for (const sid of sids) this.#streams.attach(sid, rng.pick(this.#spaces));
  }

  #mutate(): void {
    const rng = this.#rng;
    const script = this.#script;
    const sets = this.#tables();
    const entries = sets.flatMap(({ leaves, nodes }) => [...leaves.map(({ entry }) => entry), ...nodes]);
    // Streams that share tags may share translations, whatever each of them is given (§3.17).
    const alone = this.#streams.list.length === 1;
    const words = this.#streams.words.filter(({ what }) => alone || !what.startsWith('STE'));
    const structure = words.length > 0 && (entries.length === 0 || rng.chance(0.5));
    if (!structure && entries.length === 0) return;
    const { address, what } = structure
      ? rng.pick(words)
      : { address: rng.pick(entries), what: 'descriptor' };
    const before = script.word(address);
    const after = this.#wrong(before);
    if (after === before) return;
    this.#mutated = true;
    this.#notes.push(`${what} at ${hex(address)}: ${hex(before)} → ${hex(BigInt.asUintN(64, after))}`);
    script.store(address, after, what);
  }

  #wrong(value: bigint): bigint {
    const rng = this.#rng;
    const address = 0xffff_ffff_f000n;
    switch (rng.below(8)) {
      case 0:
        return value & ~3n;
      case 1:
        return (value & ~address) | rng.pick(HOLES);
      case 2:
        return rng.chance(0.2) ? (1n << 64n) - 1n : 0n;
      case 3:
        return value ^ (1n << BigInt(rng.below(12)));
      case 4:
        return value ^ (1n << BigInt(44 + rng.below(20)));
      default:
        return value ^ this.#bit();
    }
  }

  /** Any bit but those that lead from the arena to flash or registers. */
  #bit(): bigint {
    for (;;) {
      const bit = this.#rng.below(64);
      if (bit !== 30) return 1n << BigInt(bit);
    }
  }

  #tables(): TableSet[] {
    return this.#spaces.flatMap(({ contexts, second }) => [
      ...contexts.flatMap(({ halves }) => halves.map(({ tables }) => tables)),
      ...(second === undefined ? [] : [second]),
    ]);
  }

  #enable(): void {
    const rng = this.#rng;
    const script = this.#script;
    write(script, REG.CR1, 4, 0xd75n, 'CR1');
    write(script, REG.CR2, 4, rng.chance(0.7) ? 2n : 0n, 'CR2');
    this.#streams.program();
    write(script, REG.CMDQ_BASE, 8, BigInt(this.#commands.base) | BigInt(CMDQ_LOG2), 'CMDQ_BASE');
    write(script, REG.EVENTQ_BASE, 8, BigInt(this.#eventQueue) | BigInt(EVENTQ_LOG2), 'EVENTQ_BASE');
    for (const [name, offset] of [
      ['CMDQ_PROD', REG.CMDQ_PROD],
      ['CMDQ_CONS', REG.CMDQ_CONS],
      ['EVENTQ_PROD', REG.EVENTQ_PROD],
      ['EVENTQ_CONS', REG.EVENTQ_CONS],
    ] as const) {
      write(script, offset, 4, 0n, name);
    }
    if (rng.chance(0.1)) this.#requests(1);
    const operations = [store(reg(REG.CR0), 4, ENABLES), load(reg(REG.CR0ACK), 4)];
    script.look('CR0', operations, (answers) => ({ CR0ACK: answers.load() }));
    this.#invalidateAll();
  }

  #invalidateAll(): void {
    const commands = this.#commands;
    commands.cfgiAll();
    commands.everything();
    commands.sync();
  }

  #requests(count: number): void {
    for (let n = 0; n < count; n++) this.#request();
  }

  #request(): void {
    const rng = this.#rng;
    const stream = rng.pick(this.#streams.list);
    const rid = rng.chance(0.05) ? rng.pick(this.#rids) : stream.sid;
    const context = this.#context(stream.space);
    const address = this.#address(stream.space, context?.halves ?? []);
    const pasid = this.#substream(context);
    request(this.#script, { rid, pasid, access: rng.pick([1, 2]), address }, this.#eventQueue);
  }

  #context({ contexts }: Space): Context | undefined {
    return contexts.length > 1 ? this.#rng.pick(contexts) : contexts[0];
  }

  /** −1: none. What context descriptor 0 is for depends on S1DSS. */
  #substream(context: Context | undefined): number {
    const rng = this.#rng;
    const kind = this.#kind;
    if (kind.substreamBits === 0) return -1;
    if (rng.chance(0.05)) return rng.below(2 ** rng.below(14));
    if (context === undefined || context.ssid < 0) return -1;
    return context.ssid === 0 && rng.chance(0.7) ? -1 : context.ssid;
  }

  #address({ second }: Space, first: readonly Half[]): bigint {
    const rng = this.#rng;
    const set = first.length > 0 ? rng.pick(first) : { tables: second, upper: false, tbi: false };
    const { tables, upper, tbi } = set;
    if (tables === undefined || rng.chance(0.12)) return this.#wildAddress(tables);
    const { input, log2 } = tables.leaves.length > 0 ? rng.pick(tables.leaves) : { input: 0n, log2: 12 };
    const size = 1n << BigInt(log2);
    const offset = input + (rng.u64() & (size - 1n)) + (rng.chance(0.08) ? size : 0n);
    const signed = upper ? offset - (1n << BigInt(tables.shape.bits)) : offset;
    const address = BigInt.asUintN(64, signed);
    return tbi && rng.chance(0.5) ? (address & ~(0xffn << 56n)) | (BigInt(rng.below(256)) << 56n) : address;
  }

  #wildAddress(tables: TableSet | undefined): bigint {
    const rng = this.#rng;
    const bits = BigInt(rng.pick([32, 44, 48, tables?.shape.bits ?? 40]));
    switch (rng.below(4)) {
      case 0:
        return rng.odd64();
      case 1:
        return (1n << bits) - 1n - BigInt(rng.below(8192));
      case 2:
        return (1n << bits) + BigInt(rng.below(8192));
      default:
        return rng.u64() & ((1n << bits) - 1n);
    }
  }

  /** A change that a driver would make, and the commands that the architecture asks for. */
  #change(): void {
    const rng = this.#rng;
    const stream = rng.pick(this.#streams.list);
    const { second, config } = stream.space;
    const context = this.#context(stream.space);
    const first = context?.halves ?? [];
    if (context !== undefined && this.#kind.substreamBits > 0 && rng.chance(0.3)) {
      this.#changeContext(stream.space, context);
      return;
    }
    const set = first.length > 0 && rng.chance(0.7) ? rng.pick(first).tables : (second ?? first[0]?.tables);
    // The first leaf of stage 2 is the arena's own.
    const leaves = set === undefined ? [] : set === second && config === 7 ? set.leaves.slice(1) : set.leaves;
    if (set === undefined || leaves.length === 0 || rng.chance(0.3)) this.#moveStream(stream);
    else this.#changeLeaf(stream.space, context, set, rng.pick(leaves));
  }

  /** A context descriptor comes or goes, or records its faults from now on, or not. */
  #changeContext(space: Space, { cd, ssid }: Context): void {
    const rng = this.#rng;
    const commands = this.#commands;
    const bit = rng.pick([31n, 31n, 45n]);
    this.#script.store(cd, this.#script.word(cd) ^ (1n << bit), 'CD changed');
    if (this.#mutated || rng.chance(0.2)) {
      this.#invalidateAll();
      return;
    }
    for (const { sid } of this.#streams.list.filter((stream) => stream.space === space)) {
      if (rng.chance(0.7)) commands.cfgiCd(sid, Math.max(0, ssid));
      else commands.cfgiCdAll(sid);
    }
    commands.sync();
  }

  #changeLeaf(space: Space, context: Context | undefined, tables: TableSet, leaf: Leaf): void {
    const rng = this.#rng;
    const before = this.#script.word(leaf.entry);
    const value = rng.chance(0.4) ? 0n : tables.leafValue(leaf.log2);
    this.#script.store(leaf.entry, value, 'leaf changed');
    // Nothing that was not valid is cached (§3.17).
    if ((before & 1n) === 0n && !this.#mutated && rng.chance(0.7)) return;
    if (this.#mutated || rng.chance(0.2)) this.#invalidateAll();
    else if (tables === space.second || context === undefined) this.#invalidateSecond(space, leaf);
    else this.#invalidateFirst(space, context, tables, leaf, (before & NG) === 0n);
  }

  /** `global`: the leaf was for every ASID, so that no one ASID drops it. */
  #invalidateFirst(space: Space, context: Context, tables: TableSet, leaf: Leaf, global: boolean): void {
    const rng = this.#rng;
    const commands = this.#commands;
    const upper = context.halves.some((set) => set.tables === tables && set.upper);
    const address = BigInt.asUintN(64, upper ? leaf.input - (1n << BigInt(tables.shape.bits)) : leaf.input);
    const tags = { ASID: context.asid, VMID: space.vmid };
    const range = rng.chance(0.4) ? this.#range(tables, leaf) : { Leaf: rng.below(2) };
    switch (rng.below(5) + (global ? 1 : 0)) {
      case 0:
        commands.submit('TLBI_NH_ASID', tlbi(CMD.TLBI_NH_ASID, tags));
        break;
      case 1:
        commands.submit('TLBI_NH_ALL', tlbi(CMD.TLBI_NH_ALL, { VMID: space.vmid }));
        break;
      case 2:
        commands.submit(
          `TLBI_NH_VAA ${hex(address)}`,
          tlbi(CMD.TLBI_NH_VAA, { ...range, VMID: space.vmid }, address),
        );
        break;
      default:
        commands.submit(`TLBI_NH_VA ${hex(address)}`, tlbi(CMD.TLBI_NH_VA, { ...range, ...tags }, address));
    }
    commands.sync();
  }

  /** Fields of a range that covers one leaf, whose address it begins at. */
  #range(
    { shape }: TableSet,
    { log2 }: Leaf,
  ): { TG: number; NUM: number; SCALE: number; TTL: number; Leaf: number } {
    const TG = shape.granule === 12 ? 1 : shape.granule === 14 ? 2 : 3;
    // (NUM + 1) × 2^SCALE granules. One granule needs a level (§4.4.1.1).
    const SCALE = log2 - shape.granule;
    const NUM = this.#rng.below(2);
    return { TG, NUM, SCALE, TTL: SCALE === 0 && NUM === 0 ? 3 : 0, Leaf: 1 };
  }

  #invalidateSecond(space: Space, leaf: Leaf): void {
    const rng = this.#rng;
    const commands = this.#commands;
    const tags = { VMID: space.vmid };
    if (rng.chance(0.4)) commands.submit('TLBI_S12_VMALL', tlbi(CMD.TLBI_S12_VMALL, tags));
    else {
      const range =
        rng.chance(0.4) && space.second !== undefined ? this.#range(space.second, leaf) : { Leaf: 1 };
      commands.submit(
        `TLBI_S2_IPA ${hex(leaf.input)}`,
        tlbi(CMD.TLBI_S2_IPA, { ...range, ...tags }, leaf.input),
      );
      commands.sync();
      // What both stages made together is stage 1's to invalidate.
      if (this.#kind.stages === 'nested') commands.submit('TLBI_NH_ALL', tlbi(CMD.TLBI_NH_ALL, tags));
    }
    commands.sync();
  }

  /** Another configuration for a stream, or none. */
  #moveStream(stream: Stream): void {
    const rng = this.#rng;
    const commands = this.#commands;
    stream.space = rng.pick(this.#spaces);
    this.#streams.name(stream, rng.chance(0.85));
    this.#notes.push(`stream ${hex(stream.sid)} moved`);
    if (this.#mutated || rng.chance(0.2)) {
      this.#invalidateAll();
      return;
    }
    if (rng.chance(0.6)) commands.cfgiSte(stream.sid);
    else commands.cfgiRange(stream.sid, rng.below(8));
    if (this.#kind.stages !== '2' && rng.chance(0.3)) commands.cfgiCdAll(stream.sid);
    commands.sync();
  }

  #end(): void {
    const script = this.#script;
    // Event queue indexes depend on how many events there were.
    const names = ['CR0', 'CR0ACK', 'CMDQ_PROD', 'CMDQ_CONS', 'GERROR', 'GERRORN'] as const;
    const wide = ['STRTAB_BASE', 'CMDQ_BASE', 'EVENTQ_BASE'] as const;
    const operations = [
      ...names.map((name) => load(reg(REG[name]), 4)),
      ...wide.map((name) => load(reg(REG[name]), 8)),
    ];
    script.look('registers at the end', operations, (answers) => {
      return Object.fromEntries([...names, ...wide].map((name) => [name, answers.load()]));
    });
  }
}
