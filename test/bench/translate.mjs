/**
 * Hits, misses, long DMAs and invalidations of one unit, ours and stock in turns, and the bare
 * round trip.
 */

import { startEcho } from './echo.mjs';
import { summary } from './report.mjs';
import { ShimMachine } from './shim.mjs';

/**
 * @returns {Promise<Record<string, number[] | number[][]>>} samples in nanoseconds; of pairs: ours,
 * stock
 */
export async function benchTranslate({ unit, part, shim, scratch, daemon, quick }) {
  const rounds = quick ? 12 : 30;
  const calls = quick ? 200_000 : 1_000_000;
  const echo = await startEcho(scratch);
  const machine = { qemu: part.qemu, scratch };
  const ours = await ShimMachine.start({
    ...machine,
    preload: [part.bridge, shim],
    side: unit.ours(daemon.socket),
    name: `${unit.target}-ours`,
  });
  // The same, but the daemon is asked for each miss.
  const asking = await ShimMachine.start({
    ...machine,
    preload: [part.bridge, shim],
    side: unit.ours(daemon.socket, ',walks=off'),
    name: `${unit.target}-asking`,
  });
  const stock = await ShimMachine.start({
    ...machine,
    preload: [shim],
    side: unit.stock,
    name: `${unit.target}-stock`,
  });
  const samples = {
    hit: [[], []],
    hit64: [[], []],
    miss: [[], []],
    asked: [],
    echo: [],
    dense: [[], []],
    invalidate: [[], []],
  };
  try {
    const pair = [ours, stock];
    for (const side of [...pair, asking]) await side.command('setup 4');
    const outputs = [await ours.command('check'), await stock.command('check')];
    if (outputs[0][0] !== outputs[1][0])
      throw new Error('ours and stock translate differently: nothing to compare');
    // Until the daemon's code is compiled hot, its first thousands of misses say nothing.
    for (let i = 0; i < 6; i++) await asking.time('miss 1');
    await ours.time(`echo ${echo.socket} 20 5000`);
    for (let round = 0; round < rounds; round++) {
      for (const [index, side] of pair.entries()) {
        samples.hit[index].push((await side.time(`hit ${calls} 1`)).min);
        samples.hit64[index].push((await side.time(`hit ${calls} 64`)).min);
        samples.dense[index].push((await side.time('dense 512')).median);
        samples.invalidate[index].push((await side.time('invalidate 200')).median);
      }
      // What needs two threads to be scheduled is disturbed most: short turns, and more of them.
      for (let turn = 0; turn < 3; turn++) {
        for (const [index, side] of pair.entries())
          samples.miss[index].push((await side.time('miss 1')).median);
        samples.asked.push((await asking.time('miss 1')).median);
        samples.echo.push((await ours.time(`echo ${echo.socket} 20 1000`)).median);
      }
    }
  } finally {
    await ours.stop();
    await asking.stop();
    await stock.stop();
    await echo.stop();
  }
  return samples;
}

const least = (list) => summary(list).min;

/** What stock's miss took, for rows of other parts. */
export const stockMiss = (samples) => least(samples.miss[1]);

/** @returns {import('./report.mjs').Row[]} */
export function translateRows(unit, samples) {
  const row = (name, ours, reference, what, target) => ({
    name: `${unit.name}: ${name}`,
    unit: 'ns',
    ours: least(ours),
    reference: least(reference),
    what,
    ...(target === undefined ? {} : { target }),
  });
  const { hit, hit64, miss, asked, echo, dense, invalidate } = samples;
  return [
    row('IOTLB hit, one page', hit[0], hit[1], "stock's hit", 0.3),
    row('IOTLB hit, 64 pages in turn', hit64[0], hit64[1], "stock's hit", 0.3),
    row('miss, asked of the daemon', asked, echo, 'bare echo', 1.5),
    row('miss, walked in the bridge', miss[0], miss[1], "stock's miss"),
    row('512 consecutive pages, each', dense[0], dense[1], 'stock, each'),
    row('invalidation and completion', invalidate[0], invalidate[1], "stock's"),
  ];
}
