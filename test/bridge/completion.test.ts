import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CONTROL, FEATURE, MESSAGE } from '../../src/wire/frame.js';
import type { Queue } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import { BridgeBuild } from './make.js';
import {
  contextCache,
  DATA,
  DOMAIN,
  ENTRIES,
  ENTRY,
  GLOBAL,
  HEAD,
  iotlb,
  QUEUE,
  QueueMachine,
  queueOf,
  SECOND,
  STATUS_AT,
  TAIL,
  UNIT,
  wait,
} from './queue-machine.js';
import { COMMAND, STATUS } from './testdev-driver.js';
import { page } from './testdev-machine.js';

/**
 * Invalidations that are complete when the store that rings their doorbell is, without the daemon;
 * and everything that makes such a store the daemon's.
 */

const [FIRST, NEXT] = [0x5000, 0x6000];
const FAR = SECOND + 0x5000;
/** Drops {@link FIRST}, and says so. */
const PLAIN = [iotlb(1, { ADDR: FIRST }), wait(0xabcd)];
const AFTER = PLAIN.length * ENTRY;

let machine: QueueMachine;
/** Of the probes, where a test has any. */
let probes: BridgeBuild | undefined;

beforeEach(() => {
  machine = new QueueMachine();
});

afterEach(async () => {
  await machine.dispose();
  probes?.dispose();
  probes = undefined;
});

/** In force, with pages of two domains in the cache. */
async function start(queue: Queue = queueOf(1)): Promise<void> {
  await machine.startWith();
  await machine.offer(queue);
  expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FIRST, NEXT, FAR]);
  expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([]);
}

describe('a doorbell', () => {
  it.each([4, 8] as const)('of %i bytes is complete when the store is, without a message', async (size) => {
    await start();
    machine.setRegister(HEAD, 0x8000_0000);
    await machine.put(PLAIN);
    const after = { status: 0xabcd, head: 0x8000_0000 + AFTER, tail: AFTER, filled: 3 };
    await machine.expectRun(() => machine.ring(AFTER, size), after);
    expect(machine.slots(0, 3)).toEqual([2, 1, AFTER, 0, ...PLAIN.flatMap((words) => [...words])]);
    expect(machine.count('QUEUE_RAN')).toBe(0);
    expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FIRST]);
  });

  it('of a domain drops what is of the domain', async () => {
    await start();
    await machine.put([iotlb(1, { G: DOMAIN }), wait(1)]);
    await machine.expectRun(() => machine.ring(AFTER), { status: 1, tail: AFTER });
    expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FIRST, NEXT]);
  });

  it('of an aligned block drops all of its pages', async () => {
    await start();
    const [inside, outside] = [
      [0x8000, 0x9000, 0xb000],
      [0x7000, 0xc000],
    ];
    await machine.asks(...inside, ...outside);
    await machine.put([iotlb(1, { ADDR: 0x8000, AM: 2 }), wait(1)]);
    await machine.expectRun(() => machine.ring(AFTER), { status: 1 });
    expect(await machine.asks(...inside, ...outside, FIRST, FAR)).toEqual(inside);
  });

  it('goes on where the last one ended, also behind the end of the queue', async () => {
    await start();
    machine.setRegister(HEAD, (ENTRIES - 1) * ENTRY);
    machine.setRegister(TAIL, (ENTRIES - 1) * ENTRY);
    await machine.put([...PLAIN, iotlb(2, { ADDR: FAR }), wait(7)], ENTRIES - 1);
    await machine.expectRun(() => machine.ring(ENTRY), { status: 0xabcd, head: ENTRY, tail: ENTRY });
    expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FIRST]);
    await machine.expectRun(() => machine.ring(3 * ENTRY), { status: 7, head: 3 * ENTRY, filled: 6 });
    expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FAR]);
    expect(machine.slots(3, 1)).toEqual([2, 1, 3 * ENTRY, 0]);
  });

  it('may announce a whole queue where the index has a wrap bit', async () => {
    const few = { wraps: true, indexShift: 0, entriesLog2: 3, indexMask: 0xf };
    await start(queueOf(1, few));
    machine.setRegister(HEAD, 5);
    const entries = Array.from({ length: 7 }, (_, n) => iotlb(1, { ADDR: n * 0x1000 }));
    await machine.put([entries[4] as Uint32Array, entries[5] as Uint32Array, wait(9)]);
    await machine.put(
      [3, 2, 1, 0, 6].map((n) => entries[n] as Uint32Array),
      3,
    );
    await machine.expectLeft(() => machine.ring(14), [FIRST]);
    await machine.expectRun(() => machine.ring(13), { status: 9, head: 13, tail: 13, filled: 9 });
    expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FIRST, NEXT]);
  });

  it('has its entries taken in their order: each status is that of the last one', async () => {
    await start();
    const data = Array.from({ length: 127 }, (_, n) => wait(n + 1));
    await machine.put([...data, wait(200, { StatusAddress: STATUS_AT + 4 })]);
    await machine.expectRun(() => machine.ring(128 * ENTRY), { status: 127, filled: 129 });
    expect(await machine.memory.readWord(STATUS_AT + 4)).toBe(200);
  });

  it('is rung by a device, too, in the middle of its own request', async () => {
    await start();
    await machine.put([iotlb(1, { G: DOMAIN }), wait(3)]);
    machine.answer = ({ lo }) => ({ ...page(lo & ~0xfff, lo < 0x8000 ? DATA : UNIT), space: 1 });
    await machine.device.setBuffer(0, Buffer.from(Uint32Array.of(AFTER).buffer));
    const rings = { address: 0x8000 + TAIL, length: 4 };
    const store = async (): Promise<void> => {
      expect(await machine.device.run(COMMAND.WRITE, rings)).toBe(STATUS.DONE);
    };
    await machine.expectRun(store, { status: 3, tail: AFTER });
    expect(await machine.asks(FIRST)).toEqual([FIRST]);
  });

  it('is the daemon’s while a device uses a translation that it asked for', async () => {
    await start();
    await machine.put(PLAIN);
    await machine.device.enablePasid();
    machine.answer = ({ lo }) => ({ ...page(lo & ~0xfff, UNIT), space: 1 });
    await machine.device.setBuffer(0, Buffer.from(Uint32Array.of(AFTER).buffer));
    const rings = { address: 0x8000 + TAIL, length: 4, pasid: 9 };
    await machine.expectLeft(async () => {
      expect(await machine.device.run(COMMAND.WRITE, rings)).toBe(STATUS.DONE);
    }, [FIRST]);
  });
});

