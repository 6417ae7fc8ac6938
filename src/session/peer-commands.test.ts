import { afterEach, describe, expect, it, vi } from 'vitest';
import { ANY } from '../base/ids.js';
import type { InvalidateScope } from '../device/iommu.js';
import { createModel, modelRegisterBytes } from '../device/models.js';
import { ArrayMemory } from '../memory/array.js';
import { bodyCodec, CODEC } from '../wire/codec.js';
import { ALL_FEATURES, CONTROL, FEATURE, FLAG, MESSAGE, NOTIFY, SHARED } from '../wire/frame.js';
import { Bench } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const SLOTS = SHARED.RING_BYTES / 16;
const WHOLE: InvalidateScope = { space: 1, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 };

/** A queue that says what a test wants, and keeps what it was told. */
class FakeQueue {
  ready = true;
  loose = false;
  version = 1;
  entryLog2 = 4;
  plain = true;
  readonly runs: { readonly words: number[]; readonly index: number }[] = [];
  onRun: () => void = () => {};

  describe(out: object): void {
    Object.assign(out, {
      ...{ tail: 0x60, head: 0x64, indexMask: 0xff, indexShift: 0, wraps: true, baseLo: 0x3000, baseHi: 1 },
      ...{
        entryLog2: this.entryLog2,
        entriesLog2: 7,
        commands: Uint32Array.from({ length: 64 }, (_, n) => n),
      },
    });
  }

  ran(words: Uint32Array, at: number, count: number, index: number): boolean {
    const length = count * 2 ** (this.entryLog2 - 2);
    this.runs.push({ words: Array.from(words.subarray(at, at + length)), index });
    this.onRun();
    return this.plain;
  }
}

function start(features = ALL_FEATURES, ready = true) {
  const queue = new FakeQueue();
  queue.ready = ready;
  const bench: Bench = new Bench({
    models: {
      ...fakeModels,
      createModel: (_name, _options, ports) => Object.assign(new FakeModel(ports), { peerQueue: queue }),
    },
  }).hello({ features });
  const told = () => bench.sent.filter(({ type }) => type === MESSAGE.QUEUE).map(({ message }) => message);
  return { bench, queue, told, ring: new PeerRing(bench) };
}

/** What the peer writes into the shared page. */
class PeerRing {
  filled = 0;
  readonly words: Uint32Array;

  constructor(readonly bench: Bench) {
    this.words = bench.page.subarray(bench.page.length - SHARED.RING_BYTES / 4);
  }

  get inForce(): number {
    return this.bench.page[CONTROL.QUEUE] as number;
  }

  get taken(): number {
    return this.bench.page[CONTROL.RING_TAKEN] as number;
  }

  /** A run, without telling. */
  put(
    entries: readonly (readonly number[])[],
    index: number,
    number = this.inForce,
    count = entries.length,
  ): this {
    this.slot([count, number, index, 0]);
    for (const entry of entries)
      for (let at = 0; at < entry.length; at += 4) this.slot(entry.slice(at, at + 4));
    this.bench.page[CONTROL.RING_FILLED] = this.filled;
    return this;
  }

  slot(words: readonly number[]): void {
    this.words.set(words, (this.filled % SLOTS) * 4);
    this.filled = (this.filled + 1) >>> 0;
  }
}

const entry = (n: number): number[] => [n, n + 1, n + 2, n + 3];
const badArgument = expect.objectContaining({ reason: 'BAD_ARGUMENT' });

afterEach(() => {
  vi.restoreAllMocks();
});

