import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Channel } from '../../src/wire/channel.js';
import { CODEC } from '../../src/wire/codec.js';
import { CONTROL, FLAG, MESSAGE } from '../../src/wire/frame.js';
import type { DaemonMailbox } from '../../src/wire/mailbox.js';
import type { RegWriteReply } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { BridgeBuild } from './make.js';
import { PhysicalMemory } from './physical-memory.js';
import { BridgeQemu } from './qemu.js';
import { ScriptedDaemon } from './scripted-daemon.js';

/**
 * The bridge's end of the mailbox: a machine with a listener that wants to hear of new mappings,
 * and a scripted daemon.
 */

const REGISTER = 0xfed9_0008;
const NOTHING: RegWriteReply = { batch: 0, device: 0, ops: new Uint32Array(0) };
const WRITE = MESSAGE.REG_WRITE;

let probes: BridgeBuild;
let qemu: BridgeQemu;
let daemon: ScriptedDaemon | undefined;
let memory: PhysicalMemory | undefined;

beforeAll(() => {
  probes = new BridgeBuild('probe');
});

afterAll(() => {
  probes.dispose();
});

beforeEach(() => {
  qemu = new BridgeQemu();
});

afterEach(async () => {
  memory?.close();
  memory = undefined;
  qemu.dispose();
  await daemon?.dispose();
  daemon = undefined;
});

type Mail = NonNullable<Parameters<typeof ScriptedDaemon.start>[1]['mail']>;

async function start(mail: Mail): Promise<{ daemon: ScriptedDaemon; memory: PhysicalMemory }> {
  daemon = await ScriptedDaemon.start(qemu.socket, { mail });
  const object = probes.path('notifier-probe.so');
  const gdb = `unix:${qemu.path('gdb')},server=on,wait=off`;
  qemu.start(',caching-mode=on', ['-S', '-device', 'viommu-testdev', '-gdb', gdb], { asks: 'map', object });
  const running = daemon;
  await eventually(() => running.listens.length > 0, 'the listener');
  await eventually(() => qemu.text.includes('probe: registered'), `the probe: ${qemu.text}`);
  await qemu.command('query-status');
  memory = await PhysicalMemory.connect(qemu.path('gdb'));
  return { daemon, memory };
}

function answer(mailbox: DaemonMailbox, reply: RegWriteReply): boolean {
  return mailbox.answer(WRITE, FLAG.REPLY, mailbox.frame.id, CODEC.RegWriteReply, reply);
}

function wake(front: Channel): void {
  front.put(MESSAGE.MAIL, 0, 0, CODEC.Mail, {});
}

/** Maps so many pages, none of them the next one's neighbour. */
function operations(count: number): Uint32Array {
  const words: number[] = [];
  for (let i = 0; i < count; i++) words.push(3, i * 0x2000, 0, i * 0x2000 + 0xfff, 0, 0x9000, 0);
  return Uint32Array.from(words);
}

const maps = (): number => qemu.text.match(/probe: map /g)?.length ?? 0;

