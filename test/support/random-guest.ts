/**
 * A guest that maps, unmaps, attaches and does DMA at random, on either model, and what it can see
 * of its machine: the same seed is the same guest, wherever it runs.
 */
import { PAGE_BYTES } from '../../src/base/page.js';
import { ACCESS } from '../../src/device/iommu.js';
import type { Machine } from '../../src/sim/machine.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import { VtdDriver } from '../../src/sim/vtd-driver.js';
import type { Rng } from '../fuzz/rng.js';
import { varietyOf } from '../fuzz/world.js';
import { DATA, TABLES } from './rig.js';

export type GuestKind = 'vtd legacy' | 'vtd scalable' | 'smmuv3 polling' | 'smmuv3 messages';

/** What a driver of either model can do. */
interface Unit {
  readonly spaces: readonly Space[];
  /** Faults since the last time, as text. */
  faults(): readonly string[];
  /** Words of memory that completions are written to. */
  status(): readonly number[];
}

interface Space {
  readonly name: string;
  readonly base: bigint;
  /** Requesters and PASIDs that may be attached. */
  readonly users: readonly (readonly [rid: number, pasid: number])[];
  map(input: bigint, gpa: number, bytes: number): void;
  unmap(input: bigint, bytes: number): void;
  /** Without an invalidation. */
  forget(input: bigint, bytes: number): void;
  /** Asks for one that was forgotten. */
  invalidate(input: bigint, bytes: number): void;
  attach(rid: number, pasid: number): void;
  detach(rid: number, pasid: number): void;
}

const WINDOW = 64;
const PAGE = BigInt(PAGE_BYTES);
const RIDS = [0x10, 0x18, 0x20] as const;

function vtdUnit(machine: Machine, rng: Rng, scalable: boolean): Unit {
  const mode = scalable ? 'scalable' : 'legacy';
  const driver = new VtdDriver(machine, { mode, pages: TABLES, variety: varietyOf(rng) });
  driver.start();
  const kinds = scalable
    ? (['first', 'first', 'second'] as const)
    : (['second', 'second', 'second'] as const);
  const spaces = kinds.map((kind, n): Space => {
    const domain = driver.createDomain(kind);
    const pasids = scalable ? [-1, 5] : [-1];
    return {
      name: `${kind} ${n}`,
      base: 0x4000_0000n,
      users: RIDS.flatMap((rid) => pasids.map((pasid) => [rid, pasid] as const)),
      map: (input, gpa, bytes) => driver.map(domain, input, gpa, bytes),
      unmap: (input, bytes) => driver.unmap(domain, input, bytes),
      forget: (input, bytes) => domain.table?.unmap(input, bytes),
      invalidate: (input, bytes) => {
        driver.invalidateRange(domain, input, bytes);
        driver.invalidate.sync();
      },
      attach: (rid, pasid) => driver.attach(rid, domain, pasid < 0 ? {} : { pasid }),
      detach: (rid, pasid) => driver.detach(rid, domain, pasid < 0 ? undefined : pasid),
    };
  });
  const { queue } = driver;
  return {
    spaces,
    faults: () =>
      driver.faults
        .drain()
        .map((record) => `${record.reason} ${record.rid} ${record.pasid} ${record.address} ${record.type}`),
    status: () => (queue === undefined ? [] : [queue.completed()]),
  };
}

function smmuUnit(machine: Machine, rng: Rng, messages: boolean): Unit {
  const driver = new SmmuDriver(machine, {
    pages: TABLES,
    sync: messages ? 'message' : 'poll',
    variety: varietyOf(rng),
    queueLog2: 5,
  });
  driver.start();
  const kinds = ['first', 'second', 'first'] as const;
  const spaces = kinds.map((kind, n): Space => {
    const domain = driver.createDomain(kind);
    return {
      name: `${kind} ${n}`,
      base: 0x4000_0000n,
      users: RIDS.map((rid) => [rid, -1] as const),
      map: (input, gpa, bytes) => driver.map(domain, input, gpa, bytes),
      unmap: (input, bytes) => driver.unmap(domain, input, bytes),
      forget: (input, bytes) => void domain.table?.unmap(input, bytes),
      invalidate: (input, bytes) => {
        driver.invalidateRange(domain, input, bytes);
        driver.queue.sync();
      },
      attach: (rid) => driver.attach(rid, domain),
      detach: (rid) => driver.detach(rid),
    };
  });
  return {
    spaces,
    faults: () =>
      driver.events.drain().map((event) => `${event.name} ${event.sid} ${event.ssid} ${event.address}`),
    status: () => [machine.ram.load32(driver.queue.status) >>> 0, driver.queue.consumed()],
  };
}

/** What a guest has seen after one of its steps. */
interface Sight {
  readonly step: string;
  readonly registers: string;
  readonly status: readonly number[];
  readonly reached: readonly string[];
  readonly faults: readonly string[];
}

