import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MESSAGE } from '../../src/wire/frame.js';
import type { DeviceTlb, PageRequest, TranslateReply } from '../../src/wire/messages.js';
import { eventually } from '../support/daemon.js';
import {
  BEHAVIOUR,
  CAPABILITY,
  COMMAND,
  CONTROL_BIT,
  ecam,
  extendedCapability,
  oldCapability,
  openBridge,
  REG,
  RESULT,
  STATUS,
  WAITING,
} from './testdev-driver.js';
import {
  BEHIND_RID,
  BRIDGE,
  COMPLETER_ABORT,
  page,
  REFUSED,
  RID,
  TestdevMachine,
} from './testdev-machine.js';

/**
 * viommu-testdev in a stock QEMU: translations ahead (ATS), its device TLB, page requests (PRI).
 */

const PAGE = 0x10_0000;
const PASID = 9;
const TEXT = Buffer.from('sixteen letters.');
const AHEAD = { address: 0x5000, pasid: PASID, control: CONTROL_BIT.ATS };
const ASKING = { ...AHEAD, control: CONTROL_BIT.ATS | CONTROL_BIT.PRI };
const ONE_PAGE: DeviceTlb = { rid: RID, pasid: PASID + 1, lo: 0x5000, hi: 0, log2Size: 12, global: false };
const DONE = { result: 0 };
const GLOBAL = 16;
const UNTRANSLATED_ONLY = 32;

let machine: TestdevMachine;

beforeEach(async () => {
  machine = new TestdevMachine();
});

afterEach(async () => {
  await machine.dispose();
});

/** Powers on with everything switched on; the translated page answers with itself. */
async function start(ahead: Partial<TranslateReply> = page(0x5000, PAGE)): Promise<void> {
  await machine.start();
  await enable();
  machine.answer = ({ kind }) => (kind === 1 ? ahead : page(PAGE, PAGE));
  await machine.memory.write(PAGE, TEXT);
}

async function enable(): Promise<void> {
  await machine.device.enablePasid();
  await machine.device.enableAts();
  await machine.device.enablePri();
}

