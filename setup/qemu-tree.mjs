/**
 * Compiles the bridge inside the source tree of a QEMU release, as qemu-bridge/README.md says
 * ("Inside a QEMU tree"): links it, has QEMU's own build described, and makes the objects that come
 * from it.
 */
import { appendFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { HOST_ARCH } from './arches.mjs';
import { Cache, cacheRoot } from './cache.mjs';
import { SetupError, say } from './exec.mjs';
import { ensurePackages } from './packages.mjs';
import { checkPlatform } from './platform.mjs';
import { ROOT } from './project.mjs';
import { buildTargets, configuredSource, makeTargets } from './qemu-headers.mjs';

/** Where Debian has releases of QEMU that the running one does not have yet. */
const SUITES = ['testing', 'unstable'];

/** Objects of the linked directory, as meson names them. */
const OURS = /(^|\/)hw_viommu_[^/]*\.o$/;

function link(source) {
  symlinkSync(join(ROOT, 'qemu-bridge'), join(source, 'hw/viommu'));
  appendFileSync(join(source, 'hw/meson.build'), "subdir('viommu')\n");
}

/**
 * The objects by the target that they are for: libqemu-x86_64-softmmu.a.p/hw_viommu_wire.c.o →
 * x86_64.
 */
function countByTarget(objects) {
  const counts = new Map();
  for (const object of objects) {
    const target = /libqemu-([a-z0-9_]+)-softmmu/.exec(object)?.[1] ?? 'all targets';
    counts.set(target, (counts.get(target) ?? 0) + 1);
  }
  return [...counts].map(([target, count]) => `${count} for ${target}`).join(', ');
}

/**
 * @param {string} version upstream version, as in "10.2.2"
 * @throws {SetupError} when Debian has no sources of it, or something does not compile
 */
export async function compileInTree(version) {
  const platform = checkPlatform();
  const cache = new Cache(cacheRoot());
  await cache.lock();
  try {
    await ensurePackages(() => Apt.forHost(cache, platform), cache, platform, [HOST_ARCH]);
    const apt = Apt.forSuites(cache, 'apt-next', platform, SUITES, []);
    const log = cache.log('qemu-tree');
    const source = await configuredSource(cache, apt, version, log, link);
    const build = join(source, 'build');
    const objects = buildTargets(build).filter((name) => OURS.test(name));
    if (objects.length === 0) {
      throw new SetupError(`QEMU ${version} was configured without anything of the bridge: see ${log}.`);
    }
    await makeTargets('compiling the bridge in their tree', log, build, objects);
    say(`QEMU ${version}: ${objects.length} objects of the bridge compiled, ${countByTarget(objects)}`);
    rmSync(source, { recursive: true, force: true });
  } finally {
    cache.unlock();
  }
}
