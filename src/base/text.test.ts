import { describe, expect, it } from 'vitest';
import { cutToBytes, plainFields, plainName, plainText } from './text.js';

describe('text of others', () => {
  it.each(['web1', 'Büro – Prüfstand 3', '日本語の名前', 'Приём', 'نص', '𝔘𝔫𝔦', '👍', 'a b', 'C:\\x'])(
    'is shown as it is: %s',
    (text) => {
      expect(plainText(text)).toBe(text);
      expect(plainName(text, 64)).toBe(text);
    },
  );

  it.each([
    ['\x1b[2Jx', '\\u{1b}[2Jx'],
    ['a\r\nb\tc', 'a\\u{d}\\u{a}b\\u{9}c'],
    ['nul\0', 'nul\\u{0}'],
    ['del\x7f, c1 \x9b31m', 'del\\u{7f}, c1 \\u{9b}31m'],
    ['a\u202eb\u2066c\u200f', 'a\\u{202e}b\\u{2066}c\\u{200f}'],
    ['zero\u200bwidth\u200d\ufeff', 'zero\\u{200b}width\\u{200d}\\u{feff}'],
    ['no\u00a0break\u3000wide', 'no\\u{a0}break\\u{3000}wide'],
    ['line\u2028paragraph\u2029', 'line\\u{2028}paragraph\\u{2029}'],
    ['filler\u3164\u115f', 'filler\\u{3164}\\u{115f}'],
    ['tag\u{e0041}, private\ue000', 'tag\\u{e0041}, private\\u{e000}'],
    ['half \ud83d, other half \udc4d', 'half \\u{d83d}, other half \\u{dc4d}'],
    ['selector\ufe0f', 'selector\\u{fe0f}'],
  ])('has what would not be seen, or would be obeyed, as numbers: %j', (text, shown) => {
    expect(plainText(text)).toBe(shown);
  });

  it('no single character gets through that is a control or turns the direction of writing', () => {
    for (let code = 0; code < 0x11_0000; code++) {
      const shown = plainText(`a${String.fromCodePoint(code)}`);
      const turns = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
      const controls = code < 0x20 || (code >= 0x7f && code < 0xa0);
      if (turns || controls) expect(shown).toBe(`a\\u{${code.toString(16)}}`);
    }
  });

  it('is the same where it looks the same', () => {
    expect(plainName('e\u0301', 64)).toBe(plainName('\u00e9', 64));
  });
});

describe('names', () => {
  it('have no spaces and marks at their ends', () => {
    expect(plainName(' a ', 64)).toBe('\\u{20}a\\u{20}');
    expect(plainName('\u0301a', 64)).toBe('\\u{301}a');
    expect(plainName('a\u030a b', 64)).toBe('å b');
  });

  it('are cut between characters', () => {
    expect(plainName('é'.repeat(100), 64)).toBe('é'.repeat(64));
    expect(plainName('👍'.repeat(100), 64)).toBe('👍'.repeat(64));
    expect(plainName(`${'a'.repeat(63)}👍b`, 64)).toBe(`${'a'.repeat(63)}👍`);
    expect(plainName('\x1b'.repeat(3), 2)).toBe('\\u{1b}\\u{1b}');
  });
});

describe('fields', () => {
  it('of an object are made plain, stacks and what is no text left alone', () => {
    const fields = { a: 'x', n: 1, on: true, bad: '\x1b', stack: 'a\n b' };
    expect(plainFields(fields)).toEqual({ ...fields, bad: '\\u{1b}' });
    const plain = { a: 'x' };
    expect(plainFields(plain)).toBe(plain);
  });
});

describe('a text of so many bytes', () => {
  it('ends with a whole character', () => {
    expect(cutToBytes('abc', 3)).toBe('abc');
    expect(cutToBytes('abcd', 3)).toBe('abc');
    for (let bytes = 0; bytes < 12; bytes++) {
      const cut = cutToBytes('aé€👍é', bytes);
      expect(Buffer.from(cut).length).toBeLessThanOrEqual(bytes);
      expect('aé€👍é'.startsWith(cut)).toBe(true);
      expect(cut).not.toContain('\ufffd');
    }
    expect(cutToBytes('aé€👍é', 12)).toBe('aé€👍é');
  });
});
