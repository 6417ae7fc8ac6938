/**
 * What a peer does wrong with host objects: its connection ends with the right code, and nothing is
 * left on the host.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SimDevice } from '../../src/host/sim/sim-device.js';
import { SimHost } from '../../src/host/sim/sim-host.js';
import { SimVm } from '../../src/sim/vm.js';
import { CODEC } from '../../src/wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE } from '../../src/wire/frame.js';
import type { HostDevice } from '../../src/wire/messages.js';
import { Daemon } from '../support/daemon.js';
import { leftovers } from '../support/host-rig.js';
import { message } from '../support/message.js';
import { WiredMachine } from '../support/wired-machine.js';

const RAM = 2 ** 24;
const RID = 0x18;
const HOST_RID = 0x0108;

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(() => daemon.dispose());

function clean(host: SimHost): void {
  expect(host.violations).toEqual([]);
  expect(leftovers(host)).toEqual({});
}

describe('what a peer does wrong with host objects ends its connection', () => {
  const assigned = (): { wired: WiredMachine; device: SimDevice } => {
    const host = new SimHost({ kind: 'vtd3', tableBytes: 2 ** 24 });
    const wired = new WiredMachine({
      ...{ socket: daemon.socket, host, name: 'wrong', bytes: RAM, model: 'vtd' },
      options: { 'caching-mode': 'on' },
    });
    const device = host.addVf(HOST_RID, wired.guest);
    wired.plug(device, RID);
    return { wired, device };
  };
  const answer = (id: number, code: number) => (wired: WiredMachine) => {
    const reply = message(CODEC.HostReply, { code });
    wired.vm.client.backend.put(MESSAGE.HOST_ATTACH, FLAG.REPLY, id, CODEC.HostReply, reply);
    wired.vm.client.backend.flush();
  };
  const event = (fields: object) => (wired: WiredMachine) =>
    wired.vm.client.post(MESSAGE.HOST_EVENT, { ...CODEC.HostEvent.create(), ...fields });

  it.each<[string, string, (wired: WiredMachine) => void]>([
    ['an answer to nothing', 'UNEXPECTED_REPLY', answer(77, 0)],
    ['a fault record that is none', 'BAD_ARGUMENT', event({ device: 1, record: new Uint8Array(5) })],
    [
      'a PASID refused by a device that is not assigned',
      'OUT_OF_ORDER',
      ({ vm }) =>
        vm.client.post(MESSAGE.HOST_PASID_REFUSED, { ...CODEC.HostPasidRefused.create(), device: 99 }),
    ],
    [
      'a page request of a device that is not assigned',
      'OUT_OF_ORDER',
      ({ vm }) =>
        vm.client.post(MESSAGE.HOST_PAGE_REQUEST, { ...CODEC.HostPageRequest.create(), device: 99 }),
    ],
  ])('%s: %s', (_, reason, act) => {
    const { wired } = assigned();
    act(wired);
    expect(wired.vm.client.awaitEnd().reason).toBe(reason);
    wired.close();
    clean(wired.host);
  });

  it.each<[string, string, Partial<HostDevice>]>([
    ['that was not added', 'OUT_OF_ORDER', { device: 99 }],
    ['of no kind', 'BAD_ARGUMENT', { kind: 2 }],
    ['in no container', 'BAD_ARGUMENT', { container: 3 }],
    ['with PASIDs of 21 bits', 'BAD_ARGUMENT', { pasidBits: 21 }],
    ['behind an unknown IOMMU', 'BAD_ARGUMENT', { infoType: 9 }],
    ['with half a range', 'BAD_ARGUMENT', { ranges: [0, 0, 0xfff] }],
    ['with ranges that go down', 'BAD_ARGUMENT', { ranges: [0x1000, 0, 0x1fff, 0, 0, 0, 0xfff, 0] }],
  ])('a device %s: %s', (_, reason, wrong) => {
    const { wired, device } = assigned();
    const { type, info } = wired.host.driver.hardwareInfo();
    const right = message(CODEC.HostDevice, { device: device.number, infoType: type, info });
    expect(() => wired.vm.client.request(MESSAGE.HOST_DEVICE, { ...right, ...wrong })).toThrow(
      expect.objectContaining({ reason }),
    );
    wired.close();
    clean(wired.host);
  });

  it('is not there without the feature', () => {
    const vm = SimVm.connect(daemon.socket, { features: ALL_FEATURES & ~FEATURE.NESTING });
    expect(() => vm.client.request(MESSAGE.HOST_DEVICE, CODEC.HostDevice.create())).toThrow(
      expect.objectContaining({ reason: 'NOT_NEGOTIATED' }),
    );
    vm.close();
  });
});
