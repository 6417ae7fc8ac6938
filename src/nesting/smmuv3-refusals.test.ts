import { describe, expect, it } from 'vitest';
import { dmaRead } from '../../test/support/host-rig.js';
import {
  forwarded,
  SmmuGuest as Guest,
  HOST_RID,
  IOVA,
  GUEST_RID as SID,
  smmu,
} from '../../test/support/nested-guests.js';
import { ANY } from '../base/ids.js';
import { HostError } from '../host/host-errors.js';
import type { SimDevice } from '../host/sim/sim-device.js';
import { firstStageFields } from '../sim/smmu-domain.js';
import { storeStructure } from '../sim/structure.js';
import { CMD } from '../spec/smmuv3/commands.js';
import { CD } from '../spec/smmuv3/structures.js';

/** What the host of an SMMUv3 refuses to drop: whom it concerns, and until when. */

/** STE.S1ContextPtr */
const CONTEXT_POINTER = 0xf_ffff_ffff_ffc0n;

/** A device in use, by the first of two streams of one address space. */
function used() {
  const guest = new Guest(smmu());
  const device = guest.vf();
  const { driver, memory } = guest;
  memory.store32(0x6000, 6);
  driver.start();
  const domain = driver.createDomain('first');
  driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
  for (const stream of [SID, SID + 8]) driver.attach(stream, domain);
  expect(dmaRead(device, IOVA, 1)).toEqual([6]);
  return { guest, device, driver, domain };
}

describe('translations that the host does not drop', () => {
  it.each([
    ['has come', (guest: Guest) => void guest.vf(HOST_RID + 1, SID + 8)],
    ['has gone', (guest: Guest, second: SimDevice) => guest.machine.unplug(second)],
    [
      'has another StreamID',
      (guest: Guest, second: SimDevice) => guest.machine.nesting.renumber(second.number, 5),
    ],
  ])('unbind everything until it does; it is asked again when a device %s', (what, change) => {
    const { guest, device, driver } = used();
    const second = what === 'has come' ? device : guest.vf(HOST_RID + 2, SID + 16);
    const { failures } = guest.host;
    failures.check = (kind) => {
      if (kind === 'invalidate') throw new HostError('FAILED', 'no');
    };
    driver.commands.asid(0, 1);
    driver.commands.sync();
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    failures.check = () => {};
    change(guest, second);
    guest.machine.settle();
    expect(dmaRead(device, IOVA, 1)).toEqual([6]);
    expect(guest.machine.nesting.pending).toBe(0);
  });
});

describe('a device that the host has lost', () => {
  /** Two devices in use, of which the first is gone at the host, and not yet here. */
  function lost() {
    const guest = new Guest(smmu());
    const [first, second] = [guest.vf(), guest.vf(HOST_RID + 1, SID + 8)];
    const { driver } = guest;
    guest.memory.store32(0x6000, 6);
    driver.start();
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(SID, domain);
    driver.attach(SID + 8, domain);
    expect([first, second].map((device) => dmaRead(device, IOVA, 1))).toEqual([[6], [6]]);
    guest.host.removeDevice(first);
    return { guest, first, second, driver };
  }

  it('does not unbind the others, before and after its removal is heard of', () => {
    const { guest, first, second, driver } = lost();
    const detached: number[] = [];
    const { guest: side, nesting } = guest.machine;
    const detach = side.detach.bind(side);
    side.detach = (device, pasid, done) => {
      detached.push(device);
      detach(device, pasid, done);
    };
    driver.commands.configurationAll();
    driver.commands.sync();
    expect(dmaRead(second, IOVA, 1)).toEqual([6]);
    expect(nesting.pending).toBe(0);
    nesting.detach(first.number);
    guest.machine.settle();
    expect(dmaRead(second, IOVA, 1)).toEqual([6]);
    expect(detached).toEqual([first.number]);
    // What it was asked for, and once more.
    expect(guest.machine.nestingEvents).toMatchObject(
      [0, 1].map(() => ({ kind: 'hostRefused', what: 'invalidation', device: first.number })),
    );
  });

  it('takes no emptying down that the others wait for', () => {
    const { guest, second, driver } = lost();
    const { failures } = guest.host;
    failures.check = failing((kind) => kind === 'invalidate', 1);
    driver.commands.asid(0, 1);
    driver.commands.sync();
    expect(dmaRead(second, IOVA, 1)).toEqual([6]);
  });
});

