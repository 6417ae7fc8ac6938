import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ERRORS } from '../../src/base/errors.js';
import { CODEC } from '../../src/wire/codec.js';
import { CONTROL, FLAG, MESSAGE } from '../../src/wire/frame.js';
import { prepared } from '../guests/support.js';
import { eventually } from '../support/daemon.js';
import { titled } from '../support/titled.js';
import { runCheck } from './make.js';
import { BridgeQemu } from './qemu.js';
import { answerHello, raw, type Script, ScriptedDaemon } from './scripted-daemon.js';

/** The bridge in a stock QEMU, against daemons that behave and daemons that do not. */

const GONE = 'from now on devices behind this IOMMU get no DMA through';

let qemu: BridgeQemu;
let daemon: ScriptedDaemon | undefined;

beforeEach(() => {
  qemu = new BridgeQemu();
});

afterEach(async () => {
  qemu.dispose();
  await daemon?.dispose();
  daemon = undefined;
});

async function start(script: Script, options = '', extra: readonly string[] = []): Promise<ScriptedDaemon> {
  daemon = await ScriptedDaemon.start(qemu.socket, script);
  qemu.start(options, extra);
  return daemon;
}

/** Waits until the firmware's first DMA has been asked for. */
async function untilDma(running: ScriptedDaemon): Promise<void> {
  await eventually(() => running.received.includes('TRANSLATE'), 'a TRANSLATE', 20_000);
}

/** The daemon counts as gone: said once, and QEMU goes on, resets and ends as ever. */
async function expectGone(reason: RegExp): Promise<void> {
  await eventually(() => qemu.text.includes(GONE), `the report: ${qemu.text}`, 20_000);
  expect(qemu.text).toMatch(reason);
  expect(await qemu.command('query-status')).toMatchObject({ running: true });
  await qemu.command('system_reset');
  expect(await qemu.quit()).toBe(0);
  expect(qemu.text.split(GONE)).toHaveLength(2);
}

describe('the translation cache', () => {
  it('agrees with a naive list, keeps the epoch rule, and is never torn under threads', () => {
    expect(runCheck('check-iotlb')).toMatch(/none torn/);
  });
});

describe('loading', () => {
  const load = (command: string, args: string[]) =>
    spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, LD_PRELOAD: prepared().bridge } });

  it('adds its devices, with descriptions, to a stock QEMU', () => {
    expect(load(prepared().qemu, ['-device', 'help']).stdout).toMatch(/name "viommu-vtd"/);
    const help = load(prepared().qemu, ['-device', 'viommu-vtd,help']).stdout;
    expect(help).toMatch(/socket=<str> +- path of the viommu daemon's socket/);
    expect(help).toMatch(/timeout-ms=<uint32> +- how long/);
  });

  it('does nothing but say so in another program', () => {
    const result = load('/bin/echo', ['untouched']);
    expect(result.stdout).toBe('untouched\n');
    expect(result.stderr).toMatch(/viommu-bridge: .*echo is not a QEMU/);
    expect(result.status).toBe(0);
  });
});

