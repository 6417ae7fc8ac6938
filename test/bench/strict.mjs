/**
 * Strict invalidation beside stock: every read of a disk is mapped, unmapped and invalidated before the guest goes on. Small
 * random reads by NVMe and virtio-blk, and maps and unmaps of an emulated device by the guest's own VFIO; with `load`, beside so
 * many programs that never sleep.
 */

import { spawn } from 'node:child_process';
import { track } from './children.mjs';
import { Guest, makeDisk, startMapper, withPrograms } from './guests.mjs';
import { summary } from './report.mjs';

const DISK_MIB = 64;
const KIB = 1024;
/** Queue depth, and reads of one round: some 100 ms on stock. */
const DEPTHS = [
  { depth: 1, count: 200 },
  { depth: 32, count: 640 },
];
const WARM_UP_ROUNDS = 3;
const MAPS = { memory: 'large', size: 4 * KIB, skew: 0, count: 64 };

/** What ours has to reach beside stock, on a quiet machine and under load. */
const REACH = { quiet: 0.95, load: 0.8, unmap: 1.3 };

/** A guest that waits to read its two disks. */
async function startDisks(options, disks) {
  const guest = new Guest({
    ...options,
    devices: disks,
    append: 'iommu.strict=1 viommu.run=read-bench',
  });
  const words = (await guest.expect('read-bench nvme=')).split(' ').slice(1);
  const names = Object.fromEntries(words.map((word) => word.split('=')));
  await guest.expect('read-bench state=ready');
  return {
    /** Reads a second in one round. */
    async rate(kind, { depth, count }) {
      guest.say(`${names[kind]} ${depth} ${count}`);
      const found = /ns=(\d+) reads=(\d+)/.exec(await guest.expect('read-bench ns='));
      return (Number(found[2]) * 1e9) / Number(found[1]);
    },
    async stop() {
      guest.say('end');
      await guest.finish();
    },
  };
}

function diskArguments(scratch, name) {
  const [nvme, virtio] = ['nvme', 'virtio'].map((kind) => makeDisk(scratch, `${name}-${kind}.raw`, DISK_MIB));
  return [
    ...['-drive', `if=none,id=d0,file=${nvme},format=raw`, '-device', 'nvme,drive=d0,serial=viommu-bench'],
    ...['-drive', `if=none,id=d1,file=${virtio},format=raw`],
    ...['-device', 'virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on'],
  ];
}

/** Both guests run, and take turns. Returns rows. */
async function readsInTurns({ unit, sides, cpus, turns, load }) {
  const guests = [];
  for (const side of sides) guests.push(await startDisks({ ...side, cpus }, side.disks));
  const rows = [];
  for (const kind of ['nvme', 'virtio-blk']) {
    for (const shape of DEPTHS) {
      const rates = [[], []];
      for (const guest of guests) for (let n = 0; n < WARM_UP_ROUNDS; n++) await guest.rate(kind, shape);
      for (let turn = 0; turn < turns; turn++) {
        // The side that goes first follows itself the next time.
        const order = turn % 2 === 0 ? [0, 1] : [1, 0];
        for (const at of order) rates[at].push(await guests[at].rate(kind, shape));
      }
      const name = kind === 'nvme' ? 'NVMe' : kind;
      const beside = load === 0 ? '' : `, load ${load}`;
      rows.push({
        name: `${unit.name}: strict, ${cpus} vCPU, ${name} 4 KiB at depth ${shape.depth}${beside}`,
        unit: 'reads/s',
        ours: summary(rates[0]).median,
        reference: summary(rates[1]).median,
        what: 'stock',
        reach: load === 0 ? REACH.quiet : REACH.load,
        atLeast: true,
      });
    }
  }
  for (const guest of guests) await guest.stop();
  return rows;
}

/** VFIO of the guest on a device that QEMU emulates: no notifier hears what is mapped. */
async function mapsInTurns({ unit, sides, turns, load }) {
  const mappers = [];
  for (const side of sides) mappers.push(await startMapper(side, 'viommu-testdev', 'iommu.strict=1'));
  const samples = [[], []];
  for (const mapper of mappers) for (let n = 0; n < WARM_UP_ROUNDS; n++) await mapper.round(MAPS);
  for (let turn = 0; turn < turns; turn++) {
    const order = turn % 2 === 0 ? [0, 1] : [1, 0];
    for (const at of order) samples[at].push(await mappers[at].round(MAPS));
  }
  // What is unmapped is tried, too, and faults: the guest's log is not empty.
  for (const mapper of mappers) await mapper.kill();
  const beside = load === 0 ? '' : `, load ${load}`;
  const row = (what, of) => ({
    name: `${unit.name}: strict, VFIO ${what} of 4 KiB, emulated device${beside}`,
    unit: 'µs',
    ours: summary(samples[0].map(of)).median / 1000,
    reference: summary(samples[1].map(of)).median / 1000,
    what: 'stock',
    ...(what === 'unmap' ? { reach: REACH.unmap } : {}),
  });
  return [row('map', (s) => s.map_ns), row('unmap', (s) => s.unmap_ns)];
}

/** Programs that never sleep. Returns what ends them. */
function startLoad(count) {
  const children = Array.from({ length: count }, () =>
    track(spawn('/bin/sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' })),
  );
  return () => {
    for (const child of children) child.kill('SIGKILL');
  };
}

/** @returns {Promise<import('./report.mjs').Row[]>} */
export async function strictRows({ unit, part, scratch, daemon, quick, load, progress }) {
  const initramfs = withPrograms(part, scratch, `strict-${unit.target}`);
  const common = { unit, part, initramfs };
  const disks = (name) => diskArguments(scratch, `strict-${unit.target}-${name}`);
  // The bridge is on stock's side, too, for its test device alone.
  const sides = [
    { ...common, preload: [part.bridge], side: unit.ours(daemon.socket), disks: disks('ours') },
    { ...common, preload: [part.bridge], side: unit.stock, disks: disks('stock') },
  ];
  const end = startLoad(load);
  try {
    const rows = [];
    for (const cpus of quick ? [1, 2] : [1, 2, 4]) {
      progress(`${unit.name}: small reads in strict mode, ${cpus} vCPU, in turns`);
      rows.push(...(await readsInTurns({ unit, sides, cpus, turns: quick ? 6 : 16, load })));
    }
    progress(`${unit.name}: VFIO in strict mode, in turns`);
    rows.push(...(await mapsInTurns({ unit, sides, turns: quick ? 8 : 24, load })));
    return rows;
  } finally {
    end();
  }
}
