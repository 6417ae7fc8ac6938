/**
 * Kernels with what Debian's do not have, compiled from Debian's sources of a recent Linux: a
 * fragment of a configuration on top of tinyconfig. Takes about ten minutes on two cores, once; an
 * interrupted build goes on where it stopped.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { cpus } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Cache, filesBelow, hashOf } from './cache.mjs';
import { capture, runLogged, SetupError, SYSTEM_ENVIRONMENT } from './exec.mjs';
import { byNumbers } from './kernels.mjs';
import { recentKernels } from './uapi-headers.mjs';

/** Large, and not compiled. */
const SKIPPED = ['*.dts', '*.dtsi', '*/drivers/gpu/drm/amd/include', '*/tools/testing', '*/tools/perf'];

/** The newest series whose sources Debian has, as [package, version]. */
function newestSource(apt) {
  const [name] = apt
    .names('linux-source-')
    .filter((candidate) => /^linux-source-\d+\.\d+$/.test(candidate))
    .sort(byNumbers)
    .reverse();
  const [version] = name === undefined ? [] : apt.versions(name);
  if (version === undefined) {
    throw new SetupError("Debian's mirror has no sources of a recent Linux in its backports.");
  }
  return [name, version];
}

async function unpackSource(builds, cache, platform, source, log) {
  const apt = recentKernels(cache, platform);
  await apt.update();
  const [name, version] = newestSource(apt);
  const scratch = builds.scratch('deb');
  const [deb] = await apt.download(
    `fetching the sources of Linux ${version} (170 MB)`,
    [`${name}=${version}`],
    scratch,
  );
  capture('dpkg', ['-x', deb, scratch]);
  const tree = builds.scratch('source');
  const args = ['-xf', join(scratch, `usr/src/${name}.tar.xz`), '-C', tree, '--strip-components=1'];
  await runLogged('unpacking them', log, 'tar', [...args, ...SKIPPED.map((glob) => `--exclude=${glob}`)]);
  rmSync(scratch, { recursive: true, force: true });
  renameSync(tree, source);
}

/** Options of a fragment that the kernel does not have like that. */
function missing(fragment, config) {
  const has = new Set(config.split('\n'));
  return fragment
    .split('\n')
    .filter((line) => /^CONFIG_\w+=/.test(line))
    .filter((line) => (line.endsWith('=n') ? has.has(line.replace(/n$/, 'y')) : !has.has(line)));
}

async function compile(source, fragment, log) {
  const make = (what, ...targets) =>
    runLogged(what, log, 'make', [`-j${cpus().length}`, ...targets], {
      cwd: source,
      env: SYSTEM_ENVIRONMENT,
    });
  await make('configuring them', 'tinyconfig');
  await runLogged('adding our options', log, 'scripts/kconfig/merge_config.sh', ['-m', '.config', fragment], {
    cwd: source,
    env: SYSTEM_ENVIRONMENT,
  });
  await make('completing them', 'olddefconfig');
  const [first] = missing(readFileSync(fragment, 'utf8'), readFileSync(join(source, '.config'), 'utf8'));
  if (first !== undefined) {
    throw new SetupError(`${fragment}: Linux does not take ${first}.`);
  }
  await make('compiling a kernel of our own (some ten minutes, once)', 'vmlinux', 'modules');
}

/**
 * What is kept of a build: the kernel without symbols, which QEMU starts through its PVH entry, and
 * its modules.
 */
function keep(source, target) {
  const made = `${target}.new`;
  rmSync(made, { recursive: true, force: true });
  mkdirSync(join(made, 'modules'), { recursive: true });
  capture('strip', ['-s', '-o', join(made, 'vmlinux'), join(source, 'vmlinux')]);
  cpSync(join(source, '.config'), join(made, 'config'));
  cpSync(join(source, 'modules.builtin'), join(made, 'modules/modules.builtin'));
  for (const object of filesBelow(source).filter((file) => file.endsWith('.ko'))) {
    const to = join(made, 'modules/kernel', object.slice(source.length + 1));
    mkdirSync(dirname(to), { recursive: true });
    cpSync(object, to);
  }
  renameSync(made, target);
}

/** @param {string} suffix of the names of kernels of one configuration */
function present(cache, suffix) {
  const directory = cache.path('kernels');
  const names = existsSync(directory) ? readdirSync(directory) : [];
  return names
    .filter((name) => name.endsWith(suffix))
    .sort(byNumbers)
    .reverse()[0];
}

/**
 * @param {string} fragment file with the options that are wanted; its name is the kernel's
 * @returns {Promise<{release: string, image: string}>} release: its directory below the cache's
 *   kernels/
 */
export async function ensureCustomKernel(cache, platform, fragment) {
  const name = basename(fragment, '.config');
  const suffix = `-${name}-${hashOf([], readFileSync(fragment))}`;
  const builds = new Cache(cache.path('kernel-build'));
  await builds.lock();
  try {
    let release = present(cache, suffix);
    if (release === undefined) {
      const source = builds.path(`source${suffix}`);
      const log = cache.log(`kernel-${name}`);
      if (!existsSync(source)) {
        await unpackSource(builds, cache, platform, source, log);
      }
      await compile(source, fragment, log);
      release = `${readFileSync(join(source, 'include/config/kernel.release'), 'utf8').trim()}${suffix}`;
      keep(source, cache.path('kernels', release));
      rmSync(source, { recursive: true, force: true });
    }
    return { release, image: cache.path('kernels', release, 'vmlinux') };
  } finally {
    builds.unlock();
  }
}
