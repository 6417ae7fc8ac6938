// Encoders and decoders of the contract's messages, in TypeScript. As the formatter would have it.
import { HEADER } from './text.mjs';

const WIRE_TYPE = { uint32: 0, bool: 0, fixed32: 5, string: 2, bytes: 2, uint32s: 2, fixed32s: 2, map: 2 };
const DEFAULT = {
  uint32: '0',
  fixed32: '0',
  bool: 'false',
  string: `''`,
  bytes: 'NO_BYTES',
  uint32s: 'EMPTY',
  fixed32s: 'EMPTY',
  map: '{}',
};

const tag = ({ id, kind }) => id * 8 + WIRE_TYPE[kind];

function clearing({ fields }) {
  if (fields.length === 0) return '    () => {},\n';
  const lines = fields.map(({ name, kind }) => `      m.${name} = ${DEFAULT[kind]};\n`);
  return `    (m) => {\n${lines.join('')}    },\n`;
}

/** What is at its default, or is not there, is left out, as proto3 has it. */
function encodeField(field) {
  const ref = `m.${field.name}`;
  const write = `w.uint32(${tag(field)}).${field.kind}(${ref});\n`;
  if (field.kind === 'map') {
    return (
      `      for (const key of Object.keys(${ref} ?? {})) {\n` +
      `        w.uint32(${tag(field)}).entry(key, ${ref}[key] as string);\n` +
      '      }\n'
    );
  }
  if (/s$/.test(field.kind)) return `      if (${ref}?.length) ${write}`;
  return `      if (${ref}) ${write}`;
}

function encoding({ fields }) {
  if (fields.length === 0) return '    () => {},\n';
  return `    (m, w) => {\n${fields.map(encodeField).join('')}    },\n`;
}

const branch = (number, statement) =>
  `          case ${number}:\n            ${statement};\n            break;\n`;

function decodeField(field) {
  const { name, id, kind } = field;
  const ref = `m.${name}`;
  if (kind === 'map') return branch(tag(field), `r.entry(${ref})`);
  const one = { uint32s: 'uint32', fixed32s: 'fixed32' }[kind];
  if (one === undefined) return branch(tag(field), `${ref} = r.${kind}()`);
  // A list comes as one part, or, which no peer of ours does, as single values.
  const single = branch(id * 8 + WIRE_TYPE[one], `${ref} = r.single(${ref}, r.${one}())`);
  return branch(tag(field), `${ref} = r.${kind}(${ref})`) + single;
}

function decoding({ fields }) {
  if (fields.length === 0)
    return '    (_, r) => {\n      for (let tag = r.next(); tag !== 0; tag = r.next()) r.skip(tag);\n    },\n';
  return (
    '    (m, r) => {\n      for (let tag = r.next(); tag !== 0; tag = r.next()) {\n        switch (tag) {\n' +
    fields.map(decodeField).join('') +
    '          default:\n            r.skip(tag);\n        }\n      }\n    },\n'
  );
}

const codec = (message) =>
  `  ${message.name}: new Codec<M.${message.type}>(\n    '${message.name}',\n` +
  `${clearing(message)}${encoding(message)}${decoding(message)}  ),\n`;

const byNumber = (rows) =>
  rows.map(({ number, message }) => `  [MESSAGE.${number}]: CODEC.${message.name},\n`).join('');

/** The codec of every message, and which message number has which of them. */
export function codecsFile({ messages, bodies, replies }) {
  return [
    HEADER,
    `import { Codec, EMPTY, NO_BYTES } from '../body.js';\n`,
    `import type * as M from './messages.js';\n`,
    `import { MESSAGE } from './numbers.js';\n`,
    `\n/** Every message. */\nexport const CODEC = {\n${messages.map(codec).join('')}} as const;\n`,
    `\n/** Of bodies, by message number. */\nexport const BODY = {\n${byNumber(bodies)}} as const;\n`,
    '\n/** Of the bodies of replies, by message number. */\n',
    `export const REPLY = {\n${byNumber(replies)}} as const;\n`,
  ].join('');
}
