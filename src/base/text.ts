/**
 * Text from outside, made fit to be read: names of machines and devices, and what peers say. It is
 * shown as it is, but for what a terminal would obey instead of show, or a reader could not see:
 * control characters, what turns the direction of writing, spaces without a width. Those stand as
 * their numbers, `\u{1b}`.
 */

/** Printable ASCII: most text, and nothing to do. */
const PLAIN = /^[\x20-\x7e]*$/;
/**
 * Unicode's categories of control, format, surrogate, private and unassigned characters (C), line
 * and paragraph separators, every space but the ordinary one; what is made to be invisible; and an
 * empty pattern of Braille.
 */
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs}/gu;
/**
 * At its ends a name is not seen to have a space, and a mark would go on top of what stands before
 * it.
 */
const ENDS = /^[ \p{M}]| $/gu;

/** Characters of a machine's name; longer ones are cut. */
const MOST_MACHINE_NAME = 64;

const asNumber = (character: string): string => `\\u{${(character.codePointAt(0) as number).toString(16)}}`;

/** Text in one line. */
export function plainText(text: string): string {
  return PLAIN.test(text) ? text : text.normalize('NFC').replace(HIDDEN, asNumber);
}

/** A name of at most `most` characters, what is shown by its number counted as one. */
export function plainName(name: string, most: number): string {
  const characters =
    name.length > most
      ? Array.from(name.slice(0, 2 * most))
          .slice(0, most)
          .join('')
      : name;
  return plainText(characters).replace(ENDS, asNumber);
}

/**
 * A machine's name, as its maker wrote it, as it is shown everywhere: it is cut here, and nowhere a
 * second time.
 */
export function machineName(name: string): string {
  return plainName(name, MOST_MACHINE_NAME);
}

/** What of an object is text, in one line. */
export function plainFields<T extends object>(fields: T): T {
  let changed: Record<string, unknown> | undefined;
  for (const [key, value] of Object.entries(fields)) {
    if (typeof value !== 'string' || key === 'stack' || PLAIN.test(value)) continue;
    changed ??= { ...fields } as Record<string, unknown>;
    changed[key] = plainText(value);
  }
  return (changed as T | undefined) ?? fields;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * The beginning of a text that has at most `bytes` bytes in UTF-8, and ends with a whole character.
 */
export function cutToBytes(text: string, bytes: number): string {
  const encoded = encoder.encode(text);
  if (encoded.length <= bytes) return text;
  let end = bytes;
  while (end > 0 && ((encoded[end] as number) & 0xc0) === 0x80) end--;
  return decoder.decode(encoded.subarray(0, end));
}
