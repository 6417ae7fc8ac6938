/**
 * Linux's own headers of iommufd and VFIO, which the bridge is compiled against: newer ones than
 * the running release has, because what it asks of iommufd came with Linux 6.15. They come with
 * Debian's linux-libc-dev and are not installed.
 */
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Apt } from './apt.mjs';
import { capture, SetupError } from './exec.mjs';

const NAMES = ['iommufd.h', 'vfio.h'];
const MINIMUM = '6.15';
/** Where Debian has recent kernels. */
const SUITE = 'trixie-backports';

/** apt for recent kernels' sources and headers, to download from only. */
export const recentKernels = (cache, platform) => Apt.forSuites(cache, `apt-${SUITE}`, platform, [SUITE], []);

/** @returns {Promise<string>} directory with linux/iommufd.h and linux/vfio.h */
export function ensureUapiHeaders(cache, platform) {
  return cache.directory('uapi-headers', async (directory) => {
    const apt = recentKernels(cache, platform);
    await apt.update();
    const [version] = apt.versions('linux-libc-dev');
    const recent =
      version &&
      capture('sh', ['-c', `dpkg --compare-versions ${version} ge ${MINIMUM} && echo yes || true`]);
    if (!recent) {
      throw new SetupError(
        `Debian's mirror has no linux-libc-dev ${MINIMUM} or newer in ${SUITE}: name a bridge that you built with --bridge.`,
      );
    }
    const scratch = cache.scratch('uapi-headers-deb');
    const [deb] = await apt.download(
      `fetching Linux's headers ${version}`,
      [`linux-libc-dev=${version}`],
      scratch,
    );
    capture('dpkg', ['-x', deb, scratch]);
    mkdirSync(join(directory, 'linux'));
    for (const name of NAMES) {
      cpSync(join(scratch, 'usr/include/linux', name), join(directory, 'linux', name));
    }
    rmSync(scratch, { recursive: true, force: true });
  });
}
