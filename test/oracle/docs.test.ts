import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SMMU_DEATHS, SMMU_KNOWN } from './smmu-known.js';
import { VTD_DEATHS, VTD_KNOWN } from './vtd-known.js';

const page = new URL('../../docs/oracle.md', import.meta.url);
// `VIOMMU_UPDATE_DOCS=1 vitest run test/oracle/docs.test.ts` writes the tables.
const update = process.env['VIOMMU_UPDATE_DOCS'] !== undefined;

interface Row {
  readonly id: string;
  readonly right: string;
  readonly section: string;
  readonly says: string;
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ id, right, section, says }) => `| \`${id}\` | ${right} | ${section} | ${says} |`);
  return ['| entry | right | section | what |', '|---|---|---|---|', ...lines, ''].join('\n');
}

/** The page, and where the table that follows a marker begins and ends in it. */
function find(marker: string): { readonly text: string; readonly begin: number; readonly end: number } {
  const text = readFileSync(page, 'utf8');
  const at = text.indexOf(`<!-- ${marker}:`);
  expect(at, marker).toBeGreaterThan(0);
  const begin = text.indexOf('\n', at) + 1;
  const blank = text.indexOf('\n\n', begin - 1);
  return { text, begin, end: blank < 0 ? text.length : Math.max(begin, blank + 1) };
}

describe('docs/oracle.md', () => {
  it.each([
    ['vtd', [...VTD_KNOWN, ...VTD_DEATHS]],
    ['smmuv3', [...SMMU_KNOWN, ...SMMU_DEATHS]],
  ] as const)('has the table of %s', (marker, rows) => {
    expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
    const { text, begin, end } = find(marker);
    if (update) writeFileSync(page, text.slice(0, begin) + table(rows) + text.slice(end));
    else expect(text.slice(begin, end)).toBe(table(rows));
  });
});
