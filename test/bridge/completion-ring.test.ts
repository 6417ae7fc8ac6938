import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CONTROL, MESSAGE } from '../../src/wire/frame.js';
import type { Queue } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import { ENTRY, HEAD, iotlb, QueueMachine, queueOf, TAIL, wait } from './queue-machine.js';
import { COMMAND, STATUS } from './testdev-driver.js';

/**
 * The ring of commands that the bridge has carried out; daemons that are confused, reset or gone.
 */

const SLOTS = 16384;
/** Entries of the longest run, which takes a slot more. */
const MOST = 128;
const PAGE = 0x5000;
const PLAIN = [iotlb(1, { ADDR: PAGE }), wait(0xabcd)];
const AFTER = PLAIN.length * ENTRY;

let machine: QueueMachine;

beforeEach(async () => {
  machine = new QueueMachine();
  await machine.startWith();
});

afterEach(async () => {
  await machine.dispose();
});

describe('the ring', () => {
  /** Runs as long as can be, from the one half of the queue to the other. */
  async function run(times: number): Promise<void> {
    for (let n = 0; n < times; n++) await machine.ring(machine.register(TAIL) ^ (MOST * ENTRY));
  }
  const filled = (): number => machine.daemon.controlWord(CONTROL.RING_FILLED);
  const taken = (slots: number): void => machine.daemon.setControlWord(CONTROL.RING_TAKEN, slots);

  beforeEach(async () => {
    await machine.offer();
    await machine.put(Array.from({ length: 2 * MOST }, (_, n) => wait(n + 1)));
  });

  it('is told of once when half of it is filled; what does not fit is a REG_WRITE; it goes around', async () => {
    const length = MOST + 1;
    await run(63);
    expect([filled(), machine.count('QUEUE_RAN')]).toEqual([63 * length, 0]);
    await run(1);
    await eventually(() => machine.count('QUEUE_RAN') === 1, 'QUEUE_RAN');
    await run(63);
    expect([filled(), machine.count('REG_WRITE')]).toEqual([127 * length, 0]);
    // A slot is left.
    expect(filled()).toBe(SLOTS - 1);
    await machine.expectLeft(() => machine.ring(machine.register(TAIL) ^ (MOST * ENTRY)));
    await machine.expectLeft(() => machine.ring(MOST * ENTRY + ENTRY));
    const first = machine.slots(1, 1);
    taken(length - 2);
    await machine.expectLeft(() => machine.ring(0));
    taken(length - 1);
    await machine.expectRun(() => machine.ring(0), { status: 2 * MOST, head: 0, filled: 128 * length });
    expect(machine.slots(SLOTS - 1, 1)).toEqual([MOST, 1, 0, 0]);
    expect(machine.slots(0, 1)).toEqual([...wait(MOST + 1)]);
    expect(machine.slots(MOST - 1, 1)).toEqual([...wait(2 * MOST)]);
    expect(machine.slots(1, 1)).not.toEqual(first);
    // Half of it is told of again when it was less.
    expect(machine.count('QUEUE_RAN')).toBe(1);
    taken(filled());
    await run(63);
    expect(machine.count('QUEUE_RAN')).toBe(1);
    await run(1);
    await eventually(() => machine.count('QUEUE_RAN') === 2, 'the second QUEUE_RAN');
    expect(machine.count('REG_READ')).toBe(0);
  }, 30_000);

  it.each([
    ['more than was filled', 2],
    ['half of what there will ever be', 0x8000_0000],
    ['less than the ring holds', -SLOTS],
  ])('has no room where the daemon has taken %s', async (_, ahead) => {
    await run(1);
    taken((filled() + ahead) >>> 0);
    await machine.expectLeft(() => machine.ring(MOST * ENTRY + ENTRY));
    taken(filled());
    await machine.expectRun(() => machine.ring(MOST * ENTRY + ENTRY), { status: MOST + 1 });
  });
});

