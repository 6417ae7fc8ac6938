import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type CFile, circlesOf, readC } from './c-sources.js';

/**
 * The rules of qemu-bridge (qemu-bridge/README.md, "How it works"): calls go down, every source
 * file has a header that declares exactly what the file defines, and every global begins with
 * `viommu_`.
 */

const DIRECTORY = fileURLToPath(new URL('../../qemu-bridge', import.meta.url));
/** Stands in for the C library's: the one global that is not ours to name. */
const INTERPOSED = ['ioctl'];

type Sources = ReadonlyMap<string, string>;

const sources: Sources = new Map(
  readdirSync(DIRECTORY)
    .filter((name) => /\.[ch]$/.test(name))
    .map((name) => [name, readFileSync(join(DIRECTORY, name), 'utf8')]),
);

const headerOf = (file: string): string => file.replace(/\.c$/, '.h');
const isSource = (file: string): boolean => file.endsWith('.c');

const parse = (from: Sources): Map<string, CFile> =>
  new Map([...from].map(([name, text]) => [name, readC(text)]));

/** Which source file calls another one: mentions what it defines. */
function calls(from: Sources): Map<string, ReadonlySet<string>> {
  const files = [...parse(from)].filter(([name]) => isSource(name));
  const mentions = (caller: CFile, callee: CFile): boolean =>
    [...callee.defines].some((name) => caller.mentions.has(name));
  return new Map(
    files.map(([name, file]) => {
      const called = files.filter(([other, callee]) => other !== name && mentions(file, callee));
      return [name, new Set(called.map(([other]) => other))];
    }),
  );
}

const circles = (from: Sources): string[][] => circlesOf(calls(from));

/** The rows of README's table, from above; `*` stands for several files. */
const rows = [...readFileSync(join(DIRECTORY, 'README.md'), 'utf8').matchAll(/^\| `([\w*-]+\.c)` /gm)].map(
  ([, pattern]) => new RegExp(`^${(pattern as string).replace('.', '\\.').replace('*', '.*')}$`),
);
const rowOf = (file: string): number => rows.findIndex((row) => row.test(file));

/** Calls to a file that stands further up in README's table. */
const upward = (from: Sources): string[] =>
  [...calls(from)].flatMap(([file, called]) =>
    [...called].filter((other) => rowOf(other) < rowOf(file)).map((other) => `${file} calls ${other}`),
  );

const ownGlobals = (file: CFile): string[] =>
  [...file.defines].filter((name) => !INTERPOSED.includes(name)).sort();

/** What is wrong with headers, a line each. */
function headerFaults(from: Sources): string[] {
  const files = parse(from);
  const faults: string[] = [];
  for (const [name, file] of files) {
    if (isSource(name)) {
      const globals = ownGlobals(file);
      const header = files.get(headerOf(name));
      const declared = [...(header?.declares ?? [])].sort();
      if (globals.length > 0 && !file.includes.has(headerOf(name)))
        faults.push(`${name} does not include its header`);
      faults.push(
        ...globals
          .filter((global) => !declared.includes(global))
          .map((global) => `${headerOf(name)} lacks ${global}`),
      );
      faults.push(
        ...declared.filter((global) => !globals.includes(global)).map((global) => `${name} lacks ${global}`),
      );
    } else if (file.declares.size > 0 && !files.has(name.replace(/\.h$/, '.c'))) {
      faults.push(`${name} declares ${[...file.declares].join(', ')}, and there is no such source file`);
    }
  }
  return faults;
}

const foreignNames = (from: Sources): string[] =>
  [...parse(from)].flatMap(([name, file]) =>
    isSource(name)
      ? ownGlobals(file)
          .filter((global) => !global.startsWith('viommu_'))
          .map((global) => `${name}: ${global}`)
      : [],
  );

describe('qemu-bridge', () => {
  it('is read at all', () => {
    const files = [...parse(sources)].filter(([name]) => isSource(name));
    expect(files.length).toBeGreaterThan(40);
    expect(files.flatMap(([, { defines }]) => [...defines]).length).toBeGreaterThan(150);
    const edges = calls(sources);
    expect(edges.get('front.c')).toContain('wire.c');
    expect(edges.get('viommu-types.c')).toContain('viommu-vtd.c');
    expect([...(edges.get('wire.c') as ReadonlySet<string>)]).toEqual([]);
    expect(readC(sources.get('ioctl-watch.c') as string).defines).toContain('ioctl');
  });

  it('has no circle of files that call each other', () => {
    expect(circles(sources)).toEqual([]);
  });

  it('has every file in the table of its README, and calls go down there', () => {
    expect([...sources.keys()].filter((name) => isSource(name) && rowOf(name) < 0)).toEqual([]);
    expect(upward(sources)).toEqual([]);
    expect(upward(new Map(sources).set('text.c', 'int x = viommu_front_post;'))).toEqual([
      'text.c calls front.c',
    ]);
  });

  it('has a header for each source file, which declares what the file defines', () => {
    expect(headerFaults(sources)).toEqual([]);
  });

  it('begins every global with viommu_', () => {
    expect(foreignNames(sources)).toEqual([]);
  });
});

describe('a fault that is planted in qemu-bridge', () => {
  const plant = (file: string, text: string): Sources =>
    new Map(sources).set(file, `${sources.get(file) ?? ''}\n${text}\n`);

  it('shows as a circle', () => {
    const up = 'static void up(void)\n{\n    viommu_front_post(NULL);\n}';
    expect(circles(plant('wire.c', up))).toEqual([['front.c', 'viommu-core.c', 'wire.c']]);
    const handed = 'static void (*const up)(ViommuCore *) = viommu_core_gone;';
    expect(circles(plant('wire.c', handed))).toEqual([['viommu-core.c', 'wire.c']]);
  });

  it('does not show as a circle in a comment or a string', () => {
    const text = '/* viommu_front_post(core) */\nstatic const char *text = "viommu_front_post(core)";';
    expect(circles(plant('wire.c', text))).toEqual([]);
  });

  it('shows as a header that lacks something, or that is not there', () => {
    const text = 'int viommu_planted(void)\n{\n    return 0;\n}';
    expect(headerFaults(plant('wire.c', text))).toEqual(['wire.h lacks viommu_planted']);
    expect(headerFaults(plant('planted.c', text))).toEqual([
      'planted.c does not include its header',
      'planted.h lacks viommu_planted',
    ]);
    expect(headerFaults(plant('wire.h', 'extern const int viommu_planted;'))).toEqual([
      'wire.c lacks viommu_planted',
    ]);
    expect(headerFaults(plant('planted.h', 'void viommu_planted(void);'))).toEqual([
      'planted.h declares viommu_planted, and there is no such source file',
    ]);
  });

  it.each([
    ['a function', 'int *planted(\n    void)\n{\n    return NULL;\n}'],
    ['a variable', 'int planted;'],
    ['an array', 'const char *const planted[] = { "a", "b" };'],
  ])('shows as a name: %s', (_, text) => {
    expect(foreignNames(plant('wire.c', text))).toEqual(['wire.c: planted']);
    expect(foreignNames(plant('wire.c', `static ${text}`))).toEqual([]);
  });
});
