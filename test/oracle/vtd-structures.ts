/** Root, context and PASID structures of the VT-d cases, in either mode. VT-d §9.1 to §9.6 */
import type { Rng } from '../fuzz/rng.js';
import type { Script } from './script.js';
import { type Domain, isFirst, MASK52 } from './vtd-tables.js';

const P = 1n;
const PGTT: Readonly<Record<Domain['stage'], bigint>> = {
  first: 1n,
  second: 2n,
  nested: 3n,
  'pass-through': 4n,
};

/** A requester that is given a domain. */
export interface User {
  readonly rid: number;
  /** −1 = requests without PASID. */
  readonly pasid: number;
  domain: Domain;
  /**
   * Where the entry is that names the domain: a context-entry in legacy mode, a PASID-table entry.
   */
  readonly entry: number;
}

/** The structures of one root table. */
export class Structures {
  readonly #script: Script;
  readonly #rng: Rng;
  /**
   * The unit has flags of the second stage and the extended Accessed flag, and first stages of 5
   * levels.
   */
  readonly #flags: boolean;
  readonly root: number;
  readonly users: User[] = [];
  /** Words worth making wrong: root, context, PASID-directory and PASID-table entries. */
  readonly words: { readonly address: number; readonly what: string }[] = [];
  readonly #contexts = new Map<
    number,
    { readonly entry: number; readonly directory: number; readonly own: number }
  >();

  constructor(
    script: Script,
    rng: Rng,
    readonly scalable: boolean,
    flags = false,
  ) {
    this.#script = script;
    this.#rng = rng;
    this.#flags = flags;
    this.root = script.allocate();
  }

  attach(rid: number, pasid: number, domain: Domain): User {
    const entry = this.scalable ? this.#pasidEntry(rid, pasid) : this.#context(rid, 16);
    const user = { rid, pasid, domain, entry };
    this.users.push(user);
    this.name(user);
    return user;
  }

  /** PASID that requests without PASID use (RID_PASID). */
  ownPasid(rid: number): number {
    return this.#contexts.get(rid)?.own ?? 0;
  }

  /** Writes the entry of a user: its domain as it now is. */
  name(user: User, present = true): void {
    const script = this.#script;
    const rng = this.#rng;
    const { domain, entry } = user;
    const pointer = BigInt(domain.root);
    const low = (present ? P : 0n) | (rng.chance(0.08) ? 2n : 0n);
    const width = BigInt(domain.levels - 2);
    if (!this.scalable) {
      const type = domain.stage === 'pass-through' ? 2n : 0n;
      script.store(entry + 8, width | (BigInt(domain.did) << 8n), 'context high');
      script.store(entry, low | (type << 2n) | pointer, 'context low');
      return;
    }
    const first = isFirst(domain.stage) ? pointer + domain.offset : 0n;
    const below = domain.second === undefined ? 0n : BigInt(domain.second.root);
    const second = domain.stage === 'first' ? 0n : domain.stage === 'nested' ? below : pointer;
    const levels = domain.second?.levels ?? domain.levels;
    // Page walks snoop: without it an Accessed bit that needs setting is a fault, and the stock
    // model has none.
    const snoop = this.#flags && rng.chance(0.05) ? 0n : 1n << 23n;
    const mode = isFirst(domain.stage) && domain.levels === 5 ? 4n : 0n;
    const extended = this.#flags && isFirst(domain.stage) && rng.chance(0.3) ? 0x80n : 0n;
    const dirty = this.#flags && domain.stage !== 'first' && rng.chance(0.5) ? 0x200n : 0n;
    script.store(entry + 16, first | mode | extended, 'PASID entry 2');
    script.store(entry + 8, BigInt(domain.did) | snoop, 'PASID entry 1');
    const shape = (BigInt(levels - 2) << 2n) | (PGTT[domain.stage] << 6n) | dirty;
    script.store(entry, low | shape | second, 'PASID entry 0');
  }

  /** The slot of a context-entry, in a table that is made if need be. */
  #context(rid: number, bytes: number): number {
    const script = this.#script;
    const [bus, devfn] = [rid >> 8, rid & 0xff];
    const upper = bytes === 32 && devfn >= 128;
    const slot = this.root + bus * 16 + (upper ? 8 : 0);
    if (script.word(slot) === 0n) {
      script.store(slot, BigInt(script.allocate()) | P, 'root entry');
      this.words.push({ address: slot, what: 'root entry' });
    }
    const entry = Number(script.word(slot) & MASK52) + (bytes === 32 ? devfn & 127 : devfn) * bytes;
    for (let at = 0; at < bytes; at += 8) this.words.push({ address: entry + at, what: `context +${at}` });
    return entry;
  }

  #pasidEntry(rid: number, pasid: number): number {
    const script = this.#script;
    const rng = this.#rng;
    let context = this.#contexts.get(rid);
    if (context === undefined) {
      const entry = this.#context(rid, 32);
      const own = rng.pick([0, 0, 0, 1, 70]);
      context = { entry, own, directory: script.allocate() };
      this.#contexts.set(rid, context);
      // PDTS 0: 128 directory entries, so PASIDs below 8192; every next value has twice as many, up
      // to a page of them.
      const pasids = rng.chance(0.9) ? 8n : 0n;
      const size = this.#flags ? BigInt(rng.below(3)) << 9n : 0n;
      script.store(entry + 8, BigInt(own), 'context 1');
      script.store(entry, BigInt(context.directory) | P | pasids | size, 'context 0');
    }
    const number = pasid < 0 ? context.own : pasid;
    const slot = context.directory + (number >> 6) * 8;
    if (script.word(slot) === 0n) {
      script.store(slot, BigInt(script.allocate()) | P, 'PASID-directory entry');
      this.words.push({ address: slot, what: 'PASID-directory entry' });
    }
    const entry = Number(script.word(slot) & MASK52) + (number & 63) * 64;
    for (const at of [0, 8, 16]) this.words.push({ address: entry + at, what: `PASID entry +${at}` });
    return entry;
  }
}
