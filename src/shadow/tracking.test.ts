import { describe, expect, it } from 'vitest';
import { TrackedPages } from './tracking.js';

/** What the next TRACK says: `+` and the page for one that begins, `-` for one that ends. */
function told(pages: TrackedPages): string[] {
  const words = pages.take()?.words ?? [];
  const said: string[] = [];
  for (let at = 0; at < words.length; at += 2) {
    const page = (words[at + 1] * 2 ** 32 + words[at]) / 4096;
    said.push(`${words[at] % 2 === 1 ? '+' : '-'}${Math.floor(page)}`);
  }
  return said;
}

describe('TrackedPages', () => {
  it('begin with the first table on a page and end with the last', () => {
    const pages = new TrackedPages();
    pages.linked(0x5000, 4096);
    pages.linked(0x5000, 4096);
    pages.linked(0x6800, 4096);
    expect(told(pages)).toEqual(['+5', '+6', '+7']);
    pages.unlinked(0x5000, 4096);
    expect(told(pages)).toEqual([]);
    pages.unlinked(0x5000, 4096);
    pages.unlinked(0x6800, 4096);
    expect(told(pages)).toEqual(['-5', '-6', '-7']);
    expect(pages.count).toBe(0);
  });

  it('that come and go before anybody was told are none', () => {
    const pages = new TrackedPages();
    pages.linked(0x5000, 4096);
    pages.unlinked(0x5000, 4096);
    expect(pages.pending).toBe(0);
    expect(told(pages)).toEqual([]);
  });

  it('begin again when their memory has come', () => {
    const pages = new TrackedPages();
    pages.linked(0x5000, 4096);
    pages.linked(0x9000, 4096);
    told(pages);
    pages.renew(4, 6);
    expect(told(pages)).toEqual(['+5']);
    expect(told(pages)).toEqual([]);
  });

  it('end where memory has come and the table went before that was told', () => {
    const pages = new TrackedPages();
    pages.linked(0x5000, 4096);
    told(pages);
    pages.renew(4, 6);
    pages.unlinked(0x5000, 4096);
    expect(told(pages)).toEqual(['-5']);
    pages.linked(0x5000, 4096);
    expect(told(pages)).toEqual(['+5']);
  });

  it('begin again where memory has come and the table went and came before that was told', () => {
    const pages = new TrackedPages();
    pages.linked(0x5000, 4096);
    told(pages);
    pages.renew(4, 6);
    pages.unlinked(0x5000, 4096);
    pages.linked(0x5000, 4096);
    expect(told(pages)).toEqual(['+5']);
  });
});
