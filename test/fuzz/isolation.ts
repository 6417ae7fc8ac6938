import { type Plan, plan, type Strategy } from '../../src/assignment/planner.js';
import {
  DEVICE_KINDS,
  type DeviceKind,
  fullHost,
  HOST_KINDS,
  type HostKind,
  type Mode,
  nativeGuest,
} from '../../src/assignment/request.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { CAUSE } from '../../src/shadow/check.js';
import type { CompletionWatch } from '../support/completion-watch.js';
import { dmaRead, dmaWrite, leftovers } from '../support/host-rig.js';
import type { CellGuest } from '../table/guest.js';
import { makeWiredGuest } from '../table/wired.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';

const STEPS = 300;
const HOST_RID = 0x0108;
const PAGE = 4096;
/** Input pages that are mapped from, and where they begin. */
const INPUTS = 24;
const BASE = 0x4000_0000;
/** Pages of data in each guest, and where they begin. */
const DATA_PAGES = 32;
const DATA = 0x10_0000;
/** Address spaces that one guest has at a time, beside that of requests without PASID. */
const MOST_PASIDS = 5;

/** Each has a daemon for each kind of host. */
export const FORCED_MODES = ['shadow', 'nest'] as const;

/** The socket of a daemon for this host and mode. */
type SocketOf = (kind: HostKind, mode: Mode) => string;

/** A way of serving a guest, with PASIDs or without. */
interface Cell {
  readonly kind: HostKind;
  readonly device: DeviceKind;
  readonly pasids: boolean;
  readonly mode: Mode;
  readonly strategy: Strategy;
}

const CELLS: readonly Cell[] = HOST_KINDS.flatMap((kind) =>
  DEVICE_KINDS.flatMap((device) =>
    [false, true].flatMap((pasids) =>
      FORCED_MODES.flatMap((mode): Cell[] => {
        const planned: Plan = plan({ device, guest: nativeGuest(kind), pasids, mode, host: fullHost(kind) });
        return planned.ok ? [{ kind, device, pasids, mode, strategy: planned }] : [];
      }),
    ),
  ),
);

/**
 * What a guest may reach, kept here and nowhere else: data page by input page, for each PASID (−1:
 * without).
 */
class Model {
  readonly spaces = new Map<number, Map<number, number>>();
  /** First two words of each data page. */
  readonly words: number[][];

  constructor(readonly index: number) {
    this.words = Array.from({ length: DATA_PAGES }, (_, page) => [((index + 1) << 24) | page, 0]);
    this.spaces.set(-1, new Map());
  }
}

/**
 * Two guests, VMs of their own at a daemon, one host (mdevs: one parent device), random operations.
 * After each one every device reaches what its guest has mapped and nothing else, and no word of
 * the other guest has changed. Each daemon checks each completion from outside, as
 * `viommu diff --watch` has it do: the host has followed what the guest invalidated.
 */
export class IsolationFuzzer implements Fuzzer {
  readonly #socketOf: SocketOf;
  readonly #watch: CompletionWatch;
  readonly name = 'isolation';
  #probes = 0;
  #refused = 0;
  #completions = 0;

  constructor(socketOf: SocketOf, watch: CompletionWatch) {
    this.#socketOf = socketOf;
    this.#watch = watch;
  }

