/**
 * The one page-table walker. It knows no format: every position, mask and rule comes from a
 * {@link PageTableFormat} record. A nested walk is the same walk over memory that translates
 * (nested.ts).
 *
 * Which error comes first, where several are possible:
 * 1. the input address is checked before any entry is read;
 * 2. per level: the fetch, then presence, then reserved bits (an entry that is not present has
 *    none); of these Arm's order: translation, address size, Access flag;
 * 3. rights are checked once, after the leaf was found valid, on what all levels allow together.
 *    VT-d §3.6.1 and §3.7 define access rights over all entries of a translation, as processors do,
 *    so a missing or malformed entry below a read-only one is reported as such. (Models that check
 *    rights at each level report the right violation there; both leave the request blocked, only
 *    hostile tables can tell.)
 * 4. the Accessed bit of an entry is set as the walk uses it to go on; the leaf's together with
 *    Dirty, and only after rights were granted, so a refused write never leaves a Dirty bit
 *    (§3.6.2, §3.7.2).
 *
 * Arm's levels count from the root: Arm's level is 4 less ours. A translation fault there is
 * NOT_PRESENT, or ADDRESS_SIZE (the input) at the root; an address size fault is OUTPUT_SIZE.
 */

import { join, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { type FormatLevel, type PageTableFormat, RIGHT } from '../spec/pagetable/format.js';
import { WALK, type WalkOutcome, type WalkResult } from './types.js';

// Copies of imported constants: the engine folds a module's own constants into the code, imported
// ones not.
const { OK, NOT_PRESENT, FETCH, UPDATE } = WALK;
const { READ, WRITE, EXECUTE, PRIVILEGED } = RIGHT;
const ASKED = READ | WRITE | EXECUTE;

/** What became of an Accessed/Dirty update. */
const DONE = 0;
const CHANGED = 1;
const IMPOSSIBLE = 2;

/**
 * An entry that the guest changes again and again under our update is given up after so many tries.
 */
const MAX_UPDATES = 16;

/**
 * Translates `lo:hi` through the tables at `root` and fills `result`.
 *
 * `access` holds {@link RIGHT} bits. With access 0 (or PRIVILEGED alone) nothing is refused for
 * lack of rights and no Accessed or Dirty bit is written: the result tells what would be allowed.
 * `root` is aligned as the format's root table has to be. Reads at most one entry per level, plus
 * bounded re-reads where the guest changes an entry under an update.
 */
export function walk(
  format: PageTableFormat,
  memory: GuestMemory,
  root: PhysicalAddress,
  lo: number,
  hi: number,
  access: number,
  result: WalkResult,
): WalkOutcome {
  const sign = ((hi & format.signMask) | format.upper) >> 31;
  if ((((hi ^ sign) & format.inputHi) | ((lo ^ sign) & format.inputLo)) !== 0)
    return badInput(format, result);
  const presentMask = format.presentMask;
  const addressLo = format.addressLo;
  const addressHi = format.addressHi;
  const splitLo = format.splitLo;
  const splitShift = format.splitShift;
  const keepLo = format.keepLo;
  const tableAccessed = (access & ASKED) === 0 ? 0 : format.tableAccessed;
  let at: FormatLevel = format.root;
  let table: number = root;
  let gatheredLo = -1;
  let gatheredHi = 0;
  let updates = 0;
  for (;;) {
    const shift = at.shift;
    // Shift counts are taken modulo 32, so `shift` serves both halves.
    const index = (shift < 32 ? (lo >>> shift) | (hi << (32 - shift)) : hi >>> shift) & at.indexMask;
    const address = table + index * 8;
    if (!memory.load64(address)) return ended(result, FETCH, at, address, 0, 0);
    let entryLo = memory.lo | 0;
    const entryHi = memory.hi | 0;
    if ((entryLo & presentMask) === 0) return ended(result, NOT_PRESENT, at, address, entryLo, entryHi);

    if ((entryLo & at.leafMask) === at.leafValue) {
      if ((((entryLo ^ at.flip) & at.leafReservedLo) | (entryHi & at.leafReservedHi)) !== 0)
        return malformed(format, result, at, address, entryLo, entryHi);
      result.aboveLo = gatheredLo;
      result.aboveHi = gatheredHi;
      const rights = rightsOf(format, gatheredLo & entryLo, entryHi, gatheredHi, access);
      if ((access & ASKED & ~rights) !== 0)
        return refused(format, result, at, address, entryLo, entryHi, access, rights);
      if ((access & ASKED) !== 0) {
        let wanted = entryLo | format.accessed;
        if ((access & WRITE) !== 0) wanted = (wanted | format.dirty) & ~format.clean;
        if (wanted !== entryLo) {
          const done = update(memory, address, entryLo, entryHi, wanted, ++updates);
          if (done === CHANGED) continue;
          if (done !== DONE) return ended(result, UPDATE, at, address, entryLo, entryHi);
          entryLo = wanted;
        }
      }
      result.outLo = entryLo & at.leafAddressLo;
      result.outHi = (entryHi & at.leafAddressHi) | ((entryLo & splitLo) << splitShift);
      result.log2Size = shift;
      result.permissions = rights;
      result.denied = 0;
      result.cachable = cachable(format, gatheredLo, entryLo, rights);
      return ended(result, OK, at, address, entryLo, entryHi);
    }

    const next = at.next;
    if (
      (((entryLo ^ at.flip) & at.tableReservedLo) | (entryHi & at.tableReservedHi)) !== 0 ||
      next === undefined // never: every entry of level 1 is a leaf
    )
      return malformed(format, result, at, address, entryLo, entryHi);
    if ((entryLo & tableAccessed) !== tableAccessed) {
      const wanted = entryLo | tableAccessed;
      const done = update(memory, address, entryLo, entryHi, wanted, ++updates);
      if (done === CHANGED) continue;
      if (done !== DONE) return ended(result, UPDATE, at, address, entryLo, entryHi);
      entryLo = wanted;
    }
    gatheredLo &= entryLo | keepLo;
    gatheredHi |= entryHi;
    const nextLo = entryLo & addressLo;
    const nextHi = (entryHi & addressHi) | ((entryLo & splitLo) << splitShift);
    // Below 2 GiB the address stays an integer for the engine; `join` makes a floating-point number
    // of it.
    table = nextHi === 0 && nextLo >= 0 ? nextLo : join(nextLo, nextHi);
    at = next;
  }
}

/**
 * {@link RIGHT} bits for what the entries of a translation gathered, at the privilege of `access`:
 * the AND of all low halves, the leaf's high half, and the OR of the high halves above it.
 */
export function rightsOf(
  format: PageTableFormat,
  gatheredLo: number,
  leafHi: number,
  aboveHi: number,
  access: number,
): number {
  const index =
    ((gatheredLo >>> format.lowShift) & format.lowMask) |
    ((leafHi >>> format.leafHiShift) & format.leafHiMask) |
    ((aboveHi >>> format.aboveHiShift) & format.aboveHiMask);
  return format.rights[index | (access & PRIVILEGED)];
}

/**
 * What of `rights` may be kept without another walk, given the Accessed and Dirty bits as they
 * stand.
 */
export function cachable(
  format: PageTableFormat,
  gatheredLo: number,
  leafLo: number,
  rights: number,
): number {
  const { accessed, clean } = format;
  if ((gatheredLo & leafLo & accessed) !== accessed) return 0;
  return (~leafLo & format.dirty) === 0 && (leafLo & clean) === 0 ? rights : rights & ~WRITE;
}

/**
 * What a present entry's violated bits mean: OK when there are none. Not for the hot path, which
 * only asks whether.
 */
export function flawOf(format: PageTableFormat, at: FormatLevel, lo: number, hi: number): WalkOutcome {
  const leaf = (lo & at.leafMask) === at.leafValue;
  const badLo = (lo ^ at.flip) & (leaf ? at.leafReservedLo : at.tableReservedLo);
  const badHi = hi & (leaf ? at.leafReservedHi : at.tableReservedHi);
  if ((badLo | badHi) === 0) return WALK.OK;
  if ((badLo & format.absentLo) !== 0) return WALK.NOT_PRESENT;
  if (((badLo & format.sizeLo) | (badHi & format.sizeHi)) !== 0) return WALK.OUTPUT_SIZE;
  return (badLo & format.accessFlagLo) !== 0 ? WALK.ACCESS_FLAG : WALK.RESERVED;
}

/**
 * Makes `wanted` the low half of an entry that was read as `lo:hi`. CHANGED: the guest was there in
 * between, so the entry has to be looked at again. A change of the high half alone does not fail
 * the 32-bit exchange; it is caught by reading once more.
 */
function update(
  memory: GuestMemory,
  address: number,
  lo: number,
  hi: number,
  wanted: number,
  tries: number,
): number {
  if (tries > MAX_UPDATES) return IMPOSSIBLE;
  if (!memory.cas32(address, lo, wanted)) return (memory.lo | 0) === lo ? IMPOSSIBLE : CHANGED;
  if (!memory.load64(address)) return IMPOSSIBLE;
  return (memory.lo | 0) === wanted && (memory.hi | 0) === hi ? DONE : CHANGED;
}

function ended(
  result: WalkResult,
  outcome: WalkOutcome,
  at: FormatLevel,
  address: number,
  entryLo: number,
  entryHi: number,
): WalkOutcome {
  result.outcome = outcome;
  result.level = at.level;
  result.entryAddress = address;
  result.entryLo = entryLo;
  result.entryHi = entryHi;
  result.stage2 = OK;
  return outcome;
}

function badInput(format: PageTableFormat, result: WalkResult): WalkOutcome {
  return ended(result, WALK.ADDRESS_SIZE, format.root, 0, 0, 0);
}

function malformed(
  format: PageTableFormat,
  result: WalkResult,
  at: FormatLevel,
  address: number,
  entryLo: number,
  entryHi: number,
): WalkOutcome {
  return ended(result, flawOf(format, at, entryLo, entryHi), at, address, entryLo, entryHi);
}

function refused(
  format: PageTableFormat,
  result: WalkResult,
  at: FormatLevel,
  address: number,
  entryLo: number,
  entryHi: number,
  access: number,
  rights: number,
): WalkOutcome {
  result.permissions = rights;
  result.denied = access & ASKED & ~rights;
  if ((access & PRIVILEGED) === 0 && (rights & READ) === 0) {
    // A page that a user may not even read but a privileged request may: privilege is the reason.
    const privileged = rightsOf(format, result.aboveLo & entryLo, entryHi, result.aboveHi, PRIVILEGED);
    if ((privileged & READ) !== 0) result.denied |= PRIVILEGED;
  }
  return ended(result, WALK.PERMISSION, at, address, entryLo, entryHi);
}
