/**
 * A naive walker to compare the real one with: BigInt, one rule after the other, written from the
 * rules of VT-d (rev 4.1 §3.6–3.8, §9.7, §9.8) and sharing nothing with src/walk or src/spec but
 * the outcomes' names.
 */

/**
 * What the rules depend on. Bit numbers and widths are spelled out below, not taken from anywhere.
 */
export interface Rules {
  readonly stage: 'first' | 'second';
  readonly levels: number;
  readonly inputBits: number;
  readonly haw: number;
  readonly pages2M: boolean;
  readonly pages1G: boolean;
  readonly snoopControl: boolean;
  readonly transient: boolean;
  readonly accessedDirty: boolean;
  readonly extendedAccessed: boolean;
  readonly writeProtect: boolean;
}

type Outcome =
  | 'OK'
  | 'ADDRESS_SIZE'
  | 'NOT_PRESENT'
  | 'RESERVED'
  | 'FETCH'
  | 'PERMISSION'
  | 'UPDATE'
  | 'STAGE2_ON_FETCH'
  | 'STAGE2';

export interface Asked {
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  readonly privileged: boolean;
}

export interface Answer {
  outcome: Outcome;
  level: number;
  entryAddress: bigint;
  entry: bigint;
  output: bigint;
  log2Size: number;
  read: boolean;
  write: boolean;
  /** The rights hold for privileged requests only. */
  privilegedOnly: boolean;
  cacheRead: boolean;
  cacheWrite: boolean;
  /** Nested: how stage 2 refused. */
  stage2: Answer | undefined;
  stage2Address: bigint;
}

/** Memory as the reference sees it: nothing outside of RAM. */
export interface Store {
  read(address: bigint): bigint | undefined;
  /**
   * Atomic: 'changed' when the word is no longer what was read (tables may map themselves), then
   * nothing is written.
   */
  exchange(address: bigint, was: bigint, value: bigint): 'done' | 'changed' | 'impossible';
}

/** A fetch or update that stage 2 refused. */
class Refused extends Error {
  constructor(
    readonly answer: Answer,
    readonly address: bigint,
  ) {
    super('stage 2');
  }
}

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const field = (value: bigint, msb: number, lsb: number): bigint =>
  (value >> BigInt(lsb)) & ((1n << BigInt(msb - lsb + 1)) - 1n);

function blank(): Answer {
  return {
    outcome: 'OK',
    level: 0,
    entryAddress: 0n,
    entry: 0n,
    output: 0n,
    log2Size: 0,
    read: false,
    write: false,
    privilegedOnly: false,
    cacheRead: false,
    cacheWrite: false,
    stage2: undefined,
    stage2Address: 0n,
  };
}

function inputAllowed(rules: Rules, input: bigint): boolean {
  if (rules.stage === 'second') return input >> BigInt(rules.inputBits) === 0n;
  for (let n = rules.inputBits; n < 64; n++) {
    if (bit(input, n) !== bit(input, rules.inputBits - 1)) return false;
  }
  return true;
}

function isLeaf(rules: Rules, entry: bigint, level: number): boolean {
  if (level === 1) return true;
  if (!bit(entry, 7)) return false;
  return (level === 2 && rules.pages2M) || (level === 3 && rules.pages1G);
}

/** Which bits a present entry may not have set. */
function hasReserved(rules: Rules, entry: bigint, level: number, leaf: boolean): boolean {
  for (let n = rules.haw; n <= 51; n++) if (bit(entry, n)) return true;
  if (!leaf && bit(entry, 7)) return true;
  if (rules.stage === 'second') {
    if (!leaf) return bit(entry, 11) || bit(entry, 62);
    if (bit(entry, 11) && !rules.snoopControl) return true;
    if (bit(entry, 62) && !rules.transient) return true;
    if (level === 2) return field(entry, 20, 12) !== 0n;
    if (level === 3) return field(entry, 29, 12) !== 0n;
    return false;
  }
  // First stage: PAT of a large page is bit 12.
  if (leaf && level === 2) return field(entry, 20, 13) !== 0n;
  if (leaf && level === 3) return field(entry, 29, 13) !== 0n;
  return false;
}

function accessedBits(rules: Rules): bigint {
  if (rules.stage === 'first') return rules.extendedAccessed ? (1n << 5n) | (1n << 10n) : 1n << 5n;
  return rules.accessedDirty ? 1n << 8n : 0n;
}

function dirtyBits(rules: Rules): bigint {
  if (rules.stage === 'first') return 1n << 6n;
  return rules.accessedDirty ? 1n << 9n : 0n;
}

interface Rights {
  read: boolean;
  write: boolean;
  privilegedOnly: boolean;
}

function rightsFrom(rules: Rules, entries: readonly bigint[], privileged: boolean): Rights {
  const every = (n: number): boolean => entries.every((entry) => bit(entry, n));
  if (rules.stage === 'second') return { read: every(0), write: every(1), privilegedOnly: false };
  const user = { read: every(2), write: every(2) && every(1) };
  if (!privileged) return { ...user, privilegedOnly: false };
  const write = every(1) || !rules.writeProtect;
  return { read: true, write, privilegedOnly: !user.read || write !== user.write };
}

