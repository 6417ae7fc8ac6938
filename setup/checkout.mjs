/**
 * What one checkout was set up with. What is made is named by its contents and may serve several
 * checkouts; which of it a checkout uses is noted below its own name, so that setting up another
 * one changes nothing for it.
 */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';

/** A name that no other directory of this machine has. src/cli/paths.ts has the same. */
function checkoutName(root) {
  const path = realpathSync(root);
  return `${basename(path)}-${createHash('sha256').update(path).digest('hex').slice(0, 12)}`;
}

/** Copies a file so that a process that opens it has the old one or the new one, whole. */
function replace(from, to) {
  copyFileSync(from, `${to}.new`);
  renameSync(`${to}.new`, to);
}

/** In the directory of a checkout's bridges: hash of the sources that they were built from. */
const SOURCES = 'sources';

export class Checkout {
  #cache;
  #name;

  /**
   * @param {import('./cache.mjs').Cache} cache
   * @param {string} root of the checkout
   */
  constructor(cache, root) {
    this.#cache = cache;
    this.#name = join('checkouts', checkoutName(root));
  }

  /** The file that commands and tests read. */
  get pathsFile() {
    return this.#cache.path(this.#name, 'paths.json');
  }

  /** @returns {object | undefined} what was prepared, by any run */
  get paths() {
    return this.#cache.readJson(join(this.#name, 'paths.json'));
  }

  /** @returns {object | undefined} what the last run was asked for, and found */
  get fingerprint() {
    return this.#cache.readJson(join(this.#name, 'state.json'))?.fingerprint;
  }

  /**
   * Puts bridges into the checkout's own directory, beside those of the same sources that are there
   * for other QEMUs. The directory stays where it is, so what names the loader in it stays right.
   * @param {string} sources hash of what they were built from
   * @param {Record<string, string>} files where each is now, by its name there
   * @returns {string} the directory
   */
  keepBridges(sources, files) {
    const directory = this.#cache.path(this.#name, 'bridge');
    mkdirSync(directory, { recursive: true });
    const stamp = join(directory, SOURCES);
    const old = !existsSync(stamp) || readFileSync(stamp, 'utf8') !== sources;
    for (const name of old ? readdirSync(directory) : []) {
      if (!Object.hasOwn(files, name)) rmSync(join(directory, name));
    }
    for (const [name, file] of Object.entries(files)) replace(file, join(directory, name));
    writeFileSync(stamp, sources);
    return directory;
  }

  note(paths, fingerprint) {
    this.#cache.writeJson(join(this.#name, 'paths.json'), paths);
    this.#cache.writeJson(join(this.#name, 'state.json'), { fingerprint });
  }
}