describe('loading into a QEMU that it was not built for', () => {
  const load = (qemu: string, bridge: string) =>
    spawnSync(qemu, ['-version'], { encoding: 'utf8', env: { ...process.env, LD_PRELOAD: bridge } });

  it('is refused by another release', () => {
    const { qemu, bridgeObject: bridge = '' } = prepared();
    const version = /version ([0-9.]+)/.exec(spawnSync(qemu, ['-version'], { encoding: 'utf8' }).stdout)?.[1];
    if (version === undefined) throw new Error(`${qemu} does not say its version`);
    // The same object, built for a release whose number has another last digit.
    const other = `${version.slice(0, -1)}${(Number(version.at(-1)) + 1) % 10}`;
    const directory = mkdtempSync(join(tmpdir(), 'viommu-other-'));
    try {
      const file = join(directory, 'bridge.so');
      writeFileSync(file, readFileSync(bridge, 'latin1').replaceAll(version, other), 'latin1');
      const { status, stdout, stderr } = load(qemu, file);
      expect(stderr).toContain(
        `viommu-bridge: built for QEMU ${other}, this is ${version}: run npm run setup`,
      );
      expect([status, stdout]).toEqual([1, '']);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('is refused by another target', () => {
    const { status, stderr } = load(prepared().qemu, prepared('arm64').bridgeObject ?? '');
    expect(stderr).toContain('this object is for qemu-system-aarch64, the program is qemu-system-x86_64');
    expect(status).toBe(1);
  });
});

describe('a daemon that cannot be used', () => {
  it('is not there', async () => {
    qemu.start();
    expect(await qemu.exited).toBe(1);
    expect(qemu.text).toMatch(/no viommu daemon answers on .*daemon\.sock/);
  });

  const cases: readonly { what: string; hello: NonNullable<Script['hello']>; says: RegExp }[] = [
    {
      what: 'refuses, and says why',
      hello: (channel, id) =>
        channel.put(MESSAGE.ERROR, 0, id, CODEC.Error, {
          code: ERRORS.BAD_OPTION.code,
          text: 'aw-bits: no such width',
        }),
      says: /the daemon ended the session: aw-bits: no such width \(code 22\)/,
    },
    {
      what: 'speaks another version',
      hello: (channel, id) => answerHello(channel, id, { version: 2 }),
      says: /protocol version 2, this bridge speaks 1/,
    },
    {
      what: 'has more registers than there is room for',
      hello: (channel, id) => answerHello(channel, id, { registerBytes: 1 << 20 }),
      says: /register space of 1048576 bytes does not fit/,
    },
    {
      what: 'answers with what is no HelloReply',
      hello: (channel, id) => channel.putRaw(raw(MESSAGE.HELLO, 5, 3, id, [0xff, 0xff, 0xff])),
      says: /cannot be decoded/,
    },
  ];
  it.each(titled(cases, ({ what }) => `${what}: QEMU does not start, with that message`))(
    '%s',
    async (_title, { hello, says }) => {
      await start({ hello });
      expect(await qemu.exited).toBe(1);
      expect(qemu.text).toMatch(says);
    },
  );
});

describe('a daemon that goes wrong on the front channel', () => {
  const answer =
    (
      type: number,
      flags: number,
      size: number,
      idOffset: number,
      body: readonly number[],
    ): Script['translate'] =>
    (channel, id) =>
      channel.putRaw(raw(type, flags, size, id + idOffset, body));
  const T = MESSAGE.TRANSLATE;
  const cases: readonly { what: string; translate: Script['translate']; says: RegExp }[] = [
    {
      what: 'another id',
      translate: answer(T, 5, 0, 7, []),
      says: /answered message \d+ type 6 with message/,
    },
    { what: 'another type', translate: answer(99, 5, 0, 0, []), says: /with message \d+ type 99/ },
    { what: 'no reply flag', translate: answer(T, 1, 0, 0, []), says: /answered message/ },
    { what: 'a version of 3', translate: answer(T, 7, 0, 0, []), says: /not a frame of this protocol/ },
    { what: 'too long', translate: answer(T, 5, 65537, 0, []), says: /not a frame of this protocol/ },
    { what: 'a cut body', translate: answer(T, 5, 4, 0, [0x2a, 24, 0, 0]), says: /cannot be decoded/ },
    {
      what: 'half a span',
      translate: (channel, id) =>
        channel.put(T, FLAG.REPLY, id, CODEC.TranslateReply, {
          status: 0,
          epoch: 0,
          space: 0,
          sub: 0,
          spans: Uint32Array.of(1, 2, 3),
          once: false,
          stall: 0,
        }),
      says: /3 words of spans/,
    },
    {
      what: 'more spans than are allowed',
      translate: (channel, id) =>
        channel.put(T, FLAG.REPLY, id, CODEC.TranslateReply, {
          status: 0,
          epoch: 0,
          space: 0,
          sub: 0,
          spans: new Uint32Array(65 * 6),
          once: false,
          stall: 0,
        }),
      says: /cannot be decoded/,
    },
  ];
  it.each(titled(cases, ({ what }) => what))('%s', async (_title, { translate, says }) => {
    if (translate === undefined) throw new Error('no script');
    await start({ translate });
    await expectGone(says);
  });

  it('no answer at all, for as long as timeout-ms', async () => {
    await start({ translate: () => undefined }, ',timeout-ms=700');
    await expectGone(/did not answer in time/);
  });

  it('hangs up', async () => {
    const running = await start({});
    await untilDma(running);
    running.hangUp();
    await expectGone(/closed the connection/);
  });
});

describe('a daemon that goes wrong on the backend channel', () => {
  const cases: readonly { what: string; bytes: Uint8Array; says: RegExp }[] = [
    { what: 'an unknown type', bytes: raw(255, 1, 0, 1, []), says: /unknown message type 255/ },
    { what: 'a version of 3', bytes: raw(64, 3, 0, 1, []), says: /not a frame of this protocol/ },
    { what: 'too long', bytes: raw(64, 9, 0x20000, 1, []), says: /not a frame of this protocol/ },
    { what: 'a cut body', bytes: raw(64, 9, 2, 1, [0x0d, 1]), says: /message type 64 cannot be decoded/ },
    { what: 'a read of too much', bytes: raw(66, 9, 3, 1, [0x18, 0x81, 0x20]), says: /type 66 cannot be/ },
  ];
  it.each(titled(cases, ({ what }) => what))('%s', async (_title, { bytes, says }) => {
    const running = await start({});
    await untilDma(running);
    running.backend?.putRaw(bytes);
    running.backend?.flush();
    await expectGone(says);
  });
});

describe('what the daemon asks', () => {
  it('reads, writes and swaps guest RAM, and is refused what is not RAM', async () => {
    const running = await start({}, '', ['-S']);
    await eventually(() => running.regions.size > 0, 'the memory table');
    const data = Uint8Array.of(0x78, 0x56, 0x34, 0x12);
    const at = (gpaLo: number, gpaHi = 0) => ({ gpaLo, gpaHi });
    const NOT_MEMORY = ERRORS.NOT_MEMORY.code;

    expect((await running.ask(MESSAGE.MEM_WRITE, { ...at(0x200000), data })).code).toBe(0);
    const read = await running.ask(MESSAGE.MEM_READ, { ...at(0x1ffffe), size: 8 });
    expect([read.code, ...read.data]).toEqual([0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0, 0]);
    const swap = { ...at(0x200000), expected: 0x12345678, value: 0xcafe };
    expect(await running.ask(MESSAGE.MEM_CAS, swap)).toMatchObject({ code: 0, found: 0x12345678 });
    expect(await running.ask(MESSAGE.MEM_CAS, swap)).toMatchObject({ code: 0, found: 0xcafe });

    // Past the end of RAM, across it, the IOMMU's own registers, firmware, an unaligned word.
    for (const gpa of [0x8000000, 0x7fffffe, 0xfed90000, 0xfffffffe]) {
      const code = (await running.ask(MESSAGE.MEM_WRITE, { ...at(gpa), data })).code;
      expect([gpa, code]).toEqual([gpa, NOT_MEMORY]);
    }
    expect((await running.ask(MESSAGE.MEM_READ, { ...at(0xfed90000), size: 4 })).code).toBe(NOT_MEMORY);
    expect((await running.ask(MESSAGE.MEM_CAS, { ...swap, gpaLo: 0x200002 })).code).toBe(NOT_MEMORY);
    expect(await qemu.quit()).toBe(0);
    expect(qemu.text).toBe('');
  });

  it('drops translations, and answers', async () => {
    const running = await start({});
    await untilDma(running);
    // The firmware is quiet where its processor stands still.
    await qemu.command('stop');
    const all = { space: 0xffffffff, sub: 0xffffffff, rid: 0xffffffff, pasid: 0xffffffff, hi: 0 };
    const other = { ...all, space: 1, epoch: 1, lo: 0, log2Size: 64, devices: [], structures: false };
    await running.ask(MESSAGE.INVALIDATE, other);
    const elsewhere = { ...all, rid: 0xfff8, epoch: 2, lo: 0, log2Size: 64, devices: [], structures: false };
    await running.ask(MESSAGE.INVALIDATE, elsewhere);
    expect(running.controlWord(CONTROL.INVALIDATED)).toBe(0);
    // Handles that the bridge does not know change nothing: it answers all the same.
    await running.ask(MESSAGE.INVALIDATE, {
      ...all,
      epoch: 3,
      lo: 0x5000,
      log2Size: 12,
      devices: [77],
      structures: false,
    });
    expect(running.controlWord(CONTROL.INVALIDATED)).toBeGreaterThan(0);
    const before = running.received.length;
    await qemu.command('system_reset');
    await qemu.command('cont');
    await eventually(() => running.received.slice(before).includes('TRANSLATE'), 'a new TRANSLATE', 20_000);
    expect(running.received[before]).toBe('RESET');
    expect(await qemu.quit()).toBe(0);
    expect(qemu.text).toBe('');
  });
});

describe('what the bridge tells', () => {
  it('the options that are wanted beside those of every unit', async () => {
    const wanted = ',scalable-mode=on,caching-mode=on,device-iotlb=on,page-requests=on,virtual-commands=on';
    const running = await start({}, wanted, ['-S']);
    await eventually(() => running.hello !== undefined, 'HELLO', 20_000);
    expect(running.hello?.options).toEqual({
      'caching-mode': 'on',
      'scalable-mode': 'on',
      'aw-bits': '48',
      'virtual-commands': 'on',
      'device-tlb': 'on',
      'page-requests': 'on',
    });
  });

  it('itself, and RAM that comes', async () => {
    const running = await start({}, ',scalable-mode=on,aw-bits=57', ['-S']);
    const shared = () => [...running.regions.values()].filter((region) => region.shared);
    const bytes = () => shared().reduce((sum, region) => sum + region.sizeLo, 0);
    await eventually(() => bytes() > 126 << 20, 'the memory table');
    expect(running.hello).toMatchObject({ version: 1, vm: 'bridge-test', model: 'vtd' });
    expect(running.hello?.options).toMatchObject({
      'caching-mode': 'off',
      'scalable-mode': 'on',
      'aw-bits': '57',
    });
    expect(running.hello?.peer).toMatch(/^qemu \d+\.\d+\.\d+ viommu-bridge/);

    expect(shared().every((region) => region.descriptor && !region.readonly)).toBe(true);
    const memory = { 'qom-type': 'memory-backend-memfd', id: 'more', size: 128 << 20, share: true };
    await qemu.command('object-add', memory);
    await qemu.command('device_add', { driver: 'pc-dimm', id: 'dimm', memdev: 'more' });
    const added = await eventually(() => shared().find((region) => region.gpaHi === 1), 'the new region');
    expect(added).toMatchObject({ gpaLo: 0, sizeLo: 128 << 20, descriptor: true });
    expect(await qemu.quit()).toBe(0);
  });
});
