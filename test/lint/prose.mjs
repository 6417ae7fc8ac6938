#!/usr/bin/env node
/**
 * Checks prose: lines of at most 100 columns and a list of words, in Markdown and in comments.
 * Tables, code and the targets of links have no limit. Text that a test compares with code
 * (`<!-- …: checked against … -->`) is left out.
 *
 * `node test/lint/prose.mjs [FOLDER]`
 */
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commentLines, filesBelow, isMarkdown, isSource, markdownLines, textOf } from './files.mjs';

const COLUMNS = 100;
/** Words that hide who does what. A sentence begins with its subject, not with "Who …". */
const WORDS = /\b(nobody|somebody|whoever|meanwhile)\b/i;
const WHO = /\bWho\b/;

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(process.argv[2] ?? join(here, '../..'));

const columns = (line) => [...line.replaceAll('\t', '        ')].length;
/** A line as it counts: without the targets of links, which cannot be broken. */
const withoutTargets = (line) => line.replace(/\]\([^)]*\)/g, ']').replace(/\bhttps?:\/\/\S+/g, '');
const withoutCode = (line) => line.replace(/`[^`]*`/g, '');

function wordIn(text) {
  const bare = withoutCode(text);
  return WORDS.exec(bare)?.[0] ?? WHO.exec(bare)?.[0];
}

function* wrongIn(path) {
  const text = textOf(root, path);
  if (isMarkdown(path)) {
    for (const { number, line, kind } of markdownLines(text)) {
      if (kind === 'code' || kind === 'generated') continue;
      if (kind === 'prose' && columns(withoutTargets(line)) > COLUMNS) {
        yield { number, why: `${columns(withoutTargets(line))} columns` };
      }
      const word = wordIn(line);
      if (word !== undefined) yield { number, why: `"${word}"` };
    }
    return;
  }
  for (const { number, line, comment, whole } of commentLines(text)) {
    if (whole && columns(withoutTargets(line)) > COLUMNS) yield { number, why: `${columns(line)} columns` };
    const word = wordIn(comment);
    if (word !== undefined) yield { number, why: `"${word}"` };
  }
}

/** Pages that code writes; this folder, which has the list of words, and its test. */
const LEFT_OUT = /^(docs\/capabilities\.md$|test\/lint\/|test\/architecture\/docs\.|src\/wire\/generated\/)/;
const read = (path) => (isMarkdown(path) || isSource(path)) && !LEFT_OUT.test(path);
for (const path of filesBelow(root).filter(read)) {
  for (const { number, why } of wrongIn(path)) {
    console.log(`${path}:${number}: ${why}`);
    process.exitCode = 1;
  }
}
