import { describe, expect, it } from 'vitest';
import { DeviceSpace } from './device-space.js';
import { OPERATION_WORDS, Operations } from './map-operations.js';
import { type Batch, MOST_PER_BATCH, Outbox, PURPOSE } from './outbox.js';

function operations(...pages: number[]): Operations {
  const list = new Operations();
  for (const page of pages) list.push(3, page, page, page);
  return list;
}

const pagesOf = (batch: Batch): number[] =>
  Array.from({ length: batch.count }, (_, at) => batch.words[at * OPERATION_WORDS + 1] >>> 12);

function take(outbox: Outbox): Batch {
  const batch = outbox.take();
  if (batch === undefined) throw new Error('no batch');
  return batch;
}

function answer(outbox: Outbox, { id }: Batch): void {
  const batch = outbox.answered(id);
  if (batch === undefined) throw new Error(`no batch has id ${id}`);
  outbox.finish(batch);
}

describe('the outbox', () => {
  it('keeps what is under way as it is, and uses it again when it is dealt with', () => {
    const outbox = new Outbox();
    const space = new DeviceSpace(1, 8, -1);
    const seen = new Set<Batch>();
    const under: Batch[] = [];
    for (let round = 0; round < 100; round++) {
      outbox.put(space, operations(round, round + 1), PURPOSE.MAP);
      under.push(take(outbox));
      seen.add(under[under.length - 1]);
      if (under.length < 5) continue;
      const oldest = under.shift() as Batch;
      expect(pagesOf(oldest)).toEqual([round - 4, round - 3]);
      expect([oldest.words.length, oldest.sequence, oldest.purpose]).toEqual([
        2 * OPERATION_WORDS,
        2 * (round - 4),
        PURPOSE.MAP,
      ]);
      answer(outbox, oldest);
    }
    expect(seen.size).toBe(5);
    expect([outbox.sent, outbox.waiting, outbox.pending]).toEqual([4, 0, 4]);
  });

  it('is not confused by an answer out of turn, a second one, or one to nothing', () => {
    const outbox = new Outbox();
    const space = new DeviceSpace(1, 8, -1);
    for (const page of [1, 2, 3]) outbox.put(space, operations(page), PURPOSE.UNMAP);
    const [first, second, third] = [take(outbox), take(outbox), take(outbox)];
    answer(outbox, second);
    expect(outbox.answered(second.id)).toBeUndefined();
    expect(outbox.answered(99)).toBeUndefined();
    expect([pagesOf(first), pagesOf(third)]).toEqual([[1], [3]]);
    answer(outbox, third);
    answer(outbox, first);
    expect(outbox.pending).toBe(0);
  });

  it('has so many under way and no more, long lists in parts, and an empty one to pause', () => {
    const outbox = new Outbox();
    const space = new DeviceSpace(1, 8, -1);
    const pages = Array.from({ length: MOST_PER_BATCH + 20 }, (_, page) => page);
    outbox.put(space, operations(...pages), PURPOSE.MAP);
    outbox.pause(space);
    const [long, rest, pause] = [take(outbox), take(outbox), take(outbox)];
    expect([...pagesOf(long), ...pagesOf(rest)]).toEqual(pages);
    expect([rest.sequence, pause.count, pause.words.length, pause.purpose]).toEqual([
      MOST_PER_BATCH,
      0,
      0,
      PURPOSE.PAUSE,
    ]);
    for (let more = 0; more < 20; more++) outbox.put(space, operations(more), PURPOSE.MAP);
    let taken = 0;
    while (outbox.take() !== undefined) taken++;
    expect([taken, outbox.sent, outbox.waiting]).toEqual([13, 16, 7]);
    answer(outbox, long);
    expect(pagesOf(take(outbox))).toEqual([13]);
  });

  it('drops what waits for one device, and nothing else', () => {
    const outbox = new Outbox();
    const gone = new DeviceSpace(1, 8, -1);
    const here = new DeviceSpace(2, 16, -1);
    for (let page = 0; page < 6; page++)
      outbox.put(page % 2 === 0 ? gone : here, operations(page), PURPOSE.MAP);
    const sent = take(outbox);
    outbox.forget(gone);
    expect(outbox.waiting).toBe(3);
    outbox.put(here, operations(7), PURPOSE.MAP);
    expect([take(outbox), take(outbox), take(outbox), take(outbox)].map(pagesOf)).toEqual([
      [1],
      [3],
      [5],
      [7],
    ]);
    expect(pagesOf(sent)).toEqual([0]);
    expect(outbox.take()).toBeUndefined();
  });
});
