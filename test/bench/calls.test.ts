/**
 * How many functions a frame calls: figures that no load of the machine changes. ARCHITECTURE.md
 * names them.
 */
import { describe, expect, it } from 'vitest';
import { createModel, modelRegisterBytes } from '../../src/device/models.js';
import { CHANNEL, type ChannelName } from '../../src/session/session.js';
import { Bench } from '../../src/session/testing/bench.js';
import { CODEC, type Codec } from '../../src/wire/codec.js';
import { ALL_FEATURES, FEATURE, Frame, MESSAGE } from '../../src/wire/frame.js';
import { BodyWriter } from '../../src/wire/writer.js';
import { countCalls, total } from '../support/calls.js';
import { QUEUE, TestMachine } from '../support/vtd-unit.js';

const RID = 8;
const DID = 7;
const FRAMES = 16;
const TAIL = 0x88;
const STATUS = 0x2_0000;

/** A domain-selective IOTLB invalidation, and a wait that stores a status. */
const DOMAIN = [(DID << 16) | 0x22, 0, 0, 0];
const WAIT = [0x25, 1, STATUS, 0];

interface Raw {
  readonly frame: Frame;
  readonly bytes: Uint8Array;
  readonly channel: ChannelName;
}

function raw<T extends object>(
  type: number,
  codec: Codec<T>,
  message: T,
  channel: ChannelName = CHANNEL.FRONT,
  flags = 0,
  id = 1,
): Raw {
  const bytes = new Uint8Array(256);
  const writer = new BodyWriter();
  writer.start(bytes, 16);
  codec.encode(message, writer);
  return {
    frame: Object.assign(new Frame(), { type, flags, id, start: 16, end: writer.position }),
    bytes,
    channel,
  };
}

/** A VT-d behind a session, its queue enabled, with one page mapped. */
function start(features: number) {
  const unit = new TestMachine();
  const { memory } = unit;
  const context = unit.page();
  const root = unit.page();
  unit.entry(0x1000, BigInt(context) | 1n);
  unit.entry(context + RID * 16, BigInt(root) | 1n);
  unit.entry(context + RID * 16 + 8, BigInt((DID << 8) | 2));
  unit.mapSecond(root, 4, 0x4000_0000n, 0x30_0000n);
  const models = {
    modelRegisterBytes,
    createModel: ((name, options, ports) =>
      createModel(name, options, { ...ports, memory })) as typeof createModel,
  };
  const bench = new Bench({ models }).hello({ model: 'vtd', options: { 'scalable-mode': 'off' }, features });
  const write = (offset: number, size: number, lo: number): void =>
    bench.input(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset, size, lo, hi: 0 });
  write(0x20, 8, 0x1000);
  write(0x18, 4, 0x4000_0000);
  write(0x90, 8, QUEUE);
  write(0x18, 4, 0x8400_0000);
  const request = { rid: RID, pasid: 0, access: 1, lo: 0x4000_0000, hi: 0, kind: 0, mayStall: false };
  const translate = raw(MESSAGE.TRANSLATE, CODEC.Translate, { ...CODEC.Translate.create(), ...request });
  const input = ({ channel, frame, bytes }: Raw): void => bench.session.input(channel, frame, bytes);
  input(translate);
  return { bench, memory, input, translate, request };
}

/** Calls of one frame of `FRAMES`, without those of the bench that it answers. */
function perFrame(frames: readonly Raw[], input: (frame: Raw) => void): { calls: number; names: string[] } {
  const calls = countCalls(() => {
    for (const frame of frames) input(frame);
  });
  const names = [...calls].map(([name, count]) => `${count / frames.length} ${name}`).sort();
  return { calls: total(calls) / frames.length, names };
}

const same = (frame: Raw): Raw[] => Array.from({ length: FRAMES }, () => frame);

function hits(features: number) {
  const { input, translate } = start(features);
  return perFrame(same(translate), input);
}

/**
 * A doorbell for an invalidation and a wait, with nothing that was handed out since the last one.
 */
function suppressed(features: number) {
  const { bench, memory, input } = start(features);
  const doorbells = Array.from({ length: 40 }, (_, n) => {
    const at = QUEUE + n * 32;
    [...DOMAIN, ...WAIT].forEach((word, index) => {
      memory.store32(at + index * 4, word);
    });
    const message = { offset: TAIL, size: 4, lo: (n + 1) * 32, hi: 0 };
    return raw(MESSAGE.REG_WRITE, CODEC.RegWrite, message);
  });
  for (const doorbell of doorbells.slice(0, 24)) {
    input(doorbell);
    while (bench.session.invalidations.pending > 0) bench.ack();
  }
  memory.store32(STATUS, 0);
  const counted = perFrame(doorbells.slice(24), (frame) => {
    input(frame);
    while (bench.session.invalidations.pending > 0) bench.ack();
  });
  expect(memory.peek(STATUS)).toBe(1n);
  return counted;
}

function plainWrites(features: number) {
  const { input } = start(features);
  return perFrame(
    same(raw(MESSAGE.REG_WRITE, CODEC.RegWrite, { offset: 0x3c, size: 4, lo: 0, hi: 0 })),
    input,
  );
}

const WITHOUT = ALL_FEATURES & ~(FEATURE.QUEUES | FEATURE.PEER_WALKS);

describe('functions called', () => {
  it.each([
    ['a TRANSLATE that hits', hits, WITHOUT, 94],
    ['a TRANSLATE that hits, beside the peer', hits, ALL_FEATURES, 95],
    ['an invalidation of nothing, and its wait', suppressed, WITHOUT, 165],
    ['an invalidation, its answer, and its wait', suppressed, ALL_FEATURES, 280],
    ['a plain register write', plainWrites, WITHOUT, 56],
    ['a plain register write, beside the peer', plainWrites, ALL_FEATURES, 76],
  ] as const)('by %s', (what, count, features, most) => {
    const { calls, names } = count(features);
    if (process.env['VIOMMU_CALLS'] !== undefined) console.log(`${what}: ${calls}\n${names.join('\n')}`);
    expect(Math.floor(calls), names.join('\n')).toBeLessThanOrEqual(most);
    expect(calls, 'or this counts nothing').toBeGreaterThan(most * 0.7);
  });

  it('by a TRANSLATE that hits are none that looks at what is pending', () => {
    const { names } = hits(ALL_FEATURES);
    expect(
      names.filter((name) => /(session|shadow|nesting)\/.*(settle|pending|advance|publish)/.test(name)),
    ).toEqual([]);
  });
});
