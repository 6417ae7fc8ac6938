#!/usr/bin/env node
/**
 * Wraps comments that have lines of more than 100 columns: paragraphs of block comments, runs of
 * line comments. Lists keep their items, tags (`@param`) their lines. Nothing but comments changes.
 *
 * `node test/lint/wrap.mjs FILE…`
 */
import { readFileSync, writeFileSync } from 'node:fs';

const COLUMNS = 100;
const isLong = (line) => [...line].length > COLUMNS;

/** Words of a text; code spans and links stay in one piece. */
const words = (text) => text.match(/(?:`[^`]*`|\{@link[^}]*\}|\S)+/g) ?? [];

/** A paragraph in lines that begin with `next`, the first one with `first`. */
function fill(text, first, next = first) {
  const lines = [];
  let line = first;
  let empty = true;
  for (const word of words(text)) {
    if (!empty && [...line].length + 1 + [...word].length > COLUMNS) {
      lines.push(line);
      line = next;
      empty = true;
    }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  return [...lines, line];
}

const ITEM = /^(?:[-*]|\d+[.)]?) +/;

/** The lines of a block comment's body, without their stars, in paragraphs and items. */
function wrapBody(body, indent) {
  const out = [];
  let text = [];
  let lead = '';
  const flush = () => {
    if (text.length > 0) {
      out.push(...fill(text.join(' '), `${indent} * ${lead}`, `${indent} * ${' '.repeat(lead.length)}`));
    }
    text = [];
    lead = '';
  };
  let tag = false;
  for (const line of body) {
    const item = ITEM.exec(line.trimStart())?.[0];
    const inset = line.length - line.trimStart().length;
    tag = line.startsWith('@') || (tag && inset > 0);
    if (line.trim() === '') {
      flush();
      out.push(`${indent} *`);
    } else if (tag || line.startsWith('|') || (inset > 0 && item === undefined && inset !== lead.length)) {
      // A tag, a table, code that is set in: as it is.
      flush();
      out.push(`${indent} * ${line}`);
    } else if (item !== undefined) {
      flush();
      lead = `${' '.repeat(inset)}${item}`;
      text = [line.trim().slice(item.length)];
    } else {
      // A line that is not set in ends an item.
      if (lead !== '' && inset === 0) flush();
      text.push(line.trim());
    }
  }
  flush();
  return out;
}

function wrapComments(source) {
  const lines = source.split('\n');
  const out = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    const single = /^(\s*)\/(\*\*?) (.*?) \*\/$/.exec(line);
    if (single !== null && isLong(line)) {
      const [, indent, stars, text] = single;
      out.push(`${indent}/${stars}`, ...fill(text, `${indent} * `), `${indent} */`);
      continue;
    }
    const block = /^(\s*)\/\*\*?$/.exec(line);
    if (block !== null) {
      let end = at + 1;
      while (end < lines.length && !lines[end].includes('*/')) end++;
      const body = lines.slice(at + 1, end);
      const plain = body.every((one) => /^\s*\*( |$)/.test(one)) && lines[end]?.trim() === '*/';
      const wrapped = plain && body.some(isLong);
      const bare = body.map((one) => one.replace(/^\s*\* ?/, ''));
      out.push(line, ...(wrapped ? wrapBody(bare, block[1]) : body), lines[end]);
      at = end;
      continue;
    }
    const indent = /^(\s*)\/\/ \S/.exec(line)?.[1];
    if (indent !== undefined) {
      let end = at;
      while (lines[end]?.startsWith(`${indent}// `) && lines[end][indent.length + 3] !== ' ') end++;
      const run = lines.slice(at, end);
      const texts = run.map((one) => one.slice(indent.length + 3));
      const keep = !run.some(isLong) || texts.some((text) => ITEM.test(text) || text.startsWith('@'));
      out.push(...(keep ? run : fill(texts.join(' '), `${indent}// `)));
      at = end - 1;
      continue;
    }
    out.push(line);
  }
  return out.join('\n');
}

for (const path of process.argv.slice(2)) {
  const source = readFileSync(path, 'utf8');
  const wrapped = wrapComments(source);
  if (wrapped !== source) writeFileSync(path, wrapped);
}
