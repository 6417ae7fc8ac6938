/**
 * The table that a run prints: ours beside a reference, the ratio, the target, met or missed by how
 * much.
 */

/** Unit of what is counted. */
export const COUNT = 'lines';

/** Lowest and middle value of samples. */
export function summary(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  return { min: sorted[0], median: sorted[sorted.length >> 1], count: sorted.length };
}

/** `name=value` words of a guest's result line; what looks like a number is one. */
export function valuesOf(text) {
  const pairs = [...text.matchAll(/(\S+?)=(\S+)/g)];
  return Object.fromEntries(
    pairs.map(([, name, value]) => [name, /^\d+$/.test(value) ? Number(value) : value]),
  );
}

/**
 * `target` is of the ratio, `atMost` of ours, whatever the reference is.
 * @typedef {{
 *   name: string, unit: string, ours: number, reference: number, what: string,
 *   target?: number, atLeast?: boolean, atMost?: number, note?: string
 * }} Row
 */

/** "met", or by how much a target was missed. */
export function verdict(row) {
  if (row.atMost !== undefined) return row.ours <= row.atMost ? 'met' : `missed by ${row.ours - row.atMost}`;
  if (row.target === undefined) return 'for information';
  const ratio = row.ours / row.reference;
  if (row.atLeast ? ratio >= row.target : ratio <= row.target) return 'met';
  const off = row.atLeast ? 1 - ratio / row.target : ratio / row.target - 1;
  return `missed by ${Math.max(1, Math.round(off * 100))} %`;
}

/**
 * Rows of strict mode first, which users feel most, then what no unit is named for, then the
 * units'.
 */
export function ordered(rows, unitNames) {
  const place = ({ name }) =>
    name.includes(': strict, ') ? -2 : unitNames.findIndex((unit) => name.startsWith(`${unit}: `));
  return [...rows].sort((a, b) => place(a) - place(b));
}

function number(value, unit) {
  if (unit === COUNT) return `${value} ${unit}`;
  const digits = value >= 1000 ? 0 : value >= 100 ? 1 : 2;
  return `${value.toFixed(digits)} ${unit}`;
}

function cells(row) {
  const ofRatio = row.target === undefined ? '' : `${row.atLeast ? '≥' : '≤'} ${row.target} ×`;
  return [
    row.name,
    number(row.ours, row.unit),
    `${number(row.reference, row.unit)} (${row.what})`,
    row.reference === 0 ? '–' : `${(row.ours / row.reference).toFixed(2)} ×`,
    row.atMost === undefined ? ofRatio : `≤ ${number(row.atMost, row.unit)}`,
    verdict(row),
  ];
}

/** Rows as an aligned text table. */
export function format(rows) {
  const head = ['', 'ours', 'reference', 'ratio', 'target', ''];
  const lines = [head, ...rows.map(cells)];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
  const rule = '-'.repeat(Math.max(...text.map((line) => line.length)));
  const notes = rows.filter((row) => row.note).map((row) => `  ${row.name}: ${row.note}`);
  return [text[0], rule, ...text.slice(1), ...(notes.length ? ['', ...notes] : [])].join('\n');
}
