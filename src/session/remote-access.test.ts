import { afterEach, describe, expect, it } from 'vitest';
import { type Connected, connected } from '../../test/support/session-vm.js';
import { closeFd, socketPair, wakeFd } from '../base/native.js';
import { Channel } from '../wire/channel.js';
import { CODEC, type Codec, replyCodec } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import { BACKEND_ANSWERS } from './backend.js';
import { BackendMemory } from './remote-access.js';
import { FAKE } from './testing/fake-model.js';

const REMOTE = 0x10_0000;
const open: Connected[] = [];

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** A machine whose memory is served by messages. */
function start(readonly = false, model = 'fake'): Connected {
  const made = connected();
  open.push(made);
  made.vm.hello({ model });
  const region = { shared: false, gpaLo: REMOTE, sizeLo: 65536, readonly };
  expect(made.vm.memAdd(region, []).code).toBe(0);
  new DataView(made.vm.remote.buffer).setUint32(0x40, 1234, true);
  return made;
}

afterEach(async () => {
  for (const { vm, host } of open.splice(0)) {
    vm.close();
    await host.closed;
  }
});

/**
 * Every question that the daemon has for a peer, by the contract: numbers of the backend channel
 * that have an answer.
 */
const QUESTIONS = Object.entries(MESSAGE).filter(
  ([, type]) => type >= MESSAGE.INVALIDATE && type !== MESSAGE.ERROR && answerTo(type) !== undefined,
);
const FOR_MEMORY: readonly number[] = [MESSAGE.MEM_READ, MESSAGE.MEM_WRITE, MESSAGE.MEM_CAS];
const LATER = QUESTIONS.filter(([, type]) => !FOR_MEMORY.includes(type));

function answerTo(type: number): Codec<object> | undefined {
  return replyCodec(type as typeof MESSAGE.TRACK) as unknown as Codec<object> | undefined;
}

describe('answers that come while memory is asked for', () => {
  const fds: number[] = [];
  const open: Channel[] = [];
  function pair(): [daemon: Channel, peer: Channel] {
    const [daemon, peer] = socketPair();
    const channels: [Channel, Channel] = [new Channel(daemon), new Channel(peer)];
    open.push(...channels);
    return channels;
  }
  /**
   * The daemon's side, and the peer's end of the backend channel: what is put there has come before
   * anything is asked.
   */
  function asked(questions: readonly number[]): { memory: BackendMemory; peer: Channel } {
    const [front] = pair();
    const [backend, peer] = pair();
    const fd = wakeFd();
    fds.push(fd);
    const memory = new BackendMemory(front, fd);
    memory.open(backend);
    questions.forEach((type, id) => {
      backend.put(type, FLAG.NEED_REPLY, id, CODEC.Reset, {});
    });
    return { memory, peer };
  }
  function answer(peer: Channel, type: number, id: number, flags: number = FLAG.REPLY): void {
    const codec = answerTo(type) ?? (CODEC.Reset as unknown as Codec<object>);
    peer.put(type, flags, id, codec, codec.create());
    peer.flush();
  }
  function read(memory: BackendMemory, peer: Channel): boolean {
    peer.put(MESSAGE.MEM_READ, FLAG.REPLY, 1, CODEC.MemReadReply, {
      code: 0,
      data: new Uint8Array(8).fill(7),
    });
    peer.flush();
    const into = new Uint8Array(8);
    const done = memory.read(0, 0, 8, into);
    return done && into[7] === 7;
  }
  afterEach(() => {
    for (const channel of open.splice(0)) channel.close();
    for (const fd of fds.splice(0)) closeFd(fd);
  });

  it('are those of the contract: nothing is missing in the table of what is handled, and nothing is too much', () => {
    expect(LATER.length).toBeGreaterThan(13);
    expect(Object.keys(BACKEND_ANSWERS).map(Number)).toEqual(
      LATER.map(([, type]) => type as number).sort((a, b) => a - b),
    );
  });

  it.each(LATER)('%s is kept for later', (_, type) => {
    const { memory, peer } = asked([type, type]);
    answer(peer, type, 0);
    answer(peer, type, 1);
    expect(read(memory, peer)).toBe(true);
    expect(memory.failure).toBeUndefined();
    expect(memory.setAside.map(({ frame }) => [frame.type, frame.id])).toEqual([
      [type, 0],
      [type, 1],
    ]);
    memory.free();
  });

  it('of all kinds together keep their order', () => {
    const types = LATER.map(([, type]) => type as number);
    const { memory, peer } = asked(types);
    types.forEach((type, id) => {
      answer(peer, type, id);
    });
    expect(read(memory, peer)).toBe(true);
    expect(memory.setAside.map(({ frame }) => frame.type)).toEqual(types);
    memory.free();
  });

  it.each([
    ['a question instead of an answer', MESSAGE.INVALIDATE, 0, 'OUT_OF_ORDER'],
    ['a message that is never answered', MESSAGE.INTERRUPT, FLAG.REPLY, 'UNEXPECTED_REPLY'],
    ['a number that is no message', 79, FLAG.REPLY, 'UNKNOWN_TYPE'],
  ] as const)('%s ends the connection as at any other time', (_, type, flags, reason) => {
    const { memory, peer } = asked([MESSAGE.INVALIDATE]);
    answer(peer, type, 0, flags);
    expect(read(memory, peer)).toBe(false);
    expect(memory.failure?.reason).toBe(reason);
    memory.free();
  });

  it('more of them than there were questions are not kept', () => {
    const { memory, peer } = asked([MESSAGE.INVALIDATE, MESSAGE.TRACK]);
    for (let id = 0; id < 5; id++) answer(peer, MESSAGE.INVALIDATE, id);
    expect(read(memory, peer)).toBe(false);
    expect(memory.failure?.reason).toBe('UNEXPECTED_REPLY');
    // The third could still have been the answer for memory.
    expect(memory.setAside.length).toBeLessThanOrEqual(3);
    memory.free();
  });
});

