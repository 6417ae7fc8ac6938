/** A seeded sample of the mutants of a folder. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

/**
 * Mutations that are left out: texts are for people, and tests hold only to their codes and to what
 * they must contain. (What a text decides, a kind of event for instance, is lost with them.)
 */
export const EXCLUDED = ['StringLiteral'];

/** Sources of a folder that are mutated: all but tests and what only tests use. */
export function sourcesOf(root, folder) {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !path.includes('/testing/'))
    .sort();
}

/** Tests that start compiled code: a mutant of a source has no effect on them. */
const COMPILED = /support\/(session-vm|daemon|rig)\.js/;

/** Test files of these folders that run the sources. */
export function testsOf(root, folders) {
  return folders
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true }).map((name) => `${folder}/${name}`),
    )
    .filter((path) => path.endsWith('.test.ts'))
    .filter((path) => !COMPILED.test(readFileSync(join(root, path), 'utf8')))
    .sort();
}

/**
 * What a mutant is called, in every process. Lines and columns count from 1.
 * @param first what they count from in `mutant`: 0 before it was tried, 1 in a result
 */
export function keyOf(root, mutant, first) {
  const { fileName, location, mutatorName, replacement } = mutant;
  const place = ({ line, column }) => `${line + 1 - first}:${column + 1 - first}`;
  const at = `${place(location.start)}-${place(location.end)}`;
  // In the copy that is mutated, the path ends the same way.
  const path = relative(root, fileName).replace(/^.*\.stryker-tmp\/sandbox-[^/]*\//, '');
  return `${path}:${at} ${mutatorName} ${replacement}`;
}

/** Where a mutant is, as Stryker's option `mutate` has it: columns count from 0 there. */
export function rangeOf(key) {
  const [, path, line, column, endLine, endColumn] = /^([^:]+):(\d+):(\d+)-(\d+):(\d+) /.exec(key);
  return `${path}:${line}:${column - 1}-${endLine}:${endColumn - 1}`;
}

/** `count` of these keys: the same ones for the same seed, whatever else there is. */
export function sample(keys, seed, count) {
  const draw = (key) => createHash('sha256').update(`${seed} ${key}`).digest('hex');
  return keys
    .map((key) => [draw(key), key])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .slice(0, count)
    .map(([, key]) => key);
}
