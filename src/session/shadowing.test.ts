/** Shadowed devices: batches for the host, and what is said before they are done. */
import { beforeEach, describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { type AddressSpaceTables, THROUGH } from '../device/tables.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE, NOTIFY } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import { CHANNEL } from './session.js';
import { Bench, type Sent } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const RID = 8;
const DEVICE = 1;
const PAGES = 16;
/** A map with all rights: access, first page, last page, page of memory; addresses are halves. */
const MAP_ALL = [3, 0, 0, PAGES * 4096 - 1, 0, 0, 0];

/** What becomes of requests of every device. */
let through: number;
let silent: boolean;
let bench: Bench;

/** Where nothing is shadowed yet: 16 pages of memory, a device. */
function plugged(features = ALL_FEATURES): Bench {
  through = THROUGH.IDENTITY;
  silent = false;
  const tables = (_rid: number, _pasid: number, out: AddressSpaceTables): void => {
    Object.assign(out, { through, reach: 32, space: through === THROUGH.NOTHING ? out.space : 1, silent });
  };
  bench = new Bench({
    models: {
      ...fakeModels,
      createModel: (_name, _options, ports) =>
        Object.assign(new FakeModel(ports), { spaces: { concerns: () => false, tables } }),
    },
  }).hello({ features });
  const region = { ...CODEC.MemAdd.create(), region: 1, sizeLo: PAGES * 4096 };
  bench.input(MESSAGE.MEM_ADD, CODEC.MemAdd, region);
  bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: DEVICE, rid: RID, name: 'gpu' });
  return bench;
}

const notify = (flags: number, device = DEVICE): void =>
  bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device, flags });

function listen(change: Partial<M.HostListen> = {}): void {
  const all = { device: DEVICE, firstLo: 0, firstHi: 0, lastLo: 0xffff_ffff, lastHi: 0 };
  bench.input(MESSAGE.HOST_LISTEN, CODEC.HostListen, { ...all, ...change });
}

const batches = (): Sent[] => bench.sent.filter(({ type }) => type === MESSAGE.HOST_BATCH);
const opsOf = (sent: Sent | undefined): number[] => Array.from(sent?.message['ops'] as Uint32Array);

/** The host has done the newest batch. */
function done(failures: number[] = [], channel: number = CHANNEL.BACKEND, id = batches().at(-1)?.id): void {
  const message = { failures: Uint32Array.from(failures) };
  bench.input(MESSAGE.HOST_BATCH, CODEC.HostBatchReply, message, [], channel as 0 | 1, FLAG.REPLY, id);
}

/** The device's mappings are in force. */
function shadowed(features = ALL_FEATURES): void {
  plugged(features);
  notify(NOTIFY.MAP);
  listen();
  done();
}

/** The guest takes everything away and asks for completion 7. */
function takeAway(): void {
  through = THROUGH.NOTHING;
  bench.write(FAKE.TOKEN, 7);
  bench.write(FAKE.INVALIDATE, 1);
}

/** Answers to HOST_SETTLE. */
const settled = (): unknown[] =>
  bench.sent.filter(({ type }) => type === MESSAGE.HOST_SETTLE).map(({ message }) => ({ ...message }));
const settle = (): void => bench.input(MESSAGE.HOST_SETTLE, CODEC.HostSettle, {});

describe('a device that wants MAP events', () => {
  it('has what it may reach mapped where the host listens', () => {
    plugged();
    notify(NOTIFY.MAP | NOTIFY.UNMAP);
    expect(batches()).toEqual([]);
    listen();
    expect(batches()).toMatchObject([{ channel: CHANNEL.BACKEND, flags: FLAG.NEED_REPLY }]);
    expect([batches()[0]?.message['device'], opsOf(batches()[0])]).toEqual([DEVICE, MAP_ALL]);
  });

  it('is left alone when it does not any more, or has gone, and begins anew', () => {
    shadowed();
    notify(NOTIFY.UNMAP);
    expect(() => listen()).toThrow(expect.objectContaining({ reason: 'OUT_OF_ORDER' }));
    notify(NOTIFY.MAP);
    listen();
    expect(opsOf(batches().at(-1))).toEqual(MAP_ALL);
    done();
    bench.input(MESSAGE.DEVICE_REMOVED, CODEC.DeviceRemoved, { device: DEVICE });
    expect(bench.session.shadowing.shadow.idle).toBe(true);
    expect(batches()).toHaveLength(2);
  });

  it('keeps what it has when it wants the same again, and goes by its new requester id', () => {
    shadowed();
    notify(NOTIFY.MAP | NOTIFY.UNMAP);
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: DEVICE, rid: 16, name: 'gpu' });
    expect(batches()).toHaveLength(1);
    through = THROUGH.NOTHING;
    bench.invalidate({ space: ANY, sub: ANY, rid: 16, pasid: ANY, lo: 0, hi: 0, log2Size: 64 });
    expect(batches()).toHaveLength(2);
  });

  it('is told of invalidations by a peer that takes no batches', () => {
    plugged(ALL_FEATURES & ~FEATURE.HOST_BATCH);
    notify(NOTIFY.MAP);
    expect(bench.session.devices.notifiedRids).toEqual([RID]);
    expect(() => listen()).toThrow(expect.objectContaining({ reason: 'NOT_NEGOTIATED' }));
    plugged();
    notify(NOTIFY.MAP);
    expect(bench.session.devices.notifiedRids).toEqual([]);
  });

  it.each([
    ['another device', { device: 2 }, 'OUT_OF_ORDER'],
    ['half a page at the begin', { firstLo: 0x800 }, 'BAD_ARGUMENT'],
    ['half a page at the end', { lastLo: 0x17ff }, 'BAD_ARGUMENT'],
    ['pages that end before they begin', { firstLo: 0x3000, lastLo: 0x2fff }, 'BAD_ARGUMENT'],
  ])('is not listened to for %s', (_, change, reason) => {
    plugged();
    notify(NOTIFY.MAP);
    expect(() => listen(change)).toThrow(expect.objectContaining({ reason }));
  });
});

