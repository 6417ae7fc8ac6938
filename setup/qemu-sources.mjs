/**
 * Where the sources of a QEMU release come from: the releases of Debian that have them, or a
 * tarball that the user names, because the mirror does not serve every version that it lists.
 */
import { Apt } from './apt.mjs';
import { capture, INTERRUPTED, SetupError } from './exec.mjs';
import { recentKernels } from './uapi-headers.mjs';

/** Upstream version in a Debian version: 1:10.0.2+ds-2+deb13u1~bpo12+1 → 10.0.2. */
export function upstreamVersion(debianVersion) {
  return /^(?:\d+:)?([0-9.]+(?:~?rc\d+)?)/.exec(debianVersion)?.[1];
}

export class QemuSources {
  #cache;
  #apts;
  #tarball;

  /**
   * @param {import('./cache.mjs').Cache} cache
   * @param {(() => Apt)[]} apts of the releases to look in, in this order
   * @param {string} [tarball] the user's own, instead of Debian's
   */
  constructor(cache, apts, tarball) {
    this.#cache = cache;
    this.#apts = apts;
    this.#tarball = tarball;
  }

  /** Debian's, from the running release on to the newest. */
  static ofDebian(cache, platform, tarball) {
    return new QemuSources(
      cache,
      [
        () => Apt.forHost(cache, platform),
        () => Apt.forRelease(cache, platform, 'trixie'),
        () => recentKernels(cache, platform),
        () => Apt.forSuites(cache, 'apt-next', platform, ['testing', 'unstable'], []),
      ],
      tarball,
    );
  }

  /**
   * @param {string} version upstream's, as in "10.0.2"
   * @param {string} directory that a download goes to
   * @returns {Promise<string>} path of a tarball
   * @throws {SetupError} when it cannot be had
   */
  async tarball(version, directory) {
    if (this.#tarball) {
      requireVersion(this.#tarball, version);
      return this.#tarball;
    }
    const refused = [];
    for (const make of this.#apts) {
      const apt = make();
      await apt.update();
      const packaged = apt.sourceVersions('qemu').find((found) => upstreamVersion(found) === version);
      if (packaged === undefined || refused.includes(packaged)) continue;
      try {
        const what = `fetching the sources of QEMU ${version} (40 MB)`;
        return await apt.downloadOrig(what, 'qemu', packaged, directory);
      } catch (error) {
        if (error.exitCode === INTERRUPTED) throw error;
        refused.push(packaged);
      }
    }
    const error = new SetupError(sentence(version, refused, this.#cache.log('apt-source')));
    const reason = refused.length > 0 ? 'sources listed and not served' : 'no sources';
    throw Object.assign(error, { reason });
  }
}

/** What is wrong, and what to do. */
function sentence(version, refused, log) {
  const what =
    refused.length > 0
      ? `Debian's mirror lists the sources of QEMU ${version} (${refused.join(', ')}) and does not serve them (${log})`
      : `Debian's mirror has no sources of QEMU ${version}`;
  return `${what}: fetch qemu-${version}.tar.xz from https://download.qemu.org and name it with --sources FILE.`;
}

/** @throws {SetupError} when the tarball is of another release */
function requireVersion(tarball, version) {
  const options = ['-xOf', tarball, '--wildcards', '--no-wildcards-match-slash', '*/VERSION'];
  const found = capture('tar', options).trim();
  if (found !== version) {
    throw new SetupError(`--sources ${tarball} is QEMU ${found}, and ${version} is wanted.`);
  }
}
