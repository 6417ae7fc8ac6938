import { ACCESS, SPAN_WORDS } from '../../src/device/iommu.js';
import { AtsDevice } from '../../src/sim/ats-device.js';
import { throughSpan } from '../../src/sim/sim-iotlb.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import type { StreamOptions } from '../../src/sim/smmu-driver.js';
import type { SmmuEvent } from '../../src/sim/smmu-output.js';
import { type HeldAccess, StallingDevice } from '../../src/sim/stalling-device.js';
import { PRI_RESP } from '../../src/spec/smmuv3/commands.js';
import { type Fuzzer, must, type Trace } from './fuzzer.js';
import type { Rng } from './rng.js';
import {
  dataPage,
  makeSmmuWorld,
  SIDS,
  type SmmuUser,
  type SmmuWorld,
  SSIDS,
  showUser,
  smmuOutput,
  smmuWindow,
} from './smmu-world.js';
import { WINDOW } from './world.js';

const STEPS = 100;
/** Events that one step may make; more would mean that they never end. */
const MOST_EVENTS = 10_000;

interface Page {
  readonly gpa: number;
  readonly rights: number;
}

interface Attached {
  readonly user: SmmuUser;
  readonly domain: SmmuDomain;
  readonly ats: boolean;
}

/**
 * A driver of the SMMUv3 that does everything right, at random, with devices that are translated,
 * translate ahead, ask for pages and wait. What they reach is exactly what is mapped; who waits is
 * told of and goes on once; every group of page requests is answered once.
 */
export class SmmuDriverFuzzer implements Fuzzer {
  readonly #alone: boolean;
  readonly name = 'smmu-driver';
  readonly #facts = { checks: 0, ahead: 0, stalls: 0, groups: 0, carriedOut: 0 };

  /** @param alone only with bridges that may carry out plain commands all the time */
  constructor(alone = false) {
    this.#alone = alone;
  }

  facts(): Readonly<Record<string, number>> {
    return this.#facts;
  }

  run(rng: Rng, trace: Trace): void {
    const world = makeSmmuWorld(rng, trace, this.#alone);
    const play = new Play(rng, trace, world);
    for (let step = 0; step < STEPS; step++) play.step();
    play.end();
    this.#facts.carriedOut += world.machine.peerQueue?.commands ?? 0;
    for (const name of ['checks', 'ahead', 'stalls', 'groups'] as const) this.#facts[name] += play[name];
  }
}

class Play {
  readonly #rng: Rng;
  readonly #trace: Trace;
  readonly #world: SmmuWorld;
  checks = 0;
  ahead = 0;
  stalls = 0;
  groups = 0;
  /** While the driver is between the beginning of a change and its completion. */
  #changing = false;
  /** What each domain maps, by page number within its window. */
  readonly #pages = new Map<SmmuDomain, Map<number, Page>>();
  /** What each stream and SubstreamID is attached to. */
  readonly #users = new Map<string, Attached>();
  readonly #ahead = new Map<number, AtsDevice>();
  readonly #waiting: StallingDevice[] = [];
  /** Groups of page requests that are not answered yet. */
  readonly #groups: { readonly device: AtsDevice; readonly group: number }[] = [];

