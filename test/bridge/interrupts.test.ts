import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CONTROL, FEATURE, MESSAGE } from '../../src/wire/frame.js';
import type { RemapInterrupt, RemapInterruptReply } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import { BridgeQemu } from './qemu.js';
import { type ReplyToInterrupt, type Script, ScriptedDaemon } from './scripted-daemon.js';
import { COMMAND, STATUS } from './testdev-driver.js';
import { RID, TestdevMachine } from './testdev-machine.js';

/** As a driver's message in remappable format: handle n, subhandle valid. */
const message = (handle: number): number => 0xfee0_0018 + handle * 32;
const ALL = { index: 0, log2Count: 16 };
const IOAPIC = 0xfec0_0000;
const IOAPIC_RID = 0xff00;

let machine: TestdevMachine;
let asked: RemapInterrupt[] = [];
let ofIoapic: RemapInterrupt[] = [];
/** The answer to the next question; undefined: none yet, `reply` gives it. */
let answer: (message: RemapInterrupt) => Partial<RemapInterruptReply> | undefined;
let reply: ReplyToInterrupt | undefined;

/** Through entry n, to vector n + 0x30 of the first processor. */
function through(handle: number, changes: Partial<RemapInterruptReply> = {}): Partial<RemapInterruptReply> {
  return { addressLo: 0xfee0_0000, data: 0x30 + handle, index: handle + 1, ...changes };
}

const handleOf = ({ addressLo }: RemapInterrupt): number => (addressLo - message(0)) / 32;

const script: Script = {
  remap: (question, give) => {
    // The machine's timer is there before the IOAPIC has been reset, which masks it.
    if (question.rid === IOAPIC_RID) {
      ofIoapic.push(question);
      give({ status: 1 });
      return;
    }
    asked.push(question);
    const given = answer(question);
    if (given === undefined) reply = give;
    else give(given);
  },
};

beforeEach(() => {
  machine = new TestdevMachine();
  machine.options = ',intremap=on';
  asked = [];
  ofIoapic = [];
  answer = (question) => through(handleOf(question));
  reply = undefined;
});
afterEach(() => machine.dispose());

/** The device writes a doubleword. */
async function raise(address: number, data = 0): Promise<number> {
  await machine.device.setBuffer(0, Uint8Array.of(data & 0xff, data >>> 8, 0, 0));
  return machine.device.run(COMMAND.WRITE, { address, length: 4 });
}

async function monitor(line: string): Promise<string> {
  return (await machine.qemu.command('human-monitor-command', { 'command-line': line })) as string;
}

/** Vectors that the first processor has been given. */
async function vectors(): Promise<number[]> {
  const irr = /^IRR\s+(.*)$/m.exec(await monitor('info lapic'))?.[1] ?? '';
  return [...irr.matchAll(/\d+/g)].map(Number);
}

/** Handles asked for since the last call. */
const takeAsked = (): number[] => asked.splice(0).map(handleOf);

async function invalidate(epoch: number, block: { index: number; log2Count: number }): Promise<void> {
  const { code } = await machine.daemon.ask(MESSAGE.INVALIDATE_INTERRUPTS, { epoch, ...block }, epoch);
  expect(code).toBe(0);
}

