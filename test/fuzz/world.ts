import { ArrayMemory } from '../../src/memory/array.js';
import { type Variety, WIDTH } from '../../src/sim/variety.js';
import type { AttachOptions, VtdDomain, VtdDriver } from '../../src/sim/vtd-driver.js';
import { VtdDriver as Driver } from '../../src/sim/vtd-driver.js';
import type { Trace } from './fuzzer.js';
import { FuzzMachine } from './machine.js';
import type { Rng } from './rng.js';

export const RAM = 4 * 2 ** 20;
/** Tables and rings. */
export const TABLES: readonly [number, number] = [0x1_0000, 0x20_0000];
/** Data: one 2 MiB page. */
export const DATA = 0x20_0000;
/** Where a nested first stage sees guest memory. */
const NESTED_OFFSET = 2n ** 33n;

export const RIDS = [1, 2, 0x88] as const;
export const PASIDS = [-1, 1, 70] as const;
/** Pages per window of input addresses that is mapped from. */
export const WINDOW = 32;

const OPTIONS: readonly Readonly<Record<string, string>>[] = [
  {},
  { 'caching-mode': 'on' },
  { 'scalable-mode': 'off' },
  { 'aw-bits': '57' },
  { 'aw-bits': '39' },
  { 'cache-policy': 'none' },
  { 'cache-policy': 'hostile' },
  { 'cache-policy': 'hostile', 'caching-mode': 'on' },
];

/** Caches keep what they may. */
export const isFaithful = (options: Readonly<Record<string, string>>): boolean =>
  options['cache-policy'] === undefined;

/** First words of an IOTLB and of a context-cache invalidate descriptor, global. VT-d §6.5.2 */
const GLOBAL_IOTLB = 0x12n;
const GLOBAL_CONTEXT = 0x11n;

export interface User {
  readonly rid: number;
  readonly pasid: number;
}

/** A random unit with a driver at work on it. */
export interface World {
  readonly machine: FuzzMachine;
  readonly driver: VtdDriver;
  readonly options: Readonly<Record<string, string>>;
  readonly domains: readonly VtdDomain[];
}

/** @param alone the bridge may carry out plain commands all the time */
export function makeWorld(rng: Rng, trace: Trace, alone = false): World {
  const options = rng.pick(alone ? OPTIONS.filter(isFaithful) : OPTIONS);
  const memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  const machine = new FuzzMachine(rng, memory, options, 'vtd', alone || rng.chance(0.7));
  const scalable = options['scalable-mode'] !== 'off' && rng.chance(0.6);
  const mode = scalable ? 'scalable' : 'legacy';
  const queued = scalable || alone || rng.chance(0.8);
  const invalidation = queued ? 'queue' : 'registers';
  const pasidDevices = rng.chance(0.6);
  const variety = varietyOf(rng);
  const driver = new Driver(machine, { mode, pages: TABLES, invalidation, pasidDevices, variety });
  // With a notifier the bridge completes nothing by itself.
  const listeners = !alone && rng.chance(0.5) ? RIDS.filter(() => rng.chance(0.6)) : [];
  for (const rid of listeners) machine.listen(rid);
  const devices = `${pasidDevices ? 'with' : 'without'} PASIDs, listening: ${listeners.join(' ')}`;
  trace.say(`world ${JSON.stringify(options)} ${mode} ${invalidation}, devices ${devices}`);
  driver.start();
  fillRing(driver);
  const narrow = options['aw-bits'] === '39';
  const domains: VtdDomain[] = [];
  for (let n = 1 + rng.below(3); n > 0; n--)
    domains.push(makeDomain(rng, driver, scalable && !narrow, narrow));
  return { machine, driver, options, domains };
}

/** Sometimes the driver invalidates more than it needs, and waits in between. */
export function varietyOf(rng: Rng): Variety {
  const often = rng.pick([0, 0.3, 0.8]);
  return {
    width: () => (rng.chance(often) ? rng.pick([WIDTH.TAGGED, WIDTH.ALL]) : WIDTH.EXACT),
    pauses: () => rng.chance(often),
  };
}

/**
 * Slots that were not written yet hold a valid descriptor, so that a random tail runs a long way.
 */
export function fillRing(driver: VtdDriver): void {
  const { queue } = driver;
  if (queue === undefined) return;
  const ram = driver.machine.ram;
  for (let at = queue.tail; at < queue.bytes; at += queue.descriptorBytes) {
    ram.store64(queue.base + at, (at & 0x300) === 0x100 ? GLOBAL_CONTEXT : GLOBAL_IOTLB);
  }
}

function makeDomain(rng: Rng, driver: VtdDriver, firstStage: boolean, narrow: boolean): VtdDomain {
  const wide = (driver.capabilities.cap[0] & (8 << 8)) !== 0;
  const levels = narrow ? 3 : rng.pick(wide ? [3, 4, 5] : [3, 4]);
  if (firstStage && rng.chance(0.6)) {
    const five = wide && rng.chance(0.3);
    if (rng.chance(0.5)) return driver.createDomain('first', five ? 5 : 4);
    const parent = driver.createDomain('second', levels);
    parent.table?.map(NESTED_OFFSET, 0, RAM, undefined, rng.chance(0.5) ? 21 : 12);
    return driver.createNested(parent, five ? 5 : 4, (gpa) => NESTED_OFFSET + BigInt(gpa));
  }
  return driver.createDomain(rng.chance(0.1) ? 'pass-through' : 'second', levels);
}

/** Input addresses that this domain is used at. */
export function windowOf(domain: VtdDomain): bigint {
  if (domain.kind === 'first' || domain.kind === 'nested') return 0xffff_ffff_c000_0000n;
  return domain.levels === 3 ? 0x40_0000_0000n : 0x4000_0000n;
}

/** What the domain's own table must hold to reach guest-physical `gpa`. */
export function outputOf(domain: VtdDomain, gpa: number): number {
  return domain.kind === 'nested' ? Number(NESTED_OFFSET) + gpa : gpa;
}

export function attachOptions(user: User): AttachOptions {
  return user.pasid < 0 ? {} : { pasid: user.pasid };
}

/** A requester that this driver's mode lets attach. */
export function pickUser(rng: Rng, driver: VtdDriver): User {
  const pasids = driver.scalable !== undefined && driver.pasidDevices;
  return { rid: rng.pick(RIDS), pasid: pasids ? rng.pick(PASIDS) : -1 };
}

export function describeUser(user: User): string {
  return `rid ${user.rid}${user.pasid < 0 ? '' : ` pasid ${user.pasid}`}`;
}