describe('a device that translates ahead', () => {
  it('asks once, keeps the answer, and sends what it gave as translated requests', async () => {
    await start();
    const { device } = machine;
    expect(await device.run(COMMAND.READ, AHEAD)).toBe(STATUS.DONE);
    expect(await device.buffer(0, 16)).toEqual(TEXT);
    expect(machine.takeAsked()).toEqual([`ahead pasid ${PASID} 5000 r`, 'translated 100000 r']);
    expect(await device.run(COMMAND.WRITE, { ...AHEAD, address: 0x5008, length: 8 })).toBe(STATUS.DONE);
    expect(machine.takeAsked()).toEqual(['translated 100008 w']);
    expect(await device.reg(REG.TRANSLATION_REQUESTS)).toBe(1);
    expect(await device.reg(REG.ATC_HITS)).toBe(1);
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(1);
    // Another PASID, and none, have translations of their own.
    await device.run(COMMAND.READ, { ...AHEAD, pasid: 3 });
    await device.run(COMMAND.READ, { address: 0x5000, control: CONTROL_BIT.ATS });
    expect(await device.reg(REG.TRANSLATION_REQUESTS)).toBe(3);
    await device.enableAts(false);
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(0);
  });

  it('asks for both rights to write, and again where the one that it keeps is missing', async () => {
    await start(page(0x5000, PAGE, 1));
    const { device } = machine;
    expect(await device.run(COMMAND.READ, AHEAD)).toBe(STATUS.DONE);
    expect(await device.run(COMMAND.WRITE, AHEAD)).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.REFUSED | RESULT.NOT_MAPPED);
    expect(machine.takeAsked().slice(2)).toEqual([`ahead pasid ${PASID} 5000 rw`]);
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(1);
  });

  const refusals: readonly { what: string; answer: Partial<TranslateReply>; result: number }[] = [
    { what: 'nothing mapped', answer: page(0x5000, 0, 0), result: RESULT.NOT_MAPPED },
    { what: 'Unsupported Request', answer: REFUSED, result: RESULT.UNSUPPORTED_REQUEST },
    { what: 'Completer Abort', answer: COMPLETER_ABORT, result: RESULT.COMPLETER_ABORT },
    { what: 'another page', answer: page(0x6000, PAGE), result: RESULT.UNSUPPORTED_REQUEST },
  ];
  it('faults, and keeps nothing, when told something else', async () => {
    await start();
    for (const { what, answer, result } of refusals) {
      machine.answer = () => answer;
      expect([what, await machine.device.run(COMMAND.READ, AHEAD)]).toEqual([what, STATUS.FAULT]);
      expect([what, await machine.device.reg(REG.RESULT)]).toEqual([what, RESULT.REFUSED | result]);
    }
    expect(await machine.device.reg(REG.ATC_ENTRIES)).toBe(0);
  });

  it('faults when its translated request is refused', async () => {
    await start();
    machine.answer = ({ kind }) => (kind === 1 ? page(0x5000, PAGE) : REFUSED);
    expect(await machine.device.run(COMMAND.READ, AHEAD)).toBe(STATUS.FAULT);
    expect(await machine.device.reg(REG.RESULT)).toBe(RESULT.REFUSED);
  });

  it('takes a Global answer for every PASID, and an untranslated-only one for itself', async () => {
    await start(page(0x5000, PAGE, 3 | GLOBAL));
    const { device } = machine;
    await device.run(COMMAND.READ, AHEAD);
    expect(await device.run(COMMAND.READ, { ...AHEAD, pasid: 4 })).toBe(STATUS.DONE);
    expect(await device.reg(REG.TRANSLATION_REQUESTS)).toBe(1);
    // Without a PASID it is no use.
    await device.run(COMMAND.READ, { address: 0x5000, control: CONTROL_BIT.ATS });
    expect(await device.reg(REG.TRANSLATION_REQUESTS)).toBe(2);

    machine.answer = ({ kind }) => page(0x7000, PAGE, kind === 1 ? 3 | UNTRANSLATED_ONLY : 3);
    machine.takeAsked();
    expect(await device.run(COMMAND.READ, { ...AHEAD, address: 0x7000 })).toBe(STATUS.DONE);
    expect(machine.takeAsked()).toEqual([
      `ahead pasid ${PASID} 7000 r`,
      `untranslated pasid ${PASID} 7000 r`,
    ]);
  });

  it('keeps only so many', async () => {
    await start();
    machine.answer = ({ kind, lo }) => (kind === 1 ? page(lo, lo) : page(lo & ~0xfff, lo & ~0xfff));
    await machine.device.run(COMMAND.READ, { ...AHEAD, address: 0x20_0000, length: 0x1_0000 });
    await machine.device.run(COMMAND.READ, { ...AHEAD, address: 0x30_0000, length: 0x1000 });
    expect(await machine.device.reg(REG.ATC_ENTRIES)).toBe(16);
  });
});

