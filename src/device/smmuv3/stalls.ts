/**
 * Stalled transactions. IHI 0070 §3.12.2, §4.7.1, §4.7.2, §7.2.1.
 *
 * The device holds the transaction; here stands what is known of it, until software resumes or
 * terminates it, or the SMMU is disabled. The record of one that finds the Event queue not writable
 * waits, in order. A transaction that differs from a stalled one of its stream in nothing but the
 * place in the page has no record of its own: it follows the other one, and is tried again when
 * that one was acknowledged (§3.12.2.1).
 *
 * A STAG is a slot in its low byte and a count in its high byte, so that an old one does not soon
 * name another transaction.
 */
import { PAGE_OFFSET } from '../../base/page.js';
import { ACCESS, type IommuOutputs, RESUME, type TranslateRequest } from '../iommu.js';
import { STALL_MAX } from './config.js';
import { EVENT_WORDS, type EventQueue } from './event-queue.js';
import type { Fault } from './fault.js';

const STATE = {
  FREE: 0,
  /** The record is not written yet. */
  WAITING: 1,
  /** The record is written: software knows the STAG. */
  RECORDED: 2,
  /** Without a record: follows another one. */
  FOLLOWING: 3,
} as const;

interface Slot {
  state: number;
  /** What the device knows it by. */
  stall: number;
  /** The slot that this one follows, or −1. */
  leader: number;
  uses: number;
  sid: number;
  ssid: number;
  access: number;
  pageLo: number;
  hi: number;
  /** Invalidations that were complete when the transaction faulted. */
  synced: number;
  readonly record: Uint32Array;
}

/** A stalled transaction, for people. */
interface StalledTransaction {
  readonly stag: number;
  readonly state: 'waits for the Event queue' | 'recorded' | 'follows another one';
  readonly sid: number;
  readonly ssid: number;
  readonly access: number;
  readonly lo: number;
  readonly hi: number;
}

const newSlot = (): Slot => ({
  ...{ state: STATE.FREE, stall: 0, leader: -1, uses: 0, sid: 0, ssid: 0, access: 0, pageLo: 0, hi: 0 },
  ...{ synced: 0, record: new Uint32Array(EVENT_WORDS) },
});

export class Stalls {
  readonly #events: EventQueue;
  readonly #outputs: IommuOutputs;
  /** Transactions that are stalled now. */
  held = 0;
  readonly #slots = Array.from({ length: STALL_MAX }, newSlot);
  /** Slots whose records are to be written, the oldest first. */
  #waiting: number[] = [];
  #next = 0;
  #nextStall = 1;
  #synced = 0;

  constructor(events: EventQueue, outputs: IommuOutputs) {
    this.#events = events;
    this.#outputs = outputs;
  }

