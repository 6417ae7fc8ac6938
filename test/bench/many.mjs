/**
 * Many machines on one daemon: what 63 idle ones cost the one that is busy, and what 64 idle ones
 * cost the host. The machines are simulated ones on real sockets. The daemon completes each
 * invalidation of the busy one.
 */

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { SimVm } from '../../dist/sim/vm.js';
import { VtdDriver } from '../../dist/sim/vtd-driver.js';
import { ALL_FEATURES, FEATURE } from '../../dist/wire/frame.js';
import { summary } from './report.mjs';

const MACHINES = 64;
const RAM = 2 ** 22;
const IOVA = 0x4000_0000n;
const RID = 0x18;
const WARM_UP = 200;
/** Of the kernel's accounting of processor time. */
const TICK_MS = 10;
/** Of what a busy machine takes when it is alone. */
const TARGET = 1.1;
/** A thousandth of one processor for each machine: more than a look now and then. */
const IDLE_MS = 64;

/** A guest with one page mapped. */
function start(socket, name) {
  const features = ALL_FEATURES & ~(FEATURE.QUEUES | FEATURE.PEER_WALKS);
  const vm = SimVm.connect(socket, { name, ramBytes: RAM, features });
  const driver = new VtdDriver(vm, { mode: 'legacy', pages: [RAM / 2, RAM] });
  driver.start();
  const domain = driver.createDomain('second');
  driver.attach(RID, domain);
  return { vm, driver, domain };
}

/** Microseconds from a page's unmapping to its completion; the page has been used. */
function completion({ vm, driver, domain }) {
  driver.map(domain, IOVA, 0x1000, 4096);
  vm.translate(RID, -1, 1, IOVA);
  const before = process.hrtime.bigint();
  driver.unmap(domain, IOVA, 4096);
  return Number(process.hrtime.bigint() - before) / 1000;
}

function rounds(guest, count) {
  return Array.from({ length: count }, () => completion(guest));
}

/** Of a process, user and system, in milliseconds. */
function processorTime(pid) {
  const words = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(words[11]) + Number(words[12])) * TICK_MS;
}

/** @returns {Promise<import('./report.mjs').Row[]>} */
export async function manyRows({ daemon, quick, progress }) {
  const count = quick ? 500 : 2000;
  const seconds = quick ? 4 : 10;
  const guests = [start(daemon.socket, 'busy')];
  try {
    progress('one machine alone on a daemon');
    rounds(guests[0], WARM_UP);
    const alone = summary(rounds(guests[0], count)).median;
    progress(`${MACHINES} machines on a daemon`);
    while (guests.length < MACHINES) guests.push(start(daemon.socket, `idle-${guests.length}`));
    rounds(guests[0], WARM_UP);
    const beside = summary(rounds(guests[0], count)).median;
    await sleep(1000);
    const before = processorTime(daemon.pid);
    await sleep(seconds * 1000);
    const idle = (processorTime(daemon.pid) - before) / seconds;
    return [
      {
        name: `many: a completion by the daemon, beside ${MACHINES - 1} idle machines`,
        unit: 'µs',
        ours: beside,
        reference: alone,
        what: 'alone',
        target: TARGET,
      },
      {
        name: `many: processor time of ${MACHINES} idle machines, each second`,
        unit: 'ms',
        ours: idle,
        reference: 1000,
        what: 'one processor',
        atMost: IDLE_MS,
      },
    ];
  } finally {
    for (const { vm } of guests) vm.close();
  }
}
