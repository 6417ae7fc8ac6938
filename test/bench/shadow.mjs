/**
 * Shadowing beside stock's intel-iommu with caching mode: what a guest's map and unmap through VFIO
 * cost with an assigned device, and what it costs to tell a listener of everything, or of nothing.
 */

import { startMapper, withPrograms } from './guests.mjs';
import { summary } from './report.mjs';
import { ShimMachine } from './shim.mjs';
import { UNITS } from './units.mjs';

const KIB = 1024;
const MIB = 1024 * KIB;

/**
 * Rounds of the guest's program: what is mapped, how it lies, how many times in one round. A round
 * takes 10 ms or more of a guest on stock: before it, both sides have done nothing for longer than
 * that, and what they do first finds their caches cold.
 */
const SHAPES = [
  { name: '4 KiB', memory: 'large', size: 4 * KIB, skew: 0, count: 512 },
  {
    name: '4 KiB, a single one after a pause',
    memory: 'large',
    size: 4 * KIB,
    skew: 0,
    count: 1,
    single: true,
  },
  { name: '2 MiB, a large page', memory: 'large', size: 2 * MIB, skew: 0, count: 256 },
  { name: '2 MiB in pages of 4 KiB', memory: 'large', size: 2 * MIB, skew: 4 * KIB, count: 16 },
  { name: '2 MiB of scattered pages', memory: 'scattered', size: 2 * MIB, skew: 0, count: 4 },
  { name: '64 MiB in large pages', memory: 'large', size: 64 * MIB, skew: 0, count: 4 },
  { name: '64 MiB in pages of 4 KiB', memory: 'large', size: 64 * MIB, skew: 4 * KIB, count: 2 },
];
/** Until the daemon's code is compiled hot, its first thousands of completions say nothing. */
const WARM_UP = { memory: 'large', size: 4 * KIB, skew: 0, count: 64 };
const WARM_UP_ROUNDS = 80;

const CACHING = ',caching-mode=on';

function sidesOf(socket) {
  const { ours, stock } = UNITS.vtd;
  const [option, device] = stock.iommu;
  return [ours(socket, CACHING), { ...stock, iommu: [option, device + CACHING] }];
}

/** Both guests run, and take turns. Returns samples by shape, of each side. */
async function mapInTurns({ part, scratch, daemon, quick }) {
  const initramfs = withPrograms(part, scratch, 'shadow');
  const mappers = [];
  const samples = SHAPES.map(() => [[], []]);
  for (const side of sidesOf(daemon.socket)) {
    mappers.push(await startMapper({ unit: UNITS.vtd, part, side, preload: [part.bridge], initramfs }));
  }
  for (let round = 0; round < WARM_UP_ROUNDS; round++) await mappers[0].round(WARM_UP);
  const rounds = quick ? 8 : 24;
  for (let round = 0; round < rounds; round++) {
    for (const [index, shape] of SHAPES.entries()) {
      // The first of a round is the second of the next.
      const order = round % 2 === 0 ? [0, 1] : [1, 0];
      for (const at of order) samples[index][at].push(await mappers[at].round(shape));
    }
  }
  for (const mapper of mappers) await mapper.stop();
  return samples;
}

const least = (list, of) => summary(list.map(of)).min;

function mapRows(samples) {
  const rows = [];
  for (const [index, shape] of SHAPES.entries()) {
    const [ours, stock] = samples[index];
    const both = (s) => (s.map_ns + s.unmap_ns) / 1000;
    rows.push({
      name: `VT-d: assigned, map + unmap ${shape.name}`,
      unit: 'µs',
      ours: least(ours, both),
      reference: least(stock, both),
      what: 'stock',
      ...(shape.single ? {} : { target: 1 }),
    });
  }
  for (const [index, shape] of SHAPES.entries()) {
    if (shape.single) continue;
    const [ours, stock] = samples[index];
    const most = (list, of) => Math.max(...list.map(of)) / shape.count;
    const operations = (what, of, more) => ({
      name: `VT-d: assigned, host operations to ${what} ${shape.name}`,
      unit: 'ops',
      ours: most(ours, of),
      ...more,
    });
    const stockMaps = Math.round(most(stock, (s) => s.maps));
    const extents = {
      reference: most(ours, (s) => s.extents),
      what: `aligned extents; stock: ${stockMaps}`,
      target: 1,
    };
    const stockUnmaps = { reference: most(stock, (s) => s.unmaps), what: 'stock' };
    rows.push(
      operations('map', (s) => s.maps, extents),
      operations('unmap', (s) => s.unmaps, stockUnmaps),
    );
  }
  return rows;
}

