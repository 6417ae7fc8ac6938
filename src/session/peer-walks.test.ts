import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import type { InvalidateScope } from '../device/iommu.js';
import type { WalkTables } from '../device/tables.js';
import { vtdSecondStage } from '../spec/pagetable/vtd.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../wire/frame.js';
import { Bench } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const FORMAT = vtdSecondStage(
  {
    hostAddressWidth: 46,
    secondStage2M: true,
    secondStage1G: true,
    firstStage1G: true,
    snoopControl: false,
    transientMapping: false,
  },
  { levels: 4, inputBits: 48, accessedDirty: false },
);

/** A model whose requesters may be walked in the space that `space.now` says. */
function walked(features = ALL_FEATURES) {
  const space = { now: 1, allowed: true };
  const may = (_rid: number, _pasid: number, _hi: number, out: WalkTables): boolean => {
    Object.assign(out, { format: FORMAT, root: 0x12_0000_3000, space: space.now, sub: ANY });
    return space.allowed;
  };
  const bench = new Bench({
    models: {
      ...fakeModels,
      createModel: (_name, _options, ports) =>
        Object.assign(new FakeModel(ports), { peerWalk: { describe: may } }),
    },
  }).hello({ features });
  const told = () => bench.sent.filter((sent) => sent.type === MESSAGE.PEER_WALK).map((sent) => sent.message);
  const invalidate = (change: Partial<InvalidateScope>): void =>
    bench.invalidate({
      ...{ space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
      ...change,
    });
  return { bench, space, told, invalidate };
}

describe('tables that the peer walks', () => {
  it('are told at the first answer, once for each requester', () => {
    const { bench, told } = walked();
    bench.translate(0x1000);
    bench.translate(0x2000);
    expect(told()).toHaveLength(1);
    expect(told()[0]).toMatchObject({ rid: 8, pasid: 0, space: 1, sub: ANY, rootLo: 0x3000, rootHi: 0x12 });
    expect(told()[0]?.['levels']).toHaveLength(4 * 11);
    bench.write(FAKE.SPACE, 1);
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 1, rid: 16, name: '' });
    bench.translate(0x1000);
    expect(told()).toHaveLength(2);
  });

  it('are not told to a peer that does not walk, nor where the model says no', () => {
    const { bench, told } = walked(ALL_FEATURES & ~FEATURE.PEER_WALKS);
    bench.translate(0x1000);
    expect(told()).toHaveLength(0);
    const refused = walked();
    refused.space.allowed = false;
    refused.bench.translate(0x1000);
    expect(refused.told()).toHaveLength(0);
  });

  it('are told anew after an invalidation of structures, which says that all are void', () => {
    const { bench, told, invalidate } = walked();
    bench.translate(0x1000);
    invalidate({ space: 1 });
    bench.translate(0x1000);
    expect(told()).toHaveLength(1);
    invalidate({ rid: 0x99, structures: true });
    bench.translate(0x1000);
    expect(told()).toHaveLength(2);
    expect(bench.invalidations.map((sent) => sent.message['structures'])).toEqual([false, true]);
  });

  it('are told where the model said no, after an invalidation of structures that is not sent', () => {
    const { bench, space, told, invalidate } = walked();
    space.allowed = false;
    bench.translate(0x1000);
    space.allowed = true;
    bench.translate(0x1000);
    expect(told(), 'the model is asked once').toHaveLength(0);
    invalidate({ space: 2 });
    bench.translate(0x1000);
    expect(told(), 'structures are the same').toHaveLength(0);
    invalidate({ space: 2, structures: true });
    expect(bench.invalidations).toHaveLength(0);
    bench.translate(0x1000);
    expect(told()).toHaveLength(1);
  });

  it('make that no invalidation is left out', () => {
    const { bench, invalidate } = walked();
    bench.translate(0x1000);
    for (let n = 0; n < 3; n++) invalidate({ space: 1 });
    invalidate({ space: 2 });
    invalidate({ space: 2, structures: true });
    expect(bench.invalidations.map((sent) => sent.message['space'])).toEqual([1, 1, 1, 2]);
  });

  it('of another requester become void, and what was found in them still has to be dropped', () => {
    const { bench, invalidate } = walked();
    bench.translate(0x1000);
    invalidate({ space: 1 });
    invalidate({ rid: 0x99, structures: true });
    invalidate({ space: 1, lo: 0x5000, log2Size: 12 });
    expect(bench.invalidations).toHaveLength(3);
  });

  it('are void after a reset', () => {
    const { bench, told } = walked();
    bench.translate(0x1000);
    bench.input(MESSAGE.RESET, CODEC.Reset, {});
    expect(bench.invalidations.at(-1)?.message).toMatchObject({ space: ANY, structures: true });
    bench.translate(0x1000);
    expect(told()).toHaveLength(2);
  });
});
