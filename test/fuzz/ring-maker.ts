/**
 * What a peer may put into the ring of commands that it has carried out: mostly what QUEUE allows,
 * and things that are wrong.
 */
import { PLAIN, PLAIN_KIND, PLAIN_WORDS } from '../../src/device/peer-queue.js';
import type { SharedPage } from '../../src/session/ports.js';
import { CONTROL } from '../../src/wire/frame.js';
import type { Queue } from '../../src/wire/messages.js';
import type { Rng } from './rng.js';

const SLOT_WORDS = 4;
const ENTRY_WORDS = 8;
/** Runs are mostly short. */
const USUAL = 6;

export class RingMaker {
  #queue: Queue | undefined;
  #filled = 0;

  /** The last QUEUE. */
  take(message: Queue): void {
    this.#queue = { ...message, commands: Uint32Array.from(message.commands) };
  }

  /**
   * Puts something into the ring of a page, and says what; undefined: there is nothing to put it
   * for.
   */
  put(rng: Rng, { control, registers, ring }: SharedPage): string | undefined {
    const queue = this.#queue;
    if (ring === undefined || queue === undefined) return undefined;
    const inForce = control[CONTROL.QUEUE] === queue.number;
    // What is not in force ends the connection.
    if (!inForce && rng.chance(0.995)) return undefined;
    if (rng.chance(0.003)) {
      for (let n = 0; n < 64; n++) ring[rng.below(ring.length)] = rng.u32();
      control[CONTROL.RING_FILLED] = rng.chance(0.5) ? rng.u32() : this.#filled + rng.below(100);
      return `garbage, filled ${control[CONTROL.RING_FILLED]}`;
    }
    const entries = 2 ** queue.entriesLog2;
    const most = Math.min(queue.wraps ? entries : entries - 1, rng.chance(0.95) ? USUAL : 200);
    const count = 1 + rng.below(most);
    const bits = entries * (queue.wraps ? 2 : 1);
    const from = ((registers[queue.head >> 2] as number) & queue.indexMask) >>> queue.indexShift;
    const index = (((from + count) % bits) << queue.indexShift) >>> 0;
    const wrong = rng.chance(0.003);
    const head = [count, queue.number, index, 0];
    if (wrong) head[rng.below(3)] = rng.chance(0.5) ? rng.u32() : rng.below(8);
    this.#slot(ring, head);
    for (let n = 0; n < count; n++) {
      const entry = randomEntry(rng, queue);
      for (let at = 0; at < 2 ** queue.entryLog2 / 4; at += SLOT_WORDS) {
        this.#slot(ring, entry.subarray(at, at + SLOT_WORDS));
      }
    }
    control[CONTROL.RING_FILLED] = this.#filled;
    for (const register of [queue.head, queue.tail]) {
      const at = register >> 2;
      registers[at] = ((registers[at] as number) & ~queue.indexMask) | index;
    }
    return `${wrong ? 'a wrong' : 'a'} run of ${count} to 0x${index.toString(16)}`;
  }

  #slot(ring: Uint32Array, words: ArrayLike<number>): void {
    ring.set(words, (this.#filled * SLOT_WORDS) % ring.length);
    this.#filled = (this.#filled + 1) >>> 0;
  }
}

/** An entry that one of the commands fits, its other bits at random; seldom any entry. */
function randomEntry(rng: Rng, { commands }: Queue): Uint32Array {
  const entry = new Uint32Array(ENTRY_WORDS);
  if (rng.chance(0.001)) return entry.map(() => rng.u32());
  const at = rng.below(commands.length / PLAIN_WORDS) * PLAIN_WORDS;
  const fill = rng.chance(0.5);
  for (let word = 0; word < ENTRY_WORDS; word++) {
    const mask = commands[at + PLAIN.MASK + word] as number;
    const free = fill && word < SLOT_WORDS ? rng.u32() & ~mask : 0;
    entry[word] = (commands[at + PLAIN.VALUE + word] as number) | free;
    if (word < SLOT_WORDS) entry[word] |= commands[at + PLAIN.SOME + word] as number;
  }
  // A size above the most that there may be is not plain.
  const more = commands[at + PLAIN.MORE] as number;
  if (more !== 0) entry[more & 0xff] &= ~(0x3f << ((more >>> 8) & 0xff));
  if (commands[at + PLAIN.KIND] === PLAIN_KIND.STORE) entry[2] &= 0xffff_fffc;
  return entry;
}
