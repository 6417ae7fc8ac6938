import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { contractFiles } from './contract.mjs';
import { ROOT } from './project.mjs';

it.each([...contractFiles()])('%s is what the contract makes; otherwise: npm run contract', (path, text) => {
  expect(readFileSync(join(ROOT, path), 'utf8')).toBe(text);
});
