import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

/**
 * The house's one direction (ARCHITECTURE.md): a file imports from its own folder or from one that stands
 * further down this list. Observers (`observe`) hang off events; only `cli` and `main.ts` know them.
 */
const ORDER = [
  'main.ts',
  'cli',
  'sim',
  'observe',
  'session',
  'wire',
  'nesting',
  'shadow',
  'host',
  'assignment',
  'device',
  'walk',
  'cache',
  'memory',
  'spec',
  'events',
  'base',
] as const;

/** Where a lower folder legitimately names a higher one's types, with the reason. */
const TYPE_ONLY_EXCEPTIONS: ReadonlyMap<string, string> = new Map([
  ['events -> device', 'the union of events carries ModelEvent'],
  ['walk -> device', 'spans are laid out as TranslateResult says'],
]);

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const src = join(root, 'src');

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts') ? [path] : [];
  });
}

const files = sources(src);
const folderOf = (path: string): string => relative(src, path).split('/')[0] as string;

interface Import {
  readonly from: string;
  readonly file: string;
  readonly to: string;
}

const IMPORT = /(?:^|\n)\s*(?:import|export)\s[^;]*?from\s+'(\.[^']+)'/g;

const imports: Import[] = files.flatMap((file) =>
  [...readFileSync(file, 'utf8').matchAll(IMPORT)].map((match) => ({
    from: folderOf(file),
    file: relative(root, file),
    to: folderOf(resolve(dirname(file), match[1] as string)),
  })),
);

/** What a text imports, as files. `path` is where it stands. */
function importedBy(path: string, text: string): string[] {
  return [...text.matchAll(IMPORT)].map((match) =>
    resolve(dirname(path), (match[1] as string).replace(/\.js$/, '.ts')),
  );
}

/** Every circle of files that import one another, types included, as names from `src` on. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = [];
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const path: string[] = [];
  const visit = (file: string): void => {
    order.set(file, order.size);
    low.set(file, order.get(file) as number);
    path.push(file);
    for (const next of graph.get(file) ?? []) {
      if (!order.has(next)) visit(next);
      else if (!path.includes(next)) continue;
      low.set(file, Math.min(low.get(file) as number, low.get(next) as number));
    }
    if (low.get(file) !== order.get(file)) return;
    const circle = path.splice(path.indexOf(file));
    if (circle.length > 1) found.push(circle.map((name) => relative(src, name)).sort());
  };
  for (const file of graph.keys()) if (!order.has(file)) visit(file);
  return found;
}

function importGraph(): Map<string, string[]> {
  return new Map(files.map((file) => [file, importedBy(file, readFileSync(file, 'utf8'))]));
}

describe('architecture', () => {
  it('sees the sources at all', () => {
    expect(files.length).toBeGreaterThan(20);
    expect(imports.length).toBeGreaterThan(20);
  });

  it('knows every folder of src', () => {
    const unknown = [...new Set(files.map(folderOf))].filter((name) => !ORDER.includes(name as never));
    expect(unknown).toEqual([]);
  });

  it('imports only downwards', () => {
    const wrong = imports.filter(({ from, to }) => {
      if (from === to || TYPE_ONLY_EXCEPTIONS.has(`${from} -> ${to}`)) return false;
      return ORDER.indexOf(to as never) < ORDER.indexOf(from as never);
    });
    expect(wrong).toEqual([]);
  });

  it('has no circle of imports, of types neither', () => {
    expect(circles(importGraph())).toEqual([]);
  });

  it('finds a circle that is planted', () => {
    const graph = importGraph();
    const from = join(src, 'session/completions.ts');
    const to = join(src, 'session/session.ts');
    const planted = "import type { Session } from './session.js';\n";
    graph.set(from, importedBy(from, planted + readFileSync(from, 'utf8')));
    const [circle] = circles(graph);
    expect(circle).toContain('session/completions.ts');
    expect(circle).toContain(relative(src, to));
  });

  it('keeps BigInt out of hot folders', () => {
    const hot = [
      'walk',
      'cache',
      'device',
      'memory',
      'spec',
      'session',
      'nesting',
      'shadow',
      'host',
      'assignment',
    ];
    const wrong = files
      .filter((file) => hot.includes(folderOf(file)))
      .filter((file) => /\bBigInt\(|\b[0-9]+n\b/.test(readFileSync(file, 'utf8')))
      .map((file) => relative(root, file));
    expect(wrong).toEqual([]);
  });

  it('reads argv, env and the clock only where the outside world begins', () => {
    // main.ts composes; everything else gets what it needs handed in. Workers read what their parent gave them.
    const engine = [
      'session',
      'wire',
      'nesting',
      'shadow',
      'host',
      'assignment',
      'device',
      'walk',
      'cache',
      'memory',
      'spec',
      'events',
      'base',
      'observe',
    ];
    const wrong = files
      .filter((file) => engine.includes(folderOf(file)))
      .filter((file) =>
        /process\.(argv|env)\b|\bDate\.now\(|new Date\(|Math\.random\(/.test(readFileSync(file, 'utf8')),
      )
      .map((file) => relative(root, file));
    expect(wrong).toEqual([]);
  });

  it('keeps files small enough to read, but for those that are made', () => {
    const long = files
      .filter((file) => !relative(src, file).startsWith('wire/generated/'))
      .map((file) => ({ file: relative(root, file), lines: readFileSync(file, 'utf8').split('\n').length }))
      .filter(({ lines }) => lines > 450);
    expect(long).toEqual([]);
  });
});
