/** What HELLO must say, and what the other channel may carry. */
import { describe, expect, it } from 'vitest';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, FLAG, MESSAGE, SHARED } from '../wire/frame.js';
import { CHANNEL } from './session.js';
import { Bench } from './testing/bench.js';
import { FAKE } from './testing/fake-model.js';

const SMALLEST = SHARED.REGISTERS + FAKE.BYTES + SHARED.RING_BYTES;
const MOST = 16 * 2 ** 20;

describe('HELLO', () => {
  it.each([SMALLEST - 4, SMALLEST + 2, MOST + 4])(
    'with a shared file of %i bytes is refused',
    (sharedBytes) => {
      expect(() => new Bench().hello({ sharedBytes })).toThrow(
        expect.objectContaining({ reason: 'BAD_SHARED_PAGE' }),
      );
    },
  );

  it.each([
    [SMALLEST, ALL_FEATURES],
    [SMALLEST - SHARED.RING_BYTES, ALL_FEATURES & ~FEATURE.QUEUES],
  ])('with one of %i bytes is not', (sharedBytes, features) => {
    expect(new Bench().hello({ sharedBytes, features }).translate(0x1000).status).toBe(0);
  });

  it('with a version of before the first is refused, one of after it is agreed down', () => {
    expect(() => new Bench().hello({ version: 0 })).toThrow(
      expect.objectContaining({ reason: 'BAD_VERSION' }),
    );
    const bench = new Bench().hello({ version: 9 });
    expect(bench.session.agreement?.version).toBe(1);
  });

  it('agrees on features that both know', () => {
    const bench = new Bench().hello({ features: 0xffff_ffff });
    expect(bench.session.agreement?.features).toBe(ALL_FEATURES);
  });
});

describe('the backend channel', () => {
  const input = (type: number, flags: number) => (): void => {
    const bench = new Bench().hello();
    bench.input(type, CODEC.Status, { code: 0, text: '' }, [], CHANNEL.BACKEND, flags, 1);
  };

  it.each([
    ['a request', MESSAGE.INVALIDATE, 0, 'OUT_OF_ORDER'],
    ['an answer that is not waited for', MESSAGE.INVALIDATE, FLAG.REPLY, 'UNEXPECTED_REPLY'],
    ['an answer to what the daemon never asks', MESSAGE.HELLO, FLAG.REPLY, 'UNEXPECTED_REPLY'],
    ['an unknown message', 9999, FLAG.REPLY, 'UNKNOWN_TYPE'],
  ])('ends the connection with %s', (_, type, flags, reason) => {
    expect(input(type, flags)).toThrow(expect.objectContaining({ reason }));
  });
});
