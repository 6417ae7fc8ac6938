import protobuf from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { contract } from '../../test/support/contract.js';
import { ERRORS } from '../base/errors.js';
import { HOST_ERRORS, type HostErrorName } from '../host/host-errors.js';
import { bodyCodec, CODEC, type Codec, isMessage, replyCodec } from './codec.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from './frame.js';
import { hostCode, hostResult } from './host-results.js';
import { BodyWriter } from './writer.js';

type Plain = Record<string, unknown>;

/** A value that every byte of the encoding depends on. */
function sample(field: protobuf.Field, seed: number): unknown {
  if (field instanceof protobuf.MapField) return { 'aw-bits': '48', [`k${seed}`]: 'x'.repeat(seed * 40) };
  const one = (i: number): unknown => {
    if (field.type === 'string') return 'ä'.repeat(seed % 5) + i;
    if (field.type === 'bytes') return Uint8Array.from({ length: seed * 97 }, (_, k) => k * 7 + i);
    if (field.type === 'bool') return seed % 2 === 1;
    return (0x9e3779b1 * (seed + i + field.id)) >>> (seed % 4 === 0 ? 24 : 0);
  };
  return field.repeated ? Array.from({ length: seed * 13 }, (_, i) => one(i)) : one(0);
}

function filled(type: protobuf.Type, seed: number): Plain {
  const message: Plain = {};
  for (const field of type.fieldsArray) message[field.name] = sample(field.resolve(), seed);
  return message;
}

function encode(codec: Codec<object>, message: Plain): Uint8Array {
  const bytes = new Uint8Array(70_000);
  const writer = new BodyWriter();
  writer.start(bytes, 5);
  codec.encode(message, writer);
  return bytes.slice(5, writer.position);
}

const all = Object.values(CODEC) as unknown as Codec<object>[];

/** As {@link Codec.decode} reads strings; protobufjs itself refuses what is not UTF-8. */
class TolerantReader extends protobuf.Reader {
  override stringVerify(): string {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.bytes());
  }
}

/** Bytes spoiled in some places, cut, or made longer: with the same seed the same. */
function spoiled(bytes: Uint8Array, seed: number): Uint8Array {
  let state = seed;
  const below = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % n;
  };
  const length = below(3) === 0 ? below(bytes.length + 12) : bytes.length;
  const result = Uint8Array.from({ length }, (_, i) => bytes[i] ?? below(256));
  for (let n = below(4); n > 0 && length > 0; n--) {
    result[below(Math.min(length, 40))] = [0, 0x80, 0xff, below(256), below(128), below(40)][
      below(6)
    ] as number;
  }
  return result;
}

describe('the contract', () => {
  it('has the numbers that the code uses, no more and no fewer', () => {
    const { NONE: _, ...types } = contract.lookupEnum('viommu.MessageType').values;
    expect(types).toEqual(MESSAGE);
    const features = contract.lookupEnum('viommu.Feature').values;
    expect(Object.keys(features).length).toBe(Object.keys(FEATURE).length);
    for (const [name, mask] of Object.entries(FEATURE))
      expect(1 << (features[`FEATURE_${name}`] as number)).toBe(mask);
    expect(ALL_FEATURES).toBe(Object.values(FEATURE).reduce((a: number, b) => a | b, 0));
  });

  it('has a body for every message number and a codec for every message', () => {
    for (const type of Object.values(MESSAGE)) expect(isMessage(type)).toBe(true);
    expect(isMessage(0)).toBe(false);
    expect(isMessage(19)).toBe(false);
    expect(isMessage(0xffff_ffff)).toBe(false);
    const namespace = contract.lookup('viommu') as protobuf.Namespace;
    const names = namespace.nestedArray.filter((x) => x instanceof protobuf.Type).map((x) => x.name);
    expect(Object.keys(CODEC).sort()).toEqual(names.sort());
    expect(bodyCodec(MESSAGE.TRANSLATE).name).toBe('Translate');
    expect(replyCodec(MESSAGE.TRANSLATE).name).toBe('TranslateReply');
  });

  it('has the results of host operations that the code uses, in their order', () => {
    const results = contract.lookupEnum('viommu.HostResult').values;
    for (const [name, number] of Object.entries(results)) {
      expect(hostCode(number)).toBe(name.replace('HOST_', ''));
      expect(hostResult(hostCode(number) as HostErrorName)).toBe(number);
    }
    expect(hostCode(Object.keys(results).length)).toBeUndefined();
    expect(Object.keys(results).length).toBe(Object.keys(HOST_ERRORS).length + 1);
  });

  it('numbers its errors once each, within a byte of varint', () => {
    const codes = Object.values(ERRORS).map((entry) => entry.code);
    expect(new Set(codes).size).toBe(codes.length);
    for (const code of codes) expect(code > 0 && code < 128).toBe(true);
  });
});

