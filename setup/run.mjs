#!/usr/bin/env node
/** Entry of every npm script: prepares what the command lacks, then runs it. */
import './check-node.mjs';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ALL_ARCHES, HOST_ARCH } from './arches.mjs';
import { Cache, cacheRoot } from './cache.mjs';
import { Checkout } from './checkout.mjs';
import { runForeground, SetupError, say } from './exec.mjs';
import { ALL_SERIES } from './kernels.mjs';
import { ensureKvmLevels, ensureLevels } from './levels.mjs';
import { HELP, ownFiles, parse, sourcesFile } from './options.mjs';
import { checkMachine, prepare } from './prepare.mjs';
import { ensureBuilt, ensureNpmPackages, ROOT } from './project.mjs';
import { compileInTree } from './qemu-tree.mjs';

/** Tests that need QEMU. */
const GUEST_TESTS = ['test/guests/**', 'test/bridge/**', 'test/oracle/**'];

async function project() {
  const logs = join(cacheRoot(), 'logs');
  mkdirSync(logs, { recursive: true });
  await ensureNpmPackages(logs);
  await ensureBuilt(logs);
}

/**
 * Prepares everything, the cheap refusals first.
 * @param {Record<string, string[]>} wanted guest kernels, by architecture
 * @param {string} [ownArch] the architecture that the user's own files are for
 * @param {boolean} [modules] whether our kernel module is wanted too
 * @param {string} [tarball] sources of QEMU, instead of Debian's
 * @returns {Promise<object>} the contents of paths.json
 */
async function everything(own, wanted, ownArch, modules, tarball) {
  checkMachine(own);
  await project();
  return prepare(own, wanted, ownArch, modules, tarball);
}

/** These kernels for each of these architectures. */
const kernelsFor = (arches, series) => Object.fromEntries(arches.map((arch) => [arch, series]));

/**
 * Runs a command with VIOMMU_PATHS naming a file of what was prepared: the checkout's, or one for
 * this run when the user named files.
 */
