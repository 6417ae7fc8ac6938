/** What npm and TypeScript make inside the source tree: node_modules and dist. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Build, isFresh } from './build-stamp.mjs';
import { hashOf } from './cache.mjs';
import { runLogged, SetupError } from './exec.mjs';

export const ROOT = join(import.meta.dirname, '..');

const readOr = (path) => (existsSync(path) ? readFileSync(path, 'utf8') : '');

/** Installs npm packages when there are none, or the lock file changed since. */
export async function ensureNpmPackages(logDirectory) {
  const lock = join(ROOT, 'package-lock.json');
  const installed = join(ROOT, 'node_modules/.package-lock.json');
  const stamp = join(ROOT, 'node_modules/.viommu-lock-hash');
  const hash = hashOf([lock]);
  if (existsSync(installed)) {
    if (readOr(stamp) === hash) {
      return;
    }
    // Installed by npm itself, after the lock file was written.
    if (!existsSync(stamp) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) {
      writeFileSync(stamp, hash);
      return;
    }
  }
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund'];
  await runLogged('installing npm packages', join(logDirectory, 'npm.log'), 'npm', args, { cwd: ROOT });
  writeFileSync(stamp, hash);
}

/** Compiles src/ to dist/ when a source or the configuration changed since the last time. */
export async function ensureBuilt(logDirectory) {
  if (!existsSync(join(ROOT, 'tsconfig.build.json'))) {
    throw new SetupError('tsconfig.build.json is missing: this is not a whole checkout.');
  }
  if (isFresh(ROOT)) return;
  const build = new Build(ROOT);
  const compiler = join(ROOT, 'node_modules/.bin/tsc');
  await runLogged('compiling', join(logDirectory, 'tsc.log'), compiler, build.arguments, { cwd: ROOT });
  build.finish();
}
