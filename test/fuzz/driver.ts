import { ACCESS, SPAN_WORDS } from '../../src/device/iommu.js';
import { throughSpan } from '../../src/sim/sim-iotlb.js';
import type { VtdDomain } from '../../src/sim/vtd-driver.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';
import {
  attachOptions,
  DATA,
  describeUser,
  makeWorld,
  outputOf,
  PASIDS,
  pickUser,
  RIDS,
  type User,
  WINDOW,
  type World,
  windowOf,
} from './world.js';

const STEPS = 120;

interface Page {
  readonly gpa: number;
  readonly rights: number;
}

/**
 * A driver that does everything right, at random. After each of its steps, what devices reach,
 * through the bridge's cache and the model's, is exactly what the driver has mapped: a missed
 * invalidation, a completion that comes too early, or a span that covers too much is found here.
 */
export class DriverFuzzer implements Fuzzer {
  readonly #alone: boolean;
  readonly name = 'driver';
  #checks = 0;
  #carriedOut = 0;

  /** @param alone only with bridges that may carry out plain commands all the time */
  constructor(alone = false) {
    this.#alone = alone;
  }

  facts(): Readonly<Record<string, number>> {
    return { checks: this.#checks, carriedOut: this.#carriedOut };
  }

  run(rng: Rng, trace: Trace): void {
    const world = makeWorld(rng, trace, this.#alone);
    const play = new Play(rng, trace, world);
    for (let step = 0; step < STEPS; step++) play.step();
    this.#checks += play.checks;
    this.#carriedOut += world.machine.peerQueue?.commands ?? 0;
  }
}

class Play {
  readonly #rng: Rng;
  readonly #trace: Trace;
  readonly #world: World;
  checks = 0;
  /** While the driver is between the beginning of a change and its completion. */
  #changing = false;
  /** What each domain maps, by page number within its window. */
  readonly #pages = new Map<VtdDomain, Map<number, Page>>();
  /** What each requester and PASID is attached to. */
  readonly #users = new Map<string, { readonly user: User; readonly domain: VtdDomain }>();

  constructor(rng: Rng, trace: Trace, world: World) {
    this.#rng = rng;
    this.#trace = trace;
    this.#world = world;
    for (const domain of world.domains) this.#pages.set(domain, new Map());
    world.machine.onSpans = (rid, pasid, spans) => {
      if (!this.#changing) this.#checkSpans(rid, pasid, spans);
    };
    world.machine.onIdle = () => this.#accessWhileDriverWaits();
  }

  step(): void {
    this.#changing = true;
    this.#act();
    this.#changing = false;
    for (let n = 0; n < 3; n++) this.#check();
    this.#world.driver.faults.drain();
    this.#world.machine.outputs.events.length = 0;
    this.#world.machine.interrupts.length = 0;
  }

  #act(): void {
    const rng = this.#rng;
    const what = rng.below(10);
    const domain = rng.pick(this.#world.domains);
    if (what < 3 && domain.table !== undefined) this.#map(domain);
    else if (what < 5 && domain.table !== undefined) this.#unmap(domain);
    else if (what === 5) this.#attach(domain);
    else if (what === 6 && rng.chance(0.4)) this.#detach();
    else if (what === 7) this.#replace(domain);
  }

  /** A device does not wait for the driver: what it gets while things change may be old or new. */
  #accessWhileDriverWaits(): void {
    const rng = this.#rng;
    if (!this.#changing || !rng.chance(0.3)) return;
    const { user, address, access } = this.#anyRequest();
    this.#trace.say(`in between ${describeUser(user)} access ${access} at 0x${address.toString(16)}`);
    this.#world.machine.translate(user.rid, user.pasid, access, address);
  }

  #anyRequest(): { readonly user: User; readonly address: bigint; readonly access: number } {
    const rng = this.#rng;
    const user: User = { rid: rng.pick(RIDS), pasid: rng.pick(PASIDS) };
    const domain = this.#users.get(describeUser(user))?.domain ?? rng.pick(this.#world.domains);
    const base = domain.table === undefined ? BigInt(DATA) : windowOf(domain);
    const address = base + BigInt(rng.below(WINDOW + 2)) * 4096n + BigInt(rng.below(1024) * 4);
    return { user, address, access: rng.pick([ACCESS.READ, ACCESS.WRITE]) };
  }

  #map(domain: VtdDomain): void {
    const rng = this.#rng;
    const pages = this.#pages.get(domain) as Map<number, Page>;
    const first = rng.below(WINDOW);
    const count = Math.min(1 + rng.below(8), WINDOW - first);
    const rights = rng.pick([ACCESS.READ, ACCESS.READ | ACCESS.WRITE, ACCESS.READ | ACCESS.WRITE]);
    const gpa = DATA + rng.below(256) * 4096;
    for (let n = 0; n < count; n++) if (pages.has(first + n)) return;
    this.#trace.say(`map did ${domain.did} page ${first}+${count} to 0x${gpa.toString(16)} rights ${rights}`);
    const input = windowOf(domain) + BigInt(first) * 4096n;
    const allowed = { read: true, write: (rights & ACCESS.WRITE) !== 0 };
    for (let n = 0; n < count; n++) pages.set(first + n, { gpa: gpa + n * 4096, rights });
    this.#world.driver.map(domain, input, outputOf(domain, gpa), count * 4096, allowed);
  }

  #unmap(domain: VtdDomain): void {
    const rng = this.#rng;
    const pages = this.#pages.get(domain) as Map<number, Page>;
    const first = rng.below(WINDOW);
    const count = Math.min(1 + rng.below(8), WINDOW - first);
    this.#trace.say(`unmap did ${domain.did} page ${first}+${count}`);
    const input = windowOf(domain) + BigInt(first) * 4096n;
    for (let n = 0; n < count; n++) pages.delete(first + n);
    this.#world.driver.unmap(domain, input, count * 4096);
  }

