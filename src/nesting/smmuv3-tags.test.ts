import { describe, expect, it } from 'vitest';
import { dmaRead } from '../../test/support/host-rig.js';
import {
  forwarded,
  SmmuGuest as Guest,
  HOST_RID,
  IOVA,
  RAM,
  GUEST_RID as SID,
  smmu,
} from '../../test/support/nested-guests.js';
import { ANY } from '../base/ids.js';
import { HostError } from '../host/host-errors.js';
import { firstStageFields } from '../sim/smmu-domain.js';
import { storeStructure } from '../sim/structure.js';
import { CMD } from '../spec/smmuv3/commands.js';
import { CD, STE_CONFIG } from '../spec/smmuv3/structures.js';

/**
 * What hardware holds is found by its tags, VMID and ASID, and not by where it came from (IHI 0070
 * §3.17).
 */

/** STE.S1ContextPtr */
const CONTEXT_POINTER = 0xf_ffff_ffff_ffc0n;

describe('translations that outlive the STE they came from', () => {
  /** A stream with two address spaces of one ASID, of which the first has been used. */
  function used(options: Readonly<Record<string, string>> = {}) {
    const guest = new Guest(smmu(), 'guest', options);
    const device = guest.vf();
    const { driver } = guest;
    driver.start();
    const [old, next] = [driver.createDomain('first'), { ...driver.createDomain('first'), asid: 1 }];
    expect(old.asid).toBe(1);
    guest.memory.store32(0x6000, 6);
    guest.memory.store32(0x7000, 7);
    driver.map(old, BigInt(IOVA), 0x6000, 0x1000);
    driver.map(next, BigInt(IOVA), 0x7000, 0x1000);
    driver.attach(SID, old);
    expect(dmaRead(device, IOVA, 1)).toEqual([6]);
    const contexts = driver.pages.take();
    storeStructure(guest.machine.ram, contexts, CD, firstStageFields(next, 48));
    const exchange = (): void =>
      driver.streams.set(SID, { V: 1, Config: STE_CONFIG.S1_TRANSLATE, S1ContextPtr: contexts });
    return { guest, device, driver, exchange, asid: () => driver.commands.asid(0, 1) };
  }

  it.each([
    ['TLBI first', (stream: () => void, asid: () => void) => [asid, stream]],
    ['CFGI first', (stream: () => void, asid: () => void) => [stream, asid]],
  ])('are dropped in the batch that changes the STE: %s', (_, order) => {
    for (const early of [true, false]) {
      const { guest, device, driver, exchange, asid } = used();
      guest.machine.early = early;
      exchange();
      for (const command of order(() => driver.commands.stream(SID), asid)) command();
      driver.commands.sync();
      expect(dmaRead(device, IOVA, 1)).toEqual([7]);
    }
  });

  it.each([
    ['aborts', { V: 1, Config: STE_CONFIG.ABORT }],
    ['is not valid', { V: 0 }],
    ['bypasses', { V: 1, Config: STE_CONFIG.BYPASS }],
  ])('are dropped while the STE %s', (_, between) => {
    const { device, driver, exchange, asid } = used();
    driver.streams.set(SID, between);
    driver.commands.stream(SID);
    driver.commands.sync();
    asid();
    driver.commands.sync();
    exchange();
    driver.commands.stream(SID);
    driver.commands.sync();
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('stay when the guest forgets to say so', () => {
    const { device, driver, exchange } = used();
    exchange();
    driver.commands.stream(SID);
    driver.commands.sync();
    expect(dmaRead(device, IOVA, 1)).toEqual([6]);
  });

  it('are dropped before SMMUEN, after a reset', () => {
    const { guest, device, driver } = used();
    guest.machine.reset();
    const calls = forwarded(guest.machine);
    driver.queue.program();
    driver.control({ CMDQEN: 1 });
    expect(calls).toEqual([]);
    driver.commands.translationsAll();
    driver.commands.sync();
    expect(calls).toContain(CMD.TLBI_NSNH_ALL);
    const again = { ...driver.createDomain('first'), asid: 1 };
    driver.map(again, BigInt(IOVA), 0x7000, 0x1000);
    driver.start();
    driver.attach(SID, again);
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('are dropped by a reset itself, as those of an emulated device are', () => {
    const { guest } = used();
    const calls = forwarded(guest.machine);
    guest.machine.reset();
    expect(calls).toEqual([CMD.CFGI_CD_ALL, CMD.TLBI_NSNH_ALL]);
  });

  it('are dropped for a device that has left, and comes again', () => {
    const { guest, device, driver } = used();
    guest.vf(HOST_RID + 1, SID + 8);
    guest.machine.unplug(device);
    driver.detach(SID);
    const again = { ...driver.createDomain('first'), asid: 1 };
    driver.map(again, BigInt(IOVA), 0x7000, 0x1000);
    driver.attach(SID, again);
    expect(dmaRead(guest.vf(HOST_RID + 2, SID), IOVA, 1)).toEqual([7]);
  });

  it('of CDs too: everything at once (CMD_CFGI_ALL), and more than is collected one by one', () => {
    for (const many of [false, true]) {
      const { guest, device, driver } = used();
      // The CD in place, with other tables and another ASID.
      const cd = Number((guest.memory.peek(driver.streams.entry(SID)) ?? 0n) & CONTEXT_POINTER);
      const other = driver.createDomain('first');
      driver.map(other, BigInt(IOVA), 0x7000, 0x1000);
      storeStructure(guest.machine.ram, cd, CD, firstStageFields(other, 48));
      if (many) {
        // Without the guest's queue, which would settle between.
        guest.machine.early = false;
        const scope = { space: ANY, sub: ANY, rid: SID, pasid: ANY, lo: 0, hi: 0, log2Size: 64 };
        guest.machine.nesting.invalidated({ ...scope, structures: true });
        const page = { ...scope, space: 0, sub: 9, rid: ANY, log2Size: 12 };
        for (let count = 0; count < 20_000; count++) guest.machine.nesting.invalidated(page);
        guest.machine.drain();
      } else {
        driver.commands.configurationAll();
        driver.commands.sync();
      }
      expect(dmaRead(device, IOVA, 1)).toEqual([7]);
    }
  });

  it('are waited for: what the host does not drop is not bound again, until it does', () => {
    const { guest, device, driver, exchange, asid } = used();
    const { failures } = guest.host;
    exchange();
    driver.commands.stream(SID);
    // The invalidation, and the one of everything that follows it.
    failures.arm('invalidate');
    const { check } = failures;
    let refusals = 0;
    failures.check = (kind) => {
      if (kind === 'invalidate' && refusals++ < 2) throw new HostError('FAILED', 'no');
      check.call(failures, kind);
    };
    asid();
    driver.commands.sync();
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    expect(guest.machine.nesting.pending).toBe(0);
    failures.check = () => {};
    // Any invalidation of the guest's tries again.
    driver.commands.asid(0, 99);
    driver.commands.sync();
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('are of the device’s new StreamID when that changes', () => {
    const { guest, device, driver } = used();
    guest.machine.nesting.invalidated({
      ...{ space: ANY, sub: ANY, rid: SID, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
      structures: true,
    });
    guest.machine.nesting.renumber(device.number, SID + 1);
    guest.machine.settle();
    expect(guest.machine.nestingEvents).toEqual([]);
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x7000, 0x1000);
    driver.attach(SID + 1, domain);
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('do not exist for a StreamID that the host refuses: nothing of that device is bound', () => {
    const guest = new Guest(smmu());
    guest.vf();
    const second = guest.vf(HOST_RID + 1, SID);
    const { driver } = guest;
    driver.start();
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x7000, 0x1000);
    driver.attach(SID, domain);
    expect(guest.machine.nestingEvents).toMatchObject([{ kind: 'hostRefused', what: 'StreamID' }]);
    expect(dmaRead(second, IOVA, 1)).toBeUndefined();
    expect(guest.machine.nesting.pending).toBe(0);
  });
});

describe('a host that makes no nest parent', () => {
  it('is asked for no invalidations: it holds nothing, and nothing is bound', () => {
    const guest = new Guest(smmu());
    const { guest: side } = guest.machine;
    side.createSpace = (_space, _device, _parent, done) => side.destroySpace(99, done);
    const device = guest.vf();
    const { driver } = guest;
    const calls = forwarded(guest.machine);
    driver.start();
    driver.attach(SID, driver.createDomain('first'));
    expect(calls).toEqual([]);
    expect(guest.machine.nestingEvents.map((event) => event.kind === 'hostRefused' && event.what)).toContain(
      'nest parent',
    );
    expect(dmaRead(device, IOVA, 1)).toBeUndefined();
    expect(guest.machine.nesting.pending).toBe(0);
  });
});

describe('stage 1 under VMIDs of the guest', () => {
  /** A stream of a given VMID with one page, all with one ASID. */
  function stream(guest: Guest, sid: number, vmid: number, gpa: number): void {
    const { driver } = guest;
    const domain = { ...driver.createDomain('first'), vmid, asid: 1 };
    driver.map(domain, BigInt(IOVA), gpa, 0x1000);
    driver.attach(sid, domain);
    const ste = driver.streams.entry(sid);
    guest.memory.store32(ste + 16, vmid);
    driver.commands.stream(sid);
    driver.commands.sync();
  }

  function two(options: Readonly<Record<string, string>> = {}) {
    const guest = new Guest(smmu(), 'guest', options);
    const devices = [guest.vf(), guest.vf(HOST_RID + 1, SID + 8)];
    guest.memory.store32(0x6000, 6);
    guest.memory.store32(0x7000, 7);
    guest.driver.start();
    const read = () => devices.map((device) => dmaRead(device, IOVA, 1)?.[0]);
    return { guest, devices, read };
  }

  it('one at a time: a second one is refused, said, and nested when the first has gone', () => {
    const { guest, devices, read } = two();
    stream(guest, SID, 0, 0x6000);
    expect(read()).toEqual([6, undefined]);
    stream(guest, SID + 8, 5, 0x7000);
    expect(read()).toEqual([6, undefined]);
    expect(guest.machine.nestingEvents).toEqual([
      {
        kind: 'notNestable',
        device: devices[1].number,
        rid: SID + 8,
        pasid: -1,
        reason: 'stage 1 under VMID 5 beside one under VMID 0',
      },
    ]);
    // A device that has one keeps it, in whatever order all are looked at.
    guest.driver.commands.configurationAll();
    guest.driver.commands.sync();
    expect(read()).toEqual([6, undefined]);
    guest.driver.detach(SID);
    expect(read()).toEqual([undefined, 7]);
    stream(guest, SID, 5, 0x7000);
    expect(read()).toEqual([7, 7]);
  });

  /** The STE of a stream, and where its VMID is. */
  const ste = (guest: Guest, sid: number): number => guest.driver.streams.entry(sid);
  const vmid = (guest: Guest, sid: number): number => ste(guest, sid) + 16;

  it.each<[string, (guest: Guest) => void, unknown[]]>([
    ['keeps it while its STE stays as it is', () => {}, [undefined, 7]],
    ['loses it with its STE', (guest) => guest.memory.store32(ste(guest, SID + 8), 0), [6, undefined]],
    // Under one VMID and one ASID, what the first one has found is the second one's, too.
    [
      'shares it under the VMID of the other one',
      (guest) => guest.memory.store32(vmid(guest, SID + 8), 0),
      [6, 6],
    ],
  ])('the device that has one is looked at after the other: it %s', (_, change, reached) => {
    const { guest, read } = two();
    stream(guest, SID + 8, 5, 0x7000);
    stream(guest, SID, 0, 0x6000);
    expect(read()).toEqual([undefined, 7]);
    change(guest);
    guest.driver.commands.configurationAll();
    guest.driver.commands.sync();
    expect(read()).toEqual(reached);
  });

  it('a first one that goes with its device makes room, too', () => {
    const { guest, devices, read } = two();
    stream(guest, SID + 8, 5, 0x7000);
    stream(guest, SID, 0, 0x6000);
    expect(read()).toEqual([undefined, 7]);
    guest.machine.unplug(devices[1]);
    guest.machine.settle();
    expect(read()).toEqual([6, undefined]);
  });

  it('that is another one now: what was found under the first one is gone', () => {
    const { guest, read } = two();
    stream(guest, SID, 0, 0x6000);
    expect(read()).toEqual([6, undefined]);
    // Both at once, in one batch: all of them are under the other VMID.
    stream(guest, SID, 5, 0x7000);
    expect(read()).toEqual([7, undefined]);
    stream(guest, SID + 8, 5, 0x7000);
    expect(read()).toEqual([7, 7]);
  });

  it('none without a stage 2, whose fields then mean nothing', () => {
    const { guest, read } = two({ stages: '1' });
    stream(guest, SID, 0, 0x6000);
    stream(guest, SID + 8, 5, 0x6000);
    expect(read()).toEqual([6, 6]);
    expect(guest.machine.nestingEvents).toEqual([]);
  });
});

describe('global entries (CD tables whose leaves have nG = 0)', () => {
  /** A page that is under no ASID, and used. `exchange` makes it another one, in memory. */
  function used() {
    const guest = new Guest(smmu());
    const device = guest.vf();
    const { driver, memory } = guest;
    driver.start();
    memory.store32(0x6000, 6);
    memory.store32(0x7000, 7);
    const domain = driver.createDomain('first');
    driver.map(domain, BigInt(IOVA), 0x6000, 0x1000);
    const leaf = leafOf(guest, 0x6000);
    const put = (page: number): void => {
      memory.load64(leaf);
      memory.store64(leaf, (memory.lo & 0xfff & ~NOT_GLOBAL) | page, memory.hi);
    };
    put(0x6000);
    driver.attach(SID, domain);
    expect(dmaRead(device, IOVA, 1)).toEqual([6]);
    return { guest, device, driver, other: domain.asid + 1, exchange: () => put(0x7000) };
  }

  it.each([1, 32, 64, 65, 128, 512, 2 ** 18])('go by address, whatever the ASID: %i pages', (pages) => {
    const { device, driver, other, exchange } = used();
    exchange();
    driver.commands.addresses(0, other, BigInt(IOVA), 12, pages);
    driver.commands.sync();
    expect(dmaRead(device, IOVA, 1)).toEqual([7]);
  });

  it('stay when all of an ASID goes (CMD_TLBI_NH_ASID)', () => {
    const { guest, device, driver, other, exchange } = used();
    const calls = forwarded(guest.machine);
    exchange();
    driver.commands.asid(0, other - 1);
    driver.commands.sync();
    expect(calls).toEqual([CMD.TLBI_NH_ASID]);
    expect(dmaRead(device, IOVA, 1)).toEqual([6]);
  });
});

/** nG of a page descriptor. */
const NOT_GLOBAL = 1 << 11;

/** Where the guest's driver has the page descriptor of a page. */
function leafOf({ memory, driver }: Guest, page: number): number {
  for (let at = RAM / 2; at < RAM; at += 8) {
    memory.load64(at);
    if ((memory.lo & ~0xfff) === page && (memory.lo & 3) === 3) return at;
  }
  throw new Error(`${driver.constructor.name} has not mapped ${page}`);
}