/** A listener in QEMU itself, without a guest: `gib` GiB of RAM mapped in pages of 4 KiB. */
async function replayOf(pair, { gib, scattered, rounds }) {
  const samples = { appear: [], replay: [[], []], domain: [[], []], maps: [] };
  const outputs = [];
  for (const side of pair) {
    const [ns, , , pages] = await side.command(`ram ${gib} ${scattered ? 1 : 0}`);
    samples.appear.push(ns);
    const [, maps, , again, sum] = await side.command('replay 1');
    if (again !== gib * 2 ** 18 || pages > again)
      throw new Error(`${pages} and ${again} pages of ${gib} GiB were told of`);
    samples.maps.push(maps);
    outputs.push(sum);
  }
  if (outputs[0] !== outputs[1]) throw new Error('ours and stock map differently: nothing to compare');
  for (let round = 0; round < rounds; round++) {
    for (const [index, side] of pair.entries()) {
      samples.replay[index].push((await side.command('replay 0'))[0]);
      samples.domain[index].push((await side.time(`domain ${index === 0 ? 20 : 3}`)).min);
    }
  }
  return samples;
}

/** One page that goes and comes: with what was mapped last. */
async function pageOf(pair, rounds) {
  const samples = [[], []];
  for (let turn = 0; turn < rounds; turn++) {
    for (const [index, side] of pair.entries()) samples[index].push((await side.time('page 1000')).median);
  }
  return samples;
}

async function replays({ part, shim, scratch, daemon, quick }) {
  const options = { qemu: part.qemu, scratch, memory: '17G' };
  const [ourSide, stockSide] = sidesOf(daemon.socket);
  const ours = await ShimMachine.start({
    ...options,
    preload: [part.bridge, shim],
    side: ourSide,
    name: 'shadow',
  });
  const stock = await ShimMachine.start({ ...options, preload: [shim], side: stockSide, name: 'caching' });
  const rounds = quick ? 6 : 10;
  try {
    const pair = [ours, stock];
    return {
      one: await replayOf(pair, { gib: 1, rounds }),
      page: await pageOf(pair, rounds),
      four: await replayOf(pair, { gib: 4, rounds }),
      sixteen: await replayOf(pair, { gib: 16, rounds: quick ? 2 : 4 }),
      scattered: await replayOf(pair, { gib: 4, scattered: true, rounds }),
    };
  } finally {
    await ours.stop();
    await stock.stop();
  }
}

function replayRows({ one, page, four, sixteen, scattered }) {
  const min = (list) => summary(list).min / 1e6;
  const row = (name, ours, reference, what, target) => ({
    name: `VT-d: assigned, ${name}`,
    unit: 'ms',
    ours,
    reference,
    what,
    ...(target === undefined ? {} : { target }),
  });
  const beside = (name, { [name]: pair }) => [min(pair[0]), min(pair[1]), 'stock'];
  const rows = [
    {
      ...row('one page unmapped and mapped', summary(page[0]).min / 1e3, summary(page[1]).min / 1e3, 'stock'),
      unit: 'µs',
    },
  ];
  for (const [what, samples, judged] of [
    ['1 GiB', one, false],
    ['4 GiB', four, true],
    ['16 GiB', sixteen, false],
    ['4 GiB scattered', scattered, true],
  ]) {
    rows.push(
      row(`full replay, ${what} in pages of 4 KiB`, ...beside('replay', samples), judged ? 0.5 : undefined),
      row(
        `domain invalidation that changed nothing, ${what}`,
        ...beside('domain', samples),
        judged ? 0.1 : undefined,
      ),
      row(`all of it new, ${what}`, samples.appear[0] / 1e6, samples.appear[1] / 1e6, 'stock'),
      {
        ...row(`host operations of a replay, ${what}`, samples.maps[0], samples.maps[1], 'stock'),
        unit: 'ops',
      },
    );
  }
  rows.push(
    row('full replay, 16 GiB', min(sixteen.replay[0]), min(one.replay[0]), 'ours, 1 GiB'),
    row(
      'domain invalidation that changed nothing, 16 GiB',
      min(sixteen.domain[0]),
      min(one.domain[0]),
      'ours, 1 GiB',
    ),
  );
  return rows;
}

/** @returns {Promise<import('./report.mjs').Row[]>} */
export async function shadowRows(options) {
  const replayed = replayRows(await replays(options));
  return [...mapRows(await mapInTurns(options)), ...replayed];
}
