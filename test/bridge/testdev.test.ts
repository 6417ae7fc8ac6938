import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../../src/wire/frame.js';
import { answerHello } from './scripted-daemon.js';
import {
  CAPABILITY,
  COMMAND,
  CONTROL_BIT,
  FEATURE_BIT,
  PASID_VALID,
  REG,
  RESULT,
  STATUS,
  WAITING,
} from './testdev-driver.js';
import { BEHIND_RID, page, REFUSED, stalled, TestdevMachine } from './testdev-machine.js';

/** viommu-testdev in a stock QEMU: what it is to PCI, PASIDs, requests that stall. */

const PAGE = 0x10_0000;
const TEXT = Buffer.from('sixteen letters.');

let machine: TestdevMachine;

beforeEach(() => {
  machine = new TestdevMachine();
});

afterEach(async () => {
  await machine.dispose();
});

describe('the function', () => {
  it('says what it is, and switches on what a kernel switches on', async () => {
    await machine.start();
    const { device } = machine;
    expect(await device.reg(REG.ID)).toBe(0x544f4956);
    expect(await device.reg(REG.VERSION)).toBe(2);
    expect(await device.reg(REG.FEATURES)).toBe(15);
    expect(await device.reg(REG.ENABLED)).toBe(FEATURE_BIT.STALLS);

    // A root complex integrated endpoint with end-end TLP prefixes and Function Level Reset.
    const express = await device.oldCapability(0x10);
    expect(((await device.readConfig(express + 2, 2)) >> 4) & 0xf).toBe(9);
    expect((await device.readConfig(express + 0x24, 4)) & 0x20_0000).not.toBe(0);
    expect((await device.readConfig(express + 4, 4)) & 0x1000_0000).not.toBe(0);

    const ats = (await device.capability(CAPABILITY.ATS)) as number;
    const pri = (await device.capability(CAPABILITY.PRI)) as number;
    const pasid = (await device.capability(CAPABILITY.PASID)) as number;
    expect(await device.readConfig(ats + 4, 2)).toBe(0x60); // Page Aligned Request, Global Invalidate
    expect(await device.readConfig(pri + 8, 4)).toBe(32);
    expect(await device.readConfig(pri + 6, 2)).toBe(0x8100); // PASID required, stopped
    expect(await device.readConfig(pasid + 4, 2)).toBe(0x1400); // 20 bits

    await device.enablePasid();
    await device.enableAts();
    await device.enablePri(true, 64);
    expect(await device.reg(REG.ENABLED)).toBe(15);
    expect(await device.priStatus()).toBe(0x8000);
    await device.enablePri(false);
    expect(await device.priStatus()).toBe(0x8100);
    expect(await device.reg(REG.ENABLED)).toBe(11);
  });

  it('has no capability that its properties or the daemon leave out', async () => {
    await machine.start({}, ['-device', 'viommu-testdev,ats=off']);
    const { device } = machine;
    expect(await device.reg(REG.FEATURES)).toBe(FEATURE_BIT.PASID | FEATURE_BIT.STALLS);
    expect(await device.capability(CAPABILITY.ATS)).toBeUndefined();
    expect(await device.capability(CAPABILITY.PRI)).toBeUndefined();
    expect(await device.capability(CAPABILITY.PASID)).toBe(0x100);
    await machine.dispose();

    machine = new TestdevMachine();
    const features = ALL_FEATURES & ~(FEATURE.ATS | FEATURE.STALLS);
    await machine.start({ hello: (channel, id) => answerHello(channel, id, { features }) });
    expect(await machine.device.reg(REG.FEATURES)).toBe(FEATURE_BIT.PASID);
  });

  it('does not send what is not switched on', async () => {
    await machine.start();
    const { device } = machine;
    const there = { address: 0x5000 };
    const asks = [
      { ...there, pasid: 5 },
      { ...there, control: CONTROL_BIT.ATS },
      { ...there, control: CONTROL_BIT.ATS | CONTROL_BIT.PRI },
      { ...there, control: CONTROL_BIT.PRI },
    ];
    for (const ask of asks) expect(await device.run(COMMAND.READ, ask)).toBe(STATUS.REJECTED);
    expect(await device.run(COMMAND.REQUEST_PAGES, there)).toBe(STATUS.REJECTED);
    expect(await device.run(COMMAND.STOP_MARKER, there)).toBe(STATUS.REJECTED);
    expect(machine.takeAsked()).toEqual([]);
  });

  it('forgets all at a Function Level Reset', async () => {
    await machine.start();
    const { device } = machine;
    await device.enablePasid();
    await device.enableAts();
    await device.run(COMMAND.READ, { address: 0x5000, pasid: 7, control: CONTROL_BIT.ATS });
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(1);
    const express = await device.oldCapability(0x10);
    await device.writeConfig(express + 8, 0x8000, 2);
    await device.enable();
    expect(await device.reg(REG.ENABLED)).toBe(FEATURE_BIT.STALLS);
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(0);
    expect(await device.reg(REG.PASID)).toBe(0);
  });
});

