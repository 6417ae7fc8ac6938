/**
 * What one checkout was set up with. What is made is named by its contents and may serve several
 * checkouts; which of it a checkout uses is noted below its own name, so that setting up another
 * one changes nothing for it.
 */
import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { basename, join } from 'node:path';

/** A name that no other directory of this machine has. src/cli/paths.ts has the same. */
export function checkoutName(root) {
  const path = realpathSync(root);
  return `${basename(path)}-${createHash('sha256').update(path).digest('hex').slice(0, 12)}`;
}

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

  note(paths, fingerprint) {
    this.#cache.writeJson(join(this.#name, 'paths.json'), paths);
    this.#cache.writeJson(join(this.#name, 'state.json'), { fingerprint });
  }
}
