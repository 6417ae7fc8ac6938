import { afterEach, describe, expect, it } from 'vitest';
import { CODEC } from '../wire/codec.js';
import { FLAG, MESSAGE } from '../wire/frame.js';
import { FAKE } from './testing/fake-model.js';
import { type Connected, connected } from './testing/vm.js';

const REMOTE = 0x10_0000;
const open: Connected[] = [];

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

  it('outside of its regions is not there, and nobody is asked', () => {
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
    // The walk's read was already on its way behind the invalidation; the completion read its own word after.
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

  it('a request that comes while an acknowledgement makes the model read memory is answered', () => {
    const { vm } = start();
    vm.translate(0x1000);
    vm.write(FAKE.TOKEN, 5);
    vm.write(FAKE.THEN_PEEK, REMOTE + 0x40);
    vm.service.memRead = (m) => {
      const request = { rid: 8, pasid: 0, access: 1, lo: 0x7000, hi: 0, kind: 0, mayStall: false };
      vm.client.send(MESSAGE.TRANSLATE, FLAG.NEED_REPLY, 4242, CODEC.Translate, request);
      // Long enough for the daemon to have read the request before the answer it waits for.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
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
