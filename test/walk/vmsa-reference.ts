/**
 * A naive walker of Arm's VMSAv8-64 tables: BigInt, one rule after the other, written from the
 * rules of DDI 0487 (D8) and sharing nothing with src/walk or src/spec. Levels are Arm's: 3 is the
 * last.
 */

import type { Asked, Store } from './reference.js';

export interface VmsaRules {
  readonly stage: 1 | 2;
  readonly granule: 4 | 16 | 64;
  readonly inputBits: number;
  /** Stage 2 is told; stage 1 follows from the input size. */
  readonly startLevel: number;
  readonly outputBits: number;
  readonly lpa: boolean;
  readonly clearFlag: 'fault' | 'ignore' | 'update';
  readonly hd: boolean;
  readonly ttb1: boolean;
  readonly tbi: boolean;
  readonly hpd: boolean;
  readonly wxn: boolean;
  readonly pan: boolean;
  readonly single: boolean;
  readonly xnx: boolean;
  readonly ptw: boolean;
}

export type VmsaOutcome =
  | 'OK'
  | 'INPUT'
  | 'TRANSLATION'
  | 'ADDRESS_SIZE'
  | 'ACCESS_FLAG'
  | 'PERMISSION'
  | 'FETCH'
  | 'UPDATE'
  | 'STAGE2_ON_FETCH'
  | 'STAGE2';

interface VmsaRights {
  read: boolean;
  write: boolean;
  execute: boolean;
}

export interface VmsaAnswer {
  outcome: VmsaOutcome;
  level: number;
  entryAddress: bigint;
  entry: bigint;
  output: bigint;
  log2Size: number;
  rights: VmsaRights;
  privilegedOnly: boolean;
  cache: VmsaRights;
  stage2: VmsaAnswer | undefined;
  stage2Address: bigint;
}

class Refused extends Error {
  constructor(
    readonly answer: VmsaAnswer,
    readonly address: bigint,
  ) {
    super('stage 2');
  }
}

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const field = (value: bigint, msb: number, lsb: number): bigint =>
  (value >> BigInt(lsb)) & ((1n << BigInt(msb - lsb + 1)) - 1n);
const none = (): VmsaRights => ({ read: false, write: false, execute: false });

function blank(): VmsaAnswer {
  return {
    outcome: 'OK',
    level: 0,
    entryAddress: 0n,
    entry: 0n,
    output: 0n,
    log2Size: 0,
    rights: none(),
    privilegedOnly: false,
    cache: none(),
    stage2: undefined,
    stage2Address: 0n,
  };
}

const pageBits = (rules: VmsaRules): number => ({ 4: 12, 16: 14, 64: 16 })[rules.granule];
/** Lowest input bit that an entry of the level resolves. */
function lowBit(rules: VmsaRules, level: number): number {
  const perLevel = { 4: 9, 16: 11, 64: 13 }[rules.granule];
  return pageBits(rules) + (3 - level) * perLevel;
}

/** The level where a stage-1 walk starts: the first whose entries are more than one. */
export function stage1Start(rules: VmsaRules): number {
  for (let level = 0; level < 3; level++) if (lowBit(rules, level) < rules.inputBits) return level;
  return 3;
}

function inputAllowed(rules: VmsaRules, input: bigint): boolean {
  for (let n = rules.inputBits; n < (rules.tbi ? 56 : 64); n++)
    if (bit(input, n) !== rules.ttb1) return false;
  return true;
}

const split = (rules: VmsaRules): boolean => rules.granule === 64 && rules.lpa;

function blockAllowed(rules: VmsaRules, level: number): boolean {
  switch (level) {
    case 2:
      return true;
    case 1:
      return rules.granule === 4 || split(rules);
    default:
      return false;
  }
}

/** The address in a descriptor down to bit `low`. */
function addressIn(rules: VmsaRules, entry: bigint, low: number): bigint {
  const address = field(entry, 47, low) << BigInt(low);
  return split(rules) ? address | (field(entry, 15, 12) << 48n) : address;
}

/**
 * The output size counts whatever the size of the block: all address bits of the descriptor are
 * looked at.
 */