describe('memory served by the peer', () => {
  it('is read, and changed by compare-and-swap', () => {
    const { vm } = start();
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(1234);
    expect(new DataView(vm.remote.buffer).getUint32(0x40, true)).toBe(1235);
    vm.remote.set([1, 2, 3, 4, 5, 6, 7, 8], 0x80);
    vm.write(FAKE.PEEK64, REMOTE + 0x80);
    expect(vm.read(FAKE.VALUE)).toBe(0x04030201);
    expect(vm.read(FAKE.VALUE + 4)).toBe(0x08070605);
  });

  it('outside of its regions is not there, and the peer is not asked', () => {
    const { vm } = start();
    let asked = 0;
    vm.service.memRead = (m) => {
      asked++;
      return vm.memRead(m);
    };
    vm.write(FAKE.PEEK, REMOTE - 4);
    expect(vm.read(FAKE.STATUS)).toBe(0xdead);
    vm.write(FAKE.PEEK, REMOTE + 65536);
    expect(vm.read(FAKE.STATUS)).toBe(0xdead);
    expect(asked).toBe(0);
  });

  it('read-only is not written', () => {
    const { vm } = start(true);
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(1234);
    expect(new DataView(vm.remote.buffer).getUint32(0x40, true)).toBe(1234);
  });

  it('what the peer refuses is not there', () => {
    const { vm } = start();
    vm.service.memRead = () => ({ code: 40, data: new Uint8Array(0) });
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(0xdead);
    expect(vm.translate(0x1000).status).toBe(0);
  });

  it('an acknowledgement that comes while memory is waited for counts, afterwards', () => {
    const { vm } = start();
    const order: string[] = [];
    vm.translate(0x1000);
    vm.service.invalidate = () => {
      order.push('acknowledged');
      return { code: 0, text: '' };
    };
    vm.service.memRead = (m) => {
      order.push('read');
      return vm.memRead(m);
    };
    vm.write(FAKE.TOKEN, 77);
    vm.write(FAKE.THEN_PEEK, REMOTE + 0x40);
    vm.write(FAKE.INVALIDATE, 1);
    vm.write(FAKE.PEEK64, REMOTE + 0x80);
    expect(vm.read(FAKE.VALUE)).toBe(1234);
    expect(vm.peek(FAKE.STATUS)).toBe(77);
    // The walk's read was already on its way behind the invalidation; the completion read its own
    // word after.
    expect(order).toEqual(['acknowledged', 'read', 'read']);
  });

  it("a device's answer that comes while memory is waited for counts, behind the page requests that it sent before", () => {
    const { vm } = start(false, 'hearing');
    const page = { rid: 8, pasid: 0, access: 1, lo: 0x5000, hi: 0, group: 0, last: true };
    vm.service.deviceTlb = () => {
      vm.client.post(MESSAGE.PAGE_REQUEST, page);
      vm.client.post(MESSAGE.PAGE_REQUEST, page);
      return { result: 0 };
    };
    vm.write(FAKE.DEVICE_TLB, 8);
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.read(FAKE.STATUS)).toBe(1234);
    while (vm.read(FAKE.HEARD) < 100);
    expect(vm.read(FAKE.HEARD)).toBe(112);
  });

  it('an acknowledgement that comes while what a device has answered makes the model read memory counts', () => {
    const { vm } = start(false, 'hearing');
    vm.translate(0x1000);
    vm.write(FAKE.TOKEN, 99);
    vm.write(FAKE.THEN_INVALIDATE, REMOTE + 0x40);
    vm.write(FAKE.DEVICE_TLB, 8);
    // The device's answer comes while this is waited for, and the invalidation's while the answer
    // is dealt with.
    vm.write(FAKE.PEEK, REMOTE + 0x80);
    for (let served = 0; served < 5; ) served += vm.client.serve(5000);
    // Nothing is sent any more that would make the session look again.
    for (let spins = 0; vm.peek(FAKE.STATUS) !== 99 && spins < 2000; spins++) pause(5);
    expect(vm.peek(FAKE.STATUS)).toBe(99);
  });

  it('a request that comes while an acknowledgement makes the model read memory is answered', () => {
    const { vm } = start();
    vm.translate(0x1000);
    vm.write(FAKE.TOKEN, 5);
    vm.write(FAKE.THEN_PEEK, REMOTE + 0x40);
    vm.service.memRead = (m) => {
      const request = { rid: 8, pasid: 0, access: 1, lo: 0x7000, hi: 0, kind: 0, mayStall: false, size: 0 };
      vm.client.send(MESSAGE.TRANSLATE, FLAG.NEED_REPLY, 4242, CODEC.Translate, request);
      // Long enough for the daemon to have read the request before the answer it waits for.
      pause(50);
      return vm.memRead(m);
    };
    vm.write(FAKE.INVALIDATE, 1);
    while (vm.client.serve(5000) < 1);
    while (vm.client.serve(5000) < 1);
    expect(vm.client.awaitReply(MESSAGE.TRANSLATE, 4242).spans[0]).toBe(0x7000);
    expect(vm.peek(FAKE.STATUS)).toBe(5);
  });

  it('an answer of another length ends the connection', async () => {
    const { vm, host } = start();
    vm.service.memRead = () => ({ code: 0, data: new Uint8Array(3) });
    vm.write(FAKE.PEEK, REMOTE);
    expect(() => vm.read(FAKE.STATUS)).toThrow(expect.objectContaining({ reason: 'BAD_ARGUMENT' }));
    expect((await host.closed).reason).toBe('BAD_ARGUMENT');
  });

  it('an answer to another question ends the connection', async () => {
    const { vm, host } = start();
    vm.service.memRead = (m) => {
      vm.client.backend.put(MESSAGE.MEM_READ, FLAG.REPLY, 999, CODEC.MemReadReply, vm.memRead(m));
      return vm.memRead(m);
    };
    vm.write(FAKE.PEEK, REMOTE);
    expect(() => vm.read(FAKE.STATUS)).toThrow(expect.objectContaining({ reason: 'UNEXPECTED_REPLY' }));
    expect((await host.closed).reason).toBe('UNEXPECTED_REPLY');
  });

  it('a peer that never answers does not keep the session from stopping or from reporting', async () => {
    const { vm, host } = start();
    vm.write(FAKE.PEEK, REMOTE);
    expect((await host.report()).regions).toBe(1);
    await host.stop();
    expect((await host.closed).reason).toBe('STOPPED');
  });

  it('a dump waits until the walk that waits for memory is done', async () => {
    const { vm, host } = start();
    const before = (await host.report()).frontFrames;
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    while ((await host.report()).frontFrames === before); // it has come in, and waits
    const order: string[] = [];
    const all = { registers: true, tables: true, maxLeaves: 1 };
    const dump = host.dump(all).then(() => order.push('dump'));
    await host.report();
    order.push('report');
    expect(vm.read(FAKE.STATUS)).toBe(1234);
    await dump;
    expect(order).toEqual(['report', 'dump']);
  });

  it('a peer that leaves in the middle ends the session', async () => {
    const { vm, host } = start();
    vm.write(FAKE.PEEK, REMOTE);
    await host.report();
    vm.client.front.close();
    expect((await host.closed).reason).toBe('PEER_CLOSED');
  });

  it('a peer that sends on while it is asked loses nothing', () => {
    const { vm } = start();
    const many = 5000;
    vm.service.memRead = (m) => {
      // Posted while the daemon waits for this very answer: they fill its buffer and the socket's.
      for (let i = 1; i <= many; i++) vm.client.front.put(MESSAGE.REG_WRITE, 0, i, CODEC.RegWrite, write(i));
      return vm.memRead(m);
    };
    const write = (lo: number): { offset: number; size: number; lo: number; hi: number } => ({
      ...{ offset: FAKE.TOKEN, size: 4, lo, hi: 0 },
    });
    vm.write(FAKE.PEEK, REMOTE + 0x40);
    expect(vm.client.serve(5000)).toBe(1);
    vm.service = {};
    vm.client.serve(100);
    expect(vm.read(FAKE.TOKEN)).toBe(many);
    expect(vm.handled).toBe(many + 1);
  });
});
