/** MEM_ADD: what a region needs of the peer, and memory that cannot be mapped. */
import { afterEach, describe, expect, it } from 'vitest';
import { ERRORS } from '../base/errors.js';
import { closeFd, memoryFile } from '../base/native.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../wire/frame.js';
import type * as M from '../wire/messages.js';
import { Bench } from './testing/bench.js';

const BYTES = 8192;
const fds: number[] = [];

afterEach(() => {
  for (const fd of fds.splice(0)) closeFd(fd);
});

function file(sealable = true): number {
  const fd = memoryFile('ram', BYTES, sealable);
  fds.push(fd);
  return fd;
}

/** Adds a region of {@link BYTES} bytes; returns the answer. */
function add(bench: Bench, change: Partial<M.MemAdd>, descriptors: number[] = []): M.Status {
  const message = { ...CODEC.MemAdd.create(), region: 1, sizeLo: BYTES, ...change };
  bench.input(MESSAGE.MEM_ADD, CODEC.MemAdd, message, descriptors);
  return bench.sent.at(-1)?.message as unknown as M.Status;
}

const loud = (bench: Bench): string[] => bench.log.filter((line) => line.startsWith('warn'));
const regions = ({ session }: Bench): [number, number] => [
  session.memory.regions,
  session.memory.remote.size,
];

describe('a region', () => {
  it.each([
    ['shared', true, FEATURE.SHARED_MEMORY],
    ['remote', false, FEATURE.REMOTE_MEMORY],
  ])('that is %s needs its feature, and the descriptor that belongs to it', (_, shared, feature) => {
    const without = new Bench({ fileBytes: BYTES }).hello({ features: ALL_FEATURES & ~feature });
    const descriptors = (): number[] => (shared ? [file()] : []);
    expect(() => add(without, { shared }, descriptors())).toThrow(
      expect.objectContaining({ reason: 'NOT_NEGOTIATED' }),
    );
    const bench = new Bench({ fileBytes: BYTES }).hello({
      features: ALL_FEATURES & ~(FEATURE.SHARED_MEMORY + FEATURE.REMOTE_MEMORY - feature),
    });
    const wrong = shared ? 'MISSING_DESCRIPTOR' : 'EXTRA_DESCRIPTOR';
    expect(() => add(bench, { shared }, shared ? [] : [file()])).toThrow(
      expect.objectContaining({ reason: wrong }),
    );
    expect(add(bench, { shared }, descriptors()).code).toBe(0);
    expect(regions(bench)).toEqual([1, shared ? 0 : 1]);
    expect(bench.events.at(-1)).toMatchObject({ kind: 'regionAdded', region: 1, size: BYTES, shared });
    bench.session.end();
  });

  it('that cannot be mapped is reached by messages, which the log says once for each reason', () => {
    const bench = new Bench({ fileBytes: BYTES - 8 }).hello();
    const { code, text } = add(bench, { shared: true }, [file()]);
    expect([code, text]).toEqual([0, expect.stringMatching(/^reached by messages: ./)]);
    expect(add(bench, { shared: true, region: 2, gpaLo: BYTES }, [file()]).code).toBe(0);
    expect([regions(bench), loud(bench).length]).toEqual([[2, 2], 1]);
    expect(bench.events.at(-1)).toMatchObject({ kind: 'regionAdded', shared: false });
    bench.session.end();
  });

  it('that cannot be mapped is refused where the peer serves no messages', () => {
    const features = ALL_FEATURES & ~FEATURE.REMOTE_MEMORY;
    const bench = new Bench({ fileBytes: BYTES - 8 }).hello({ features });
    expect(add(bench, { shared: true }, [file()]).code).toBe(ERRORS.FILE_TOO_SHORT.code);
    expect([regions(bench), loud(bench)]).toEqual([[0, 0], []]);
  });

  it('that is wrong by itself is refused, however it would be reached', () => {
    const bench = new Bench({ fileBytes: BYTES }).hello();
    expect(add(bench, { shared: true, sizeLo: 12 }, [file()]).code).toBe(ERRORS.BAD_REGION.code);
    expect(regions(bench)).toEqual([0, 0]);
  });

  it('whose file may shrink is mapped, which the log says once', () => {
    const bench = new Bench({ fileBytes: BYTES }).hello();
    for (const region of [1, 2, 3]) {
      const at = { shared: true, region, gpaLo: region * BYTES };
      expect(add(bench, at, [file(region === 1)]).code).toBe(0);
    }
    expect(loud(bench)).toEqual([
      'warn guest memory is in a file that may shrink: if it does, this daemon dies',
    ]);
    bench.session.end();
  });

  it('that goes is counted no more', () => {
    const bench = new Bench().hello();
    add(bench, {});
    add(bench, { region: 2, gpaLo: BYTES });
    expect(bench.ask(MESSAGE.MEM_REMOVE, { region: 1 }).code).toBe(0);
    expect(regions(bench)).toEqual([1, 1]);
    expect(bench.events.at(-1)).toMatchObject({ kind: 'regionRemoved', region: 1 });
  });
});