describe('a completion', () => {
  beforeEach(() => shadowed());

  it('waits for the host to take away what is not mapped any more', () => {
    takeAway();
    expect(batches()).toHaveLength(2);
    expect(opsOf(batches().at(-1))).toEqual([0, 0, 0, PAGES * 4096 - 1, 0, 0, 0]);
    expect(bench.register(FAKE.STATUS)).toBe(0);
    expect(() => done([], CHANNEL.FRONT)).toThrow(
      expect.objectContaining({ message: expect.stringContaining('on the front channel') }),
    );
    done();
    expect(bench.register(FAKE.STATUS)).toBe(7);
    expect(() => done()).toThrow(expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }));
  });

  it('does not wait where nothing has changed', () => {
    bench.write(FAKE.TOKEN, 7);
    bench.write(FAKE.INVALIDATE, 1);
    expect([batches().length, bench.register(FAKE.STATUS)]).toEqual([1, 7]);
  });
});

describe('HOST_SETTLE', () => {
  beforeEach(() => shadowed());

  it('is answered at once when all is settled', () => {
    settle();
    expect(settled()).toEqual([{ settled: true, sent: 1, tracking: false }]);
  });

  it('is answered while a batch is under way: the peer’s main loop has to carry it out', () => {
    takeAway();
    settle();
    expect(settled()).toEqual([{ settled: false, sent: 2, tracking: false }]);
    done();
    settle();
    expect(settled().at(-1)).toEqual({ settled: true, sent: 2, tracking: false });
  });

  it('is answered while an invalidation is that names devices', () => {
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 2, rid: 16, name: 'nic' });
    notify(NOTIFY.UNMAP, 2);
    bench.ask(MESSAGE.RESET, {});
    settle();
    expect(settled()).toEqual([{ settled: false, sent: 2, tracking: false }]);
  });

  it('waits, once, for what the peer answers by itself', () => {
    bench.translate(0x1000);
    bench.write(FAKE.INVALIDATE, 1);
    settle();
    expect(settled()).toEqual([]);
    bench.ack();
    expect(settled()).toEqual([{ settled: true, sent: 1, tracking: false }]);
    bench.write(FAKE.TOKEN, 1);
    expect(settled()).toHaveLength(1);
  });
});

