import type { PhysicalAddress } from '../base/u64.js';

/**
 * Guest memory as the engine sees it (ARCHITECTURE.md, Guest memory). Everything is little-endian.
 * An access that is not wholly inside one RAM region does nothing and returns false; the model
 * turns that into its own fetch fault. Values come back in `lo` and `hi` (signed or unsigned 32-bit
 * halves), so that no access allocates.
 *
 * The guest changes memory while it is read. `load64` is tear-free: the two halves are of one
 * store.
 */
export interface GuestMemory {
  /** Low half of the last successful load. */
  lo: number;
  /** High half of the last successful `load64`. */
  hi: number;
  /** Loads 32 bits at a 4-byte aligned address into `lo`. */
  load32(gpa: PhysicalAddress): boolean;
  /** Loads 64 bits at an 8-byte aligned address into `lo` and `hi`, tear-free. */
  load64(gpa: PhysicalAddress): boolean;
  /**
   * Loads `count` 32-bit words, each aligned pair tear-free, into `out[0..count)`. 8-byte aligned.
   */
  loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean;
  /** Stores 32 bits. 4-byte aligned. */
  store32(gpa: PhysicalAddress, value: number): boolean;
  /** Stores 64 bits, the high half first. 8-byte aligned. */
  store64(gpa: PhysicalAddress, lo: number, hi: number): boolean;
  /**
   * Atomically replaces the 32-bit word at `gpa` by `value` if it still is `expected` (both taken
   * as signed). `cas32.lo` holds what was there. False when it is not writable RAM or the word had
   * changed: `lo` tells.
   */
  cas32(gpa: PhysicalAddress, expected: number, value: number): boolean;
  /**
   * True when `bytes` bytes of memory, whole 64-bit units, equal `copy` from byte `at` on; false
   * also where they are not RAM. Each unit is compared as it was at some moment of the call.
   * Absent: load and compare.
   */
  sameBytes?(gpa: PhysicalAddress, copy: Uint8Array, at: number, bytes: number): boolean;
  /** True when [gpa, gpa+bytes) is RAM, without touching it. */
  contains(gpa: PhysicalAddress, bytes: number): boolean;
}
