import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { NO_PASID } from '../../src/base/ids.js';
import { ACCESS } from '../../src/device/iommu.js';
import { AtsDevice } from '../../src/sim/ats-device.js';
import { SimVm } from '../../src/sim/vm.js';
import type { VtdDriver } from '../../src/sim/vtd-driver.js';
import { PageRequestQueue } from '../../src/sim/vtd-pages.js';
import type { VtdDriverQueue } from '../../src/sim/vtd-queue.js';
import {
  CC_GRANULARITY,
  CCMD_REG,
  GCMD_REG,
  GSTS_REG,
  IOTLB_GRANULARITY,
  IOTLB_REG,
} from '../../src/spec/vtd/registers.js';
import { ALL_FEATURES, FEATURE } from '../../src/wire/frame.js';
import type { Invalidate } from '../../src/wire/messages.js';
import { Daemon } from '../support/daemon.js';
import { DATA, device, expectReaches, RAM_BYTES, RID, startDriver } from '../support/rig.js';

const IOVA = 0x4000_0000n;

/** Blocks this thread. The daemon is another process and goes on. */
function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function queueOf(driver: VtdDriver): VtdDriverQueue {
  if (driver.queue === undefined) throw new Error('no queue');
  return driver.queue;
}

describe('ordering rules of the wire', () => {
  let daemon: Daemon;
  let vm: SimVm;
  beforeAll(async () => {
    daemon = await Daemon.start();
    // These look at what the peer is asked for; what it does by itself is queues.test.ts's.
    const features = ALL_FEATURES & ~(FEATURE.PEER_WALKS | FEATURE.QUEUES);
    vm = SimVm.connect(daemon.socket, { ramBytes: RAM_BYTES, features });
  });
  beforeEach(() => {
    vm.reset();
    vm.onInvalidate = () => {};
  });
  afterAll(async () => {
    vm.close();
    await daemon.dispose();
  });

  /**
   * Lets the daemon handle what was sent, then serves the INVALIDATE that must have come, and runs
   * `look` once before it is acknowledged. No other request is in flight then, so `look` may ask.
   */
  const whileUnacknowledged = (look: (message: Invalidate) => void): void => {
    let seen = 0;
    vm.onInvalidate = (message) => {
      if (seen++ > 0) return;
      pause(30);
      look(message);
    };
    pause(30);
    for (let wait = 0; wait < 500 && seen === 0; wait++) vm.idle(10);
    expect(seen, 'INVALIDATEs').toBeGreaterThan(0);
  };

  /** Puts a wait at the queue's end and rings the doorbell. Returns the status value to come. */
  const kick = (driver: VtdDriver, interrupt = false): number => {
    const value = queueOf(driver).submitWait({ interrupt });
    queueOf(driver).kick();
    return value;
  };

  const mapped = (mode: 'legacy' | 'scalable' = 'legacy', options = {}) => {
    const driver = startDriver(vm, mode, options);
    const domain = driver.createDomain('second');
    driver.attach(RID, domain);
    driver.map(domain, IOVA, DATA, 4096);
    expectReaches(vm, device(vm), IOVA, DATA);
    return { driver, domain };
  };

  it('1: a translation asked for after a register write sees it, without any read in between', () => {
    startDriver(vm, 'legacy');
    for (let round = 0; round < 100; round++) {
      vm.writeRegister(GCMD_REG.offset, 4, 0x0400_0000n);
      expect(vm.askTranslation(RID, NO_PASID, ACCESS.READ, IOVA).status, `TE clear, round ${round}`).toBe(0);
      vm.writeRegister(GCMD_REG.offset, 4, 0x8400_0000n);
      expect(vm.askTranslation(RID, NO_PASID, ACCESS.READ, IOVA).status, `TE set, round ${round}`).toBe(1);
      vm.idle(0);
    }
  });

  it('1: a register read sees every write sent before it', () => {
    for (let n = 0; n < 200; n++) {
      vm.writeRegister(0x3c, 4, BigInt(n));
      expect(vm.readRegister(0x3c, 4)).toBe(BigInt(n));
      expect(vm.askRegister(0x3c, 4)).toBe(BigInt(n));
    }
  });

  it('2: a wait descriptor completes only after the invalidation before it was acknowledged', () => {
    const { driver, domain } = mapped();
    const queue = queueOf(driver);
    let completed = -1;
    const before = queue.completed();
    domain.table?.unmap(IOVA, 4096);
    driver.invalidateRange(domain, IOVA, 4096);
    const value = kick(driver);
    whileUnacknowledged(() => {
      completed = queue.completed();
    });
    expect(completed, 'status word while the acknowledgement is missing').toBe(before);
    queue.await(value);
    expect(vm.iotlb.lookup(RID, NO_PASID, ACCESS.READ, IOVA)).toBeUndefined();
  });

  it('2: nor does its interrupt come before that', () => {
    const { driver, domain } = mapped();
    vm.writeRegister(0xa4, 4, 0x33n);
    vm.writeRegister(0xa8, 4, 0xfee0_0000n);
    vm.writeRegister(0xa0, 4, 0n);
    let early = false;
    driver.invalidate.iotlbDomain(domain.did);
    const value = kick(driver, true);
    whileUnacknowledged(() => {
      early = vm.interrupts.length > 0 || vm.askRegister(0x9c, 4) !== 0n;
    });
    queueOf(driver).await(value);
    for (let i = 0; i < 200 && vm.interrupts.length === 0; i++) vm.idle(1);
    expect(early).toBe(false);
    expect(vm.interrupts).toHaveLength(1);
  });

  it('2: CCMD_REG.ICC and IOTLB_REG.IVT stay set until then', () => {
    const { driver, domain } = mapped('legacy', { invalidation: 'registers' });
    let busy = -1;
    driver.registers.write(IOTLB_REG, { IIRG: IOTLB_GRANULARITY.DOMAIN, DID: domain.did, IVT: 1 });
    whileUnacknowledged(() => {
      busy = driver.registers.field(IOTLB_REG, 'IVT');
    });
    expect(busy, 'IVT while the acknowledgement is missing').toBe(1);
    driver.registers.waitUntil(() => driver.registers.field(IOTLB_REG, 'IVT') === 0, 'IVT = 0');
    expectReaches(vm, device(vm), IOVA, DATA);
    driver.registers.write(CCMD_REG, { CIRG: CC_GRANULARITY.GLOBAL, ICC: 1 });
    whileUnacknowledged(() => {
      busy = driver.registers.field(CCMD_REG, 'ICC');
    });
    expect(busy, 'ICC while the acknowledgement is missing').toBe(1);
    driver.registers.waitUntil(() => driver.registers.field(CCMD_REG, 'ICC') === 0, 'ICC = 0');
  });

  it('2: GSTS_REG.TES is set only after what was let through before is forgotten', () => {
    expectReaches(vm, device(vm), BigInt(DATA), DATA);
    expect(vm.iotlb.size).toBeGreaterThan(0);
    let early = -1;
    vm.writeRegister(GCMD_REG.offset, 4, 0x8000_0000n);
    whileUnacknowledged(() => {
      early = Number(vm.askRegister(GSTS_REG.offset, 4) >> 31n);
    });
    expect(early, 'TES while the acknowledgement is missing').toBe(0);
    for (let i = 0; i < 500 && vm.readRegister(GSTS_REG.offset, 4) === 0n; i++) vm.idle(1);
    expect(vm.readRegister(GSTS_REG.offset, 4)).toBe(0x8000_0000n);
    expect(vm.translate(RID, NO_PASID, ACCESS.READ, BigInt(DATA))).toBeUndefined();
  });

  it('3: an answer from before an invalidation is older than it, and is not kept', () => {
    const { driver, domain } = mapped();
    const old = vm.askTranslation(RID, NO_PASID, ACCESS.READ, IOVA);
    const stale = { space: old.space, sub: old.sub, epoch: old.epoch, spans: Array.from(old.spans) };
    let epoch = -1;
    vm.onInvalidate = (message) => {
      epoch = message.epoch;
    };
    driver.unmap(domain, IOVA, 4096);
    expect((epoch - stale.epoch) | 0, 'the epoch advanced').toBeGreaterThan(0);
    const dropped = vm.iotlb.counters.staleFills;
    expect(vm.iotlb.fill(RID, NO_PASID, stale.space, stale.sub, stale.epoch, stale.spans)).toBe(false);
    expect(vm.iotlb.counters.staleFills).toBe(dropped + 1);
    expect(vm.iotlb.lookup(RID, NO_PASID, ACCESS.READ, IOVA)).toBeUndefined();
  });

  it('3: an answer computed while an invalidation is on its way carries its epoch', () => {
    const { driver, domain } = mapped();
    let invalidation = -1;
    let answer = -2;
    driver.invalidate.iotlbDomain(domain.did);
    const value = kick(driver);
    whileUnacknowledged((message) => {
      invalidation = message.epoch;
      answer = vm.askTranslation(RID, NO_PASID, ACCESS.READ, IOVA).epoch;
    });
    queueOf(driver).await(value);
    expect((answer - invalidation) | 0).toBeGreaterThanOrEqual(0);
    // That answer may be kept: nothing has been withdrawn since.
    expectReaches(vm, device(vm), IOVA, DATA);
    expect(vm.iotlb.lookup(RID, NO_PASID, ACCESS.READ, IOVA)).toBeDefined();
  });

  it('4: reset drops every translation and every table', () => {
    mapped();
    expect(vm.iotlb.size).toBeGreaterThan(0);
    let everything = false;
    vm.onInvalidate = (message) => {
      if (message.space === 0xffff_ffff && message.log2Size >= 64) everything = true;
    };
    vm.reset();
    for (let i = 0; i < 200 && !everything; i++) vm.idle(1);
    expect(everything, 'the bridge was told to drop everything').toBe(true);
    expect(vm.readRegister(GSTS_REG.offset, 4)).toBe(0n);
    expect(vm.readRegister(0x20, 8)).toBe(0n);
    expectReaches(vm, device(vm), BigInt(DATA), DATA);
    const driver = startDriver(vm, 'legacy');
    expect(vm.translate(RID, NO_PASID, ACCESS.READ, IOVA)).toBeUndefined();
    expect(driver.faults.drain()).toHaveLength(1);
  });

  it('5: translations and register reads are answered while an acknowledgement is missing', () => {
    const { driver, domain } = mapped();
    driver.map(domain, IOVA + 0x10_0000n, DATA + 4096, 4096);
    let answered = 0;
    driver.invalidate.iotlbDomain(domain.did);
    const value = kick(driver);
    whileUnacknowledged(() => {
      for (let n = 0; n < 50; n++) {
        const reply = vm.askTranslation(RID, NO_PASID, ACCESS.READ, IOVA + 0x10_0000n);
        if (reply.status === 0) answered++;
        vm.askRegister(GSTS_REG.offset, 4);
      }
    });
    expect(answered).toBe(50);
    queueOf(driver).await(value);
  });

  it("7: a device's page requests come before its answer", () => {
    const options = { 'device-tlb': 'on', 'page-requests': 'on' };
    // Memory by message shows in which order the unit writes.
    const own = SimVm.connect(daemon.socket, { options, ramBytes: RAM_BYTES, sharedMemory: false });
    try {
      const driver = startDriver(own, 'scalable');
      const queue = queueOf(driver);
      driver.attach(RID, driver.createDomain('first'), { pasid: 9, ats: true, pri: true });
      const pages = new PageRequestQueue(driver.registers, queue, driver.pages);
      pages.enable();
      const ats = new AtsDevice(own, RID);
      ats.onDrop = () => ats.requestPages(9, [{ address: IOVA, access: ACCESS.READ }]);
      const written: number[] = [];
      const view = own.ram.view.bind(own.ram);
      own.ram.view = (gpa, bytes) => {
        written.push(gpa);
        return view(gpa, bytes);
      };
      driver.invalidate.deviceTlb(RID, 9, 0n, 52);
      const value = queue.submitWait({ drainPages: true });
      queue.kick();
      queue.await(value);
      const request = written.indexOf(pages.base);
      expect(request).toBeGreaterThanOrEqual(0);
      expect(written.indexOf(queue.status), 'the status, behind the request').toBeGreaterThan(request);
      expect(pages.peek()).toMatchObject([{ address: IOVA, pasid: 9 }]);
    } finally {
      own.close();
    }
  });
});