describe('DEVICE_TLB', () => {
  it('makes it forget the block, for the PASID or for all', async () => {
    await start();
    const { device, daemon } = machine;
    const drop = (given: Partial<DeviceTlb>) => daemon.ask(MESSAGE.DEVICE_TLB, { ...ONE_PAGE, ...given });
    const entries = () => device.reg(REG.ATC_ENTRIES);
    await device.run(COMMAND.READ, AHEAD);
    for (const other of [{ lo: 0x6000 }, { hi: 1 }, { pasid: PASID + 2 }, { pasid: 0 }]) {
      expect(await drop(other)).toEqual(DONE);
      expect(await entries()).toBe(1);
    }
    expect(await drop({ lo: 0x4000, log2Size: 13 })).toEqual(DONE);
    expect(await entries()).toBe(0);
    for (const whole of [
      { log2Size: 64, lo: 0 },
      { pasid: 0, log2Size: 64, global: true },
    ]) {
      await device.run(COMMAND.READ, AHEAD);
      expect(await entries()).toBe(1);
      expect(await drop(whole)).toEqual(DONE);
      expect(await entries()).toBe(0);
    }
    expect(await device.reg(REG.INVALIDATIONS)).toBe(7);
    expect(await device.reg(REG.TRANSLATION_REQUESTS)).toBe(3);
  });

  it('says that there is no such device where there is none that translates ahead', async () => {
    const port = ['-device', 'pcie-root-port,id=rp0,addr=3'];
    const virtio = ['-device', 'virtio-rng-pci,ats=on,iommu_platform=on,bus=rp0'];
    await machine.start({}, ['-device', 'viommu-testdev', ...port, ...virtio]);
    await openBridge(machine.memory, ecam(BRIDGE));
    const drop = (rid: number) => machine.daemon.ask(MESSAGE.DEVICE_TLB, { ...ONE_PAGE, rid, pasid: 0 });
    // No device; the NVMe disk; one of QEMU's own that has ATS, before the guest switches it on and
    // after.
    for (const rid of [0x48, 0x08, BEHIND_RID]) expect(await drop(rid)).toEqual({ result: 2 });
    const config = ecam(BEHIND_RID);
    const ats = (await extendedCapability(machine.memory, config, CAPABILITY.ATS)) as number;
    await machine.memory.writeWord(config + ats + 6, 0x8000, 2);
    expect(await drop(BEHIND_RID)).toEqual(DONE);
  });

  it('is answered when the request that used the translation has reached memory', async () => {
    await start();
    const { device, daemon } = machine;
    const written = async () =>
      Buffer.from((await daemon.ask(MESSAGE.MEM_READ, { gpaLo: PAGE, gpaHi: 0, size: 4 }, 50)).data);
    await device.setReg(REG.BEHAVIOUR, BEHAVIOUR.HOLD);
    await device.setBuffer(0, Buffer.from('held'));
    await device.command(COMMAND.WRITE, { ...AHEAD, length: 4 });
    await device.waitsFor(WAITING.RELEASE);
    daemon.send(MESSAGE.DEVICE_TLB, ONE_PAGE, 51);
    await eventually(async () => (await device.reg(REG.INVALIDATIONS)) === 1, 'the invalidation');
    // One that does not concern the request is answered first, which shows that the first one
    // waits.
    daemon.send(MESSAGE.DEVICE_TLB, { ...ONE_PAGE, lo: 0x6000 }, 52);
    expect(await daemon.answer(MESSAGE.DEVICE_TLB, 52)).toEqual(DONE);
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(0);
    expect((await written()).toString()).toBe('sixt');
    await device.setReg(REG.BEHAVIOUR, 0);
    expect(await daemon.answer(MESSAGE.DEVICE_TLB, 51)).toEqual(DONE);
    expect((await written()).toString()).toBe('held');
    expect(await device.ended()).toBe(STATUS.DONE);
  });

  it('is answered late, or never in time, by a device that is told to', async () => {
    await start();
    const { device, daemon } = machine;
    await device.run(COMMAND.READ, AHEAD);
    await device.setReg(REG.BEHAVIOUR, BEHAVIOUR.NEVER);
    expect(await daemon.ask(MESSAGE.DEVICE_TLB, ONE_PAGE)).toEqual({ result: 1 });
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(1);
    await device.setReg(REG.BEHAVIOUR, BEHAVIOUR.NEVER + 2 * BEHAVIOUR.ONCE);
    for (const result of [1, 1, 0]) {
      expect(await daemon.ask(MESSAGE.DEVICE_TLB, { ...ONE_PAGE, lo: 0x6000 })).toEqual({ result });
    }
    expect(await device.reg(REG.BEHAVIOUR)).toBe(0);
    await device.setReg(REG.BEHAVIOUR, BEHAVIOUR.LATER);
    daemon.send(MESSAGE.DEVICE_TLB, ONE_PAGE, 60);
    daemon.send(MESSAGE.DEVICE_TLB, { ...ONE_PAGE, rid: 0x48 }, 61);
    expect(await daemon.answer(MESSAGE.DEVICE_TLB, 61)).toEqual({ result: 2 });
    expect(await device.reg(REG.ATC_ENTRIES)).toBe(0);
    await device.setReg(REG.BEHAVIOUR, 0);
    expect(await daemon.answer(MESSAGE.DEVICE_TLB, 60)).toEqual(DONE);
  });

  it('is answered at a reset', async () => {
    await start();
    const { device, daemon, qemu } = machine;
    await device.setReg(REG.BEHAVIOUR, BEHAVIOUR.HOLD);
    await device.command(COMMAND.READ, AHEAD);
    await device.waitsFor(WAITING.RELEASE);
    daemon.send(MESSAGE.DEVICE_TLB, ONE_PAGE, 70);
    await qemu.command('system_reset');
    expect(await daemon.answer(MESSAGE.DEVICE_TLB, 70)).toEqual(DONE);
    expect(await qemu.quit()).toBe(0);
  });

  it('is answered when the device is pulled out', async () => {
    const native = ['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'];
    const port = [...native, '-device', 'pcie-root-port,id=rp0,addr=3', '-device', 'viommu-testdev,bus=rp0'];
    await machine.start({}, port, BEHIND_RID);
    const { device, daemon, memory } = machine;
    await enable();
    machine.answer = ({ kind }) => (kind === 1 ? page(0x5000, PAGE) : page(PAGE, PAGE));
    await device.setReg(REG.BEHAVIOUR, BEHAVIOUR.HOLD);
    await device.command(COMMAND.READ, AHEAD);
    await device.waitsFor(WAITING.RELEASE);
    expect(machine.asked.map(({ rid }) => rid)).toEqual([BEHIND_RID]);
    const gone = { ...ONE_PAGE, rid: BEHIND_RID };
    daemon.send(MESSAGE.DEVICE_TLB, gone, 80);
    await eventually(async () => (await device.reg(REG.INVALIDATIONS)) === 1, 'the invalidation');
    // Slot Control of the port: power off.
    const slot = (await oldCapability(memory, ecam(BRIDGE), 0x10)) + 0x18;
    await memory.writeWord(ecam(BRIDGE) + slot, 0x0700, 2);
    expect(await daemon.answer(MESSAGE.DEVICE_TLB, 80)).toEqual({ result: 2 });
    await machine.untilReceived('DEVICE_REMOVED');
    expect(await daemon.ask(MESSAGE.DEVICE_TLB, gone)).toEqual({ result: 2 });
    expect(await machine.qemu.quit()).toBe(0);
  });
});

