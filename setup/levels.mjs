/** What `npm run test:vfio` needs besides: archives for a level-1 machine, and for the level-2 guest inside it. */
import { join } from 'node:path';
import { ARCHES, HOST_ARCH } from './arches.mjs';
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

/**
 * @param {object} paths what was prepared (paths.json)
 * @param {string} arch of level 2; level 1 is a machine like this one
 * @param {boolean} iommufd whether level 1 has iommufd, which takes a kernel of our own
 * @returns {Promise<{level1: {kernel: string, initramfs: string}, level2: {kernel: string, initramfs: string}}>}
 */
export async function ensureLevels(paths, arch, iommufd) {
  const cache = new Cache(cacheRoot());
  const busybox = (of) => cache.path(ARCHES[of].busybox, 'busybox');
  const level = (of, kernel, images, name) => {
    const initramfs = ensureInitramfs(cache, kernel.release, busybox(of), busybox(HOST_ARCH), images, name);
    return { kernel: kernel.image, initramfs };
  };
  const debian = (of) => (of === HOST_ARCH ? paths : paths[of]).kernels['6.12'];
  const level2 = (kernel) => level(arch, kernel, [GUEST, LEVEL_2], 'level2');
  if (!iommufd) {
    return { level1: level(HOST_ARCH, debian(HOST_ARCH), [LEVEL_1], 'level1'), level2: level2(debian(arch)) };
  }
  const own = await ensureCustomKernel(cache, checkPlatform(), IOMMUFD_KERNEL);
  return {
    level1: level(HOST_ARCH, own, [LEVEL_1, IOMMUFD], 'level1-iommufd'),
    level2: level2(arch === HOST_ARCH ? own : debian(arch)),
  };
}