describe('an interrupt of a device', () => {
  it('is asked for with its source, and delivered as answered', async () => {
    await machine.start(script);
    expect(await raise(message(5), 0x1234)).toBe(STATUS.DONE);
    expect(asked).toEqual([{ rid: RID, addressLo: message(5), addressHi: 0, data: 0x1234, look: false }]);
    expect(await vectors()).toEqual([0x35]);
    expect(machine.takeAsked()).toEqual([]);
  });

  it('is asked for once and then kept', async () => {
    await machine.start(script);
    for (const handle of [1, 2, 1, 1, 2]) await raise(message(handle));
    expect(takeAsked()).toEqual([1, 2]);
    expect(await vectors()).toEqual([0x31, 0x32]);
    await raise(message(3));
    const words = [CONTROL.INTERRUPT_HITS_LO, CONTROL.INTERRUPTS_ASKED, CONTROL.INTERRUPTS_BLOCKED];
    const early = ofIoapic.length;
    expect(words.map((word) => machine.daemon.controlWord(word))).toEqual([3, 3 + early, early]);
  });

  it('reaches nothing when it is blocked, and is asked for each time', async () => {
    answer = () => ({ ...through(1), status: 1 });
    await machine.start(script);
    for (let i = 0; i < 2; i++) expect(await raise(message(1))).toBe(STATUS.DONE);
    expect(takeAsked()).toEqual([1, 1]);
    expect(await vectors()).toEqual([]);
    expect(machine.daemon.controlWord(CONTROL.INTERRUPTS_BLOCKED)).toBe(2 + ofIoapic.length);
  });

  it('is good once where the answer says so', async () => {
    answer = () => through(1, { once: true });
    await machine.start(script);
    for (let i = 0; i < 2; i++) await raise(message(1));
    expect(takeAsked()).toEqual([1, 1]);
    expect(await vectors()).toEqual([0x31]);
  });

  it('is not one when it has another size', async () => {
    await machine.start(script);
    await machine.device.run(COMMAND.WRITE, { address: message(1), length: 2 });
    expect(takeAsked()).toEqual([]);
    expect(machine.takeAsked()).toHaveLength(1);
  });
});

describe('INVALIDATE_INTERRUPTS', () => {
  it('drops a block of entries, and with all what came from none', async () => {
    answer = (question) => through(handleOf(question), handleOf(question) === 9 ? { index: 0 } : {});
    await machine.start(script);
    const raiseAll = async (): Promise<number[]> => {
      for (const handle of [4, 5, 6, 9]) await raise(message(handle));
      return takeAsked();
    };
    expect(await raiseAll()).toEqual([4, 5, 6, 9]);
    await invalidate(1, { index: 5, log2Count: 0 });
    answer = (question) =>
      through(handleOf(question), { epoch: 1, index: handleOf(question) === 9 ? 0 : 10 });
    expect(await raiseAll()).toEqual([5]);
    await invalidate(2, { index: 4, log2Count: 2 });
    answer = (question) => through(handleOf(question), { epoch: 2, index: 0 });
    expect(await raiseAll()).toEqual([4, 6]);
    await invalidate(3, ALL);
    expect(await raiseAll()).toEqual([4, 5, 6, 9]);
  });

  it('is answered when an interrupt that is asked for has been delivered, whose answer is not kept', async () => {
    answer = () => undefined;
    await machine.start(script);
    const raised = raise(message(1));
    const late = await eventually(() => reply, 'a question', 20_000);
    machine.daemon.send(MESSAGE.INVALIDATE_INTERRUPTS, { epoch: 1, ...ALL }, 1);
    // The thread that asks holds the big lock: the answer cannot come, and another one can.
    const other = { space: 1, sub: 0, rid: 0xffffffff, pasid: 0xffffffff, lo: 0, hi: 0 };
    machine.daemon.send(
      MESSAGE.INVALIDATE,
      { epoch: 1, ...other, log2Size: 64, devices: [], structures: false },
      2,
    );
    await machine.daemon.answer(MESSAGE.INVALIDATE, 2);
    late(through(1, { epoch: 0 }));
    await machine.daemon.answer(MESSAGE.INVALIDATE_INTERRUPTS, 1);
    expect(await vectors()).toEqual([0x31]);
    await raised;
    answer = () => through(2, { epoch: 1 });
    for (let i = 0; i < 2; i++) await raise(message(1));
    expect(takeAsked()).toEqual([1, 1]);
    expect(await vectors()).toEqual([0x31, 0x32]);
  });
});

