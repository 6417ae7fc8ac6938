import { ArrayMemory } from '../../src/memory/array.js';
import type { SmmuDomain } from '../../src/sim/smmu-domain.js';
import { SmmuDriver } from '../../src/sim/smmu-driver.js';
import type { Trace } from './fuzzer.js';
import { FuzzMachine } from './machine.js';
import type { Rng } from './rng.js';
import { DATA, isFaithful, RAM, TABLES, varietyOf } from './world.js';

/** Where a stage 2 shows guest memory. */
const OFFSET = 2n ** 33n;
export const SIDS = [1, 2, 0x88] as const;
export const SSIDS = [-1, 1, 70] as const;

export const SMMU_OPTIONS: readonly Readonly<Record<string, string>>[] = [
  {},
  { ats: 'on' },
  { ats: 'on', oas: '52' },
  { ats: 'on', 'range-invalidation': 'off', 'two-level': 'off' },
  { ats: 'on', stall: 'off', pri: 'off' },
  { ats: 'on', httu: 'access', granules: '4k' },
  { ats: 'on', 'cache-policy': 'none' },
  { ats: 'on', 'cache-policy': 'hostile' },
];

export interface SmmuUser {
  readonly sid: number;
  readonly ssid: number;
}

/** A random unit with a driver at work on it. */
export interface SmmuWorld {
  readonly machine: FuzzMachine;
  readonly driver: SmmuDriver;
  readonly options: Readonly<Record<string, string>>;
  readonly domains: readonly SmmuDomain[];
}

/** @param alone the bridge may carry out plain commands all the time */
export function makeSmmuWorld(rng: Rng, trace: Trace, alone = false): SmmuWorld {
  const options = rng.pick(alone ? SMMU_OPTIONS.filter(isFaithful) : SMMU_OPTIONS);
  const memory = new ArrayMemory([{ base: 0, bytes: RAM }]);
  const machine = new FuzzMachine(rng, memory, options, 'smmuv3', alone || rng.chance(0.7));
  const driver = new SmmuDriver(machine, {
    pages: [TABLES[0], TABLES[1]],
    streamTable: 'linear',
    queueLog2: rng.pick([2, 4, 6]),
    sync: rng.pick(['poll', 'message']),
    checkTranslated: rng.chance(0.7),
    variety: varietyOf(rng),
  });
  const listeners = !alone && rng.chance(0.5) ? SIDS.filter(() => rng.chance(0.5)) : [];
  for (const sid of listeners) machine.listen(sid);
  trace.say(`world ${JSON.stringify(options)}, listening: ${listeners.join(' ')}`);
  driver.start();
  const domains: SmmuDomain[] = [];
  for (let n = 1 + rng.below(3); n > 0; n--) domains.push(makeDomain(rng, driver));
  return { machine, driver, options, domains };
}

function makeDomain(rng: Rng, driver: SmmuDriver): SmmuDomain {
  const { stalls, granules } = driver.capabilities;
  // Larger granules need more memory for tables than there is for many domains.
  const granule = rng.chance(0.8) ? 12 : rng.pick(granules.filter((log2) => log2 < 16));
  const stall = stalls && rng.chance(0.4);
  const inputBits = rng.pick([39, 48]);
  if (rng.chance(0.5)) {
    const upper = rng.chance(0.3);
    return driver.createDomain('first', { granule, inputBits, stall, upper });
  }
  const parent = driver.createDomain('second', { inputBits: 40, stall });
  if (rng.chance(0.4)) return parent;
  driver.map(parent, OFFSET, 0, RAM, undefined, rng.chance(0.5) ? 21 : 12);
  return driver.createNested(parent, { granule, inputBits, stall }, (gpa) => OFFSET + BigInt(gpa));
}

/** Input addresses that this domain is used at. */
export function smmuWindow(domain: SmmuDomain): bigint {
  if (domain.kind === 'second') return 0x4000_0000n;
  const high = (1n << 64n) - (1n << BigInt(domain.inputBits));
  return (domain.options.upper === true ? high : 0n) + 0x40_0000_0000n;
}

/** What the domain's own table must hold to reach guest-physical `gpa`. */
export function smmuOutput(domain: SmmuDomain, gpa: number): number {
  return domain.kind === 'nested' ? Number(OFFSET) + gpa : gpa;
}

export function showUser({ sid, ssid }: SmmuUser): string {
  return `sid ${sid}${ssid < 0 ? '' : ` ssid ${ssid}`}`;
}

/** Guest-physical address of page `n` of the data, of one granule. */
export function dataPage(domain: SmmuDomain, n: number): number {
  const size = 2 ** domain.granule;
  return DATA + (n % Math.floor((RAM - DATA) / size)) * size;
}
