import { describe, expect, it } from 'vitest';
import { ALL_PAGES, HostInvalidations } from '../host/port.js';
import { Binding, BOUND } from './binding.js';
import { ForwardQueue } from './forward-queue.js';

function inForce(device: number, pasid: number): Binding {
  const binding = new Binding(device, pasid);
  binding.bound = BOUND.TABLES;
  binding.inForce = true;
  return binding;
}

/** [device, PASID, first page, pages] of what was asked for. */
function drained(queue: ForwardQueue): number[][] {
  const out = new HostInvalidations();
  queue.drain(out);
  const { words } = out;
  return Array.from({ length: out.count }, (_, index) => {
    const at = index * 5;
    return [words[at], words[at + 1] - 1, words[at + 3] * 2 ** 20 + (words[at + 2] >>> 12), words[at + 4]];
  });
}

describe('invalidations on their way to the host', () => {
  const add = (queue: ForwardQueue, of: Binding, page: number, pages = 1): void =>
    queue.range(of, (page * 4096) >>> 0, Math.floor(page / 2 ** 20), pages);

  it('of neighbouring pages become one, within a leaf table', () => {
    const queue = new ForwardQueue();
    const one = inForce(1, 7);
    for (let page = 510; page < 520; page++) add(queue, one, page);
    expect(drained(queue)).toEqual([
      [1, 7, 510, 2],
      [1, 7, 512, 8],
    ]);
    add(queue, one, 2 ** 20 - 1);
    add(queue, one, 2 ** 20);
    add(queue, one, 2 ** 20 + 1, 4);
    expect(drained(queue)).toEqual([
      [1, 7, 2 ** 20 - 1, 1],
      [1, 7, 2 ** 20, 5],
    ]);
  });

  it('of others stay as they are', () => {
    const queue = new ForwardQueue();
    const [one, other] = [inForce(1, 7), inForce(1, 8)];
    add(queue, one, 3);
    add(queue, other, 4);
    add(queue, one, 4);
    add(queue, one, 6);
    add(queue, one, 5);
    queue.whole(one);
    queue.whole(one);
    expect(drained(queue)).toEqual([
      [1, 7, 3, 1],
      [1, 8, 4, 1],
      [1, 7, 4, 1],
      [1, 7, 6, 1],
      [1, 7, 5, 1],
      [1, 7, 0, ALL_PAGES],
      [1, 7, 0, ALL_PAGES],
    ]);
    expect(queue.count).toBe(0);
  });
});
