#!/usr/bin/env node
// Long fuzzing: node test/fuzz/run.mjs [name of a fuzzer] [--minutes 10] [--seed N] [--cases N]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const NAMES = [
  'frames',
  'mmio',
  'tables',
  'driver',
  'shadow',
  'shadow-race',
  'isolation',
  'smmu-mmio',
  'smmu-tables',
  'smmu-driver',
  'smmu-shadow',
  'socket',
];
const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const USAGE = `Usage: npm run fuzz -- [${NAMES.join('|')}] [--minutes N] [--seed N] [--cases N]

Runs one fuzzer, or each in turn, with random input from a seed. Default: 10 minutes each, a new seed.
A failure names the seed that repeats it. --cases 1 with that seed runs the one case.`;

function options() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        minutes: { type: 'string', default: '10' },
        seed: { type: 'string' },
        cases: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`);
    process.exit(2);
  }
}

const { values, positionals } = options();
const name = positionals[0] ?? '';
const wrong =
  positionals.length > 1 ||
  !['', ...NAMES].includes(name) ||
  [values.minutes, values.seed, values.cases].some((text) => text !== undefined && !(Number(text) >= 0));
if (values.help || wrong) {
  console[wrong ? 'error' : 'log'](USAGE);
  process.exit(wrong ? 2 : 0);
}

const vitest = join(root, 'node_modules/vitest/vitest.mjs');
if (!existsSync(vitest)) {
  console.error('npm packages are missing: npm ci');
  process.exit(1);
}
const env = { ...process.env, VIOMMU_FUZZ_ONLY: name, VIOMMU_FUZZ_MINUTES: values.minutes };
if (values.seed !== undefined) env.VIOMMU_FUZZ_SEED = values.seed;
if (values.cases !== undefined) env.VIOMMU_FUZZ_CASES = values.cases;
const args = [vitest, 'run', 'test/fuzz/fuzz.test.ts', '--pool=threads', '--disable-console-intercept'];
const note = join(mkdtempSync(join(tmpdir(), 'viommu-fuzz-')), 'case');
env.VIOMMU_FUZZ_NOTE = note;
// A case takes milliseconds; who is five minutes late hangs.
const fuzzers = name === '' ? NAMES.length : 1;
const timeout = (Number(values.minutes) * fuzzers + 5) * 60_000;
const done = spawnSync(process.execPath, args, {
  cwd: root,
  env,
  stdio: 'inherit',
  timeout,
  killSignal: 'SIGKILL',
});
if (done.signal === 'SIGKILL') {
  const [fuzzer, seed] = readFileSync(note, 'utf8').trim().split(' ');
  console.error(`${fuzzer} hangs. Repeat: npm run fuzz -- ${fuzzer} --seed ${seed} --cases 1`);
}
rmSync(dirname(note), { recursive: true, force: true });
process.exit(done.status ?? 1);
