import { describe, expect, it } from 'vitest';

interface Row {
  name: string;
  unit: string;
  ours: number;
  reference: number;
  what: string;
  target?: number;
  atLeast?: boolean;
  atMost?: number;
}

/** The benchmark is plain JavaScript, so that it runs without a build of its own. */
const report = (await import(new URL('./report.mjs', import.meta.url).href)) as {
  summary(samples: readonly number[]): { min: number; median: number; count: number };
  verdict(row: Row): string;
  format(rows: readonly Row[]): string;
  ordered(rows: readonly Row[], unitNames: readonly string[]): Row[];
  valuesOf(text: string): Record<string, number | string>;
};

const row = (changes: Partial<Row>): Row => ({
  name: 'hit',
  unit: 'ns',
  ours: 10,
  reference: 100,
  what: 'stock',
  ...changes,
});

describe('the benchmark table', () => {
  it('says met at the target itself, and by how much it is missed beyond', () => {
    expect(report.verdict(row({ ours: 30, target: 0.3 }))).toBe('met');
    expect(report.verdict(row({ ours: 33, target: 0.3 }))).toBe('missed by 10 %');
    expect(report.verdict(row({ ours: 30.01, target: 0.3 }))).toBe('missed by 1 %');
  });

  it('turns round where more is better', () => {
    expect(report.verdict(row({ ours: 90, target: 0.9, atLeast: true }))).toBe('met');
    expect(report.verdict(row({ ours: 45, target: 0.9, atLeast: true }))).toBe('missed by 50 %');
  });

  it('counts what may not be at all, whatever the reference has', () => {
    expect(report.verdict(row({ ours: 0, reference: 0, atMost: 0 }))).toBe('met');
    expect(report.verdict(row({ ours: 0, reference: 5, atMost: 0 }))).toBe('met');
    expect(report.verdict(row({ ours: 2, reference: 5, atMost: 0 }))).toBe('missed by 2');
    const line = report.format([row({ unit: 'lines', ours: 2, reference: 0, atMost: 0 })]).split('\n')[2];
    expect(line).toMatch(/2 lines +0 lines \(stock\) +– +≤ 0 lines +missed by 2$/);
  });

  it('has strict mode first, and a unit beside itself', () => {
    const names = ['A: strict, b', 'B: strict, a', 'A: hit', 'nesting: c', 'B: hit', 'A: boot', 'B: boot'];
    const rows = report.ordered(
      names.map((name) => row({ name })),
      ['A', 'B'],
    );
    expect(rows.map(({ name }) => name)).toEqual([
      ...['A: strict, b', 'B: strict, a', 'nesting: c'],
      ...['A: hit', 'A: boot', 'B: hit', 'B: boot'],
    ]);
  });

  it('reads the words of a guest', () => {
    expect(report.valuesOf('read-bench nvme=nvme0n1 ns=1200 reads=3')).toEqual({
      nvme: 'nvme0n1',
      ns: 1200,
      reads: 3,
    });
  });

  it('judges nothing that has no target', () => {
    expect(report.verdict(row({ ours: 1e9 }))).toBe('for information');
  });

  it('summarizes by the lowest and the middle, whatever the order', () => {
    expect(report.summary([5, 1, 9])).toEqual({ min: 1, median: 5, count: 3 });
  });

  it('aligns its columns', () => {
    const lines = report
      .format([row({ target: 0.3 }), row({ name: 'a longer name', ours: 12345 })])
      .split('\n');
    expect(lines).toHaveLength(4);
    const at = lines[0]?.indexOf('reference') ?? -1;
    expect(lines[2]?.slice(at)).toMatch(/^100\.0 ns \(stock\) +0\.10 × +≤ 0\.3 × +met$/);
    expect(lines[3]?.slice(at)).toMatch(/^100\.0 ns \(stock\) +123\.45 × +for information$/);
  });
});
