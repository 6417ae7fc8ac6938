/**
 * dist and the bridge, and what they were compiled from. A build carries a hash of its sources, so
 * that tests which start compiled code can refuse a build of other sources.
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow, hashOf } from './cache.mjs';

const INPUTS = ['src', 'proto', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];
const STAMP = '.viommu-build';

/** Hash of everything that a build is made from. Unit tests stand in src and are no part of it. */
function sourcesHash(root) {
  const files = INPUTS.flatMap((name) => filesBelow(join(root, name)));
  return hashOf(files.filter((file) => !file.endsWith('.test.ts')));
}

/** What the bridge is made of; its own tests and a build left in the tree are not. */
const BRIDGE_SOURCE = /(\.(c|h|proto|options|map|build)|\/Makefile|\/Kconfig)$/;

/** Hash of everything that the bridge is made from, the same in every clone. */
export function bridgeSources(root) {
  const test = join(root, 'qemu-bridge/test/');
  const files = ['qemu-bridge', 'proto'].flatMap((part) => filesBelow(join(root, part)));
  const sources = files.filter((file) => BRIDGE_SOURCE.test(file) && !file.startsWith(test));
  return hashOf(sources, '', root);
}

/**
 * @param {string} root of the project
 * @param {string | undefined} made what `bridgeSources` was when the bridge was built; undefined
 *   for one that the user brought
 * @throws {Error} when the sources are others now
 */
export function requireFreshBridge(root, made) {
  if (made === undefined || made === bridgeSources(root)) return;
  throw new Error('the bridge was not built from the sources as they are now: run npm run setup');
}

function stampOf(root) {
  const stamp = join(root, 'dist', STAMP);
  return existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
}

/** Whether dist was compiled from the sources as they are now. */
export function isFresh(root) {
  return stampOf(root) === sourcesHash(root);
}

/**
 * @param {string} root of the project
 * @param {string} [instead] what else can be done than building
 * @throws {Error} when dist is missing or was compiled from other sources: says which, and what to
 *   do
 */
export function requireFresh(root, instead = '') {
  if (isFresh(root)) return;
  const what = existsSync(join(root, 'dist/main.js'))
    ? 'dist was not compiled from the sources as they are now'
    : 'dist is missing';
  throw new Error(`${what}: run npm run build${instead}`);
}

/** A compilation: into a folder of its own, so that one which fails leaves dist as it was. */
export class Build {
  #root;
  #hash;

  constructor(root) {
    this.#root = root;
    // Before the compiler reads the sources: a file that changes during it makes the result stale.
    this.#hash = sourcesHash(root);
    rmSync(this.#next, { recursive: true, force: true });
  }

  get #next() {
    return join(this.#root, 'dist.next');
  }

  /** Arguments of the compiler. */
  get arguments() {
    return ['-p', join(this.#root, 'tsconfig.build.json'), '--outDir', this.#next];
  }

  /** The compiler has succeeded: its output becomes dist, and files of removed sources are gone. */
  finish() {
    writeFileSync(join(this.#next, STAMP), this.#hash);
    const dist = join(this.#root, 'dist');
    rmSync(dist, { recursive: true, force: true });
    renameSync(this.#next, dist);
  }

  /** The compiler has failed. */
  abandon() {
    rmSync(this.#next, { recursive: true, force: true });
  }
}
