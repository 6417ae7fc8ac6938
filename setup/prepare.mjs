/**
 * Everything a virtual machine needs, made once and checked in milliseconds afterwards. The check compares
 * the identities of the few files that matter with those noted in the cache's state.json.
 */
import { existsSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { bridgeInputs, ensureBridge } from './bridge.mjs';
import { Cache, cacheRoot, fileIdentity, hashOf, requireSpace } from './cache.mjs';
import { capture, SetupError } from './exec.mjs';
import { ALL_SERIES, ensureKernels } from './kernels.mjs';
import { ensurePackages, installedVersion } from './packages.mjs';
import { checkPlatform } from './platform.mjs';
import { ROOT } from './project.mjs';
import { ensureHeaders, upstreamVersion } from './qemu-headers.mjs';

const STOCK_QEMU = '/usr/bin/qemu-system-x86_64';
const IMAGE = join(ROOT, 'test/guests/image');
const SPACE_FIRST_TIME = 3 * 2 ** 30;

/** Version that a QEMU executable states, as in { version: "10.0.2", package: "Debian 1:10.0.2+ds-2" }. */
function qemuVersions(qemu) {
  const stated = capture(qemu, ['--version']);
  const match = /version (\d+\.\d+\.\d+)(?: \(([^)]*)\))?/.exec(stated);
  if (!match) {
    throw new SetupError(
      `${qemu} --version says "${stated.split('\n')[0]}", which names no version: name a QEMU ≥ 10.0 with --qemu.`,
    );
  }
  if (Number(match[1].split('.')[0]) < 10) {
    throw new SetupError(`${qemu} is version ${match[1]}, and 10.0 or newer is needed.`);
  }
  return { version: match[1], package: match[2] ?? match[1] };
}

/** What must be unchanged for the previous run's result to hold. */
function fingerprint(qemu, wanted) {
  const setup = [import.meta.dirname, IMAGE].map((path) => hashOf([path])).join();
  return {
    qemu: `${qemu} ${fileIdentity(qemu)}`,
    setup,
    bridge: bridgeInputs('', ''),
    wanted: wanted.join(),
  };
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The previous run's result if everything it names is still there and made of the same inputs. */
function stillValid(cache, print) {
  const state = cache.readJson('state.json');
  const entry = state?.[ROOT];
  if (!entry || !same(entry.fingerprint, print)) {
    return undefined;
  }
  const { paths } = entry;
  const needed = [
    paths.qemu,
    paths.bridge,
    ...Object.values(paths.kernels).flatMap((k) => [k.image, k.initramfs]),
  ];
  return needed.every(existsSync) ? paths : undefined;
}

/** The user's own kernel in the place of each one that is wanted. */
function ownKernels(own, wanted) {
  const entry = { release: 'own', image: own.kernel, initramfs: own.initramfs };
  return Object.fromEntries(wanted.map((series) => [series, entry]));
}

function checkOwn(own) {
  for (const [option, path] of Object.entries(own)) {
    if (path !== undefined && !existsSync(path)) {
      throw new SetupError(`--${option} ${path}: there is no such file.`);
    }
  }
  if (Boolean(own.kernel) !== Boolean(own.initramfs)) {
    throw new SetupError('--kernel and --initramfs go together: the modules must be of the same kernel.');
  }
}

function checkSeries(wanted) {
  const unknown = wanted.find((series) => !ALL_SERIES.includes(series));
  if (unknown !== undefined) {
    throw new SetupError(`there is no kernel series ${unknown} here: ${ALL_SERIES.join(' and ')} are known.`);
  }
}

/** Whether the user named so much that nothing of Debian's is needed. */
const namesAll = (own) => Boolean(own.qemu && own.bridge && own.kernel && own.initramfs);

/**
 * Checks the machine before anything is made, unless the user brings everything.
 * @throws {SetupError} one sentence saying what is missing and what to do
 */
export function checkMachine(own) {
  if (!namesAll(own)) {
    checkPlatform();
  }
}

/** QEMU and the bridge for it. */
async function buildQemu(cache, own, hostApt) {
  const qemu = own.qemu ?? STOCK_QEMU;
  const stated = qemuVersions(qemu);
  const qemuPackageVersion = own.qemu ? stated.package : installedVersion('qemu-system-x86');
  const qemuVersion = own.qemu ? stated.version : upstreamVersion(qemuPackageVersion);
  if (own.bridge) {
    return { qemu, qemuVersion, qemuPackageVersion, bridge: own.bridge };
  }
  const headers = await ensureHeaders(cache, hostApt, qemuVersion);
  const bridge = await ensureBridge(cache, headers, bridgeInputs(qemuVersion, qemuPackageVersion));
  return { qemu, qemuVersion, qemuPackageVersion, bridge, headers };
}

async function build(cache, own, wanted) {
  if (namesAll(own)) {
    return { ...(await buildQemu(cache, own)), kernels: ownKernels(own, wanted) };
  }
  const platform = checkPlatform();
  if (!existsSync(cache.path('paths.json'))) {
    requireSpace(cache.root, SPACE_FIRST_TIME, statfsSync);
  }
  let host;
  const hostApt = () => {
    host ??= Apt.forHost(cache, platform);
    return host;
  };
  await ensurePackages(hostApt, cache, platform);
  const qemu = await buildQemu(cache, own, hostApt);
  const kernels = own.kernel
    ? ownKernels(own, wanted)
    : await ensureKernels(cache, hostApt, platform, wanted, IMAGE);
  return { ...qemu, kernels };
}

/**
 * Makes what is missing.
 * @param {object} own paths of the user's own { qemu, kernel, initramfs, bridge }, each optional
 * @param {string[]} wanted kernel series
 * @returns {Promise<object>} the contents of paths.json
 */
export async function prepare(own, wanted) {
  const cache = new Cache(cacheRoot());
  checkOwn(own);
  checkSeries(wanted);
  const stock = Object.values(own).every((path) => path === undefined);
  const print = fingerprint(own.qemu ?? STOCK_QEMU, wanted);
  const known = stock ? stillValid(cache, print) : undefined;
  if (known) {
    return known;
  }
  await cache.lock();
  try {
    const paths = await build(cache, own, wanted);
    if (stock) {
      const previous = cache.readJson('paths.json')?.kernels ?? {};
      const kept = Object.entries(previous).filter(
        ([, kernel]) => existsSync(kernel.image) && existsSync(kernel.initramfs),
      );
      paths.kernels = { ...Object.fromEntries(kept), ...paths.kernels };
      cache.writeJson('paths.json', paths);
      const state = cache.readJson('state.json') ?? {};
      // Taken again: installing QEMU changed it.
      state[ROOT] = { fingerprint: fingerprint(STOCK_QEMU, wanted), paths };
      cache.writeJson('state.json', state);
    }
    return paths;
  } finally {
    cache.unlock();
  }
}