describe.each(all.map((codec) => [codec.name, codec] as const))('%s', (name, codec) => {
  const type = contract.lookupType(`viommu.${name}`);

  it.each([0, 1, 2, 3, 4, 9])('is encoded as protobufjs itself does, sample %i', (seed) => {
    const message = filled(type, seed);
    expect(encode(codec, message)).toEqual(new Uint8Array(type.encode(message).finish()));
  });

  it('leaves out fields that are not there', () => {
    expect(encode(codec, {})).toEqual(new Uint8Array(0));
  });

  it('comes back as it was, also after a fuller one', () => {
    for (const seed of [9, 1, 4]) {
      const message = filled(type, seed);
      const bytes = encode(codec, message);
      expect(
        type.toObject(codec.decode(bytes, 0, bytes.length) as never, { defaults: true, bytes: Uint8Array }),
      ).toEqual(type.toObject(type.decode(bytes), { defaults: true, bytes: Uint8Array }));
    }
    const empty = codec.decode(new Uint8Array(8), 3, 3);
    expect({ ...empty }).toEqual({ ...codec.create() });
  });

  it('is decoded, or refused, as protobufjs does with any bytes', () => {
    const plain = (message: object): unknown =>
      type.toObject(message as never, { defaults: true, bytes: Array });
    const messages = [0, 1, 2, 4].map((seed) => encode(codec, filled(type, seed)));
    let refused = 0;
    for (let seed = 1; seed <= 400; seed++) {
      const bytes = spoiled(messages[seed % 4] as Uint8Array, seed * 7919 + name.length);
      let wanted: unknown = 'BAD_BODY';
      try {
        wanted = plain(type.decode(new TolerantReader(bytes)));
      } catch {
        refused++;
      }
      let found: unknown;
      try {
        found = plain(codec.decode(bytes, 0, bytes.length));
      } catch (error) {
        found = (error as { reason?: string }).reason;
      }
      expect(found, `seed ${seed}: ${Array.from(bytes.subarray(0, 60))}`).toEqual(wanted);
    }
    expect(refused).toBeGreaterThan(20);
    expect(refused).toBeLessThan(380);
  });

  it('has exactly the fields of the contract', () => {
    expect(Object.keys(codec.create()).sort()).toEqual(type.fieldsArray.map((field) => field.name).sort());
  });

  it('reads an explicit zero as zero, and skips what it does not know', () => {
    const bytes = Uint8Array.from([0xa0, 0x3f, 0x05, 0xad, 0x3f, 1, 2, 3, 4]);
    const numbers = type.fieldsArray.filter((field) => field.type === 'uint32' && !field.repeated);
    const tag = (id: number): number[] => (id < 16 ? [id << 3] : [((id << 3) & 0x7f) | 0x80, id >> 4]);
    const zeros = numbers.flatMap((field) => [...tag(field.id), 0]);
    const both = Uint8Array.from([...zeros, ...bytes]);
    const message = codec.decode(both, 0, both.length) as unknown as Plain;
    for (const field of numbers) expect(message[field.name]).toBe(0);
  });
});

it('a long list of words is encoded as a short one is, also as a part of a larger array', () => {
  const codec = CODEC.HostBatch as unknown as Codec<object>;
  const all = Uint32Array.from({ length: 2048 * 7 + 5 }, (_, i) => (i * 0x9e3779b1) >>> 0);
  for (const count of [511, 512, 2048 * 7]) {
    const ops = all.subarray(5, 5 + count);
    const bytes = encode(codec, { device: 3, ops });
    expect(bytes).toEqual(encode(codec, { device: 3, ops: Array.from(ops) }));
    expect(Array.from(CODEC.HostBatch.decode(bytes, 0, bytes.length).ops)).toEqual(Array.from(ops));
  }
});

describe('a body that is not the message', () => {
  it.each([
    ['cut inside a value', [0x25, 1, 2]],
    ['with an endless varint', new Array(12).fill(0xff)],
    ['with a length beyond its end', [0x1a, 0x7f, 1]],
    ['with a group that never ends', [0x0b, 0x08]],
    ['with field number 0', [0x00, 0x00]],
  ])('%s is BAD_BODY', (_, bytes) => {
    const bad = Uint8Array.from([...bytes, ...new Array(64).fill(0x55)]);
    expect(() => CODEC.Translate.decode(bad, 0, bytes.length)).toThrow(
      expect.objectContaining({ reason: 'BAD_BODY' }),
    );
  });

  it('a string that is not UTF-8 has U+FFFD where it is wrong', () => {
    const decoded = (...bytes: number[]): string => {
      const body = Uint8Array.from([0x1a, bytes.length, ...bytes]);
      return CODEC.Hello.decode(body, 0, body.length).vm;
    };
    expect(decoded(0xc3, 0x28)).toBe('\ufffd(');
    expect(decoded(0x61, 0xc3)).toBe('a\ufffd');
    expect(decoded(0xff, 0x62)).toBe('\ufffdb');
    // A surrogate, a long form, a number above Unicode's.
    expect(decoded(0xed, 0xa0, 0x80)).toMatch(/^\ufffd+$/);
    expect(decoded(0xc0, 0xaf)).toMatch(/^\ufffd+$/);
    expect(decoded(0xf4, 0x90, 0x80, 0x80)).toMatch(/^\ufffd+$/);
    expect(decoded(0xef, 0xbb, 0xbf, 0x63)).toBe('\ufeffc');
    expect(decoded(0xc3, 0xa9)).toBe('é');
  });

  it('a string that is longer than its body is BAD_BODY', () => {
    const bad = Uint8Array.from([0x1a, 3, 0x61, 0x62]);
    expect(() => CODEC.Hello.decode(bad, 0, bad.length)).toThrow(
      expect.objectContaining({ reason: 'BAD_BODY' }),
    );
  });
});