describe('the QUEUE that is in force', () => {
  it('is told once the model is ready, and its number stands in the control page', () => {
    const { bench, queue, told, ring } = start();
    expect(told()).toHaveLength(1);
    const { number, commands, ...rest } = told()[0] as { number: number; commands: ArrayLike<number> };
    expect(number).toBeGreaterThan(0);
    expect(rest).toMatchObject({
      tail: 0x60,
      head: 0x64,
      indexMask: 0xff,
      wraps: true,
      baseHi: 1,
      entriesLog2: 7,
    });
    expect(Array.from(commands)).toEqual(Array.from({ length: 64 }, (_, n) => n));
    expect(ring.inForce).toBe(number);
    bench.write(FAKE.OFFSET, 1);
    bench.translate(0x1000);
    expect(told(), 'not told again').toHaveLength(1);
    queue.ready = false;
    bench.write(FAKE.OFFSET, 1);
    expect(ring.inForce).toBe(0);
    queue.ready = true;
    bench.write(FAKE.OFFSET, 1);
    expect(ring.inForce, 'the same one').toBe(number);
    expect(told()).toHaveLength(1);
    queue.ready = false;
    queue.loose = true;
    bench.translate(0x1000);
    expect(ring.inForce, 'by a translation').toBe(0);
  });

  it('is another one when the model describes it anew', () => {
    const { bench, queue, told, ring } = start();
    const before = ring.inForce;
    queue.version = 2;
    bench.write(FAKE.OFFSET, 1);
    expect(told()).toHaveLength(2);
    expect(ring.inForce).toBe(told()[1]?.['number']);
    expect(ring.inForce).not.toBe(before);
  });

  it('is not told to a peer without the feature, nor by a model without a queue', () => {
    const { told, ring } = start(ALL_FEATURES & ~FEATURE.QUEUES);
    expect(told()).toEqual([]);
    expect(ring.inForce).toBe(0);
    const bench = new Bench().hello();
    expect(bench.sent.filter(({ type }) => type === MESSAGE.QUEUE)).toEqual([]);
  });

  it('has a number: commands of queue 0, where none was told, end the connection', () => {
    const { queue, told, ring } = start(ALL_FEATURES, false);
    expect(told()).toEqual([]);
    expect(() => ring.put([entry(1)], 1, 0).bench.session.takeRun()).toThrow(badArgument);
    expect(queue.runs).toEqual([]);
  });

  it('is none while an INVALIDATE is not answered, and the same one after that', () => {
    const { bench, ring } = start();
    const number = ring.inForce;
    bench.translate(0x1000);
    bench.write(FAKE.INVALIDATE, 1);
    expect(bench.invalidations).toHaveLength(1);
    expect(ring.inForce).toBe(0);
    bench.ack();
    expect(ring.inForce).toBe(number);
  });

  it('is none while there is a notifier', () => {
    const { bench, ring } = start();
    const number = ring.inForce;
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 1, rid: 8, name: '' });
    expect(ring.inForce).toBe(number);
    const notify = (flags: number): void =>
      bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 1, flags });
    notify(NOTIFY.UNMAP);
    expect(ring.inForce).toBe(0);
    notify(0);
    expect(ring.inForce).toBe(number);
    notify(NOTIFY.MAP);
    expect(ring.inForce).toBe(0);
    bench.input(MESSAGE.DEVICE_REMOVED, CODEC.DeviceRemoved, { device: 1 });
    expect(ring.inForce).toBe(number);
  });

  it('is closed before the write that closes it counts as handled', () => {
    const { bench, queue, ring } = start();
    const stores: [number, number][] = [];
    const store = Atomics.store;
    vi.spyOn(Atomics, 'store').mockImplementation(((words: Uint32Array, word: number, value: number) => {
      if (words.buffer === bench.page.buffer && words.byteOffset === 0) stores.push([word, value]);
      return store(words, word, value);
    }) as typeof Atomics.store);
    const number = ring.inForce;
    queue.ready = false;
    bench.write(FAKE.OFFSET, 1);
    expect(stores).toEqual([
      [CONTROL.QUEUE, 0],
      [CONTROL.HANDLED, 1],
    ]);
    stores.length = 0;
    queue.ready = true;
    bench.write(FAKE.OFFSET, 2);
    expect(stores).toEqual([
      [CONTROL.QUEUE, number],
      [CONTROL.HANDLED, 2],
    ]);
  });
});

