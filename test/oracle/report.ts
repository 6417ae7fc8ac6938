import type { Report } from './runner.js';
import type { KnownDeath, KnownDifference } from './suite.js';
import type { Readings } from './third.js';

/** What a report is read with. */
interface Named {
  readonly name: string;
  readonly known: readonly Pick<KnownDifference, 'id' | 'right' | 'section'>[];
  readonly deaths: readonly KnownDeath[];
  readonly required: readonly string[];
}

/** Runs of fewer cases need not reach everything. */
const ENOUGH_CASES = 200;

/** What a run found, for people. */
export function format(suite: Named, report: Report, seconds: number): string {
  const { cases, seed, compared, agreed, same, explained, reached } = report;
  const lines = [
    `${suite.name}: ${cases} cases from seed ${seed}, ${seconds.toFixed(0)} s`,
    `  ${compared} comparisons, ${agreed} the same; ${same} cases without any difference`,
    `  third reading: ${counted(report.beside)} beside stock; ${counted(report.aloneReadings)} in ${report.alone} cases without`,
  ];
  const entries = [...suite.known, ...suite.deaths].filter(({ id }) => explained.has(id));
  if (entries.length > 0) lines.push('  explained:', '    cases  differences  right    entry');
  for (const { id, right, section } of entries) {
    const { cases: in_, differences } = explained.get(id) as { cases: number; differences: number };
    const numbers = `${String(in_).padStart(9)}${String(differences).padStart(13)}`;
    lines.push(`${numbers}  ${right.padEnd(7)}  ${id} (${section})`);
  }
  const counts = [...reached].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, count]) => `${name} ${count}`);
  lines.push(`  reached: ${counts.join(', ')}`);
  return lines.join('\n');
}

function counted({ read, undecided }: Readings): string {
  return `${read} requests${undecided > 0 ? ` (${undecided} undecided)` : ''}`;
}

/** What a run ought to have reached and did not. */
export function missing(suite: Named, report: Report): string[] {
  if (report.cases < ENOUGH_CASES) return [];
  return suite.required.filter((name) => !report.reached.has(name));
}
