import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { INTERRUPTED, runLogged } from './exec.mjs';

const directory = mkdtempSync(join(tmpdir(), 'viommu-exec-'));
const log = join(directory, 'log');
// The signals below are for the function; without this one they could end the test's own process.
const stay = () => {};
process.on('SIGINT', stay);
afterAll(() => {
  process.off('SIGINT', stay);
  rmSync(directory, { recursive: true });
});

const run = (script, options) => runLogged('trying', log, 'sh', ['-c', script], options);

it('a command that fails is told with the end of its log', async () => {
  await expect(run('echo reason; exit 3')).rejects.toThrow(/trying failed \(3\)[\s\S]*reason/);
});

it('a command that Ctrl-C has ended is no failure of the command, whichever process sees the signal first', async () => {
  await expect(run('kill -INT $$')).rejects.toMatchObject({ exitCode: INTERRUPTED });
});

it('an interrupt ends the command that is running', async () => {
  await expect(run(`kill -INT ${process.pid}; exec sleep 60`)).rejects.toMatchObject({
    exitCode: INTERRUPTED,
  });
});

it('a patient step ends before an interrupt takes effect', async () => {
  const done = run(`kill -INT ${process.pid}; sleep 0.3; echo finished`, { patient: true });
  await expect(done).rejects.toMatchObject({ exitCode: INTERRUPTED });
  expect(readFileSync(log, 'utf8')).toContain('finished');
});
