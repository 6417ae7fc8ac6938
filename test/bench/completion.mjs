/**
 * One invalidation and its completion, as a driver in strict mode asks for it: of one page, by the
 * queue, without a guest around it. From the write of the tail register until the driver can see
 * that it is done.
 */

import { summary } from './report.mjs';
import { buildShim, ShimMachine } from './shim.mjs';
import { inTurns, strictName } from './strict-rules.mjs';

/** What ours may take beside stock. */
const TARGET = 1.5;
const WARM_UP_ROUNDS = 10;
/** Of one round. */
const INVALIDATIONS = { quiet: 200, load: 20 };

/** What the two units call it. */
const NAMES = {
  'VT-d': 'IOTLB page invalidation and wait',
  SMMUv3: 'CMD_TLBI_NH_VA and CMD_SYNC',
};

/** @returns {Promise<import('./report.mjs').Row[]>} */
export async function completionRows({ unit, part, scratch, daemon, rounds, load, loaded }) {
  const shim = buildShim(unit, part, scratch);
  const start = (name, preload, side) =>
    ShimMachine.start({ qemu: part.qemu, scratch, preload, side, name: `${unit.target}-complete-${name}` });
  const machines = [];
  const samples = [[], []];
  try {
    machines.push(await start('ours', [part.bridge, shim], unit.ours(daemon.socket)));
    machines.push(await start('stock', [shim], unit.stock));
    for (const machine of machines) await machine.command('setup 4');
    const round = async (at, count) => (await machines[at].time(`invalidate-page ${count}`)).median;
    // Until the daemon's code is compiled hot, its first thousands of completions say nothing.
    for (let n = 0; n < WARM_UP_ROUNDS; n++) await round(0, INVALIDATIONS.quiet);
    const count = load === 0 ? INVALIDATIONS.quiet : INVALIDATIONS.load;
    await loaded(() =>
      inTurns({ turns: rounds }, async (at) => {
        samples[at].push(await round(at, count));
      }),
    );
  } finally {
    for (const machine of machines) await machine.stop();
  }
  // Whatever else runs on the machine only adds; under load that is what is measured.
  const value = load === 0 ? 'min' : 'median';
  return [
    {
      name: strictName(unit, `${NAMES[unit.name]}, no guest`, load),
      unit: 'ns',
      ours: summary(samples[0])[value],
      reference: summary(samples[1])[value],
      what: 'stock',
      ...(load === 0 ? { target: TARGET } : {}),
    },
  ];
}