describe('a device that asks for pages', () => {
  const NOT_YET = page(0x5000, 0, 0);

  const respond = ({ rid, pasid, group }: PageRequest, code: number): void =>
    machine.daemon.post(MESSAGE.PAGE_RESPONSE, { rid, pasid, group, code });
  const nthRequest = (n: number): Promise<PageRequest> =>
    eventually(() => machine.daemon.pageRequests[n - 1], `page request ${n}`, 20_000);

  it('asks where nothing is mapped, and again until the page is there', async () => {
    await start(NOT_YET);
    const { device } = machine;
    await device.command(COMMAND.WRITE, { ...ASKING, address: 0x5678 });
    const first = await nthRequest(1);
    expect(first).toEqual({
      rid: RID,
      pasid: PASID + 1,
      access: 2,
      lo: 0x5000,
      hi: 0,
      group: 0,
      last: true,
    });
    expect(await device.reg(REG.WAITING)).toBe(WAITING.PAGE);
    respond(first, 0);
    const second = await nthRequest(2);
    expect(second).toEqual({ ...first, group: 1 });
    machine.answer = ({ kind }) => (kind === 1 ? page(0x5000, PAGE) : page(PAGE, PAGE));
    respond(second, 0);
    expect(await device.ended()).toBe(STATUS.DONE);
    expect(machine.takeAsked()).toEqual([
      ...Array(3).fill(`ahead pasid ${PASID} 5000 rw`),
      'translated 100678 w',
    ]);
    expect(await device.reg(REG.PAGE_REQUESTS)).toBe(2);
    expect(await device.reg(REG.PAGE_RESPONSES)).toBe(2);
  });

  it('gives up when told success again and again and the page never comes', async () => {
    await start(NOT_YET);
    const { device } = machine;
    await device.command(COMMAND.READ, ASKING);
    for (let n = 1; n <= 8; n++) respond(await nthRequest(n), 0);
    expect(await device.ended()).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.REFUSED | RESULT.PAGE_REFUSED);
    expect(machine.daemon.pageRequests).toHaveLength(8);
  });

  it('faults when refused; after a Response Failure it asks no more until the guest resets that', async () => {
    await start(NOT_YET);
    const { device } = machine;
    await device.command(COMMAND.READ, ASKING);
    respond(await nthRequest(1), 1);
    expect(await device.ended()).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.REFUSED | RESULT.PAGE_REFUSED);
    expect(await device.reg(REG.PAGE_CODE)).toBe(1);
    expect(await device.priStatus()).toBe(0x8000);

    await device.command(COMMAND.READ, ASKING);
    respond(await nthRequest(2), 15);
    expect(await device.ended()).toBe(STATUS.FAULT);
    expect(await device.priStatus()).toBe(0x8001);
    expect(await device.run(COMMAND.READ, ASKING)).toBe(STATUS.FAULT);
    expect(machine.daemon.pageRequests).toHaveLength(2);

    await device.resetPri();
    expect(await device.priStatus()).toBe(0x8100);
    await device.enablePri();
    await device.command(COMMAND.READ, ASKING);
    expect(await nthRequest(3)).toMatchObject({ group: 2 });
  });

  it('asks for many pages as one group, within what the guest allows, and sends Stop Markers', async () => {
    await start();
    const { device, daemon } = machine;
    const range = { address: 0xffff_f800, length: 0x2000, pasid: PASID };
    await device.command(COMMAND.REQUEST_PAGES, range);
    const last = await nthRequest(3);
    expect(daemon.pageRequests.map(({ lo, hi, group, last: end }) => [hi, lo, group, end])).toEqual([
      [0, 0xffff_f000, 0, false],
      [1, 0x0000, 0, false],
      [1, 0x1000, 0, true],
    ]);
    respond(last, 0);
    expect(await device.ended()).toBe(STATUS.DONE);
    await device.enablePri(true, 2);
    expect(await device.run(COMMAND.REQUEST_PAGES, range)).toBe(STATUS.REJECTED);
    expect(await device.run(COMMAND.STOP_MARKER, range)).toBe(STATUS.DONE);
    expect((await nthRequest(4)).access).toBe(0);
  });

  it('notes a response to no request, and an answer to one that was given up', async () => {
    await start(NOT_YET);
    const { device } = machine;
    await device.command(COMMAND.READ, ASKING);
    const request = await nthRequest(1);
    await device.enablePri(false);
    expect(await device.reg(REG.STATUS)).toBe(STATUS.FAULT);
    expect(await device.reg(REG.RESULT)).toBe(RESULT.CANCELLED);
    // Not stopped as long as a request is under way.
    expect(await device.priStatus()).toBe(0x8000);
    respond(request, 0);
    await eventually(async () => (await device.priStatus()) === 0x8100, 'stopped');
    respond({ ...request, group: 99 }, 0);
    await eventually(
      async () => (await device.priStatus()) === 0x8102,
      'Unexpected Page Request Group Index',
    );
  });

  it('faults when the daemon dies before it answers', async () => {
    await start(NOT_YET);
    await machine.device.command(COMMAND.READ, ASKING);
    await nthRequest(1);
    machine.daemon.hangUp();
    expect(await machine.device.ended()).toBe(STATUS.FAULT);
    expect(await machine.device.reg(REG.RESULT)).toBe(RESULT.REFUSED | RESULT.ENDED);
    expect(await machine.device.reg(REG.ATC_ENTRIES)).toBe(0);
    expect(await machine.qemu.quit()).toBe(0);
  });
});