  facts(): Readonly<Record<string, number>> {
    return { probes: this.#probes, refused: this.#refused, completions: this.#completions };
  }

  run(rng: Rng, trace: Trace): void {
    const play = new Play(rng, trace, rng.pick(CELLS), this.#socketOf, this.#watch);
    for (let step = 0; step < STEPS; step++) play.step();
    play.end();
    this.#probes += play.probes;
    this.#refused += play.refused;
    this.#completions += play.completions;
  }
}

/**
 * Machines have names of their own: one that goes may be known for a moment while the next one is
 * there.
 */
let machines = 0;

class Play {
  readonly #rng: Rng;
  readonly #trace: Trace;
  readonly #cell: Cell;
  readonly #socketOf: SocketOf;
  readonly #watch: CompletionWatch;
  probes = 0;
  refused = 0;
  /** Completions of shadowed guests that were checked. */
  completions = 0;
  readonly #host: SimHost;
  readonly #guests: CellGuest[];
  readonly #names = ['', ''];
  readonly #models = [new Model(0), new Model(1)];
  /** vt-d2 nests with PASID only: requests without are the guest's memory as it is. */
  readonly #ownSpace: boolean;

  constructor(rng: Rng, trace: Trace, cell: Cell, socketOf: SocketOf, watch: CompletionWatch) {
    this.#rng = rng;
    this.#trace = trace;
    this.#cell = cell;
    this.#socketOf = socketOf;
    this.#watch = watch;
    const { kind, device, strategy } = cell;
    trace.say(`${kind}, ${device}, ${strategy.choice}, PASIDs ${cell.pasids}`);
    this.#host = new SimHost({ kind, tableBytes: 2 ** 24 });
    if (device === 'mdev') this.#host.addParent(HOST_RID);
    this.#ownSpace = !(kind === 'vtd2' && strategy.choice === 'nest');
    this.#guests = [0, 1].map((index) => this.#makeGuest(index));
  }

  #makeGuest(index: number): CellGuest {
    const { kind, device, strategy, pasids, mode } = this.#cell;
    const hostRid = device === 'mdev' ? HOST_RID : HOST_RID + index;
    const name = `${index} of ${++machines}`;
    const making = { host: this.#host, kind, deviceKind: device, name, hostRid, strategy, pasids };
    const made = makeWiredGuest(making, this.#socketOf(kind, mode));
    this.#names[index] = name;
    this.#checked(index);
    this.#models[index] = new Model(index);
    for (const [page, words] of this.#models[index].words.entries()) {
      words.forEach((word, at) => {
        made.ram.store32(DATA + page * PAGE + at * 4, word);
      });
    }
    return made;
  }

  step(): void {
    const rng = this.#rng;
    const index = rng.below(2);
    const pasids = [...this.#models[index].spaces.keys()].filter((pasid) => pasid >= 0 || this.#ownSpace);
    const pasid = pasids.length === 0 ? undefined : rng.pick(pasids);
    switch (rng.below(11)) {
      case 0:
        this.#create(index);
        break;
      case 1:
        this.#destroy(index);
        break;
      case 2:
        this.#foreignPasid(index);
        break;
      case 3:
        if (rng.chance(0.1)) this.#replace(index);
        else if (rng.chance(0.2)) this.#restart(index);
        else if (this.#cell.strategy.choice === 'nest') this.#host.failures.arm('invalidate', rng.below(3));
        break;
      case 4:
      case 5:
        if (pasid !== undefined) this.#unmap(index, pasid);
        break;
      case 6:
        if (pasid !== undefined) this.#exchange(index, pasid);
        break;
      default:
        if (pasid !== undefined) this.#map(index, pasid);
    }
    // Before devices are tried: they would find only what they happen to reach.
    this.#checked(index);
    this.#check();
  }

  /** What the guest's daemon has found by now; returns how many completions it has looked at. */
  #checked(index: number): number {
    const { kind, mode } = this.#cell;
    const { completions, differences, more } = this.#watch.ask(
      this.#socketOf(kind, mode),
      this.#names[index],
    );
    const found = differences.find(({ cause }) => cause === CAUSE.NOT_FOLLOWED);
    must(found === undefined && !more, () => `guest ${index}: not followed: ${JSON.stringify(found)}`);
    return completions;
  }

  #close(index: number): void {
    const completions = this.#checked(index);
    if (this.#cell.strategy.choice === 'shadow') this.completions += completions;
    this.#watch.leave(this.#names[index]);
    this.#guests[index].close();
  }

  #map(index: number, pasid: number): void {
    const space = this.#models[index].spaces.get(pasid) as Map<number, number>;
    const input = this.#rng.below(INPUTS);
    const page = this.#rng.below(DATA_PAGES);
    if (space.has(input)) return;
    this.#trace.say(`guest ${index}: map ${input} to ${page}, PASID ${pasid}`);
    this.#guests[index].map(pasid, BASE + input * PAGE, DATA + page * PAGE);
    space.set(input, page);
  }

  #unmap(index: number, pasid: number): void {
    const space = this.#models[index].spaces.get(pasid) as Map<number, number>;
    const input = this.#rng.below(INPUTS);
    if (!space.has(input)) return;
    this.#trace.say(`guest ${index}: unmap ${input}, PASID ${pasid}`);
    this.#guests[index].unmap(pasid, BASE + input * PAGE);
    space.delete(input);
  }

  /** Tags outlive what they were found through. */
  #exchange(index: number, pasid: number): void {
    const first = this.#rng.chance(0.5);
    this.#trace.say(
      `guest ${index}: another space for PASID ${pasid}, translations ${first ? 'first' : 'last'}`,
    );
    this.#guests[index].exchange?.(pasid, first, BASE, INPUTS * PAGE);
    this.#models[index].spaces.set(pasid, new Map());
  }

  #create(index: number): void {
    const { spaces } = this.#models[index];
    if (!this.#cell.pasids || spaces.size > MOST_PASIDS) return;
    const pasid = this.#guests[index].createPasid();
    this.#trace.say(`guest ${index}: PASID ${pasid}`);
    must(!spaces.has(pasid), () => `PASID ${pasid} was given twice`);
    if (this.#cell.strategy.pv !== 'none') {
      must(!this.#models[1 - index].spaces.has(pasid), () => `PASID ${pasid} is the other guest's`);
    }
    spaces.set(pasid, new Map());
  }

  #destroy(index: number): void {
    const pasids = [...this.#models[index].spaces.keys()].filter((pasid) => pasid >= 0);
    if (pasids.length === 0) return;
    const pasid = this.#rng.pick(pasids);
    this.#trace.say(`guest ${index}: PASID ${pasid} goes`);
    this.#guests[index].destroyPasid(pasid);
    this.#models[index].spaces.delete(pasid);
  }

  /** DMA with a PASID that the guest does not have: refused, and the other guest hears nothing. */
  #foreignPasid(index: number): void {
    const pasid = 1 + this.#rng.below(20);
    if (this.#models[index].spaces.has(pasid) || pasid === this.#guests[index].device.own) return;
    this.#trace.say(`guest ${index}: DMA with PASID ${pasid}`);
    for (const guest of this.#guests) guest.faults();
    const address = BASE + this.#rng.below(INPUTS) * PAGE;
    const moved = dmaWrite(this.#guests[index].device, address, [0xbad], pasid);
    must(moved === 0, () => `DMA with PASID ${pasid} went through`);
    must((this.#guests[index].faults() ?? []).length === 1, () => 'no fault for the guest that did it');
    must((this.#guests[1 - index].faults() ?? []).length === 0, () => 'a fault for the other guest');
  }

  /** A guest goes, and another one comes in its place. */
  #replace(index: number): void {
    this.#trace.say(`guest ${index} goes, another one comes`);
    this.#close(index);
    this.#guests[index] = this.#makeGuest(index);
  }

  /** Machine reset: the guest has nothing mapped and no PASIDs, and begins anew. */
  #restart(index: number): void {
    this.#trace.say(`guest ${index}: reset`);
    this.#guests[index].restart();
    const { spaces } = this.#models[index];
    spaces.clear();
    spaces.set(-1, new Map());
  }

  #check(): void {
    const rng = this.#rng;
    for (const [index, model] of this.#models.entries()) {
      for (const [pasid, space] of model.spaces) {
        if (pasid < 0 && !this.#ownSpace) continue;
        for (let count = 0; count < 3; count++) this.#probe(index, pasid, rng.below(INPUTS), space);
      }
    }
    for (const guest of this.#guests) guest.faults();
    for (const [index, { words }] of this.#models.entries()) this.#checkMemory(index, words);
    const { violations } = this.#host;
    must(violations.length === 0, () => violations.join('; '));
  }

  #probe(index: number, pasid: number, input: number, space: ReadonlyMap<number, number>): void {
    this.probes++;
    const { device } = this.#guests[index];
    const page = space.get(input);
    const address = BASE + input * PAGE;
    const where = `guest ${index}, PASID ${pasid}, input ${input}`;
    const read = dmaRead(device, address, 2, pasid);
    if (page === undefined) {
      this.refused++;
      must(read === undefined, () => `${where}: reaches ${read?.[0].toString(16)}`);
      must(dmaWrite(device, address, [0xbad], pasid) === 0, () => `${where}: writes`);
      return;
    }
    const words = this.#models[index].words[page];
    must(read?.[0] === words[0] && read[1] === words[1], () => `${where}: reads ${read}, not ${words}`);
    const value = this.#rng.u32();
    must(dmaWrite(device, address + 4, [value], pasid) === 4, () => `${where}: cannot write`);
    words[1] = value;
  }

  #checkMemory(index: number, pages: readonly (readonly number[])[]): void {
    const { ram } = this.#guests[index];
    for (const [page, words] of pages.entries()) {
      words.forEach((word, at) => {
        const there = ram.load32(DATA + page * PAGE + at * 4) >>> 0;
        must(there === word >>> 0, () => `guest ${index}, page ${page}: holds ${there}, not ${word}`);
      });
    }
  }

  end(): void {
    for (const index of [0, 1]) this.#close(index);
    const { choice } = this.#cell.strategy;
    must(choice !== 'shadow' || this.completions > 0, () => 'no completion was checked');
    const left = leftovers(this.#host);
    must(Object.keys(left).length === 0, () => `left over: ${JSON.stringify(left)}`);
  }
}
