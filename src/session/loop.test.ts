/**
 * When the loop sleeps, seen from inside its thread: not before everything that it has read is
 * answered.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { PAGE_BYTES, TestVm } from '../../test/support/session-vm.js';
import { CodedError } from '../base/errors.js';
import { clearWake, closeFd, PollSet, socketPair, wake, wakeFd } from '../base/native.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE, VERSION } from '../wire/frame.js';
import { SessionLoop } from './loop.js';
import { FAKE, fakeModels } from './testing/fake-model.js';

const REMOTE = 0x10_0000;
const RID = 8;
/** Id of the request that comes while memory is waited for. */
const LATE = 77;

afterEach(() => {
  vi.restoreAllMocks();
});

/**
 * Runs a session of the model until it first sleeps for long. What the machine has written before
 * that makes it read memory by messages: while it waits for that the n-th time, `during(n)`
 * happens. Returns the requests that were answered by then.
 */
function answeredBeforeSleep(
  model: string,
  writes: readonly (readonly [offset: number, lo: number])[],
  during: (time: number, vm: TestVm, wakeUp: () => void) => void,
  onWake: (loop: SessionLoop) => void = () => {},
): number[] {
  const [mine, theirs] = socketPair();
  const fd = wakeFd();
  const vm = new TestVm(mine);
  const { client } = vm;
  const loop = new SessionLoop(
    theirs,
    fd,
    fakeModels,
    { session: 'test', modelDefaults: {}, requireSealed: false },
    {
      log: () => {},
      event: () => {},
      wake: (midway) => {
        clearWake(fd);
        if (!midway) onWake(loop);
        return undefined;
      },
    },
  );
  const answered: number[] = [];
  let waits = 0;
  const wait = PollSet.prototype.wait;
  vi.spyOn(PollSet.prototype, 'wait').mockImplementation(function (this: PollSet, milliseconds: number) {
    if (milliseconds < 0) {
      during(++waits, vm, () => wake(fd));
      client.serve(0);
    } else if (milliseconds > 0) {
      while (client.front.fill() > 0) while (client.front.next()) answered.push(client.front.frame.id);
      throw new CodedError('STOPPED', 'it sleeps');
    }
    return wait.call(this, milliseconds);
  });
  const hello = {
    ...CODEC.Hello.create(),
    ...{ version: VERSION, features: ALL_FEATURES & ~FEATURE.MAILBOX, model },
    sharedBytes: PAGE_BYTES,
  };
  client.send(MESSAGE.HELLO, FLAG.NEED_REPLY, 1, CODEC.Hello, hello, [client.backendPeer, vm.pageFd]);
  const region = { ...CODEC.MemAdd.create(), region: 1, gpaLo: REMOTE, sizeLo: 65536 };
  client.send(MESSAGE.MEM_ADD, FLAG.NEED_REPLY, 2, CODEC.MemAdd, region);
  for (const [offset, lo] of writes) vm.write(offset, lo);
  expect(loop.run()).toMatchObject({ reason: 'STOPPED' });
  vm.close();
  closeFd(client.backendPeer);
  closeFd(fd);
  return answered;
}

function ask({ client }: TestVm): void {
  client.send(MESSAGE.REG_READ, FLAG.NEED_REPLY, LATE, CODEC.RegRead, { offset: FAKE.OFFSET, size: 4 });
}

describe('a session does not sleep on a request', () => {
  it('that came while a dump had it read memory', () => {
    const answered = answeredBeforeSleep(
      'fake',
      [[FAKE.PEEK64, REMOTE]],
      (time, vm, wakeUp) => {
        if (time === 1) wakeUp();
        else ask(vm);
      },
      (loop) => loop.session.ports.memory.load64(REMOTE),
    );
    expect(answered).toContain(LATE);
  });

  it("that came while a device's answer had it read memory", () => {
    const answered = answeredBeforeSleep(
      'hearing',
      [
        [FAKE.THEN_INVALIDATE, REMOTE],
        [FAKE.DEVICE_TLB, RID],
        [FAKE.PEEK64, REMOTE],
      ],
      (time, vm) => {
        if (time === 2) ask(vm);
      },
    );
    expect(answered).toContain(LATE);
  });
});
