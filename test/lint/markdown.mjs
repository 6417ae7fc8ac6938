#!/usr/bin/env node
/** Runs markdownlint over every Markdown file. `node test/lint/markdown.mjs` */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { lint } from 'markdownlint/promise';
import { filesBelow, isMarkdown } from './files.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

const config = {
  default: true,
  // prose.mjs knows what of a line counts.
  MD013: false,
  // The changelog has the same headings for each release.
  MD024: { siblings_only: true },
  // C has tabs.
  MD010: { code_blocks: false },
  // Comments that tests look for; the README's picture.
  MD033: false,
  // Output quoted with its prompt.
  MD014: false,
  // Tables are aligned where that helps to read them.
  MD060: false,
};

const files = filesBelow(root).filter(isMarkdown);
const results = await lint({ files: files.map((file) => join(root, file)), config });
let failed = false;
for (const file of files) {
  for (const { lineNumber, ruleNames, ruleDescription, errorDetail } of results[join(root, file)]) {
    failed = true;
    console.log(
      `${file}:${lineNumber}: ${ruleNames.join('/')} ${ruleDescription}${errorDetail ? ` [${errorDetail}]` : ''}`,
    );
  }
}
process.exitCode = failed ? 1 : 0;
