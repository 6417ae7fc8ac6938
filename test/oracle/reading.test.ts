import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { disagreements, flawOf, Ledger, type Reading, Slate } from './reading.js';

const reading: Reading = {
  outcome: { translated: 1, output: 0x5000n },
  writes: new Map([[0x100n, 0x21n]]),
  flaw: (log2) => (log2 > 12 ? 'too large' : undefined),
};
const ours = { translated: 1, output: 0x5000n, log2: 12, permissions: 1 };
const memory = (words: Record<number, bigint>, before: Record<number, bigint> = {}) => ({
  before: new Map(Object.entries(before).map(([at, value]) => [Number(at), value])),
  now: (address: number) => words[address],
});

/** Modules that a file takes more than types from, and theirs. */
function modules(file: URL, found = new Set<string>()): Set<string> {
  if (found.has(file.href)) return found;
  found.add(file.href);
  const text = readFileSync(file, 'utf8');
  for (const [, from] of text.matchAll(/^import (?!type )[^;]*? from '(\.[^']+)';/gm)) {
    modules(new URL(from.replace(/\.js$/, '.ts'), file), found);
  }
  return found;
}

describe('the readers', () => {
  it.each(['reader-vtd.ts', 'reader-smmu.ts', 'reader-smmu-walk.ts'])(
    '%s shares nothing with src',
    (name) => {
      const all = [...modules(new URL(name, import.meta.url))];
      expect(all.length).toBeGreaterThan(1);
      expect(all.filter((href) => href.includes('/src/'))).toEqual([]);
    },
  );
});

describe('our side and the third reading', () => {
  it('agree', () => {
    expect(disagreements(ours, reading, memory({ 256: 0x21n }, { 256: 1n }))).toEqual([]);
  });

  it.each([
    ['another output', { ...ours, output: 0x6000n }, { 256: 0x21n }, { 256: 1n }, 'output'],
    ['a fault', { translated: 0 }, { 256: 0x21n }, { 256: 1n }, 'translated'],
    ['an answer that is too large', { ...ours, log2: 13 }, { 256: 0x21n }, { 256: 1n }, 'too large'],
    ['a flag that was not set', ours, { 256: 1n }, {}, 'word at 0x100'],
    ['a flag that was set', ours, { 256: 0x21n, 264: 0x61n }, { 256: 1n, 264: 0x41n }, 'word at 0x108'],
  ] as const)('differ by %s', (_name, shown, words, before, says) => {
    expect(disagreements(shown, reading, memory(words, before)).join()).toContain(says);
  });

  it('spares a bit that a cache may have kept from being set, and no other', () => {
    const spared = { ...reading, spared: 0x100n };
    expect(disagreements(ours, spared, memory({ 256: 1n }))).toEqual([]);
    expect(disagreements(ours, spared, memory({ 256: 0x41n }, { 256: 1n }))).toHaveLength(1);
  });
});

describe('an answer', () => {
  const page = { address: 0x1234n, access: 1, output: 0x5234n, log2: 12, rights: 1 };
  const beside =
    (rights: number, output = 0x4000n) =>
    (at: bigint) =>
      at >> 12n === 1n ? page : { output, log2: 12, rights };
  const look = (at: bigint) =>
    at >> 12n === 1n ? { ...page, output: 0x5000n } : { output: 0x4000n, log2: 12, rights: 1 };

  it.each([
    ['the page', 12, 1, undefined],
    ['a page joined with its neighbour', 13, 1, undefined],
    ['rights that are not there', 12, 3, 'rights'],
    ['without the right that was asked for', 12, 0, 'rights'],
    ['larger than what is mapped alike', 14, 1, 'something else'],
  ])('of %s', (_name, log2, permissions, says) => {
    const flaw = flawOf(page, { log2, permissions }, look);
    if (says === undefined) expect(flaw).toBeUndefined();
    else expect(flaw).toContain(says);
  });

  it('that is larger than the page needs the same rights everywhere', () => {
    expect(flawOf(page, { log2: 13, permissions: 1 }, beside(0))).toContain('something else');
  });
});

describe('what the unit has written', () => {
  it.each([
    ['flags of a paging entry', ['stage 1'], false],
    ['flags of what is a structure too', ['stage 1', 'structure'], true],
    ['flags of an entry of both stages', ['stage 1', 'stage 2'], true],
  ] as const)('%s', (_name, roles, muddled) => {
    const ledger = new Ledger();
    const slate = new Slate(() => 1n, ledger);
    for (const role of roles) slate.word(0x100n, role);
    ledger.flagged(0x100);
    expect(ledger.muddled).toBe(muddled);
  });

  it('anything upon what was read leaves nothing to decide', () => {
    const ledger = new Ledger();
    new Slate(() => 1n, ledger).words(0x100n, 2);
    ledger.stored(0x200);
    expect(ledger.muddled).toBe(false);
    ledger.stored(0x108);
    expect(ledger.muddled).toBe(true);
  });
});
