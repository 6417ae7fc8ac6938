#!/usr/bin/env node
/**
 * Checks prose: lines of at most 100 columns and a list of words, in Markdown and in comments.
 * Tables, code and the targets of links have no limit; text that a test compares with code
 * (`<!-- …: checked against … -->`) is left out.
 *
 * prose.json has how many lines of a folder may still be wrong. The numbers only sink: `--update`
 * writes those of now where they are lower. Folders without a number have to be clean.
 *
 * `node test/lint/prose.mjs [--update] [--all] [FOLDER]`; `--all` prints every line that is wrong.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { commentLines, filesBelow, isMarkdown, isSource, markdownLines, textOf } from './files.mjs';

const COLUMNS = 100;
/** Words that hide who does what. A sentence begins with its subject, not with "Who …". */
const WORDS = /\b(nobody|somebody|whoever|meanwhile)\b/i;
const WHO = /\bWho\b/;

const here = dirname(fileURLToPath(import.meta.url));
const options = { update: { type: 'boolean' }, all: { type: 'boolean' } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
const root = resolve(positionals[0] ?? join(here, '../..'));
const list = positionals[0] === undefined ? join(here, 'prose.json') : join(root, 'prose.json');
const allowed = JSON.parse(readFileSync(list, 'utf8'));

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

/** The entry of prose.json that a file counts for: the longest one that is its path's beginning. */
const entries = Object.keys(allowed).sort((a, b) => b.length - a.length);
const entryOf = (path) => entries.find((entry) => path === entry || path.startsWith(`${entry}/`)) ?? '';

const found = new Map([...entries, ''].map((entry) => [entry, []]));
/** Pages that code writes, and this folder, which has the list of words. */
const LEFT_OUT = /^(docs\/capabilities\.md$|test\/lint\/|src\/wire\/generated\/)/;
const read = (path) => (isMarkdown(path) || isSource(path)) && !LEFT_OUT.test(path);
for (const path of filesBelow(root).filter(read)) {
  for (const { number, why } of wrongIn(path)) found.get(entryOf(path)).push(`${path}:${number}: ${why}`);
}

let failed = false;
for (const [entry, lines] of found) {
  const most = allowed[entry] ?? 0;
  if (lines.length > most || values.all) for (const line of lines) console.log(line);
  if (lines.length > most) {
    failed = true;
    console.log(`prose: ${entry || 'the rest'}: ${lines.length} lines are wrong, ${most} may be`);
  } else if (lines.length < most) {
    console.log(`prose: ${entry}: ${lines.length} of ${most} are left; --update writes that down`);
  }
}
if (values.update) {
  const sunk = entries.sort().map((entry) => [entry, Math.min(allowed[entry], found.get(entry).length)]);
  const left = Object.fromEntries(sunk.filter(([, count]) => count > 0));
  writeFileSync(list, `${JSON.stringify(left, null, 2)}\n`);
}
process.exitCode = failed ? 1 : 0;