function addressTooLarge(rules: VmsaRules, entry: bigint): boolean {
  const width = rules.outputBits === 52 && !split(rules) ? 48 : rules.outputBits;
  return addressIn(rules, entry, pageBits(rules)) >> BigInt(width) !== 0n;
}

/** Direct permissions of the leaf, limited by the tables above it, for one privilege. */
function stage1Rights(
  rules: VmsaRules,
  leaf: bigint,
  above: readonly bigint[],
  privileged: boolean,
): VmsaRights {
  const limit = (n: number): boolean => !rules.hpd && above.some((entry) => bit(entry, n));
  let unprivilegedAccess = bit(leaf, 6);
  let readOnly = bit(leaf, 7);
  if (rules.hd && bit(leaf, 51)) readOnly = false;
  if (limit(61)) unprivilegedAccess = false;
  if (limit(62)) readOnly = true;
  const uxn = bit(leaf, 54) || limit(60);
  const pxn = bit(leaf, 53) || limit(59);
  if (rules.single) return { read: true, write: !readOnly, execute: !uxn && !(rules.wxn && !readOnly) };
  const userWrite = unprivilegedAccess && !readOnly;
  if (!privileged)
    return { read: unprivilegedAccess, write: userWrite, execute: !uxn && !(rules.wxn && userWrite) };
  const execute = !pxn && !userWrite && !(rules.wxn && !readOnly);
  const data = !(rules.pan && unprivilegedAccess);
  return { read: data, write: data && !readOnly, execute };
}

function stage2Rights(rules: VmsaRules, leaf: bigint, privileged: boolean): VmsaRights {
  const xn = rules.xnx ? Number(field(leaf, 54, 53)) : bit(leaf, 54) ? 2 : 0;
  const execute = xn === 0 || (xn === 1 && !privileged) || (xn === 3 && privileged);
  return { read: bit(leaf, 6), write: bit(leaf, 7) || (rules.hd && bit(leaf, 51)), execute };
}

const anyOf = (rights: VmsaRights): boolean => rights.read || rights.write || rights.execute;
const sameRights = (a: VmsaRights, b: VmsaRights): boolean =>
  a.read === b.read && a.write === b.write && a.execute === b.execute;

const lacks = (asked: Asked, rights: VmsaRights): boolean =>
  (asked.read && !rights.read) || (asked.write && !rights.write) || (asked.execute && !rights.execute);

/** One stage. Sets the Access flag and dirty state through `store` unless nothing is asked for. */
export function vmsaReference(
  rules: VmsaRules,
  store: Store,
  root: bigint,
  input: bigint,
  asked: Asked,
  look: boolean,
): VmsaAnswer {
  const answer = blank();
  if (!inputAllowed(rules, input)) return { ...answer, outcome: 'INPUT' };
  const above: bigint[] = [];
  let level = rules.stage === 2 ? rules.startLevel : stage1Start(rules);
  let table = root;
  let top = rules.inputBits - 1;
  for (;;) {
    const low = lowBit(rules, level);
    answer.level = level;
    answer.entryAddress = table + 8n * field(input, top, low);
    const entry = store.read(answer.entryAddress);
    if (entry === undefined) return { ...answer, outcome: 'FETCH' };
    answer.entry = entry;
    if (!bit(entry, 0)) return { ...answer, outcome: 'TRANSLATION' };
    if (level === 3 && !bit(entry, 1)) return { ...answer, outcome: 'TRANSLATION' };
    if (level < 3 && !bit(entry, 1) && !blockAllowed(rules, level))
      return { ...answer, outcome: 'TRANSLATION' };
    if (addressTooLarge(rules, entry)) return { ...answer, outcome: 'ADDRESS_SIZE' };
    if (level === 3 || !bit(entry, 1)) {
      const end = atLeaf(rules, store, answer, above, low, asked, look);
      if (end === undefined) continue;
      return end;
    }
    above.push(entry);
    table = addressIn(rules, entry, pageBits(rules));
    top = low - 1;
    level++;
  }
}

