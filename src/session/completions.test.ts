import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { EVERYTHING, type InvalidateScope, type Iommu } from '../device/iommu.js';
import { Completions, type PendingWork } from './completions.js';
import { MOST_SCOPES, RecordedScopes } from './recorded-scopes.js';
import { Bench } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const scope = (space: number): InvalidateScope => ({
  ...{ space, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64, structures: false },
});

/** Work that a test makes pending, and a log of what happens. */
function start(acknowledged: (log: string[]) => void = () => {}) {
  const log: string[] = [];
  const work = {
    pending: 0,
    invalidated: ({ space }: InvalidateScope) => void log.push(`invalidated ${space}`),
    advance: () => void log.push('advance'),
  };
  const completions = new Completions({ deliver: () => false }, () => log.push('completing'));
  completions.register(work);
  const model = {
    acknowledged: () => {
      log.push('acknowledged');
      acknowledged(log);
    },
  } as unknown as Iommu;
  return { completions, work, model, log };
}

describe('completions', () => {
  it('count a scope as pending until it has been passed on, after the call that recorded it', () => {
    const { completions, model, log } = start();
    completions.record(scope(7));
    expect(completions.pendingForModel()).toBe(1);
    expect(completions.marked).toBe(true);
    expect(log).toEqual([]);
    completions.settle(model);
    expect(log).toEqual(['invalidated 7', 'advance', 'completing', 'acknowledged']);
    expect([completions.pending, completions.marked]).toEqual([0, false]);
  });

  it('call a model only if it was told that something is pending', () => {
    const { completions, work, model, log } = start();
    completions.record(scope(7));
    completions.settle(model);
    expect(log).toEqual(['invalidated 7', 'advance']);
    work.pending = 1;
    completions.mark();
    expect(completions.pendingForModel()).toBe(1);
    completions.settle(model);
    expect(log.slice(2)).toEqual(['advance']);
    work.pending = 0;
    completions.mark();
    completions.settle(model);
    expect(log.slice(3)).toEqual(['advance', 'completing', 'acknowledged']);
    completions.mark();
    completions.settle(model);
    expect(log.slice(6), 'once').toEqual(['advance']);
  });

  it('do not take nothing for known after a mark', () => {
    const { completions, work, model } = start();
    completions.mark();
    completions.settle(model);
    completions.mark();
    work.pending = 3;
    expect(completions.pendingForModel()).toBe(3);
  });

  it('go on with what a model invalidates when it goes on itself', () => {
    let left = 3;
    const { completions, model, log } = start(() => {
      if (left-- === 0) return;
      completions.record(scope(left));
      completions.pendingForModel();
    });
    completions.record(scope(9));
    completions.pendingForModel();
    completions.settle(model);
    expect(log.filter((line) => line.startsWith('inv'))).toEqual([
      'invalidated 9',
      'invalidated 2',
      'invalidated 1',
      'invalidated 0',
    ]);
    expect(log.at(-1)).toBe('acknowledged');
  });

  it('pause after many of them, where the host can be asked for an answer', () => {
    let calls = 0;
    const { completions, work, model } = start(() => {
      calls++;
      completions.record(scope(1));
      completions.pendingForModel();
    });
    (work as PendingWork).pause = () => {
      work.pending = 1;
      return true;
    };
    completions.record(scope(1));
    completions.pendingForModel();
    completions.settle(model);
    expect(calls).toBe(64);
    expect(completions.pending, 'the pause').toBe(1);
    work.pending = 0;
    completions.mark();
    completions.settle(model);
    expect(calls).toBe(128);
  });

  it('keep an answer until what it promises is done', () => {
    const { completions } = start();
    const sent: string[] = [];
    let done = false;
    completions.hold(() => done && sent.push('first') > 0);
    completions.hold(() => sent.push('second') > 0);
    completions.answer();
    expect(sent).toEqual(['second']);
    done = true;
    completions.answer();
    completions.answer();
    expect(sent).toEqual(['second', 'first']);
  });
});

describe('recorded scopes', () => {
  it('come out as they went in, however many', () => {
    const scopes = new RecordedScopes();
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 1000; n++)
        scopes.add({ ...scope(n), pasid: -1, lo: 0xffff_f000, structures: n % 2 === 0 });
      expect(scopes.count).toBe(1000);
      for (let n = 0; n < 1000; n++) {
        expect(scopes.take()).toEqual({ ...scope(n), pasid: -1, lo: 0xffff_f000, structures: n % 2 === 0 });
      }
      expect(scopes.take()).toBeUndefined();
    }
  });

  it('become one of everything when there are too many', () => {
    const scopes = new RecordedScopes();
    for (let n = 0; n <= MOST_SCOPES; n++) scopes.add(scope(n));
    scopes.add(scope(5));
    expect([scopes.take(), scopes.count]).toEqual([EVERYTHING, 1]);
    expect(scopes.take()).toEqual(scope(5));
  });
});

describe('a model', () => {
  class Observed extends FakeModel {
    readonly log: string[] = [];
    handled: () => number = () => 0;

    override writeRegister(...args: Parameters<FakeModel['writeRegister']>): void {
      super.writeRegister(...args);
      this.log.push(`returns from ${args[0]}`);
    }
    override acknowledged(): void {
      this.log.push(`acknowledged at ${this.handled()}`);
      super.acknowledged();
    }
  }

  it('is asked nothing in the middle of its call, and completes before the write counts as handled', () => {
    let model: Observed | undefined;
    const bench: Bench = new Bench({
      models: {
        ...fakeModels,
        createModel: (_name, _options, ports) => {
          model = new Observed(ports);
          const { log } = model;
          model.spaces = { concerns: () => log.push('concerns') === 0 };
          model.handled = () => bench.handled;
          return model;
        },
      },
    }).hello();
    bench.notified();
    bench.write(FAKE.TOKEN, 5);
    bench.write(FAKE.INVALIDATE, 3);
    expect(model?.log.slice(1)).toEqual([`returns from ${FAKE.INVALIDATE}`, 'concerns', 'acknowledged at 1']);
    expect([bench.register(FAKE.STATUS), bench.handled]).toEqual([5, 2]);
  });
});
