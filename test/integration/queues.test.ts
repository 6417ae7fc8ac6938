import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS } from '../../src/device/iommu.js';
import { SimVm, type SimVmOptions } from '../../src/sim/vm.js';
import { IQH_REG, IQT_REG } from '../../src/spec/vtd/registers.js';
import { ALL_FEATURES, CONTROL, FEATURE, NOTIFY } from '../../src/wire/frame.js';
import { Rng } from '../fuzz/rng.js';
import { viommu } from '../guests/viommu.js';
import { Daemon } from '../support/daemon.js';
import { type GuestKind, RandomGuest } from '../support/random-guest.js';
import { DATA, device, expectReaches, RAM_BYTES, RID, startDriver } from '../support/rig.js';
import { SID, startSmmu } from '../support/smmu-rig.js';

/**
 * Commands that the peer completes in the store that rings their doorbell (docs/protocol.md,
 * Queues).
 */

const IOVA = 0x4000_0000n;
const WITHOUT = ALL_FEATURES & ~(FEATURE.PEER_WALKS | FEATURE.QUEUES);

let daemon: Daemon;
const open: SimVm[] = [];

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  for (const vm of open) vm.close();
  await daemon.dispose();
});

function plug(options: SimVmOptions = {}): SimVm {
  const vm = SimVm.connect(daemon.socket, { ramBytes: RAM_BYTES, ...options });
  open.push(vm);
  return vm;
}

/** How many doorbells were rung without a message. */
const rung = (vm: SimVm): number => vm.peerQueue?.rung ?? -1;

/** Serves until the daemon has said which queue is in force. */
function settle(vm: SimVm): void {
  vm.askRegister(0, 4);
  for (let wait = 0; wait < 500 && vm.control[CONTROL.QUEUE] === 0; wait++) vm.idle(1);
  vm.idle(0);
  expect(vm.control[CONTROL.QUEUE]).not.toBe(0);
}

function mapped(vm: SimVm) {
  const driver = startDriver(vm, 'legacy');
  const domain = driver.createDomain('second');
  driver.attach(RID, domain);
  driver.map(domain, IOVA, DATA, 4096);
  expectReaches(vm, device(vm), IOVA, DATA);
  settle(vm);
  return { driver, domain };
}

describe('rule 6: what the peer has carried out comes before what is asked later', () => {
  it('VT-d: each translation asked for after an unmap sees it, and no INVALIDATE comes', () => {
    const vm = plug();
    const { driver, domain } = mapped(vm);
    const { invalidations } = vm.traffic;
    const before = rung(vm);
    for (let round = 0; round < 200; round++) {
      driver.unmap(domain, IOVA, 4096);
      expect(vm.iotlb.lookup(RID, NO_PASID, ACCESS.READ, IOVA)).toBeUndefined();
      expect(vm.askTranslation(RID, NO_PASID, ACCESS.READ, IOVA).status, `round ${round}`).not.toBe(0);
      const gpa = DATA + (1 + (round % 8)) * 4096;
      driver.map(domain, IOVA, gpa, 4096);
      expect(vm.translate(RID, NO_PASID, ACCESS.READ, IOVA)?.gpa).toBe(gpa);
      driver.faults.drain();
    }
    expect(rung(vm) - before).toBe(200);
    expect(vm.traffic.invalidations).toBe(invalidations);
  });

  it('SMMUv3: the same, with completions by polling and by message', () => {
    for (const sync of ['poll', 'message'] as const) {
      const vm = plug({ model: 'smmuv3' });
      const driver = startSmmu(vm, { sync });
      const domain = driver.createDomain('first');
      driver.attach(SID, domain);
      driver.map(domain, IOVA, DATA, 4096);
      expect(vm.translate(SID, NO_PASID, ACCESS.READ, IOVA)?.gpa).toBe(DATA);
      settle(vm);
      const { invalidations } = vm.traffic;
      const before = rung(vm);
      for (let round = 0; round < 200; round++) {
        driver.unmap(domain, IOVA, 4096);
        expect(vm.askTranslation(SID, NO_PASID, ACCESS.READ, IOVA).status, `round ${round}`).not.toBe(0);
        const gpa = DATA + (1 + (round % 8)) * 4096;
        driver.map(domain, IOVA, gpa, 4096);
        expect(vm.translate(SID, NO_PASID, ACCESS.READ, IOVA)?.gpa).toBe(gpa);
        driver.events.drain();
        // That was a register write: while it is not handled, a doorbell is one too.
        vm.askRegister(0, 4);
      }
      // A guest that is told by message asks for room now and then.
      expect(rung(vm) - before, sync).toBeGreaterThanOrEqual(200);
      expect(vm.traffic.invalidations).toBe(invalidations);
    }
  });
});

