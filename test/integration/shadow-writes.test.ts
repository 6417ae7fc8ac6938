import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { SimContainer } from '../../src/sim/container.js';
import { SimVm } from '../../src/sim/vm.js';
import type { VtdDriver } from '../../src/sim/vtd-driver.js';
import type { VtdDriverQueue } from '../../src/sim/vtd-queue.js';
import { CODEC } from '../../src/wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE } from '../../src/wire/frame.js';
import type { RegWriteReply } from '../../src/wire/messages.js';
import { Daemon } from '../support/daemon.js';
import { DATA, RAM_BYTES, RID, startDriver } from '../support/rig.js';

/**
 * Register writes that are answered: changes of a host's mappings come with the answer
 * (WRITE_REPLY).
 */

const IOVA = 0x4000_0000n;
const DEVICE = 1;
const PAGE = 4096;

let daemon: Daemon;
let vm: SimVm;
let host: SimContainer;
let driver: VtdDriver;
let domain: ReturnType<VtdDriver['createDomain']>;
let queue: VtdDriverQueue;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});

function start(features = ALL_FEATURES & ~FEATURE.PEER_WALKS): void {
  vm = SimVm.connect(daemon.socket, { ramBytes: RAM_BYTES, options: { 'caching-mode': 'on' }, features });
  host = vm.assignDevice(DEVICE, RID);
  driver = startDriver(vm, 'legacy');
  domain = driver.createDomain('second');
  driver.attach(RID, domain);
  queue = driver.queue as VtdDriverQueue;
}

afterEach(() => {
  expect(host.misuse).toEqual([]);
  vm.close();
});

/**
 * Changes the tables and invalidates, without waiting. Returns the value that the status word has
 * when that is complete.
 */
function announce(change: (table: NonNullable<typeof domain.table>) => void): number {
  change(domain.table as NonNullable<typeof domain.table>);
  driver.invalidate.iotlbDomain(domain.did);
  const value = queue.submitWait();
  queue.kick();
  return value;
}

/** The batch that came with the last write's answer. It is not carried out yet. */
function held(): RegWriteReply {
  expect(vm.heldBatches).toHaveLength(1);
  return (vm.heldBatches as RegWriteReply[]).shift() as RegWriteReply;
}

/** Everything that was sent before has been handled. */
function settle(): void {
  vm.askRegister(0, 4);
}

describe('a batch that comes with the answer to a register write', () => {
  beforeEach(() => start());

  it('holds the completion until it is answered', () => {
    vm.heldBatches = [];
    const value = announce((table) => table.map(IOVA, DATA, PAGE));
    const batch = held();
    expect(batch.device).toBe(DEVICE);
    expect(batch.ops).toHaveLength(7);
    settle();
    expect(queue.completed()).not.toBe(value);
    vm.carryOut(batch);
    settle();
    expect(queue.completed()).toBe(value);
    expect(host.mappings.size).toBe(1);
  });

  it('is overtaken by nothing: what follows is sent when it is answered', () => {
    driver.map(domain, IOVA, DATA, PAGE);
    let batches = 0;
    vm.onHostBatch = () => batches++;
    vm.heldBatches = [];
    const value = announce((table) => {
      table.unmap(IOVA, PAGE);
      table.map(IOVA, DATA + PAGE, PAGE);
    });
    const unmap = held();
    expect(unmap.ops[0]).toBe(0);
    settle();
    vm.client.serve(100);
    expect(batches).toBe(0);
    vm.carryOut(unmap);
    while (queue.completed() !== value) vm.idle(10);
    expect(batches).toBe(2);
    expect([...host.mappings.values()].map(({ gpa }) => gpa)).toEqual([DATA + PAGE]);
  });

  it('does not come when there is nothing to do, and others do not wait for it', () => {
    driver.map(domain, IOVA, DATA, PAGE);
    vm.heldBatches = [];
    const nothing = announce(() => {});
    expect(vm.heldBatches).toEqual([]);
    settle();
    expect(queue.completed()).toBe(nothing);
    announce((table) => table.map(IOVA + 0x10000n, DATA, PAGE));
    const batch = held();
    // A second change waits for the first.
    const value = announce((table) => table.map(IOVA + 0x20000n, DATA, PAGE));
    expect(vm.heldBatches).toEqual([]);
    vm.carryOut(batch);
    while (queue.completed() !== value) vm.idle(10);
    expect(host.mappings.size).toBe(3);
  });

  it('reports what the host refused, as any batch does', () => {
    host.limit = 1;
    driver.map(domain, IOVA, DATA, PAGE);
    driver.map(domain, IOVA + 0x2000n, DATA, PAGE);
    expect(host.mappings.size).toBe(1);
    driver.unmap(domain, IOVA, PAGE);
    vm.settle();
    expect([...host.mappings.values()].map(({ first }) => first)).toEqual([IOVA + 0x2000n]);
  });

  it.each(['a second time', 'on the other channel'] as const)(
    'ends the session when it is answered %s',
    (how) => {
      vm.heldBatches = [];
      announce((table) => table.map(IOVA, DATA, PAGE));
      const batch = held();
      const none = { failures: [] };
      if (how === 'a second time') {
        vm.carryOut(batch);
        vm.client.send(MESSAGE.HOST_BATCH, FLAG.REPLY, batch.batch, CODEC.HostBatchReply, none);
      } else {
        vm.client.backend.put(MESSAGE.HOST_BATCH, FLAG.REPLY, batch.batch, CODEC.HostBatchReply, none);
        vm.client.backend.flush();
      }
      expect(vm.client.awaitEnd()).toMatchObject({ reason: 'UNEXPECTED_REPLY' });
    },
  );

  it('is all that is answered on the front channel', () => {
    const none = { failures: [] };
    vm.client.send(MESSAGE.HOST_BATCH, FLAG.REPLY, 0, CODEC.HostBatchReply, none);
    expect(vm.client.awaitEnd()).toMatchObject({ reason: 'UNEXPECTED_REPLY' });
  });
});

it('comes on the backend channel for a peer without the feature, whose writes are not answered', () => {
  start(ALL_FEATURES & ~FEATURE.PEER_WALKS & ~FEATURE.WRITE_REPLY);
  driver.map(domain, IOVA, DATA, PAGE);
  expect(vm.traffic.batchesInAnswers).toBe(0);
  expect(host.mappings.size).toBe(1);
  const write = { offset: 0, size: 4, lo: 0, hi: 0 };
  vm.client.send(MESSAGE.REG_WRITE, FLAG.NEED_REPLY, 77, CODEC.RegWrite, write);
  expect(vm.askRegister(0, 4)).not.toBe(0n);
});
