// The contract in TypeScript: numbers, and messages as types. As the formatter would have it.
import { doc, HEADER } from './text.mjs';

const TYPES = {
  uint32: 'number',
  fixed32: 'number',
  bool: 'boolean',
  string: 'string',
  bytes: 'Uint8Array',
  uint32s: 'ArrayLike<number>',
  fixed32s: 'ArrayLike<number>',
  map: 'Record<string, string>',
};

function constant({ constant: name, comment, entries }) {
  const lines = entries.map((entry) => `${doc(entry.comment, '  ')}  ${entry.name}: ${entry.number},\n`);
  return `\n${doc(comment)}export const ${name} = {\n${lines.join('')}} as const;\n`;
}

/** Every enumeration as an object of numbers. */
export function numbersFile({ enums }) {
  return HEADER + enums.map(constant).join('');
}

function interfaceOf({ type, comment, fields }) {
  if (fields.length === 0) return `\n${doc(comment)}export type ${type} = Record<never, never>;\n`;
  const lines = fields.map((field) => {
    if (TYPES[field.kind] === undefined) throw new Error(`${type}.${field.name}: ${field.kind} is not known`);
    return `${doc(field.comment, '  ')}  ${field.name}: ${TYPES[field.kind]};\n`;
  });
  return `\n${doc(comment)}export interface ${type} {\n${lines.join('')}}\n`;
}

const byNumber = (rows) =>
  rows.map(({ number, message }) => `  [MESSAGE.${number}]: ${message.type};\n`).join('');

/** Every message as a type, and which message number has which of them. */
export function messagesFile({ messages, bodies, replies }) {
  return [
    HEADER,
    `import type { MESSAGE } from './numbers.js';\n`,
    ...messages.map(interfaceOf),
    `\n/** Bodies by message number. */\nexport interface Bodies {\n${byNumber(bodies)}}\n`,
    `\n/** Bodies of replies by message number: of what is answered. */\n`,
    `export interface Replies {\n${byNumber(replies)}}\n`,
  ].join('');
}