describe('the ring', () => {
  it('lets a guest complete while the daemon stands still, until it is full', () => {
    const vm = plug();
    const { driver, domain } = mapped(vm);
    const queue = driver.queue;
    if (queue === undefined) throw new Error('no queue');
    const { peerQueue } = vm;
    if (peerQueue === undefined) throw new Error('no queue of the peer');
    const before = peerQueue.commands;
    daemon.signal('SIGSTOP');
    try {
      for (;;) {
        for (let n = 0; n < 99; n++) driver.invalidate.iotlbPage(domain.did, IOVA + BigInt(n) * 4096n, 0);
        const value = queue.submitWait();
        queue.kick();
        if (peerQueue.full > 0) break;
        expect(queue.completed(), 'at once').toBe(value);
        expect(vm.readRegister(IQH_REG.offset, 8)).toBe(BigInt(queue.tail));
        expect(vm.readRegister(IQT_REG.offset, 8)).toBe(BigInt(queue.tail));
      }
      // 16384 slots; each run has one for its head.
      expect(peerQueue.commands - before).toBe(162 * 100);
      expect(vm.control[CONTROL.HANDLED], 'it was sent').not.toBe(vm.control[CONTROL.SENT]);
    } finally {
      daemon.signal('SIGCONT');
    }
    driver.invalidate.sync();
    settle(vm);
    const rings = rung(vm);
    driver.unmap(domain, IOVA, 4096);
    expect(rung(vm)).toBe(rings + 1);
    expect(vm.translate(RID, NO_PASID, ACCESS.READ, IOVA)).toBeUndefined();
  });

  it('is taken before anything is shown to people', async () => {
    const vm = plug({ name: 'shown' });
    const { driver, domain } = mapped(vm);
    const commands = async (): Promise<number> => {
      const { text } = await viommu(daemon, 'report', '--vm', 'shown');
      return JSON.parse(text).report.counters.commands;
    };
    const before = await commands();
    const rings = rung(vm);
    for (let n = 0; n < 10; n++) driver.unmap(domain, IOVA, 4096);
    expect(rung(vm)).toBe(rings + 10);
    expect((await commands()) - before).toBe(20);
  });

  it('is not used beside a notifier, nor beside an assigned device, and again after that', () => {
    const vm = plug();
    const { driver, domain } = mapped(vm);
    const unmaps = (): number => {
      const before = rung(vm);
      for (let n = 0; n < 5; n++) driver.unmap(domain, IOVA, 4096);
      return rung(vm) - before;
    };
    expect(unmaps()).toBe(5);
    vm.addDevice(1, 0x40, 'one');
    vm.notify(1, NOTIFY.UNMAP);
    expect(unmaps(), 'at once, without an answer').toBe(0);
    expect(vm.control[CONTROL.QUEUE]).toBe(0);
    vm.notify(1, 0);
    settle(vm);
    expect(unmaps()).toBe(5);
    vm.assignDevice(2, 0x48, 'two');
    expect(vm.control[CONTROL.QUEUE]).toBe(0);
    expect(unmaps()).toBe(0);
  });

  it('begins anew with each connection', () => {
    const vm = plug();
    const { driver, domain } = mapped(vm);
    driver.unmap(domain, IOVA, 4096);
    expect(vm.control[CONTROL.RING_FILLED]).toBeGreaterThan(0);
    vm.close();
    const again = plug();
    expect(again.control[CONTROL.QUEUE]).toBe(0);
    expect(again.control[CONTROL.RING_TAKEN]).toBe(0);
    const { driver: other, domain: space } = mapped(again);
    other.unmap(space, IOVA, 4096);
    expect(rung(again)).toBeGreaterThan(0);
    expect(again.translate(RID, NO_PASID, ACCESS.READ, IOVA)).toBeUndefined();
  });
});

describe('a guest sees the same, whether the peer or the daemon carries out its commands', () => {
  const STEPS = 150;
  /**
   * Whether a forgotten invalidation can show. Not in scalable mode: a peer drops a whole
   * second-stage domain, and with it what the guest forgot to name.
   */
  const KINDS: readonly (readonly [GuestKind, forgets: boolean])[] = [
    ['vtd legacy', true],
    ['vtd scalable', false],
    ['smmuv3 polling', true],
    ['smmuv3 messages', true],
  ];

  it.each(KINDS)('%s', async (kind, forgets) => {
    const model = kind.startsWith('vtd') ? 'vtd' : 'smmuv3';
    let carriedOut = 0;
    for (let seed = 1; seed <= 3; seed++) {
      const guests = [true, false].map((queues) => {
        const name = `${kind.replace(' ', '-')}-${seed}-${queues ? 'itself' : 'asks'}`;
        const vm = plug({ model, name, ...(queues ? {} : { features: WITHOUT }) });
        return { vm, name, guest: new RandomGuest(kind, vm, new Rng(seed), forgets) };
      });
      const [own, asking] = guests as [(typeof guests)[0], (typeof guests)[0]];
      for (let step = 0; step < STEPS; step++) {
        const seen = own.guest.step();
        expect(seen, `seed ${seed}, step ${step}`).toEqual(asking.guest.step());
      }
      carriedOut += own.vm.peerQueue?.commands ?? 0;
      const counted = [];
      for (const { name, vm } of guests) {
        const { text } = await viommu(daemon, 'report', '--vm', name);
        const { commands, invalidations, faults } = JSON.parse(text).report.counters;
        counted.push({ commands, invalidations, faults });
        vm.close();
      }
      expect(counted[0]).toEqual(counted[1]);
    }
    expect(carriedOut).toBeGreaterThan(100);
  });
});
