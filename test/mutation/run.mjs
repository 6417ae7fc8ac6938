#!/usr/bin/env node
/**
 * `npm run mutants`: spoils a seeded sample of places in a folder's sources, one at a time, and
 * runs the folder's fast tests on each. A mutant that no test notices survives: a test is missing
 * there, or the mutant changes nothing.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { EXCLUDED, keyOf, rangeOf, sample, sourcesOf, testsOf } from './sample.mjs';

const HERE = import.meta.dirname;
const ROOT = join(HERE, '../..');
const HELP = `npm run mutants -- --folder FOLDER [--seed N] [--count N] [--keep FILE] [--most N]

  --folder FOLDER  whose sources are mutated: ${'src/walk'}, for instance
  --seed N         which mutants are drawn: default 1
  --count N        how many of them: default 300
  --keep FILE      results are kept here; what is there already is not tried again
  --most N         how many are tried now, at the most: with --keep, a long run in pieces
  --jobs N         how many at a time: default 2
`;

/** Tests of a folder that stand elsewhere. */
const MORE_TESTS = {
  'src/walk': ['test/walk'],
  'src/device': ['test/tables'],
};
/** Random tests do less than usual: what a mutant spoils, they find soon. */
const ENVIRONMENT = { VIOMMU_WALK_CASES: '40000' };
/** What the tests of sources do not read. */
const NOT_COPIED = ['/dist', '/dist.next', '/docker', '/qemu-bridge', '/test/guests', '/test/vfio'];

const { values } = parseArgs({
  options: {
    folder: { type: 'string' },
    seed: { type: 'string', default: '1' },
    count: { type: 'string', default: '300' },
    keep: { type: 'string' },
    most: { type: 'string' },
    jobs: { type: 'string', default: '2' },
    help: { type: 'boolean', default: false },
  },
});
const folder = values.folder?.replace(/\/+$/, '');
if (values.help || folder === undefined || !existsSync(join(ROOT, folder))) {
  (values.help ? process.stdout : process.stderr).write(HELP);
  process.exit(values.help ? 0 : 2);
}

/** The tester is not among viommu's own packages: most people never run it. */
function ensureTester() {
  if (existsSync(join(HERE, 'node_modules/@stryker-mutator/core'))) return;
  console.log('mutants: installing the mutation tester');
  const done = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: HERE, stdio: 'inherit' });
  if (done.status !== 0) process.exit(1);
}

/** What an earlier run has left in a file: a line for each mutant. */
function resultsOf(file) {
  if (file === undefined || !existsSync(file)) return {};
  const lines = readFileSync(file, 'utf8').trim().split('\n');
  return Object.fromEntries(lines.map((line) => JSON.parse(line)));
}

/** Keys of all mutants of these sources. */
async function mutantsOf(files) {
  const { createInstrumenter } = await import('@stryker-mutator/instrumenter');
  const { createInjector } = await import('typed-inject');
  const quiet = () => {};
  const logger = { isDebugEnabled: () => false, debug: quiet, info: quiet, warn: quiet, error: quiet };
  const instrumenter = createInjector().provideValue('logger', logger).injectFunction(createInstrumenter);
  const sources = files.map((file) => ({
    name: join(ROOT, file),
    mutate: true,
    content: readFileSync(join(ROOT, file), 'utf8'),
  }));
  const options = { plugins: null, excludedMutations: EXCLUDED, ignorers: [] };
  const { mutants } = await instrumenter.instrument(sources, options);
  return [
    ...new Set(mutants.filter(({ status }) => status !== 'Ignored').map((mutant) => keyOf(ROOT, mutant, 0))),
  ];
}

/** Tries these mutants. @returns {Promise<Record<string, string>>} the status of each */
async function tryThem(chosen) {
  const directory = mkdtempSync(join(tmpdir(), 'viommu-mutants-'));
  const list = join(directory, 'sample.json');
  writeFileSync(list, JSON.stringify({ root: ROOT, chosen, keep: values.keep && resolve(values.keep) }));
  process.env['VIOMMU_MUTANT_SAMPLE'] = list;
  process.env['VIOMMU_MUTANT_TESTS'] = JSON.stringify(testsOf(ROOT, [folder, ...(MORE_TESTS[folder] ?? [])]));
  Object.assign(process.env, ENVIRONMENT);
  try {
    const { Stryker } = await import('@stryker-mutator/core');
    const results = await new Stryker({
      mutate: [...new Set(chosen.map(rangeOf))],
      mutator: { excludedMutations: EXCLUDED },
      testRunner: 'sample',
      vitest: { configFile: 'test/mutation/vitest.config.ts', related: false },
      plugins: [import.meta.resolve('@stryker-mutator/vitest-runner'), join(HERE, 'plugin.mjs')],
      reporters: ['sample'],
      dryRunTimeoutMinutes: 30,
      coverageAnalysis: 'perTest',
      concurrency: Number(values.jobs),
      // On a busy machine, too, what survives is slow and no "Timeout".
      timeoutMS: 60_000,
      timeoutFactor: 5,
      tsconfigFile: 'none',
      ignorePatterns: NOT_COPIED,
      tempDirName: '.stryker-tmp',
      cleanTempDir: 'always',
      allowEmpty: false,
      logLevel: process.env['VIOMMU_MUTANT_LOG'] ?? 'warn',
    }).runMutationTest();
    const wanted = new Set(chosen);
    return Object.fromEntries(
      results.map((mutant) => [keyOf(ROOT, mutant, 1), mutant.status]).filter(([key]) => wanted.has(key)),
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function print(drawn, total, statuses) {
  const known = drawn.filter((key) => key in statuses);
  const of = (...names) => known.filter((key) => names.includes(statuses[key]));
  const alive = of('Survived', 'NoCoverage');
  const killed = of('Killed', 'Timeout');
  for (const key of alive) console.log(describe(key, statuses[key]));
  const rest = known.length - alive.length - killed.length;
  const score = ((100 * killed.length) / Math.max(1, killed.length + alive.length)).toFixed(1);
  console.log(
    `${folder}, seed ${values.seed}: ${killed.length} of ${killed.length + alive.length} mutants killed, ${score} % ` +
      `(${of('Timeout').length} by the clock; ${of('NoCoverage').length} of the others that no test reaches` +
      `${rest > 0 ? `; ${rest} that do not load` : ''}); ${drawn.length} drawn of ${total}`,
  );
}

/** A survivor as people look for it. */
function describe(key, status) {
  const [, path, line, column, what] = /^([^:]+):(\d+):(\d+)-\S+ ([\s\S]*)$/.exec(key);
  return `${path}:${line}:${column} ${status}: ${what.replace(/\s+/g, ' ').slice(0, 120)}`;
}

ensureTester();
process.chdir(ROOT);
const files = sourcesOf(ROOT, folder);
const all = await mutantsOf(files);
const drawn = sample(all, values.seed, Number(values.count));
const kept = resultsOf(values.keep);
const open = drawn.filter((key) => !(key in kept)).slice(0, Number(values.most ?? drawn.length));
console.log(`mutants: ${all.length} in ${folder}, ${drawn.length} drawn, ${open.length} to try now`);
if (open.length > 0) Object.assign(kept, await tryThem(open));
print(drawn, all.length, kept);
