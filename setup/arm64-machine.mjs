/**
 * An arm64 machine to emulate, with the programs that this project runs on: Debian 13's, of which
 * QEMU, Node and what they need are unpacked; our bridge from a cross compiler; npm's packages for
 * it.
 */
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { bridgeInputs, ensureBridge } from './bridge.mjs';
import { hashOf } from './cache.mjs';
import { runLogged } from './exec.mjs';
import { arm64Machine } from './hosts.mjs';
import { ROOT } from './project.mjs';
import { ensureHeaders } from './qemu-headers.mjs';
import { QemuSources, upstreamVersion } from './qemu-sources.mjs';
import { ensureTree } from './tree.mjs';
import { ensureUapiHeaders } from './uapi-headers.mjs';

/** The oldest release whose Node and QEMU are new enough. */
const RELEASE = 'trixie';
const QEMU = 'qemu-system-arm';
const PROGRAMS = [QEMU, 'nodejs', 'iproute2', 'dash', 'coreutils', 'grep', 'sed', 'sysvinit-utils'];
/** What QEMU's configure and the bridge include and link. */
const LIBRARIES = ['libglib2.0-dev', 'libpixman-1-dev', 'libfdt-dev', 'zlib1g-dev', 'libnanopb-dev'];

/** Where the files of the machine that emulates it are mounted. */
const MACHINE = '/machine';

/** npm's packages for arm64, as the lock file has them: koffi's binaries differ. */
function ensureModules(cache) {
  const files = ['package.json', 'package-lock.json'];
  const hash = hashOf([], files.map((name) => readFileSync(join(ROOT, name))).join());
  return cache.directory(`node-modules-arm64-${hash}`, (directory) => {
    for (const name of files) cpSync(join(ROOT, name), join(directory, name));
    const args = [
      'ci',
      '--omit=dev',
      '--cpu=arm64',
      '--os=linux',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
    ];
    return runLogged('installing npm packages for arm64', cache.log('npm'), 'npm', args, { cwd: directory });
  });
}

/**
 * @param {import('./cache.mjs').Cache} cache locked
 * @returns {Promise<{root: string, machine: string, modules: string, node: string, qemu: string,
 *   bridge: string}>}
 *   root: its file system; machine: where in it the emulating machine's files belong; modules: a
 *   node_modules directory; node, qemu: paths in it; bridge: for that QEMU
 */
export async function ensureArm64Machine(cache, platform) {
  const apt = Apt.forRelease(cache, platform, RELEASE, 'arm64');
  const { root, versions } = await ensureTree(cache, apt, [...PROGRAMS, ...LIBRARIES], [MACHINE]);
  const host = arm64Machine(root);
  const version = upstreamVersion(versions[QEMU]);
  const headers = await ensureHeaders(cache, QemuSources.ofDebian(cache, platform), version, host);
  const uapi = await ensureUapiHeaders(cache, platform);
  const inputs = bridgeInputs(version, versions[QEMU]);
  const bridge = await ensureBridge(cache, headers, uapi, inputs, 'aarch64', host);
  const modules = join(await ensureModules(cache), 'node_modules');
  return {
    root,
    machine: MACHINE,
    modules,
    node: '/usr/bin/node',
    qemu: '/usr/bin/qemu-system-aarch64',
    bridge,
  };
}