describe('a store is the daemon’s, and changes nothing,', () => {
  const set = (word: number, value: number) => (): void => machine.daemon.setControlWord(word, value);
  const put = (entries: readonly Uint32Array[]) => () => machine.put(entries);
  const mended = async (): Promise<void> => {
    await machine.put(PLAIN);
    machine.daemon.setControlWord(CONTROL.QUEUE, 1);
  };
  const at = (StatusAddress: number) => put([PLAIN[0] as Uint32Array, wait(1, { StatusAddress })]);

  it.each<[string, () => Promise<void> | void]>([
    ['while word 2 is 0', set(CONTROL.QUEUE, 0)],
    ['while word 2 is another number', set(CONTROL.QUEUE, 2)],
    ['where a command is not plain', put([contextCache(), PLAIN[1] as Uint32Array])],
    ['where the last command is not plain', put([PLAIN[0] as Uint32Array, contextCache()])],
    ['where an invalidation is global', put([iotlb(1, { G: GLOBAL }), PLAIN[1] as Uint32Array])],
    ['where a block is too large', put([iotlb(1, { AM: 63 }), PLAIN[1] as Uint32Array])],
    ['where a completion is an interrupt', put([PLAIN[0] as Uint32Array, wait(1, { IF: 1 })])],
    ['where a reserved bit is set', put([iotlb(1, { ADDR: FIRST }).fill(0x100, 1, 2), wait(1)])],
    ['where a status is the doorbell', at(UNIT + TAIL)],
    ['where a status is no memory', at(0x3000_0000)],
    ['where a status is in ROM', at(0xffff_fff0)],
    ['where a status is behind the last RAM', at(0x800_0000)],
  ])('%s', async (_, spoil) => {
    await start();
    await machine.put(PLAIN);
    await spoil();
    await machine.expectLeft(() => machine.ring(AFTER), [FIRST, NEXT, FAR]);
    await mended();
    await machine.expectRun(() => machine.ring(AFTER), { status: 0xabcd });
    expect(await machine.asks(FIRST, NEXT, FAR)).toEqual([FIRST]);
  });

  it('until the daemon has handled every write', async () => {
    await start();
    await machine.put(PLAIN);
    machine.handles = false;
    await machine.memory.writeWord(UNIT + 0x38, 1);
    await eventually(() => machine.daemon.writes.length === 1, 'the write');
    await machine.expectLeft(() => machine.ring(AFTER), [FIRST]);
    machine.daemon.setControlWord(CONTROL.HANDLED, 1);
    await machine.expectLeft(() => machine.ring(AFTER), [FIRST]);
    machine.handled();
    await machine.expectRun(() => machine.ring(AFTER), { status: 0xabcd });
  });

  it('until a QUEUE has come, and while a newer one is not in force', async () => {
    await machine.startWith();
    await machine.put(PLAIN);
    machine.daemon.setControlWord(CONTROL.QUEUE, 1);
    await machine.expectLeft(() => machine.ring(AFTER));
    await machine.offer(queueOf(1));
    await machine.offer(queueOf(2, { baseLo: QUEUE + 0x1000 }), 1);
    await machine.expectLeft(() => machine.ring(AFTER));
    // The second one replaces the first.
    await machine.put([wait(2), wait(3)], 0, QUEUE + 0x1000);
    machine.daemon.setControlWord(CONTROL.QUEUE, 2);
    await machine.expectRun(() => machine.ring(AFTER), { status: 3, filled: 3 });
    expect(machine.slots(0, 1)).toEqual([2, 2, AFTER, 0]);
  });

  it.each([
    ['1 byte', AFTER, 1, TAIL],
    ['2 bytes', AFTER, 2, TAIL],
    ['8 bytes that begin before the register', AFTER * 2 ** 32, 8, TAIL - 4],
    ['4 bytes that begin in the middle of it', 0, 4, TAIL + 2],
    ['a bit below the index', AFTER + 8, 4, TAIL],
    ['a bit above the index', AFTER + 0x1000, 4, TAIL],
    ['a bit in the upper half', AFTER + 2 ** 40, 8, TAIL],
    ['the index that is there', 0, 4, TAIL],
    ['another register', AFTER, 4, TAIL - 8],
  ] as const)('of %s', async (_, value, size, offset) => {
    await start();
    await machine.put(PLAIN);
    await machine.expectLeft(() => machine.ring(value, size, offset), [FIRST]);
    await machine.expectRun(() => machine.ring(AFTER), { status: 0xabcd });
  });

  it('with more than 128 entries', async () => {
    await start();
    await machine.put(Array.from({ length: 130 }, (_, n) => wait(n)));
    await machine.expectLeft(() => machine.ring(129 * ENTRY), [FIRST]);
    await machine.expectRun(() => machine.ring(128 * ENTRY), { status: 127 });
  });

  it('with entries behind the end of RAM, or nowhere near it', async () => {
    await start(queueOf(1, { baseLo: 0x800_0000 - ENTRY }));
    await machine.memory.write(0x800_0000 - ENTRY, new Uint8Array(wait(5).slice().buffer));
    await machine.expectLeft(() => machine.ring(2 * ENTRY), [FIRST]);
    await machine.expectRun(() => machine.ring(ENTRY), { status: 5 });
    await machine.offer(queueOf(2, { baseLo: 0xffff_fff0, baseHi: 0xffff_ffff }));
    await machine.expectLeft(() => machine.ring(3 * ENTRY), [FIRST]);
    await machine.offer(queueOf(3, { baseLo: UNIT, baseHi: 0 }));
    await machine.expectLeft(() => machine.ring(3 * ENTRY), [FIRST]);
  });

  it('while a notifier wants to hear of mappings', async () => {
    probes = new BridgeBuild('probe');
    machine.preload = probes.path('notifier-probe.so');
    machine.probeAsks = 'unmap';
    await machine.startWith();
    await machine.offer();
    await machine.put(PLAIN);
    await eventually(() => machine.qemu.text.includes('probe: registered'), 'the probe');
    await machine.asks(FIRST);
    await machine.expectLeft(() => machine.ring(AFTER), [FIRST]);
  });

  it('where queues=off, or the daemon has none', async () => {
    machine.options = ',queues=off';
    await machine.startWith();
    expect((machine.daemon.hello?.features as number) & FEATURE.QUEUES).toBe(0);
    await machine.put(PLAIN);
    machine.daemon.setControlWord(CONTROL.QUEUE, 1);
    await machine.expectLeft(() => machine.ring(AFTER));
    await machine.dispose();

    machine = new QueueMachine();
    await machine.startWith({ without: FEATURE.QUEUES });
    expect((machine.daemon.hello?.features as number) & FEATURE.QUEUES).not.toBe(0);
    machine.daemon.setControlWord(CONTROL.QUEUE, 1);
    await machine.expectLeft(() => machine.ring(AFTER));
    machine.daemon.post(MESSAGE.QUEUE, queueOf(1));
    await eventually(() => machine.qemu.text.includes('no DMA through'), 'the end');
    expect(machine.qemu.text).toMatch(/QUEUE, which was not agreed on/);
  });
});
