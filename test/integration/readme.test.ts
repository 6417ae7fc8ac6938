import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { MAIN } from '../support/daemon.js';

describe('README.md', () => {
  it('quotes what `viommu demo --sim` prints', async () => {
    const page = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
    const quoted = /<!-- demo:[^>]*-->\n+```text\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
    const lines = quoted.split('\n').filter((line) => line !== '');
    expect(lines.length).toBeGreaterThanOrEqual(9);
    const { stdout } = await promisify(execFile)(process.execPath, [MAIN, 'demo', '--sim']);
    const printed = stdout.split('\n');
    expect(lines.filter((line) => !printed.includes(line))).toEqual([]);
  });
});
