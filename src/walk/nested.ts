/**
 * Nested translation: stage 1 is the ordinary walk over memory whose every address goes through
 * stage 2 first, and its output goes through stage 2 once more (VT-d §3.8).
 *
 * A fetch of a stage-1 entry is a stage-2 read; setting its Accessed or Dirty bit is a stage-2
 * write, so it needs the right to write and, where stage 2 keeps them, sets Accessed and Dirty
 * there. Stage-1 bits are set before the output is translated; a refusal by stage 2 then leaves
 * them set, as on hardware. VT-d's second stage knows no execution (a fetch is a read) and no
 * privilege: the first decides. Arm's has both.
 */

import { belowHi, belowLo, highHalf, join, lowHalf, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { ReadOnlyMemory } from '../memory/read-only.js';
import { type PageTableFormat, RIGHT } from '../spec/pagetable/format.js';
import { WALK, type WalkOutcome, WalkResult } from './types.js';
import { walk } from './walk.js';

const { READ, WRITE, EXECUTE, PRIVILEGED } = RIGHT;
const ASKED = READ | WRITE | EXECUTE;

/**
 * Guest memory seen through stage-2 tables: addresses are intermediate ones. One object serves many
 * walks: {@link use} aims it at tables. `result` tells how the last stage-2 walk ended.
 */
export class StageTwo implements GuestMemory {
  readonly #updates: boolean;
  lo = 0;
  hi = 0;
  /** True: look only, set no stage-2 Accessed or Dirty bit and write nothing. */
  peeking = false;
  /** How the last stage-2 walk ended. */
  readonly result = new WalkResult();
  /** Outcome of the last stage-2 walk that failed since {@link use}; OK when none did. */
  failed: number = WALK.OK;
  failedAccess = 0;
  failedAddress = 0;
  format: PageTableFormat | undefined;
  root: PhysicalAddress = 0;
  readonly memory: GuestMemory;
  /** Of the format, see there. */
  #tableMemory = 0;

  /**
   * @param updates false: no Accessed or Dirty bit is set on the way, in neither stage; a walk that
   * needs to ends there
   */
  constructor(memory: GuestMemory, updates = true) {
    this.#updates = updates;
    this.memory = updates ? memory : new ReadOnlyMemory(memory);
  }

  /** Aims at stage-2 tables. `peeking` as in the field. Returns this. */
  use(format: PageTableFormat, root: PhysicalAddress, peeking: boolean): this {
    this.format = format;
    this.root = root;
    this.peeking = peeking;
    this.#tableMemory = format.tableMemory;
    this.failed = WALK.OK;
    return this;
  }

  /**
   * Translates an intermediate address. While {@link peeking} the rights that `access` needs are
   * checked all the same. `access` holds no rights that the format does not know
   * ({@link PageTableFormat.asks}). On success `result` holds the block.
   */
  translate(lo: number, hi: number, access: number): boolean {
    const format = this.format;
    if (format === undefined) throw new Error('StageTwo.use was not called');
    const result = this.result;
    let outcome = walk(
      format,
      this.memory,
      this.root,
      lo,
      hi,
      this.peeking ? access & PRIVILEGED : access,
      result,
    );
    const denied = access & ASKED & ~result.permissions;
    if (outcome === WALK.OK && denied !== 0) {
      result.denied = denied;
      outcome = result.outcome = WALK.PERMISSION;
    }
    return outcome === WALK.OK || this.#fail(outcome, lo, hi, access);
  }

  /** Remembers a refusal. Always false. */
  #fail(outcome: number, lo: number, hi: number, access: number): boolean {
    this.failed = outcome;
    this.failedAccess = access;
    this.failedAddress = join(lo, hi);
    return false;
  }

  /** Physical address of an intermediate one, or −1. Accesses here never cross a page. */
  #physical(ipa: PhysicalAddress, access: number): number {
    // Addresses below 2 GiB stay integers for the engine, as in the walk.
    const small = ipa < 0x8000_0000;
    const lo = ipa | 0;
    const hi = small ? 0 : highHalf(ipa) | 0;
    if (!this.translate(lo, hi, access)) return -1;
    const result = this.result;
    const memory = this.#tableMemory;
    if (memory !== 0 && (result.entryLo & memory) === 0) {
      result.outcome = WALK.PERMISSION;
      result.denied = access;
      this.#fail(WALK.PERMISSION, lo, hi, access);
      return -1;
    }
    const log2 = result.log2Size;
    const outLo = result.outLo | (lo & (log2 < 32 ? (1 << log2) - 1 : -1));
    const outHi = log2 <= 32 ? result.outHi : result.outHi | (hi & belowHi(log2));
    return outHi === 0 && outLo >= 0 ? outLo : join(outLo, outHi);
  }

  load32(ipa: PhysicalAddress): boolean {
    const address = this.#physical(ipa, READ);
    if (address < 0 || !this.memory.load32(address)) return false;
    this.lo = this.memory.lo;
    return true;
  }

  load64(ipa: PhysicalAddress): boolean {
    const address = this.#physical(ipa, READ);
    if (address < 0 || !this.memory.load64(address)) return false;
    this.lo = this.memory.lo;
    this.hi = this.memory.hi;
    return true;
  }

  loadWords(ipa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    for (let i = 0; i < count; i += 2) {
      if (!this.load64(ipa + i * 4)) return false;
      out[i] = this.lo;
      if (i + 1 < count) out[i + 1] = this.hi;
    }
    return true;
  }

  store32(ipa: PhysicalAddress, value: number): boolean {
    const address = this.peeking ? -1 : this.#physical(ipa, WRITE);
    return address >= 0 && this.memory.store32(address, value);
  }

  store64(ipa: PhysicalAddress, lo: number, hi: number): boolean {
    const address = this.peeking ? -1 : this.#physical(ipa, WRITE);
    return address >= 0 && this.memory.store64(address, lo, hi);
  }

  cas32(ipa: PhysicalAddress, expected: number, value: number): boolean {
    const address = this.peeking || !this.#updates ? -1 : this.#physical(ipa, READ | WRITE);
    // As nothing was exchanged, `lo` says so: the word is what it was, it just can't be written.
    this.lo = expected;
    if (address < 0) return false;
    const done = this.memory.cas32(address, expected, value);
    this.lo = this.memory.lo;
    return done;
  }

  contains(ipa: PhysicalAddress, bytes: number): boolean {
    const address = this.#physical(ipa, READ);
    return address >= 0 && this.memory.contains(address, bytes);
  }
}

