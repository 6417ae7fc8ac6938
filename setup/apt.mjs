/**
 * apt with a private list, lists directory and cache: the machine's own configuration is not
 * touched.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { findDebian, parseDeb822, parseOneLine, privateSources } from './apt-sources.mjs';
import { HOST_ARCH } from './arches.mjs';
import { capture, INTERRUPTED, runLogged, SetupError, tryCapture } from './exec.mjs';

const DAY_MS = 24 * 3600 * 1000;

/** All entries of /etc/apt/sources.list and sources.list.d. */
export function machineSources(root = '/etc/apt') {
  const entries = [];
  const read = (path, parse) => {
    if (existsSync(path)) {
      entries.push(...parse(readFileSync(path, 'utf8')));
    }
  };
  read(join(root, 'sources.list'), parseOneLine);
  const parts = join(root, 'sources.list.d');
  for (const name of existsSync(parts) ? readdirSync(parts).sort() : []) {
    if (name.endsWith('.list')) {
      read(join(parts, name), parseOneLine);
    } else if (name.endsWith('.sources')) {
      read(join(parts, name), parseDeb822);
    }
  }
  return entries;
}

/** Paths of the package files in a directory. */
const packagesIn = (directory) =>
  readdirSync(directory)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(directory, name));

export class Apt {
  /**
   * @param {import('./cache.mjs').Cache} cache
   * @param {string} name directory of this list below the cache
   * @param {string} sources text of the deb822 list
   * @param {string} arch whose packages these are
   */
  constructor(cache, name, sources, arch) {
    this.cache = cache;
    this.arch = arch;
    this.directory = cache.path(name);
    this.sources = sources;
    this.updated = false;
  }

  /**
   * apt for the running release (with backports where QEMU comes from there). For another
   * architecture than the machine's it is one to download from only; dpkg is not told of that
   * architecture.
   */
  static forHost(cache, platform, arch = HOST_ARCH) {
    const { codename } = platform;
    const suites = [codename, `${codename}-updates`];
    if (platform.backports) {
      suites.push(`${codename}-backports`);
    }
    return Apt.forSuites(cache, 'apt', platform, suites, [`${codename}-security`], arch);
  }

  /** apt for another release on the same mirror, to download from only. */
  static forRelease(cache, platform, codename, arch = HOST_ARCH) {
    const suites = [codename, `${codename}-updates`];
    return Apt.forSuites(cache, `apt-${codename}`, platform, suites, [`${codename}-security`], arch);
  }

  static forSuites(cache, name, platform, suites, security, arch = HOST_ARCH) {
    const debian = findDebian(machineSources(), platform.codename);
    if (!debian) {
      throw new SetupError(
        `/etc/apt names no Debian mirror with suite ${platform.codename}: add one to /etc/apt/sources.list and run the command again.`,
      );
    }
    if (arch === HOST_ARCH) {
      return new Apt(cache, name, privateSources(debian, suites, security), arch);
    }
    return new Apt(cache, `${name}-${arch}`, privateSources(debian, suites, security, 'deb'), arch);
  }

  /** Options that make apt use the private list. Signatures are checked as always. */
  options() {
    const at = (...parts) => join(this.directory, ...parts);
    const foreign = [
      ['APT::Architecture', this.arch],
      ['APT::Architectures', this.arch],
      // What is installed here is of another architecture.
      ['Dir::State::status', '/dev/null'],
    ];
    return [
      ...(this.arch === HOST_ARCH ? [] : foreign),
      ['Dir::Etc::sourcelist', at('viommu.sources')],
      ['Dir::Etc::sourceparts', '-'],
      ['Dir::State::lists', at('lists')],
      ['Dir::Cache::pkgcache', ''],
      ['Dir::Cache::srcpkgcache', ''],
      // The cache may be in a home directory, which apt's own unprivileged user can't enter.
      ['APT::Sandbox::User', ''],
      ['DPkg::Lock::Timeout', '300'],
    ].flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  }

