import { describe, expect, it } from 'vitest';
import { ANY } from '../base/ids.js';
import { type InvalidateScope, REQUEST } from '../device/iommu.js';
import type { WalkTables } from '../device/tables.js';
import type { PageTableFormat } from '../spec/pagetable/format.js';
import { ACCESS_FLAG, GRANULE, vmsaStage1 } from '../spec/pagetable/vmsa.js';
import { vtdFirstStage, vtdSecondStage } from '../spec/pagetable/vtd.js';
import { CODEC } from '../wire/codec.js';
import { ALL_FEATURES, FEATURE, MESSAGE } from '../wire/frame.js';
import { Bench } from './testing/bench.js';
import { FAKE, FakeModel, fakeModels } from './testing/fake-model.js';

const CAPS = {
  ...{ hostAddressWidth: 46, secondStage2M: true, secondStage1G: true, firstStage1G: true },
  ...{ snoopControl: false, transientMapping: false },
};
const FORMAT = vtdSecondStage(CAPS, { levels: 4, inputBits: 48, accessedDirty: false });

/** A model whose requesters may be walked in the space that `space.now` says. */
function walked(features = ALL_FEATURES, format: PageTableFormat = FORMAT) {
  const space = { now: 1, allowed: true };
  const may = (_rid: number, _pasid: number, _hi: number, out: WalkTables): boolean => {
    Object.assign(out, { format, root: 0x12_0000_3000, space: space.now, sub: ANY });
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

  it('are told with the input addresses that they are for', () => {
    const inputOf = (format: PageTableFormat): unknown[] => {
      const { bench, told } = walked(ALL_FEATURES, format);
      bench.translate(0x1000);
      const { signExtended, upper, inputLo, inputHi } = told()[0] ?? {};
      return [signExtended, upper, inputLo, inputHi];
    };
    expect(inputOf(FORMAT)).toEqual([false, false, 0, 0xffff_0000]);
    const first = vtdFirstStage(CAPS, { levels: 4, writeProtect: false, extendedAccessed: false });
    expect(inputOf(first)).toEqual([true, false, 0, 0xffff_8000]);
    const ttb1 = vmsaStage1({
      ...{ granule: GRANULE.KIB_4, inputBits: 25, outputBits: 44, largePhysical: false },
      ...{ accessFlag: ACCESS_FLAG.FAULT, dirtyState: false, upper: true, topByteIgnored: false },
      ...{ hierarchical: true, writeExecuteNever: false, privilegedAccessNever: false },
      singlePrivilege: false,
    });
    expect(inputOf(ttb1)).toEqual([false, true, 0xfe00_0000, 0xffff_ffff]);
  });

  it('are not told for an address that is translated already: it is of another input space', () => {
    const { bench, told } = walked();
    const request = { rid: 8, pasid: 0, access: 1, lo: 0x1000, hi: 0, mayStall: false, size: 0 };
    bench.ask(MESSAGE.TRANSLATE, { ...request, kind: REQUEST.TRANSLATED });
    expect(told()).toHaveLength(0);
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
