import { describe, expect, it } from 'vitest';
import { Bench, OUT } from '../../test/support/shadow-unit.js';
import { CompletionChecks } from './completions.js';

/** A guest with one device, whose completions are checked as a session does it. */
function checkedBench(): { bench: Bench; checks: CompletionChecks; complete: () => void } {
  const bench = new Bench();
  const checks = new CompletionChecks();
  bench.shadow.promises = true;
  bench.attach();
  const complete = (): void => checks.check(bench.shadow, bench.model, bench.memory);
  complete();
  return { bench, checks, complete };
}

describe('checks of completions', () => {
  it('count those that promise something, and find nothing while host and tables agree', () => {
    const { bench, checks, complete } = checkedBench();
    const before = checks.answer(0).completions;
    bench.map(0x4000, OUT, 64);
    bench.invalidate(0x4000, 64);
    complete();
    complete();
    bench.unmap(0x4010, 16);
    bench.invalidate(0x4010, 16);
    complete();
    expect(checks.answer(0)).toEqual({ completions: before + 2, differences: [], more: false });
  });

  it('find what the host has not, once, with the entry that made it', () => {
    const { bench, checks, complete } = checkedBench();
    bench.map(0x4000, OUT, 4);
    bench.invalidate(0x4000, 4);
    bench.space().held.removeRange(0x4000, 0x4003);
    for (let n = 0; n < 2; n++) {
      bench.shadow.promises = true;
      bench.space().promised?.add(0x4000, 0x4003);
      complete();
    }
    const { differences } = checks.answer(0);
    expect(differences).toHaveLength(1);
    expect(differences[0]).toMatchObject({
      first: '0x0000000004000000',
      last: '0x0000000004003fff',
      wanted: '0x0000000100000000 rw',
    });
    expect(differences[0]?.mapped).toBeUndefined();
    expect(differences[0]?.entries.at(-1)?.raw).toBe('0x0000000100000003');
    expect(checks.answer(1).differences).toEqual([]);
  });

  it('find what a block that reaches beyond the pages promised still maps', () => {
    const { bench, checks, complete } = checkedBench();
    bench.map(0x4000, OUT, 64);
    bench.invalidate(0x4000, 64);
    complete();
    // Gone from the tables, not announced; promised all the same, as by a shadow that forgets to look.
    bench.unmap(0x4008, 2);
    bench.space().promised?.add(0x4008, 0x4008);
    complete();
    expect(checks.answer(0).differences).toMatchObject([
      { first: '0x0000000004008000', last: '0x0000000004008fff', mapped: '0x0000000100008000 rw' },
    ]);
  });

  it('leave alone what the guest has not invalidated', () => {
    const { bench, checks, complete } = checkedBench();
    bench.map(0x4000, OUT, 2);
    bench.invalidate(0x4000, 2);
    complete();
    bench.unmap(0x4001);
    bench.map(0x5000, OUT + 8);
    bench.invalidate(0x5000, 1);
    complete();
    expect(checks.answer(0).differences).toEqual([]);
  });
});