describe('requests with a PASID', () => {
  it('carry it, page by page, and reach what the daemon says', async () => {
    await machine.start();
    const { device, memory } = machine;
    await device.enablePasid();
    machine.answer = ({ lo }) => page(0x123_0000_0000 + (lo & ~0xfff), lo === 0x7ff8 ? 0x20_0000 : 0x30_0000);
    await memory.write(0x20_0ff8, TEXT.subarray(0, 8));
    await memory.write(0x30_0000, TEXT.subarray(8));
    const transfer = { address: 0x123_0000_7ff8, length: 16, pasid: 0xfffff };
    expect(await device.run(COMMAND.READ, transfer)).toBe(STATUS.DONE);
    expect(await device.buffer(0, 16)).toEqual(TEXT);
    expect(machine.takeAsked()).toEqual([
      'untranslated pasid 1048575 12300007ff8 r',
      'untranslated pasid 1048575 12300008000 r',
    ]);
    expect(await device.reg(REG.PASID)).toBe(PASID_VALID + 0xfffff);
    await device.setBuffer(0, Buffer.from('and back'));
    expect(await device.run(COMMAND.WRITE, { ...transfer, length: 8, pasid: 0 })).toBe(STATUS.DONE);
    expect(machine.takeAsked()).toEqual(['untranslated pasid 0 12300007ff8 w']);
    expect((await memory.read(0x20_0ff8, 8)).toString()).toBe('and back');
    expect(machine.daemon.devices.at(-1)).toMatchObject({ name: 'viommu-testdev' });
  });

  it('fault where the daemon refuses, where a right is missing, and without bus mastering', async () => {
    await machine.start();
    const { device } = machine;
    await device.enablePasid();
    machine.answer = ({ lo }) => (lo >= 0x6000 ? REFUSED : page(lo & ~0xfff, PAGE, 1));
    expect(await device.run(COMMAND.READ, { address: 0x5ff0, length: 64, pasid: 1 })).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.REFUSED);
    expect(await device.reg(REG.BYTES_DONE)).toBe(16);
    expect(await device.reg(REG.FAULT_LO)).toBe(0x6000);
    expect(await device.run(COMMAND.WRITE, { address: 0x5000, pasid: 1 })).toBe(STATUS.FAULT);
    machine.takeAsked();
    await device.writeConfig(4, 2, 2);
    expect(await device.run(COMMAND.READ, { address: 0x5000, pasid: 1 })).toBe(STATUS.FAULT);
    expect(machine.takeAsked()).toEqual([]);
  });

  it('hold back the answer to an INVALIDATE while they are under way', async () => {
    await machine.start();
    const { device, daemon } = machine;
    await device.enablePasid();
    await device.setBuffer(0, TEXT);
    const written = () => daemon.ask(MESSAGE.MEM_READ, { gpaLo: PAGE, gpaHi: 0, size: 16 }, 42);
    machine.answer = () => undefined;
    const all = { space: 0xffffffff, sub: 0xffffffff, rid: 0xffffffff, pasid: 0xffffffff };
    const run = device.run(COMMAND.WRITE, { address: 0x5000, pasid: 1 });
    await machine.untilAsked();
    daemon.send(
      MESSAGE.INVALIDATE,
      { ...all, epoch: 1, lo: 0, hi: 0, log2Size: 64, devices: [], structures: false },
      41,
    );
    // The backend channel is served in order: were the invalidation answered at once, that would
    // come first.
    expect(Buffer.from((await written()).data)).toEqual(Buffer.alloc(16));
    await machine.reply(page(0x5000, PAGE));
    await daemon.answer(MESSAGE.INVALIDATE, 41);
    expect(Buffer.from((await written()).data)).toEqual(TEXT);
    expect(await run).toBe(STATUS.DONE);
  });
});