describe('a QUEUE that cannot be ends the session, which says why:', () => {
  const commands = (change: (words: number[]) => unknown): Partial<Queue> => {
    const words = Array.from(queueOf(1).commands);
    change(words);
    return { commands: words };
  };
  const word = (at: number, value: number): Partial<Queue> =>
    commands((words) => {
      words[at] = value;
    });

  it.each<[string, Partial<Queue>]>([
    ['without a number', { number: 0 }],
    ['a tail behind the registers', { tail: 0x1000 }],
    ['a tail far behind them', { tail: 0xffff_fffc }],
    ['a head between registers', { head: 0x82 }],
    ['one register for both', { head: TAIL }],
    ['entries of 64 bytes', { entryLog2: 6 }],
    ['entries of 2^40 bytes', { entryLog2: 40 }],
    ['one entry', { entriesLog2: 0, indexMask: 0 }],
    ['2^31 entries', { entriesLog2: 31, indexMask: 0x7fff_ffff, indexShift: 0 }],
    ['a shift of 33', { indexShift: 33 }],
    ['a mask that is not the index', { indexMask: 0xfff }],
    ['half a command', commands((words) => words.splice(16))],
    ['a field in a word that is not there', word(21, 200 | (16 << 16))],
    ['a field that is too wide', word(21, 1 | (16 << 8) | (17 << 16))],
    ['an unknown kind', word(20, 7)],
    ['blocks that are no pages', word(23, 5)],
  ])('%s', async (_, given) => {
    machine.daemon.post(MESSAGE.QUEUE, queueOf(1, given));
    await eventually(() => machine.qemu.text.includes('no DMA through'), 'the end');
    expect(machine.qemu.text).toMatch(/QUEUE \d+ describes no queue that can be/);
    expect(await machine.qemu.quit()).toBe(0);
  });

  it('more commands than there may be', async () => {
    const many = commands((words) => words.push(...Array.from({ length: 32 * 32 }, () => 0)));
    machine.daemon.post(MESSAGE.QUEUE, queueOf(1, many));
    await eventually(() => machine.qemu.text.includes('no DMA through'), 'the end');
    expect(machine.qemu.text).toMatch(/message type \d+ cannot be decoded/);
    expect(await machine.qemu.quit()).toBe(0);
  });
});

describe('a queue whose commands are hostile', () => {
  it('drops and stores what they say, and nothing breaks', async () => {
    // Everything fits: the largest numbers of the largest blocks at the end of all addresses, for
    // every space.
    const words = Array.from({ length: 32 }, () => 0);
    words.splice(20, 10, 1, 0 | (32 << 16), 0, 63, 1 | (6 << 16), 63, 2 | (16 << 16), 3 | (5 << 16), -1, -1);
    await machine.offer(queueOf(1, { commands: words }));
    await machine.asks(PAGE);
    await machine.put(Array.from({ length: 2 * MOST }, () => new Uint32Array(4).fill(0xffff_ffff)));
    await machine.expectRun(() => machine.ring(MOST * ENTRY), { head: MOST * ENTRY });
    expect(await machine.asks(PAGE)).toEqual([PAGE]);
    // The smallest blocks, as many as there may be.
    await machine.offer(queueOf(2, { commands: words.with(23, 12).with(24, 0) }));
    await machine.expectRun(() => machine.ring(0), { head: 0, tail: 0, filled: 2 * (MOST + 1) });
    expect(await machine.asks(PAGE)).toEqual([PAGE]);
    expect(machine.qemu.text).toBe('');
  });

  it('whose registers are any others: only these change', async () => {
    await machine.offer(queueOf(1, { tail: 0xff8, head: 0xffc }));
    await machine.put(PLAIN);
    const before = [machine.register(TAIL), machine.register(HEAD)];
    await machine.expectRun(() => machine.ring(AFTER, 4, 0xff8), { status: 0xabcd });
    expect([machine.register(0xff8), machine.register(0xffc)]).toEqual([AFTER, AFTER]);
    expect([machine.register(TAIL), machine.register(HEAD)]).toEqual(before);
  });
});

describe('a machine', () => {
  it('that was reset completes nothing until the daemon says so again', async () => {
    await machine.offer();
    await machine.put(PLAIN);
    await machine.expectRun(() => machine.ring(AFTER), { status: 0xabcd, filled: 3 });
    expect(await machine.asks(PAGE)).toEqual([PAGE]);
    const before = machine.daemon.received.length;
    await machine.qemu.command('system_reset');
    await machine.untilReceived('RESET', before);
    machine.daemon.setControlWord(CONTROL.QUEUE, 0);
    await machine.reopen();
    await machine.put(PLAIN, 2);
    await machine.expectLeft(() => machine.ring(2 * AFTER));
    expect(await machine.asks(PAGE)).toEqual([PAGE]);
    machine.daemon.setControlWord(CONTROL.QUEUE, 1);
    await machine.expectRun(() => machine.ring(2 * AFTER), { filled: 6, status: 0xabcd });
    expect(await machine.asks(PAGE)).toEqual([PAGE]);
  });

  it('whose daemon is gone completes nothing, and no DMA gets through', async () => {
    await machine.offer();
    await machine.put(PLAIN);
    expect(await machine.asks(PAGE)).toEqual([PAGE]);
    const before = await machine.seen();
    machine.daemon.hangUp();
    await eventually(() => machine.qemu.text.includes('no DMA through'), 'the end');
    await machine.ring(AFTER);
    expect(await machine.seen()).toEqual(before);
    expect(await machine.device.run(COMMAND.READ, { address: PAGE })).toBe(STATUS.FAULT);
    expect(await machine.qemu.quit()).toBe(0);
  });
});