describe('what the peer has carried out', () => {
  it('is handed to the model before the frame that comes next', () => {
    const { bench, queue, ring } = start();
    let heard = -1;
    queue.onRun = () => {
      heard = bench.handled;
    };
    ring.put([entry(10), entry(20)], 2).put([entry(30)], 3);
    expect(queue.runs, 'not before').toEqual([]);
    bench.write(FAKE.OFFSET, 1);
    expect(heard, 'before the write').toBe(0);
    expect(queue.runs).toEqual([
      { words: [...entry(10), ...entry(20)], index: 2 },
      { words: entry(30), index: 3 },
    ]);
    expect(ring.taken).toBe(5);
    bench.write(FAKE.OFFSET, 2);
    expect(queue.runs, 'once').toHaveLength(2);
  });

  it('is handed over before answers of the backend channel, too, and on QUEUE_RAN', () => {
    const { bench, queue, ring } = start();
    const number = ring.inForce;
    bench.translate(0x1000);
    bench.write(FAKE.INVALIDATE, 1);
    // Begun before the write was handled.
    ring.put([entry(1)], 1, number);
    bench.ack();
    expect(queue.runs).toHaveLength(1);
    ring.put([entry(2)], 2);
    bench.input(MESSAGE.QUEUE_RAN, CODEC.QueueRan, {});
    expect(queue.runs).toHaveLength(2);
    ring.put([entry(3)], 3);
    bench.session.takeRun();
    expect(queue.runs).toHaveLength(3);
    expect(bench.session.peerCommands.taken).toBe(3);
  });

  it('has entries of 32 bytes where the queue has', () => {
    const queue = new FakeQueue();
    queue.entryLog2 = 5;
    const bench = new Bench({
      models: {
        ...fakeModels,
        createModel: (_name, _options, ports) => Object.assign(new FakeModel(ports), { peerQueue: queue }),
      },
    }).hello();
    const ring = new PeerRing(bench);
    const wide = Array.from({ length: 8 }, (_, n) => n + 100);
    ring.put([wide, wide], 2);
    bench.session.takeRun();
    expect(queue.runs).toEqual([{ words: [...wide, ...wide], index: 2 }]);
    expect(ring.taken).toBe(5);
  });

  it('goes on at the beginning of the ring, and beyond 2^32 slots', () => {
    const { bench, queue, ring } = start();
    // Runs of 100 slots, over the end of the ring three times.
    const many = Array.from({ length: 99 }, (_, n) => entry(n));
    for (let round = 0; round < (3 * SLOTS) / 100; round++) {
      ring.put(many, round);
      bench.session.takeRun();
      expect(queue.runs.at(-1)).toEqual({ words: many.flat(), index: round });
    }
    expect(ring.taken).toBe(ring.filled);
    expect(ring.filled).toBeGreaterThan(2 * SLOTS);
  });

  it('may be as long as the ring', () => {
    const { bench, queue, ring } = start();
    ring.put(
      Array.from({ length: SLOTS - 1 }, () => entry(5)),
      7,
    );
    bench.session.takeRun();
    expect(queue.runs[0]?.words).toHaveLength((SLOTS - 1) * 4);
  });

  it('causes no INVALIDATE, epoch or call of a listener; but what the peer has dropped is forgotten', () => {
    const { bench, queue, ring } = start();
    bench.translate(0x1000);
    const { epoch } = bench.translate(0x1000);
    queue.onRun = () => bench.session.outputs.invalidate(WHOLE);
    ring.put([entry(1)], 1);
    bench.session.takeRun();
    expect(bench.invalidations).toEqual([]);
    expect(bench.session.outputs.pendingAcks()).toBe(0);
    // Nothing of the space is out any more, so there is nothing to tell of.
    bench.invalidate(WHOLE);
    expect(bench.invalidations).toEqual([]);
    expect(bench.session.invalidations.suppressed).toBe(1);
    expect(bench.translate(0x1000).epoch).toBe(epoch);
    bench.invalidate(WHOLE);
    expect(bench.invalidations, 'it is out again').toHaveLength(1);
  });

  it('leaves what it does not name as handed out', () => {
    const { bench, queue, ring } = start();
    bench.translate(0x1000);
    queue.onRun = () => bench.session.outputs.invalidate({ ...WHOLE, lo: 0x1000, log2Size: 12 });
    ring.put([entry(1)], 1);
    bench.session.takeRun();
    bench.invalidate(WHOLE);
    expect(bench.invalidations).toHaveLength(1);
  });

  it.each<readonly [string, (bench: Bench, queue: FakeQueue, ring: PeerRing) => void]>([
    ['an old number', (_b, _q, ring) => void ring.put([entry(1)], 1, ring.inForce + 1)],
    ['no number', (_b, _q, ring) => void ring.put([entry(1)], 1, 0)],
    ['no entries', (_b, _q, ring) => void ring.put([], 1)],
    ['more entries than are filled', (_b, _q, ring) => void ring.put([entry(1)], 1, ring.inForce, 2)],
    ['very many entries', (_b, _q, ring) => void ring.put([entry(1)], 1, ring.inForce, 0xffff_ffff)],
    [
      'a second run that is none',
      (_b, _q, ring) => void ring.put([entry(1)], 1).put([entry(1)], 1, ring.inForce, 5),
    ],
    [
      'commands that the model refuses',
      (_b, queue, ring) => {
        queue.plain = false;
        ring.put([entry(1)], 1);
      },
    ],
    [
      'more slots than the ring has',
      (bench) => {
        bench.page[CONTROL.RING_FILLED] = SLOTS + 1;
      },
    ],
    [
      'fewer slots than were taken',
      (bench, _q, ring) => {
        ring.put([entry(1)], 1);
        bench.session.takeRun();
        bench.page[CONTROL.RING_FILLED] = 1;
      },
    ],
  ])('ends the connection with %s', (_name, spoil) => {
    const { bench, queue, ring } = start();
    spoil(bench, queue, ring);
    expect(() => bench.write(FAKE.OFFSET, 1)).toThrow(badArgument);
  });

  it('QUEUE_RAN needs the feature', () => {
    const { bench } = start(ALL_FEATURES & ~FEATURE.QUEUES);
    expect(() => bench.input(MESSAGE.QUEUE_RAN, CODEC.QueueRan, {})).toThrow(
      expect.objectContaining({ reason: 'NOT_NEGOTIATED' }),
    );
  });
});

