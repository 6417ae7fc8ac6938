import { ACCESS, REQUEST, RESUME, TRANSLATE_STATUS } from '../device/iommu.js';
import type { Machine } from './machine.js';
import { throughSpan } from './sim-iotlb.js';

/** An access of a device that can wait. */
export interface HeldAccess {
  readonly address: bigint;
  /** The word to write; undefined: a read. */
  readonly value: number | undefined;
  /** `waiting` while it is stalled. */
  state: 'waiting' | 'done' | 'failed';
  /** What was read. */
  result: number;
  /** How often it was stalled. */
  stalls: number;
  stall: number;
}

/**
 * A device whose accesses can stall and be repeated, as those of on-chip devices behind an SMMU.
 */
export class StallingDevice {
  /** Accesses that are stalled. */
  readonly waiting: HeldAccess[] = [];

  constructor(
    readonly machine: Machine,
    readonly rid: number,
    readonly pasid = -1,
  ) {}

  write(address: bigint, value: number): HeldAccess {
    return this.#start(address, value);
  }

  read(address: bigint): HeldAccess {
    return this.#start(address, undefined);
  }

  /** Goes on with what was resumed. Returns how many accesses ended. */
  poll(): number {
    let ended = 0;
    for (const access of [...this.waiting]) {
      const action = this.machine.resumes.get(access.stall);
      if (action === undefined) continue;
      this.machine.resumes.delete(access.stall);
      this.waiting.splice(this.waiting.indexOf(access), 1);
      if (action === RESUME.RETRY) this.#attempt(access);
      else access.state = action === RESUME.READ_ZERO ? 'done' : 'failed';
      if (access.state !== 'waiting') ended++;
    }
    return ended;
  }

  /** The machine was reset: nothing is held any more. */
  reset(): void {
    for (const access of this.waiting) access.state = 'failed';
    this.waiting.length = 0;
  }

  #start(address: bigint, value: number | undefined): HeldAccess {
    const access: HeldAccess = { address, value, state: 'waiting', result: 0, stalls: 0, stall: 0 };
    this.#attempt(access);
    return access;
  }

  #attempt(access: HeldAccess): void {
    const { machine, rid, pasid } = this;
    const bits = access.value === undefined ? ACCESS.READ : ACCESS.WRITE;
    const answer = machine.request(rid, pasid, bits, access.address, REQUEST.UNTRANSLATED, true);
    if (answer.status === TRANSLATE_STATUS.STALLED) {
      access.state = 'waiting';
      access.stall = answer.stall;
      access.stalls++;
      this.waiting.push(access);
      return;
    }
    access.state = answer.status === TRANSLATE_STATUS.OK ? 'done' : 'failed';
    if (access.state === 'failed') return;
    const { gpa } = throughSpan(answer.span, 0, access.address);
    if (access.value === undefined) access.result = machine.ram.load32(gpa) >>> 0;
    else machine.ram.store32(gpa, access.value);
  }
}
