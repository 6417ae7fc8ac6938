/**
 * Debian's programs and libraries of another architecture, unpacked and not installed: a root file
 * system for a machine of that architecture under emulation, and what a cross compiler needs of it.
 * No package's scripts are run.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { hashOf, readJson } from './cache.mjs';
import { capture } from './exec.mjs';

/** Has the links from /bin, /lib and /sbin to /usr, which unpacking the others relies on. */
const FIRST = 'base-files';
/** Versions of what was unpacked, by package. */
const VERSIONS = 'packages.json';

/**
 * @param {import('./cache.mjs').Cache} cache
 * @param {import('./apt.mjs').Apt} apt of a release and an architecture
 * @param {string[]} packages names; what they depend on comes with them
 * @param {string[]} directories to be there besides, such as mount points
 * @returns {Promise<{root: string, versions: Record<string, string>}>} versions: Debian's,
 *   by package
 */
export async function ensureTree(cache, apt, packages, directories) {
  const wanted = [FIRST, ...packages];
  const made = [readFileSync(import.meta.filename), apt.sources, ...wanted, ...directories].join(' ');
  const name = `tree-${apt.arch}-${hashOf([], made)}`;
  const root = await cache.directory(name, async (target) => {
    const scratch = cache.scratch('tree-debs');
    const files = await apt.downloadAll(`fetching Debian's programs for ${apt.arch}`, wanted, scratch);
    const first = files.filter((file) => basename(file).startsWith(`${FIRST}_`));
    const versions = {};
    for (const deb of new Set([...first, ...files])) {
      capture('dpkg', ['-x', deb, target]);
      // apt names its files so: name_1%3a10.0.13+ds-0+deb13u1_arm64.deb
      const [of, version] = basename(deb).split('_').map(decodeURIComponent);
      versions[of] = version;
    }
    for (const directory of directories) mkdirSync(join(target, directory), { recursive: true });
    writeFileSync(join(target, VERSIONS), JSON.stringify(versions, null, 2));
    rmSync(scratch, { recursive: true, force: true });
  });
  return { root, versions: readJson(join(root, VERSIONS)) };
}