/** Undefined when the entry has changed since and has to be read again. */
function atLeaf(
  rules: VmsaRules,
  store: Store,
  answer: VmsaAnswer,
  above: readonly bigint[],
  low: number,
  asked: Asked,
  look: boolean,
): VmsaAnswer | undefined {
  if (rules.clearFlag === 'fault' && !bit(answer.entry, 10)) return { ...answer, outcome: 'ACCESS_FLAG' };
  const at = (privileged: boolean): VmsaRights =>
    rules.stage === 1
      ? stage1Rights(rules, answer.entry, above, privileged)
      : stage2Rights(rules, answer.entry, privileged);
  const rights = at(asked.privileged);
  answer.rights = rights;
  answer.privilegedOnly = asked.privileged && anyOf(rights) && !sameRights(rights, at(false));
  if (!look) {
    if (lacks(asked, rights)) return { ...answer, outcome: 'PERMISSION' };
    let wanted = answer.entry;
    if (rules.clearFlag === 'update') wanted |= 1n << 10n;
    if (rules.hd && asked.write) wanted = rules.stage === 1 ? wanted & ~(1n << 7n) : wanted | (1n << 7n);
    if (wanted !== answer.entry) {
      const done = store.exchange(answer.entryAddress, answer.entry, wanted);
      if (done === 'impossible') return { ...answer, outcome: 'UPDATE' };
      if (done === 'changed') return undefined;
      answer.entry = wanted;
    }
  }
  if (rules.clearFlag !== 'update' || bit(answer.entry, 10)) {
    const clean = rules.hd && bit(answer.entry, 7) === (rules.stage === 1);
    answer.cache = { ...rights, write: rights.write && !clean };
  }
  answer.output = addressIn(rules, answer.entry, low);
  answer.log2Size = low;
  return answer;
}

/** Both stages: every stage-1 descriptor is fetched through stage 2, and so is the output. */
export function vmsaNested(
  first: VmsaRules,
  root1: bigint,
  second: VmsaRules,
  root2: bigint,
  store: Store,
  input: bigint,
  asked: Asked,
  look: boolean,
): VmsaAnswer {
  const physical = (ipa: bigint, write: boolean): bigint => {
    const fetch = { read: true, write, execute: false, privileged: false };
    const at = vmsaReference(second, store, root2, ipa, fetch, look);
    if (at.outcome === 'OK' && lacks(fetch, at.rights)) at.outcome = 'PERMISSION';
    if (at.outcome === 'OK' && second.ptw && field(at.entry, 5, 4) === 0n) at.outcome = 'PERMISSION';
    if (at.outcome !== 'OK') throw new Refused(at, ipa);
    return at.output + (ipa & ((1n << BigInt(at.log2Size)) - 1n));
  };
  const view: Store = {
    read: (ipa) => store.read(physical(ipa, false)),
    exchange: (ipa, was, value) => store.exchange(physical(ipa, true), was, value),
  };
  let one: VmsaAnswer;
  try {
    one = vmsaReference(first, view, root1, input, asked, look);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { ...blank(), outcome: 'STAGE2_ON_FETCH', stage2: error.answer, stage2Address: error.address };
  }
  if (one.outcome !== 'OK') return one;
  const ipa = one.output + (input & ((1n << BigInt(one.log2Size)) - 1n));
  const two = vmsaReference(second, store, root2, ipa, asked, look);
  if (two.outcome !== 'OK') return { ...one, outcome: 'STAGE2', stage2: two, stage2Address: ipa };
  const log2Size = Math.min(one.log2Size, two.log2Size);
  const output = two.output + (ipa & ((1n << BigInt(two.log2Size)) - 1n));
  const and = (a: VmsaRights, b: VmsaRights): VmsaRights => ({
    read: a.read && b.read,
    write: a.write && b.write,
    execute: a.execute && b.execute,
  });
  const rights = and(one.rights, two.rights);
  return {
    ...one,
    output: (output >> BigInt(log2Size)) << BigInt(log2Size),
    log2Size,
    rights,
    privilegedOnly: anyOf(rights) && (one.privilegedOnly || two.privilegedOnly),
    cache: and(one.cache, two.cache),
  };
}