  constructor(rng: Rng, trace: Trace, world: SmmuWorld) {
    this.#rng = rng;
    this.#trace = trace;
    this.#world = world;
    const { machine } = world;
    for (const domain of world.domains) this.#pages.set(domain, new Map());
    for (const sid of SIDS) {
      this.#ahead.set(sid, new AtsDevice(machine, sid));
      for (const ssid of SSIDS) this.#waiting.push(new StallingDevice(machine, sid, ssid));
    }
    machine.onSpans = (rid, pasid, spans) => {
      if (!this.#changing) this.#checkSpans({ sid: rid, ssid: pasid }, spans);
    };
    machine.onIdle = () => this.#accessWhileDriverWaits();
  }

  step(): void {
    const { machine } = this.#world;
    this.#changing = true;
    this.#act();
    this.#changing = false;
    for (let n = 0; n < 3; n++) this.#check();
    this.#checkAhead();
    for (let n = this.#rng.below(3); n > 0; n--) this.#wait();
    if (this.#world.driver.capabilities.pri && this.#rng.chance(0.3)) this.#requestPages();
    if (this.#rng.chance(0.7)) this.#serveEvents(0.3);
    if (this.#rng.chance(0.7)) this.#servePages();
    machine.outputs.events.length = 0;
    machine.interrupts.length = 0;
    machine.edges.length = 0;
  }

  /** Ends all waits: the driver answers, or the unit is switched off. */
  end(): void {
    this.#servePages();
    must(this.#groups.length === 0, () => `${this.#groups.length} groups of page requests have no answer`);
    const left = (): number => this.#waiting.reduce((sum, device) => sum + device.waiting.length, 0);
    if (this.#rng.chance(0.5)) this.#serveEvents(1);
    else this.#world.driver.stop();
    this.#resume();
    must(left() === 0, () => `${left()} accesses are stalled for ever`);
  }

  #act(): void {
    const rng = this.#rng;
    const what = rng.below(10);
    const domain = rng.pick(this.#world.domains);
    if (what < 3) this.#map(domain);
    else if (what < 5) this.#unmap(domain);
    else if (what < 7) this.#attach(domain);
    else if (what === 7 && rng.chance(0.4)) this.#detach();
  }

  /** A device does not wait for the driver: what it gets while things change may be old or new. */
  #accessWhileDriverWaits(): void {
    const rng = this.#rng;
    if (!this.#changing || !rng.chance(0.3)) return;
    const { user, address, access } = this.#anyRequest();
    this.#trace.say(`in between ${showUser(user)} access ${access} at 0x${address.toString(16)}`);
    if (rng.chance(0.3)) this.#ahead.get(user.sid)?.access(user.ssid, address);
    else this.#world.machine.translate(user.sid, user.ssid, access, address);
  }

  #anyRequest(): { readonly user: SmmuUser; readonly address: bigint; readonly access: number } {
    const rng = this.#rng;
    const attached = [...this.#users.values()];
    const any: SmmuUser = { sid: rng.pick(SIDS), ssid: rng.pick(SSIDS) };
    const user = attached.length > 0 && rng.chance(0.7) ? rng.pick(attached).user : any;
    const domain = this.#users.get(showUser(user))?.domain ?? rng.pick(this.#world.domains);
    const mapped = [...(this.#pages.get(domain)?.keys() ?? [])];
    const number = mapped.length > 0 && rng.chance(0.5) ? rng.pick(mapped) : rng.below(WINDOW + 2);
    const page = BigInt(number) << BigInt(domain.granule);
    const address = smmuWindow(domain) + page + BigInt(rng.below(2 ** domain.granule / 4) * 4);
    return { user, address, access: rng.pick([ACCESS.READ, ACCESS.WRITE]) };
  }

  #map(domain: SmmuDomain): void {
    const rng = this.#rng;
    const pages = this.#pages.get(domain) as Map<number, Page>;
    const first = rng.below(WINDOW);
    const count = Math.min(1 + rng.below(8), WINDOW - first);
    for (let n = 0; n < count; n++) if (pages.has(first + n)) return;
    const rights = rng.pick([ACCESS.READ, ACCESS.READ | ACCESS.WRITE, ACCESS.READ | ACCESS.WRITE]);
    const at = rng.below(256);
    this.#trace.say(`map ${nameOf(domain)} page ${first}+${count} to data ${at} rights ${rights}`);
    for (let n = 0; n < count; n++) this.#mapPage(domain, first + n, at + n, rights);
  }

  #mapPage(domain: SmmuDomain, page: number, at: number, rights: number): void {
    const gpa = dataPage(domain, at);
    const size = 2 ** domain.granule;
    const input = smmuWindow(domain) + BigInt(page) * BigInt(size);
    const allowed = { read: true, write: (rights & ACCESS.WRITE) !== 0 };
    this.#pages.get(domain)?.set(page, { gpa, rights });
    this.#world.driver.map(domain, input, smmuOutput(domain, gpa), size, allowed, domain.granule);
  }

  #unmap(domain: SmmuDomain): void {
    const rng = this.#rng;
    const pages = this.#pages.get(domain) as Map<number, Page>;
    const first = rng.below(WINDOW);
    const count = Math.min(1 + rng.below(8), WINDOW - first);
    this.#trace.say(`unmap ${nameOf(domain)} page ${first}+${count}`);
    const size = 2 ** domain.granule;
    for (let n = 0; n < count; n++) pages.delete(first + n);
    this.#world.driver.unmap(domain, smmuWindow(domain) + BigInt(first * size), count * size);
  }

  /** A stream with SubstreamIDs to come, or one SubstreamID beside what the stream has. */
  #attach(domain: SmmuDomain): void {
    const rng = this.#rng;
    const { driver } = this.#world;
    const user: SmmuUser = { sid: rng.pick(SIDS), ssid: rng.pick(SSIDS) };
    const name = showUser(user);
    if (this.#users.has(name)) return;
    if (user.ssid < 0) {
      const options = this.#streamOptions(domain);
      this.#trace.say(`attach ${name} to ${nameOf(domain)} ${JSON.stringify(options)}`);
      driver.attach(user.sid, domain, options);
      this.#users.set(name, { user, domain, ats: options.ats !== undefined });
      return;
    }
    const stream = this.#users.get(showUser({ ...user, ssid: -1 }));
    if (stream === undefined || [domain, stream.domain].some(({ kind }) => kind === 'second')) return;
    if (stream.domain.parent !== domain.parent) return;
    this.#trace.say(`attach ${name} to ${nameOf(domain)}`);
    driver.attachSubstream(user.sid, user.ssid, domain);
    this.#users.set(name, { user, domain, ats: stream.ats });
  }

  /** ATS wherever the entry stays legal with it. §5.2 (EATS) */
  #streamOptions(domain: SmmuDomain): StreamOptions {
    const rng = this.#rng;
    const { ats } = this.#world.driver.capabilities;
    const stage2 = domain.kind === 'second' ? domain : domain.parent;
    const ssidBits = domain.kind === 'second' ? 0 : 7;
    if (!ats || stage2?.options.stall === true || rng.chance(0.3)) return { ssidBits };
    const split = domain.kind === 'nested' && this.#world.driver.enables.ATSCHK === 1 && rng.chance(0.5);
    return { ssidBits, ats: split ? 'split' : 'full' };
  }

  #detach(): void {
    const { driver } = this.#world;
    const users = [...this.#users.values()];
    if (users.length === 0) return;
    const { user } = this.#rng.pick(users);
    this.#trace.say(`detach ${showUser(user)}`);
    const gone = users.filter(
      (other) => other.user.sid === user.sid && (user.ssid < 0 || user.ssid === other.user.ssid),
    );
    // The stream itself last.
    gone.sort((a, b) => b.user.ssid - a.user.ssid);
    for (const { user: each, domain, ats } of gone) {
      this.#users.delete(showUser(each));
      if (each.ssid < 0) driver.detach(each.sid);
      else driver.detachSubstream(each.sid, each.ssid, domain);
      if (ats) driver.commands.device(each.sid, each.ssid, 0n, 52);
      if (ats) driver.commands.sync();
    }
    if (user.ssid >= 0 || !driver.capabilities.stalls) return;
    // Nothing of the stream may come back when it is attached to something else.
    driver.commands.terminateStalls(user.sid);
    driver.commands.sync();
    this.#resume();
    for (const device of this.#waiting) {
      must(
        device.rid !== user.sid || device.waiting.length === 0,
        () => `CMD_STALL_TERM left a stall behind`,
      );
    }
  }

  /** One request, of anybody to anywhere; its outcome is known. */
  #check(): void {
    const { user, address, access } = this.#anyRequest();
    const text = `${showUser(user)} access ${access} at 0x${address.toString(16)}`;
    this.#trace.say(`check ${text}`);
    const found = this.#world.machine.translate(user.sid, user.ssid, access, address);
    this.#mustBe(text, user, found?.gpa, this.#truth(user, address, access));
    this.checks++;
  }

  /** The same by a device that translates ahead, through what it keeps. */
  #checkAhead(): void {
    const { user, address, access } = this.#anyRequest();
    const text = `ahead ${showUser(user)} access ${access} at 0x${address.toString(16)}`;
    this.#trace.say(text);
    const device = this.#ahead.get(user.sid) as AtsDevice;
    const value = this.#rng.u32() >>> 0;
    const truth = this.#users.get(showUser(user))?.ats ? this.#truth(user, address, access) : undefined;
    if (truth !== undefined) this.#world.machine.ram.store32(truth, ~value);
    const write = access === ACCESS.WRITE;
    const { outcome, value: read } = device.access(user.ssid, address, write ? value : undefined);
    const done = outcome === 'done';
    must(done === (truth !== undefined), () => `${text}: ${outcome}, not ${show(truth)}`);
    if (truth === undefined) return;
    const word = this.#world.machine.ram.load32(truth) >>> 0;
    must(write ? word === value : read === word, () => `${text} did not reach ${show(truth)}`);
    this.ahead++;
  }

  /** A device begins an access that may wait. */
  #wait(): void {
    const { user, address, access } = this.#anyRequest();
    const device = this.#waiting.find(({ rid, pasid }) => rid === user.sid && pasid === user.ssid);
    if (device === undefined) return;
    this.#trace.say(`${showUser(user)} access ${access} at 0x${address.toString(16)} may wait`);
    const held = access === ACCESS.READ ? device.read(address) : device.write(address, 1);
    if (held.state === 'waiting') this.stalls++;
    this.#mustBeDone(user, held);
  }

  #mustBeDone(user: SmmuUser, { state, address, value }: HeldAccess): void {
    const access = value === undefined ? ACCESS.READ : ACCESS.WRITE;
    const truth = this.#truth(user, address, access);
    const text = `${showUser(user)} access ${access} at 0x${address.toString(16)}`;
    must(state !== 'done' || truth !== undefined, () => `${text} is done, and nothing is mapped`);
    must(state !== 'waiting' || truth === undefined, () => `${text} waits for what is mapped`);
  }

  /**
   * What the unit told devices that wait reaches them; what is tried again is judged as every
   * access.
   */
  #resume(): void {
    this.#world.machine.tellDevices();
    for (const device of this.#waiting) {
      const before = [...device.waiting];
      const retried = new Set(before.filter(({ stall }) => this.#world.machine.resumes.has(stall)));
      device.poll();
      for (const held of retried) {
        if (held.state !== 'failed') this.#mustBeDone({ sid: device.rid, ssid: device.pasid }, held);
      }
    }
    const { size } = this.#world.machine.resumes;
    must(size === 0, () => `${size} stalls end that are not waited for`);
  }

  /** What a handler does: maps, tries again or gives up, until there is nothing more to read. */
  #serveEvents(giveUp: number): void {
    const { driver } = this.#world;
    for (let count = 0; ; ) {
      const events = driver.events.drain();
      if (events.length === 0) break;
      count += events.length;
      must(count < MOST_EVENTS, () => 'events never come to an end');
      let answered = false;
      for (const event of events) if (event.stall) answered = this.#serve(event, giveUp) || answered;
      if (answered) driver.commands.sync();
      this.#resume();
    }
    for (const device of this.#waiting) {
      must(
        device.waiting.length === 0,
        () => `${showUser({ sid: device.rid, ssid: device.pasid })} waits unseen`,
      );
    }
  }

  #serve({ sid, ssid, stag, address, read }: SmmuEvent, giveUp: number): boolean {
    const rng = this.#rng;
    const domain = this.#users.get(showUser({ sid, ssid }))?.domain;
    if (domain !== undefined && rng.chance(0.5)) {
      const page = Number((address - smmuWindow(domain)) >> BigInt(domain.granule));
      const known = this.#pages.get(domain);
      if (page >= 0 && page < WINDOW && known?.has(page) === false) {
        this.#trace.say(`page in ${nameOf(domain)} page ${page}`);
        this.#mapPage(domain, page, rng.below(256), read ? ACCESS.READ : ACCESS.READ | ACCESS.WRITE);
      }
    }
    const retry = !rng.chance(giveUp);
    this.#trace.say(`resume ${sid} stag ${stag} ${retry ? 'retry' : 'terminate'}`);
    this.#world.driver.commands.resume(sid, stag, retry);
    return true;
  }

