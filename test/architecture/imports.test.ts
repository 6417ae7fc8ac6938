import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { titled } from '../support/titled.js';

/**
 * The house's one direction (ARCHITECTURE.md): a file imports from its own folder or from one that
 * stands further down this list. Observers (`observe`) hang off events; only `cli` and `main.ts`
 * know them.
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

/** Where a lower folder names a higher one's types, with the reason. */
const TYPE_ONLY_EXCEPTIONS: ReadonlyMap<string, string> = new Map([
  ['events -> device', 'the union of events carries ModelEvent'],
]);

interface Side {
  readonly folder: string;
  /** What it may import outside of its folder: files, and folders with all below them. */
  readonly may: readonly string[];
  /** Files that may import more, with what and the reason. */
  readonly exceptions: Readonly<Record<string, { readonly may: readonly string[]; readonly why: string }>>;
}

/**
 * The guest's side and the host's side check the models, session, shadow and nesting, and each
 * other. A checker that shares code with what it checks shares its mistakes, so each side reads and
 * writes tables, queues and structures itself.
 */
const SIDES: readonly Side[] = [
  {
    folder: 'src/sim',
    may: ['src/spec', 'src/base', 'src/wire', 'src/device/iommu.ts', 'src/device/peer-queue.ts'],
    exceptions: {
      'src/sim/assigned-host.ts': {
        may: ['src/host', 'src/assignment/request.ts'],
        why: 'joins both sides: what the daemon asks of a host is done on a simulated one',
      },
    },
  },
  {
    folder: 'src/host/sim',
    may: ['src/host', 'src/spec', 'src/base', 'src/memory', 'src/assignment', 'src/device/iommu.ts'],
    exceptions: {
      'src/host/sim/unit.ts': { may: ['src/device/models.ts'], why: 'the hardware: a model' },
      'src/host/sim/vtd2-unit.ts': {
        may: ['src/walk', 'src/cache'],
        why: 'the hardware: no model has extended contexts, so this unit is made of the parts of one',
      },
    },
  },
];

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
  readonly target: string;
  readonly typeOnly: boolean;
}

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s(?<type>type\s)?[^;']*?from\s+'(?<from>\.[^']+)'|\bimport\s*\(?\s*'(?<alone>\.[^']+)'/g;

const imports: Import[] = files.flatMap((file) =>
  [...readFileSync(file, 'utf8').matchAll(IMPORT)].map(({ groups = {} }) => {
    const path = resolve(dirname(file), groups['from'] ?? groups['alone'] ?? '');
    return {
      from: folderOf(file),
      file: relative(root, file),
      to: folderOf(path),
      target: relative(root, path).replace(/\.js$/, '.ts'),
      typeOnly: groups['type'] !== undefined,
    };
  }),
);

const isIn = (path: string, places: readonly string[]): boolean =>
  places.some((place) => path === place || path.startsWith(`${place}/`));

/** What a text imports, as files. `path` is where it stands. */
function importedBy(path: string, text: string): string[] {
  return [...text.matchAll(IMPORT)].map(({ groups = {} }) =>
    resolve(dirname(path), (groups['from'] ?? groups['alone'] ?? '').replace(/\.js$/, '.ts')),
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

  const upwards = imports.filter(({ from, to }) => ORDER.indexOf(to as never) < ORDER.indexOf(from as never));

  it('imports only downwards', () => {
    const excepted = ({ from, to, typeOnly }: Import): boolean =>
      typeOnly && TYPE_ONLY_EXCEPTIONS.has(`${from} -> ${to}`);
    expect(upwards.filter((found) => !excepted(found))).toEqual([]);
  });

  it('has no exception that no import uses', () => {
    const used = new Set(upwards.map(({ from, to }) => `${from} -> ${to}`));
    expect([...TYPE_ONLY_EXCEPTIONS.keys()].filter((name) => !used.has(name))).toEqual([]);
    for (const { folder, exceptions } of SIDES) {
      for (const [file, { may }] of Object.entries(exceptions)) {
        const targets = imports.filter((found) => found.file === file).map(({ target }) => target);
        const unused = may.filter((place) => !targets.some((target) => isIn(target, [place])));
        expect(unused, `${folder}: ${file}`).toEqual([]);
      }
    }
  });

  it.each(titled(SIDES, ({ folder }) => `keeps ${folder} independent of what it checks`))(
    '%s',
    (_title, { folder, may, exceptions }) => {
      const wrong = imports.filter(
        ({ file, target }) =>
          isIn(file, [folder]) && !isIn(target, [folder, ...may, ...(exceptions[file]?.may ?? [])]),
      );
      expect(wrong).toEqual([]);
    },
  );

  it('keeps simulated hosts and test support out of the product', () => {
    const wrong = imports.filter(({ file, target }) => {
      if (isIn(target, ['src/host/sim'])) return !isIn(file, ['src/host/sim', 'src/sim']);
      return target.includes('/testing/') && !file.includes('/testing/');
    });
    expect(wrong).toEqual([]);
  });

  it('has one way of private members: #', () => {
    const modifier = /^\s*private\s+(?!constructor\b)\w|[(,]\s*private\s+(?:readonly\s+)?\w+\??:/m;
    const wrong = files.filter((file) => modifier.test(readFileSync(file, 'utf8')));
    expect(wrong.map((file) => relative(root, file))).toEqual([]);
    expect(modifier.test('  private readonly name = 1;')).toBe(true);
    expect(modifier.test('  constructor(private name: string) {}')).toBe(true);
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
    // main.ts reads them and hands them on. Workers read what their parent gave them.
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
