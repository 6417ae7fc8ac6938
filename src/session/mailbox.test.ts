import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { type Connected, connected, type TestVm } from '../../test/support/session-vm.js';
import { titled } from '../../test/support/titled.js';
import type { ErrorName } from '../base/errors.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, CONTROL, FEATURE, FLAG, MAILBOX, MESSAGE, VERSION } from '../wire/frame.js';
import { DaemonMailbox, PeerMailbox } from '../wire/mailbox.js';
import { FAKE } from './testing/fake-model.js';

const { REG_WRITE } = MESSAGE;
const OFFSET = { offset: FAKE.OFFSET, size: 4, hi: 0 };

let open: Connected | undefined;

afterEach(async () => {
  open?.vm.close();
  await open?.host.closed;
  open = undefined;
});

/** Frames sent on the front channel so far: HELLO. */
const AFTER_HELLO = 1;

function start(features = ALL_FEATURES): { vm: TestVm; mailbox: PeerMailbox } {
  open = connected();
  const { vm } = open;
  vm.hello({ features });
  return { vm, mailbox: new PeerMailbox(vm.page) };
}

function put(mailbox: PeerMailbox, after: number, lo: number): boolean {
  return mailbox.put(after, REG_WRITE, FLAG.NEED_REPLY, lo, CODEC.RegWrite, { ...OFFSET, lo });
}

/** Waits without giving way: what is waited for happens in another thread. */
function spinUntil(done: () => boolean, what: string): void {
  const end = performance.now() + 5000;
  while (!done()) if (performance.now() > end) throw new Error(`timed out: ${what}`);
}

async function until(done: () => boolean, what: string): Promise<void> {
  for (let waited = 0; !done(); waited++) {
    if (waited === 5000) throw new Error(`timed out: ${what}`);
    await sleep(1);
  }
}

describe('the mailbox of a session', () => {
  it('brings a register write, and takes its answer, whether the session sleeps or looks', async () => {
    const { vm, mailbox } = start();
    vm.client.mailbox = mailbox;
    for (let value = 1; value <= 200; value++) {
      const reply = vm.client.requestByMail(REG_WRITE, { ...OFFSET, lo: value });
      expect(reply).toEqual({ batch: 0, device: 0, ops: [] });
      expect([vm.peek(FAKE.OFFSET), vm.handled]).toEqual([value, value]);
      if (value % 50 === 0) await until(() => mailbox.daemonSleeps, 'the daemon to sleep');
    }
    // What the peer may wait for: nothing of the last one is still to come.
    await until(() => Atomics.load(vm.page, CONTROL.MAIL_HANDLED) === 200, 'word 513');
    expect(mailbox.put(0, REG_WRITE, 0, 1, CODEC.RegWrite, { ...OFFSET, lo: 9 })).toBe(true);
  });

  it('is opened after a sleep at the peer, and at both ends', async () => {
    const { vm, mailbox } = start();
    await until(() => mailbox.daemonSleeps, 'the daemon to sleep');
    mailbox.sleep(true);
    expect(put(mailbox, AFTER_HELLO, 5)).toBe(true);
    vm.client.post(MESSAGE.MAIL, {});
    await until(() => mailbox.answered, 'the answer');
    // This peer sleeps, so it is told.
    vm.client.front.fill();
    await until(() => vm.client.front.next() || vm.client.front.fill() < 0, 'MAIL');
    expect(vm.client.front.frame).toMatchObject({ type: MESSAGE.MAIL, flags: VERSION });
    expect(mailbox.take()).toBe(true);
    expect(mailbox.frame).toMatchObject({ type: REG_WRITE, id: 5, reply: true });
  });

  it('comes in its turn: not before what was sent on the front channel before it', async () => {
    const { vm, mailbox } = start();
    expect(put(mailbox, AFTER_HELLO + 2, 77)).toBe(true);
    vm.write(FAKE.OFFSET, 1);
    await until(() => vm.handled === 1, 'the first write');
    // Between two reports the session looks into the mailbox.
    for (let n = 0; n < 2; n++) await open?.host.report();
    expect([vm.handled, vm.peek(FAKE.OFFSET)]).toEqual([1, 1]);
    expect(put(mailbox, AFTER_HELLO, 78)).toBe(false);
    vm.write(FAKE.OFFSET, 2);
    await until(() => vm.handled === 3, 'all of them');
    expect(vm.peek(FAKE.OFFSET)).toBe(77);
  });

  it('comes before what was sent on the front channel after it', async () => {
    const { vm, mailbox } = start();
    for (let n = 0; n < 50; n++) {
      await until(() => put(mailbox, AFTER_HELLO + n, n * 2), 'room');
      vm.write(FAKE.OFFSET, n * 2 + 1);
      await until(() => vm.handled === n * 2 + 2, 'both');
      expect(vm.peek(FAKE.OFFSET)).toBe(n * 2 + 1);
    }
  });

  it('is nothing without answers to writes', async () => {
    const { vm, mailbox } = start(ALL_FEATURES & ~FEATURE.WRITE_REPLY);
    put(mailbox, AFTER_HELLO, 5);
    vm.client.post(MESSAGE.MAIL, {});
    vm.write(FAKE.OFFSET, 1);
    expect(vm.read(FAKE.OFFSET)).toBe(1);
    expect(vm.handled).toBe(1);
  });

  it('is nothing to a session that has not agreed to it', async () => {
    const { vm, mailbox } = start(ALL_FEATURES & ~FEATURE.MAILBOX);
    put(mailbox, AFTER_HELLO, 5);
    vm.write(FAKE.OFFSET, 1);
    expect(vm.read(FAKE.OFFSET)).toBe(1);
    expect(vm.handled).toBe(1);
    vm.client.post(MESSAGE.MAIL, {});
    expect(vm.client.awaitEnd()).toMatchObject({ reason: 'NOT_NEGOTIATED' });
  });
});

