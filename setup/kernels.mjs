/** Debian's guest kernels, unpacked into the cache, and an initramfs for each. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { ARCHES, HOST_ARCH } from './arches.mjs';
import { filesBelow, hashOf } from './cache.mjs';
import { CpioWriter } from './cpio.mjs';
import { capture, INTERRUPTED, runLogged, SetupError, say } from './exec.mjs';
import { loadOrder, moduleDepends, moduleName } from './modules.mjs';
import { ensureVmlinux } from './vmlinux.mjs';

/** Kernel series: which releases of it Debian has, and the Debian release to take it from on another one. */
const SERIES = {
  6.12: { release: '6\\.12\\.\\d+\\+deb\\d+(?:\\.\\d+)?', codenames: ['bookworm', 'trixie'] },
  6.1: { release: '6\\.1\\.0-\\d+', codenames: ['bookworm'] },
};

/** Matches the package of a series for an architecture; its group is the release. */
const packageOf = (series, arch) => new RegExp(`^linux-image-(${SERIES[series].release}-${arch})$`);

export const ALL_SERIES = Object.keys(SERIES).reverse();

/** Parts of the module tree that are kept: what a guest of ours may ever load. */
const KEPT =
  /\/kernel\/(arch|block|crypto|lib|drivers\/(block|char|dma|iommu|misc|net|nvme|pci|vfio|virt|virtio)|fs\/(9p|netfs|configfs)|net\/(9p|core|packet)|virt)\//;
const DROPPED = /\/drivers\/net\/(wireless|usb|can|hamradio|ieee802154|ethernet\/(?!intel))/;

/** How many releases of a series to try: the newest may be announced and not yet on the mirror. */
const TRIES = 4;

/** How long an initramfs that was replaced is kept. */
const KEEP_MS = 3600 * 1000;

/** Compares versions by their numbers. */
export function byNumbers(a, b) {
  const numbers = (text) => (text.replace(/-(amd|arm)64$/, '').match(/\d+/g) ?? []).map(Number);
  const [left, right] = [numbers(a), numbers(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? -1) - (right[i] ?? -1);
    if (difference !== 0) {
      return difference;
    }
  }
  return 0;
}

/** Releases of a series that are in the cache already. */
function unpackedReleases(cache, series, arch) {
  const directory = cache.path('kernels');
  const names = existsSync(directory) ? readdirSync(directory) : [];
  return names
    .filter((name) => packageOf(series, arch).test(`linux-image-${name}`))
    .sort(byNumbers)
    .reverse();
}

function unpack(cache, series, deb, release) {
  return cache.directory(`kernels/${release}`, async (directory) => {
    const root = cache.scratch('kernel-deb');
    await runLogged(`unpacking Linux ${release}`, cache.log(`kernel-${series}`), 'dpkg', ['-x', deb, root]);
    cpSync(join(root, 'boot', `vmlinuz-${release}`), join(directory, 'vmlinuz'));
    cpSync(join(root, 'boot', `config-${release}`), join(directory, 'config'));
    const modules = ['usr/lib/modules', 'lib/modules']
      .map((part) => join(root, part, release))
      .find(existsSync);
    for (const file of filesBelow(modules)) {
      const kept = file.includes('/kernel/') ? KEPT.test(file) && !DROPPED.test(file) : true;
      if (kept) {
        const target = join(directory, 'modules', file.slice(modules.length + 1));
        mkdirSync(join(target, '..'), { recursive: true });
        renameSync(file, target);
      }
    }
    rmSync(root, { recursive: true, force: true });
  });
}

/** Fetches and unpacks a kernel of a series; returns its release, as uname -r has it. */
async function ensureKernel(cache, apts, platform, series, arch) {
  const [present] = unpackedReleases(cache, series, arch);
  if (present) {
    return present;
  }
  const { codenames } = SERIES[series];
  const apt = codenames.includes(platform.codename)
    ? apts(arch)
    : Apt.forRelease(cache, platform, codenames[0], arch);
  await apt.update();
  const releases = apt
    .names(`linux-image-${series}`)
    .map((name) => packageOf(series, arch).exec(name)?.[1])
    .filter(Boolean)
    .sort(byNumbers)
    .reverse();
  for (const release of releases.slice(0, TRIES)) {
    for (const flavour of ['', '-unsigned']) {
      const directory = cache.scratch('kernel');
      try {
        const name = `linux-image-${release}${flavour}`;
        const [deb] = await apt.download(`fetching Linux ${release}`, [name], directory);
        await unpack(cache, series, deb, release);
        rmSync(directory, { recursive: true, force: true });
        return release;
      } catch (error) {
        if (error.exitCode === INTERRUPTED) {
          throw error;
        }
        say(`${error.message.split('\n')[0]}; trying the next one`);
      }
    }
  }
  throw new SetupError(
    `Debian's mirror gave no kernel of series ${series}: see ${cache.log('apt-download')}, or name your own with --kernel and --initramfs.`,
  );
}

