import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';

const lints = resolve(dirname(fileURLToPath(import.meta.url)), '../lint');
const made: string[] = [];

afterAll(() => {
  for (const folder of made) rmSync(folder, { recursive: true, force: true });
});

/** A tree of these files, to plant something in that a lint has to find. */
function tree(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'viommu-lint-'));
  made.push(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

/** What a lint finds wrong in a tree (without one, in this one). */
async function findings(lint: string, ...argv: string[]): Promise<string[]> {
  const run = promisify(execFile)(process.execPath, [join(lints, lint), ...argv]);
  const { stdout } = await run.catch((error: { stdout: string }) => error);
  return stdout.split('\n').filter((line) => line !== '');
}

describe('texts', () => {
  it('link and cite what is there', async () => {
    expect(await findings('links.mjs')).toEqual([]);
  });
});

describe('docs/testdev.md', () => {
  const root = resolve(lints, '../..');
  const read = (path: string) => readFileSync(join(root, path), 'utf8');
  const pairs = (path: string, pattern: RegExp) =>
    [...read(path).matchAll(pattern)].map((match) => [match[1], Number(match[2])] as const);
  const registers = [...read('docs/testdev.md').matchAll(/^\| (0x\w+) +\| `(\w+)` /gm)].map(
    (match) => [match[2], Number(match[1])] as const,
  );

  it('has exactly the registers of the bridge', () => {
    expect(registers).toEqual(pairs('qemu-bridge/testdev.c', /^ {4}REG_(\w+) = (0x\w+)/gm));
  });

  it.each([
    ['test/bridge/testdev-driver.ts', /^ {2}([A-Z_]+): (0x[0-9a-f]{2}),/gm],
    ['test/guests/module/internal.h', /^\tREG_(\w+) = (0x\w+)/gm],
    ['test/guests/programs/testdev.c', /^\tREG_(\w+) = (0x\w+)/gm],
  ])('has those that %s uses', (path, pattern) => {
    const used = pairs(path, pattern).filter(([name]) => registers.some(([known]) => known === name));
    expect(used.length).toBeGreaterThan(8);
    expect(registers).toEqual(expect.arrayContaining([...used]));
  });
});

describe('the check of links', () => {
  const wrongWith = (files: Record<string, string>) => findings('links.mjs', tree(files));

  it('takes links and citations that lead somewhere', async () => {
    const files = {
      'README.md': '# Top\n\n[a](docs/a.md#part-one) [itself](#top) [web](https://example.org/x)\n',
      'docs/README.md': '[a](a.md)\n',
      'docs/a.md': '# A\n\n## Part `one`\n\n## 4. Four\n\n```\n[no](link)\n## no heading\n```\n',
      'src/x.ts': '// docs/a.md, Part one. docs/a.md §4; VT-d §6.2\n/* docs/a.md, "Part\n * one" */\n',
    };
    expect(await wrongWith(files)).toEqual([]);
  });

  it.each([
    ['a file that is not there', { 'README.md': '[a](b.md)\n' }, 'README.md:1: no such file: b.md'],
    ['a heading that is not there', { 'README.md': '# A\n[a](#b)\n' }, 'README.md:2: no such heading: #b'],
    [
      'a page outside of the index',
      { 'docs/a.md': '# A\n' },
      'docs/README.md: docs/a.md is not in the index',
    ],
    ['a comment on a page that is not there', { 'src/x.ts': '// a.md\n' }, 'src/x.ts:1: no such page: a.md'],
    [
      'a comment on a heading that is not there',
      { 'A.md': '# A\n', 'src/x.c': '/*\n * A.md, B\n */\n' },
      'src/x.c:2: no such section: A.md, B ',
    ],
    [
      'a comment on a section that is not there',
      { 'A.md': '## 1. A\n', 'src/x.ts': '/** A.md §2 */\n' },
      'src/x.ts:1: no such section: A.md §2',
    ],
    [
      'a comment on a text of another place',
      { 'src/x.ts': 'const a = 1; // DESIGN §3\n' },
      'src/x.ts:1: cites a text that is not here: DESIGN',
    ],
  ])('finds %s', async (_what, files, finding) => {
    expect(await wrongWith(files)).toEqual([finding]);
  });

  it('finds a path in a code span that leads nowhere, where it is asked to', async () => {
    const root = tree({
      'A.md': '`src/x.ts` `src/*.ts` `src/y.ts` `test/*` `x.ts` `x.test.ts` `y.ts`\n',
      'src/x.ts': '',
    });
    const missing = ['src/y.ts', 'test/*', 'y.ts'].map((path) => `A.md:1: no such path: ${path}`);
    expect(await findings('links.mjs', '--paths', root)).toEqual(missing);
    expect(await findings('links.mjs', root)).toEqual([]);
  });
});

describe('the check of prose', () => {
  const wrongWith = (files: Record<string, string>) => findings('prose.mjs', tree(files));
  const long = 'word '.repeat(21);

  it('leaves tables, code, links and code spans alone', async () => {
    const link = `[${'a '.repeat(40)}](${'b'.repeat(80)})`;
    const page = `| ${long} |\n\n\`\`\`\n${long}\n\`\`\`\n\n${link}\n\n\`nobody\` is a user. The World Health (WHO).\n`;
    expect(await wrongWith({ 'A.md': page, 'src/x.ts': `const nobody = '${long}';\n` })).toEqual([]);
  });

  it.each([
    ['a long line', { 'A.md': `${long}\n` }, 'A.md:1: 105 columns'],
    ['a long comment', { 'src/x.ts': `// ${long}\n` }, 'src/x.ts:1: 108 columns'],
    ['a word of the list', { 'src/x.c': 'int a; /* Nobody knows. */\n' }, 'src/x.c:1: "Nobody"'],
    ['a sentence of Who', { 'A.md': 'It waits. Who sleeps is woken.\n' }, 'A.md:1: "Who"'],
  ])('finds %s', async (_what, files, finding) => {
    expect(await wrongWith(files)).toEqual([finding]);
  });

  it('finds nothing in this repository', async () => {
    expect(await findings('prose.mjs')).toEqual([]);
  });
});

describe('wrapping of comments', () => {
  it('changes comments that are too long, and nothing else', () => {
    const long = 'word '.repeat(24).trim();
    const half = 'word '.repeat(19).trim();
    const rest = 'word '.repeat(5).trim();
    const path = join(tree({ 'x.ts': `/** ${long} */\nconst a = '// ${long}';\n// short\n` }), 'x.ts');
    execFileSync(process.execPath, [join(lints, 'wrap.mjs'), path]);
    expect(readFileSync(path, 'utf8')).toBe(
      `/**\n * ${half}\n * ${rest}\n */\nconst a = '// ${long}';\n// short\n`,
    );
  });

  it('keeps items, tags and what is set in', () => {
    const long = 'word '.repeat(22).trim();
    const body = [' * Text', ' * - one', ` * - ${long}`, ' *   goes on', ' *', ' *     code', ' * @param x'];
    const path = join(tree({ 'x.c': ['/*', ...body, ' */', ''].join('\n') }), 'x.c');
    execFileSync(process.execPath, [join(lints, 'wrap.mjs'), path]);
    const lines = readFileSync(path, 'utf8').split('\n');
    expect(lines.filter((line) => line.length > 100)).toEqual([]);
    expect(lines.slice(0, 4)).toEqual(['/*', ' * Text', ' * - one', ` * - ${'word '.repeat(19).trim()}`]);
    expect(lines.slice(4)).toEqual([
      ' *   word word word goes on',
      ' *',
      ' *     code',
      ' * @param x',
      ' */',
      '',
    ]);
  });
});