describe('processors in the mailbox', () => {
  it('are said by either side, and are the same or not; one that is not known is none', () => {
    const control = new Uint32Array(1024);
    const mailbox = new DaemonMailbox(control);
    expect(mailbox.apart(3)).toBe(true);
    expect(control[CONTROL.DAEMON_CPU]).toBe(4);
    control[CONTROL.PEER_CPU] = 4;
    expect(mailbox.apart(3)).toBe(false);
    expect(mailbox.apart(0)).toBe(true);
    expect(control[CONTROL.DAEMON_CPU]).toBe(1);
    control[CONTROL.PEER_CPU] = 0;
    expect([mailbox.apart(-1), control[CONTROL.DAEMON_CPU]]).toEqual([true, 0]);
  });

  it('are said by a session, which answers also a peer that claims to be where it is', async () => {
    const { vm, mailbox } = start();
    vm.client.mailbox = mailbox;
    for (let value = 1; value <= 50; value++) {
      Atomics.store(vm.page, CONTROL.PEER_CPU, Atomics.load(vm.page, CONTROL.DAEMON_CPU));
      vm.client.requestByMail(REG_WRITE, { ...OFFSET, lo: value });
      expect(vm.peek(FAKE.OFFSET)).toBe(value);
    }
    await until(() => Atomics.load(vm.page, CONTROL.DAEMON_CPU) > 0, 'its processor');
  });
});

describe('a peer that goes wrong in the mailbox', () => {
  const FRAME = MAILBOX.PEER / 4;
  const CASES: readonly { what: string; ends: ErrorName; frame: readonly number[]; sent?: number }[] = [
    { what: 'another message', ends: 'OUT_OF_ORDER', frame: [MESSAGE.TRANSLATE, 9, 0, 1] },
    {
      what: 'a question as if it were an answer',
      ends: 'OUT_OF_ORDER',
      frame: [MESSAGE.HOST_BATCH, 9, 0, 1],
    },
    { what: 'flags that there are none', ends: 'BAD_HEADER', frame: [REG_WRITE, 0x19, 0, 1] },
    { what: 'a version that there is none', ends: 'BAD_HEADER', frame: [REG_WRITE, 3, 0, 1] },
    { what: 'more than fits', ends: 'FRAME_TOO_LONG', frame: [REG_WRITE, 9, 481, 1] },
    { what: 'a body that is none', ends: 'BAD_BODY', frame: [REG_WRITE, 9, 1, 1, 0xff] },
    { what: 'two frames in one', ends: 'OUT_OF_ORDER', frame: [REG_WRITE, 9, 0, 1], sent: 2 },
    { what: 'an answer to nothing', ends: 'UNEXPECTED_REPLY', frame: [MESSAGE.HOST_BATCH, 5, 0, 1] },
  ];

  it.each(titled(CASES, ({ what, ends }) => `${what}: ${ends}`))('%s', (_title, { frame, ends, sent }) => {
    const { vm } = start();
    vm.page[CONTROL.MAIL_AFTER] = AFTER_HELLO;
    vm.page.set(frame, FRAME);
    Atomics.store(vm.page, CONTROL.MAIL_SENT, sent ?? 1);
    vm.client.post(MESSAGE.MAIL, {});
    expect(vm.client.awaitEnd()).toMatchObject({ reason: ends });
  });

  it('the same frame over and over does not keep other frames from being served', () => {
    const { vm } = start();
    vm.page[CONTROL.MAIL_AFTER] = AFTER_HELLO;
    vm.page.set([REG_WRITE, 1, 0, 1], FRAME);
    for (let sent = 1; sent < 2000; sent++) {
      Atomics.store(vm.page, CONTROL.MAIL_SENT, sent);
      vm.client.post(MESSAGE.MAIL, {});
      spinUntil(() => Atomics.load(vm.page, CONTROL.MAIL_HANDLED) === sent, `frame ${sent} to be handled`);
    }
    expect(vm.translate(0x5123).status).toBe(0);
  });
});
