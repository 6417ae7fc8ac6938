import { writeSync } from 'node:fs';
import { expect, it } from 'vitest';
import { prepared } from '../guests/support.js';
import { format, missing } from './report.js';
import { Runner } from './runner.js';
import type { MachineKind, Suite } from './suite.js';

// `npm run oracle` sets these; without them it is a short run, the same each time.
const CASES = Number(process.env['VIOMMU_ORACLE_CASES'] ?? '300');
const SEED = Number(process.env['VIOMMU_ORACLE_SEED'] ?? '1');
const HOURS = 3_600_000;

/** Written at once, for long runs. */
const say = (line: string): void => {
  writeSync(1, `${line}\n`);
};

/** Declares the test that runs a suite. */
export function testSuite<K extends MachineKind>(suite: Suite<K>): void {
  it(
    `${suite.name}: ${CASES} cases beside stock QEMU, seed ${SEED}`,
    async () => {
      const begin = performance.now();
      const options = { seed: SEED, cases: CASES, say };
      const report = await new Runner(
        suite,
        prepared(suite.target === 'x86_64' ? 'amd64' : 'arm64'),
        options,
      ).run();
      say(format(suite, report, (performance.now() - begin) / 1000));
      if (report.failures.length > 0) throw new Error(report.failures.join('\n\n'));
      expect(missing(suite, report), 'not reached').toEqual([]);
      expect(report.cases).toBe(CASES);
    },
    12 * HOURS,
  );
}
