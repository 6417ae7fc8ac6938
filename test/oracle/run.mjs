#!/usr/bin/env node
// A long run: node test/oracle/run.mjs [vtd|smmuv3] [--cases N] [--seed N]
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const NAMES = ['vtd', 'smmuv3'];
const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const USAGE = `Usage: npm run oracle -- [vtd|smmuv3] [--cases N] [--seed N]

Gives our models and stock QEMU's own the same tables, commands and requests, and compares what comes of them, also with a third
reading of the tables. Default: 10000 cases of each, a new seed. A difference that nothing in test/oracle explains, or a request
that ours does not answer as the third reading has it, is printed with the command that repeats that one case; --cases 1 prints
every step of it.`;

function options() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        cases: { type: 'string', default: '10000' },
        seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`);
    process.exit(2);
  }
}

const { values, positionals } = options();
const name = positionals[0] ?? '';
const wrong =
  positionals.length > 1 ||
  !['', ...NAMES].includes(name) ||
  [values.cases, values.seed].some((text) => !Number.isInteger(Number(text)) || Number(text) < 0);
if (values.help || wrong) {
  console[wrong ? 'error' : 'log'](USAGE);
  process.exit(wrong ? 2 : 0);
}

const vitest = join(root, 'node_modules/vitest/vitest.mjs');
if (!existsSync(vitest)) {
  console.error('npm packages are missing: npm ci');
  process.exit(1);
}
const env = {
  ...process.env,
  VIOMMU_ORACLE_CASES: values.cases,
  VIOMMU_ORACLE_SEED: values.seed,
  ...(values.cases === '1' ? { VIOMMU_ORACLE_STEPS: 'all' } : {}),
};
const files = (name === '' ? NAMES : [name]).map((suite) => `test/oracle/${suite}.test.ts`);
const args = [vitest, 'run', ...files, '--disable-console-intercept'];
const done = spawnSync(process.execPath, args, { cwd: root, env, stdio: 'inherit' });
process.exit(done.status ?? 1);
