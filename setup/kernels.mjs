/** Debian's guest kernels, unpacked into the cache, and an initramfs for each. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { ARCHES, HOST_ARCH } from './arches.mjs';
import { filesBelow } from './cache.mjs';
import { capture, INTERRUPTED, runLogged, SetupError, say } from './exec.mjs';
import { ensureInitramfs } from './initramfs.mjs';
import { ensureVmlinux } from './vmlinux.mjs';

/**
 * Kernel series: which releases of it Debian has, and the Debian release to take it from on another
 * one.
 */
const SERIES = {
  6.12: { release: '6\\.12\\.\\d+\\+deb\\d+(?:\\.\\d+)?', codenames: ['bookworm', 'trixie'] },
  6.1: { release: '6\\.1\\.0-\\d+', codenames: ['bookworm'] },
};

/** Matches the package of a series for an architecture; its group is the release. */
const packageOf = (series, arch) => new RegExp(`^linux-image-(${SERIES[series].release}-${arch})$`);

export const ALL_SERIES = Object.keys(SERIES).reverse();

/** Parts of the module tree that are kept: what a guest of ours may ever load. */
const KEPT =
  /\/kernel\/(arch|block|crypto|lib|drivers\/(block|char|crypto\/ccp|dca|dma|i2c\/algos|iommu|misc|net|nvme|pci|vfio|virt|virtio)|fs\/(9p|netfs|configfs)|net\/(9p|core|packet)|virt)\//;
const DROPPED = /\/drivers\/net\/(wireless|usb|can|hamradio|ieee802154|ethernet\/(?!intel))/;

/** How many releases of a series to try: the newest may be announced and not yet on the mirror. */
const TRIES = 4;

/** Stands in an unpacked kernel: what was kept of it. Another list needs it unpacked anew. */
const KEPT_NOTE = `${KEPT}\n${DROPPED}\n`;

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
    .filter((name) => isCurrent(join(directory, name)))
    .sort(byNumbers)
    .reverse();
}

function isCurrent(kernel) {
  const note = join(kernel, 'kept');
  return existsSync(note) && readFileSync(note, 'utf8') === KEPT_NOTE;
}

/** Fills a directory with what is kept of a kernel package. */
async function unpackInto(directory, cache, series, deb, release) {
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
  writeFileSync(join(directory, 'kept'), KEPT_NOTE);
  rmSync(root, { recursive: true, force: true });
}

/**
 * Unpacks a kernel. Of one that is there with fewer modules only these change: guests may be using
 * the rest.
 */
async function unpack(cache, series, deb, release) {
  const target = cache.path('kernels', release);
  const made = existsSync(target) ? cache.scratch('kernel') : undefined;
  if (made === undefined) {
    await cache.directory(`kernels/${release}`, (directory) =>
      unpackInto(directory, cache, series, deb, release),
    );
    return;
  }
  await unpackInto(made, cache, series, deb, release);
  rmSync(join(target, 'modules'), { recursive: true, force: true });
  renameSync(join(made, 'modules'), join(target, 'modules'));
  renameSync(join(made, 'kept'), join(target, 'kept'));
  rmSync(made, { recursive: true, force: true });
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
function ensureBusybox(cache, apts, arch) {
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

/**
 * What QEMU starts fastest of a Debian kernel. An arm64 one is not compressed, or so that QEMU
 * unpacks it.
 */
function bootable(arch, packaged, directory) {
  return arch === 'amd64' ? ensureVmlinux(packaged, join(directory, 'vmlinux')) : packaged;
}

/**
 * Kernels of one architecture and their initramfs.
 * @param {(arch: string) => Apt} apts the running release's packages, by architecture
 * @param {string[]} wanted series, as in ["6.12"]
 * @returns {Promise<Record<string, {release: string, image: string, packaged: string,
 *   initramfs: string}>>}
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
      initramfs: ensureInitramfs(cache, release, busybox, native, [image]),
    };
  }
  return kernels;
}
