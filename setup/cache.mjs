/** The cache outside the source tree: where it is, its lock, and steps that are whole or absent. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SetupError, say } from './exec.mjs';

/** Root of the cache: $VIOMMU_CACHE, else $XDG_CACHE_HOME/viommu, else ~/.cache/viommu. */
export function cacheRoot(env = process.env) {
  return resolve(env.VIOMMU_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'viommu'));
}

export class Cache {
  constructor(root) {
    this.root = root;
    this.lockFd = -1;
    /** Directories that are being made, by name. */
    this.making = new Map();
  }

  path(...parts) {
    return join(this.root, ...parts);
  }

  /** Log file of one step; its directory exists. */
  log(step) {
    mkdirSync(this.path('logs'), { recursive: true });
    return this.path('logs', `${step}.log`);
  }

  /**
   * Takes the cache's lock, waiting for another set-up. It is a kernel lock (flock) on an open file
   * that this process keeps, so it can't outlive the process and never becomes stale.
   */
  async lock() {
    mkdirSync(this.root, { recursive: true });
    this.lockFd = openSync(this.path('lock'), 'a+');
    let told = false;
    while (
      spawnSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', this.lockFd] }).status !== 0
    ) {
      if (!told) {
        say(`another set-up uses ${this.root}: waiting for it`);
        told = true;
      }
      await sleep(300);
    }
    // Whatever an interrupted run left half made lives here and nowhere else.
    rmSync(this.path('tmp'), { recursive: true, force: true });
  }

  unlock() {
    if (this.lockFd >= 0) {
      closeSync(this.lockFd);
      this.lockFd = -1;
    }
  }

  /** A fresh scratch directory inside the cache (same file system, so that it can be renamed). */
  scratch(name) {
    mkdirSync(this.path('tmp'), { recursive: true });
    return mkdtempSync(this.path('tmp', `${name}-`));
  }

  /**
   * Makes a directory of the cache whole or not at all: `build` fills a scratch directory, which
   * is renamed into place.
   * @returns {Promise<string>} its final path
   */
  async directory(name, build) {
    const target = this.path(name);
    if (existsSync(target)) {
      return target;
    }
    // A caller that asks for it while it is being made gets the same one.
    const making = this.making.get(name) ?? this.make(name, target, build);
    this.making.set(name, making);
    try {
      return await making;
    } finally {
      this.making.delete(name);
    }
  }

  async make(name, target, build) {
    const scratch = this.scratch(name.replaceAll('/', '-'));
    await build(scratch, target);
    chmodSync(scratch, 0o755);
    mkdirSync(dirname(target), { recursive: true });
    renameSync(scratch, target);
    return target;
  }

  /** Writes a JSON file whole. */
  writeJson(name, value) {
    const target = this.path(name);
    mkdirSync(dirname(target), { recursive: true });
    const temporary = join(dirname(target), `.${basename(target)}.${process.pid}`);
    writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
    renameSync(temporary, target);
  }

  readJson(name) {
    return readJson(this.path(name));
  }
}

/** Parsed JSON file, or undefined when it is missing or damaged. */
export function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** All files below a path (or the path itself), sorted, so that a hash over them is stable. */
export function filesBelow(path) {
  let stat;
  try {
    stat = statSync(path);
  } catch {
    return [];
  }
  if (!stat.isDirectory()) {
    return [path];
  }
  return readdirSync(path, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const below = join(path, entry.name);
      return entry.isDirectory() ? filesBelow(below) : [below];
    });
}

/**
 * Short hash over the names and contents of files and directories, plus any extra text.
 * @param {string} [base] directory that the names are relative to; without it they are whole
 */
export function hashOf(paths, extra = '', base = undefined) {
  const hash = createHash('sha256').update(extra);
  for (const file of paths.flatMap(filesBelow)) {
    const name = base === undefined ? file : relative(base, file);
    hash.update(name).update('\0').update(readFileSync(file)).update('\0');
  }
  return hash.digest('hex').slice(0, 16);
}

/** What identifies a file without reading it: changes when it is replaced or written. */
export function fileIdentity(path) {
  try {
    const { ino, size, mtimeMs } = statSync(path);
    return `${ino}:${size}:${mtimeMs}`;
  } catch {
    return 'absent';
  }
}

/** Fails early when the cache's file system has less than `bytes` free. */
export function requireSpace(root, bytes, statfs) {
  mkdirSync(root, { recursive: true });
  const { bavail, bsize } = statfs(root);
  const free = bavail * bsize;
  if (free < bytes) {
    const gib = (n) => `${(n / 2 ** 30).toFixed(1)} GiB`;
    throw new SetupError(
      `${root} has ${gib(free)} free and the set-up needs ${gib(bytes)}: make room, or name another place with VIOMMU_CACHE.`,
    );
  }
}
