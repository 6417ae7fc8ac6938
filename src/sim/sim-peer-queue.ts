/**
 * The simulated bridge completes plain invalidations by itself, in the store that rings the
 * doorbell (docs/protocol.md, "Queues"). Like the bridge in QEMU it knows no command, only the
 * description that QUEUE brings.
 */
import { ANY } from '../base/ids.js';
import { PLAIN } from '../device/peer-queue.js';
import { CONTROL, SHARED } from '../wire/frame.js';
import type { Queue } from '../wire/messages.js';
import type { GuestRam } from './machine.js';
import type { Dropped } from './sim-iotlb.js';

const COMMAND_WORDS = 32;
const ENTRY_WORDS = 8;
const SOME_WORDS = 4;
/** What a command does. */
const DROPS = 1;
const STORES = 2;
const SLOT_WORDS = 4;
const HEAD_SLOTS = 1;

/** What the peer queue needs of the peer. */
interface PeerQueuePorts {
  /** The shared page file. */
  readonly file: ArrayBufferLike;
  readonly ram: GuestRam;
  /** Drops translations of the peer's own cache, and fills of it that are in flight. */
  drop(what: Dropped): void;
  /** Sends QUEUE_RAN. */
  queueRan(): void;
}

/** One command to be carried out. */
interface Step {
  readonly entry: Uint32Array;
  readonly drops?: Dropped;
  readonly stores?: { readonly address: number; readonly value: number };
}

export class SimPeerQueue {
  readonly #ports: PeerQueuePorts;
  /** Commands carried out, and doorbells whose commands were. */
  commands = 0;
  rung = 0;
  /** Doorbells that had to be sent, because the ring had no room. */
  full = 0;
  #queue: Queue | undefined;
  #commands = new Uint32Array(0);
  /** Slots filled, modulo 2^32. */
  #filled: number;

  readonly #control: Uint32Array;
  readonly #registers: Uint32Array;
  readonly #ring: Uint32Array;

  constructor(ports: PeerQueuePorts) {
    this.#ports = ports;
    const { file } = ports;
    const ringAt = file.byteLength - SHARED.RING_BYTES;
    this.#control = new Uint32Array(file, SHARED.CONTROL, SHARED.SAVED / 4);
    this.#registers = new Uint32Array(file, SHARED.REGISTERS, (ringAt - SHARED.REGISTERS) / 4);
    this.#ring = new Uint32Array(file, ringAt, SHARED.RING_BYTES / 4);
    this.#filled = Atomics.load(this.#control, CONTROL.RING_FILLED);
  }

  /** Takes a QUEUE. */
  take(message: Queue): void {
    this.#queue = { ...message, commands: [] };
    this.#commands = Uint32Array.from(message.commands);
  }

  /**
   * Takes a store of the guest, when `sent` REG_WRITEs have been sent. True: it was a doorbell, and
   * its commands are done. False: nothing has happened, and the store is to be sent.
   */
  ring(offset: number, size: number, value: bigint, sent: number): boolean {
    const control = this.#control;
    const registers = this.#registers;
    const queue = this.#queue;
    if (queue === undefined || offset !== queue.tail || (size !== 4 && size !== 8)) return false;
    if (Atomics.load(control, CONTROL.HANDLED) !== sent) return false;
    if (Atomics.load(control, CONTROL.QUEUE) !== queue.number) return false;
    const mask = queue.indexMask >>> 0;
    if ((value & ~BigInt(mask)) !== 0n) return false;
    const index = Number(value);
    const from = (Atomics.load(registers, queue.head >> 2) & mask) >>> queue.indexShift;
    const steps = this.#steps(queue, from, index >>> queue.indexShift);
    if (steps === undefined || !this.#hasRoom(queue, steps.length)) return false;
    for (const { drops } of steps) if (drops !== undefined) this.#ports.drop(drops);
    this.#publish(queue, index, steps);
    let stored = false;
    for (const { drops, stores } of steps) {
      if (stores !== undefined) {
        this.#ports.ram.store32(stores.address, stores.value);
        stored = true;
      } else if (drops !== undefined && stored) this.#ports.drop(drops);
    }
    for (const register of [queue.head, queue.tail]) {
      const at = register >> 2;
      Atomics.store(registers, at, (Atomics.load(registers, at) & ~mask) | index);
    }
    this.rung++;
    this.commands += steps.length;
    return true;
  }

  /**
   * The steps of the entries from one index to another; undefined: one of them is for the daemon.
   */
  #steps(queue: Queue, from: number, to: number): Step[] | undefined {
    const entries = 2 ** queue.entriesLog2;
    const indexes = queue.wraps ? entries * 2 : entries;
    const count = (to - from + indexes) % indexes;
    if (count === 0 || count > entries) return undefined;
    const base = queue.baseHi * 2 ** 32 + (queue.baseLo >>> 0);
    const bytes = 2 ** queue.entryLog2;
    const steps: Step[] = [];
    for (let n = 0; n < count; n++) {
      const at = base + ((from + n) % entries) * bytes;
      if (!this.#ports.ram.contains(at, bytes)) return undefined;
      const entry = new Uint32Array(bytes / 4);
      for (let word = 0; word < entry.length; word++) entry[word] = this.#ports.ram.load32(at + word * 4);
      const step = plainStep(this.#commands, entry, (gpa) => this.#ports.ram.contains(gpa, 4));
      if (step === undefined) return undefined;
      steps.push(step);
    }
    return steps;
  }

  /** Slots that the daemon has not taken. */
  get #used(): number {
    return (this.#filled - Atomics.load(this.#control, CONTROL.RING_TAKEN)) >>> 0;
  }

  #hasRoom(queue: Queue, entries: number): boolean {
    const room = this.#used + slotsOf(queue, entries) <= this.#ring.length / SLOT_WORDS;
    if (!room) this.full++;
    return room;
  }

  /** Puts a run into the ring, which has room for it. */
  #publish(queue: Queue, index: number, steps: readonly Step[]): void {
    const control = this.#control;
    const ring = this.#ring;
    const slots = ring.length / SLOT_WORDS;
    const needed = slotsOf(queue, steps.length);
    const before = this.#used;
    let slot = this.#filled;
    const put = (words: ArrayLike<number>, at: number): void => {
      for (let n = 0; n < SLOT_WORDS; n++) {
        Atomics.store(ring, (slot % slots) * SLOT_WORDS + n, words[at + n] as number);
      }
      slot = (slot + 1) >>> 0;
    };
    put([steps.length, queue.number, index, 0], 0);
    for (const { entry } of steps) {
      for (let at = 0; at < entry.length; at += SLOT_WORDS) put(entry, at);
    }
    this.#filled = slot;
    Atomics.store(control, CONTROL.RING_FILLED, slot);
    if (before < slots / 2 && before + needed >= slots / 2) this.#ports.queueRan();
  }
}