  #requestPages(): void {
    const rng = this.#rng;
    const { user, address, access } = this.#anyRequest();
    const device = this.#ahead.get(user.sid) as AtsDevice;
    const pages = Array.from({ length: 1 + rng.below(6) }, (_, n) => ({
      address: address + BigInt(n * 4096),
      access,
    }));
    const group = device.requestPages(user.ssid, pages);
    this.#trace.say(`${showUser(user)} asks for ${pages.length} pages, group ${group}`);
    this.#groups.push({ device, group });
    this.groups++;
  }

  /** Answers every group that is complete. */
  #servePages(): void {
    const { driver, machine } = this.#world;
    if (!driver.capabilities.pri) return;
    for (let round = 0; ; round++) {
      const requests = driver.pageRequests.drain();
      if (requests.length === 0) break;
      must(round < 1000, () => 'page requests never come to an end');
      for (const { sid, ssid, group, last } of requests) {
        if (!last) continue;
        const code = this.#rng.pick([PRI_RESP.SUCCESS, PRI_RESP.INVALID_REQUEST, PRI_RESP.RESPONSE_FAILURE]);
        this.#trace.say(`answer ${sid} ${ssid} group ${group} with ${code}`);
        driver.commands.pageResponse(sid, ssid, group, code);
      }
      driver.commands.sync();
    }
    machine.tellDevices();
    for (const { device, group } of this.#groups.splice(0)) {
      const code = device.takeResponse(group);
      must(code !== undefined, () => `group ${group} of ${device.rid} has no answer`);
    }
    const extra = machine.pageResponses.length;
    must(extra === 0, () => `${extra} answers to groups that have one`);
  }

  /** Where an access must land; undefined = refused. */
  #truth(user: SmmuUser, address: bigint, access: number): number | undefined {
    const domain = this.#users.get(showUser(user))?.domain;
    if (domain === undefined) return undefined;
    const offset = address - smmuWindow(domain);
    if (offset < 0n) return undefined;
    const page = this.#pages.get(domain)?.get(Number(offset >> BigInt(domain.granule)));
    if (page === undefined || (page.rights & access) !== access) return undefined;
    return page.gpa + Number(offset & ((1n << BigInt(domain.granule)) - 1n));
  }

  #mustBe(text: string, user: SmmuUser, found: number | undefined, expected: number | undefined): void {
    const { options, machine } = this.#world;
    const domain = this.#users.get(showUser(user))?.domain;
    must(
      found === expected,
      () =>
        `${text} (${domain === undefined ? 'no domain' : nameOf(domain)}, ${JSON.stringify(options)}) gives ` +
        `${show(found)}, not ${show(expected)}; last event ${JSON.stringify(machine.outputs.events.at(-1))}`,
    );
  }

  /** Every page of every span handed out is as mapped, with no more rights. */
  #checkSpans(user: SmmuUser, spans: readonly number[]): void {
    const domain = this.#users.get(showUser(user))?.domain;
    if (domain === undefined) return;
    for (let at = 0; at < spans.length; at += SPAN_WORDS) {
      const input = (BigInt(spans[at + 1]) << 32n) | BigInt(spans[at]);
      const pages = 2 ** Math.max(0, spans[at + 4] - domain.granule);
      must(pages <= WINDOW, () => `span of ${pages} pages at 0x${input.toString(16)}`);
      for (let n = 0; n < pages; n++) {
        const address = input + (BigInt(n) << BigInt(domain.granule));
        const { gpa, permissions } = throughSpan(spans, at, address);
        const expected = this.#truth(user, address, permissions & 3);
        this.#mustBe(`span at 0x${address.toString(16)}`, user, gpa, expected);
      }
    }
  }
}

function nameOf({ kind, asid, vmid, granule, inputBits }: SmmuDomain): string {
  return `${kind} ${vmid}.${asid} (${2 ** (granule - 10)}K, ${inputBits} bits)`;
}

function show(gpa: number | undefined): string {
  return gpa === undefined ? 'a refusal' : `0x${gpa.toString(16)}`;
}