describe('with a VT-d', () => {
  /** Its queue at 0x8000, at rest. */
  function vtd() {
    const memory = new ArrayMemory([{ base: 0, bytes: 2 ** 20 }]);
    const models = {
      modelRegisterBytes,
      createModel: ((name, options, ports) =>
        createModel(name, options, { ...ports, memory })) as typeof createModel,
    };
    const bench = new Bench({ models }).hello({ model: 'vtd', options: { 'scalable-mode': 'off' } });
    const write = (offset: number, size: number, lo: number): void =>
      bench.input(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset, size, lo, hi: 0 });
    write(0x90, 8, 0x8000);
    write(0x18, 4, 0x0400_0000);
    return { bench, memory, write, ring: new PeerRing(bench) };
  }
  /** A domain-selective IOTLB invalidation, and one of a context cache. */
  const DOMAIN = [0x0006_0022, 0, 0, 0];
  const CONTEXTS = [0x11, 0, 0, 0];

  it('opens with the queue and closes with it, and takes what comes by either way in order', () => {
    const { bench, memory, write, ring } = vtd();
    expect(ring.inForce).not.toBe(0);
    ring.put([DOMAIN, DOMAIN], 0x20);
    memory.poke(0x8020, 0x11n);
    write(0x88, 8, 0x30);
    expect(bench.register(0x80), 'the head, behind all three').toBe(0x30);
    expect(bench.session.model?.counters.commands).toBe(3);
    expect(ring.inForce).not.toBe(0);
    // A descriptor of type 0 stops the queue.
    write(0x88, 8, 0x40);
    expect(bench.register(0x34) & 0x10, 'IQE').toBe(0x10);
    expect(ring.inForce).toBe(0);
  });

  it('ends the connection for a command that is not plain, and for a queue that is not in force', () => {
    const { bench, ring } = vtd();
    ring.put([CONTEXTS], 0x10);
    expect(() => bench.session.takeRun()).toThrow(badArgument);
    const off = vtd();
    const number = off.ring.inForce;
    off.write(0x18, 4, 0);
    expect(off.ring.inForce).toBe(0);
    off.ring.put([DOMAIN], 0x10, number);
    expect(() => off.bench.session.takeRun()).toThrow(badArgument);
  });

  it('is closed by a reset, and answers RESET all the same when there is a run before it', () => {
    const { bench, ring } = vtd();
    ring.put([DOMAIN], 0x10);
    const id = 77;
    bench.input(MESSAGE.RESET, bodyCodec(MESSAGE.RESET), {}, [], 0, FLAG.NEED_REPLY, id);
    expect(bench.sent.some((sent) => sent.type === MESSAGE.RESET && sent.id === id)).toBe(true);
    expect(ring.inForce).toBe(0);
    expect(ring.taken).toBe(2);
  });
});