export class RandomGuest {
  readonly #rng: Rng;
  readonly #forgets: boolean;
  readonly #unit: Unit;
  /** What each requester and PASID is attached to. */
  readonly #users = new Map<
    string,
    { readonly space: Space; readonly rid: number; readonly pasid: number }
  >();
  /** Pages that are mapped, by space. */
  readonly #mapped = new Map<Space, Set<number>>();
  /** Ranges whose invalidation was forgotten. */
  readonly #forgotten: { readonly space: Space; readonly input: bigint; readonly bytes: number }[] = [];

  /** @param forgets invalidations now and then, for a while */
  constructor(
    kind: GuestKind,
    readonly machine: Machine,
    rng: Rng,
    forgets: boolean,
  ) {
    this.#rng = rng;
    this.#forgets = forgets;
    this.#unit = kind.startsWith('vtd')
      ? vtdUnit(machine, rng, kind === 'vtd scalable')
      : smmuUnit(machine, rng, kind === 'smmuv3 messages');
    for (const space of this.#unit.spaces) this.#mapped.set(space, new Set());
  }

  /** Does something, to its completion, and looks around. */
  step(): Sight {
    const step = this.#act();
    const reached = Array.from({ length: 4 }, () => this.#dma());
    // Its own registers, as they are when all that was written is done.
    this.machine.readRegister(0, 4);
    return {
      step,
      registers: this.#registers(),
      status: this.#unit.status(),
      reached,
      faults: this.#unit.faults(),
    };
  }

  #act(): string {
    const rng = this.#rng;
    const space = rng.pick(this.#unit.spaces);
    const mapped = this.#mapped.get(space) as Set<number>;
    const first = rng.below(WINDOW);
    const count = Math.min(1 + rng.below(8), WINDOW - first);
    const pages = Array.from({ length: count }, (_, n) => first + n);
    const input = space.base + BigInt(first) * PAGE;
    switch (rng.below(8)) {
      case 0:
      case 1: {
        if (pages.some((page) => mapped.has(page))) return 'nothing';
        const gpa = DATA + rng.below(1024) * PAGE_BYTES;
        for (const page of pages) mapped.add(page);
        space.map(input, gpa, count * PAGE_BYTES);
        return `map ${space.name} ${first}+${count} to 0x${gpa.toString(16)}`;
      }
      case 2:
      case 3:
      case 4:
        for (const page of pages) mapped.delete(page);
        if (this.#forgets && rng.chance(0.3)) {
          space.forget(input, count * PAGE_BYTES);
          this.#forgotten.push({ space, input, bytes: count * PAGE_BYTES });
          return `forget ${space.name} ${first}+${count}`;
        }
        space.unmap(input, count * PAGE_BYTES);
        return `unmap ${space.name} ${first}+${count}`;
      case 5: {
        const forgotten = this.#forgotten.shift();
        if (forgotten === undefined) return 'nothing';
        forgotten.space.invalidate(forgotten.input, forgotten.bytes);
        return `invalidate ${forgotten.space.name} at 0x${forgotten.input.toString(16)}`;
      }
      case 6: {
        const [rid, pasid] = rng.pick(space.users);
        if (this.#users.has(`${rid} ${pasid}`)) return 'nothing';
        this.#users.set(`${rid} ${pasid}`, { space, rid, pasid });
        space.attach(rid, pasid);
        return `attach ${rid} ${pasid} to ${space.name}`;
      }
      default: {
        const users = [...this.#users];
        if (users.length < 2 || rng.chance(0.7)) return 'nothing';
        const [name, user] = rng.pick(users);
        this.#users.delete(name);
        user.space.detach(user.rid, user.pasid);
        return `detach ${name}`;
      }
    }
  }

  /** One access, and where it landed. */
  #dma(): string {
    const rng = this.#rng;
    const users = [...this.#users.values()];
    if (users.length === 0) return 'no user';
    const { space, rid, pasid } = rng.pick(users);
    const address = space.base + BigInt(rng.below(WINDOW)) * PAGE + BigInt(rng.below(1024) * 4);
    const access = rng.pick([ACCESS.READ, ACCESS.WRITE]);
    const found = this.machine.translate(rid, pasid, access, address);
    return `${rid} ${pasid} ${access} 0x${address.toString(16)}: ${found === undefined ? 'refused' : found.gpa}`;
  }

  #registers(): string {
    const { machine } = this;
    const words: string[] = [];
    // The first page of either model, and the second register page of an SMMU.
    for (const base of machine.registerBytes > 0x1_0000 ? [0, 0x1_0000] : [0]) {
      for (let at = base; at < base + 0x300; at += 4) {
        const value = machine.readRegister(at, 4);
        if (value !== 0n) words.push(`${at.toString(16)}=${value.toString(16)}`);
      }
    }
    return words.join(' ');
  }
}
