/**
 * npm run bench: viommu beside stock QEMU's intel-iommu and smmuv3. Every row is a ratio of two
 * things measured in this one run, in turns. docs/bench.md says what each row is and why one may be
 * missed.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { removeAtExit, track } from './children.mjs';
import { bootSeconds, makeDisk, startReader } from './guests.mjs';
import { manyRows } from './many.mjs';
import { format, ordered, summary } from './report.mjs';
import { shadowRows } from './shadow.mjs';
import { buildShim } from './shim.mjs';
import { strictRows } from './strict.mjs';
import { benchTranslate, stockMiss, translateRows } from './translate.mjs';
import { UNITS } from './units.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = resolve(HERE, '../..');

const HELP = `Usage: npm run bench [-- options]

  --quick          fewer rounds (about ten minutes)
  --only PART,…    of: strict, translate, walk, assignment, shadow, guests, many
  --load N         strict: beside so many programs that never sleep (0)
  --minutes N      strict: how long the guests of a unit go on, at least (0)
  --unit UNIT      vtd or smmuv3; both unless it is named
  --json           the rows as JSON instead of a table
  --help

Environment: VIOMMU_PATHS names the file that the set-up wrote (npm run bench sets it).`;

/** Of an NVMe disk at a time. */
const READ_MIB = 256;

function progress(text) {
  process.stderr.write(`bench: ${text}\n`);
}

/** The daemon, alone, as `viommu serve`. */
async function startDaemon(scratch) {
  const socket = join(scratch, 'daemon.sock');
  const child = track(
    spawn(
      process.execPath,
      [join(ROOT, 'dist/main.js'), 'serve', '--socket', socket, '--log-level', 'warn'],
      {
        stdio: ['ignore', 2, 2],
      },
    ),
  );
  const deadline = Date.now() + 10_000;
  while (!existsSync(socket)) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error('the daemon did not start');
    await new Promise((wake) => setTimeout(wake, 20));
  }
  return {
    socket,
    pid: child.pid,
    async stop() {
      if (child.exitCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}

/**
 * Compiles what is measured inside this process, with the sources that it measures. Returns where
 * it is.
 */
function compileInner(scratch) {
  const out = join(scratch, 'walk');
  if (existsSync(out)) return out;
  mkdirSync(out);
  writeFileSync(join(out, 'package.json'), '{ "type": "module" }');
  const options = ['--noEmit', 'false', '--rootDir', ROOT, '--outDir', out];
  execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', join(HERE, 'tsconfig.walk.json'), ...options], {
    stdio: ['ignore', 2, 2],
  });
  return out;
}

/** The walker beside a hand-written walk, and nested beside plain. */
async function benchWalk(scratch, quick) {
  const out = compileInner(scratch);
  const { benchWalk: plain } = await import(join(out, 'test/bench/walk-bench.js'));
  const { benchNested: nested } = await import(join(out, 'test/bench/nested-bench.js'));
  const times = quick ? 1 : 3;
  return {
    ...best(Array.from({ length: times }, () => plain())),
    ...best(Array.from({ length: times }, () => nested())),
  };
}

/** Of several measurements the lowest of each: whatever else runs on the machine only adds. */
function best(runs) {
  const names = Object.keys(runs[0]);
  return Object.fromEntries(names.map((name) => [name, Math.min(...runs.map((run) => run[name]))]));
}

/** A second try where a first one failed: on a busy machine a kernel may give up on its timer. */
async function twice(attempt) {
  try {
    return await attempt();
  } catch (error) {
    progress(`${error.message}\nbench: once more`);
    return attempt();
  }
}

async function benchBoot(sides, rounds) {
  const boot = [[], []];
  for (let round = 0; round < rounds; round++) {
    for (const [index, side] of sides.entries()) {
      progress(`boot ${round * 2 + index + 1} of ${rounds * 2}`);
      boot[index].push(await twice(() => bootSeconds(side)));
    }
  }
  return boot;
}

/** Both guests run; one reads while the other one waits for its turn. */
async function benchReads(sides, turns) {
  const readers = [];
  const rates = [[], []];
  progress('reads of an NVMe disk, in turns');
  for (const side of sides) readers.push(await twice(() => startReader(side, READ_MIB)));
  // The first reads warm the image and the guests up.
  for (const reader of readers) for (let i = 0; i < 3; i++) await reader.rate();
  for (let turn = 0; turn < turns; turn++) {
    // The first of a turn is the second of the next: neither always comes after the other.
    const order = turn % 2 === 0 ? [0, 1] : [1, 0];
    for (const index of order) rates[index].push(await readers[index].rate());
  }
  for (const reader of readers) await reader.stop();
  return rates;
}

async function benchGuests({ unit, part, scratch, daemon, quick }) {
  const common = { unit, part };
  const disk = (name) => makeDisk(scratch, `${unit.target}-${name}.raw`, READ_MIB);
  const sides = [
    { ...common, disk: disk('ours'), preload: [part.bridge], side: unit.ours(daemon.socket) },
    { ...common, disk: disk('stock'), preload: [], side: unit.stock },
  ];
  const boot = await benchBoot(sides, quick ? 3 : 6);
  const rates = await benchReads(sides, quick ? 16 : 40);
  return [
    {
      name: `${unit.name}: boot to user space`,
      unit: 's',
      ours: summary(boot[0]).min,
      reference: summary(boot[1]).min,
      what: 'stock',
      target: 1.15,
    },
    {
      name: `${unit.name}: NVMe sequential read`,
      unit: 'MiB/s',
      ours: summary(rates[0]).median,
      reference: summary(rates[1]).median,
      what: 'stock',
      target: 0.9,
      atLeast: true,
    },
  ];
}

