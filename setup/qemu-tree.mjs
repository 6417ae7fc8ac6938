/**
 * Compiles the bridge inside the source tree of a QEMU release, as qemu-bridge/README.md says
 * ("Inside a QEMU tree"): links it, has QEMU's own build described, and makes the objects that come
 * from it. Then QEMU's own style check reads the sources.
 */
import { appendFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { HOST_ARCH } from './arches.mjs';
import { Cache, cacheRoot } from './cache.mjs';
import { capture, SetupError, say } from './exec.mjs';
import { ensurePackages } from './packages.mjs';
import { checkPlatform } from './platform.mjs';
import { ROOT } from './project.mjs';
import { buildTargets, configuredSource, makeTargets } from './qemu-headers.mjs';
import { QemuSources } from './qemu-sources.mjs';

/** Objects of the linked directory, as meson names them. */
const OURS = /(^|\/)hw_viommu_[^/]*\.o$/;

function link(source) {
  symlinkSync(join(ROOT, 'qemu-bridge'), join(source, 'hw/viommu'));
  appendFileSync(join(source, 'hw/meson.build'), "subdir('viommu')\n");
}

/** An enum and an array are made of one list of options: these macros end in commas. */
const MEANT = /viommu-smmuv3\.c:\d+: ERROR: Macros with complex values/;

/**
 * Has QEMU's checkpatch.pl read our sources. Its errors count. Its warnings do not: they are about
 * lines of 81 to 90 columns, and about every `__has_include`.
 */
function checkStyle(source, log) {
  const directory = join(source, 'hw/viommu');
  const files = ['', 'test'].flatMap((part) =>
    readdirSync(join(directory, part))
      .filter((name) => /\.[ch]$/.test(name))
      .map((name) => join(directory, part, name)),
  );
  const script = join(source, 'scripts/checkpatch.pl');
  // It fails when it has a warning, too.
  const check = ['-c', 'command -v perl && { perl "$0" --no-tree --terse -f "$@" 2>&1 || true; }', script];
  const lines = capture('sh', [...check, ...files]).split('\n');
  const errors = lines.filter((line) => line.includes(': ERROR: ') && !MEANT.test(line));
  writeFileSync(log, lines.join('\n'), { flag: 'a' });
  if (errors.length > 0) {
    throw new SetupError(`QEMU's scripts/checkpatch.pl finds\n${errors.join('\n')}`);
  }
  say(`QEMU's scripts/checkpatch.pl: ${files.length} files, no error`);
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
 * @param {string} [tarball] its sources, instead of Debian's
 * @throws {SetupError} when Debian has no sources of it, or something does not compile
 */
export async function compileInTree(version, tarball) {
  const platform = checkPlatform();
  const cache = new Cache(cacheRoot());
  await cache.lock();
  try {
    await ensurePackages(() => Apt.forHost(cache, platform), cache, platform, [HOST_ARCH]);
    const sources = QemuSources.ofDebian(cache, platform, tarball);
    const log = cache.log('qemu-tree');
    const source = await configuredSource(cache, sources, version, log, link);
    const build = join(source, 'build');
    const objects = buildTargets(build).filter((name) => OURS.test(name));
    if (objects.length === 0) {
      throw new SetupError(`QEMU ${version} was configured without anything of the bridge: see ${log}.`);
    }
    await makeTargets('compiling the bridge in their tree', log, build, objects);
    say(`QEMU ${version}: ${objects.length} objects of the bridge compiled, ${countByTarget(objects)}`);
    checkStyle(source, log);
    rmSync(source, { recursive: true, force: true });
  } finally {
    cache.unlock();
  }
}
