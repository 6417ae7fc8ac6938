import type { PhysicalAddress } from '../base/u64.js';
import type { GuestMemory } from './guest-memory.js';

/**
 * Guest memory whose contents stay what they are: each store and each exchange fails, as on memory
 * that is not writable.
 */
export class ReadOnlyMemory implements GuestMemory {
  lo = 0;
  hi = 0;

  constructor(protected readonly memory: GuestMemory) {}

  load32(gpa: PhysicalAddress): boolean {
    if (!this.memory.load32(gpa)) return false;
    this.lo = this.memory.lo;
    return true;
  }

  load64(gpa: PhysicalAddress): boolean {
    if (!this.memory.load64(gpa)) return false;
    this.lo = this.memory.lo;
    this.hi = this.memory.hi;
    return true;
  }

  loadWords(gpa: PhysicalAddress, out: Uint32Array, count: number): boolean {
    return this.memory.loadWords(gpa, out, count);
  }

  store32(): boolean {
    return false;
  }

  store64(): boolean {
    return false;
  }

  cas32(_gpa: PhysicalAddress, expected: number, _value: number): boolean {
    // The word is what it was; it just can't be written.
    this.lo = expected;
    return false;
  }

  contains(gpa: PhysicalAddress, bytes: number): boolean {
    return this.memory.contains(gpa, bytes);
  }
}