/**
 * Translates `lo:hi` through stage-1 tables at intermediate address `root` and the stage-2 tables
 * that `stage2` is made to use. Outcomes of stage 1 are as of {@link walk}; STAGE2_ON_FETCH and
 * STAGE2 mean that stage 2 refused a stage-1 entry or the output: `result.stage2`, `stage2Access`,
 * `stage2Level` and `ipaLo:ipaHi` say how. Permissions are what both stages allow, the size is the
 * smaller one.
 */
export function walkNested(
  format1: PageTableFormat,
  root1: PhysicalAddress,
  stage2: StageTwo,
  format2: PageTableFormat,
  root2: PhysicalAddress,
  lo: number,
  hi: number,
  access: number,
  result: WalkResult,
): WalkOutcome {
  const look = (access & ASKED) === 0;
  stage2.use(format2, root2, look);
  const first = walk(format1, stage2, root1, lo, hi, access, result);
  if (first !== WALK.OK) {
    // A fetch or an update that stage 2 refused looks like memory that isn't there: here is the
    // difference.
    if (stage2.failed === WALK.OK || (first !== WALK.FETCH && first !== WALK.UPDATE)) return first;
    return stage2Failed(stage2, WALK.STAGE2_ON_FETCH, result);
  }
  const size1 = result.log2Size;
  const ipaLo = result.outLo | (lo & belowLo(size1));
  const ipaHi = result.outHi | (hi & belowHi(size1));
  let needed = access & format2.asks;
  if (!look && (needed & ASKED) === 0) needed |= READ;
  const walked = stage2.result;
  if (!stage2.translate(ipaLo, ipaHi, needed)) {
    result.permissions &= walked.permissions;
    return stage2Failed(stage2, WALK.STAGE2, result);
  }
  const size = Math.min(size1, walked.log2Size);
  result.ipaLo = ipaLo & ~belowLo(size);
  result.ipaHi = ipaHi & ~belowHi(size);
  // Within a larger stage-2 block the offset comes from the intermediate address.
  result.outLo = walked.outLo | (ipaLo & belowLo(walked.log2Size) & ~belowLo(size));
  result.outHi = walked.outHi | (ipaHi & belowHi(walked.log2Size) & ~belowHi(size));
  result.log2Size = size;
  result.permissions = both(format2, result.permissions, walked.permissions);
  result.cachable = both(format2, result.cachable, walked.cachable);
  return WALK.OK;
}

/**
 * Rights that both stages allow; where `format2` does not know execution, its reads stand for it.
 */
export function both(format2: PageTableFormat, first: number, second: number): number {
  const execute = (format2.asks & EXECUTE) !== 0 ? second : (second & READ) * (EXECUTE / READ);
  const rights = first & ((second & (READ | WRITE)) | (execute & EXECUTE));
  return rights === 0 ? 0 : rights | ((first | second) & PRIVILEGED);
}

function stage2Failed(stage2: StageTwo, outcome: WalkOutcome, result: WalkResult): WalkOutcome {
  result.outcome = outcome;
  result.stage2 = stage2.failed;
  result.stage2Access = stage2.failedAccess;
  result.stage2Level = stage2.result.level;
  result.ipaLo = lowHalf(stage2.failedAddress) | 0;
  result.ipaHi = highHalf(stage2.failedAddress) | 0;
  return outcome;
}
