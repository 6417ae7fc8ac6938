/** What the lints of prose read: the files of the tree, and the comments in a source file. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { extname, join, relative, sep } from 'node:path';

const LEFT_OUT = new Set(['node_modules', 'dist', '.git']);
const SOURCES = new Set(['.ts', '.mjs', '.c', '.h', '.proto']);

/** Every file below `root`, as paths relative to it with `/`. */
export function filesBelow(root, folder = root) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (LEFT_OUT.has(entry.name)) return [];
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(root, path) : [relative(root, path).split(sep).join('/')];
  });
}

export const isMarkdown = (path) => extname(path) === '.md';
export const isSource = (path) => SOURCES.has(extname(path));

export const textOf = (root, path) => readFileSync(join(root, path), 'utf8');
export const isThere = (root, path) => existsSync(join(root, path));

/**
 * Lines of Markdown, with what each line is: `code` (a fenced block), `table`, `generated` (between
 * two comments that name the code from which the text is made, or with which a test compares it) or
 * `prose`.
 */
export function markdownLines(text) {
  let fence = '';
  let generated = false;
  return text.split('\n').map((line, index) => {
    const mark = /^\s*(```+|~~~+)/.exec(line)?.[1] ?? '';
    let kind = 'prose';
    if (fence !== '' || mark !== '') {
      kind = 'code';
      if (fence === '') fence = mark;
      else if (mark.startsWith(fence)) fence = '';
    } else if (/^<!-- [^>]*: (checked|made) /.test(line)) {
      generated = true;
      kind = 'generated';
    } else if (generated) {
      kind = 'generated';
      // The tables of docs/oracle.md end with their last row.
      if (line.startsWith('<!-- /') || line === '') generated = false;
    } else if (/^\s*\|/.test(line)) {
      kind = 'table';
    }
    return { number: index + 1, line, kind };
  });
}

/**
 * Comments of a source file, a line each; `whole` where nothing but the comment stands on the line.
 */
export function commentLines(text) {
  let inBlock = false;
  return text.split('\n').flatMap((line, index) => {
    const number = index + 1;
    if (inBlock || /^\s*\/\*/.test(line)) {
      inBlock = !/\*\//.test(line);
      return [
        { number, line, comment: line.replace(/^\s*(\/\*+|\*+\/|\*)?\s?|\s*\*\/.*$/g, ''), whole: true },
      ];
    }
    const match = /(^\s*|\s)\/\/\s(.*)$/.exec(line) ?? /(\s)\/\*+\s(.*?)(\*\/|$)/.exec(line);
    if (match === null) return [];
    inBlock = /\/\*/.test(line) && !/\*\//.test(line);
    return [{ number, line, comment: match[2], whole: line.trimStart().startsWith('//') }];
  });
}