/**
 * The walks in the daemon, by unit, beside each other and beside stock's misses where these were
 * measured.
 */
async function walkRows(scratch, quick, units, misses) {
  const { genericNs, handWrittenNs, plainNs, nestedNs } = await benchWalk(scratch, quick);
  const row = (name, ours, reference, what, target) => ({ name, unit: 'ns', ours, reference, what, target });
  const rows = [];
  for (const unit of units) {
    const walk = `${unit.name}: 4-level walk in the daemon`;
    const ours = unit === UNITS.vtd ? genericNs : plainNs;
    const miss = misses.get(unit);
    if (unit === UNITS.vtd) rows.push(row(walk, ours, handWrittenNs, 'hand-written', 1.5));
    else {
      const nested = `${unit.name}: nested 4+4-level walk in the daemon`;
      rows.push(row(nested, nestedNs, plainNs, 'plain walk', 8));
    }
    if (miss !== undefined) rows.push(row(walk, ours, miss, "stock's miss", unit.walkReach));
  }
  return rows;
}

/** Nesting on a simulated host, called directly. */
async function assignmentRows(scratch, quick) {
  const { benchAssignment } = await import(join(compileInner(scratch), 'test/bench/assignment-bench.js'));
  const found = quick ? benchAssignment(3, 10_000, 10_000) : benchAssignment();
  const { batchedNs, scatteredNs, singleNs, fewNs, manyNs, live } = found;
  const row = (name, ours, reference, what, target) => ({ name, unit: 'ns', ours, reference, what, target });
  return [
    row('nesting: an invalidation forwarded in a batch of 10,000', batchedNs, singleNs, 'one by one', 0.1),
    row('nesting: the same, no two of them neighbours', scatteredNs, singleNs, 'one by one', 0.1),
    row(`nesting: allocate, bind and free a PASID, ${live} live`, manyNs, fewNs, '1 live', 1.5),
  ];
}

async function measure(values, paths, scratch) {
  const parts = new Set((values.only ?? 'strict,translate,walk,assignment,shadow,guests,many').split(','));
  const units = values.unit === undefined ? Object.values(UNITS) : [UNITS[values.unit]];
  const { quick } = values;
  const rows = [];
  const misses = new Map();
  const daemon = ['strict', 'translate', 'shadow', 'guests', 'many'].some((part) => parts.has(part))
    ? await startDaemon(scratch)
    : undefined;
  try {
    for (const unit of parts.has('strict') ? units : []) {
      const options = { unit, part: unit.part(paths), scratch, daemon, quick, progress };
      const length = { load: Number(values.load), minutes: Number(values.minutes) };
      rows.push(...(await strictRows({ ...options, ...length })));
    }
    for (const unit of parts.has('translate') ? units : []) {
      progress(`hits and misses, in turns with stock ${unit.stockName} and a bare echo`);
      const part = unit.part(paths);
      const shim = buildShim(unit, part, scratch);
      const samples = await benchTranslate({ unit, part, shim, scratch, daemon, quick });
      rows.push(...translateRows(unit, samples));
      misses.set(unit, stockMiss(samples));
    }
    if (parts.has('walk')) {
      progress('the walk in the daemon');
      rows.push(...(await walkRows(scratch, quick, units, misses)));
    }
    if (parts.has('assignment')) {
      progress('nesting on a simulated host');
      rows.push(...(await assignmentRows(scratch, quick)));
    }
    if (parts.has('shadow') && units.includes(UNITS.vtd)) {
      progress('an assigned device, in turns with stock intel-iommu and its caching mode');
      const part = UNITS.vtd.part(paths);
      const shim = buildShim(UNITS.vtd, part, scratch);
      rows.push(...(await shadowRows({ part, shim, scratch, daemon, quick })));
    }
    for (const unit of parts.has('guests') ? units : []) {
      rows.push(...(await benchGuests({ unit, part: unit.part(paths), scratch, daemon, quick })));
    }
    if (parts.has('many')) rows.push(...(await manyRows({ daemon, quick, progress })));
  } finally {
    await daemon?.stop();
  }
  return ordered(
    rows,
    units.map((unit) => unit.name),
  );
}

async function main() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      unit: { type: 'string' },
      load: { type: 'string', default: '0' },
      minutes: { type: 'string', default: '0' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (values.unit !== undefined && !Object.hasOwn(UNITS, values.unit))
    throw new Error(`there is no unit ${values.unit}: ${Object.keys(UNITS).join(' and ')} are measured`);
  if (!/^\d{1,3}$/.test(values.load)) throw new Error(`--load is a number of programs, not "${values.load}"`);
  if (!/^\d{1,3}$/.test(values.minutes)) throw new Error(`--minutes is a number, not "${values.minutes}"`);
  const file = process.env.VIOMMU_PATHS;
  if (!file) throw new Error('VIOMMU_PATHS is not set: run this as `npm run bench`.');
  const paths = JSON.parse(readFileSync(file, 'utf8'));
  const scratch = mkdtempSync(join(tmpdir(), 'viommu-bench-'));
  removeAtExit(scratch);
  const rows = await measure(values, paths, scratch);
  if (values.json) console.log(JSON.stringify(rows, null, 2));
  else
    console.log(
      `\n${availableParallelism()} cores, QEMU ${paths.qemuVersion}, Node ${process.versions.node}\n\n${format(rows)}`,
    );
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
}
