/**
 * Rows for `it.each` and `describe.each`, each with a title for `%s`. Vitest would put the value of
 * a `$name` into quotes, and cut it when it is long.
 */
export function titled<Row>(
  rows: readonly Row[],
  title: (row: Row) => string,
): readonly (readonly [title: string, row: Row])[] {
  return rows.map((row) => [title(row), row]);
}
