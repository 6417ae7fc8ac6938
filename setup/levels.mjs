/**
 * What `npm run test:vfio` and `test:kvm` need besides: archives for a level-1 machine, and for the
 * level-2 guest inside it.
 */
import { join } from 'node:path';
import { ARCHES, HOST_ARCH } from './arches.mjs';
import { ensureArm64Machine } from './arm64-machine.mjs';
import { Cache, cacheRoot } from './cache.mjs';
import { ensureCustomKernel } from './custom-kernels.mjs';
import { ensureInitramfs } from './initramfs.mjs';
import { checkPlatform } from './platform.mjs';
import { ROOT } from './project.mjs';

const GUEST = join(ROOT, 'test/guests/image');
const LEVEL_1 = join(ROOT, 'test/vfio/level1');
const IOMMUFD = join(ROOT, 'test/vfio/iommufd');
const IOMMUFD_KERNEL = join(ROOT, 'test/vfio/kernels/iommufd.config');
const LEVEL_2 = join(ROOT, 'test/vfio/level2');
const KVM_LEVEL_1 = { amd64: join(ROOT, 'test/kvm/level1'), arm64: join(ROOT, 'test/kvm/level1-arm64') };
const KVM_LEVEL_2 = join(ROOT, 'test/kvm/level2');

/**
 * @param {object} paths what was prepared (paths.json)
 * @param {{arch: string, level1: string, iommufd: boolean}} wanted arch: of level 2;
 *   level1: of level 1; iommufd: whether level 1 has it, which takes a kernel of our own
 * @returns {Promise<{level1: object, level2: object}>} of each the architecture, kernel and
 *   initramfs; of level 1 the programs too when this machine's are not for it (arm64-machine.mjs)
 */
export async function ensureLevels(paths, { arch, level1, iommufd }) {
  const cache = new Cache(cacheRoot());
  const busybox = (of) => cache.path(ARCHES[of].busybox, 'busybox');
  const level = (of, kernel, images, name) => {
    const initramfs = ensureInitramfs(cache, kernel.release, busybox(of), busybox(HOST_ARCH), images, name);
    return { arch: of, kernel: kernel.image, initramfs };
  };
  const debian = (of) => (of === HOST_ARCH ? paths : paths[of]).kernels['6.12'];
  const level2 = (kernel) => level(arch, kernel, [GUEST, LEVEL_2], 'level2');
  if (!iommufd) {
    const programs = level1 === HOST_ARCH ? undefined : await programsFor(cache);
    return {
      level1: { ...level(level1, debian(level1), [LEVEL_1], 'level1'), programs },
      level2: level2(debian(arch)),
    };
  }
  const own = await ensureCustomKernel(cache, checkPlatform(), IOMMUFD_KERNEL);
  return {
    level1: level(level1, own, [LEVEL_1, IOMMUFD], 'level1-iommufd'),
    level2: level2(arch === HOST_ARCH ? own : debian(arch)),
  };
}

/**
 * For `npm run test:kvm`: level 1 with KVM, and level 2 with the programs that measure, both of one
 * architecture.
 * @returns {Promise<{level1: object, level2: object}>} as ensureLevels
 */
export async function ensureKvmLevels(paths, arch) {
  const cache = new Cache(cacheRoot());
  const part = arch === HOST_ARCH ? paths : paths[arch];
  const kernel = part.kernels['6.12'];
  const level = (images, name) => ({
    arch,
    kernel: kernel.image,
    initramfs: ensureInitramfs(
      ...[cache, kernel.release],
      ...[cache.path(ARCHES[arch].busybox, 'busybox'), cache.path(ARCHES[HOST_ARCH].busybox, 'busybox')],
      ...[images, name],
    ),
  });
  const programs = arch === HOST_ARCH ? undefined : await programsFor(cache);
  return {
    level1: { ...level([LEVEL_1, KVM_LEVEL_1[arch]], 'kvm-level1'), programs },
    level2: { ...level([GUEST, KVM_LEVEL_2], 'kvm-level2'), programs: kernel.module },
  };
}

/** What an arm64 level 1 runs. */
async function programsFor(cache) {
  await cache.lock();
  try {
    return await ensureArm64Machine(cache, checkPlatform());
  } finally {
    cache.unlock();
  }
}