describe('context descriptors that the host does not drop', () => {
  function two() {
    const guest = new Guest(smmu());
    const devices = [guest.vf(), guest.vf(HOST_RID + 1, SID + 8)];
    const { driver, memory } = guest;
    memory.store32(0x6000, 6);
    driver.start();
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    driver.attach(SID, domain);
    driver.attach(SID + 8, domain);
    const read = () => devices.map((device) => dmaRead(device, IOVA, 1)?.[0]);
    expect(read()).toEqual([6, 6]);
    return { guest, driver, read, calls: forwarded(guest.machine) };
  }

  it('unbind their own device alone, until the host has; what it found by them goes', () => {
    const { guest, driver, read, calls } = two();
    guest.host.failures.check = failing((kind) => kind === 'invalidate', 2);
    driver.commands.contexts(SID);
    driver.commands.sync();
    expect(read()).toEqual([undefined, 6]);
    expect(calls).toEqual([CMD.CFGI_CD_ALL, CMD.CFGI_CD_ALL, CMD.TLBI_NSNH_ALL]);
    expect(guest.machine.nesting.pending).toBe(0);
    // Any invalidation of the guest's tries again.
    driver.commands.asid(0, 99);
    driver.commands.sync();
    expect(read()).toEqual([6, 6]);
    expect(guest.machine.nesting.pending).toBe(0);
  });

  it('may have been used after the guest’s TLBI: what was found by them then is dropped, too', () => {
    const { guest, device, driver, domain } = used();
    const { guest: side } = guest.machine;
    guest.memory.store32(0x7000, 7);
    const next = { ...driver.createDomain('first'), asid: domain.asid };
    driver.map(next, BigInt(IOVA), 0x7000, 0x1000);
    const cd = Number((guest.memory.peek(driver.streams.entry(SID)) ?? 0n) & CONTEXT_POINTER);
    storeStructure(guest.machine.ram, cd, CD, firstStageFields(next, 48));
    guest.host.failures.check = failing((kind) => kind === 'invalidate', 1);
    // The device reads behind each invalidation that the host has carried out.
    const invalidate = side.invalidate.bind(side);
    const found: unknown[] = [];
    side.invalidate = (parent, list, done) =>
      invalidate(parent, list, (outcome) => {
        found.push(dmaRead(device, IOVA, 1)?.[0]);
        done(outcome);
      });
    driver.commands.contexts(SID);
    driver.commands.asid(0, domain.asid);
    driver.commands.sync();
    expect(found).toEqual([6, 6, undefined, undefined]);
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('are no completion of the guest’s before that device is unbound and the TLB is clean', () => {
    const { guest, driver, read } = two();
    const { machine } = guest;
    guest.host.failures.check = failing((kind) => kind === 'invalidate', 1);
    machine.early = false;
    const { model } = machine;
    const acknowledged = model.acknowledged.bind(model);
    const pending: number[] = [];
    model.acknowledged = () => {
      pending.push(machine.guest.pending);
      acknowledged();
    };
    driver.commands.contexts(SID);
    driver.commands.sync();
    expect(pending).toEqual(pending.map(() => 0));
    expect(read()).toEqual([6, 6]);
  });
});

describe('a StreamID that the host did not take', () => {
  it('is of no consequence when it has been asked again, and took it', () => {
    const { guest, device } = used();
    const { machine } = guest;
    const { guest: side, nesting } = machine;
    const identify = side.identify.bind(side);
    side.identify = (_device, _streamId, done) => {
      side.identify = identify;
      side.destroySpace(99, done);
    };
    machine.early = false;
    for (const stream of [SID + 8, SID, SID + 8]) nesting.renumber(device.number, stream);
    machine.drain();
    expect(machine.nestingEvents).toMatchObject([{ kind: 'hostRefused', what: 'StreamID' }]);
    expect(dmaRead(device, IOVA, 1)).toEqual([6]);
  });
});

describe('a nest parent that is gone', () => {
  const all = { space: 0, sub: 1, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 };
  const structures = { ...all, space: ANY, sub: ANY, structures: true };

  it.each([
    ['of translations', all],
    ['of context descriptors', structures],
  ])('fails without consequence for the next one: an invalidation %s', (_, scope) => {
    const { guest, device } = used();
    const { machine } = guest;
    const { nesting } = machine;
    guest.host.failures.check = failing((kind) => kind === 'invalidate', 2);
    machine.early = false;
    nesting.invalidated(scope);
    nesting.work();
    nesting.detach(device.number);
    // The next one is there before the first one's answers.
    const again = guest.host.addVf(HOST_RID + 1, machine.guest);
    nesting.attach(again.number, SID + 8);
    const calls = forwarded(machine);
    machine.drain();
    guest.host.removeDevice(device);
    expect(nesting.pending).toBe(0);
    expect(calls).toEqual([]);
    expect(dmaRead(again, IOVA, 1)).toEqual([6]);
  });

  it('fails without consequence while there is no other one', () => {
    const { guest, device } = used();
    const { machine } = guest;
    guest.host.failures.arm('invalidate');
    machine.early = false;
    machine.nesting.invalidated(all);
    machine.nesting.work();
    machine.nesting.detach(device.number);
    machine.drain();
    expect(machine.nesting.pending).toBe(0);
    guest.host.removeDevice(device);
    machine.early = true;
    expect(dmaRead(guest.vf(HOST_RID + 1, SID), IOVA, 1)).toEqual([6]);
    expect(machine.nestingEvents.length).toBe(1);
  });
});

/** A check that fails so many times, of one kind. */
function failing(of: (kind: string) => boolean, times: number): (kind: string) => void {
  let left = times;
  return (kind) => {
    if (of(kind) && left-- > 0) throw new HostError('FAILED', 'no');
  };
}
