import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { message } from '../../test/support/message.js';
import { type Connected, connected, PAGE_BYTES } from '../../test/support/session-vm.js';
import { closeFd, memoryFile } from '../base/native.js';
import { CODEC } from '../wire/codec.js';
import {
  ALL_FEATURES,
  CONTROL,
  FEATURE,
  FLAG,
  HEADER_BYTES,
  MAX_BODY_BYTES,
  MESSAGE,
} from '../wire/frame.js';
import { prepareSession, type SessionOptions } from './host.js';
import { FAKE } from './testing/fake-model.js';

const open: Connected[] = [];

function start(options: Partial<SessionOptions> = {}): Connected {
  const made = connected(options);
  open.push(made);
  return made;
}

afterEach(async () => {
  for (const { vm, host } of open.splice(0)) {
    vm.close();
    await host.closed;
  }
});

function header(type: number, flags: number, size: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  new Uint32Array(bytes.buffer).set([type, flags, size, 1]);
  return bytes;
}

describe('a session in its thread', () => {
  it('shakes hands, stores registers, translates, reports', async () => {
    const { vm, host } = start();
    expect(vm.hello({ features: 0xffff_ffff })).toEqual({
      version: 1,
      features: ALL_FEATURES,
      session: 'test',
      registerBytes: FAKE.BYTES,
    });
    vm.write(FAKE.OFFSET, 3);
    const reply = vm.translate(0x5123);
    expect(reply.status).toBe(0);
    expect(reply.spans).toEqual([0x5000, 0, 0x8000, 0, 12, 3, 0x6000, 0, 0x9000, 0, 12, 3]);
    expect(vm.handled).toBe(1);
    expect(vm.peek(FAKE.OFFSET)).toBe(3);
    const report = await host.report();
    expect(report).toMatchObject({
      vm: 'test',
      model: 'fake',
      peer: 'vitest',
      frontFrames: 3,
      features: ALL_FEATURES,
    });
    expect(report.counters.translations).toBe(1);
    expect(report.bridge.writesHandled).toBe(1);
    const all = { registers: true, tables: true, maxLeaves: 10 };
    expect(await host.dump(all)).toEqual([{ label: 'OFFSET', raw: '3' }]);
  });

  it('stop() tells the peer, ends, and later questions fail', async () => {
    const { vm, host, closed } = start();
    vm.hello();
    await host.stop();
    expect(vm.client.awaitEnd()).toMatchObject({ reason: 'STOPPED' });
    expect(closed).toHaveLength(1);
    expect(closed[0]).toMatchObject({ reason: 'STOPPED', report: { vm: 'test' } });
    await expect(host.report()).rejects.toMatchObject({ reason: 'SESSION_GONE' });
    await host.stop();
  });

  it('an internal error ends this session only, with a stack in the log', async () => {
    const sick = start();
    const well = start();
    sick.vm.hello();
    well.vm.hello();
    sick.vm.write(FAKE.FAIL, 1);
    expect(sick.vm.client.awaitEnd()).toMatchObject({
      reason: 'INTERNAL',
      message: 'a defect of the fake model',
    });
    await sick.host.closed;
    expect(sick.log.join()).toMatch(/error internal error.*fake-model/);
    expect(well.vm.translate(0x1000).status).toBe(0);
  });

  it('a thread prepared beforehand serves the next session, and only that', async () => {
    prepareSession();
    prepareSession();
    const first = start();
    const second = start();
    expect(first.vm.hello().session).toBe('test');
    expect(second.vm.hello().session).toBe('test');
    first.vm.write(FAKE.OFFSET, 1);
    second.vm.write(FAKE.OFFSET, 2);
    expect([first.vm.translate(0).spans[2], second.vm.translate(0).spans[2]]).toEqual([0x1000, 0x2000]);
    await first.host.stop();
    expect(second.vm.translate(0).status).toBe(0);
  });

  it('a storm of faults does not pile up in the main thread', async () => {
    let events = 0;
    const { vm, host, log } = start({ onEvent: () => events++ });
    vm.hello();
    // The main thread is busy in here, and hears nothing.
    for (let i = 0; i < 6000; i++) expect(vm.translate(0, { hi: 0x9000_0000 }).status).toBe(1);
    expect((await host.report()).counters.faults).toBe(6000);
    expect(events).toBeLessThanOrEqual(4096);
    vm.translate(0, { hi: 0x9000_0000 });
    await host.report();
    expect(log.join()).toMatch(/some are left out {"dropped":19\d\d}/);
  });

  it('leaves no descriptor and no mapping behind after 50 connections, ended in every way', async () => {
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const mappings = (): number =>
      readFileSync('/proc/self/maps', 'utf8').match(/memfd:(ram|page)/g)?.length ?? 0;
    const cycle = async (i: number): Promise<void> => {
      const { vm, host } = connected();
      vm.hello();
      const ram = vm.addRam(1, 0, 1 << 20);
      vm.translate(0x1000);
      if (i % 5 === 0) await host.stop();
      else if (i % 5 === 1) vm.write(FAKE.FAIL, 0);
      else if (i % 5 === 2) vm.client.front.putRaw(header(MESSAGE.TRANSLATE, 1, 40).subarray(0, 7));
      else if (i % 5 === 3) vm.client.front.putRaw(header(99, 1, 0));
      if (i % 5 > 1) vm.client.front.flush();
      if (i % 5 === 3) vm.client.awaitEnd();
      vm.close();
      closeFd(ram);
      await host.closed;
    };
    // The first ones also load what stays: libraries, thread pools.
    for (let i = 0; i < 5; i++) await cycle(i);
    const before = [descriptors(), mappings()];
    for (let i = 0; i < 50; i++) await cycle(i);
    expect([descriptors(), mappings()]).toEqual(before);
    expect(mappings()).toBe(0);
  }, 240_000);
});

