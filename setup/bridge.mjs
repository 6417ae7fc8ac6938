/**
 * Builds the QEMU bridge: one object for each QEMU and target, and the loader that picks the one
 * for the QEMU it is in.
 */
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { bridgeSources } from './build-stamp.mjs';
import { hashOf } from './cache.mjs';
import { runLogged, SetupError, SYSTEM_ENVIRONMENT } from './exec.mjs';
import { thisMachine } from './hosts.mjs';
import { ROOT } from './project.mjs';

/** Bridges that are kept: other checkouts, QEMU versions and targets use the same cache. */
const KEEP = 16;

function forgetOld(cache) {
  const made = (name) => statSync(cache.path('bridge', name)).mtimeMs;
  const names = readdirSync(cache.path('bridge')).sort((a, b) => made(b) - made(a));
  for (const name of names.slice(KEEP)) {
    rmSync(cache.path('bridge', name), { recursive: true, force: true });
  }
}

/** Hash over everything that a bridge is made of. */
export function bridgeInputs(qemuVersion, qemuPackageVersion) {
  return hashOf([], `${bridgeSources(ROOT)}\n${qemuVersion}\n${qemuPackageVersion}\n`);
}

/** The object to preload; it loads the one that bridgeName names, from its own directory. */
export const LOADER = 'viommu-bridge.so';

/**
 * Name of the bridge for one QEMU, as the loader asks for it (qemu-bridge/loader/loader.c).
 * @param {string} target QEMU's name of the guest architecture
 * @param {{version: string, package: string}} stated upstream's version and what the distribution
 *   adds to it, as `--version` says them; package: empty where there is none
 */
export function bridgeName(target, stated) {
  const version = [stated.version, stated.package].filter((part) => part !== '').join('-');
  return `viommu-bridge-${target}-${version.replace(/[^a-zA-Z0-9.+~-]/g, '_')}.so`;
}

/** @returns {Promise<string>} path of the loader, which needs no header of QEMU's */
export async function ensureLoader(cache) {
  const directory = join(ROOT, 'qemu-bridge');
  const parts = ['loader', 'Makefile', 'exports.map'].map((part) => join(directory, part));
  const made = await cache.directory(`bridge-loader/${hashOf(parts, '', ROOT)}`, async (scratch) => {
    const args = ['-C', directory, 'loader', `OUT=${scratch}`];
    await runLogged("building the bridge's loader", cache.log('bridge'), 'make', args, {
      env: SYSTEM_ENVIRONMENT,
    });
  });
  return join(made, LOADER);
}

/**
 * @param {string} headers header tree of the same QEMU
 * @param {string} uapi Linux's headers (uapi-headers.mjs)
 * @param {string} hash from bridgeInputs
 * @param {string} target QEMU's name of the guest architecture
 * @param {import('./hosts.mjs').Host} [host] the machine that QEMU runs on
 * @returns {Promise<string>} path of the shared object
 */
export async function ensureBridge(cache, headers, uapi, hash, target, host = thisMachine()) {
  const object = `viommu-bridge-${target}.so`;
  if (!existsSync(join(ROOT, 'qemu-bridge/Makefile'))) {
    throw new SetupError('qemu-bridge/Makefile is missing: this is not a whole checkout.');
  }
  if (/\s/.test(headers + ROOT)) {
    throw new SetupError(
      `make can't build where a path has a space in it: move ${ROOT} or the cache, ${cache.root}.`,
    );
  }
  const directory = await cache.directory(`bridge/${hash}-${target}${host.suffix}`, async (scratch) => {
    const args = [
      '-C',
      join(ROOT, 'qemu-bridge'),
      '-j2',
      `QEMU_HEADERS=${headers}`,
      `UAPI_HEADERS=${uapi}`,
      `OUT=${scratch}`,
      `TARGET=${target}`,
      `CC=${host.compiler.join(' ')}`,
      `OBJCOPY=${host.objcopy}`,
      `NANOPB_CFLAGS=-I${host.nanopb}`,
    ];
    await runLogged(`building the QEMU bridge for ${target}`, cache.log('bridge'), 'make', args, {
      env: SYSTEM_ENVIRONMENT,
    });
    if (!existsSync(join(scratch, object))) {
      throw new SetupError(`qemu-bridge/Makefile made no ${object}: see ${cache.log('bridge')}.`);
    }
  });
  forgetOld(cache);
  return join(directory, object);
}
