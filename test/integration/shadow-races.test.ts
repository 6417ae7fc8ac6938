import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SimContainer } from '../../src/sim/container.js';
import { SimVm } from '../../src/sim/vm.js';
import { Daemon, MAIN } from '../support/daemon.js';
import { DATA, MIB, RAM_BYTES, RID, startDriver } from '../support/rig.js';
import { SID, startSmmu } from '../support/smmu-rig.js';
import { titled } from '../support/titled.js';

/**
 * Another processor of the guest stores to live tables of an assigned device as fast as it can,
 * without a word, while invalidations make a real daemon look at them.
 */

const ENTRIES = 512;
const PAGE = 4096;
const ROUNDS = 60;
/** So many pages of memory each entry is ever to lead to, and the rights that it gives. */
const CHOICES = 3;
const READ_WRITE = 3;

/** Runs in a thread of its own: entry `n` is nothing, or leads to one of its own pages. */
const WRITER = `
  const { workerData } = require('node:worker_threads');
  const { native, fd, bytes, table, data, bits, stop } = workerData;
  import(native).then(({ FileMapping }) => {
    const file = new FileMapping(fd, 0, bytes, true);
    const entries = new BigInt64Array(file.view(0, bytes), table, ${ENTRIES});
    const flags = new Int32Array(stop);
    let seed = 1;
    while (Atomics.load(flags, 0) === 0) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      const n = (seed >>> 8) % ${ENTRIES};
      const choice = (seed >>> 20) % ${CHOICES + 1};
      const page = (n * ${CHOICES} + choice) * ${PAGE};
      Atomics.store(entries, n, choice === ${CHOICES} ? 0n : BigInt(data + page) | BigInt(bits));
      flags[1]++;
    }
    file.unmap();
  });
`;

interface Guest {
  readonly vm: SimVm;
  readonly host: SimContainer;
  /** The leaf table, and the bits of an entry beside its address. */
  readonly table: number;
  readonly bits: number;
  readonly iova: bigint;
  /** The guest invalidates some pages, or everything, and waits. */
  invalidate(first?: number): void;
}

const IOVA = 0x4000_0000n;

function vtd(socket: string, kind: 'first' | 'second'): Guest {
  const vm = SimVm.connect(socket, { ramBytes: RAM_BYTES, options: { 'caching-mode': 'on' } });
  const driver = startDriver(vm, kind === 'first' ? 'scalable' : 'legacy');
  const domain = driver.createDomain(kind);
  driver.attach(RID, domain);
  const host = vm.assignDevice(1, RID);
  driver.map(domain, IOVA, DATA, PAGE);
  return {
    vm,
    host,
    table: domain.table?.entryAddress(IOVA) as number,
    bits: kind === 'first' ? 7 : 3,
    iova: IOVA,
    invalidate: (first) => {
      if (first === undefined) driver.invalidate.iotlbGlobal();
      else driver.invalidateRange(domain, IOVA + BigInt(first * PAGE), 64 * PAGE);
      driver.invalidate.sync();
    },
  };
}

function smmu(socket: string): Guest {
  const vm = SimVm.connect(socket, { model: 'smmuv3', ramBytes: RAM_BYTES });
  const driver = startSmmu(vm);
  const domain = driver.createDomain('first');
  driver.attach(SID, domain);
  const host = vm.assignDevice(1, SID);
  domain.table?.map(IOVA, DATA, PAGE);
  return {
    vm,
    host,
    table: domain.table?.entryAddress(IOVA) as number,
    bits: 0x443,
    iova: IOVA,
    invalidate: (first) => {
      if (first === undefined) driver.commands.translationsAll();
      else driver.invalidateRange(domain, IOVA + BigInt(first * PAGE), 64 * PAGE);
      driver.commands.sync();
    },
  };
}

/** Pages of memory, counted from {@link DATA}, by the entry that leads to them. */
function mapped({ host, iova }: Guest): Map<number, number> {
  const pages = new Map<number, number>();
  for (const { first, last, gpa, access } of host.mappings.values()) {
    expect(access).toBe(READ_WRITE);
    for (let at = 0n; first + at < last; at += 4096n) {
      pages.set(Number((first + at - iova) / 4096n), (gpa + Number(at) - DATA) / PAGE);
    }
  }
  return pages;
}

let daemon: Daemon;

beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(async () => {
  await daemon.dispose();
});

describe('a guest that stores to its tables while they are looked at', () => {
  it.each(
    titled(
      [
        { unit: 'VT-d, second stage', make: () => vtd(daemon.socket, 'second') },
        { unit: 'VT-d, first stage', make: () => vtd(daemon.socket, 'first') },
        { unit: 'SMMUv3', make: () => smmu(daemon.socket) },
      ],
      ({ unit }) => `${unit}: nothing is mapped that no entry says, and in the end what all say`,
    ),
  )('%s', async (_title, { make }) => {
    const guest = make();
    const { vm } = guest;
    const stop = new SharedArrayBuffer(8);
    const flags = new Int32Array(stop);
    const native = pathToFileURL(join(dirname(MAIN), 'base/native.js')).href;
    const workerData = { native, fd: vm.ram.regions[0]?.fd, bytes: RAM_BYTES, stop, data: DATA };
    const writer = new Worker(WRITER, {
      eval: true,
      workerData: { ...workerData, table: guest.table, bits: guest.bits },
    });
    const ended = once(writer, 'exit');
    await once(writer, 'online');
    let seen = 0;
    for (let round = 0; round < ROUNDS; round++) {
      guest.invalidate(round % 4 === 0 ? undefined : (round * 64) % ENTRIES);
      const pages = mapped(guest);
      seen += pages.size;
      for (const [entry, page] of pages) {
        const choice = page - entry * CHOICES;
        if (entry === 0 && page === 0) continue;
        expect(choice, `entry ${entry} leads to page ${page}`).toBeGreaterThanOrEqual(0);
        expect(choice, `entry ${entry} leads to page ${page}`).toBeLessThan(CHOICES);
      }
      // The thread begins after it is said to be online.
      if (round === 0) while (Atomics.load(flags, 1) === 0) await new Promise((wake) => setTimeout(wake, 5));
    }
    Atomics.store(flags, 0, 1);
    await ended;
    expect(flags[1], 'stores of the other processor').toBeGreaterThan(ROUNDS);
    expect(seen, 'pages found mapped').toBeGreaterThan(ROUNDS);

    guest.invalidate();
    const wanted = new Map<number, number>();
    for (let n = 0; n < ENTRIES; n++) {
      const entry = vm.ram.load64(guest.table + n * 8);
      if (entry !== 0n) wanted.set(n, (Number(entry & 0xffff_ffff_f000n) - DATA) / PAGE);
    }
    expect(wanted.size).toBeGreaterThan(ENTRIES / 4);
    expect([...mapped(guest)].sort()).toEqual([...wanted].sort());
    expect(guest.host.misuse).toEqual([]);
    expect(ENTRIES * CHOICES * PAGE).toBeLessThan(RAM_BYTES - 16 * MIB);
    vm.close();
  });
});