describe('pass_all', () => {
  it('asks nothing for any source until all is invalidated', async () => {
    answer = ({ addressLo, data }) => ({ addressLo, data, passAll: true });
    await machine.start(script);
    for (const data of [0x41, 0x42]) await raise(0xfee0_0000, data);
    await invalidate(1, { index: 0, log2Count: 15 });
    await raise(0xfee0_0000, 0x43);
    expect(asked).toHaveLength(1);
    expect(await vectors()).toEqual([0x41, 0x42, 0x43]);
    await invalidate(2, ALL);
    await raise(0xfee0_0000, 0x44);
    expect(asked).toHaveLength(2);
  });
});

describe('an interrupt of the IOAPIC', () => {
  it('has the source-id of the DMAR table', async () => {
    await machine.start(script, ['-device', 'viommu-testdev', '-serial', 'null']);
    // Pin 4, edge, unmasked; then the serial port's transmitter has room.
    for (const [register, value] of [
      [0x19, 0x0001_0000],
      [0x18, 0x51],
    ] as const) {
      await machine.memory.writeWord(IOAPIC, register);
      await machine.memory.writeWord(IOAPIC + 0x10, value);
    }
    await monitor('o /b 0x3f9 2');
    const vector = ({ data }: RemapInterrupt): number => data & 0xff;
    const question = await eventually(
      () => ofIoapic.find((one) => vector(one) === 0x51),
      'a question',
      20_000,
    );
    expect(question).toMatchObject({ rid: IOAPIC_RID, addressHi: 0, look: false });
    expect(question.addressLo >>> 20).toBe(0xfee);
  });
});

describe('without a daemon', () => {
  it('goes on with what is kept and loses the rest, which is said once', async () => {
    await machine.start(script);
    await raise(message(1));
    machine.daemon.hangUp();
    await eventually(() => machine.qemu.text.includes('get no DMA through'), 'the report', 20_000);
    await monitor('info lapic');
    for (const handle of [1, 2, 3]) await raise(message(handle));
    expect(await vectors()).toEqual([0x31]);
    expect(machine.qemu.text.match(/interrupts that were not remapped before are lost/g)).toHaveLength(1);
    await machine.qemu.command('system_reset');
    await machine.reopen();
    expect(await raise(message(1))).toBe(STATUS.DONE);
    expect(await vectors()).toEqual([]);
  });
});

describe('a reset', () => {
  it('drops what is kept', async () => {
    await machine.start(script);
    await raise(message(1));
    const before = machine.daemon.received.length;
    await machine.qemu.command('system_reset');
    await machine.untilReceived('RESET', before);
    await machine.reopen();
    await raise(message(1));
    expect(takeAsked()).toEqual([1, 1]);
  });
});

describe('intremap=off', () => {
  it('delivers without asking, and offers no remapping', async () => {
    machine.options = ',intremap=off';
    await machine.start(script);
    await raise(0xfee0_0000, 0x45);
    expect(asked).toEqual([]);
    expect(await vectors()).toEqual([0x45]);
    expect((machine.daemon.hello?.features ?? 0) & FEATURE.INTERRUPT_REMAPPING).toBe(0);
    expect(machine.daemon.hello?.options).not.toHaveProperty('intremap');
  });
});

describe('options', () => {
  async function refusal(options: string, without = 0): Promise<string> {
    const qemu = new BridgeQemu();
    const daemon = await ScriptedDaemon.start(qemu.socket, { without });
    try {
      qemu.start(options);
      expect(await qemu.exited).toBe(1);
      return qemu.text;
    } finally {
      qemu.dispose();
      await daemon.dispose();
    }
  }

  it('go to the daemon, eim with intremap', async () => {
    await machine.start(script);
    expect(machine.daemon.hello?.options).toMatchObject({ intremap: 'on', eim: 'on' });
  });

  it('are refused where they do not fit', async () => {
    expect(await refusal(',eim=on,intremap=off')).toContain('eim=on cannot be selected without intremap=on');
    const without = FEATURE.INTERRUPT_REMAPPING;
    expect(await refusal(',intremap=on', without)).toContain('this daemon remaps no interrupts');
  });
});
