import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { PLAIN } from '../device/peer-queue.js';
import { CONTROL, SHARED } from '../wire/frame.js';
import type { Queue } from '../wire/messages.js';
import type { GuestRam } from './machine.js';
import type { Dropped } from './sim-iotlb.js';
import { SimPeerQueue } from './sim-peer-queue.js';

const TAIL = 0x40;
const HEAD = 0x48;
const BASE = 0x8000;
const ENTRIES = 16;
const SLOTS = SHARED.RING_BYTES / 16;
const EVERY = { first: 0n, end: 1n << 64n };

/** One page of RAM from BASE, and one below 0x2000. */
class Ram implements GuestRam {
  readonly words = new Map<number, number>();
  readonly log: string[];

  constructor(log: string[]) {
    this.log = log;
  }

  contains(gpa: number, bytes: number): boolean {
    const inside = (first: number): boolean => gpa >= first && gpa + bytes <= first + 4096;
    return inside(BASE) || inside(0x1000);
  }
  load32(gpa: number): number {
    return this.words.get(gpa) ?? 0;
  }
  store32(gpa: number, value: number): void {
    this.log.push(`store 0x${gpa.toString(16)} ${value}`);
    this.words.set(gpa, value);
  }
  load64(): bigint {
    throw new Error('not asked for');
  }
  store64(): void {
    throw new Error('not asked for');
  }
}

/**
 * Entries of 16 bytes: the low byte of the first word says what they are. 1: drops, the space in
 * bits 31:16, all addresses or with bit 8 pages from the third word on, 2 to the bits 15:12. 2:
 * stores the second word. 3: nothing.
 */
function commands(): Uint32Array {
  const words = new Uint32Array(4 * 32);
  const put = (n: number, values: Readonly<Record<number, number>>): void => {
    for (const [word, value] of Object.entries(values)) words[n * 32 + Number(word)] = value;
  };
  const space = 0 | (16 << 8) | (16 << 16);
  put(0, { [PLAIN.MASK]: 0x1ff, [PLAIN.VALUE]: 1, [PLAIN.KIND]: 1, [PLAIN.SPACE]: space, [PLAIN.LOG2]: 64 });
  put(1, {
    [PLAIN.MASK]: 0x1ff,
    [PLAIN.VALUE]: 0x101,
    [PLAIN.KIND]: 1,
    [PLAIN.SPACE]: space,
    [PLAIN.LOG2]: 12,
  });
  put(1, { [PLAIN.MORE]: 0 | (12 << 8) | (4 << 16), [PLAIN.MOST]: 9 });
  put(1, { [PLAIN.ADDRESS_LO]: 0xffff_f000, [PLAIN.ADDRESS_HI]: 0xffff_ffff });
  put(2, { [PLAIN.MASK]: 0xff, [PLAIN.VALUE]: 2, [PLAIN.KIND]: 2, [PLAIN.DATA]: 1 | (32 << 16) });
  put(2, { [PLAIN.ADDRESS_LO]: 0xffff_fffc, [PLAIN.ADDRESS_HI]: 0xff });
  put(3, { [PLAIN.MASK]: 0xff, [PLAIN.VALUE]: 3, [PLAIN.SOME + 3]: 0xf0, [PLAIN.KIND]: 0 });
  return words;
}

function start(changes: Partial<Queue> = {}) {
  const file = new ArrayBuffer(SHARED.REGISTERS + 4096 + SHARED.RING_BYTES);
  const control = new Uint32Array(file, 0, 1024);
  const registers = new Uint32Array(file, SHARED.REGISTERS, 1024);
  const ring = new Uint32Array(file, file.byteLength - SHARED.RING_BYTES);
  const log: string[] = [];
  const ram = new Ram(log);
  const dropped: Dropped[] = [];
  let told = 0;
  const peer = new SimPeerQueue({
    file,
    ram,
    drop: (what) => {
      log.push(`drop ${what.space}, filled ${control[CONTROL.RING_FILLED]}`);
      dropped.push(what);
    },
    queueRan: () => told++,
  });
  const queue: Queue = {
    ...{ number: 7, tail: TAIL, head: HEAD, indexMask: 0x1f, indexShift: 0, wraps: true },
    ...{ baseLo: BASE, baseHi: 0, entryLog2: 4, entriesLog2: 4, commands: commands() },
    ...changes,
  };
  peer.take(queue);
  control[CONTROL.QUEUE] = 7;
  const entry = (index: number, words: readonly number[]): void => {
    for (const [n, word] of words.entries()) ram.words.set(BASE + (index % ENTRIES) * 16 + n * 4, word);
  };
  return { peer, control, registers, ring, ram, log, dropped, entry, told: () => told };
}

const DROP = [0x0005_0001, 0, 0, 0];
const STORE = (value: number, at = 0x1010): number[] => [2, value, at, 0];