  /** Fetches the package lists unless they are fresh. */
  async update(force = false) {
    const list = join(this.directory, 'viommu.sources');
    const stamp = join(this.directory, 'updated');
    const same = existsSync(list) && readFileSync(list, 'utf8') === this.sources;
    const fresh = same && existsSync(stamp) && Date.now() - statSync(stamp).mtimeMs < DAY_MS;
    if (this.updated || (fresh && !force)) {
      return;
    }
    mkdirSync(join(this.directory, 'lists', 'partial'), { recursive: true });
    writeFileSync(`${list}.new`, this.sources);
    renameSync(`${list}.new`, list);
    const args = [...this.options(), '-o', 'APT::Update::Error-Mode=any', 'update'];
    const log = this.cache.log('apt-update');
    try {
      await runLogged("fetching Debian's package lists", log, 'apt-get', args);
    } catch (error) {
      if (error.exitCode === INTERRUPTED) {
        throw error;
      }
      const advice = 'check the network and the mirror in /etc/apt, and run the command again';
      throw new SetupError(`${error.message}\nDebian's mirror can't be used: ${advice}.`);
    }
    writeFileSync(stamp, '');
    this.updated = true;
  }

  /** Versions of a package that the list offers, newest first. */
  versions(name) {
    const out = tryCapture('apt-cache', [...this.options(), 'madison', name]) ?? '';
    const rows = out.split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
    return rows.filter((row) => row[0] === name && !row[2].endsWith('Sources')).map((row) => row[1]);
  }

  /** Versions of a source package that the list offers. */
  sourceVersions(name) {
    const out = tryCapture('apt-cache', [...this.options(), 'showsrc', name]) ?? '';
    return [...out.matchAll(/^Version: (\S+)$/gm)].map((match) => match[1]);
  }

  /** Names of packages with a prefix that the list offers (not those that are only installed). */
  names(prefix) {
    const out = capture('apt-cache', [
      ...this.options(),
      '-o',
      'Dir::State::status=/dev/null',
      'pkgnames',
      prefix,
    ]);
    return out.split('\n').filter(Boolean);
  }

  /**
   * Downloads packages into a directory, refreshing the lists once if a file is gone.
   * @returns {Promise<string[]>} paths of the .deb files
   */
  async download(what, packages, directory) {
    const run = () =>
      runLogged(
        what,
        this.cache.log('apt-download'),
        'apt-get',
        [...this.options(), 'download', ...packages],
        {
          cwd: directory,
        },
      );
    await this.withFreshLists(run);
    return packagesIn(directory);
  }

  /**
   * As `download`, with all that the packages depend on. For another architecture than the
   * machine's only: there nothing counts as installed.
   */
  async downloadAll(what, packages, directory) {
    mkdirSync(join(directory, 'partial'), { recursive: true });
    const archives = ['-o', `Dir::Cache::archives=${directory}`, '-o', 'Debug::NoLocking=1'];
    const install = ['-y', '--no-install-recommends', '--download-only', 'install', ...packages];
    const args = [...this.options(), ...archives, ...install];
    await this.withFreshLists(() => runLogged(what, this.cache.log('apt-download'), 'apt-get', args));
    return packagesIn(directory);
  }

  /**
   * Downloads only the upstream tarball of a source package. The tarball alone, because mirrors
   * keep it while several Debian revisions share it, also when one revision's .dsc is gone already.
   * @returns {Promise<string>} its path
   */
  async downloadOrig(what, name, version, directory) {
    const args = [...this.options(), 'source', '--download-only', '--tar-only', `${name}=${version}`];
    await this.withFreshLists(() =>
      runLogged(what, this.cache.log('apt-source'), 'apt-get', args, { cwd: directory }),
    );
    const tarball = readdirSync(directory).find((file) => /\.orig\.tar\.[a-z0-9]+$/.test(file));
    if (!tarball) {
      throw new SetupError(
        `apt gave no upstream tarball for ${name} ${version}: see ${this.cache.log('apt-source')}.`,
      );
    }
    return join(directory, tarball);
  }

  async withFreshLists(run) {
    await this.update();
    try {
      return await run();
    } catch (error) {
      if (this.updated || error.exitCode === INTERRUPTED) {
        throw error;
      }
      await this.update(true);
      return await run();
    }
  }
}
