/** What `npm run test:vfio` needs besides: archives for a level-1 machine, and for the level-2 guest inside it. */
import { join } from 'node:path';
import { ARCHES, HOST_ARCH } from './arches.mjs';
import { Cache, cacheRoot } from './cache.mjs';
import { ensureInitramfs } from './initramfs.mjs';
import { ROOT } from './project.mjs';

const GUEST = join(ROOT, 'test/guests/image');
const LEVEL_1 = join(ROOT, 'test/vfio/level1');
const LEVEL_2 = join(ROOT, 'test/vfio/level2');

/**
 * @param {object} paths what was prepared (paths.json)
 * @param {string} arch of level 2; level 1 is a machine like this one
 * @returns {{level1: {kernel: string, initramfs: string}, level2: {kernel: string, initramfs: string}}}
 */
export function ensureLevels(paths, arch) {
  const cache = new Cache(cacheRoot());
  const busybox = (of) => cache.path(ARCHES[of].busybox, 'busybox');
  const level = (of, images, name) => {
    const kernel = (of === HOST_ARCH ? paths : paths[of]).kernels['6.12'];
    const initramfs = ensureInitramfs(cache, kernel.release, busybox(of), busybox(HOST_ARCH), images, name);
    return { kernel: kernel.image, initramfs };
  };
  return { level1: level(HOST_ARCH, [LEVEL_1], 'level1'), level2: level(arch, [GUEST, LEVEL_2], 'level2') };
}
