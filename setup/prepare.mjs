/**
 * Everything a virtual machine needs, made once and checked in milliseconds afterwards. The check
 * compares the identities of the few files that matter with those noted for the checkout.
 */
import { existsSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { ALL_ARCHES, ARCHES, HOST_ARCH } from './arches.mjs';
import { bridgeInputs, bridgeName, ensureBridge, ensureLoader, LOADER } from './bridge.mjs';
import { bridgeSources } from './build-stamp.mjs';
import { Cache, cacheRoot, fileIdentity, hashOf, requireSpace } from './cache.mjs';
import { Checkout } from './checkout.mjs';
import { capture, SetupError } from './exec.mjs';
import { ensureArmFirmware } from './firmware.mjs';
import { ensureGuestModule, MODULE_SERIES, moduleInputs } from './guest-module.mjs';
import { ALL_SERIES, ensureKernels } from './kernels.mjs';
import { ensurePackages, installedVersion } from './packages.mjs';
import { checkPlatform } from './platform.mjs';
import { ROOT } from './project.mjs';
import { ensureHeaders } from './qemu-headers.mjs';
import { QemuSources, upstreamVersion } from './qemu-sources.mjs';
import { ensureUapiHeaders } from './uapi-headers.mjs';

const IMAGE = join(ROOT, 'test/guests/image');
const SPACE_FIRST_TIME = 3 * 2 ** 30;

/**
 * Version that a QEMU executable states, as in { version: "10.0.2", package: "Debian 1:10.0.2+ds-2"
 * }; package is empty where it names none.
 */
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
  return { version: match[1], package: match[2] ?? '' };
}