/** A static busybox, unpacked and not installed. */
export function ensureBusybox(cache, apts, arch) {
  return cache.directory(ARCHES[arch].busybox, async (directory) => {
    const scratch = cache.scratch('busybox-deb');
    const [deb] = await apts(arch).download(`fetching busybox for ${arch}`, ['busybox-static'], scratch);
    capture('dpkg', ['-x', deb, scratch]);
    const binary = ['bin/busybox', 'usr/bin/busybox'].map((name) => join(scratch, name)).find(existsSync);
    if (!binary) {
      throw new SetupError(
        'busybox-static has no busybox in it: delete the cache and run the command again.',
      );
    }
    cpSync(binary, join(directory, 'busybox'));
    rmSync(scratch, { recursive: true, force: true });
  });
}

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
 * Builds the initramfs of a kernel from busybox, the modules and test/guests/image.
 * The archive is not compressed: a guest under emulation unpacks it faster so.
 * @param {string} busybox the guest's
 * @param {string} native one that runs here: both packages are built with the same applets
 * @returns {string} its path; the name has a hash of what went into it
 */
export function ensureInitramfs(cache, release, busybox, native, image) {
  const kernel = cache.path('kernels', release);
  const inputs = [image, busybox, native, import.meta.filename];
  const name = `initramfs-${hashOf(inputs)}.cpio`;
  const target = join(kernel, name);
  if (existsSync(target)) {
    return target;
  }
  say(`building the initramfs for Linux ${release}`);
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
    .filter((name) => name !== 'busybox')) {
    archive.link(`bin/${applet}`, 'busybox');
  }
  const modules = collectModules(kernel, listed(join(image, 'modules')));
  for (const { name: module, object } of modules) {
    archive.file(`lib/modules/${module}.ko`, object);
  }
  archive.file('lib/modules/order', `${modules.map((module) => module.name).join('\n')}\n`);
  for (const file of filesBelow(image)) {
    archive.file(file.slice(image.length + 1), readFileSync(file), 0o755);
  }
  const temporary = `${target}.${process.pid}`;
  writeFileSync(temporary, archive.end());
  // Another checkout, or a guest that starts just now, may still use a recent one.
  const initramfses = readdirSync(kernel).filter((entry) => /^initramfs-.*\.cpio$/.test(entry));
  for (const old of initramfses.filter(
    (entry) => Date.now() - statSync(join(kernel, entry)).mtimeMs > KEEP_MS,
  )) {
    rmSync(join(kernel, old));
  }
  renameSync(temporary, target);
  return target;
}

/** What QEMU starts fastest of a Debian kernel. An arm64 one is not compressed, or so that QEMU unpacks it. */
function bootable(arch, packaged, directory) {
  return arch === 'amd64' ? ensureVmlinux(packaged, join(directory, 'vmlinux')) : packaged;
}

/**
 * Kernels of one architecture and their initramfs.
 * @param {(arch: string) => Apt} apts the running release's packages, by architecture
 * @param {string[]} wanted series, as in ["6.12"]
 * @returns {Promise<Record<string, {release: string, image: string, packaged: string, initramfs: string}>>}
 *   image: what to boot; packaged: Debian's file that it comes from
 */
export async function ensureKernels(cache, apts, platform, arch, wanted, image) {
  const kernels = {};
  // One after the other: on an amd64 guest's behalf both are the same.
  const busybox = join(await ensureBusybox(cache, apts, arch), 'busybox');
  const native = join(await ensureBusybox(cache, apts, HOST_ARCH), 'busybox');
  for (const series of wanted) {
    const release = await ensureKernel(cache, apts, platform, series, arch);
    const packaged = cache.path('kernels', release, 'vmlinuz');
    kernels[series] = {
      release,
      image: bootable(arch, packaged, cache.path('kernels', release)),
      packaged,
      initramfs: ensureInitramfs(cache, release, busybox, native, image),
    };
  }
  return kernels;
}
