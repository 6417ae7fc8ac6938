/**
 * The one page-table walker. It knows no format: every position, mask and rule comes from a
 * {@link PageTableFormat} record. A nested walk is the same walk over memory that translates (nested.ts).
 *
 * Which error comes first, where several are possible:
 * 1. the input address is checked before any entry is read;
 * 2. per level: the fetch, then presence, then reserved bits (an entry that is not present has none);
 * 3. rights are checked once, after the leaf was found valid, on what all levels allow together. VT-d §3.6.1
 *    and §3.7 define access rights over all entries of a translation, as processors do, so a missing or
 *    malformed entry below a read-only one is reported as such. (Models that check rights at each level report
 *    the right violation there; both leave the request blocked, only hostile tables can tell.)
 * 4. the Accessed bit of an entry is set as the walk uses it to go on; the leaf's together with Dirty, and
 *    only after rights were granted, so a refused write never leaves a Dirty bit (§3.6.2, §3.7.2).
 */

import { join, type PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from '../memory/port.js';
import { type FormatLevel, type PageTableFormat, RIGHT, RIGHTS_INDEX } from '../spec/pagetable/format.js';
import { WALK, type WalkOutcome, type WalkResult } from './types.js';

// Copies of imported constants: the engine folds a module's own constants into the code, imported ones not.
const { OK, NOT_PRESENT, FETCH, UPDATE } = WALK;
const { READ, WRITE, EXECUTE, PRIVILEGED } = RIGHT;
const { GATHERED, DENIED, PRIVILEGED: PRIVILEGED_INDEX } = RIGHTS_INDEX;
const ASKED = READ | WRITE | EXECUTE;

/** What became of an Accessed/Dirty update. */
const DONE = 0;
const CHANGED = 1;
const IMPOSSIBLE = 2;

/** An entry that the guest changes again and again under our update is given up after so many tries. */
const MAX_UPDATES = 16;

/**
 * Translates `lo:hi` through the tables at `root` and fills `result`.
 *
 * `access` holds {@link RIGHT} bits. With access 0 nothing is refused for lack of rights and no
 * Accessed or Dirty bit is written: the result tells what would be allowed. `root` is 4 KiB aligned.
 * Reads at most one entry per level, plus bounded re-reads where the guest changes an entry under an update.
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
  const top = hi >> format.inputShift;
  if (top !== 0 && (top !== -1 || !format.signExtended)) return badInput(format, result);
  const presentMask = format.presentMask;
  const addressLo = format.addressLo;
  const addressHi = format.addressHi;
  const accessed = access === 0 ? 0 : format.accessed;
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
      if (((entryLo & at.leafReservedLo) | (entryHi & at.leafReservedHi)) !== 0)
        return malformed(format, result, at, address, entryLo, entryHi);
      result.aboveLo = gatheredLo;
      result.aboveHi = gatheredHi;
      const rights = rightsOf(format, gatheredLo & entryLo, gatheredHi | entryHi, access);
      if ((access & ASKED & ~rights) !== 0)
        return refused(format, result, at, address, entryLo, entryHi, access, rights);
      const wanted = (access & WRITE) !== 0 ? accessed | format.dirty : accessed;
      if ((entryLo & wanted) !== wanted) {
        const done = update(memory, address, entryLo, entryHi, wanted, ++updates);
        if (done === CHANGED) continue;
        if (done !== DONE) return ended(result, UPDATE, at, address, entryLo, entryHi);
        entryLo |= wanted;
      }
      result.outLo = entryLo & at.leafAddressLo;
      result.outHi = entryHi & at.leafAddressHi;
      result.log2Size = shift;
      result.permissions = rights;
      result.denied = 0;
      result.cachable = cachable(format, gatheredLo, entryLo, rights);
      return ended(result, OK, at, address, entryLo, entryHi);
    }

    const next = at.next;
    if (
      ((entryLo & at.tableReservedLo) | (entryHi & at.tableReservedHi)) !== 0 ||
      next === undefined // never: every entry of level 1 is a leaf
    )
      return malformed(format, result, at, address, entryLo, entryHi);
    if ((entryLo & accessed) !== accessed) {
      const done = update(memory, address, entryLo, entryHi, accessed, ++updates);
      if (done === CHANGED) continue;
      if (done !== DONE) return ended(result, UPDATE, at, address, entryLo, entryHi);
      entryLo |= accessed;
    }
    gatheredLo &= entryLo;
    gatheredHi |= entryHi;
    const nextLo = entryLo & addressLo;
    const nextHi = entryHi & addressHi;
    // Below 2 GiB the address stays an integer for the engine; `join` makes a floating-point number of it.
    table = nextHi === 0 && nextLo >= 0 ? nextLo : join(nextLo, nextHi);
    at = next;
  }
}

/** {@link RIGHT} bits for what the entries of a translation gathered, at the privilege of `access`. */
export function rightsOf(
  format: PageTableFormat,
  gatheredLo: number,
  gatheredHi: number,
  access: number,
): number {
  let index = gatheredLo & GATHERED;
  if ((gatheredHi & format.denyHi) !== 0) index |= DENIED;
  if ((access & PRIVILEGED) !== 0) index |= PRIVILEGED_INDEX;
  return format.rights[index];
}

/** What of `rights` may be kept without another walk, given the Accessed and Dirty bits as they stand. */
export function cachable(
  format: PageTableFormat,
  gatheredLo: number,
  leafLo: number,
  rights: number,
): number {
  const accessed = format.accessed;
  if ((gatheredLo & leafLo & accessed) !== accessed) return 0;
  return (leafLo & format.dirty) === format.dirty ? rights : rights & ~WRITE;
}

/**
 * Sets `wanted` in the low half of an entry that was read as `lo:hi`. CHANGED: the guest was there in
 * between, so the entry has to be looked at again. A change of the high half alone does not fail the 32-bit
 * exchange; it is caught by reading once more.
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
  if (!memory.cas32(address, lo, lo | wanted)) return (memory.lo | 0) === lo ? IMPOSSIBLE : CHANGED;
  if (!memory.load64(address)) return IMPOSSIBLE;
  return (memory.lo | 0) === (lo | wanted) && (memory.hi | 0) === hi ? DONE : CHANGED;
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
  const outcome = (entryHi & format.sizeHi) !== 0 ? WALK.OUTPUT_SIZE : WALK.RESERVED;
  return ended(result, outcome, at, address, entryLo, entryHi);
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
    const gatheredLo = result.aboveLo & entryLo;
    const gatheredHi = result.aboveHi | entryHi;
    if ((rightsOf(format, gatheredLo, gatheredHi, PRIVILEGED) & READ) !== 0) result.denied |= PRIVILEGED;
  }
  return ended(result, WALK.PERMISSION, at, address, entryLo, entryHi);
}