async function withPaths(paths, own, run) {
  if (Object.values(own).every((path) => path === undefined)) {
    return run({ ...process.env, VIOMMU_PATHS: new Checkout(new Cache(cacheRoot()), ROOT).pathsFile });
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
  if (values.sim) {
    await project();
    const arch = values.arch === undefined ? [] : ['--arch', values.arch];
    return node([main, 'demo', '--sim', ...arch, ...rest], process.env);
  }
  const own = ownFiles(values);
  const arch = values.arch ?? HOST_ARCH;
  const paths = await everything(own, kernelsFor([arch], ['6.12']), arch);
  return withPaths(paths, own, (env) => node([main, 'demo', '--arch', arch, ...rest], env));
}

/** Linters, type check and vitest, in this order, until one fails. */
async function checks(vitestArguments, env) {
  const steps = [
    ['lint', () => tool('biome', ['ci', '.'], env)],
    ['Markdown', () => node([join(ROOT, 'test/lint/markdown.mjs')], env)],
    ['links', () => node([join(ROOT, 'test/lint/links.mjs'), '--paths'], env)],
    ['prose', () => node([join(ROOT, 'test/lint/prose.mjs')], env)],
    ['type check', () => tool('tsc', ['--noEmit', '-p', 'tsconfig.json'], env)],
    ['tests', () => tool('vitest', ['run', ...vitestArguments], env)],
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
}

async function test(values, rest) {
  if (values['without-guests']) {
    await project();
    say(`--without-guests: these need QEMU and are left out: ${GUEST_TESTS.join(' ')}`);
    return checks([...GUEST_TESTS.flatMap((glob) => ['--exclude', glob]), ...rest], process.env);
  }
  const own = ownFiles(values);
  const paths = await everything(own, kernelsFor(ALL_ARCHES, ALL_SERIES), undefined, true);
  return withPaths(paths, own, (env) => checks(rest, env));
}

function scriptPath(path) {
  if (!existsSync(join(ROOT, path))) {
    throw new SetupError(`${path} is missing: this is not a whole checkout.`);
  }
  return path;
}

async function bench(values, rest) {
  const script = scriptPath('test/bench/run.mjs');
  const own = ownFiles(values);
  const paths = await everything(own, kernelsFor(ALL_ARCHES, ['6.12']), undefined, true);
  return withPaths(paths, own, (env) => node([script, ...rest], env));
}

async function fuzz(_values, rest) {
  const script = scriptPath('test/fuzz/run.mjs');
  await project();
  return node([script, ...rest], process.env);
}

async function oracle(values, rest) {
  const script = scriptPath('test/oracle/run.mjs');
  const own = ownFiles(values);
  const paths = await everything(own, kernelsFor(ALL_ARCHES, []));
  return withPaths(paths, own, (env) => node([script, ...rest], env));
}

/** Every cell of the assignment table, printed with what was run in it. */
async function table(_values, rest) {
  await project();
  return tool('vitest', ['run', 'test/table/', '--reporter=default', ...rest], process.env);
}

/** A device that is really assigned, in a virtual machine that has an IOMMU and such a device. */
async function vfio(values, rest) {
  const script = scriptPath('test/vfio/run.mjs');
  const arch = values.arch ?? HOST_ARCH;
  const nest = values.nest === true;
  const mdev = values.mdev === true;
  const iommufd = nest || mdev || values.iommufd === true;
  // The kernel with iommufd is for this machine's architecture.
  const level1 = values.level1 ?? (iommufd ? HOST_ARCH : arch);
  if (level1 !== HOST_ARCH && (iommufd || level1 !== arch)) {
    throw new SetupError(
      `--level1 ${level1}: level 1 is amd64, or arm64 around an arm64 guest without iommufd.`,
      2,
    );
  }
  const wanted = kernelsFor([...new Set([HOST_ARCH, arch])], ['6.12']);
  const paths = await everything({}, wanted, undefined, iommufd || level1 !== HOST_ARCH);
  const levels = await ensureLevels(paths, { arch, level1, iommufd });
  const settings = JSON.stringify({ arch, iommufd, mdev, nest, ...levels });
  return withPaths(paths, {}, (env) => node([script, ...rest], { ...env, VIOMMU_LEVELS: settings }));
}

/** Guests under a real KVM, in a virtual machine that has one. */
async function kvm(values, rest) {
  const script = scriptPath('test/kvm/run.mjs');
  const arch = values.arch ?? HOST_ARCH;
  if (rest.includes('--list')) {
    return node([script, ...rest], { ...process.env, VIOMMU_LEVELS: JSON.stringify({ arch }) });
  }
  const paths = await everything({}, kernelsFor([...new Set([HOST_ARCH, arch])], ['6.12']), undefined, true);
  const settings = JSON.stringify({ arch, ...(await ensureKvmLevels(paths, arch)) });
  return withPaths(paths, {}, (env) => node([script, ...rest], { ...env, VIOMMU_LEVELS: settings }));
}

/** A guest that maps and unmaps through VFIO for as long as one likes. */
async function shadow(_values, rest) {
  const options = { minutes: { type: 'string', default: '10' }, seed: { type: 'string' } };
  const { minutes, seed } = parseArgs({ args: rest, options }).values;
  const paths = await everything({}, kernelsFor(ALL_ARCHES, ['6.12']), undefined, true);
  const chosen = seed === undefined ? {} : { VIOMMU_SEED: seed };
  return withPaths(paths, {}, (env) =>
    tool('vitest', ['run', 'test/guests/vfio.test.ts'], { ...env, VIOMMU_MINUTES: minutes, ...chosen }),
  );
}

async function build() {
  await project();
  return 0;
}

async function setup(values) {
  const arches = values.arch === undefined ? ALL_ARCHES : [values.arch];
  const wanted = kernelsFor(arches, values.series?.split(',') ?? ALL_SERIES);
  const paths = await everything(ownFiles(values), wanted, values.arch, true, sourcesFile(values));
  process.stdout.write(`${JSON.stringify(paths, null, 2)}\n`);
  return 0;
}

async function tree(values, [version]) {
  if (!/^\d+\.\d+\.\d+$/.test(version ?? '')) {
    throw new SetupError('name the QEMU release whose tree to compile in: npm run tree -- 10.2.2', 2);
  }
  await compileInTree(version, sourcesFile(values));
  return 0;
}

const COMMANDS = { demo, test, table, shadow, vfio, kvm, bench, fuzz, oracle, build, setup, tree };

async function main([name, ...argv]) {
  const { values, rest } = parse(argv);
  if (values.help || !Object.hasOwn(COMMANDS, name ?? '')) {
    (values.help ? process.stdout : process.stderr).write(HELP);
    return values.help ? 0 : 2;
  }
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