  /** Power-on. No RESUME is sent: devices have been reset too, and hold no request any more. */
  reset(): void {
    for (const slot of this.#slots) slot.state = STATE.FREE;
    this.#waiting = [];
    this.held = 0;
  }

  /**
   * Stalls a transaction. Returns what the device is to know it by, or 0 when too many are stalled.
   */
  hold(fault: Fault, request: TranslateRequest): number {
    if (this.held === STALL_MAX) return 0;
    const leader = this.held === 0 ? -1 : this.#alike(request);
    const index = this.#freeSlot();
    const slot = this.#slots[index];
    slot.stall = this.#nextStall;
    this.#nextStall = (this.#nextStall % 0xffff_ffff) + 1;
    slot.uses = (slot.uses + 1) & 0xff;
    slot.sid = request.rid;
    slot.ssid = request.pasid;
    slot.access = request.access;
    slot.pageLo = request.lo & ~PAGE_OFFSET;
    slot.hi = request.hi | 0;
    slot.synced = this.#synced;
    slot.leader = leader;
    this.held++;
    if (leader >= 0) {
      slot.state = STATE.FOLLOWING;
      this.#events.stalled(fault, request, false);
      return slot.stall;
    }
    this.#events.stallRecord(fault, request, this.#stagOf(index), slot.record);
    slot.state = STATE.WAITING;
    this.#waiting.push(index);
    this.writeRecords();
    this.#events.stalled(fault, request, this.#slots[index].state === STATE.RECORDED);
    return slot.stall;
  }

  /** CMD_RESUME. Whatever does not name a recorded stall of the stream has no effect. §4.7.1 */
  resume(sid: number, stag: number, retry: boolean): void {
    const index = stag % STALL_MAX;
    const slot = this.#slots[index];
    if (slot.state !== STATE.RECORDED || slot.sid !== sid || this.#stagOf(index) !== stag) return;
    // TERM_MODEL is set: every termination is an abort, and Ab is ignored.
    this.#release(index, retry ? RESUME.RETRY : RESUME.ABORT);
  }

  /** CMD_STALL_TERM: all of a stream, recorded or not. §4.7.2 */
  terminate(sid: number): void {
    for (const slot of this.#slots) {
      if (slot.state !== STATE.FREE && slot.sid === sid) this.#end(slot, RESUME.ABORT);
    }
    this.#forgetEnded();
  }

  /** SMMUEN was cleared. §6.3.9.6 */
  terminateAll(): void {
    if (this.held === 0) return;
    for (const slot of this.#slots) if (slot.state !== STATE.FREE) this.#end(slot, RESUME.ABORT);
    this.#waiting = [];
  }

  /**
   * A CMD_SYNC completed invalidations: records that wait describe what may no longer be. §4.7.3
   */
  invalidated(): void {
    this.#synced++;
  }

  /**
   * Writes the records that wait, as long as the queue takes them. One that an invalidation
   * overtook is not written: its transaction is tried again, and faults anew if it still has to
   * (§7.2.1).
   */
  writeRecords(): void {
    while (this.#waiting.length > 0 && this.#events.writable) {
      const index = this.#waiting[0];
      const slot = this.#slots[index];
      if (slot.synced !== this.#synced) {
        this.#release(index, RESUME.RETRY);
        continue;
      }
      if (!this.#events.write(slot.record)) return;
      slot.state = STATE.RECORDED;
      this.#waiting.shift();
    }
  }

  /** For people. */
  list(): StalledTransaction[] {
    const found: StalledTransaction[] = [];
    this.#slots.forEach((slot, index) => {
      if (slot.state === STATE.FREE) return;
      const state =
        slot.state === STATE.RECORDED
          ? 'recorded'
          : slot.state === STATE.WAITING
            ? 'waits for the Event queue'
            : 'follows another one';
      const { sid, ssid, access, pageLo, hi } = slot;
      found.push({ stag: this.#stagOf(index), state, sid, ssid, access, lo: pageLo >>> 0, hi: hi >>> 0 });
    });
    return found;
  }

  #stagOf(index: number): number {
    return this.#slots[index].uses * STALL_MAX + index;
  }

  /**
   * A stalled transaction with a record, of the same stream, substream, page, privilege and kind;
   * −1 when there is none.
   */
  #alike(request: TranslateRequest): number {
    const { rid, pasid, lo, hi } = request;
    for (let index = 0; index < STALL_MAX; index++) {
      const slot = this.#slots[index];
      if (slot.state !== STATE.WAITING && slot.state !== STATE.RECORDED) continue;
      if (slot.sid !== rid || slot.ssid !== pasid || slot.hi !== (hi | 0)) continue;
      if (slot.pageLo === (lo & ~PAGE_OFFSET) && sameKind(slot.access, request.access)) return index;
    }
    return -1;
  }

  /** The one that was free for longest, roughly: slots are used in turn. */
  #freeSlot(): number {
    while (this.#slots[this.#next].state !== STATE.FREE) this.#next = (this.#next + 1) % STALL_MAX;
    const index = this.#next;
    this.#next = (index + 1) % STALL_MAX;
    return index;
  }

  /** Ends one with a record, and has those that follow it tried again. */
  #release(index: number, action: number): void {
    const slot = this.#slots[index];
    this.#end(slot, action);
    for (const other of this.#slots) {
      if (other.state === STATE.FOLLOWING && other.leader === index) this.#end(other, RESUME.RETRY);
    }
    this.#forgetEnded();
  }

  #end(slot: Slot, action: number): void {
    slot.state = STATE.FREE;
    this.held--;
    this.#outputs.resume(slot.stall, action);
  }

  #forgetEnded(): void {
    if (this.#waiting.length === 0) return;
    this.#waiting = this.#waiting.filter((index) => this.#slots[index].state === STATE.WAITING);
  }
}

/** Both read or both write, as instruction or data, with the same privilege. §3.12.2.1 */
function sameKind(one: number, other: number): boolean {
  const kind = ACCESS.READ | ACCESS.WRITE | ACCESS.EXECUTE | ACCESS.PRIVILEGED;
  return ((one ^ other) & kind) === 0;
}