/** What must be unchanged for the previous run's result to hold. */
function fingerprint(wanted, modules) {
  const setup = [import.meta.dirname, IMAGE].map((path) => hashOf([path])).join();
  return {
    qemu: Object.keys(wanted).map((arch) => `${arch} ${fileIdentity(ARCHES[arch].qemu)}`),
    setup,
    bridge: bridgeSources(ROOT),
    modules: modules ? moduleInputs() : 'none',
    wanted,
  };
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The previous run's result if everything it names is still there and made of the same inputs. */
function stillValid(checkout, print) {
  const { paths, fingerprint } = checkout;
  if (!paths || !same(fingerprint, print)) {
    return undefined;
  }
  return ALL_ARCHES.flatMap((arch) => filesOf(partOf(paths, arch))).every(existsSync) ? paths : undefined;
}

/**
 * What paths.json says of one architecture: this machine's own at the top, the others below their
 * name.
 */
const partOf = (paths, arch) => (arch === HOST_ARCH ? paths : paths[arch]) ?? {};

/** Files that a part names. */
function filesOf({ qemu, bridge, bridgeObject, firmware, kernels = {} }) {
  const files = [
    ...[qemu, bridge, bridgeObject, firmware],
    ...Object.values(kernels).flatMap((k) => [k.image, k.initramfs, k.module]),
  ];
  return files.filter((file) => file !== undefined);
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

function checkWanted(wanted) {
  const strange = Object.keys(wanted).find((arch) => !ALL_ARCHES.includes(arch));
  if (strange !== undefined) {
    throw new SetupError(`there is no --arch ${strange} here: ${ALL_ARCHES.join(' and ')} are known.`, 2);
  }
  const unknown = Object.values(wanted)
    .flat()
    .find((series) => !ALL_SERIES.includes(series));
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

/**
 * Makes the bridge for one QEMU, and puts it where this checkout's loader finds it.
 * @param {{version: string, package: string}} stated as qemuVersions has it
 * @param {string} packageVersion Debian's
 * @returns {Promise<{bridge: string, bridgeObject: string, bridgeSources: string, headers: string,
 *   uapi: string}>} bridge: the loader; bridgeObject: what it loads
 */
async function ensureBridgeFor(cache, sources, platform, target, stated, packageVersion) {
  const headers = await ensureHeaders(cache, sources, stated.version);
  const uapi = await ensureUapiHeaders(cache, platform);
  const inputs = bridgeInputs(stated.version, packageVersion);
  const object = await ensureBridge(cache, headers, uapi, inputs, target);
  const loader = await ensureLoader(cache);
  const name = bridgeName(target, stated);
  const hash = bridgeSources(ROOT);
  const directory = new Checkout(cache, ROOT).keepBridges(hash, { [name]: object, [LOADER]: loader });
  const paths = { bridge: join(directory, LOADER), bridgeObject: join(directory, name) };
  return { ...paths, bridgeSources: hash, headers, uapi };
}

/** QEMU for one architecture, and the bridge for it. */
async function buildQemu(cache, own, sources, platform, arch) {
  const { target, package: packageName, qemu: stock } = ARCHES[arch];
  const qemu = own.qemu ?? stock;
  const stated = qemuVersions(qemu);
  const qemuPackageVersion = own.qemu ? stated.package || stated.version : installedVersion(packageName);
  const qemuVersion = own.qemu ? stated.version : upstreamVersion(qemuPackageVersion);
  if (own.bridge) {
    return { qemu, qemuVersion, qemuPackageVersion, bridge: own.bridge };
  }
  const bridge = await ensureBridgeFor(cache, sources, platform, target, stated, qemuPackageVersion);
  return { qemu, qemuVersion, qemuPackageVersion, ...bridge };
}

/** Everything for guests of one architecture. */
async function buildPart(cache, own, apts, platform, arch, series, modules, tarball) {
  const sources = QemuSources.ofDebian(cache, platform, tarball);
  const qemu = await buildQemu(cache, own, sources, platform, arch);
  const kernels = own.kernel
    ? ownKernels(own, series)
    : await ensureKernels(cache, apts, platform, arch, series, IMAGE);
  const kernel = kernels[MODULE_SERIES];
  if (modules && kernel && !own.kernel) {
    kernel.module = await ensureGuestModule(cache, apts, arch, kernel.release);
  }
  const firmware = arch === 'arm64' ? { firmware: await ensureArmFirmware(cache, apts(HOST_ARCH)) } : {};
  return { ...qemu, ...firmware, kernels };
}

/** @returns {Promise<Record<string, object>>} the parts, by architecture */
async function build(cache, own, wanted, ownArch, modules, tarball) {
  if (namesAll(own)) {
    return {
      [ownArch]: {
        ...(await buildQemu(cache, own, undefined, undefined, ownArch)),
        kernels: ownKernels(own, wanted[ownArch]),
      },
    };
  }
  const platform = checkPlatform();
  if (!existsSync(cache.path('kernels'))) {
    requireSpace(cache.root, SPACE_FIRST_TIME, statfsSync);
  }
  const hosts = new Map();
  const apts = (arch) => {
    if (!hosts.has(arch)) {
      hosts.set(arch, Apt.forHost(cache, platform, arch));
    }
    return hosts.get(arch);
  };
  await ensurePackages(() => apts(HOST_ARCH), cache, platform, Object.keys(wanted), modules);
  const parts = {};
  for (const [arch, series] of Object.entries(wanted)) {
    const owned = arch === ownArch ? own : {};
    parts[arch] = await buildPart(cache, owned, apts, platform, arch, series, modules, tarball);
  }
  return parts;
}

/** A kernel's entry, with the module that an earlier run made for it. */
function withModule(kernel, before) {
  const same = before?.module !== undefined && before.release === kernel.release && existsSync(before.module);
  return kernel.module === undefined && same ? { ...kernel, module: before.module } : kernel;
}

/** The parts as paths.json has them, with what it said before and is still there. */
function merged(previous, parts) {
  const paths = { ...previous };
  for (const [arch, part] of Object.entries(parts)) {
    const before = partOf(previous, arch).kernels ?? {};
    const kept = Object.entries(before).filter(
      ([, kernel]) => existsSync(kernel.image) && existsSync(kernel.initramfs),
    );
    const made = Object.entries(part.kernels).map(([series, kernel]) => [
      series,
      withModule(kernel, before[series]),
    ]);
    const whole = { ...part, kernels: Object.fromEntries([...kept, ...made]) };
    Object.assign(paths, arch === HOST_ARCH ? whole : { [arch]: whole });
  }
  return paths;
}

/**
 * Makes what is missing.
 * @param {object} own paths of the user's own { qemu, kernel, initramfs, bridge }, each optional
 * @param {Record<string, string[]>} wanted kernel series, by architecture
 * @param {string} [ownArch] the architecture that the user's own are for
 * @param {boolean} [modules] whether our kernel module is wanted too, which takes compilers and
 *   kernel headers
 * @param {string} [tarball] sources of that QEMU, instead of Debian's
 * @returns {Promise<object>} the contents of paths.json
 */
export async function prepare(own, wanted, ownArch = HOST_ARCH, modules = false, tarball = undefined) {
  const cache = new Cache(cacheRoot());
  checkOwn(own);
  checkWanted(wanted);
  const stock = Object.values(own).every((path) => path === undefined);
  const checkout = new Checkout(cache, ROOT);
  const known = stock ? stillValid(checkout, fingerprint(wanted, modules)) : undefined;
  if (known) {
    return known;
  }
  await cache.lock();
  try {
    const parts = await build(cache, own, wanted, ownArch, modules, tarball);
    if (!stock) {
      return merged({}, parts);
    }
    const paths = merged(checkout.paths ?? {}, parts);
    // Taken now: installing QEMU changed it.
    checkout.note(paths, fingerprint(wanted, modules));
    return paths;
  } finally {
    cache.unlock();
  }
}