describe('a peer that completes by itself', () => {
  it('drops, puts the run into the ring, stores, and shows the index in both registers', () => {
    const { peer, control, registers, ring, log, dropped, entry } = start();
    registers[TAIL >> 2] = 0xffff_0002;
    registers[HEAD >> 2] = 0x1200_0002;
    entry(2, DROP);
    entry(3, STORE(99));
    expect(peer.ring(TAIL, 4, 4n, 0)).toBe(true);
    expect(dropped).toEqual([{ space: 5, sub: ANY, ...EVERY }]);
    expect(log).toEqual(['drop 5, filled 0', 'store 0x1010 99']);
    expect(Array.from(ring.subarray(0, 12))).toEqual([2, 7, 4, 0, ...DROP, ...STORE(99)]);
    expect(control[CONTROL.RING_FILLED]).toBe(3);
    expect(registers[TAIL >> 2]).toBe(0xffff_0004);
    expect(registers[HEAD >> 2], 'its other bits stay').toBe(0x1200_0004);
  });

  it('drops once more what stands behind a store', () => {
    const { peer, log, entry } = start();
    entry(0, STORE(99));
    entry(1, DROP);
    expect(peer.ring(TAIL, 4, 2n, 0)).toBe(true);
    expect(log).toEqual(['drop 5, filled 0', 'store 0x1010 99', 'drop 5, filled 3']);
  });

  it('takes blocks from the one that the address is in', () => {
    const { peer, dropped, entry } = start();
    entry(0, [0x0005_3101, 0, 0x4567_8000, 0x12]);
    expect(peer.ring(TAIL, 4, 1n, 0)).toBe(true);
    expect(dropped).toEqual([{ space: 5, sub: ANY, first: 0x12_4567_8000n, end: 0x12_4568_0000n }]);
  });

  it('goes over the end of the queue, by 8 bytes too', () => {
    const { peer, registers, dropped, entry } = start();
    registers[HEAD >> 2] = 30;
    for (let n = 0; n < 4; n++) entry(30 + n, [0x0001_0001 + n * 0x1_0000, 0, 0, 0]);
    expect(peer.ring(TAIL, 8, 2n, 0)).toBe(true);
    expect(dropped.map(({ space }) => space)).toEqual([1, 2, 3, 4]);
  });

  it.each<readonly [string, (rig: ReturnType<typeof start>) => boolean]>([
    ['another register', ({ peer }) => peer.ring(HEAD, 4, 1n, 0)],
    ['a store of 2 bytes', ({ peer }) => peer.ring(TAIL, 2, 1n, 0)],
    ['bits that are no index', ({ peer }) => peer.ring(TAIL, 4, 0x101n, 0)],
    ['high bits', ({ peer }) => peer.ring(TAIL, 8, 1n << 32n, 0)],
    ['a write that is not handled', ({ peer }) => peer.ring(TAIL, 4, 1n, 1)],
    [
      'another queue in force',
      ({ peer, control }) => {
        control[CONTROL.QUEUE] = 8;
        return peer.ring(TAIL, 4, 1n, 0);
      },
    ],
    [
      'no queue in force',
      ({ peer, control }) => {
        control[CONTROL.QUEUE] = 0;
        return peer.ring(TAIL, 4, 1n, 0);
      },
    ],
    ['nothing to be taken', ({ peer }) => peer.ring(TAIL, 4, 0n, 0)],
    ['more than the queue has', ({ peer }) => peer.ring(TAIL, 4, 17n, 0)],
    [
      'one that no command fits',
      ({ peer, entry }) => {
        entry(1, [9, 0, 0, 0]);
        return peer.ring(TAIL, 4, 2n, 0);
      },
    ],
    [
      'none of the bits of which there must be some',
      ({ peer, entry }) => {
        entry(1, [3, 0, 0, 0x0f]);
        return peer.ring(TAIL, 4, 2n, 0);
      },
    ],
    [
      'a size above the most',
      ({ peer, entry }) => {
        entry(1, [0x0005_a101, 0, 0, 0]);
        return peer.ring(TAIL, 4, 2n, 0);
      },
    ],
    [
      'a store to what is no RAM',
      ({ peer, entry }) => {
        entry(1, STORE(1, 0x3000));
        return peer.ring(TAIL, 4, 2n, 0);
      },
    ],
  ])('does nothing with %s', (_name, attempt) => {
    const rig = start();
    for (let n = 0; n < ENTRIES; n++) rig.entry(n, DROP);
    expect(attempt(rig)).toBe(false);
    expect(rig.log).toEqual([]);
    expect(rig.control[CONTROL.RING_FILLED]).toBe(0);
    expect(rig.registers.every((word) => word === 0)).toBe(true);
  });

  it('fits an entry to the first command that it fits', () => {
    const { peer, entry, log } = start();
    entry(0, [3, 0, 0, 0x10]);
    expect(peer.ring(TAIL, 4, 1n, 0)).toBe(true);
    expect(log).toEqual([]);
  });

  it('tells when half of the ring is filled, and does nothing when it is full', () => {
    const { peer, control, ring, entry, told, log } = start();
    for (let n = 0; n < ENTRIES; n++) entry(n, DROP);
    // 16 entries: 17 slots.
    const runs = Math.floor(SLOTS / 17);
    for (let run = 0; run < runs; run++) {
      expect(told()).toBe(run * 17 >= SLOTS / 2 ? 1 : 0);
      expect(peer.ring(TAIL, 4, BigInt(run % 2 === 0 ? 16 : 0), 0)).toBe(true);
    }
    log.length = 0;
    expect(peer.ring(TAIL, 4, runs % 2 === 0 ? 16n : 0n, 0), 'full').toBe(false);
    expect(peer.full).toBe(1);
    expect(log).toEqual([]);
    control[CONTROL.RING_TAKEN] = 34;
    expect(peer.ring(TAIL, 4, runs % 2 === 0 ? 16n : 0n, 0)).toBe(true);
    // The head of that run is behind the others, and its entries go on at the beginning.
    expect(Array.from(ring.subarray(runs * 17 * 4, runs * 17 * 4 + 2))).toEqual([16, 7]);
  });
});
