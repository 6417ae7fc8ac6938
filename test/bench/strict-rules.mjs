/**
 * What the strict rows have in common: their names and reaches, turns of two sides, and the load
 * beside them.
 */

import { spawn } from 'node:child_process';
import { track } from './children.mjs';
import { COUNT, summary } from './report.mjs';

/**
 * What ours has to reach beside stock: rates on a quiet machine and under load, and the time of an
 * unmap.
 */
const TARGET = { quiet: 0.95, load: 0.8, unmap: 1.3 };
/** Of a kernel's lines, how many a note has. */
const LINES_SHOWN = 3;

export function strictName(unit, what, load) {
  return `${unit.name}: strict, ${what}${load === 0 ? '' : `, load ${load}`}`;
}

/**
 * A second: the median of the rounds, or with a load the mean, for there the rare long waits are
 * what is asked about.
 */
function rate(rounds, load) {
  if (load === 0) return summary(rounds.map(({ count, ns }) => (count * 1e9) / ns)).median;
  const sum = (of) => rounds.reduce((total, round) => total + of(round), 0);
  return (sum(({ count }) => count) * 1e9) / sum(({ ns }) => ns);
}

/**
 * Rates of rounds, `[ours, stock]`.
 * @param {{count: number, ns: number}[][]} rounds
 */
export function rateRow(unit, what, rateUnit, load, rounds) {
  return {
    name: strictName(unit, what, load),
    unit: rateUnit,
    ours: rate(rounds[0], load),
    reference: rate(rounds[1], load),
    what: 'stock',
    target: load === 0 ? TARGET.quiet : TARGET.load,
    atLeast: true,
  };
}

/** The slowest of a thousand reads, from what the guests measured: `[ours, stock]`. */
export function latencyRow(unit, what, load, latencies) {
  const samples = latencies.map((latency) => latency.samples);
  const few = Math.min(...samples) < 1000;
  return {
    name: strictName(unit, `${what}, p99.9 of one read`, load),
    unit: 'µs',
    ours: latencies[0].p999_ns / 1000,
    reference: latencies[1].p999_ns / 1000,
    what: 'stock',
    ...(few ? { note: `the longest of ${samples[0]} and ${samples[1]} reads: too few for more` } : {}),
  };
}

/** Medians of what the guests' VFIO took. */
export function vfioRows(unit, load, samples) {
  const row = (what, of) => ({
    name: strictName(unit, `VFIO ${what} of 4 KiB, emulated device`, load),
    unit: 'µs',
    ours: summary(samples[0].map(of)).median / 1000,
    reference: summary(samples[1].map(of)).median / 1000,
    what: 'stock',
    ...(what === 'unmap' ? { target: TARGET.unmap } : {}),
  });
  return [row('map', (s) => s.map_ns), row('unmap', (s) => s.unmap_ns)];
}

/** Lines of the guests' kernels on what took too long, `[ours, stock]`. */
export function stallRow(unit, load, lines) {
  const shown = lines[0].slice(0, LINES_SHOWN).join('; ');
  return {
    name: strictName(unit, "waits that the guests' kernels complain of", load),
    unit: COUNT,
    ours: lines[0].length,
    reference: lines[1].length,
    what: 'stock',
    atMost: 0,
    ...(shown === '' ? {} : { note: `ours: ${shown}` }),
  };
}

/**
 * Has the sides 0 and 1 take turns: `turns` at least, and until so many milliseconds are over.
 * @param {{turns: number, ms?: number, now?: () => number}} length
 * @param {(side: number) => Promise<void>} measure
 */
export async function inTurns({ turns, ms = 0, now = Date.now }, measure) {
  const end = now() + ms;
  for (let turn = 0; turn < turns || now() < end; turn++) {
    // The side that goes first follows itself the next time: neither always comes after the other.
    for (const side of turn % 2 === 0 ? [0, 1] : [1, 0]) await measure(side);
  }
}

/** Runs `what` beside so many programs that never sleep. */
export async function underLoad(count, what) {
  const children = Array.from({ length: count }, () =>
    track(spawn('/bin/sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' })),
  );
  try {
    return await what();
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
}