describe('the answer to a register write', () => {
  const ask = (offset: number, lo: number): void =>
    bench.input(
      MESSAGE.REG_WRITE,
      CODEC.RegWrite,
      { offset, size: 4, lo, hi: 0 },
      [],
      CHANNEL.FRONT,
      FLAG.NEED_REPLY,
    );
  const answers = (): Sent[] => bench.sent.filter(({ type }) => type === MESSAGE.REG_WRITE);

  beforeEach(() => shadowed());

  it('has the batch that the write leads to, and nothing is sent before that is done', () => {
    through = THROUGH.NOTHING;
    bench.write(FAKE.TOKEN, 7);
    ask(FAKE.INVALIDATE, 1);
    expect(batches()).toHaveLength(1);
    const [answer] = answers();
    expect(answer).toMatchObject({ channel: CHANNEL.FRONT, message: { device: DEVICE } });
    expect(opsOf(answer)).toEqual([0, 0, 0, PAGES * 4096 - 1, 0, 0, 0]);
    const id = answer?.message['batch'] as number;
    through = THROUGH.IDENTITY;
    bench.write(FAKE.INVALIDATE, 1);
    expect(batches()).toHaveLength(1);
    expect(() => done([], CHANNEL.BACKEND, id)).toThrow(
      expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }),
    );
    done([], CHANNEL.FRONT, id);
    expect(batches()).toHaveLength(2);
    expect(bench.register(FAKE.STATUS)).toBe(0);
    done();
    expect(bench.register(FAKE.STATUS)).toBe(7);
    expect(() => done([], CHANNEL.FRONT)).toThrow(expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }));
  });

  it('has none where a batch is under way, or nothing is to be done; each write has one answer', () => {
    ask(FAKE.TOKEN, 7);
    through = THROUGH.NOTHING;
    bench.write(FAKE.INVALIDATE, 1);
    through = THROUGH.IDENTITY;
    ask(FAKE.INVALIDATE, 1);
    expect(answers().map(({ message }) => [message['batch'], opsOf({ message } as Sent)])).toEqual([
      [0, []],
      [0, []],
    ]);
  });

  it('is none where the peer wants none', () => {
    shadowed(ALL_FEATURES & ~FEATURE.WRITE_REPLY);
    through = THROUGH.NOTHING;
    ask(FAKE.INVALIDATE, 1);
    expect([answers().length, batches().length]).toEqual([0, 2]);
  });
});

describe('a pause', () => {
  it('is an empty batch of a shadowed device, and none where there is no device', () => {
    plugged();
    expect([bench.session.shadowing.pause(), batches()]).toEqual([false, []]);
    shadowed();
    expect(bench.session.shadowing.pause()).toBe(true);
    bench.invalidate({ space: 9, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 });
    expect(opsOf(batches().at(-1))).toEqual([]);
    expect(batches()).toHaveLength(2);
  });
});

describe('what the log says', () => {
  const warnings = (): string[] => bench.log.filter((line) => line.startsWith('warn the '));

  it('of what the host refuses, once until it is over', () => {
    plugged();
    notify(NOTIFY.MAP);
    listen();
    done([0, 12]);
    const refused = ['warn the host refused to map: DMA there fails'];
    expect(warnings()).toEqual(refused);
    expect(bench.events.filter(({ kind }) => kind === 'hostRefused')).toHaveLength(1);
    // Tried again when something else was taken away.
    bench.input(MESSAGE.MEM_REMOVE, CODEC.MemRemove, { region: 1 });
    const region = { ...CODEC.MemAdd.create(), region: 2, sizeLo: 4096 };
    bench.input(MESSAGE.MEM_ADD, CODEC.MemAdd, region);
    done([0, 12]);
    expect(warnings()).toEqual(refused);
    // All that was refused has gone, and the host has answered: that is over.
    bench.input(MESSAGE.MEM_REMOVE, CODEC.MemRemove, { region: 2 });
    bench.session.shadowing.pause();
    bench.input(MESSAGE.MEM_ADD, CODEC.MemAdd, { ...region, gpaLo: 4096 });
    for (const { id } of batches().slice(-2, -1)) done([], CHANNEL.BACKEND, id);
    done([0, 12]);
    expect(bench.events.filter(({ kind }) => kind === 'hostAccepted')).toHaveLength(1);
    expect(warnings()).toEqual([...refused, ...refused]);
  });

  it('of tables that change in silence, once', () => {
    plugged();
    silent = true;
    notify(NOTIFY.MAP);
    listen();
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 2, rid: 16, name: 'nic' });
    notify(NOTIFY.MAP, 2);
    notify(0);
    notify(NOTIFY.MAP);
    const said = warnings().filter((line) => line.includes('does not say what comes to them'));
    expect(said).toHaveLength(2);
    expect(bench.events.filter(({ kind }) => kind === 'shadowSilent')).toHaveLength(3);
  });
});

describe('a store to tables', () => {
  const stored = (message: M.TableWrite): void => bench.input(MESSAGE.TABLE_WRITE, CODEC.TableWrite, message);

  it.each([
    ['no bytes', { lo: 0, hi: 0, size: 0 }],
    ['more than a page', { lo: 0, hi: 0, size: 4097 }],
    ['an address beyond 52 bits', { lo: 0, hi: 1 << 20, size: 8 }],
  ])('of %s ends the connection', (_, message) => {
    shadowed();
    expect(() => stored(message)).toThrow(expect.objectContaining({ reason: 'BAD_ARGUMENT' }));
  });

  it('is answered when what it changed is done', () => {
    shadowed();
    stored({ lo: 0xffff_f000, hi: 0xf_ffff, size: 4096 });
    expect(bench.sent.at(-1)).toMatchObject({
      type: MESSAGE.TABLE_WRITE,
      message: { settled: true, sent: 1, tracking: false },
    });
  });
});
