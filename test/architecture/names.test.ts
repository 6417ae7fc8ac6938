import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

/** One name for each thing, and no more of them in sight than other files need. */

const root = fileURLToPath(new URL('../..', import.meta.url));

interface Source {
  readonly path: string;
  readonly text: string;
}

const COMMENT = /\/\*[\s\S]*?\*\/|\/\/[^\n]*/g;

function sourcesOf(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(?:ts|mjs)$/.test(name) && !name.includes('node_modules'))
    .map((name) => join(folder, name))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8').replace(COMMENT, ' ') }));
}

const all = ['src', 'test', 'setup'].flatMap(sourcesOf);
const product = all.filter(({ path }) => path.startsWith('src/') && !path.endsWith('.test.ts'));

/** Whose exports other texts need not name, with the reason. */
const READ_WHOLE: readonly (readonly [place: string, why: string])[] = [
  ['src/spec/smmuv3/', 'test/tables reads every definition'],
  ['src/spec/vtd/', 'test/tables reads every definition'],
  ['src/wire/generated/', 'made from the contract, all of it'],
  ['test/mutation/plugin.mjs', 'the mutation tester reads it'],
  ['test/support/nothing-found.ts', 'vitest.config.ts has it'],
];

const EXPORT = /^export (?:abstract |async |declare )*(?:const|let|function\*?|class|interface|type) (\w+)/gm;

/** Exports that no other file names. */
function unshared(sources: readonly Source[]): string[] {
  const files = new Map<string, number>();
  for (const { text } of sources) {
    for (const word of new Set(text.match(/[A-Za-z_]\w*/g))) files.set(word, (files.get(word) ?? 0) + 1);
  }
  return sources
    .filter(({ path }) => !READ_WHOLE.some(([place]) => path.startsWith(place)))
    .flatMap(({ path, text }) =>
      [...text.matchAll(EXPORT)]
        .filter(([, name]) => files.get(name as string) === 1)
        .map(([, name]) => `${path}: ${name}`),
    );
}

/** Folders that run parallel: what is one chapter of both has one file name. */
const PARALLEL: readonly (readonly string[])[] = [
  ['src/device', 'src/device/smmuv3', 'src/device/vtd', 'src/spec/smmuv3', 'src/spec/vtd'],
  ['src/wire', 'src/wire/generated'],
];
/** Files that are named by the model which they are about. */
const MODELS = ['smmuv3.ts', 'vtd.ts'];

/** Files of one name that are not parallel chapters. */
function namesakes(paths: readonly string[]): string[] {
  const folders = new Map<string, string[]>();
  for (const path of paths) {
    const found = folders.get(basename(path)) ?? [];
    folders.set(basename(path), [...found, dirname(path)]);
  }
  return [...folders]
    .filter(([name]) => !MODELS.includes(name))
    .filter(([, of]) => of.length > 1 && !PARALLEL.some((row) => of.every((folder) => row.includes(folder))))
    .map(([name, of]) => `${name}: ${of.join(', ')}`);
}

describe('names', () => {
  it('are read at all', () => {
    expect(product.length).toBeGreaterThan(200);
    expect(all.length).toBeGreaterThan(500);
  });

  it('stand for one class in all of src', () => {
    const names = product.flatMap(({ text }) =>
      [...text.matchAll(/^(?:export )?(?:abstract )?class (\w+)/gm)].map(([, name]) => name as string),
    );
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });

  it('stand for one file in all of src, but for parallel chapters', () => {
    const paths = product.map(({ path }) => path);
    expect(namesakes(paths)).toEqual([]);
    expect(namesakes([...paths, 'src/base/loop.ts'])).toEqual(['loop.ts: src/session, src/base']);
  });

  it('are exported where another file needs them', () => {
    expect(unshared(all)).toEqual([]);
    // Written so that this file does not name it.
    const name = ['NAMED', 'NOWHERE'].join('_');
    const planted = { path: 'src/base/planted.ts', text: `export const ${name} = 1;\nuse(${name});\n` };
    expect(unshared([...all, planted])).toEqual([`src/base/planted.ts: ${name}`]);
  });

  it('of pages and of ids that stand for none or all are those of src/base', () => {
    const again = /const (?:(?:\w*_)?PAGE(?:_\w+)? = (?:-?4096n?|12|0xfff|2 \*\* 12)\b|(?:NO_PASID|ANY) =)/;
    const wrong = [...product, ...sourcesOf('test/support')]
      .filter(({ path, text }) => again.test(text) && dirname(path) !== 'src/base')
      .map(({ path }) => path);
    expect(wrong).toEqual([]);
    expect(again.test('const PAGE_BYTES = 4096;')).toBe(true);
    expect(again.test('export const NO_PASID = -1;')).toBe(true);
  });
});