  #attach(domain: VtdDomain): void {
    const user = pickUser(this.#rng, this.#world.driver);
    const name = describeUser(user);
    if (this.#users.has(name)) return;
    this.#trace.say(`attach ${name} to did ${domain.did} (${domain.kind}, ${domain.levels} levels)`);
    this.#world.driver.attach(user.rid, domain, attachOptions(user));
    this.#users.set(name, { user, domain });
  }

  #detach(): void {
    const users = [...this.#users.entries()];
    if (users.length === 0) return;
    const [name, { user, domain }] = this.#rng.pick(users);
    this.#trace.say(`detach ${name} from did ${domain.did}`);
    this.#users.delete(name);
    this.#world.driver.detach(user.rid, domain, attachOptions(user).pasid);
  }

  #replace(to: VtdDomain): void {
    const users = [...this.#users.entries()];
    if (users.length === 0) return;
    const [name, { user, domain }] = this.#rng.pick(users);
    if (domain === to || domain.did === to.did) return;
    this.#trace.say(`replace did ${domain.did} of ${name} by did ${to.did} (${to.kind})`);
    this.#users.set(name, { user, domain: to });
    this.#world.driver.replace(user.rid, domain, to, attachOptions(user));
  }

  /** One request, of anybody to anywhere; its outcome is known. */
  #check(): void {
    const { user, address, access } = this.#anyRequest();
    const domain = this.#users.get(describeUser(user))?.domain;
    const found = this.#world.machine.translate(user.rid, user.pasid, access, address);
    const expected = this.#truth(user, address, access);
    const text = `${describeUser(user)} access ${access} at 0x${address.toString(16)}`;
    this.#trace.say(`check ${text}`);
    const { options, machine } = this.#world;
    const kind =
      domain === undefined ? 'no domain' : `did ${domain.did} ${domain.kind} ${domain.levels} levels`;
    must(
      found?.gpa === expected,
      () =>
        `${text} (${kind}, ${JSON.stringify(options)}) gives ${show(found?.gpa)}, not ${show(expected)}; ` +
        `last event ${JSON.stringify(machine.outputs.events.at(-1))}`,
    );
    this.checks++;
  }

  /** Where an access must land; undefined = refused. */
  #truth(user: User, address: bigint, access: number): number | undefined {
    const domain = this.#users.get(describeUser(user))?.domain;
    if (domain === undefined) return undefined;
    if (domain.table === undefined) return Number(address);
    const offset = address - windowOf(domain);
    if (offset < 0n || offset >= BigInt(WINDOW) * 4096n) return undefined;
    const page = this.#pages.get(domain)?.get(Number(offset >> 12n));
    if (page === undefined || (page.rights & access) !== access) return undefined;
    return page.gpa + Number(address & 0xfffn);
  }

  /** Every page of every span handed out is as mapped, with no more rights. */
  #checkSpans(rid: number, pasid: number, spans: readonly number[]): void {
    const domain = this.#users.get(describeUser({ rid, pasid }))?.domain;
    if (domain?.table === undefined) return;
    for (let at = 0; at < spans.length; at += SPAN_WORDS) {
      const input = (BigInt(spans[at + 1]) << 32n) | BigInt(spans[at]);
      const pages = 2 ** (spans[at + 4] - 12);
      must(pages <= WINDOW, () => `span of ${pages} pages at 0x${input.toString(16)}`);
      for (let n = 0; n < pages; n++) {
        const address = input + BigInt(n) * 4096n;
        const { gpa, permissions } = throughSpan(spans, at, address);
        const expected = this.#truth({ rid, pasid }, address, permissions & 3);
        must(
          gpa === expected,
          () => `span at 0x${address.toString(16)} leads to ${show(gpa)}, not ${show(expected)}`,
        );
      }
    }
  }
}

function show(gpa: number | undefined): string {
  return gpa === undefined ? 'a refusal' : `0x${gpa.toString(16)}`;
}
