/** The archives that guests start from: busybox, kernel modules, and what test/ puts into them. */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow, hashOf } from './cache.mjs';
import { CpioWriter } from './cpio.mjs';
import { capture, SetupError, say } from './exec.mjs';
import { loadOrder, moduleDepends, moduleName } from './modules.mjs';

/** How long an initramfs that was replaced is kept. */
const KEEP_MS = 3600 * 1000;

function readModule(path) {
  if (path.endsWith('.xz')) {
    return capture('xz', ['-dc', path], { encoding: 'buffer' });
  }
  return path.endsWith('.zst') ? capture('zstd', ['-dcq', path], { encoding: 'buffer' }) : readFileSync(path);
}

/**
 * Modules to put into an initramfs, dependencies first.
 * @returns {{name: string, object: Buffer}[]}
 */
function collectModules(kernelDirectory, wanted) {
  const paths = new Map();
  for (const file of filesBelow(join(kernelDirectory, 'modules', 'kernel'))) {
    paths.set(moduleName(file), file);
  }
  const builtin = new Set(
    readFileSync(join(kernelDirectory, 'modules', 'modules.builtin'), 'utf8')
      .trim()
      .split('\n')
      .map(moduleName),
  );
  const objects = new Map();
  const dependsOf = (name) => {
    if (builtin.has(name)) {
      return undefined;
    }
    const path = paths.get(name);
    if (!path) {
      throw new SetupError(`${kernelDirectory} has no module ${name}, which the guest's image needs.`);
    }
    objects.set(name, readModule(path));
    return moduleDepends(objects.get(name));
  };
  return loadOrder(wanted, dependsOf).map((name) => ({ name, object: objects.get(name) }));
}

/** Lines of a list file without comments. */
const listed = (path) =>
  readFileSync(path, 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter(Boolean);

/**
 * Builds an initramfs of a kernel from busybox, modules and directories such as test/guests/image,
 * each with a list `modules`; where two have the same file, the later one's counts. The archive is
 * not compressed: a guest under emulation unpacks it faster so.
 * @param {string} busybox the guest's
 * @param {string} native one that runs here: both packages are built with the same applets
 * @param {string[]} images
 * @param {string} [name] start of the file's name: only older ones with the same are removed
 * @returns {string} its path; the name has a hash of what went into it
 */
export function ensureInitramfs(cache, release, busybox, native, images, name = 'initramfs') {
  const kernel = cache.path('kernels', release);
  const inputs = [...images, busybox, native, import.meta.filename];
  const target = join(kernel, `${name}-${hashOf(inputs)}.cpio`);
  if (existsSync(target)) {
    return target;
  }
  say(`building the ${name} for Linux ${release}`);
  const archive = new CpioWriter();
  for (const directory of ['proc', 'sys', 'dev', 'tmp', 'bin', 'lib/modules']) {
    archive.directory(directory);
  }
  // Standard input and output of /init exist before it can mount devtmpfs.
  archive.character('dev/console', 5, 1);
  archive.file('bin/busybox', readFileSync(busybox), 0o755);
  for (const applet of capture(native, ['--list'])
    .trim()
    .split('\n')
    .filter((applet) => applet !== 'busybox')) {
    archive.link(`bin/${applet}`, 'busybox');
  }
  const modules = collectModules(
    kernel,
    images.flatMap((image) => listed(join(image, 'modules'))),
  );
  for (const { name: module, object } of modules) {
    archive.file(`lib/modules/${module}.ko`, object);
  }
  archive.file('lib/modules/order', modules.map((module) => `${module.name}\n`).join(''));
  const files = new Map(
    images.flatMap((image) => filesBelow(image).map((file) => [file.slice(image.length + 1), file])),
  );
  for (const [path, file] of files) {
    archive.file(path, readFileSync(file), 0o755);
  }
  const temporary = `${target}.${process.pid}`;
  writeFileSync(temporary, archive.end());
  // Another checkout, or a guest that starts just now, may still use a recent one.
  const initramfses = readdirSync(kernel).filter(
    (entry) => entry.startsWith(`${name}-`) && entry.endsWith('.cpio'),
  );
  for (const old of initramfses.filter(
    (entry) => Date.now() - statSync(join(kernel, entry)).mtimeMs > KEEP_MS,
  )) {
    rmSync(join(kernel, old));
  }
  renameSync(temporary, target);
  return target;
}