/** One stage. Sets Accessed and Dirty through `store` unless nothing is asked for. */
export function referenceWalk(
  rules: Rules,
  store: Store,
  root: bigint,
  input: bigint,
  asked: Asked,
  look: boolean,
): Answer {
  const answer = blank();
  if (!inputAllowed(rules, input)) return { ...answer, outcome: 'ADDRESS_SIZE', level: rules.levels };
  const seen: bigint[] = [];
  let table = root;
  let level = rules.levels;
  for (;;) {
    const lowBit = 12 + 9 * (level - 1);
    answer.level = level;
    answer.entryAddress = table + field(input, lowBit + 8, lowBit) * 8n;
    const entry = store.read(answer.entryAddress);
    if (entry === undefined) return { ...answer, outcome: 'FETCH' };
    answer.entry = entry;
    const present = rules.stage === 'first' ? bit(entry, 0) : bit(entry, 0) || bit(entry, 1);
    if (!present) return { ...answer, outcome: 'NOT_PRESENT' };
    const leaf = isLeaf(rules, entry, level);
    if (hasReserved(rules, entry, level, leaf)) return { ...answer, outcome: 'RESERVED' };
    if (leaf) {
      const end = finishLeaf(rules, store, answer, seen, lowBit, asked, look);
      if (end !== undefined) return end;
      continue;
    }
    const wanted = look ? entry : entry | accessedBits(rules);
    if (wanted !== entry) {
      const done = store.exchange(answer.entryAddress, entry, wanted);
      if (done === 'impossible') return { ...answer, outcome: 'UPDATE' };
      if (done === 'changed') continue;
    }
    seen.push(wanted);
    table = field(entry, rules.haw - 1, 12) << 12n;
    level--;
  }
}

/** Undefined when the entry has changed since and has to be read again. */
function finishLeaf(
  rules: Rules,
  store: Store,
  answer: Answer,
  above: readonly bigint[],
  lowBit: number,
  asked: Asked,
  look: boolean,
): Answer | undefined {
  const rights = rightsFrom(rules, [...above, answer.entry], asked.privileged);
  answer.read = rights.read;
  answer.write = rights.write;
  answer.privilegedOnly = rights.privilegedOnly;
  if (!look) {
    const refused = (asked.read && !rights.read) || (asked.write && !rights.write) || asked.execute;
    if (refused) return { ...answer, outcome: 'PERMISSION' };
    const wanted = answer.entry | accessedBits(rules) | (asked.write ? dirtyBits(rules) : 0n);
    if (wanted !== answer.entry) {
      const done = store.exchange(answer.entryAddress, answer.entry, wanted);
      if (done === 'impossible') return { ...answer, outcome: 'UPDATE' };
      if (done === 'changed') return undefined;
      answer.entry = wanted;
    }
  }
  const accessed = accessedBits(rules);
  const allAccessed = [...above, answer.entry].every((entry) => (entry & accessed) === accessed);
  const isDirty = (answer.entry & dirtyBits(rules)) === dirtyBits(rules);
  answer.cacheRead = allAccessed && rights.read;
  answer.cacheWrite = allAccessed && rights.write && isDirty;
  answer.output = field(answer.entry, rules.haw - 1, lowBit) << BigInt(lowBit);
  answer.log2Size = lowBit;
  return answer;
}

/** Both stages: every stage-1 entry is fetched through stage 2, and so is the output. */
export function referenceNested(
  first: Rules,
  root1: bigint,
  second: Rules,
  root2: bigint,
  store: Store,
  input: bigint,
  asked: Asked,
  look: boolean,
): Answer {
  const data = (read: boolean, write: boolean): Asked => ({ read, write, execute: false, privileged: false });
  const physical = (ipa: bigint, read: boolean, write: boolean): bigint => {
    const at = referenceWalk(second, store, root2, ipa, data(read, write), look);
    if (at.outcome === 'OK' && ((read && !at.read) || (write && !at.write))) at.outcome = 'PERMISSION';
    if (at.outcome !== 'OK') throw new Refused(at, ipa);
    return at.output + (ipa & ((1n << BigInt(at.log2Size)) - 1n));
  };
  const view: Store = {
    read: (ipa) => store.read(physical(ipa, true, false)),
    exchange: (ipa, was, value) => store.exchange(physical(ipa, true, true), was, value),
  };
  let one: Answer;
  try {
    one = referenceWalk(first, view, root1, input, asked, look);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { ...blank(), outcome: 'STAGE2_ON_FETCH', stage2: error.answer, stage2Address: error.address };
  }
  if (one.outcome !== 'OK') return one;
  const ipa = one.output + (input & ((1n << BigInt(one.log2Size)) - 1n));
  const wants = data(asked.read || (!look && !asked.write), asked.write);
  const two = referenceWalk(second, store, root2, ipa, wants, look);
  if (two.outcome !== 'OK') return { ...one, outcome: 'STAGE2', stage2: two, stage2Address: ipa };
  const size = Math.min(one.log2Size, two.log2Size);
  const output = two.output + (ipa & ((1n << BigInt(two.log2Size)) - 1n));
  const read = one.read && two.read;
  const write = one.write && two.write;
  const mask = (1n << BigInt(size)) - 1n;
  return {
    ...one,
    output: output & ~mask,
    log2Size: size,
    read,
    write,
    privilegedOnly: one.privilegedOnly && (read || write),
    cacheRead: one.cacheRead && two.cacheRead,
    cacheWrite: one.cacheWrite && two.cacheWrite,
  };
}