describe('a mistake of a peer ends its connection, with a code and a log line, and no other', () => {
  type Do = (c: Connected) => void;
  const hello: Do = ({ vm }) => void vm.hello();
  const raw =
    (bytes: Uint8Array): Do =>
    ({ vm }) => {
      vm.client.front.putRaw(bytes);
      vm.client.front.flush();
    };
  const cases: [string, string, Do[]][] = [
    [
      'a frame that is too long',
      'FRAME_TOO_LONG',
      [hello, raw(header(MESSAGE.RESET, 1, MAX_BODY_BYTES + 1))],
    ],
    ['an unknown type', 'UNKNOWN_TYPE', [hello, raw(header(63, 1, 0))]],
    ['a very unknown type', 'UNKNOWN_TYPE', [hello, raw(header(0xffff_ffff, 1, 0))]],
    ['another header version', 'BAD_HEADER', [hello, raw(header(MESSAGE.RESET, 2, 0))]],
    ['a body that is no message', 'BAD_BODY', [hello, raw(new Uint8Array([...header(6, 1, 1), 0x08]))]],
    ['anything before HELLO', 'OUT_OF_ORDER', [({ vm }) => vm.write(0, 1)]],
    ['HELLO twice', 'OUT_OF_ORDER', [hello, ({ vm }) => vm.client.post(MESSAGE.HELLO as never, {} as never)]],
    [
      'a backend message on the front channel',
      'OUT_OF_ORDER',
      [hello, raw(header(MESSAGE.INVALIDATE, 1, 0))],
    ],
    ['an ERROR of its own', 'OUT_OF_ORDER', [hello, raw(header(MESSAGE.ERROR, 1, 0))]],
    ['a reply on the front channel', 'UNEXPECTED_REPLY', [hello, raw(header(MESSAGE.TRANSLATE, 5, 0))]],
    [
      'a backend reply to no request',
      'UNEXPECTED_REPLY',
      [
        hello,
        ({ vm }) => {
          vm.client.backend.put(MESSAGE.INVALIDATE, FLAG.REPLY, 77, CODEC.Status, { code: 0, text: '' });
          vm.client.backend.flush();
        },
      ],
    ],
    [
      'a memory reply to no request',
      'UNEXPECTED_REPLY',
      [
        hello,
        ({ vm }) => {
          vm.client.backend.put(MESSAGE.MEM_READ, FLAG.REPLY, 1, CODEC.Status, { code: 0, text: '' });
          vm.client.backend.flush();
        },
      ],
    ],
    [
      'a request on the backend channel',
      'OUT_OF_ORDER',
      [
        hello,
        ({ vm }) => {
          vm.client.backend.put(MESSAGE.TRANSLATE, 0, 1, CODEC.Translate, CODEC.Translate.create());
          vm.client.backend.flush();
        },
      ],
    ],
    [
      'an invalidation that failed in the peer',
      'PEER_REFUSED',
      [
        hello,
        ({ vm }) => {
          vm.service.invalidate = () => ({ code: 9, text: 'no' });
          vm.translate(0x1000);
          vm.write(FAKE.INVALIDATE, 1);
          vm.client.serve(1000);
        },
      ],
    ],
    [
      'REPLAY without the feature',
      'NOT_NEGOTIATED',
      [({ vm }) => void vm.hello({ features: 3 }), raw(header(10, 1, 0))],
    ],
    [
      'shared memory without the feature',
      'NOT_NEGOTIATED',
      [({ vm }) => void vm.hello({ features: 2 }), ({ vm }) => void vm.addRam(1, 0, 4096)],
    ],
    [
      'remote memory without the feature',
      'NOT_NEGOTIATED',
      [({ vm }) => void vm.hello({ features: 1 }), ({ vm }) => void vm.memAdd({ shared: false }, [])],
    ],
    ['a shared region without its file', 'MISSING_DESCRIPTOR', [hello, ({ vm }) => void vm.memAdd({}, [])]],
    [
      'a shared region with two files',
      'EXTRA_DESCRIPTOR',
      [hello, ({ vm }) => void vm.memAdd({}, [vm.pageFd, vm.pageFd])],
    ],
    [
      'a remote region with a file',
      'EXTRA_DESCRIPTOR',
      [hello, ({ vm }) => void vm.memAdd({ shared: false }, [vm.pageFd])],
    ],
    ['an unknown version', 'BAD_VERSION', [({ vm }) => void vm.hello({ version: 0 })]],
    ['an unknown model', 'UNKNOWN_MODEL', [({ vm }) => void vm.hello({ model: 'gart' })]],
    [
      'an option that the model does not have',
      'BAD_OPTION',
      [({ vm }) => void vm.hello({ options: { colour: 'red' } })],
    ],
    [
      'a shared page that is too small',
      'BAD_SHARED_PAGE',
      [({ vm }) => void vm.hello({ sharedBytes: 8192 })],
    ],
    [
      'a shared page smaller than said',
      'BAD_SHARED_PAGE',
      [({ vm }) => void vm.hello({ sharedBytes: 1 << 20 })],
    ],
    [
      'a requester id of 17 bits',
      'BAD_ARGUMENT',
      [hello, ({ vm }) => void vm.translate(0, { rid: 0x10000 })],
    ],
    ['a PASID of 21 bits', 'BAD_ARGUMENT', [hello, ({ vm }) => void vm.translate(0, { pasid: 0x100001 })]],
    [
      'a notifier of a device that is not there',
      'OUT_OF_ORDER',
      [hello, ({ vm }) => vm.client.post(MESSAGE.NOTIFIER, { device: 3, flags: 1 })],
    ],
    [
      'a device removed that is not there',
      'OUT_OF_ORDER',
      [hello, ({ vm }) => vm.client.post(MESSAGE.DEVICE_REMOVED, { device: 3 })],
    ],
    [
      'notifier flags that do not exist',
      'BAD_ARGUMENT',
      [
        hello,
        ({ vm }) => {
          vm.client.post(MESSAGE.DEVICE_ADDED, { device: 3, rid: 8, name: '' });
          vm.client.post(MESSAGE.NOTIFIER, { device: 3, flags: 8 });
        },
      ],
    ],
  ];

  it.each(cases)('%s: %s', async (_, reason, steps) => {
    const bad = start();
    const good = start();
    good.vm.hello();
    const end = ((): unknown => {
      try {
        for (const step of steps) step(bad);
      } catch (error) {
        return error;
      }
      return bad.vm.client.awaitEnd();
    })();
    expect(end).toMatchObject({ reason });
    const closed = await bad.host.closed;
    expect(closed.reason).toBe(reason);
    expect(closed.text.length).toBeGreaterThan(5);
    expect(bad.closed).toHaveLength(1);
    expect(bad.log.join()).toContain(`"reason":"${reason}"`);
    expect(good.vm.translate(0x7000).status).toBe(0);
  });

  it('HELLO without its descriptors: MISSING_DESCRIPTOR', async () => {
    const { vm, host } = start();
    const hello = message(CODEC.Hello, { version: 1, model: 'fake', sharedBytes: PAGE_BYTES });
    expect(() => vm.client.request(MESSAGE.HELLO, hello)).toThrow(
      expect.objectContaining({ reason: 'MISSING_DESCRIPTOR' }),
    );
    expect((await host.closed).reason).toBe('MISSING_DESCRIPTOR');
  });

  it('closing in the middle of a frame: FRAME_TRUNCATED', async () => {
    const { vm, host } = start();
    vm.hello();
    vm.client.front.putRaw(header(MESSAGE.TRANSLATE, 1, 20));
    vm.client.front.flush();
    vm.client.close();
    expect((await host.closed).reason).toBe('FRAME_TRUNCATED');
  });

  it.each(['the backend channel first', 'with answers not read'])(
    'closing in the middle of a frame, %s: FRAME_TRUNCATED',
    async (how) => {
      const { vm, host } = start();
      vm.hello();
      // Requests that nothing follows at once: the session stops looking ahead for a while.
      const sleeps = (): boolean => Atomics.load(vm.page, CONTROL.DAEMON_SLEEPS) !== 0;
      for (let i = 0; i < 3; i++) {
        vm.translate(0x1000);
        await expect.poll(sleeps, { interval: 1 }).toBe(true);
      }
      if (how === 'with answers not read') {
        const request = message(CODEC.Translate, { lo: 0x1000 });
        for (let i = 0; i < 200; i++) {
          vm.client.send(MESSAGE.TRANSLATE, FLAG.NEED_REPLY, i, CODEC.Translate, request);
        }
      }
      vm.client.front.putRaw(header(MESSAGE.TRANSLATE, 1, 20));
      vm.client.front.flush();
      vm.client.backend.close();
      // The end of the backend channel ends the session, unless answers wait for room on the front
      // channel.
      if (how !== 'with answers not read') await host.closed;
      vm.client.close();
      expect((await host.closed).reason).toBe('FRAME_TRUNCATED');
    },
  );

  it('closing between frames is no error: PEER_CLOSED', async () => {
    const { vm, host } = start();
    vm.hello();
    vm.client.close();
    expect((await host.closed).reason).toBe('PEER_CLOSED');
  });

  it('an unsealed file is mapped with a warning, or refused when the daemon was told so and there are no messages', async () => {
    const file = memoryFile('ram', 65536, false);
    const tolerant = start();
    tolerant.vm.hello();
    expect(tolerant.vm.memAdd({}, [file]).code).toBe(0);
    await tolerant.host.report();
    expect(tolerant.log.filter((line) => line.includes('may shrink'))).toHaveLength(1);
    const strict = start({ requireSealed: true });
    strict.vm.hello({ features: ALL_FEATURES & ~FEATURE.REMOTE_MEMORY });
    expect(strict.vm.memAdd({}, [file])).toMatchObject({ code: 35 });
    expect(strict.vm.translate(0).status).toBe(0);
    closeFd(file);
  });
});
