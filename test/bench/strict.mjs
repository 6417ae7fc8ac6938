/**
 * Strict invalidation beside stock: every read of a disk is mapped, unmapped and invalidated before
 * the guest goes on, and so is every frame that it sends. Small random reads by NVMe and
 * virtio-blk, frames by virtio-net, and maps and unmaps of an emulated device by the guest's own
 * VFIO; with `load`, beside so many programs that never sleep.
 */

import { completionRows } from './completion.mjs';
import { startEcho } from './echo.mjs';
import { makeDisk, startMapper, startSmallIo, withPrograms } from './guests.mjs';
import { inTurns, latencyRow, rateRow, stallRow, underLoad, vfioRows } from './strict-rules.mjs';

const DISK_MIB = 64;
const KIB = 1024;
/** Queue depth, and reads of one round: some 100 ms on stock. */
const DEPTHS = [
  { depth: 1, count: 200 },
  { depth: 32, count: 640 },
];
const FRAMES = { bytes: 64, count: 200 };
const DISKS = { nvme: 'NVMe', 'virtio-blk': 'virtio-blk' };
/** What a pair of guests is measured with: reads of each disk in each shape, and frames. */
const MEASUREMENTS = Object.keys(DISKS).length * DEPTHS.length + 1;
/**
 * How much is measured: reads and frames of a round, times `scale`, or what begins in `ms`;
 * mappings of a round; rounds that do not count; turns. Beside a load a guest has a few hundredths
 * of a processor: a round is what it does in a time, and it may say nothing for longer before it
 * counts as hung.
 */
const QUIET = { scale: 1, ms: 60_000, maps: 64, warmUp: 3, turns: 16, quickTurns: 6 };
const LOADED = {
  ...{ scale: 100, ms: 3000, maps: 16, warmUp: 1, turns: 8, quickTurns: 4 },
  silenceMs: 600_000,
};
/** A round at this pace. */
const paced = (shape, pace) => ({ ...shape, count: shape.count * pace.scale, ms: pace.ms });
const MAPS = { memory: 'large', size: 4 * KIB, skew: 0 };
/** What is unmapped is tried once, before: the rounds that count have no faults between them. */
const TRIED = { ...MAPS, count: 1, strays: 1 };
/** It tries the first and the last 8 bytes; QEMU may move each in two pieces. */
const FAULTS = 4;

function devicesOf(scratch, name, echo) {
  const [nvme, virtio] = ['nvme', 'virtio'].map((kind) => makeDisk(scratch, `${name}-${kind}.raw`, DISK_MIB));
  return [
    ...['-drive', `if=none,id=d0,file=${nvme},format=raw`, '-device', 'nvme,drive=d0,serial=viommu-bench'],
    ...['-drive', `if=none,id=d1,file=${virtio},format=raw`],
    ...['-device', 'virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on'],
    ...['-netdev', `stream,id=n0,server=off,addr.type=unix,addr.path=${echo.socket}`],
    ...['-device', 'virtio-net-pci,netdev=n0,iommu_platform=on,disable-legacy=on,romfile='],
  ];
}

/**
 * Rounds of both guests in turns, after a few that do not count, and what is to be done between.
 * Returns what they gave, by side.
 */
async function collect({ pace, ...length }, round, warm = async () => {}) {
  const results = [[], []];
  for (const side of [0, 1]) for (let n = 0; n < pace.warmUp; n++) await round(side);
  await warm();
  await inTurns(length, async (side) => {
    results[side].push(await round(side));
  });
  return results;
}

async function measureReads(guests, { unit, cpus, length, load }) {
  const rows = [];
  for (const [kind, name] of Object.entries(DISKS)) {
    for (const shape of DEPTHS) {
      const what = `${cpus} vCPU, ${name} 4 KiB at depth ${shape.depth}`;
      const round = paced(shape, length.pace);
      const forget = () => Promise.all(guests.map((guest) => guest.latency()));
      const rates = await collect(length, (side) => guests[side].reads(kind, round), forget);
      rows.push(rateRow(unit, what, 'reads/s', load, rates));
      if (shape.depth > 1) continue;
      rows.push(latencyRow(unit, what, load, [await guests[0].latency(), await guests[1].latency()]));
    }
  }
  return rows;
}

/** Both guests run, and take turns. */
async function smallIo({ unit, sides, cpus, length, load, loaded, stalls }) {
  const guests = [];
  for (const side of sides) guests.push(await startSmallIo({ ...side, cpus }));
  const rows = await loaded(async () => {
    const reads = await measureReads(guests, { unit, cpus, length, load });
    for (const guest of guests) await guest.readsEnd();
    const round = paced(FRAMES, length.pace);
    const frames = await collect(length, (side) => guests[side].frames(round));
    const what = `${cpus} vCPU, virtio-net, 64 bytes there and back`;
    return [...reads, rateRow(unit, what, 'rounds/s', load, frames)];
  });
  for (const [side, guest] of guests.entries()) stalls[side].push(...(await guest.stop()));
  return rows;
}

/** VFIO of the guest on a device that QEMU emulates: no notifier hears what is mapped. */
async function mapsInTurns({ unit, sides, length, load, loaded, stalls }) {
  const mappers = [];
  for (const side of sides) mappers.push(await startMapper(side, 'viommu-testdev', 'iommu.strict=1'));
  for (const mapper of mappers) await mapper.round(TRIED);
  const round = { ...MAPS, count: length.pace.maps, strays: 0 };
  const samples = await loaded(() => collect(length, (side) => mappers[side].round(round)));
  for (const [side, mapper] of mappers.entries()) stalls[side].push(...(await mapper.stop(FAULTS)));
  return vfioRows(unit, load, samples);
}

/** @returns {Promise<import('./report.mjs').Row[]>} */
export async function strictRows({ unit, part, scratch, daemon, quick, load, minutes, progress }) {
  const pace = load === 0 ? QUIET : LOADED;
  const echo = await startEcho(scratch);
  const initramfs = withPrograms(part, scratch, `strict-${unit.target}`);
  // The bridge is on stock's side, too, for its test device alone.
  const sides = [
    { name: 'ours', side: unit.ours(daemon.socket) },
    { name: 'stock', side: unit.stock },
  ].map(({ name, side }) => ({
    ...{ unit, part, initramfs, side, preload: [part.bridge] },
    devices: devicesOf(scratch, `strict-${unit.target}-${name}`, echo),
    silenceMs: pace.silenceMs,
  }));
  const stalls = [[], []];
  // Guests start and end without it: that takes minutes beside a load, and measures nothing.
  const loaded = (what) => underLoad(load, what);
  const common = { unit, load, loaded };
  try {
    const rows = [];
    progress(`${unit.name}: one invalidation and its completion, in turns`);
    rows.push(...(await completionRows({ ...common, part, scratch, daemon, rounds: quick ? 12 : 30 })));
    const counts = quick ? [1, 2] : [1, 2, 4];
    const ms = (minutes * 60_000) / (counts.length * MEASUREMENTS);
    for (const cpus of counts) {
      progress(`${unit.name}: small reads and frames in strict mode, ${cpus} vCPU, in turns`);
      const length = { pace, turns: quick ? pace.quickTurns : pace.turns, ms };
      rows.push(...(await smallIo({ ...common, sides, cpus, length, stalls })));
    }
    progress(`${unit.name}: VFIO in strict mode, in turns`);
    const length = { pace, turns: quick ? 8 : 24 };
    rows.push(...(await mapsInTurns({ ...common, sides, length, stalls })));
    return [...rows, stallRow(unit, load, stalls)];
  } finally {
    await echo.stop();
  }
}
