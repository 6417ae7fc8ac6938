/** Which pages a shadow has the monitor track, and when it says so again. */
import { describe, expect, it } from 'vitest';
import { Bench, OUT, out } from '../../test/support/shadow-unit.js';

/** A device whose four tables are on the pages 1 to 4, tracked. */
function tracked(): Bench {
  const bench = new Bench();
  bench.shadow.track();
  bench.map(0, OUT);
  expect(bench.attach()).toEqual([`map 0+1 to ${out(0)} 3`]);
  expect(bench.tracks.splice(0)).toEqual(['+1', '+2', '+3', '+4']);
  return bench;
}

describe('the pages of tables', () => {
  it('are tracked while a device goes through them', () => {
    const bench = tracked();
    expect(bench.shadow.trackedPages).toBe(4);
    bench.shadow.detach(1);
    bench.settle();
    expect(bench.tracks).toEqual(['-1', '-2', '-3', '-4']);
    expect(bench.shadow.trackedPages).toBe(0);
  });

  it.each([
    ['one page', 0x2000, 0x1000, ['+2']],
    ['two pages', 0x2000, 0x2000, ['+2', '+3']],
    ['a part of a page at either end', 0x1800, 0x1000, ['+1', '+2']],
    ['pages before and after', 0x5000, 0x1000, []],
  ])('are told again when memory comes at %s of them', (_what, gpa, bytes, again) => {
    const bench = tracked();
    bench.shadow.ramAdded(2, gpa, bytes, false, bench.model);
    bench.settle();
    expect(bench.tracks).toEqual(again);
    expect(bench.shadow.trackedPages).toBe(4);
  });

  it('are looked at again when the monitor has answered: a store may have gone unseen until then', () => {
    const bench = tracked();
    bench.shadow.ramAdded(2, 0x4000, 0x1000, false, bench.model);
    bench.shadow.work();
    const track = bench.shadow.takeTrack();
    bench.map(1, OUT + 1);
    bench.shadow.trackAnswered(track?.id ?? 0);
    expect(bench.settle()).toEqual([`map 1+1 to ${out(1)} 3`]);
  });
});