describe('requests that may stall', () => {
  const MAY_STALL = { address: 0x5000, control: CONTROL_BIT.STALL };
  let stall = 0;

  beforeEach(async () => {
    stall = 0;
    await machine.start();
    machine.answer = () => stalled(++stall);
  });

  it('wait, and are repeated when the daemon says so', async () => {
    const { device, daemon } = machine;
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    // Of another device.
    daemon.post(MESSAGE.RESUME, { stall: 77, action: 1 });
    daemon.post(MESSAGE.RESUME, { stall: 1, action: 0 });
    await machine.untilAsked(2);
    machine.answer = () => page(0x5000, PAGE);
    await device.waitsFor(WAITING.RESUME);
    daemon.post(MESSAGE.RESUME, { stall: 2, action: 0 });
    expect(await device.ended()).toBe(STATUS.DONE);
    expect(await device.reg(REG.STALLS)).toBe(2);
    expect(machine.takeAsked()).toEqual(Array(3).fill('untranslated 5000 r may stall'));
  });

  it('fail, or end as if done', async () => {
    const { device, daemon } = machine;
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    daemon.post(MESSAGE.RESUME, { stall: 1, action: 1 });
    expect(await device.ended()).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.REFUSED | RESULT.STALL_ABORTED);

    await device.setBuffer(0, TEXT);
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    daemon.post(MESSAGE.RESUME, { stall: 2, action: 2 });
    expect(await device.ended()).toBe(STATUS.DONE);
    expect(await device.buffer(0, 16)).toEqual(Buffer.alloc(16));

    await machine.memory.write(PAGE, TEXT);
    await device.command(COMMAND.WRITE, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    daemon.post(MESSAGE.RESUME, { stall: 3, action: 2 });
    expect(await device.ended()).toBe(STATUS.DONE);
    expect(await machine.memory.read(PAGE, 16)).toEqual(TEXT);
  });

  it('are given up by the device', async () => {
    const { device, daemon } = machine;
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    await device.setReg(REG.COMMAND, COMMAND.CANCEL);
    expect(await device.reg(REG.STATUS)).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.CANCELLED);
    daemon.post(MESSAGE.RESUME, { stall: 1, action: 0 });
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    expect(machine.takeAsked()).toHaveLength(2);
  });

  it('end with a fault when the daemon dies', async () => {
    const { device, daemon, qemu } = machine;
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    daemon.hangUp();
    expect(await device.ended()).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.REFUSED | RESULT.ENDED);
    expect(await device.run(COMMAND.READ, MAY_STALL)).toBe(STATUS.FAULT);
    expect(qemu.text.match(/no DMA through/g)).toHaveLength(1);
    expect(await qemu.quit()).toBe(0);
  });

  it('are forgotten at a reset of the machine', async () => {
    const { device, daemon, qemu } = machine;
    await device.command(COMMAND.READ, MAY_STALL);
    await device.waitsFor(WAITING.RESUME);
    const before = daemon.received.length;
    await qemu.command('system_reset');
    await machine.untilReceived('RESET', before);
    await machine.reopen();
    expect(await device.reg(REG.STATUS)).toBe(STATUS.IDLE);
    daemon.post(MESSAGE.RESUME, { stall: 1, action: 0 });
    machine.answer = () => page(0x5000, PAGE);
    expect(await device.run(COMMAND.READ, MAY_STALL)).toBe(STATUS.DONE);
    expect(await device.reg(REG.STALLS)).toBe(0);
  });
});

describe('where the IOMMU is not one of ours', () => {
  it('a transfer works as ever, and nothing else is offered', async () => {
    await machine.startForeign(['-device', 'intel-iommu']);
    const { device, memory } = machine;
    expect(await device.reg(REG.FEATURES)).toBe(0);
    expect(await device.capability(CAPABILITY.PASID)).toBeUndefined();
    await memory.write(PAGE, TEXT);
    expect(await device.run(COMMAND.READ, { address: PAGE })).toBe(STATUS.DONE);
    expect(await device.buffer(0, 16)).toEqual(TEXT);
    expect(await device.run(COMMAND.READ, { address: PAGE, pasid: 1 })).toBe(STATUS.REJECTED);
  });
});

describe('on a conventional bus', () => {
  it('the function has room for none of it, and works as ever', async () => {
    const bridge = ['-device', 'pcie-pci-bridge,id=old,addr=3'];
    await machine.start({}, [...bridge, '-device', 'viommu-testdev,bus=old,addr=1'], 0x108);
    const { device } = machine;
    expect(await device.reg(REG.FEATURES)).toBe(FEATURE_BIT.STALLS);
    machine.answer = () => page(0x5000, PAGE);
    expect(await device.run(COMMAND.READ, { address: 0x5000 })).toBe(STATUS.DONE);
    expect(await device.run(COMMAND.READ, { address: 0x5000, pasid: 1 })).toBe(STATUS.REJECTED);
    expect(machine.asked.map(({ rid }) => rid)).toEqual([BEHIND_RID]);
  });
});
