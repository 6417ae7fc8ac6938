#!/usr/bin/env node
/**
 * Checks, without a network, that everything which names a text names one that is there:
 * - links in Markdown: the file, and the heading where a link has an anchor;
 * - docs/README.md: an index of every page in docs/;
 * - citations in comments ("docs/wire.md, Queues", "ARCHITECTURE.md, Ordering", "docs/x.md §4"):
 *   the file, and the heading or section;
 * - texts that are not in the repository: a name in capitals before a section sign is a citation of
 *   one;
 * - with `--paths`, files and folders that Markdown names in code spans (`src/walk`,
 *   `test/oracle/*.ts`, `walk.c`).
 *
 * Prints each line that is wrong and exits with 1. `node test/lint/links.mjs [--paths] [FOLDER]`
 */
import { dirname, join, posix, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { commentLines, filesBelow, isMarkdown, isSource, isThere, markdownLines, textOf } from './files.mjs';

const options = { paths: { type: 'boolean' } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
const root = resolve(positionals[0] ?? join(dirname(fileURLToPath(import.meta.url)), '../..'));
const files = filesBelow(root);
const wrong = [];

/** Headings of a page as they are read: no marks of code or emphasis, links by their text. */
const pages = new Map();
function headings(path) {
  if (!pages.has(path)) {
    const found = markdownLines(textOf(root, path))
      .filter(({ kind, line }) => kind !== 'code' && /^#{1,6} /.test(line))
      .map(({ line }) => line.replace(/^#+ +/, '').replace(/\[([^\]]*)\]\([^)]*\)/g, '$1'))
      .map((heading) => heading.replace(/[`*]/g, '').trim());
    pages.set(path, found);
  }
  return pages.get(path);
}

/** Anchors as GitHub makes them. */
function anchors(path) {
  const taken = new Map();
  return headings(path).map((heading) => {
    const slug = heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-');
    const before = taken.get(slug) ?? 0;
    taken.set(slug, before + 1);
    return before === 0 ? slug : `${slug}-${before}`;
  });
}

function checkLink(path, number, target) {
  if (/^[a-z][a-z+.-]*:/i.test(target)) return;
  const [file, anchor] = target.split('#');
  const to = file === '' ? path : posix.normalize(posix.join(posix.dirname(path), decodeURIComponent(file)));
  if (file.startsWith('/') || to.startsWith('..') || !isThere(root, to)) {
    wrong.push(`${path}:${number}: no such file: ${target}`);
  } else if (anchor !== undefined && isMarkdown(to) && !anchors(to).includes(anchor)) {
    wrong.push(`${path}:${number}: no such heading: ${target}`);
  }
}

const LINK = /\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|^\s*\[[^\]]+\]:\s*(\S+)|\b(?:href|src)="([^"]+)"/g;

for (const path of files.filter(isMarkdown)) {
  for (const { number, line, kind } of markdownLines(textOf(root, path))) {
    if (kind === 'code') continue;
    for (const match of line.replace(/`[^`]*`/g, '``').matchAll(LINK)) {
      checkLink(path, number, match[1] ?? match[2] ?? match[3]);
    }
  }
}

const index = isThere(root, 'docs/README.md') ? textOf(root, 'docs/README.md') : '';
for (const path of files.filter((file) => /^docs\/[^/]+\.md$/.test(file) && file !== 'docs/README.md')) {
  if (!index.includes(`(${path.slice('docs/'.length)}`))
    wrong.push(`docs/README.md: ${path} is not in the index`);
}

/** A page that a comment names: from the root, or beside the file. */
function findPage(path, name) {
  return [name, posix.normalize(posix.join(posix.dirname(path), name))].find((file) => isThere(root, file));
}

/**
 * True where `rest`, the text behind the page's name, names no section, or one that the page has.
 */
function hasSection(page, rest) {
  const section = /^,? §([0-9]+(?:\.[0-9]+)*)/.exec(rest)?.[1];
  if (section !== undefined)
    return headings(page).some((heading) => new RegExp(`^${section}[. ]`).test(heading));
  const quoted = /^, "([^"]+)"/.exec(rest)?.[1];
  if (quoted !== undefined) return headings(page).includes(quoted);
  // "docs/page.md, Heading": what begins with a capital behind the comma is a heading.
  const named = /^, ([A-Z].*)/.exec(rest)?.[1];
  return named === undefined || headings(page).some((heading) => named.startsWith(heading));
}

// File names in strings and patterns are not citations of this tree's pages: tests plant some.
const PLANTED = /^test\/(lint|architecture)\//;

for (const path of files.filter(isSource).filter((file) => !PLANTED.test(file))) {
  const lines = commentLines(textOf(root, path));
  lines.forEach(({ number, comment }, at) => {
    // A citation may go on in the next line of the comment.
    const next = lines[at + 1]?.number === number + 1 ? ` ${lines[at + 1].comment}` : '';
    for (const match of comment.matchAll(/[\w./-]*\w\.md\b/g)) {
      const page = findPage(path, match[0]);
      const rest = comment.slice(match.index + match[0].length) + next;
      if (page === undefined) wrong.push(`${path}:${number}: no such page: ${match[0]}`);
      else if (!hasSection(page, rest)) {
        wrong.push(`${path}:${number}: no such section: ${match[0]}${rest.slice(0, 40)}`);
      }
    }
    const foreign = /\b([A-Z]{4,})(?:\.md)? §/.exec(comment)?.[1];
    if (foreign !== undefined) wrong.push(`${path}:${number}: cites a text that is not here: ${foreign}`);
  });
}

/** Paths that a code span names, with `*` for any part of a name and MODEL for vtd or smmuv3. */
const PATH = /^(?:src|test|setup|qemu-bridge|proto|docker|docs)\/[\w./*-]*$/;
/** A file's name without its folder. `x` stands for any. */
const NAME = /^(?!x\.)[\w-]+(?:\.test)?\.(?:ts|mjs|c|h|md|proto|options)$/;

const folders = files.flatMap((file) => file.split('/').map((_, at, parts) => parts.slice(0, at).join('/')));
const paths = [...new Set([...files, ...folders])];
const names = new Set(files.map((file) => posix.basename(file)));

function hasPath(path) {
  if (!/\*|MODEL/.test(path)) return isThere(root, path);
  const pattern = path.replaceAll('.', '\\.').replaceAll('*', '[^/]*').replaceAll('MODEL', '(vtd|smmuv3)');
  return paths.some(
    (one) => new RegExp(`^${pattern}/?$`).test(one) || new RegExp(`^${pattern}$`).test(`${one}/`),
  );
}

for (const path of values.paths ? files.filter(isMarkdown) : []) {
  for (const { number, line, kind } of markdownLines(textOf(root, path))) {
    if (kind === 'code') continue;
    for (const [, span] of line.matchAll(/`([^`]+)`/g)) {
      const known = NAME.test(span)
        ? names.has(span)
        : !PATH.test(span) || [span, posix.join(posix.dirname(path), span)].some(hasPath);
      if (!known) wrong.push(`${path}:${number}: no such path: ${span}`);
    }
  }
}

for (const line of wrong) console.log(line);
process.exitCode = wrong.length === 0 ? 0 : 1;
