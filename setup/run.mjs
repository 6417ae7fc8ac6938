#!/usr/bin/env node
/** Entry of every npm script: prepares what the command lacks, then runs it. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cacheRoot } from './cache.mjs';
import { runForeground, SetupError, say } from './exec.mjs';
import { ALL_SERIES } from './kernels.mjs';
import { HELP, ownFiles, parse } from './options.mjs';
import { checkNode } from './platform.mjs';
import { prepare } from './prepare.mjs';
import { ensureBuilt, ensureNpmPackages, ROOT } from './project.mjs';

async function project() {
  const logs = join(cacheRoot(), 'logs');
  mkdirSync(logs, { recursive: true });
  await ensureNpmPackages(logs);
  await ensureBuilt(logs);
}

/**
 * Runs a command with VIOMMU_PATHS naming a file of what was prepared: the cache's own, or one for this run
 * when the user named files.
 */
async function withPaths(paths, own, run) {
  if (Object.values(own).every((path) => path === undefined)) {
    return run({ ...process.env, VIOMMU_PATHS: join(cacheRoot(), 'paths.json') });
  }
  const directory = mkdtempSync(join(tmpdir(), 'viommu-'));
  try {
    const file = join(directory, 'paths.json');
    writeFileSync(file, JSON.stringify(paths, null, 2));
    return await run({ ...process.env, VIOMMU_PATHS: file });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const node = (args, env) => runForeground(process.execPath, args, { cwd: ROOT, env });
const tool = (name, args, env) =>
  runForeground(join(ROOT, 'node_modules/.bin', name), args, { cwd: ROOT, env });

async function demo(values, rest) {
  const main = join(ROOT, 'dist/main.js');
  const own = ownFiles(values);
  await project();
  if (values.sim) {
    return node([main, 'demo', '--sim', ...rest], process.env);
  }
  const paths = await prepare(own, ['6.12']);
  return withPaths(paths, own, (env) => node([main, 'demo', ...rest], env));
}

/** The guests' directories; everything else needs no QEMU. */
const GUEST_TESTS = ['test/guests/**', 'test/oracle/**'];

async function test(values, rest) {
  const own = ownFiles(values);
  await project();
  const without = values['without-guests'];
  const paths = without ? undefined : await prepare(own, ALL_SERIES);
  const excludes = without ? GUEST_TESTS.flatMap((glob) => ['--exclude', glob]) : [];
  if (without) {
    say('--without-guests: the tests that boot guests are left out');
  }
  return withPaths(paths, own, async (env) => {
    const steps = [
      ['lint', () => tool('biome', ['ci', '.'], env)],
      ['type check', () => tool('tsc', ['--noEmit', '-p', 'tsconfig.json'], env)],
      ['tests', () => tool('vitest', ['run', ...excludes, ...rest], env)],
    ];
    for (const [name, step] of steps) {
      say(`test: ${name}`);
      const status = await step();
      if (status !== 0) {
        say(`test: ${name} failed (${status})`);
        return status;
      }
    }
    return 0;
  });
}

/** bench and fuzz: scripts of their own below test/. */
async function script(path, values, rest, series) {
  if (!existsSync(join(ROOT, path))) {
    throw new SetupError(`${path} is missing: this is not a whole checkout.`);
  }
  const own = ownFiles(values);
  await project();
  const paths = series ? await prepare(own, series) : undefined;
  return withPaths(paths, own, (env) => node([path, ...rest], env));
}

const COMMANDS = {
  demo,
  test,
  bench: (values, rest) => script('test/bench/run.mjs', values, rest, ['6.12']),
  fuzz: (values, rest) => script('test/fuzz/run.mjs', values, rest, undefined),
  build: async () => {
    await project();
    return 0;
  },
  setup: async (values) => {
    const own = ownFiles(values);
    await project();
    const paths = await prepare(own, values.series?.split(',') ?? ALL_SERIES);
    process.stdout.write(`${JSON.stringify(paths, null, 2)}\n`);
    return 0;
  },
};

async function main([name, ...argv]) {
  const { values, rest } = parse(argv);
  if (values.help || !Object.hasOwn(COMMANDS, name ?? '')) {
    (values.help ? process.stdout : process.stderr).write(HELP);
    return values.help ? 0 : 2;
  }
  checkNode();
  return await COMMANDS[name](values, rest);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SetupError)) {
    throw error;
  }
  say(error.message);
  process.exitCode = error.exitCode;
}
