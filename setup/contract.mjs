#!/usr/bin/env node
// Writes what is made from proto/viommu.proto: npm run contract
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { codecsFile } from './contract/codecs.mjs';
import { withControlWords } from './contract/docs.mjs';
import { readContract } from './contract/read.mjs';
import { messagesFile, numbersFile } from './contract/typescript.mjs';
import { ROOT } from './project.mjs';

const PROTOCOL = 'docs/protocol.md';

/** The text of each file, by its path from the project's folder. */
export function contractFiles() {
  const contract = readContract();
  return new Map([
    ['src/wire/generated/numbers.ts', numbersFile(contract)],
    ['src/wire/generated/messages.ts', messagesFile(contract)],
    ['src/wire/generated/codecs.ts', codecsFile(contract)],
    [PROTOCOL, withControlWords(readFileSync(join(ROOT, PROTOCOL), 'utf8'), contract)],
  ]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of contractFiles()) {
    writeFileSync(join(ROOT, path), text);
    console.log(path);
  }
}