/** Slots of a run. */
function slotsOf(queue: Queue, entries: number): number {
  return HEAD_SLOTS + (entries * 2 ** queue.entryLog2) / (SLOT_WORDS * 4);
}

/**
 * The step of the first command that matches an entry; undefined: none does. `isRam`: whether the
 * word at an address is RAM.
 */
export function plainStep(
  commands: Uint32Array,
  entry: Uint32Array,
  isRam: (gpa: number) => boolean,
): Step | undefined {
  for (let at = 0; at < commands.length; at += COMMAND_WORDS) {
    const command = commands.subarray(at, at + COMMAND_WORDS);
    const step = fits(command, entry) ? stepOf(command, entry) : undefined;
    if (step === undefined) continue;
    if (step.stores === undefined || isRam(step.stores.address)) return step;
  }
  return undefined;
}

function fits(command: Uint32Array, entry: Uint32Array): boolean {
  for (let word = 0; word < ENTRY_WORDS; word++) {
    const bits = ((entry[word] ?? 0) & command[PLAIN.MASK + word]) >>> 0;
    if (bits !== command[PLAIN.VALUE + word]) return false;
  }
  let wanted = false;
  let there = false;
  for (let word = 0; word < SOME_WORDS; word++) {
    const some = command[PLAIN.SOME + word];
    wanted ||= some !== 0;
    there ||= (some & (entry[word] ?? 0)) !== 0;
  }
  return there || !wanted;
}

/** The step of a command that matches by its masks; undefined: a field is out of range. */
function stepOf(command: Uint32Array, entry: Uint32Array): Step | undefined {
  const kind = command[PLAIN.KIND];
  const addressLo = (entry[2] & command[PLAIN.ADDRESS_LO]) >>> 0;
  const addressHi = (entry[3] & command[PLAIN.ADDRESS_HI]) >>> 0;
  if (kind === STORES) {
    const address = addressHi * 2 ** 32 + addressLo;
    return { entry, stores: { address, value: field(command[PLAIN.DATA], entry) ?? 0 } };
  }
  if (kind !== DROPS) return { entry };
  const more = field(command[PLAIN.MORE], entry) ?? 0;
  if (more > command[PLAIN.MOST]) return undefined;
  const log2 = command[PLAIN.LOG2] + more;
  const space = field(command[PLAIN.SPACE], entry) ?? 0;
  const sub = field(command[PLAIN.SUB], entry) ?? ANY;
  const everything = 1n << 64n;
  if (log2 >= 64) return { entry, drops: { space, sub, first: 0n, end: everything } };
  const block = 1n << BigInt(log2);
  const address = (BigInt(addressHi) << 32n) | BigInt(addressLo);
  const first = address & ~(block - 1n);
  const number = BigInt(field(command[PLAIN.NUMBER], entry) ?? 0) + 1n;
  const end = first + ((number << BigInt(field(command[PLAIN.SCALE], entry) ?? 0)) << BigInt(log2));
  return { entry, drops: { space, sub, first, end: end < everything ? end : everything } };
}

/** The value of a field that a word describes; undefined: it describes none. */
function field(where: number, entry: Uint32Array): number | undefined {
  if (where === 0) return undefined;
  const bits = where >>> 16;
  const value = (entry[where & 0xff] ?? 0) >>> ((where >> 8) & 0xff);
  return bits >= 32 ? value : value & (2 ** bits - 1);
}
