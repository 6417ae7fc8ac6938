// The contract, proto/viommu.proto, as the makers of code and tables need it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import protobuf from 'protobufjs';
import { ROOT } from '../project.mjs';

const PROTO = join(ROOT, 'proto/viommu.proto');

/** TypeScript already has an `Error`. */
const TYPE_NAMES = { Error: 'ErrorMessage' };

/**
 * Enumerations that the code uses: their name there, the prefix that goes, and whether bits are
 * numbered.
 */
const ENUMS = [
  { name: 'WireNumber', constant: 'WIRE', prefix: 'WIRE_' },
  { name: 'WireFlag', constant: 'FLAG', prefix: 'WIRE_FLAG_' },
  { name: 'MessageType', constant: 'MESSAGE', prefix: '' },
  { name: 'Feature', constant: 'FEATURE', prefix: 'FEATURE_', bits: true },
  { name: 'NotifierFlag', constant: 'NOTIFY', prefix: 'NOTIFY_' },
  { name: 'SharedFile', constant: 'SHARED', prefix: 'SHARED_' },
  { name: 'ControlWord', constant: 'CONTROL', prefix: 'CONTROL_WORD_' },
];

const camelCase = (name) =>
  name.toLowerCase().replace(/(^|_)([a-z0-9])/g, (_, __, letter) => letter.toUpperCase());

function readEnum(namespace, { name, constant, prefix, bits = false }) {
  const { comment, comments, values } = namespace.lookupEnum(name);
  const entries = Object.entries(values)
    .filter(([value]) => value !== `${prefix}NONE`)
    .map(([value, number]) => ({
      name: value.slice(prefix.length),
      number: bits ? 2 ** number : number,
      comment: comments[value],
    }));
  return { constant, comment, entries };
}

function readField(field) {
  if (field.map && (field.keyType !== 'string' || field.type !== 'string')) {
    throw new Error(`${field.fullName}: only strings are mapped to strings`);
  }
  const { name, id, type, repeated, comment } = field.resolve();
  return { name, id, kind: field.map ? 'map' : repeated ? `${type}s` : type, comment };
}

/** Messages in the contract's order, enumerations, and which message has which body and reply. */
export function readContract(text = readFileSync(PROTO, 'utf8')) {
  const options = { alternateCommentMode: true, preferTrailingComment: true };
  const namespace = protobuf.parse(text, new protobuf.Root(), options).root.lookup('viommu');
  const messages = namespace.nestedArray
    .filter((item) => item instanceof protobuf.Type)
    .map(({ name, comment, fieldsArray }) => ({
      name,
      type: TYPE_NAMES[name] ?? name,
      comment,
      fields: fieldsArray.map(readField).sort((a, b) => a.id - b.id),
    }));
  const enums = ENUMS.map((item) => readEnum(namespace, item));
  const find = (name) => {
    const message = messages.find((item) => item.name === name);
    if (message === undefined) throw new Error(`there is no message ${name}`);
    return message;
  };
  const numbers = enums.find(({ constant }) => constant === 'MESSAGE').entries;
  const bodies = numbers.map(({ name }) => ({ number: name, message: find(camelCase(name)) }));
  const replies = ['Front', 'Backend'].flatMap((channel) =>
    namespace.lookupService(channel).methodsArray.map(({ name, requestType, responseType }) => {
      if (requestType !== camelCase(name)) throw new Error(`${name} has the body ${requestType}`);
      return { number: name, channel, message: find(responseType) };
    }),
  );
  return { messages, enums, bodies, replies };
}