describe('a daemon that sleeps', () => {
  it('is woken, answers, is answered in the same place, and may have had another request before', async () => {
    const done: (readonly [number, number[]])[] = [];
    const values: number[] = [];
    const { daemon, memory } = await start((mailbox, front) => {
      const { frame, bytes } = mailbox;
      if (frame.type === MESSAGE.HOST_BATCH) {
        const { failures } = CODEC.HostBatchReply.decode(bytes, frame.start, frame.end);
        done.push([frame.id, Array.from(failures)]);
        return undefined;
      }
      const { lo } = CODEC.RegWrite.decode(bytes, frame.start, frame.end);
      values.push(lo);
      answer(mailbox, { batch: lo, device: 1, ops: operations(lo) });
      if (mailbox.peerSleeps) wake(front);
    });
    await memory.writeWord(REGISTER, 3);
    await eventually(() => done.length === 1, 'the answer to the first batch');
    for (const value of [0, 5]) await memory.writeWord(REGISTER, value);
    expect(await memory.readWord(REGISTER)).toBe(0);
    await eventually(() => done.length === 2, 'the answer to the second batch');
    expect(done).toEqual([
      [3, []],
      [5, []],
    ]);
    expect(values).toEqual([3, 0, 5]);
    expect(daemon.received).toContain('MAIL');
    expect(daemon.received).not.toContain('REG_WRITE');
    await eventually(() => maps() === 8, 'the mappings');
  });

  it('is waited for until it has handled the answer to a batch: only then is there what the guest polls', async () => {
    let answered = false;
    const { daemon, memory } = await start((mailbox, front) => {
      if (mailbox.frame.type === MESSAGE.HOST_BATCH) {
        answered = true;
        return 'later';
      }
      answer(mailbox, { batch: 1, device: 1, ops: operations(1) });
      if (mailbox.peerSleeps) wake(front);
      return undefined;
    });
    let stored = false;
    const store = memory.writeWord(REGISTER, 1).then(() => {
      stored = true;
    });
    await eventually(() => answered, 'the answer to the batch');
    await sleep(100);
    expect(stored).toBe(false);
    daemon.handled();
    await store;
  });

  it('is written to on the front channel while the mailbox is full', async () => {
    const { daemon, memory } = await start((mailbox, front) => {
      answer(mailbox, NOTHING);
      wake(front);
    });
    await memory.writeWord(REGISTER, 7);
    expect(daemon.writes).toEqual([]);
    daemon.setControlWord(CONTROL.MAIL_HANDLED, 0);
    await memory.writeWord(REGISTER, 8);
    expect(daemon.writes).toEqual([{ offset: 8, size: 4, lo: 8, hi: 0, asks: true }]);
  });

  it('may answer on the front channel what is too long, and say more often than it must that there is mail', async () => {
    const fits: boolean[] = [];
    const { memory } = await start((mailbox, front) => {
      if (mailbox.frame.type === MESSAGE.HOST_BATCH) return;
      wake(front);
      const reply = { batch: 1, device: 1, ops: operations(200) };
      fits.push(answer(mailbox, reply));
      wake(front);
      front.put(WRITE, FLAG.REPLY, mailbox.frame.id, CODEC.RegWriteReply, reply);
      wake(front);
    });
    await memory.writeWord(REGISTER, 1);
    // Asked on the front channel, where a MAIL comes first for which no thread waits.
    expect(await memory.readWord(REGISTER)).toBe(0);
    await memory.writeWord(REGISTER, 1);
    expect(fits).toEqual([false, false]);
    await eventually(() => maps() === 400, 'the mappings');
  });
});

describe('a daemon that goes wrong', () => {
  const CASES: readonly { what: string; says: RegExp; mail: Mail }[] = [
    {
      what: 'answers another question',
      says: /answered message \d+ type 4 with message 4242 type 4/,
      mail: (mailbox, front) => {
        mailbox.answer(WRITE, FLAG.REPLY, 4242, CODEC.RegWriteReply, NOTHING);
        wake(front);
      },
    },
    {
      what: 'puts there what is no frame',
      says: /not a frame of this protocol/,
      mail: (mailbox, front) => {
        mailbox.answer(WRITE, 3, mailbox.frame.id, CODEC.RegWriteReply, NOTHING);
        wake(front);
      },
    },
    {
      what: 'answers on the front channel without saying so',
      says: /message type 4 before its answer/,
      mail: (mailbox, front) => {
        front.put(WRITE, FLAG.REPLY, mailbox.frame.id, CODEC.RegWriteReply, NOTHING);
      },
    },
    {
      what: 'says why it ends the session',
      says: /ended the session: enough/,
      mail: (_, front) => {
        front.put(MESSAGE.ERROR, 0, 0, CODEC.Error, { code: 1, text: 'enough' });
      },
    },
    {
      what: 'hangs up',
      says: /closed the connection/,
      mail: () => {
        daemon?.hangUp();
      },
    },
  ];

  it.each(titled(CASES, ({ what }) => `${what}: it is gone, the machine goes on`))(
    '%s',
    async (_title, { mail, says }) => {
      const { memory } = await start(mail);
      await memory.writeWord(REGISTER, 1);
      await memory.writeWord(REGISTER, 1);
      await eventually(() => says.test(qemu.text), `the reason: ${qemu.text}`);
      memory.close();
      expect(await qemu.quit()).toBe(0);
    },
  );
});
