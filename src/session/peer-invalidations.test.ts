/**
 * Which devices an INVALIDATE names: those that may hold something, whatever the tables say by
 * then.
 */
import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import type { InvalidateScope, SpacesView } from '../device/iommu.js';
import type { WalkTables } from '../device/tables.js';
import { vtdSecondStage } from '../spec/pagetable/vtd.js';
import { CODEC } from '../wire/codec.js';
import { MESSAGE, NOTIFY } from '../wire/frame.js';
import { Bench } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const RID = 8;
const OTHER = 9;
const FORMAT = vtdSecondStage(
  {
    ...{ hostAddressWidth: 46, secondStage2M: true, secondStage1G: true, firstStage1G: true },
    ...{ snoopControl: false, transientMapping: false },
  },
  { levels: 4, inputBits: 48, accessedDirty: false },
);

/**
 * A device that wants to hear of unmapping, behind a model whose structures say that no scope is
 * its own.
 */
function movedOn(walks?: { space: number }, concerns: SpacesView['concerns'] = () => false) {
  const change = {
    spaces: { concerns },
    ...(walks && {
      peerWalk: {
        describe: (_rid: number, _pasid: number, _hi: number, out: WalkTables) => {
          Object.assign(out, { format: FORMAT, root: 0x3000, space: walks.space, sub: ANY });
          return true;
        },
      },
    }),
  };
  const bench = new Bench({
    models: {
      ...fakeModels,
      createModel: (_name, _options, ports) => Object.assign(new FakeModel(ports), change),
    },
  }).hello();
  bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 1, rid: RID, name: 'nic' });
  bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 1, flags: NOTIFY.UNMAP });
  const invalidate = (scope: Partial<InvalidateScope>): unknown => {
    const before = bench.invalidations.length;
    bench.invalidate({
      ...{ space: ANY, sub: ANY, rid: ANY, pasid: ANY, lo: 0, hi: 0, log2Size: 64 },
      ...scope,
    });
    return bench.invalidations.slice(before).map((sent) => Array.from(sent.message['devices'] as number[]));
  };
  return { bench, invalidate };
}

describe('an invalidation', () => {
  it('names a device by the tags that its answers had, until all of them is invalidated', () => {
    const { bench, invalidate } = movedOn();
    bench.translate(0x1000);
    bench.write(FAKE.SPACE, 2);
    expect(invalidate({ space: 1, lo: 0x1000, log2Size: 12 })).toEqual([[1]]);
    expect(invalidate({ space: 3 })).toEqual([]);
    expect(invalidate({ space: 1 })).toEqual([[1]]);
    expect(invalidate({ space: 1 })).toEqual([]);
  });

  it('of one requester names no other', () => {
    const { bench, invalidate } = movedOn();
    bench.translate(0x1000);
    expect(invalidate({ space: 1, rid: 0x30 })).toEqual([[]]);
    expect(invalidate({ space: 1, rid: RID })).toEqual([[1]]);
  });

  it('names a device by the tags of tables that the peer walks for it, as long as it does', () => {
    const { bench, invalidate } = movedOn({ space: 7 });
    bench.translate(0x1000);
    for (let n = 0; n < 2; n++) expect(invalidate({ space: 7 })).toEqual([[1]]);
    expect(invalidate({ space: 9, structures: true })).toEqual([[]]);
    expect(invalidate({ space: 7 })).toEqual([[1]]);
    expect(invalidate({ space: 7 })).toEqual([]);
  });

  it('of one PASID leaves what was handed out for others', () => {
    const { bench, invalidate } = movedOn();
    bench.translate(0x1000);
    for (const change of [{ pasid: 5 }, { sub: 5 }, { rid: RID }, { log2Size: 63 }]) {
      expect(invalidate({ space: 1, ...change })).toEqual([[1]]);
    }
    expect(invalidate({ space: 1 })).toEqual([[1]]);
    expect(invalidate({ space: 1, log2Size: 12 })).toEqual([]);
    // The same of what only the peer's cache may have.
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 1, flags: 0 });
    bench.translate(0x1000);
    expect([{ pasid: 5 }, {}, {}].map((change) => invalidate({ space: 1, ...change }))).toEqual([
      [[]],
      [[]],
      [],
    ]);
  });

  it('names devices by structures and by tags, each once', () => {
    const { bench, invalidate } = movedOn(undefined, (_scope, rid) => rid === RID);
    for (const [device, rid] of [
      [2, OTHER],
      [3, 10],
    ] as const) {
      bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device, rid, name: 'disk' });
      bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device, flags: NOTIFY.UNMAP });
    }
    const { invalidations } = bench.session;
    invalidations.handOut(RID, 1, ANY);
    invalidations.handOut(OTHER, 1, ANY);
    invalidations.handOut(10, 2, ANY);
    expect(invalidate({ space: 1, log2Size: 12 })).toEqual([[1, 2]]);
  });

  it('of a device with more tags than are told apart names it always', () => {
    const { bench, invalidate } = movedOn();
    for (let space = 1; space < 40; space++) {
      bench.write(FAKE.SPACE, space);
      bench.translate(0x1000);
    }
    expect(invalidate({ space: 39 })).toEqual([[1]]);
  });

  it('that others were merged into names every device that is notified', () => {
    const { bench, invalidate } = movedOn();
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 2, rid: OTHER, name: 'disk' });
    bench.input(MESSAGE.NOTIFIER, CODEC.Notifier, { device: 2, flags: NOTIFY.UNMAP });
    const { invalidations } = bench.session;
    invalidations.handOut(RID, 1, ANY);
    invalidations.handOut(OTHER, 2, ANY);
    while (invalidations.merged === 0) invalidate({ space: 2, log2Size: 12 });
    const before = bench.invalidations.length;
    while (bench.invalidations.length === before) bench.ack();
    expect(bench.invalidations[before]?.message).toMatchObject({ space: ANY, devices: [1, 2] });
    while (invalidations.pending > 0) bench.ack();
    // What has been handed out since then is held as before.
    invalidations.handOut(RID, 1, ANY);
    expect(invalidate({ space: 1 })).toEqual([[1]]);
  });

  it('names a device that has got another requester id by the tags of its former one', () => {
    const { bench, invalidate } = movedOn();
    bench.translate(0x1000);
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 1, rid: OTHER, name: 'nic' });
    expect(invalidate({ space: 1, lo: 0x1000, log2Size: 12 })).toEqual([[1]]);
    expect(invalidate({ space: 2, structures: true })).toEqual([]);
    bench.input(MESSAGE.DEVICE_ADDED, CODEC.DeviceAdded, { device: 1, rid: OTHER, name: 'renamed' });
    expect(invalidate({ space: 1 })).toEqual([[1]]);
    expect(invalidate({ space: 1 })).toEqual([]);
  });

  it('names a device by the tags of what a replay told it', () => {
    const { bench, invalidate } = movedOn();
    bench.ask(MESSAGE.REPLAY, { rid: RID, pasid: 0, lo: 0x1000, hi: 0 });
    bench.write(FAKE.SPACE, 2);
    expect(invalidate({ space: 2 })).toEqual([]);
    expect(invalidate({ space: 1, lo: 0x1000, log2Size: 12 })).toEqual([[1]]);
  });
});
